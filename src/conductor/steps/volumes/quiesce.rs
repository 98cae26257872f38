//! The file systems of a server's guest stand still while snapshots of its volumes are taken, if it has an agent for that; where its
//! image says that they must (`os_require_quiesce`), there is no image otherwise (nova/compute/api.py, `snapshot_volume_backed`;
//! nova/virt/libvirt/driver.py, `_can_quiesce`).

use async_trait::async_trait;
use nova_core::ids::HostName;
use nova_core::rpc::compute::{QuiesceInstance, QuiesceOrder, UnquiesceInstance};
use nova_core::state::VmState;

use super::super::moves::is_up;
use super::super::snapshot::{is_true, requires_quiesce};
use super::super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// They stand still.
pub struct Quiesce;

/// They go on.
pub struct Unquiesce;

/// The host whose guest is asked for it.
fn asked(cx: &TaskContext) -> Option<HostName> {
    let has_agent = is_true(&cx.instance, "hw_qemu_guest_agent");
    cx.instance.host.clone().filter(|_| has_agent && cx.instance.vm_state == VmState::Active)
}

/// Nobody can say what a guest does whose host is down.
async fn is_there(services: &Services, cx: &TaskContext, host: &HostName) -> Result<bool, StepError> {
    let up = is_up(services, cx, host).await?;
    if !up && requires_quiesce(&cx.instance) {
        let text = "The file systems of the server could not be made to stand still.";
        return Err(StepError::fatal(500, text, format!("{host} is down")));
    }
    Ok(up)
}

#[async_trait]
impl Step for Quiesce {
    fn name(&self) -> &'static str {
        "quiesce"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let required = requires_quiesce(&cx.instance);
        match asked(cx) {
            Some(host) if is_there(services, cx, &host).await? => {
                Ok(Ran::Ordered(StagedOrder::of::<QuiesceInstance, _>(QuiesceOrder { required })))
            }
            None if required && cx.instance.vm_state == VmState::Active => {
                Err(StepError::fatal(400, "QEMU guest agent is not enabled", "os_require_quiesce"))
            }
            _ => Ok(Ran::Done),
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    /// A host that comes back lets all go on by itself.
    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = asked(cx).filter(|_| !cx.left_nothing) else { return Ok(Ran::Done) };
        if !is_up(services, cx, &host).await? {
            return Ok(Ran::Done);
        }
        cx.renew_epoch();
        Ok(Ran::Ordered(StagedOrder::of::<UnquiesceInstance, _>(QuiesceOrder { required: false })))
    }
}

#[async_trait]
impl Step for Unquiesce {
    fn name(&self) -> &'static str {
        "unquiesce"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let required = requires_quiesce(&cx.instance);
        match asked(cx) {
            Some(host) if is_there(services, cx, &host).await? => {
                cx.renew_epoch();
                Ok(Ran::Ordered(StagedOrder::of::<UnquiesceInstance, _>(QuiesceOrder { required })))
            }
            _ => Ok(Ran::Done),
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What had them stand still lets them go on.
        Ok(())
    }
}
