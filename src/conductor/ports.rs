//! Ports around the tasks: those of guests that run are written as working, and those that a build made that was given up
//! meanwhile go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nova_core::context::RequestContext;
use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId, PortId, RequestId, TaskId};
use nova_core::instance::Instance;
use nova_core::network::{NetworkService, PortStatus, Vif};
use nova_core::rpc::conductor::{AssignedInterfaces, ListInterfacesRequest};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::state::{TaskState, VmState};
use nova_core::task::Work;
use nova_db::{Deleted, InstanceQuery, StoreError};
use nova_queue::{HandlerError, Incoming};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::engine::{DriveError, earlier};
use super::manager::Conductor;
use super::report::{speaks_of_itself, unavailable};

/// Ports that came to work are gathered for so long into one transaction.
const WINDOW: Duration = Duration::from_millis(100);
/// How often it is looked for ports of servers that ended lately.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(300);
/// How lately: longer than a conductor's drive goes on that somebody else has overtaken.
const LATELY: Duration = Duration::from_secs(900);
/// Servers that are asked for at once.
const BATCH: usize = 200;

/// Ports that hosts have plugged in, and that are still to be written as working.
#[derive(Debug, Default)]
pub(super) struct Plugged {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    ports: BTreeMap<HostName, BTreeSet<PortId>>,
    /// Who is told that they are written.
    tell: Vec<oneshot::Sender<()>>,
    /// Nobody writes any more.
    ended: bool,
}

impl Plugged {
    /// Will be written soon; then the answer comes. Without one it was not written.
    fn add(&self, host: &HostName, ports: &[PortId]) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting();
        if !waiting.ended {
            waiting.ports.entry(host.clone()).or_default().extend(ports);
            waiting.tell.push(tell);
        }
        drop(waiting);
        self.some.notify_one();
        told
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conductor {
    /// A host has plugged these in: its report is answered once that is written, so that it is not lost.
    pub(super) async fn plugged_in(&self, host: &HostName, ports: &[PortId]) -> Result<(), Refusal> {
        if ports.is_empty() || self.services.network.is_none() {
            return Ok(());
        }
        let written = self.plugged.add(host, ports).await;
        written.map_err(|_| Refusal::new(RefusalKind::Unavailable, "that the ports work was not written"))
    }

    /// Writes what is plugged in, a short while after the first of it. At the end, what is left.
    pub(super) async fn write_plugged_until(&self, stop: CancellationToken) {
        let Some(network) = self.services.network.clone() else { return };
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = async { self.plugged.some.notified().await; tokio::time::sleep(WINDOW).await } => {}
            }
            self.write_plugged(&*network, stop.is_cancelled()).await;
        }
    }

    async fn write_plugged(&self, network: &dyn NetworkService, last: bool) {
        let waiting = std::mem::replace(&mut *self.plugged.waiting(), Waiting { ended: last, ..Waiting::default() });
        for (host, ports) in waiting.ports {
            let statuses = ports.into_iter().map(|port| (port, PortStatus::Active)).collect();
            if let Err(error) = network.set_statuses(&self.own_context(), &host, &statuses).await {
                // Whoever waits hears nothing, and tries again.
                return tracing::warn!("ports that work were not written as such: {}", chain(&error));
            }
        }
        for tell in waiting.tell {
            // One that does not wait any more need not know.
            let _ = tell.send(());
        }
    }

    /// Which interfaces guests of the host should have. Of those that are idle, before the books were read and after it,
    /// nothing was on its way.
    pub(super) async fn list_interfaces(
        &self,
        incoming: Incoming,
        request: ListInterfacesRequest,
    ) -> Result<Vec<AssignedInterfaces>, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let network = self.services.network.as_ref();
        let network = network.ok_or_else(|| Refusal::new(RefusalKind::Unsupported, "there is no network service"))?;
        let query = InstanceQuery { host: Some(request.host), ..InstanceQuery::default() };
        let placed = self.store.list_instances(&query).await.map_err(|error| unavailable(&error))?;
        let asked = |one: &&Instance| request.instances.contains(&one.id) && one.task_state.is_none();
        let mut there: BTreeMap<InstanceId, u64> = placed.iter().filter(asked).map(|one| (one.id, one.epoch)).collect();
        if request.idle {
            self.retain_idle(&mut there).await.map_err(|error| unavailable(&error))?;
        }
        let ids: Vec<InstanceId> = there.keys().copied().collect();
        let found = network.interfaces(&self.own_context(), &ids).await;
        let found = found.map_err(|error| Refusal::new(RefusalKind::Unavailable, chain(&error)))?;
        if request.idle {
            self.retain_idle(&mut there).await.map_err(|error| unavailable(&error))?;
        }
        let mut vifs: BTreeMap<InstanceId, Vec<Vif>> = BTreeMap::new();
        for (owner, vif) in found {
            vifs.entry(owner).or_default().push(vif);
        }
        let of = |(instance_id, epoch)| {
            let vifs = vifs.remove(&instance_id).unwrap_or_default();
            AssignedInterfaces { instance_id, epoch, vifs }
        };
        Ok(there.into_iter().map(of).collect())
    }

    /// Leaves out what somebody is at work on.
    pub(super) async fn retain_idle(&self, instances: &mut BTreeMap<InstanceId, u64>) -> Result<(), StoreError> {
        for (id, epoch) in std::mem::take(instances) {
            let same = match self.store.get_instance(id).await {
                Ok(instance) => instance.task_state.is_none() && instance.epoch == epoch,
                Err(StoreError::NotFound { .. }) => false,
                Err(error) => return Err(error),
            };
            if same && self.store.list_tasks(Some(id)).await?.is_empty() {
                instances.insert(id, epoch);
            }
        }
        Ok(())
    }

    pub(super) fn own_context(&self) -> RequestContext {
        RequestContext::internal(RequestId::generate(&*self.entropy))
    }

    /// A drive that may have made ports was overtaken. If its task is over and the server ends, nobody else knows of them.
    pub(super) async fn drop_orphans_of(
        &self,
        task: TaskId,
        instance: InstanceId,
        context: &RequestContext,
    ) -> Result<(), DriveError> {
        match self.store.get_task(task).await {
            Ok(_) => return Ok(()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ends = match self.store.get_instance(instance).await {
            Ok(instance) => has_ended(&instance),
            Err(StoreError::NotFound { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        match &self.services.network {
            Some(network) if ends => {
                network.deallocate(context, instance).await.map_err(|error| DriveError::Later(chain(&error)))
            }
            _ => Ok(()),
        }
    }

    /// A drive that may have asked for attachments was overtaken. If nothing is being done to the server any more, nobody else
    /// knows of those that are not in its row.
    pub(super) async fn drop_attachments_of(
        &self,
        instance: InstanceId,
        context: &RequestContext,
    ) -> Result<(), DriveError> {
        let Some(volumes) = &self.services.volumes else { return Ok(()) };
        // A deletion gives back whatever there is; any other operation may have asked for some that its row does not have yet.
        let tasks = self.store.list_tasks(Some(instance)).await?;
        if tasks.iter().any(|task| !matches!(task.work, Work::Delete)) {
            return Ok(());
        }
        let known = match self.store.get_instance(instance).await {
            Ok(known) => known,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match super::steps::release_unknown(&**volumes, context, &known).await {
            Ok(_) => Ok(()),
            Err(error) => Err(DriveError::Later(chain(&error))),
        }
    }

    /// Looks for orphans now and then: at the start among all servers that ended, since nobody may have looked for long.
    pub(super) async fn sweep_orphans_until(&self, stop: CancellationToken) {
        let mut since = None;
        loop {
            let begun = self.clock.now();
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                looked = self.sweep_orphans(since) => looked,
            };
            match looked {
                Ok(_) => since = Some(earlier(begun, LATELY)),
                Err(error) => tracing::warn!("looking for ports without an owner failed: {error}"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ORPHANS_INTERVAL) => {}
            }
        }
    }

    /// Looks for ports of servers that ended since then: a conductor may have died right after it made them for a server
    /// that others had given up meanwhile. Page by page; returns how many servers had some.
    pub(super) async fn sweep_orphans(&self, since: Option<Timestamp>) -> Result<usize, DriveError> {
        let Some(network) = &self.services.network else { return Ok(0) };
        let of = |deleted, states| InstanceQuery {
            deleted,
            states,
            changed_since: since,
            limit: Some(BATCH),
            ..InstanceQuery::default()
        };
        let failed = Some(vec![(VmState::Error, Some(vec![None]))]);
        let mut found = 0;
        for mut query in [of(Deleted::Only, None), of(Deleted::No, failed)] {
            loop {
                let ended = match self.store.list_instances(&query).await {
                    // Where the last page ended is archived by now: what is left of this kind is for the next look.
                    Err(StoreError::NotFound { .. }) if query.after.is_some() => break,
                    ended => ended?,
                };
                found += self.drop_orphans_among(&**network, &ended).await?;
                if ended.len() < BATCH {
                    break;
                }
                query.after = ended.last().map(|last| last.id);
            }
        }
        Ok(found)
    }

    async fn drop_orphans_among(&self, network: &dyn NetworkService, ended: &[Instance]) -> Result<usize, DriveError> {
        let ids: Vec<InstanceId> = ended.iter().filter(|one| has_ended(one)).map(|one| one.id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let context = self.own_context();
        let left = network.interfaces(&context, &ids).await.map_err(|error| DriveError::Later(chain(&error)))?;
        let owners: BTreeSet<InstanceId> = left.into_iter().map(|(owner, _)| owner).collect();
        let mut found = 0;
        for owner in owners {
            found += usize::from(self.drop_orphans(network, &context, owner).await?);
        }
        Ok(found)
    }

    async fn drop_orphans(
        &self,
        network: &dyn NetworkService,
        context: &RequestContext,
        owner: InstanceId,
    ) -> Result<bool, StoreError> {
        // Something may have begun since it was listed.
        let idle = self.store.list_tasks(Some(owner)).await?.is_empty();
        if !idle || !has_ended(&self.store.get_instance(owner).await?) {
            return Ok(false);
        }
        tracing::warn!(instance = %owner, "ports of a server that has ended are given back");
        if let Err(error) = network.deallocate(context, owner).await {
            tracing::warn!(instance = %owner, "they were not: {}", chain(&error));
        }
        Ok(true)
    }
}

/// It is on no host and comes to none: its ports are of no use.
fn has_ended(instance: &Instance) -> bool {
    let ends = instance.vm_state == VmState::Error || instance.task_state == Some(TaskState::Deleting);
    instance.is_deleted() || (instance.host.is_none() && ends)
}
