//! Plugging an interface in and out of a server that is there (nova/compute/manager.py, `attach_interface`,
//! `detach_interface`).
//!
//! Such tasks run beside whatever else is done to a server: its task state does not say that they are there. So they take
//! turns: in the order in which they were asked for, and not while another operation is at work. One whose order a later
//! operation has overtaken gets a token of its own and is ordered again.

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::network::{InstanceNetworks, NetworkServiceError, Vif};
use nova_core::rpc::compute::{AttachInterfaceOrder, DetachInterfaceOrder};
use nova_core::task::{Failure, Task, Work};

use super::network::{failed, of_instance, refused};
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Makes the port, or takes the one that is named.
pub struct AllocateInterface;

/// Has the host plug it in.
pub struct AttachInterface;

/// Has the host unplug it.
pub struct DetachInterface;

/// Gives the port back.
pub struct ReleaseInterface;

/// Does the task run beside others, so that it waits for its turn?
pub const fn takes_turns(work: &Work) -> bool {
    work.plugs() || matches!(work, Work::TriggerCrashDump)
}

fn no_service() -> StepError {
    StepError::fatal(500, "There is no network service.", "")
}

/// Waits for its turn, and sees to it that its order is the newest.
pub(super) async fn take_turn(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    let tasks = services.store.list_tasks(Some(cx.instance.id)).await;
    let tasks = tasks.map_err(|error| StepError::Later(chain(&error)))?;
    let key = |task: &Task| (task.created_at, task.id);
    let before = |task: &&Task| takes_turns(&task.work) && key(task) < key(&cx.task);
    if cx.instance.task_state.is_some() || tasks.iter().any(|task| before(&task)) {
        return Err(StepError::Later("another operation on the server comes first".into()));
    }
    if cx.task.epoch < cx.instance.epoch {
        cx.instance.epoch += 1;
        cx.task.epoch = cx.instance.epoch;
    }
    Ok(())
}

/// The task's interface, if the server has it.
async fn own_vif(services: &Services, cx: &TaskContext) -> Result<Option<Vif>, StepError> {
    let network = services.network.as_ref().ok_or_else(no_service)?;
    let id = cx.instance.id;
    let found = network.interfaces(&cx.task.context, &[id]).await;
    let found = found.map_err(|error| failed(error, |why| format!("Instance {id}: {why}")))?;
    let id = cx.task.port_id();
    Ok(found.into_iter().map(|(_, vif)| vif).find(|vif| id.is_some_and(|id| vif.is(id))))
}

async fn give_back(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    let (Some(network), Some(port)) = (&services.network, cx.task.port_id()) else { return Ok(()) };
    match network.detach(&cx.task.context, cx.instance.id, port).await {
        Ok(()) | Err(NetworkServiceError::PortNotFound { .. }) => Ok(()),
        Err(error) => refused(cx, &format!("port {port}"), error),
    }
}

/// What the failure would have been as an answer to whoever asked for the interface.
fn code_of(error: &NetworkServiceError) -> u16 {
    match error {
        NetworkServiceError::NetworkNotFound { .. } | NetworkServiceError::PortNotFound { .. } => 404,
        NetworkServiceError::PortInUse { .. } | NetworkServiceError::AddressInUse { .. } => 409,
        NetworkServiceError::OverQuota | NetworkServiceError::External { .. } => 403,
        _ => 400,
    }
}

fn begin(cx: &mut TaskContext, event: &str) {
    if let (Some(action), Some(host)) = (&mut cx.action, cx.instance.host.as_ref()) {
        action.begin_event(event, Some(host.as_str()), cx.now);
    }
}

#[async_trait]
impl Step for AllocateInterface {
    fn name(&self) -> &'static str {
        "allocate_interface"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let network = services.network.as_ref().ok_or_else(no_service)?;
        take_turn(services, cx).await?;
        let Work::AttachInterface { interface } = &cx.task.work else {
            return Err(StepError::fatal(500, "This task attaches no interface.", ""));
        };
        let mut interface = interface.clone();
        if interface.port_id.is_none() {
            interface.new_port_id = cx.task.port_id();
        }
        let zone = cx.instance.availability_zone.as_ref().map(ToString::to_string);
        let wanted: InstanceNetworks = of_instance(cx, cx.instance.host.as_ref(), zone);
        let id = cx.instance.id;
        let vif = network.attach(&cx.task.context, &wanted, &interface).await;
        let vif = vif.map_err(|error| {
            let code = code_of(&error);
            match failed(error, |why| format!("Failed to attach network adapter device to {id}: {why}")) {
                StepError::Failed(failure) => StepError::Failed(Failure { code, ..failure }),
                later => later,
            }
        })?;
        cx.vifs = Some(vec![vif]);
        Ok(Ran::Done)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        give_back(services, cx).await
    }
}

#[async_trait]
impl Step for AttachInterface {
    fn name(&self) -> &'static str {
        "attach_interface"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        take_turn(services, cx).await?;
        let made = cx.vifs.take().unwrap_or_default().pop();
        let vif = match made {
            Some(vif) => Some(vif),
            None => own_vif(services, cx).await?,
        };
        let Some(vif) = vif else {
            // Somebody has removed the port meanwhile.
            let message = format!("Failed to attach network adapter device to {}", cx.instance.id);
            return Err(StepError::fatal(500, message, "its port is gone"));
        };
        begin(cx, "compute_attach_interface");
        Ok(Ran::Ordered(StagedOrder::AttachInterface(Box::new(AttachInterfaceOrder { vif }))))
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        // A host that was given up may have something of it, or may begin yet.
        if cx.left_nothing {
            return Ok(());
        }
        if let (Some(host), Some(vif)) = (cx.instance.host.clone(), own_vif(services, cx).await?) {
            cx.instance.epoch += 1;
            cx.stage_unplug(host, DetachInterfaceOrder { port_id: vif.port_id, mac_address: vif.mac_address });
        }
        Ok(())
    }
}

#[async_trait]
impl Step for DetachInterface {
    fn name(&self) -> &'static str {
        "detach_interface"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        take_turn(services, cx).await?;
        let (Some(vif), Some(_)) = (own_vif(services, cx).await?, &cx.instance.host) else { return Ok(Ran::Done) };
        begin(cx, "compute_detach_interface");
        let (port_id, mac_address) = (vif.port_id, vif.mac_address);
        Ok(Ran::Ordered(StagedOrder::DetachInterface(DetachInterfaceOrder { port_id, mac_address })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was unplugged may be detached again, which then gives its port back.
        Ok(())
    }
}

#[async_trait]
impl Step for ReleaseInterface {
    fn name(&self) -> &'static str {
        "release_interface"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        give_back(services, cx).await?;
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
