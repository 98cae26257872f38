//! Starting a server from another image, and making its disks anew (nova/conductor/manager.py, `rebuild_instance`;
//! nova/compute/manager.py, `rescue_instance`, `rebuild_instance`).

use async_trait::async_trait;
use nova_core::request::{FlavorWish, Purpose, RequestSpec};
use nova_core::rpc::compute::{
    BuildOrder, MoveInstance, MoveOrder, RebootOrder, RebuildInstance, RebuildOrder, RescueInstance, RescueOrder,
};
use nova_core::state::VmState;
use nova_core::task::Work;

use super::build::{booked, order, select};
use super::network::vifs_of;
use super::on_host::{begin, must_have_host};
use super::volumes::volumes_on;
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Restarts it.
pub struct Reboot;

/// Starts it from another image.
pub struct Rescue;

/// Asks the scheduler whether the host can run the new image.
pub struct CheckHost;

/// Makes its disks anew.
pub struct Rebuild;

/// What its host must know to make the guest as its row has it.
async fn guest(services: &Services, cx: &mut TaskContext) -> Result<BuildOrder, StepError> {
    let vifs = vifs_of(services, cx).await?;
    let placement = booked(services, cx).await?;
    let volumes = match cx.instance.host.clone() {
        Some(host) => volumes_on(services, cx, &host).await?,
        None => Vec::new(),
    };
    Ok(BuildOrder { vifs, placement, volumes, ..order(services, cx) })
}

#[async_trait]
impl Step for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        must_have_host(cx)?;
        let hard = matches!(cx.task.work, Work::Reboot { hard: true });
        // Of a server in ERROR nobody knows how its guest is: a move may have left it set aside.
        let order = if hard && cx.instance.vm_state == VmState::Error {
            StagedOrder::of::<MoveInstance, _>(MoveOrder::Recover(Box::new(guest(services, cx).await?)))
        } else {
            StagedOrder::Reboot(RebootOrder { hard })
        };
        begin(cx, "compute_reboot_instance");
        Ok(Ran::Ordered(order))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Step for Rescue {
    fn name(&self) -> &'static str {
        "rescue"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let guest = guest(services, cx).await?;
        let Work::Rescue { image, .. } = &cx.task.work else {
            return Err(StepError::fatal(500, "This task rescues nothing.", ""));
        };
        let image_grant = Some(services.image_grants.grant(image.id, cx.task.deadline));
        let graceful = Some(services.options.get().shutdown_timeout);
        let order = RescueOrder { image: image.clone(), image_grant, graceful, guest };
        begin(cx, "compute_rescue_instance");
        Ok(Ran::Ordered(StagedOrder::of::<RescueInstance, _>(order)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // A guest that is neither the one nor the other is in ERROR; a hard reboot or another try mends it.
        Ok(())
    }
}

/// The host that has the server, asked about another image. Nothing is booked anew.
fn same_host(cx: &TaskContext) -> RequestSpec {
    let instance = &cx.instance;
    let property = |name: &str| instance.image_properties().get(name).cloned();
    RequestSpec {
        instances: vec![instance.id],
        purpose: Purpose::Rebuild,
        resources: instance.booked_resources(),
        requested_host: instance.host.clone(),
        architecture: property("hw_architecture").or_else(|| property("architecture")),
        hints: instance.scheduler_hints.clone(),
        flavor: FlavorWish { name: instance.flavor.name.clone(), extra_specs: instance.flavor.extra_specs.clone() },
        image: instance.image_wish(),
        topology: instance.topology(),
        ..RequestSpec::default()
    }
    .of_project(&instance.project_id)
}

#[async_trait]
impl Step for CheckHost {
    fn name(&self) -> &'static str {
        "check_host"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        // The image that it has runs here.
        let changes = match &cx.task.work {
            Work::Rebuild { previous_image: Some(_), .. } => true,
            Work::Rebuild { previous_volume_image: Some(before), .. } => {
                before.get("image_id") != cx.instance.volume_image.get("image_id")
            }
            _ => false,
        };
        if changes {
            select(services, cx, &same_host(cx)).await?;
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What the row says of the image is taken back where the task ends: only there it is known whether it is true.
        Ok(())
    }
}

#[async_trait]
impl Step for Rebuild {
    fn name(&self) -> &'static str {
        "rebuild"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let guest = guest(services, cx).await?;
        let Work::Rebuild { preserve_ephemeral, stopped, reimage, .. } = cx.task.work else {
            return Err(StepError::fatal(500, "This task rebuilds nothing.", ""));
        };
        if reimage.is_some() {
            // It is not the only order of the task.
            cx.renew_epoch();
        }
        begin(cx, "compute_rebuild_instance");
        let order = RebuildOrder { guest, preserve_ephemeral, running: !stopped };
        Ok(Ran::Ordered(StagedOrder::of::<RebuildInstance, _>(order)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
