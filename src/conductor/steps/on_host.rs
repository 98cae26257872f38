//! Steps that are one order to the server's host: the host does it and reports (nova/compute/manager.py, the methods of the
//! same names).
//!
//! Each is a row of [`ON_HOST`]: its name in plans, its event in the list of instance actions, and the order. Nothing of
//! them is to be undone: a host that failed has left the guest as it was, or says that it did not.

use async_trait::async_trait;
use nova_core::rpc::compute::{self as orders, StopOrder};
use nova_core::state::{FailurePhase, VmState};
use nova_core::task::{Entry, Event, Work};

use super::interface::{take_turn, takes_turns};
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// How the order of a step is made.
type MakeOrder = fn(&Services, &TaskContext) -> StagedOrder;

/// A step that is an order.
pub struct OnHost {
    name: &'static str,
    event: &'static str,
    order: MakeOrder,
}

const ON_HOST: &[OnHost] = &[
    step("power_on", "compute_start_instance", |_, _| StagedOrder::Start),
    step("power_off", "compute_stop_instance", |services, _| {
        StagedOrder::Stop(StopOrder { graceful: Some(services.options.get().shutdown_timeout) })
    }),
    step("pause", "compute_pause_instance", |_, _| StagedOrder::of::<orders::PauseInstance, _>(())),
    step("unpause", "compute_unpause_instance", |_, _| StagedOrder::of::<orders::UnpauseInstance, _>(())),
    step("suspend", "compute_suspend_instance", |_, _| StagedOrder::of::<orders::SuspendInstance, _>(())),
    step("resume", "compute_resume_instance", |_, _| StagedOrder::of::<orders::ResumeInstance, _>(())),
    step("soft_delete", "compute_soft_delete_instance", |_, _| StagedOrder::of::<orders::SoftDeleteInstance, _>(())),
    step("restore", "compute_restore_instance", |_, _| StagedOrder::of::<orders::RestoreInstance, _>(())),
    step("unrescue", "compute_unrescue_instance", |_, _| StagedOrder::of::<orders::UnrescueInstance, _>(())),
    step("set_password", "compute_set_admin_password", |_, cx| {
        let password = match &cx.task.work {
            Work::ChangePassword { password } => password.clone(),
            _ => String::new(),
        };
        // The image says who that is, as Nova's libvirt driver reads it.
        let user = cx.instance.image_properties().get("os_admin_user").cloned();
        StagedOrder::of::<orders::SetAdminPassword, _>(orders::PasswordOrder { user, password })
    }),
    step("crash_dump", "compute_trigger_crash_dump", |_, _| StagedOrder::of::<orders::TriggerCrashDump, _>(())),
];

const fn step(name: &'static str, event: &'static str, order: MakeOrder) -> OnHost {
    OnHost { name, event, order }
}

/// All of them.
pub fn steps() -> impl Iterator<Item = &'static dyn Step> {
    ON_HOST.iter().map(|step| step as &dyn Step)
}

/// What is on no host has no guest.
pub(super) fn must_have_host(cx: &TaskContext) -> Result<(), StepError> {
    match cx.instance.host {
        Some(_) => Ok(()),
        None => Err(StepError::fatal(409, format!("Instance {} is not ready", cx.instance.id), "it is on no host")),
    }
}

/// Writes into the action's record that the host begins.
pub(super) fn begin(cx: &mut TaskContext, event: &str) {
    if let (Some(action), Some(host)) = (&mut cx.action, cx.instance.host.as_ref()) {
        action.begin_event(event, Some(host.as_str()), cx.now);
    }
}

#[async_trait]
impl Step for OnHost {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        must_have_host(cx)?;
        if takes_turns(&cx.task.work) {
            take_turn(services, cx).await?;
        }
        begin(cx, self.event);
        Ok(Ran::Ordered((self.order)(services, cx)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// What a finished operation leaves in the row besides its states; `before` is the `vm_state` that it began in.
pub fn succeeded(cx: &mut TaskContext, before: VmState) {
    match cx.task.work {
        Work::Suspend => cx.instance.previous_vm_state = Some(before),
        Work::Resume | Work::Reboot { .. } => cx.instance.previous_vm_state = None,
        Work::SoftDelete => {
            cx.instance.soft_deleted_at.get_or_insert(cx.now);
        }
        Work::Restore => cx.instance.soft_deleted_at = None,
        // As Nova has it: `rescue_timeout` counts from there.
        Work::Rescue { .. } | Work::Rebuild { .. } => cx.instance.launched_at = Some(cx.now),
        _ => {}
    }
}

/// What a failed operation takes back in the row besides its states.
pub fn failed(cx: &mut TaskContext, phase: FailurePhase) {
    // The guest has the image that it had (nova/conductor/manager.py, `rebuild_instance`, rolls `image_ref` back).
    if phase != FailurePhase::AfterDiskMove
        && let Work::Rebuild { previous_image: Some(image), .. } = &cx.task.work
    {
        cx.instance.image = Some(image.clone());
    }
    let is_written = |entry: &Entry| entry.step == "await_reimage" && entry.event == Event::Done;
    if let Work::Rebuild { previous_volume_image: Some(before), .. } = &cx.task.work
        && !cx.task.log.iter().any(is_written)
    {
        cx.instance.volume_image.clone_from(before);
    }
}

/// How far a failed operation had come: a host that says nothing, or that something is left, may have changed the guest.
pub fn phase(cx: &TaskContext) -> FailurePhase {
    let changes = matches!(cx.task.work, Work::Rescue { .. } | Work::Unrescue | Work::Rebuild { .. });
    let asked = |name: &str| ["rescue", "unrescue", "rebuild", "stop_to_reimage"].contains(&name);
    let begun = cx.task.log.iter().any(|entry| entry.event == Event::Begun && asked(&entry.step));
    if changes && begun && !cx.left_nothing { FailurePhase::AfterDiskMove } else { FailurePhase::BeforeDiskMove }
}
