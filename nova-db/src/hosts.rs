//! Services and compute nodes; flavors; key pairs.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::flavor::Flavor;
use nova_core::host::{ComputeNode, Service};
use nova_core::host_facts::HostStats;
use nova_core::ids::{ComputeNodeId, FlavorId, HostName, ServiceId, UserId, ZoneName};
use nova_core::keypair::Keypair;

use crate::StoreError;

/// A service's sign of life.
#[derive(Debug, Clone)]
pub struct ServiceBeat {
    /// Id for the row, if there is none yet.
    pub new_id: ServiceId,
    /// `nova-compute`, …
    pub binary: String,
    /// Where.
    pub host: HostName,
    /// Its zone.
    pub zone: ZoneName,
    /// When.
    pub now: Timestamp,
    /// Version of the messages that it speaks.
    pub version: u32,
}

/// Which services. Every condition that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct ServiceQuery {
    /// Of this binary.
    pub binary: Option<String>,
    /// That say to be in this zone; aggregates may have put their hosts elsewhere.
    pub zone: Option<ZoneName>,
    /// On one of these hosts, at most a few hundred.
    pub hosts: Option<Vec<HostName>>,
    /// Only what comes after this host.
    pub after: Option<HostName>,
    /// At most that many.
    pub limit: Option<usize>,
}

impl ServiceQuery {
    /// The compute services of these hosts.
    pub fn computes<'a>(hosts: impl IntoIterator<Item = &'a HostName>) -> Self {
        let hosts = Some(hosts.into_iter().cloned().collect());
        Self { binary: Some("nova-compute".to_owned()), hosts, ..Self::default() }
    }
}

/// Services and compute nodes.
#[async_trait]
pub trait HostStore: Send + Sync {
    /// Records signs of life, making the rows of services that are new; many in one transaction. Does not touch what
    /// operators set, nor the generation. Returns the rows in the order given.
    async fn record_beats(&self, beats: &[ServiceBeat]) -> Result<Vec<Service>, StoreError>;

    /// All services, by binary and host.
    async fn list_services(&self) -> Result<Vec<Service>, StoreError>;

    /// Services that fit, by binary and host.
    async fn find_services(&self, query: &ServiceQuery) -> Result<Vec<Service>, StoreError>;

    /// One service.
    async fn get_service(&self, id: ServiceId) -> Result<Service, StoreError>;

    /// Writes what operators set, if the generation still stands.
    async fn update_service(&self, service: Service) -> Result<Service, StoreError>;

    /// Removes a service; of a compute service, its host leaves all aggregates.
    async fn delete_service(&self, id: ServiceId) -> Result<(), StoreError>;

    /// Writes a node's report: a new row, or the one of that (host, hypervisor_hostname) with a new inventory; id,
    /// number, created_at, used, allocations stay as they are in the store. Nothing is written when nothing changed.
    async fn put_node(&self, node: ComputeNode) -> Result<ComputeNode, StoreError>;

    /// Writes how busy a host is; nothing when nothing changed. Returns its node.
    async fn put_stats(&self, host: &HostName, stats: HostStats) -> Result<ComputeNode, StoreError>;

    /// All nodes, by host and hypervisor.
    async fn list_nodes(&self) -> Result<Vec<ComputeNode>, StoreError>;

    /// The nodes of this host, of this hypervisor name, or of both, by host and hypervisor.
    async fn find_nodes(
        &self,
        host: Option<&HostName>,
        hypervisor: Option<&str>,
    ) -> Result<Vec<ComputeNode>, StoreError>;

    /// One node.
    async fn get_node(&self, id: ComputeNodeId) -> Result<ComputeNode, StoreError>;

    /// The node of a host.
    async fn node_of_host(&self, host: &HostName) -> Result<ComputeNode, StoreError>;
}

/// Flavors.
#[async_trait]
pub trait FlavorStore: Send + Sync {
    /// A new flavor; id and name are unique.
    async fn create_flavor(&self, flavor: Flavor) -> Result<Flavor, StoreError>;
    /// One flavor.
    async fn get_flavor(&self, id: &FlavorId) -> Result<Flavor, StoreError>;
    /// All flavors, by id.
    async fn list_flavors(&self) -> Result<Vec<Flavor>, StoreError>;
    /// Writes a flavor (extra specs and access included), if the generation still stands.
    async fn update_flavor(&self, flavor: Flavor) -> Result<Flavor, StoreError>;
    /// Removes it.
    async fn delete_flavor(&self, id: &FlavorId) -> Result<(), StoreError>;
}

/// Key pairs, by user.
#[async_trait]
pub trait KeypairStore: Send + Sync {
    /// A new key pair, if its user has fewer than `limit`; the store gives the number.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] for a name that the user has; [`StoreError::Quota`] with resource `key_pairs`.
    async fn create_keypair(&self, keypair: Keypair, limit: Option<u64>) -> Result<Keypair, StoreError>;
    /// One key pair.
    async fn get_keypair(&self, user: &UserId, name: &str) -> Result<Keypair, StoreError>;
    /// A user's key pairs, by name.
    async fn list_keypairs(&self, user: &UserId) -> Result<Vec<Keypair>, StoreError>;
    /// Removes it.
    async fn delete_keypair(&self, user: &UserId, name: &str) -> Result<(), StoreError>;
}
