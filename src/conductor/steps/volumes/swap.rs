//! Another volume takes a volume's place under a running guest (nova/compute/manager.py, `swap_volume`).
//!
//! The row has both for as long as it lasts, so that whoever goes on knows what there may be. Which of both the guest has, its
//! host alone can say: nothing is given back before it has, however long that takes. Only an operator who declares the host dead says
//! so in its place: no guest of it has anything any more.

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::metadata::GuestDevice;
use nova_core::rpc::compute::{SwapVolume as SwapOrder, SwapVolumeOrder};
use nova_core::volume::{BlockStorageError, Hold, attachment_key};

use super::super::interface::take_turn;
use super::super::moves::is_declared_dead;
use super::super::on_host::begin;
use super::super::{Ran, Services, Step, StepError};
use super::plug::the_volume;
use super::{failed, later, mode, release, release_the_unknown, roll_detaching, storage, way_to};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Promises the new volume to the server; nothing else is begun with the old one.
pub struct BeginSwap;

/// Lets the host come to the new one, and has it put that in the old one's place.
pub struct SwapVolume;

/// The server has the new one. The old one is given back.
pub struct EndSwap;

fn nothing_to_swap() -> StepError {
    StepError::fatal(500, "The volume could not be swapped.", "its mapping is gone")
}

#[async_trait]
impl Step for BeginSwap {
    fn name(&self) -> &'static str {
        "begin_swap"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        // One that was to be detached before is not there any more then.
        take_turn(services, cx).await?;
        let storage = storage(services)?;
        let (instance, task, context) = (cx.instance.id, cx.task.id, cx.task.context.clone());
        let Some(volume) = the_volume(cx) else { return Err(nothing_to_swap()) };
        let (old, new) = (volume.volume_id, volume.swapped());
        let Some(swap) = &mut volume.swap else { return Err(nothing_to_swap()) };
        storage.begin_detaching(&context, old).await.map_err(failed)?;
        if swap.holds.is_empty() {
            let key = attachment_key(task, swap.volume_id, None, 0);
            let made = storage.reserve(&context, swap.volume_id, key, instance, mode(&new)).await.map_err(failed)?;
            swap.holds.push(Hold { attachment_id: made.id, host: None });
        }
        Ok(Ran::Written)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let storage = storage(services)?;
        if let Some(volume) = the_volume(cx).cloned() {
            let promised = volume.swap.iter().flat_map(|swap| &swap.holds);
            release(storage, cx, promised.map(|hold| hold.attachment_id)).await?;
            roll_detaching(storage, cx, volume.volume_id).await?;
        }
        if let Some(volume) = the_volume(cx) {
            volume.swap = None;
        }
        release_the_unknown(storage, cx).await
    }
}

#[async_trait]
impl Step for SwapVolume {
    fn name(&self) -> &'static str {
        "swap_volume"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        take_turn(services, cx).await?;
        let storage = storage(services)?;
        let (Some(host), Some(volume)) = (cx.instance.host.clone(), the_volume(cx).cloned()) else {
            return Err(nothing_to_swap());
        };
        let mut new = volume.swapped();
        let to = way_to(services, storage, cx, &mut new, &host).await?;
        if let Some(swap) = the_volume(cx).and_then(|volume| volume.swap.as_mut()) {
            swap.holds.clone_from(&new.holds);
        }
        begin(cx, "compute_swap_volume");
        let order = SwapVolumeOrder { old: volume.volume_id, new: new.volume_id, to: Some(to) };
        Ok(Ran::Ordered(StagedOrder::of::<SwapOrder, _>(order)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    /// The host says which of both the guest has. If it is the new one, it is too late, and the task goes on.
    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (Some(volume), Some(host)) = (the_volume(cx).cloned(), cx.instance.host.clone()) else {
            return Ok(Ran::Done);
        };
        let new = volume.swapped();
        // What its host was never let to the guest cannot have.
        if cx.left_nothing || volume.swap.is_none() || new.hold_of(&host).is_none() {
            return Ok(Ran::Done);
        }
        if is_declared_dead(services, &host).await? {
            tracing::warn!(instance = %cx.instance.id, volume = %volume.volume_id, %host,
                "the server keeps the volume that was to be swapped: its host was declared dead");
            return Ok(Ran::Done);
        }
        cx.renew_epoch();
        let order = SwapVolumeOrder { old: volume.volume_id, new: new.volume_id, to: None };
        Ok(Ran::Ordered(StagedOrder::of::<SwapOrder, _>(order)))
    }

    fn must_be_undone(&self) -> bool {
        true
    }
}

#[async_trait]
impl Step for EndSwap {
    fn name(&self) -> &'static str {
        "end_swap"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (storage, context) = (storage(services)?, cx.task.context.clone());
        let (host, instance) = (cx.instance.host.clone(), cx.instance.id);
        let Some(volume) = the_volume(cx).filter(|volume| volume.swap.is_some()) else { return Ok(Ran::Done) };
        let (old, new) = (volume.volume_id, volume.swapped());
        if let Some(hold) = host.as_ref().and_then(|host| new.hold_of(host)) {
            match storage.complete(&context, hold.attachment_id, new.device.as_deref()).await {
                Ok(()) => {}
                Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
                // The guest has it whatever the service says: so must the row.
                Err(error) => tracing::warn!(%instance, volume = %new.volume_id, "{}", chain(&error)),
            }
        }
        for hold in &volume.holds {
            match storage.release(&context, hold.attachment_id).await {
                Ok(()) => {}
                Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
                // The guest has let it go. Nobody's attachments are given back when that can be done.
                Err(error) => tracing::warn!(%instance, volume = %old, attachment = %hold.attachment_id,
                    "it stays as nobody's: {}", chain(&error)),
            }
        }
        let taken = GuestDevice::Volume(new.volume_id);
        *volume = new;
        // It is where the old one was; a host that was asked twice says no more than that it is there.
        if !cx.instance.device_places.iter().any(|place| place.device == taken) {
            let places = cx.instance.device_places.iter_mut();
            places.filter(|place| place.device == GuestDevice::Volume(old)).for_each(|place| place.device = taken);
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
