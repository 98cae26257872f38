//! The compute API: servers and what belongs to them (nova/api/openstack/compute/).

mod aggregates;
mod assisted_volume_snapshots;
mod availability_zones;
mod extensions;
mod flavor_access;
mod flavor_extra_specs;
mod flavors;
mod hosts;
mod hypervisors;
mod input;
mod instance_actions;
mod interfaces;
mod keypairs;
mod limits;
mod links;
mod migrations;
mod moves;
mod options;
mod orders;
mod proxies;
mod quotas;
mod remote_consoles;
mod server_admin;
mod server_external_events;
mod server_facts;
mod server_groups;
mod server_metadata;
mod server_networks;
mod server_tags;
pub mod servers;
mod services;
#[cfg(test)]
pub(crate) mod test_support;
mod usage;
mod versions;
mod volume_attachments;
mod zones;

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::contracts::{IdentityService, ImageService};
use nova_core::entropy::Entropy;
use nova_core::network::NetworkService;
use nova_core::volume::BlockStorage;
use nova_db::Store;

use crate::image::ImageManager;
use crate::live::Live;
use crate::network::{NetworkManager, NeutronClient};

pub(crate) use moves::spec_of;
pub use options::{COMPUTE_API_OPTIONS, ComputeOptions, RECLAIM_INSTANCE_INTERVAL};
pub use orders::{OrderError, Orders};

use super::{Application, NovaDialect};

/// What the resources of the compute API share.
#[derive(Clone)]
pub struct ComputeApi {
    /// Every fact.
    pub store: Arc<dyn Store>,
    /// Images to boot from.
    pub images: Arc<dyn ImageService>,
    /// Tokens.
    pub identity: Arc<dyn IdentityService>,
    /// The same, where they are kept here: what compute's old calls about images are passed on to.
    pub image_books: Option<Arc<ImageManager>>,
    /// Interfaces of servers.
    pub network: Arc<dyn NetworkService>,
    /// The books of networks, where they are kept here: what compute's old calls about networks are passed on to.
    pub books: Option<Arc<NetworkManager>>,
    /// An outside Neutron, where that keeps them: the same calls are passed on to it.
    pub neutron: Option<NeutronClient>,
    /// Volumes of servers; without it they have none.
    pub volumes: Option<Arc<dyn BlockStorage>>,
    /// Conductors and hosts.
    pub orders: Arc<dyn Orders>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: ids and passwords.
    pub entropy: Arc<dyn Entropy>,
    /// The configuration; may be replaced while it serves.
    pub options: Live<ComputeOptions>,
}

/// Name of the compute API in `enabled_apis` and pipelines, as in Nova's `api-paste.ini`.
pub const APPLICATION: &str = "osapi_compute";

/// The compute API at `/compute`, with all resources that come with it. A builder adds theirs with
/// [`Application::resource`], server actions included.
pub fn compute_application(deps: Arc<ComputeApi>) -> Application {
    let dialect = Arc::new(NovaDialect);
    Application::new(APPLICATION, "/compute", dialect)
        .prefixes(&["/v2.1", "/v2"])
        .project_in_path()
        .root(Arc::new(versions::Versions))
        .with_server_actions()
        .resource(Arc::new(servers::Servers::new(Arc::clone(&deps))))
        .resource(Arc::new(flavors::Flavors::new(Arc::clone(&deps))))
        .resource(Arc::new(flavor_access::FlavorAccess::new(Arc::clone(&deps))))
        .resource(Arc::new(flavor_extra_specs::FlavorExtraSpecs::new(Arc::clone(&deps))))
        .resource(Arc::new(keypairs::Keypairs::new(Arc::clone(&deps))))
        .resource(Arc::new(limits::LimitsResource::new(Arc::clone(&deps))))
        .resource(Arc::new(services::Services::new(Arc::clone(&deps))))
        .resource(Arc::new(hypervisors::Hypervisors::new(Arc::clone(&deps))))
        .resource(Arc::new(instance_actions::InstanceActions::new(Arc::clone(&deps))))
        .resource(Arc::new(extensions::Extensions))
        .resource(Arc::new(moves::Moves::new(Arc::clone(&deps))))
        .resource(Arc::new(migrations::Migrations::new(Arc::clone(&deps))))
        .resource(Arc::new(aggregates::Aggregates::new(Arc::clone(&deps))))
        .resource(Arc::new(server_groups::ServerGroups::new(Arc::clone(&deps))))
        .resource(Arc::new(interfaces::Interfaces::new(Arc::clone(&deps))))
        .resource(Arc::new(volume_attachments::VolumeAttachments::new(Arc::clone(&deps))))
        .resource(Arc::new(server_networks::ServerNetworkActions::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::Networks::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::FloatingIps::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::SecurityGroups::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::Images::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::Volumes::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::ImageMetadata::new(Arc::clone(&deps))))
        .resource(Arc::new(assisted_volume_snapshots::AssistedVolumeSnapshots::new(Arc::clone(&deps))))
        .resource(Arc::new(proxies::Gone))
        .resource(Arc::new(versions::VersionDocuments))
        .resource(Arc::new(proxies::BaremetalNodes))
        .resource(Arc::new(server_admin::ServerAdmin::new(Arc::clone(&deps))))
        .resource(Arc::new(server_metadata::ServerMetadata::new(Arc::clone(&deps))))
        .resource(Arc::new(server_tags::ServerTags::new(Arc::clone(&deps))))
        .resource(Arc::new(server_facts::ServerFacts::new(Arc::clone(&deps))))
        .resource(Arc::new(remote_consoles::RemoteConsoles::new(Arc::clone(&deps))))
        .resource(Arc::new(hosts::Hosts::new(Arc::clone(&deps))))
        .resource(Arc::new(usage::TenantUsage::new(Arc::clone(&deps))))
        .resource(Arc::new(usage::UsageAudit::new(Arc::clone(&deps))))
        .resource(Arc::new(quotas::QuotaSets::new(Arc::clone(&deps))))
        .resource(Arc::new(quotas::QuotaClassSets::new(Arc::clone(&deps))))
        .resource(Arc::new(server_external_events::ServerExternalEvents::new(Arc::clone(&deps))))
        .resource(Arc::new(availability_zones::AvailabilityZones::new(deps)))
}
