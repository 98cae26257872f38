//! An image of a server that boots from a volume: snapshots of all its volumes, and how to make volumes of them again
//! (nova/compute/api.py, `snapshot_volume_backed`). The image has no data.

use std::time::Duration;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, VolumeId, VolumeSnapshotId};
use nova_core::image::{Image, ImageStatus};
use nova_core::instance::Instance;
use nova_core::task::Task;
use nova_core::volume::{BlockSnapshot, BlockStorage, BlockStorageError, NewBlockSnapshot, ServerVolume, snapshot_key};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::super::snapshot::{delete, image, later as store_later};
use super::super::{Ran, Services, Step, StepError};
use super::{failed, later, refused, storage};
use crate::conductor::context::TaskContext;

/// How long a step looks at snapshots that are being taken before it lets others go first.
const LOOK_FOR: Duration = Duration::from_secs(10);
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Tries to write the image past other writers.
const TRIES: usize = 5;

/// What is known of no bytes.
const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
const SHA512_OF_NOTHING: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f\
                                 63b931bd47417a81a538327af927da3e";

/// Removes what was taken for an image that will not be.
pub struct SnapshotVolumes;

/// Takes the snapshots.
pub struct TakeSnapshots;

/// Writes into the image how to make volumes of them.
pub struct CompleteImage;

/// Those that the server has: what is being attached is not its own yet.
fn held(instance: &Instance) -> impl Iterator<Item = &ServerVolume> {
    instance.volumes.iter().filter(|volume| volume.make.is_none() && !volume.holds.is_empty())
}

/// The image, as it is now.
async fn described(services: &Services, cx: &TaskContext) -> Result<Image, StepError> {
    let Some(id) = cx.task.work.image_in_making() else {
        return Err(StepError::fatal(500, "This task makes no image.", ""));
    };
    image(services, id).await?.ok_or_else(|| no_image(id))
}

fn no_image(id: ImageId) -> StepError {
    StepError::fatal(404, format!("Image {id} could not be found."), "it was deleted")
}

#[async_trait]
impl Step for SnapshotVolumes {
    fn name(&self) -> &'static str {
        "snapshot_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        described(services, cx).await.map(|_| Ran::Done)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let Some(id) = cx.task.work.image_in_making() else { return Ok(()) };
        match image(services, id).await? {
            // It was completed after all: it is what was asked for.
            Some(image) if image.status == ImageStatus::Active => return Ok(()),
            Some(_) => delete(services, id).await?,
            None => {}
        }
        match drop_snapshots(storage(services)?, &cx.task, &cx.instance).await {
            Ok(()) => Ok(()),
            Err(error) => refused(cx, &format!("snapshots that were taken for image {id}"), error),
        }
    }
}

#[async_trait]
impl Step for TakeSnapshots {
    fn name(&self) -> &'static str {
        "take_snapshots"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let described = described(services, cx).await?;
        if described.status == ImageStatus::Active {
            return Ok(Ran::Done);
        }
        let storage = storage(services)?;
        let mut taken = Vec::new();
        for volume in held(&cx.instance) {
            let snapshot = take(storage, &cx.task, volume, described.name.as_deref().unwrap_or_default()).await?;
            taken.push(snapshot);
        }
        for snapshot in &taken {
            match settled(storage, &cx.task.context, snapshot.id).await.map_err(failed)?.as_deref() {
                Some("available") => {}
                None => return Err(StepError::Later(format!("snapshot {} is still being taken", snapshot.id))),
                Some(status) => {
                    let text = format!("Snapshot {} of volume {} was not taken.", snapshot.id, snapshot.volume_id);
                    return Err(StepError::fatal(500, text, format!("its status is {status}")));
                }
            }
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Step for CompleteImage {
    fn name(&self) -> &'static str {
        "complete_image"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (storage, described) = (storage(services)?, described(services, cx).await?);
        if described.status == ImageStatus::Active {
            return Ok(Ran::Done);
        }
        let mut mappings = Vec::new();
        for volume in held(&cx.instance) {
            let (id, key) = (volume.volume_id, snapshot_key(cx.task.id, volume.volume_id));
            let taken = storage.snapshot_of_key(&cx.task.context, id, key).await.map_err(failed)?;
            let gone = || StepError::fatal(500, format!("The snapshot of volume {id} is gone."), "somebody deleted it");
            mappings.push(mapping(volume, &taken.ok_or_else(gone)?));
        }
        mappings.extend(blank_disks(&cx.instance));
        let id = described.id;
        complete(services, described, &cx.instance, &Value::Array(mappings)).await?.ok_or_else(|| no_image(id))?;
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // Whether it was completed is looked at where its snapshots are removed.
        Ok(())
    }
}

/// Removes what the task has taken for an image that will not be.
pub async fn drop_snapshots(
    storage: &dyn BlockStorage,
    task: &Task,
    instance: &Instance,
) -> Result<(), BlockStorageError> {
    let mut refused = Ok(());
    for volume in held(instance) {
        match drop_snapshot(storage, task, volume.volume_id).await {
            Err(error @ BlockStorageError::Unavailable { .. }) => return Err(error),
            dropped => refused = refused.and(dropped),
        }
    }
    refused
}

async fn drop_snapshot(storage: &dyn BlockStorage, task: &Task, volume: VolumeId) -> Result<(), BlockStorageError> {
    let key = snapshot_key(task.id, volume);
    if let Some(taken) = storage.snapshot_of_key(&task.context, volume, key).await? {
        // One that is being taken cannot go.
        settled(storage, &task.context, taken.id).await?;
        storage.delete_snapshot(&task.context, taken.id).await?;
    }
    Ok(())
}

async fn take(
    storage: &dyn BlockStorage,
    task: &Task,
    volume: &ServerVolume,
    image: &str,
) -> Result<BlockSnapshot, StepError> {
    let id = volume.volume_id;
    let found = storage.volume(&task.context, id).await.map_err(failed)?;
    let new = NewBlockSnapshot {
        key: snapshot_key(task.id, id),
        volume_id: id,
        name: format!("snapshot for {image}"),
        description: found.description,
    };
    storage.take_snapshot(&task.context, new).await.map_err(failed)
}

/// Waits until a snapshot is taken, or failed: its status then. `None`: not yet.
async fn settled(
    storage: &dyn BlockStorage,
    context: &RequestContext,
    id: VolumeSnapshotId,
) -> Result<Option<String>, BlockStorageError> {
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_LOOK);
    loop {
        let now = storage.snapshot(context, id).await?;
        if now.status != "creating" {
            return Ok(Some(now.status));
        }
        if waited >= LOOK_FOR {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// A disk of the image (nova/block_device.py, `snapshot_from_bdm`, `get_image_mapping`).
fn mapping(volume: &ServerVolume, snapshot: &BlockSnapshot) -> Value {
    json!({
        "source_type": "snapshot",
        "destination_type": "volume",
        "snapshot_id": snapshot.id,
        "volume_size": snapshot.size_gb,
        "boot_index": volume.boot_index,
        "device_name": volume.device,
        "delete_on_termination": volume.delete_on_termination,
        "device_type": "disk",
        "disk_bus": null,
        "guest_format": null,
        "volume_id": null,
        "image_id": null,
        "no_device": null,
        "tag": null,
        "volume_type": null,
    })
}

/// Disks on its host that it was asked for with.
fn blank_disks(instance: &Instance) -> impl Iterator<Item = Value> {
    let local = &instance.local_disks;
    let ephemerals = local.ephemeral_gb.iter().map(|size| (*size, Value::Null));
    let all = ephemerals.chain(local.swap_mb.map(|size| (size, json!("swap"))));
    all.map(|(size, format)| {
        json!({
            "source_type": "blank",
            "destination_type": "local",
            "guest_format": format,
            "volume_size": size,
            "boot_index": null,
            "device_name": null,
            "delete_on_termination": true,
            "device_type": "disk",
            "disk_bus": null,
            "snapshot_id": null,
            "volume_id": null,
            "image_id": null,
            "no_device": null,
            "tag": null,
            "volume_type": null,
        })
    })
}

/// The image is complete: it says how to make the volumes anew. `None`: it is gone.
async fn complete(
    services: &Services,
    mut image: Image,
    instance: &Instance,
    mappings: &Value,
) -> Result<Option<()>, StepError> {
    for _ in 0..TRIES {
        let root = instance.root_volume().and_then(|root| root.device.clone());
        image.properties.extend(root.map(|device| ("root_device_name".to_owned(), device)));
        image.properties.insert("block_device_mapping".to_owned(), mappings.to_string());
        image.properties.insert("bdm_v2".to_owned(), "True".to_owned());
        image.status = ImageStatus::Active;
        (image.size, image.virtual_size) = (Some(0), Some(0));
        image.checksum = Some(MD5_OF_NOTHING.to_owned());
        image.os_hash_value = Some(SHA512_OF_NOTHING.to_owned());
        let id = image.id;
        match services.store.update_image(image).await {
            Ok(_) => return Ok(Some(())),
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(StoreError::Conflict { .. }) => match super::super::snapshot::image(services, id).await? {
                Some(changed) => image = changed,
                None => return Ok(None),
            },
            Err(error) => return Err(store_later(&error)),
        }
    }
    Err(StepError::Later("the image is being changed by others".to_owned()))
}

/// The task is gone with all that it was to do, since its server was deleted: so is what it has taken.
pub async fn abandoned(services: &Services, task: &Task, instance: &Instance) -> Result<(), StepError> {
    match services.store.get_task(task.id).await {
        Err(StoreError::NotFound { .. }) => {}
        Ok(_) => return Ok(()),
        Err(error) => return Err(store_later(&error)),
    }
    let Some(id) = task.work.image_in_making() else { return Ok(()) };
    if image(services, id).await?.is_some_and(|image| image.status == ImageStatus::Active) {
        return Ok(());
    }
    drop_snapshots(storage(services)?, task, instance).await.map_err(later)
}
