//! What a server boots with is made and promised before its build; what it had is given back after its end.

use std::time::Duration;

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::VolumeId;
use nova_core::volume::{
    BlockStorage, BlockStorageError, Hold, NewBlockVolume, ServerVolume, VolumeStatus, attachment_key,
};

use super::super::{Ran, Services, Step, StepError};
use super::{later, mode, refused, release, release_the_unknown, storage};
use crate::conductor::context::{TaskContext, Undoing};

/// Whoever makes volumes tells of it; what was told and got lost is found after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long a step looks at volumes of which nobody tells before it lets others go first, and how often.
const LOOK_FOR: Duration = Duration::from_secs(10);
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Makes the volumes that a server is to boot with, waits for them, and promises all of them to it.
pub struct MakeVolumes;

fn aborted(cx: &TaskContext, why: &str, details: String) -> StepError {
    let message = format!("Build of instance {} aborted: {why}", cx.instance.id);
    StepError::fatal(500, message, details)
}

async fn make(storage: &dyn BlockStorage, cx: &TaskContext, volume: &mut ServerVolume) -> Result<(), StepError> {
    let Some(make) = volume.make.clone() else { return Ok(()) };
    let new = NewBlockVolume {
        key: volume.volume_id,
        source: make.source,
        size_gb: make.size_gb,
        name: String::new(),
        description: String::new(),
        volume_type: make.volume_type,
        availability_zone: make.availability_zone,
        metadata: std::collections::BTreeMap::new(),
        waiter: Some(cx.task.id),
    };
    match storage.create(&cx.task.context, new).await {
        Ok(made) => volume.volume_id = made.id,
        Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
        Err(error) => return Err(aborted(cx, &error.to_string(), chain(&error))),
    }
    Ok(())
}

/// Is a volume made? False: not yet.
async fn is_made(storage: &dyn BlockStorage, cx: &TaskContext, id: VolumeId) -> Result<bool, StepError> {
    let found = match storage.volume(&cx.task.context, id).await {
        Ok(found) => found,
        Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
        Err(error) => return Err(aborted(cx, &format!("Volume {id} did not finish being created."), chain(&error))),
    };
    match found.status {
        Some(VolumeStatus::Available | VolumeStatus::Reserved | VolumeStatus::Attaching | VolumeStatus::InUse) => {
            Ok(true)
        }
        Some(VolumeStatus::Creating | VolumeStatus::Downloading) => Ok(false),
        other => {
            let status = other.map_or("unknown".to_owned(), |status| status.to_string());
            let why = format!("Volume {id} did not finish being created even after we waited; its status is {status}.");
            Err(aborted(cx, &why, status))
        }
    }
}

/// How long to rest until it is looked again for a volume; `None`: it is made. Where nobody tells of it, it is looked for a while
/// here.
async fn rest_until_made(
    storage: &dyn BlockStorage,
    cx: &TaskContext,
    id: VolumeId,
) -> Result<Option<Duration>, StepError> {
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_LOOK);
    while !is_made(storage, cx, id).await? {
        if storage.tells_when_made() {
            return Ok(Some(LOOK_AGAIN));
        }
        if waited >= LOOK_FOR {
            return Ok(Some(LAST_LOOK));
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(LAST_LOOK);
    }
    Ok(None)
}

#[async_trait]
impl Step for MakeVolumes {
    fn name(&self) -> &'static str {
        "make_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if cx.instance.volumes.is_empty() {
            return Ok(Ran::Done);
        }
        let storage = storage(services)?;
        let mut volumes = cx.instance.volumes.clone();
        for volume in &mut volumes {
            make(storage, cx, volume).await?;
        }
        for volume in &mut volumes {
            if volume.make.is_some()
                && let Some(wait) = rest_until_made(storage, cx, volume.volume_id).await?
            {
                // What is asked for again by the same keys is found.
                return Ok(Ran::Waits(wait));
            }
            volume.make = None;
            if volume.holds.is_empty() {
                let key = attachment_key(cx.task.id, volume.volume_id, None, 0);
                let made = storage.reserve(&cx.task.context, volume.volume_id, key, cx.instance.id, mode(volume)).await;
                let made = match made {
                    Ok(made) => made,
                    Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
                    Err(error) => return Err(aborted(cx, &error.to_string(), chain(&error))),
                };
                volume.holds.push(Hold { attachment_id: made.id, host: None });
            }
        }
        cx.instance.volumes = volumes;
        Ok(Ran::Written)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        if cx.instance.volumes.is_empty() {
            return Ok(());
        }
        give_back(services, cx).await
    }
}

/// Gives all volumes of the server back; those that were made for it and go with it are deleted.
async fn give_back(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    let (storage, context) = (storage(services)?, cx.task.context.clone());
    let volumes = cx.instance.volumes.clone();
    release(storage, cx, volumes.iter().flat_map(ServerVolume::all_holds).map(|hold| hold.attachment_id)).await?;
    for volume in &mut cx.instance.volumes {
        (volume.holds, volume.swap) = (Vec::new(), None);
    }
    release_the_unknown(storage, cx).await?;
    for volume in volumes.iter().filter(|volume| volume.delete_on_termination) {
        let what = format!("volume {}", volume.volume_id);
        match storage.volume(&context, volume.volume_id).await {
            Err(BlockStorageError::VolumeNotFound { .. }) => continue,
            Err(error) => {
                refused(cx, &what, error)?;
                continue;
            }
            Ok(found) if matches!(found.status, Some(VolumeStatus::Creating | VolumeStatus::Downloading)) => {
                let why = format!("{what} is still being made");
                if cx.undoing != Undoing::GivesUp {
                    return Err(StepError::Later(why));
                }
                cx.leave(&why);
                continue;
            }
            Ok(_) => {}
        }
        match storage.delete(&context, volume.volume_id).await {
            Ok(()) | Err(BlockStorageError::VolumeNotFound { .. }) => {}
            Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
            // As in Nova: somebody has made snapshots of it, or uses it otherwise. It is theirs to delete.
            Err(error) => {
                tracing::warn!(instance = %cx.instance.id, volume = %volume.volume_id, "not deleted with its server: {}", chain(&error));
            }
        }
    }
    Ok(())
}

/// The volumes of a server that is deleted: given back, and deleted with it where that was asked for. Once its guest is gone.
pub struct ReleaseVolumes;

#[async_trait]
impl Step for ReleaseVolumes {
    fn name(&self) -> &'static str {
        "release_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if cx.instance.volumes.is_empty() {
            return Ok(Ran::Done);
        }
        give_back(services, cx).await?;
        cx.instance.volumes.clear();
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What is released is others' to take.
        Ok(())
    }
}
