//! A server that boots from a volume is rebuilt: the image's data takes the place of what is on its root volume
//! (nova/compute/manager.py, `_rebuild_volume_backed_instance`). The guest is off meanwhile, and no host comes to the volume.

use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::ImageId;
use nova_core::rpc::compute::StopOrder;
use nova_core::task::Work;
use nova_core::volume::VolumeStatus;

use super::super::on_host::{begin, must_have_host};
use super::super::{Ran, Services, Step, StepError};
use super::{back_on, complete_all_the_same, failed, later, reserve, storage};
use crate::conductor::context::{StagedOrder, TaskContext};

/// How long a step looks at a volume that is being written before it lets others go first.
const LOOK_FOR: Duration = Duration::from_secs(10);
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Stops the guest.
pub struct StopToReimage;

/// Shuts its host out of the root volume, which stays promised to the server.
pub struct LeaveRootVolume;

/// Has the image written.
pub struct Reimage;

/// Waits until it is.
pub struct AwaitReimage;

fn the_image(cx: &TaskContext) -> Result<ImageId, StepError> {
    match cx.task.work {
        Work::Rebuild { reimage: Some(image), .. } => Ok(image),
        _ => Err(StepError::fatal(500, "This task writes no volume.", "")),
    }
}

fn no_root() -> StepError {
    StepError::fatal(500, "Failed to rebuild volume backed instance.", "it has no root volume any more")
}

#[async_trait]
impl Step for StopToReimage {
    fn name(&self) -> &'static str {
        "stop_to_reimage"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        must_have_host(cx)?;
        begin(cx, "compute_rebuild_instance");
        Ok(Ran::Ordered(StagedOrder::Stop(StopOrder { graceful: Some(services.options.get().shutdown_timeout) })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // It stays off, in ERROR, as in Nova: a hard reboot starts it.
        Ok(())
    }
}

#[async_trait]
impl Step for LeaveRootVolume {
    fn name(&self) -> &'static str {
        "leave_root_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let storage = storage(services)?;
        let mut root = cx.instance.root_volume().cloned().ok_or_else(no_root)?;
        if root.holds.iter().all(|hold| hold.host.is_some()) {
            reserve(storage, &cx.task, &cx.instance, &mut root, None).await.map_err(failed)?;
        }
        for hold in root.holds.iter().filter(|hold| hold.host.is_some()) {
            storage.release(&cx.task.context, hold.attachment_id).await.map_err(later)?;
        }
        root.holds.retain(|hold| hold.host.is_none());
        if let Some(known) = cx.instance.volumes.iter_mut().find(|volume| volume.id == root.id) {
            *known = root;
        }
        Ok(Ran::Written)
    }

    /// Its host comes to it again, as to its other volumes: it may be started there.
    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let Some(host) = cx.instance.host.clone() else { return Ok(()) };
        back_on(services, cx, &host).await?;
        // It may have been let in before, to make the guest anew.
        complete_all_the_same(services, cx, &host).await
    }
}

#[async_trait]
impl Step for Reimage {
    fn name(&self) -> &'static str {
        "reimage"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (root, image) = (cx.instance.root_volume().ok_or_else(no_root)?.volume_id, the_image(cx)?);
        storage(services)?.reimage(&cx.task.context, root, image).await.map_err(failed)?;
        Ok(Ran::Written)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was on it is gone, or is still there.
        Ok(())
    }
}

#[async_trait]
impl Step for AwaitReimage {
    fn name(&self) -> &'static str {
        "await_reimage"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (storage, image) = (storage(services)?, the_image(cx)?.to_string());
        let root = cx.instance.root_volume().ok_or_else(no_root)?.volume_id;
        let (mut waited, mut pause) = (Duration::ZERO, FIRST_LOOK);
        loop {
            let now = storage.volume(&cx.task.context, root).await.map_err(failed)?;
            if now.status != Some(VolumeStatus::Downloading) {
                let written = now.image_metadata.get("image_id") == Some(&image) && now.fault.is_none();
                if now.status == Some(VolumeStatus::Reserved) && written {
                    return Ok(Ran::Written);
                }
                let status = now.status.map_or("unknown", VolumeStatus::as_str);
                let details = format!("volume {root} is {status}: {}", now.fault.unwrap_or_default());
                return Err(StepError::fatal(500, "Failed to rebuild volume backed instance.", details));
            }
            if waited >= LOOK_FOR {
                return Err(StepError::Later(format!("volume {root} is still being written")));
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
