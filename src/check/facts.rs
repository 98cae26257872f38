//! What is looked at: rows of the store and guests of the hosts.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nova_core::action::ActionRecord;
use nova_core::contracts::BoxError;
use nova_core::host::{Allocation, ComputeNode, Service};
use nova_core::ids::{HostName, InstanceId, ProjectId, RouterId, SubnetId};
use nova_core::image::Image;
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::network::{FloatingIp, Port, Subnet};
use nova_core::quota::Usage;
use nova_core::state::PowerState;
use nova_core::task::Task;
use nova_core::volume::{Pool, Snapshot, Volume, VolumeQuotaKey, VolumeTask};
use nova_db::{Deleted, InstanceQuery, ListQuery, MigrationQuery, PortQuery, Store, StoreError, VolumeAccount};

/// Everything that the rules look at: one reading.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When it was read.
    pub now: Timestamp,
    /// How the rules measure.
    pub bounds: Bounds,
    /// From the store.
    pub store: StoreFacts,
    /// From the hosts, as far as they are known to the caller.
    pub hosts: Vec<HostFacts>,
}

/// How the rules measure.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long after its deadline a task may still be there: a conductor has to notice first.
    pub grace: SignedDuration,
    /// A service that was not heard of for so long is down (`service_down_time`).
    pub service_down_time: SignedDuration,
    /// All services are one process: then conductor and compute share a host rightly.
    pub one_process: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            grace: SignedDuration::from_mins(2),
            service_down_time: SignedDuration::from_mins(1),
            one_process: false,
        }
    }
}

/// What the store says.
#[derive(Debug, Clone, Default)]
pub struct StoreFacts {
    /// All instances, deleted ones included.
    pub instances: Vec<Instance>,
    /// All tasks.
    pub tasks: Vec<Task>,
    /// Moves that go on, or wait for their confirmation.
    pub open_migrations: Vec<Migration>,
    /// Actions that are not finished.
    pub open_actions: Vec<ActionRecord>,
    /// Instances with the action of the request that made them.
    pub with_request: BTreeSet<InstanceId>,
    /// Recorded usage.
    pub usage: Vec<(ProjectId, Usage)>,
    /// All allocations.
    pub allocations: Vec<Allocation>,
    /// All compute nodes.
    pub nodes: Vec<ComputeNode>,
    /// All services.
    pub services: Vec<Service>,
    /// All images.
    pub images: Vec<Image>,
    /// All ports.
    pub ports: Vec<Port>,
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// Of each subnet, how many addresses are free and how many are taken.
    pub addresses: BTreeMap<SubnetId, (u128, u64)>,
    /// All floating addresses.
    pub floating_ips: Vec<FloatingIp>,
    /// All routers.
    pub routers: BTreeSet<RouterId>,
    /// All volumes, with their attachments.
    pub volumes: Vec<Volume>,
    /// All snapshots of volumes.
    pub volume_snapshots: Vec<Snapshot>,
    /// What is being done to volumes.
    pub volume_tasks: Vec<VolumeTask>,
    /// All pools of volumes.
    pub volume_pools: Vec<Pool>,
    /// What projects that have volumes have of them, as it is counted.
    pub volume_accounts: BTreeMap<ProjectId, BTreeMap<VolumeQuotaKey, VolumeAccount>>,
}

/// What one host says.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Which.
    pub host: HostName,
    /// Why it was not reached; then nothing is known of its guests.
    pub problem: Option<String>,
    /// What is there.
    pub guests: Vec<GuestFacts>,
}

impl HostFacts {
    /// Did it answer?
    pub fn reached(&self) -> bool {
        self.problem.is_none()
    }
}

/// A guest as its hypervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// The instance.
    pub instance: InstanceId,
    /// The hypervisor's name for it.
    pub name: String,
    /// Whether it runs.
    pub power_state: PowerState,
    /// The epoch of the order that made it; 0 if it can't be told.
    pub epoch: u64,
}

/// The way to the hosts. The control services have none of their own: whoever runs a check hands one in.
#[async_trait]
pub trait Hosts: Send + Sync {
    /// What is there now, host by host. A host that does not answer is one with a
    /// [problem](HostFacts::problem).
    async fn read(&self) -> Vec<HostFacts>;

    /// Removes a guest with all that belongs to it. May be repeated.
    async fn destroy_guest(&self, host: &HostName, instance: InstanceId) -> Result<(), BoxError>;
}

/// Reads everything. Not one transaction: see the [module](super) on what that means.
///
/// # Errors
/// The store does not answer, or a row can't be read.
pub async fn read_store(store: &dyn Store) -> Result<StoreFacts, StoreError> {
    // Instances come first: what is found of them later is then at least as new.
    let query = InstanceQuery { deleted: Deleted::Any, ..InstanceQuery::default() };
    let mut facts = StoreFacts { instances: store.list_instances(&query).await?, ..StoreFacts::default() };
    facts.open_migrations = store.list_migrations(&MigrationQuery::open()).await?;
    facts.allocations = store.list_allocations(None).await?;
    facts.usage = store.list_usage().await?;
    facts.nodes = store.list_nodes().await?;
    facts.services = store.list_services().await?;
    facts.images = store.list_images().await?;
    // Actions come before tasks: one that is begun meanwhile is then seen with its task or not at all.
    for instance in &facts.instances {
        for action in store.list_actions(instance.id).await? {
            if action.request_id == instance.request_id {
                facts.with_request.insert(instance.id);
            }
            if action.finished.is_none() {
                facts.open_actions.push(action);
            }
        }
    }
    // Ports come before tasks, as actions do.
    read_network(store, &mut facts).await?;
    read_volumes(store, &mut facts).await?;
    facts.tasks = store.list_tasks(None).await?;
    Ok(facts)
}

/// Volumes come before what is done to them.
async fn read_volumes(store: &dyn Store, facts: &mut StoreFacts) -> Result<(), StoreError> {
    facts.volumes = store.list_volumes(&ListQuery::default()).await?;
    facts.volume_snapshots = store.list_volume_snapshots(&ListQuery::default()).await?;
    facts.volume_tasks = store.list_volume_tasks(&ListQuery::default()).await?;
    facts.volume_pools = store.list_volume_pools().await?;
    let projects: BTreeSet<ProjectId> = facts
        .volumes
        .iter()
        .map(|volume| volume.project_id.clone())
        .chain(facts.usage.iter().map(|(project, _)| project.clone()))
        .collect();
    for project in projects {
        let accounts = store.volume_accounts(&project).await?;
        facts.volume_accounts.insert(project, accounts);
    }
    Ok(())
}

async fn read_network(store: &dyn Store, facts: &mut StoreFacts) -> Result<(), StoreError> {
    facts.ports = store.list_ports(&PortQuery::default()).await?;
    facts.floating_ips = store.list_floating_ips(&ListQuery::default()).await?;
    facts.routers = store.list_routers(&ListQuery::default()).await?.iter().map(|router| router.id).collect();
    facts.subnets = store.list_subnets(&ListQuery::default()).await?;
    for subnet in &facts.subnets {
        facts.addresses.insert(subnet.id, store.count_addresses(subnet.id).await?);
    }
    Ok(())
}
