//! One volume, plugged into a server and out of it.

use async_trait::async_trait;
use nova_core::ids::BlockDeviceId;
use nova_core::rpc::compute::{AttachVolume as AttachOrder, DetachVolume as DetachOrder, DetachVolumeOrder};
use nova_core::task::Work;
use nova_core::volume::{Hold, ServerVolume, attachment_key};

use super::super::interface::take_turn;
use super::super::on_host::begin;
use super::super::{Ran, Services, Step, StepError};
use super::{failed, mode, release, release_the_unknown, roll_detaching, storage, way_to};
use crate::conductor::context::{StagedOrder, TaskContext};

fn the_device(cx: &TaskContext) -> Option<BlockDeviceId> {
    match &cx.task.work {
        Work::AttachVolume { device } | Work::SwapVolume { device } => Some(*device),
        Work::DetachVolume { volume_id } => cx.instance.volume(*volume_id).map(|volume| volume.id),
        _ => None,
    }
}

/// The mapping that the task is about.
pub(super) fn the_volume(cx: &mut TaskContext) -> Option<&mut ServerVolume> {
    let id = the_device(cx)?;
    cx.instance.volumes.iter_mut().find(|volume| volume.id == id)
}

/// Promises the volume to the server.
pub struct ReserveVolume;

#[async_trait]
impl Step for ReserveVolume {
    fn name(&self) -> &'static str {
        "reserve_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let storage = storage(services)?;
        let instance = cx.instance.clone();
        let task = cx.task.clone();
        let Some(volume) = the_volume(cx) else {
            return Err(StepError::fatal(500, "The volume could not be attached.", "its mapping is gone"));
        };
        if volume.holds.is_empty() {
            let key = attachment_key(task.id, volume.volume_id, None, 0);
            let made = storage.reserve(&task.context, volume.volume_id, key, instance.id, mode(volume)).await;
            let made = made.map_err(failed)?;
            volume.holds.push(Hold { attachment_id: made.id, host: None });
        }
        Ok(Ran::Written)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let storage = storage(services)?;
        let Some(volume) = the_volume(cx).cloned() else { return Ok(()) };
        release(storage, cx, volume.holds.iter().map(|hold| hold.attachment_id)).await?;
        cx.instance.volumes.retain(|known| known.id != volume.id);
        release_the_unknown(storage, cx).await
    }
}

/// Lets the host come to it, and has it plug it in.
pub struct AttachVolume;

#[async_trait]
impl Step for AttachVolume {
    fn name(&self) -> &'static str {
        "attach_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        take_turn(services, cx).await?;
        let Some(host) = cx.instance.host.clone() else { return Ok(Ran::Done) };
        let storage = storage(services)?;
        let Some(mut volume) = the_volume(cx).cloned() else {
            return Err(StepError::fatal(500, "The volume could not be attached.", "its mapping is gone"));
        };
        let order = way_to(services, storage, cx, &mut volume, &host).await?;
        if let Some(known) = the_volume(cx) {
            *known = volume;
        }
        begin(cx, "compute_attach_volume");
        Ok(Ran::Ordered(StagedOrder::of::<AttachOrder, _>(order)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (Some(volume), Some(host)) = (the_volume(cx).cloned(), cx.instance.host.clone()) else {
            return Ok(Ran::Done);
        };
        // What its host was never let to it cannot have.
        if cx.left_nothing || volume.hold_of(&host).is_none() {
            return Ok(Ran::Done);
        }
        cx.renew_epoch();
        Ok(Ran::Ordered(StagedOrder::of::<DetachOrder, _>(DetachVolumeOrder { volume_id: volume.volume_id })))
    }
}

/// The server has it.
pub struct CompleteVolume;

#[async_trait]
impl Step for CompleteVolume {
    fn name(&self) -> &'static str {
        "complete_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (host, context) = (cx.instance.host.clone(), cx.task.context.clone());
        let Some(volume) = the_volume(cx) else { return Ok(Ran::Done) };
        // Off its host, the server has the promise of it.
        if let Some(hold) = host.as_ref().and_then(|host| volume.hold_of(host)) {
            let done = storage(services)?.complete(&context, hold.attachment_id, volume.device.as_deref()).await;
            done.map_err(failed)?;
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Nothing else is begun with the volume while it is being detached.
pub struct BeginDetaching;

#[async_trait]
impl Step for BeginDetaching {
    fn name(&self) -> &'static str {
        "begin_detaching"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (host, context) = (cx.instance.host.clone(), cx.task.context.clone());
        let (Some(volume), Some(_)) = (the_volume(cx), host) else { return Ok(Ran::Done) };
        storage(services)?.begin_detaching(&context, volume.volume_id).await.map_err(failed)?;
        Ok(Ran::Written)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let Some(volume) = the_volume(cx).map(|volume| volume.volume_id) else { return Ok(()) };
        roll_detaching(storage(services)?, cx, volume).await
    }
}

/// Has the host unplug it: the guest lets it go before the host is shut out.
pub struct DetachVolume;

#[async_trait]
impl Step for DetachVolume {
    fn name(&self) -> &'static str {
        "detach_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        take_turn(services, cx).await?;
        let (Some(volume), Some(_)) = (the_volume(cx).cloned(), &cx.instance.host) else { return Ok(Ran::Done) };
        begin(cx, "compute_detach_volume");
        Ok(Ran::Ordered(StagedOrder::of::<DetachOrder, _>(DetachVolumeOrder { volume_id: volume.volume_id })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was unplugged may be detached again, which then gives it back.
        Ok(())
    }
}

/// Gives it back.
pub struct ReleaseVolume;

#[async_trait]
impl Step for ReleaseVolume {
    fn name(&self) -> &'static str {
        "release_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(volume) = the_volume(cx).cloned() else { return Ok(Ran::Done) };
        release(storage(services)?, cx, volume.holds.iter().map(|hold| hold.attachment_id)).await?;
        cx.instance.volumes.retain(|known| known.id != volume.id);
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
