//! Making an image of a server (nova/compute/manager.py, `snapshot_instance`, `backup_instance`, `_rotate_backups`). The
//! image was described when it was asked for; the host brings its data.

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageStatus};
use nova_core::instance::Instance;
use nova_core::rpc::compute::{SnapshotInstance, SnapshotOrder};
use nova_core::state::TaskState;
use nova_core::task::Work;
use nova_db::StoreError;

use super::on_host::begin;
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Has the host bring a copy of the root disk.
pub struct Snapshot;

/// Deletes the oldest backups of a kind beyond those that are kept.
pub struct RotateBackups;

const GIB: u64 = 1 << 30;

/// How large an image of the server may be: its root disk, and what a format adds.
fn largest(instance: &Instance) -> u64 {
    let image = instance.image.as_ref().map_or(0, |image| image.virtual_size.max(image.size));
    let disk = instance.flavor.root_gb.saturating_mul(GIB).max(image);
    disk.saturating_add(disk / 64).saturating_add(64 << 20)
}

/// Its image says that no copy is one that its file systems did not stand still for (nova/virt/libvirt/driver.py,
/// `_requires_quiesce`).
pub(super) fn requires_quiesce(instance: &Instance) -> bool {
    is_true(instance, "os_require_quiesce")
}

/// What its image says by yes or no.
pub(super) fn is_true(instance: &Instance, property: &str) -> bool {
    let property = instance.image_properties().get(property);
    property.is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "on" | "y" | "yes"))
}

pub(super) fn later(error: &StoreError) -> StepError {
    StepError::Later(chain(error))
}

pub(super) async fn image(services: &Services, id: ImageId) -> Result<Option<Image>, StepError> {
    match services.store.get_image(id).await {
        Ok(image) => Ok(Some(image)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(later(&error)),
    }
}

pub(super) async fn delete(services: &Services, id: ImageId) -> Result<(), StepError> {
    match services.store.delete_image(id).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(later(&error)),
    }
}

#[async_trait]
impl Step for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(image_id) = cx.task.work.image_in_making() else {
            return Err(StepError::fatal(500, "This task makes no image.", ""));
        };
        let Some(image) = image(services, image_id).await? else {
            // Whoever asked for it has deleted it meanwhile.
            return Err(StepError::fatal(404, format!("Image {image_id} could not be found."), "it was deleted"));
        };
        if image.status == ImageStatus::Active {
            return Ok(Ran::Done);
        }
        let event = match cx.task.work {
            Work::CreateBackup { .. } => "compute_backup_instance",
            Work::Move(_) => {
                // It is not the only order of the task.
                cx.renew_epoch();
                "compute_shelve_instance"
            }
            _ => {
                if !cx.repeated {
                    cx.instance.task_state = Some(TaskState::ImageSnapshot);
                }
                "compute_snapshot_instance"
            }
        };
        begin(cx, event);
        let grant = services.image_grants.grant_upload(image_id, largest(&cx.instance), cx.task.deadline);
        let disk_format = image.disk_format.unwrap_or_else(|| "raw".to_owned());
        let quiesce = requires_quiesce(&cx.instance);
        let order = SnapshotOrder { image_id, disk_format, quiesce, grant };
        Ok(Ran::Ordered(StagedOrder::of::<SnapshotInstance, _>(order)))
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        let Some(id) = cx.task.work.image_in_making() else { return Ok(()) };
        match image(services, id).await? {
            // Its data came after all: it is what was asked for.
            Some(image) if image.status == ImageStatus::Active => Ok(()),
            Some(_) => delete(services, id).await,
            None => Ok(()),
        }
    }
}

/// Which backups go: all of that kind but the newest. `images` are all there are, newest first.
fn superfluous<'a>(
    images: &'a [Image],
    instance: &'a Instance,
    work: &'a Work,
    project: &'a str,
) -> impl Iterator<Item = ImageId> + 'a {
    let (kind, keep) = match work {
        Work::CreateBackup { backup_type, rotation, .. } => (backup_type.as_str(), *rotation as usize),
        _ => ("", usize::MAX),
    };
    let id = instance.id.to_string();
    let is_one = move |image: &&Image| {
        let property = |key: &str, value: &str| image.properties.get(key).is_some_and(|held| held == value);
        // Of another project they are none of this one's, whatever they say of themselves.
        image.owner.as_str() == project
            && image.status == ImageStatus::Active
            && property("image_type", "backup")
            && property("backup_type", kind)
            && property("instance_uuid", &id)
    };
    let old = images.iter().filter(is_one).skip(keep);
    old.filter(|image| !image.protected).map(|image| image.id)
}

#[async_trait]
impl Step for RotateBackups {
    fn name(&self) -> &'static str {
        "rotate_backups"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let images = services.store.list_images().await.map_err(|error| later(&error))?;
        let project = cx.task.context.project_id.as_str();
        let old: Vec<ImageId> = superfluous(&images, &cx.instance, &cx.task.work, project).collect();
        for id in old {
            tracing::info!(instance = %cx.instance.id, image = %id, "a backup makes room for newer ones");
            delete(services, id).await?;
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was deleted is gone.
        Ok(())
    }
}
