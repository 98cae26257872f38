//! One task, carried out.

use std::collections::BTreeMap;

use nova_core::contracts::ImageServiceError;
use nova_core::error::chain;
use nova_core::ids::{ImageId, VolumeId};
use nova_core::volume::connection::ConnectionInfo;
use nova_core::volume::{Snapshot, Volume, VolumeSource, VolumeTask, VolumeWork};
use nova_db::{ListQuery, SnapshotField, StoreError};

use super::VolumeHost;
use crate::volume::driver::{AttachmentOf, ImageFormat, ImageSource, NewVolume, VolumeDriverError};

/// What came of the work, besides that it is done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How a host comes to the volume.
    pub(super) connection: Option<ConnectionInfo>,
}

/// Why the work is not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may work later.
    Later(String),
    /// It will not work; for operators.
    Never(String),
}

impl From<VolumeDriverError> for Trouble {
    fn from(error: VolumeDriverError) -> Self {
        let text = chain(&error).to_string();
        match error {
            VolumeDriverError::Unavailable { .. }
            | VolumeDriverError::TimedOut { .. }
            | VolumeDriverError::Source { .. } => Self::Later(text),
            _ => Self::Never(text),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let text = chain(&error).to_string();
        if error.is_retryable() { Self::Later(text) } else { Self::Never(text) }
    }
}

impl From<ImageServiceError> for Trouble {
    fn from(error: ImageServiceError) -> Self {
        let text = chain(&error).to_string();
        if matches!(error, ImageServiceError::Unavailable { .. }) { Self::Later(text) } else { Self::Never(text) }
    }
}

impl VolumeHost {
    /// Carries a task out that was taken up, and writes what came of it.
    pub(super) async fn run(&self, task: VolumeTask) {
        let began = self.now();
        let word = task.work.name();
        let _alone = self.alone([task.volume_id].into_iter().chain(task.work.reads())).await;
        let result = if task.deadline <= began {
            Err(Trouble::Never("it was not over in time".to_owned()))
        } else {
            match self.holding(task.id, self.perform(&task)).await {
                Some(result) => result,
                None => return tracing::debug!(task = %task.id, word, "a task is somebody else's now"),
            }
        };
        let ended = match result {
            Ok(done) => self.succeeded(&task, done).await,
            Err(Trouble::Later(why)) => return self.postpone(&task, &why).await,
            Err(Trouble::Never(why)) => {
                tracing::warn!(volume = %task.volume_id, word, attempts = task.attempts, "an operation failed: {why}");
                self.undo(&task).await;
                self.failed(&task, &why).await
            }
        };
        if let Err(error) = ended {
            // It is done again, and finds that it is done.
            tracing::warn!(volume = %task.volume_id, word, "the end of an operation was not written: {}", chain(&error));
        }
        let took = self.now().duration_since(began);
        metrics::histogram!("nova_volume_task_seconds", "work" => word).record(took.as_secs_f64());
    }

    /// Tried again when its lease has ended, which is soon.
    async fn postpone(&self, task: &VolumeTask, why: &str) {
        let word = task.work.name();
        tracing::warn!(volume = %task.volume_id, word, attempts = task.attempts, "an operation is tried again: {why}");
        let parts = &self.inner.parts;
        let until = self.later(parts.options.retry);
        if let Err(error) = parts.store.claim_volume_task(task.id, &parts.options.owner, self.now(), until).await {
            tracing::debug!(task = %task.id, "its lease has to end by itself: {}", chain(&error));
        }
    }

    /// Every part of it may be done again.
    async fn perform(&self, task: &VolumeTask) -> Result<Done, Trouble> {
        let parts = &self.inner.parts;
        let volume = parts.store.get_volume(task.volume_id).await?;
        match &task.work {
            VolumeWork::Create { source } => self.make(task, &volume, *source).await?,
            VolumeWork::Delete => self.remove(&volume).await?,
            VolumeWork::Extend { to_gb, .. } => self.extend(&volume, *to_gb).await?,
            VolumeWork::TakeSnapshot { snapshot } => parts.driver.create_snapshot(volume.id, *snapshot).await?,
            VolumeWork::DeleteSnapshot { snapshot } => parts.driver.delete_snapshot(volume.id, *snapshot).await?,
            VolumeWork::Upload { image, disk_format } => self.upload(task, &volume, *image, disk_format).await?,
            VolumeWork::Reimage { image, remembered } => self.fill(task, volume.id, *image, remembered).await?,
            VolumeWork::Connect { attachment } => {
                let gone = || Trouble::Never("the attachment is gone".to_owned());
                let attachment = volume.attachments.get(attachment).ok_or_else(gone)?;
                let connector = attachment.connector.as_ref().ok_or_else(gone)?;
                let of = AttachmentOf { id: attachment.id, access: attachment.mode };
                let connection = Some(parts.driver.connect_host(volume.id, &of, connector).await?);
                return Ok(Done { connection });
            }
            VolumeWork::Disconnect { attachment } => parts.driver.disconnect_host(volume.id, *attachment).await?,
        }
        Ok(Done::default())
    }

    async fn make(&self, task: &VolumeTask, volume: &Volume, source: VolumeSource) -> Result<(), Trouble> {
        let driver = &self.inner.parts.driver;
        let new = NewVolume { id: volume.id, size_gb: volume.size_gb, multiattach: volume.multiattach };
        match source {
            VolumeSource::Empty => driver.create(&new).await?,
            VolumeSource::Volume(from) => driver.create_from_volume(&new, from).await?,
            VolumeSource::Snapshot { id, volume_id } => driver.create_from_snapshot(&new, volume_id, id).await?,
            VolumeSource::Image(image) => {
                driver.create(&new).await?;
                self.fill(task, volume.id, image, &volume.image_metadata).await?;
            }
        }
        Ok(())
    }

    /// Writes an image's data onto a volume; `remembered`: what is known of the image.
    async fn fill(
        &self,
        task: &VolumeTask,
        volume: VolumeId,
        image: ImageId,
        remembered: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let parts = &self.inner.parts;
        let Some(images) = &parts.images else { return Err(Trouble::Never("there is no image service".to_owned())) };
        let grant = parts.grants.as_ref().map(|key| key.grant(image, task.deadline));
        let disk_format = remembered.get("disk_format").cloned().unwrap_or_default();
        let size = remembered.get("size").and_then(|text| text.parse().ok());
        let data = images.download(image, grant.as_ref()).await?;
        Ok(parts.driver.write_image(volume, &ImageSource { disk_format, size }, data).await?)
    }

    /// A failure that left the volume larger is none.
    async fn extend(&self, volume: &Volume, to_gb: u64) -> Result<(), Trouble> {
        let driver = &self.inner.parts.driver;
        let Err(error) = driver.extend(volume.id, to_gb).await else { return Ok(()) };
        let found =
            driver.inventory().await.ok().and_then(|there| there.volumes.get(&volume.id).map(|one| one.size_gb));
        if found == Some(to_gb) { Ok(()) } else { Err(error.into()) }
    }

    async fn remove(&self, volume: &Volume) -> Result<(), Trouble> {
        let parts = &self.inner.parts;
        let snapshots = self.snapshots_of(volume.id).await?;
        for snapshot in &snapshots {
            parts.driver.delete_snapshot(volume.id, snapshot.id).await?;
        }
        Ok(parts.driver.delete(volume.id).await?)
    }

    pub(super) async fn snapshots_of(&self, volume: VolumeId) -> Result<Vec<Snapshot>, StoreError> {
        let of_it = ListQuery::of(SnapshotField::VolumeId, volume);
        self.inner.parts.store.list_volume_snapshots(&of_it).await
    }

    async fn upload(
        &self,
        task: &VolumeTask,
        volume: &Volume,
        image: ImageId,
        disk_format: &str,
    ) -> Result<(), Trouble> {
        let parts = &self.inner.parts;
        let Some(images) = &parts.images else { return Err(Trouble::Never("there is no image service".to_owned())) };
        let format = if disk_format == "raw" { ImageFormat::Raw } else { ImageFormat::Qcow2 };
        let made = parts.driver.read_image(volume.id, format).await?;
        let grant = parts.grants.as_ref().map(|key| key.grant_upload(image, made.size, task.deadline));
        Ok(images.upload(image, grant.as_ref(), made.size, made.data).await?)
    }

    /// Takes back what a failed task may have done. What is not taken back is removed with the volume.
    async fn undo(&self, task: &VolumeTask) {
        let driver = &self.inner.parts.driver;
        let undone = match &task.work {
            VolumeWork::Create { .. } => driver.delete(task.volume_id).await,
            VolumeWork::TakeSnapshot { snapshot } => driver.delete_snapshot(task.volume_id, *snapshot).await,
            VolumeWork::Connect { attachment } => driver.disconnect_host(task.volume_id, *attachment).await,
            VolumeWork::Delete
            | VolumeWork::Extend { .. }
            | VolumeWork::DeleteSnapshot { .. }
            | VolumeWork::Upload { .. }
            | VolumeWork::Reimage { .. }
            | VolumeWork::Disconnect { .. } => Ok(()),
        };
        if let Err(error) = undone {
            tracing::error!(volume = %task.volume_id, work = task.work.name(), "not undone: {}", chain(&error));
        }
    }
}
