//! The repairs. Each looks again before it acts, and may be carried out twice.

use nova_core::fault::Fault;
use nova_core::ids::{HostName, InstanceId, RequestId, TaskId};
use nova_core::instance::Instance;
use nova_core::state::{PowerState, VmState};
use nova_db::{StoreError, TaskCommit};

use super::{Checker, Outcome, Repair};
use nova_core::error::chain;

/// What the owner of a server reads that nothing works on any more.
const INTERRUPTED: &str = "The operation was interrupted and can't be resumed.";

/// Carries a repair out.
pub(super) async fn mend(checker: &Checker, repair: &Repair) -> Outcome {
    let result = match repair {
        Repair::DestroyGuest { host, instance } => return checker.destroy_guest(host, *instance).await,
        Repair::DropTask { task, generation } => checker.drop_task(*task, *generation).await,
        Repair::FailInstance { instance, generation } => checker.fail_instance(*instance, *generation).await,
        Repair::StopInstance { instance, generation, power_state } => {
            checker.stop_instance(*instance, *generation, *power_state).await
        }
        Repair::FinishAction { instance, request } => checker.finish_action(*instance, request).await,
        Repair::DeleteAllocation { instance, host } => checker.delete_allocation(*instance, host).await,
        Repair::RebuildAccounts => return outcome(checker.store.rebuild_accounts().await),
    };
    match result {
        Ok(true) => Outcome::Done(Vec::new()),
        Ok(false) => Outcome::Overtaken,
        Err(error) => outcome(Err(error)),
    }
}

fn outcome(result: Result<Vec<String>, StoreError>) -> Outcome {
    match result {
        Ok(lines) => Outcome::Done(lines),
        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Outcome::Overtaken,
        Err(error) => Outcome::Failed(chain(&error)),
    }
}

impl Checker {
    async fn destroy_guest(&self, host: &HostName, id: InstanceId) -> Outcome {
        match self.may_be_wanted(host, id).await {
            Ok(true) => return Outcome::Overtaken,
            Ok(false) => {}
            Err(error) => return outcome(Err(error)),
        }
        match self.hosts.destroy_guest(host, id).await {
            Ok(()) => Outcome::Done(Vec::new()),
            Err(error) => Outcome::Failed(chain(&*error)),
        }
    }

    /// Is the instance there after all, or on its way?
    async fn may_be_wanted(&self, host: &HostName, id: InstanceId) -> Result<bool, StoreError> {
        let Some(instance) = self.find(id).await?.filter(|instance| !instance.is_deleted()) else {
            return Ok(false);
        };
        let busy = instance.task_state.is_some() || !self.store.list_tasks(Some(id)).await?.is_empty();
        Ok(busy || instance.host.as_ref() == Some(host))
    }

    async fn find(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        match self.store.get_instance(id).await {
            Ok(instance) => Ok(Some(instance)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The instance, if it is as it was read and nothing works on it.
    async fn untouched(&self, id: InstanceId, generation: u64) -> Result<Option<Instance>, StoreError> {
        let instance = self.store.get_instance(id).await?;
        let idle = self.store.list_tasks(Some(id)).await?.is_empty();
        Ok(Some(instance).filter(|instance| instance.generation == generation && idle))
    }

    async fn drop_task(&self, id: TaskId, generation: u64) -> Result<bool, StoreError> {
        let task = self.store.get_task(id).await?;
        let lives = self.find(task.instance_id).await?.is_some_and(|instance| !instance.is_deleted());
        if lives || task.generation != generation {
            return Ok(false);
        }
        self.store.commit_task(TaskCommit { done: true, ..TaskCommit::of(task) }).await?;
        Ok(true)
    }

    async fn fail_instance(&self, id: InstanceId, generation: u64) -> Result<bool, StoreError> {
        let Some(mut instance) = self.untouched(id, generation).await? else { return Ok(false) };
        let now = self.clock.now();
        let task = instance.task_state.map_or("none", |task| task.as_str());
        let details = format!("found {}/{task} without a task, by nova-manage check", instance.vm_state);
        let mut fault = Fault::new(500, INTERRUPTED, details, now);
        fault.host = instance.host.as_ref().map(ToString::to_string);
        instance.fault = Some(fault);
        instance.vm_state = VmState::Error;
        instance.task_state = None;
        instance.updated_at = now;
        self.store.update_instance(instance).await?;
        Ok(true)
    }

    async fn stop_instance(&self, id: InstanceId, generation: u64, power: PowerState) -> Result<bool, StoreError> {
        let Some(mut instance) = self.untouched(id, generation).await? else { return Ok(false) };
        instance.vm_state = VmState::Stopped;
        instance.power_state = power;
        instance.updated_at = self.clock.now();
        self.store.update_instance(instance).await?;
        Ok(true)
    }

    async fn finish_action(&self, instance: InstanceId, request: &RequestId) -> Result<bool, StoreError> {
        let mut action = self.store.get_action(instance, request).await?;
        if action.finished.is_some() {
            return Ok(false);
        }
        action.finish(Some("Error"), self.clock.now());
        self.store.finish_action(action).await?;
        Ok(true)
    }

    async fn delete_allocation(&self, instance: InstanceId, host: &HostName) -> Result<bool, StoreError> {
        self.store.delete_allocation(instance, host).await?;
        Ok(true)
    }
}
