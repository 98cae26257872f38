//! Starting, stopping and restarting: the host does it.

use async_trait::async_trait;
use nova_core::rpc::compute::{RebootOrder, StopOrder};
use nova_core::task::Work;

use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Starts a stopped guest.
pub struct PowerOn;

/// Stops a running guest: asks it first, pulls the plug after the time that the operator gives it.
pub struct PowerOff;

/// Restarts a guest.
pub struct Reboot;

fn begin(cx: &mut TaskContext, event: &str) {
    if let (Some(action), Some(host)) = (&mut cx.action, cx.instance.host.as_ref()) {
        action.begin_event(event, Some(host.as_str()), cx.now);
    }
}

#[async_trait]
impl Step for PowerOn {
    fn name(&self) -> &'static str {
        "power_on"
    }

    async fn run(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        begin(cx, "compute_start_instance");
        Ok(Ran::Ordered(StagedOrder::Start))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Step for PowerOff {
    fn name(&self) -> &'static str {
        "power_off"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        begin(cx, "compute_stop_instance");
        Ok(Ran::Ordered(StagedOrder::Stop(StopOrder { graceful: Some(services.options.get().shutdown_timeout) })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Step for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    async fn run(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        begin(cx, "compute_reboot_instance");
        let hard = matches!(cx.task.work, Work::Reboot { hard: true });
        Ok(Ran::Ordered(StagedOrder::Reboot(RebootOrder { hard })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
