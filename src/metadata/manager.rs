//! Reading the document of a server.

use std::sync::Arc;

use nova_core::context::RequestContext;
use nova_core::contracts::{NetworkService, NetworkServiceError};
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId, PortId, RequestId};
use nova_core::instance::Instance;
use nova_core::metadata::{
    GuestDisk, GuestKey, InstanceMetadata, TaggedVolume, as_password, keep_password, kept_password,
};
use nova_core::network::Vif;
use nova_core::rpc::conductor::{GetMetadataRequest, SetPasswordRequest};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::volume::ServerVolume;
use nova_db::{ComputeStore, StoreError};
use nova_queue::{HandlerError, Incoming};

use super::GuestOptions;

/// Tries to write past other writers.
const TRIES: usize = 5;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The store.
    #[error("the store cannot be used")]
    Store(#[source] StoreError),
    /// Others change the server all the time.
    #[error("{instance} is being changed by others")]
    Busy {
        /// The server.
        instance: InstanceId,
    },
    /// The network service.
    #[error("the interfaces of {instance} cannot be read")]
    Network {
        /// The server.
        instance: InstanceId,
        /// What happened.
        #[source]
        source: NetworkServiceError,
    },
}

/// Knows what guests may learn. Cheap to clone.
#[derive(Clone)]
pub struct MetadataManager {
    store: Arc<dyn ComputeStore>,
    network: Option<Arc<dyn NetworkService>>,
    entropy: Arc<dyn Entropy>,
    options: GuestOptions,
}

impl MetadataManager {
    /// Over these collaborators. Without a network service there are no interfaces.
    pub fn new(
        store: Arc<dyn ComputeStore>,
        network: Option<Arc<dyn NetworkService>>,
        entropy: Arc<dyn Entropy>,
        options: GuestOptions,
    ) -> Self {
        Self { store, network, entropy, options }
    }

    /// Randomness for what is in documents.
    pub(super) fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// A server, unless there is none or it was deleted.
    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, MetadataError> {
        match self.store.get_instance(id).await {
            Ok(instance) if instance.is_deleted() => Ok(None),
            Ok(instance) => Ok(Some(instance)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(MetadataError::Store(error)),
        }
    }

    /// What a server may learn about itself; `None` where there is no such server.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn get(&self, id: InstanceId) -> Result<Option<InstanceMetadata>, MetadataError> {
        match self.instance(id).await? {
            Some(instance) => Ok(Some(self.read(&instance).await?)),
            None => Ok(None),
        }
    }

    async fn read(&self, instance: &Instance) -> Result<InstanceMetadata, MetadataError> {
        let id = instance.id;
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        let vifs = match &self.network {
            Some(network) => network.interfaces(&context, &[id]).await,
            None => Ok(Vec::new()),
        };
        let vifs = vifs.map_err(|source| MetadataError::Network { instance: id, source })?;
        let mut document = document(instance, vifs.into_iter().map(|(_, vif)| vif).collect(), &self.options);
        if let (Some(_), Some(host)) = (instance.topology(), &instance.host) {
            let held = self.store.list_allocations(Some(host)).await.map_err(MetadataError::Store)?;
            let placement = held.into_iter().find(|held| held.instance_id == id).and_then(|held| held.placement);
            document.dedicated_cpus = placement.map(|placement| placement.dedicated_cpus()).unwrap_or_default();
        }
        Ok(document)
    }

    /// Is the port that is asked from, where it is said, the server's own on that host?
    pub(super) async fn asks_from_own(
        &self,
        instance: &Instance,
        host: &HostName,
        port: Option<PortId>,
    ) -> Result<bool, MetadataError> {
        let (Some(network), Some(port)) = (&self.network, port) else { return Ok(true) };
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        let owns = network.owns_port(&context, instance.id, &instance.project_id, host, port).await;
        owns.map_err(|source| MetadataError::Network { instance: instance.id, source })
    }

    /// Answers a host that asks for one of its guests. Of others it learns nothing.
    ///
    /// # Errors
    /// A refusal, as hosts read it.
    pub async fn answer(
        &self,
        incoming: Incoming,
        request: GetMetadataRequest,
    ) -> Result<InstanceMetadata, HandlerError> {
        let instance = self.own_guest(&incoming.sender.host, request.instance_id, request.port_id).await?;
        Ok(self.read(&instance).await.map_err(unavailable)?)
    }

    /// A server that a host speaks of as its guest, with that port.
    async fn own_guest(&self, host: &HostName, id: InstanceId, port: Option<PortId>) -> Result<Instance, HandlerError> {
        match self.instance(id).await.map_err(unavailable)? {
            Some(instance) if instance.host.as_ref() == Some(host) => {
                if !self.asks_from_own(&instance, host, port).await.map_err(unavailable)? {
                    tracing::warn!(sender = %host, instance = %id, ?port,
                        "metadata was asked for from a port that is not the server's");
                    return Err(Refusal::new(RefusalKind::NotFound, format!("Instance {id} has no such port.")).into());
                }
                Ok(instance)
            }
            found => {
                if found.is_some() {
                    tracing::warn!(sender = %host, instance = %id, "a host asked for another's guest");
                }
                Err(Refusal::new(RefusalKind::NotFound, format!("Instance {id} is not on this host.")).into())
            }
        }
    }

    /// Keeps what a guest of the sender leaves for its owner.
    ///
    /// # Errors
    /// A refusal, as hosts read it.
    pub async fn take_password(&self, incoming: Incoming, request: SetPasswordRequest) -> Result<(), HandlerError> {
        let Some(password) = as_password(request.password.as_bytes()) else {
            return Err(Refusal::new(RefusalKind::Malformed, "Request is too large.").into());
        };
        let host = &incoming.sender.host;
        let instance = self.own_guest(host, request.instance_id, Some(request.port_id)).await?;
        match self.set_password(instance.id, password).await.map_err(unavailable)? {
            true => Ok(()),
            false => Err(Refusal::new(RefusalKind::Conflict, "It has left another password already.").into()),
        }
    }

    /// Keeps a server's password, unless it has another one: the answer. The same one again changes nothing, as its message
    /// may come twice.
    pub(super) async fn set_password(&self, id: InstanceId, password: &str) -> Result<bool, MetadataError> {
        for _ in 0..TRIES {
            let Some(mut instance) = self.instance(id).await? else { return Ok(false) };
            let known = kept_password(&instance.system_metadata);
            if !known.is_empty() || password.is_empty() {
                return Ok(known == password);
            }
            keep_password(&mut instance.system_metadata, password);
            match self.store.update_instance(instance).await {
                Err(StoreError::Conflict { .. }) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(MetadataError::Store(error)),
            }
        }
        Err(MetadataError::Busy { instance: id })
    }
}

fn unavailable(error: MetadataError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, chain(&error))
}

impl std::fmt::Debug for MetadataManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataManager").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Names of a server's security groups: those that it was made with, or the one that everybody has.
pub fn security_groups(instance: &Instance) -> Vec<String> {
    match instance.security_groups.is_empty() {
        true => vec!["default".to_owned()],
        false => instance.security_groups.clone(),
    }
}

/// The volumes of it that have a tag.
fn tagged_volumes(instance: &Instance) -> Vec<TaggedVolume> {
    let tagged = |volume: &ServerVolume| Some(TaggedVolume { volume_id: volume.volume_id, tag: volume.tag.clone()? });
    instance.volumes.iter().filter_map(tagged).collect()
}

/// A server as its guest sees it.
fn document(instance: &Instance, vifs: Vec<Vif>, options: &GuestOptions) -> InstanceMetadata {
    let flavor = &instance.flavor;
    let key = instance.key_name.iter().zip(&instance.key_data);
    InstanceMetadata {
        instance_id: instance.id,
        number: instance.number,
        project_id: instance.project_id.clone(),
        name: instance.display_name.clone(),
        hostname: options.full_name(&instance.hostname),
        reservation_id: instance.reservation_id.to_string(),
        launch_index: instance.launch_index,
        availability_zone: instance.availability_zone.as_ref().map(ToString::to_string),
        keys: key.map(|(name, data)| GuestKey { name: name.clone(), data: data.clone() }).collect(),
        user_data: instance.user_data.clone(),
        metadata: instance.metadata.clone(),
        flavor_name: flavor.name.clone(),
        image_id: instance.image.as_ref().map(|image| image.id.to_string()),
        security_groups: security_groups(instance),
        disks: GuestDisk::all(
            instance.image.is_some() || flavor.root_gb > 0,
            instance.ephemerals_gb().len(),
            instance.swap_mb() > 0,
        ),
        dedicated_cpus: Vec::new(),
        vifs,
        tagged_volumes: tagged_volumes(instance),
        places: instance.device_places.clone(),
        vendor_data: options.vendor_data.clone(),
        admin_password: None,
        password: kept_password(&instance.system_metadata),
    }
}
