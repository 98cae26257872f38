//! Hosts that are emptied for maintenance: see [`nova_core::drain`]. What is to be done is written down before it is begun,
//! so that any conductor goes on with it; twice equals once.

use std::time::Duration;

use nova_core::action::ActionRecord;
use nova_core::drain::{Chance, Drain, Leaving, Way};
use nova_core::error::chain;
use nova_core::host::Service;
use nova_core::ids::{HostName, InstanceId, MigrationId, RequestId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::rpc::scheduler::{HostsChanged, HostsChangedRequest, ServiceNews};
use nova_core::state::{Action, TaskState, VmState};
use nova_core::task::{Move, Work};
use nova_db::{InstanceQuery, MigrationQuery, ServiceQuery, StoreError};
use tokio_util::sync::CancellationToken;

use super::engine::signed;
use super::manager::Conductor;
use super::power::Begin;
use crate::api::compute::spec_of;

/// How long a server may take to leave.
const ALLOWED: Duration = Duration::from_secs(3600);

/// What became of a server that was to leave.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing was begun yet.
    Unbegun,
    /// It is on its way.
    Leaving,
    /// It is elsewhere.
    Left,
    /// It has nothing to do here any more: it was deleted, or somebody else does something with it.
    Gone,
    /// It could not leave.
    Failed(String),
}

impl Conductor {
    pub(super) async fn drain_until(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.services.options.get().sweep_interval) => {}
            }
            if let Err(error) = self.drain_hosts().await {
                tracing::warn!("hosts are not emptied now: {}", chain(&error));
            }
        }
    }

    async fn drain_hosts(&self) -> Result<(), StoreError> {
        let computes = ServiceQuery { binary: Some("nova-compute".to_owned()), ..ServiceQuery::default() };
        for service in self.store.find_services(&computes).await? {
            if let Some(drain) = service.drain.clone() {
                self.drain_host(service, drain).await?;
            }
        }
        Ok(())
    }

    async fn drain_host(&self, service: Service, mut drain: Drain) -> Result<(), StoreError> {
        let host = service.host.clone();
        for (id, leaving) in drain.leaving.clone() {
            match self.fate_of(&host, id, &leaving, &drain).await? {
                Fate::Unbegun | Fate::Leaving => continue,
                Fate::Left => drain.left += 1,
                Fate::Gone => {}
                Fate::Failed(why) => {
                    tracing::warn!(instance = %id, %host, "it could not leave its host: {why}");
                    drain.failed.insert(id, why);
                }
            }
            drain.leaving.remove(&id);
        }
        let now = self.clock.now();
        let query = InstanceQuery { host: Some(host.clone()), ..InstanceQuery::default() };
        let servers = self.store.list_instances(&query).await?;
        drain.failed.retain(|id, _| servers.iter().any(|server| server.id == *id));
        // From a host that is down they are evacuated, if anything.
        if service.is_up(now, signed(self.services.options.get().service_down_time)) {
            let next: Vec<_> = drain.next(&servers).into_iter().map(|(server, way)| (server.id, way)).collect();
            for (id, way) in next {
                let request_id = RequestId::generate(&*self.entropy);
                drain.leaving.insert(id, Leaving { request_id, way });
            }
        }
        if service.drain.as_ref() != Some(&drain) {
            self.tell_of_drain(&service).await;
            let written = Service { drain: Some(drain.clone()), updated_at: now, ..service };
            match self.store.update_service(written).await {
                Ok(_) => {}
                // Another conductor was faster, or the operator has something else in mind.
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        for (id, leaving) in &drain.leaving {
            self.let_leave(&host, *id, leaving, &drain).await?;
        }
        Ok(())
    }

    async fn fate_of(
        &self,
        host: &HostName,
        id: InstanceId,
        leaving: &Leaving,
        drain: &Drain,
    ) -> Result<Fate, StoreError> {
        let Some(instance) = self.live_one(id).await? else { return Ok(Fate::Gone) };
        let Some(action) = self.action_of(id, leaving).await? else {
            let may = instance.host.as_ref() == Some(host) && may_leave(drain, &instance, leaving.way);
            return Ok(if may { Fate::Unbegun } else { Fate::Gone });
        };
        Ok(match (action.finished, &action.message, leaving.way) {
            (None, _, _) => Fate::Leaving,
            (Some(_), Some(_), _) => Fate::Failed(reason(&instance)),
            (Some(_), None, Way::Live | Way::Offload) => Fate::Left,
            (Some(_), None, Way::Cold) => self.confirm_there(host, instance).await?,
        })
    }

    /// One that was moved while it was off is confirmed there: nothing of it is to stay on a host that is emptied.
    async fn confirm_there(&self, host: &HostName, instance: Instance) -> Result<Fate, StoreError> {
        let query = MigrationQuery {
            instance: Some(instance.id),
            source_compute: Some(host.clone()),
            limit: Some(1),
            ..MigrationQuery::default()
        };
        let Some(migration) = self.store.list_migrations(&query).await?.pop() else { return Ok(Fate::Left) };
        Ok(match migration.status {
            MigrationStatus::Finished if migration.must_go_back() => {
                Fate::Failed("its owner wants it back, and its new host did not answer".to_owned())
            }
            MigrationStatus::Finished => {
                if instance.vm_state == VmState::Resized && instance.task_state.is_none() {
                    self.confirm(instance, migration).await?;
                }
                Fate::Leaving
            }
            MigrationStatus::Reverted => Fate::Failed("its owner took it back".to_owned()),
            status if status.is_open() => Fate::Leaving,
            _ => Fate::Left,
        })
    }

    async fn live_one(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        match self.store.get_instance(id).await {
            Ok(instance) => Ok(Some(instance).filter(|instance| !instance.is_deleted())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn action_of(&self, id: InstanceId, leaving: &Leaving) -> Result<Option<ActionRecord>, StoreError> {
        match self.store.get_action(id, &leaving.request_id).await {
            Ok(action) => Ok(Some(action)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins the move of a server, unless it was begun before.
    async fn let_leave(
        &self,
        host: &HostName,
        id: InstanceId,
        leaving: &Leaving,
        drain: &Drain,
    ) -> Result<(), StoreError> {
        let Some(instance) = self.live_one(id).await? else { return Ok(()) };
        let may = instance.host.as_ref() == Some(host) && may_leave(drain, &instance, leaving.way);
        if !may || self.action_of(id, leaving).await?.is_some() {
            return Ok(());
        }
        let (first, action, kind) = match leaving.way {
            Way::Live => (TaskState::Migrating, Action::LiveMigrate, Some(MigrationType::LiveMigration)),
            Way::Cold => (TaskState::ResizePrep, Action::Migrate, Some(MigrationType::Migration)),
            Way::Offload => (TaskState::ShelvingOffloading, Action::ShelveOffload, None),
        };
        let (uuid, now) = (MigrationId::generate(&*self.entropy), self.clock.now());
        let migration = kind.and_then(|kind| Migration::begun(uuid, kind, &instance, &instance.flavor, now));
        let spec = spec_of(&instance, &instance.flavor, None, false);
        let work = match leaving.way {
            Way::Live => Move::LiveMigrate { migration: uuid, spec, block: None },
            Way::Cold => Move::Resize { migration: uuid, spec },
            Way::Offload => Move::ShelveOffload,
        };
        tracing::info!(instance = %id, %host, work = work.kind(), "it leaves its host, which is emptied");
        let request_id = Some(leaving.request_id.clone());
        let begin = Begin { allowed: ALLOWED, migration, request_id, action: Some(action), ..Begin::default() };
        match self.begin(instance, first, Work::Move(work), begin).await {
            // Somebody else was faster: it is looked at again.
            Ok(()) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Schedulers read the store from time to time; until then they would send others here.
    async fn tell_of_drain(&self, service: &Service) {
        let (host, disabled) = (service.host.clone(), service.disabled);
        let news = ServiceNews { host, disabled, up: !service.forced_down, generation: service.generation };
        let news = HostsChangedRequest { services: vec![news], ..HostsChangedRequest::default() };
        let context = nova_core::context::RequestContext::internal(RequestId::generate(&*self.entropy));
        if let Err(error) = self.services.rpc.fanout::<HostsChanged>(&context, &news).await {
            tracing::debug!("schedulers were not told: {}", chain(&error));
        }
    }
}

fn may_leave(drain: &Drain, instance: &Instance, way: Way) -> bool {
    drain.manner.chance_of(instance) == Chance::Leaves(way)
}

/// For operators: what the server's fault says, details and all.
fn reason(instance: &Instance) -> String {
    match &instance.fault {
        Some(fault) if fault.details.is_empty() => fault.message.clone(),
        Some(fault) => format!("{} ({})", fault.message, fault.details),
        None => "its move was ended by another operation".to_owned(),
    }
}
