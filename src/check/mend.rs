//! The repairs. Each looks again before it acts, and may be carried out twice.

use nova_core::fault::Fault;
use nova_core::ids::{FloatingIpId, HostName, ImageId, InstanceId, PortId, RequestId, TaskId};
use nova_core::image::ImageStatus;
use nova_core::instance::Instance;
use nova_core::network::{Port, PortStatus};
use nova_core::state::{PowerState, VmState};
use nova_db::{PortChange, StoreError, TaskCommit};

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
        Repair::DropImage { image, generation } => checker.drop_image(*image, *generation).await,
        Repair::DeleteAllocation { instance, host } => checker.delete_allocation(*instance, host).await,
        Repair::ReleasePort { port, generation } => checker.release_port(*port, *generation).await,
        Repair::BindPort { port, generation } => checker.bind_port(*port, *generation).await,
        Repair::DisassociateFloatingIp { floating_ip, generation } => {
            checker.disassociate(*floating_ip, *generation).await
        }
        Repair::MendAddresses { subnet } => return outcome(checker.store.mend_addresses(*subnet).await),
        Repair::DropVolumeTask { task, generation } => checker.drop_volume_task(*task, *generation).await,
        Repair::FailVolume { volume, generation } => checker.fail_volume(*volume, *generation).await,
        Repair::FailVolumeSnapshot { snapshot, generation } => {
            checker.fail_volume_snapshot(*snapshot, *generation).await
        }
        Repair::EndAttachment { volume, attachment, generation } => {
            checker.end_attachment(*volume, *attachment, *generation).await
        }
        Repair::SettleVolume { volume, generation } => checker.settle_volume(*volume, *generation).await,
        Repair::RecountVolumes => return outcome(checker.store.recount_volumes().await),
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

    async fn drop_image(&self, id: ImageId, generation: u64) -> Result<bool, StoreError> {
        let image = self.store.get_image(id).await?;
        let waits = matches!(image.status, ImageStatus::Queued | ImageStatus::Saving);
        let tasks = self.store.list_tasks(None).await?;
        let made = tasks.iter().any(|task| task.work.image_in_making() == Some(id));
        if image.generation != generation || !waits || made {
            return Ok(false);
        }
        self.store.delete_image(id).await?;
        Ok(true)
    }

    async fn delete_allocation(&self, instance: InstanceId, host: &HostName) -> Result<bool, StoreError> {
        self.store.delete_allocation(instance, host).await?;
        Ok(true)
    }

    /// The port, if it is as it was read, with the server that has it, if that lives.
    async fn port(&self, id: PortId, generation: u64) -> Result<Option<(Port, Option<Instance>)>, StoreError> {
        let port = self.store.get_port(id).await?;
        if port.generation != generation {
            return Ok(None);
        }
        let owner = match port.device_id.parse() {
            Ok(owner) => self.find(owner).await?.filter(|owner| !owner.is_deleted()),
            Err(_) => None,
        };
        if let Some(owner) = &owner
            && (owner.task_state.is_some() || !self.store.list_tasks(Some(owner.id)).await?.is_empty())
        {
            return Ok(None);
        }
        Ok(Some((port, owner)))
    }

    async fn release_port(&self, id: PortId, generation: u64) -> Result<bool, StoreError> {
        let Some((mut port, owner)) = self.port(id, generation).await? else { return Ok(false) };
        if owner.is_some_and(|owner| owner.host.is_some() || owner.vm_state != VmState::Error) {
            return Ok(false);
        }
        if port.delete_with_device {
            self.store.delete_port(id).await?;
            return Ok(true);
        }
        port.device_id.clear();
        port.device_owner.clear();
        port.host = None;
        port.status = PortStatus::Down;
        port.binding.vif_type = "unbound".to_owned();
        self.write_port(port).await
    }

    async fn bind_port(&self, id: PortId, generation: u64) -> Result<bool, StoreError> {
        let Some((mut port, Some(owner))) = self.port(id, generation).await? else { return Ok(false) };
        if owner.host.is_none() || owner.host == port.host {
            return Ok(false);
        }
        port.host = owner.host;
        port.binding.vif_type = "bridge".to_owned();
        self.write_port(port).await
    }

    async fn write_port(&self, mut port: Port) -> Result<bool, StoreError> {
        port.updated_at = self.clock.now();
        self.store.update_port(PortChange { port, fixed_ips: None, draw: 0 }).await?;
        Ok(true)
    }

    async fn disassociate(&self, id: FloatingIpId, generation: u64) -> Result<bool, StoreError> {
        let floating = self.store.get_floating_ip(id).await?;
        if floating.generation != generation {
            return Ok(false);
        }
        self.store.associate_floating_ip(floating, None).await?;
        Ok(true)
    }
}
