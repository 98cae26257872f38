//! What follows when a guest's power state is not what the store has (nova/compute/manager.py,
//! `_sync_instance_power_state`).

use std::collections::BTreeMap;
use std::time::Duration;

use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::ids::{RequestId, TaskId};
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::rpc::conductor::{ObservedPower, ReportPowerStatesRequest, StartTask, StartTaskRequest};
use nova_core::state::{Action, PowerAction, PowerState, TaskState, VmState, sync_power_state};
use nova_core::task::{Task, Work};
use nova_db::{StoreError, TaskStart};
use nova_queue::{HandlerError, Incoming};

use super::engine::later;
use super::manager::Conductor;
use super::report::speaks_of_itself;
use nova_core::error::chain;

impl Conductor {
    pub(super) async fn report_power_states(
        &self,
        incoming: Incoming,
        request: ReportPowerStatesRequest,
    ) -> Result<(), HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        for seen in &request.states {
            let instance = match self.store.get_instance(seen.instance_id).await {
                Ok(instance) => instance,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(HandlerError::Again(chain(&error))),
            };
            if instance.is_deleted() || instance.host.as_ref() != Some(&incoming.sender.host) {
                continue;
            }
            match self.sync(instance, seen).await {
                // Someone is at work on it: their outcome counts, and the next reading comes.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(HandlerError::Again(chain(&error))),
            }
        }
        Ok(())
    }

    async fn sync(&self, mut instance: Instance, seen: &ObservedPower) -> Result<(), StoreError> {
        // Something was begun since the host looked; its outcome counts.
        if seen.epoch != instance.epoch {
            return Ok(());
        }
        let sync = sync_power_state(&instance.states(), seen.power_state);
        if let Some(power) = sync.record {
            instance.power_state = power;
            instance.updated_at = self.clock.now();
        }
        let off = matches!(seen.power_state, PowerState::Shutdown | PowerState::Crashed);
        match sync.action {
            // It is off already: what is left to do is to say so.
            PowerAction::Stop if off => {
                tracing::info!(instance = %instance.id, "the guest is off by itself; the server is stopped");
                instance.vm_state = VmState::Stopped;
                instance.updated_at = self.clock.now();
                self.store.update_instance(instance).await.map(drop)
            }
            PowerAction::Stop | PowerAction::ForceStop => self.stop_guest(instance).await,
            PowerAction::Log(text) => {
                tracing::warn!(instance = %instance.id, "{text}");
                self.record_power(instance, sync.record).await
            }
            PowerAction::None => self.record_power(instance, sync.record).await,
        }
    }

    async fn record_power(&self, instance: Instance, change: Option<PowerState>) -> Result<(), StoreError> {
        if change.is_some() {
            self.store.update_instance(instance).await?;
        }
        Ok(())
    }

    async fn stop_guest(&self, instance: Instance) -> Result<(), StoreError> {
        tracing::info!(instance = %instance.id, "the guest runs though it should not; it is stopped");
        let allowed = self.services.options.get().shutdown_timeout.saturating_mul(2) + Duration::from_secs(300);
        self.begin(instance, TaskState::PoweringOff, Work::Stop, Begin { allowed, ..Begin::default() }).await
    }

    /// Begins an operation of the control plane's own, under the name of the server's owner.
    pub(super) async fn begin(
        &self,
        mut instance: Instance,
        first: impl Into<Option<TaskState>>,
        work: Work,
        begin: Begin,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let request_id = begin.request_id.unwrap_or_else(|| RequestId::generate(&*self.entropy));
        let context = RequestContext {
            user_id: instance.user_id.clone(),
            project_id: instance.project_id.clone(),
            ..RequestContext::internal(request_id)
        };
        instance.task_state = first.into();
        instance.updated_at = now;
        let kind = begin.action.unwrap_or(work.action());
        let action = ActionRecord {
            instance_id: instance.id,
            request_id: context.request_id.clone(),
            action: kind.action_record().unwrap_or(kind.name()).to_owned(),
            user_id: context.user_id.clone(),
            project_id: context.project_id.clone(),
            started: now,
            finished: None,
            message: None,
            updated: now,
            events: Vec::new(),
        };
        let task = Task {
            id: TaskId::generate(&*self.entropy),
            instance_id: instance.id,
            work,
            context: context.clone(),
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: now,
            deadline: later(now, begin.allowed),
            created_at: now,
            generation: 0,
        };
        let start = StartTaskRequest { tasks: vec![task.id], plugged: BTreeMap::new() };
        let (supersede, migration) = (begin.supersede, begin.migration);
        self.store.start_task(TaskStart { supersede, migration, ..TaskStart::of(instance, action, task) }).await?;
        if let Err(error) = self.services.rpc.cast::<StartTask>(&context, &start).await {
            tracing::debug!("the task waits for a sweep: {}", chain(&error));
        }
        Ok(())
    }
}

/// How an operation of the control plane's own begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Begin {
    /// How long it may take.
    pub(super) allowed: Duration,
    /// End every other task of the server.
    pub(super) supersede: bool,
    /// The move that goes on with it.
    pub(super) migration: Option<Migration>,
    /// Its request, where that is known before it begins; otherwise a new one.
    pub(super) request_id: Option<RequestId>,
    /// The action as it is recorded; otherwise what the work says.
    pub(super) action: Option<Action>,
}
