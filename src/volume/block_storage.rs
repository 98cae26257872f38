//! The built-in volume service, as compute asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::ImageServiceError;
use nova_core::ids::{ImageId, InstanceId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTypeId};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};
use nova_core::volume::{
    Attachment, BlockAttachment, BlockSnapshot, BlockSource, BlockStorage, BlockStorageError, BlockVolume,
    NewBlockSnapshot, NewBlockVolume, Snapshot, SnapshotStatus, Volume, VolumeProblem, VolumeProblemClass,
    VolumeStatus, VolumeType,
};
use nova_db::{ListQuery, SnapshotField, StoreError, VolumeField};

use super::{CreateVolume, MadeOf, VolumeError, VolumeManager};

/// The built-in service behind the contract.
#[derive(Debug, Clone)]
pub struct OwnBlockStorage {
    manager: Arc<VolumeManager>,
}

impl OwnBlockStorage {
    /// Over this manager.
    pub fn new(manager: Arc<VolumeManager>) -> Self {
        Self { manager }
    }

    async fn types(&self) -> Result<Vec<VolumeType>, BlockStorageError> {
        self.manager.store().list_volume_types().await.map_err(|error| told(error.into()))
    }

    async fn viewed(&self, volume: &Volume) -> Result<BlockVolume, BlockStorageError> {
        Ok(view(volume, &self.types().await?))
    }
}

/// The error in the contract's words.
fn told(error: VolumeError) -> BlockStorageError {
    match error {
        VolumeError::Store(StoreError::Volume(problem)) => {
            let message = problem.to_string();
            match problem.class() {
                VolumeProblemClass::OverQuota => BlockStorageError::OverQuota { message },
                VolumeProblemClass::BadRequest | VolumeProblemClass::NotFound | VolumeProblemClass::Conflict => {
                    BlockStorageError::Invalid { message }
                }
            }
        }
        VolumeError::Image(ImageServiceError::Unavailable { source }) => BlockStorageError::Unavailable { source },
        VolumeError::Image(error) => BlockStorageError::Invalid { message: error.to_string() },
        VolumeError::Failed { what, fault } => BlockStorageError::Failed { what, fault },
        other => BlockStorageError::Unavailable { source: Box::new(other) },
    }
}

fn is_missing(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Store(StoreError::Volume(problem)) if problem.class() == VolumeProblemClass::NotFound)
        || matches!(error, VolumeError::Store(StoreError::NotFound { .. }))
}

fn of_volume(id: VolumeId) -> impl Fn(VolumeError) -> BlockStorageError {
    move |error| if is_missing(&error) { BlockStorageError::VolumeNotFound { id } } else { told(error) }
}

fn of_snapshot(id: VolumeSnapshotId) -> impl Fn(VolumeError) -> BlockStorageError {
    move |error| if is_missing(&error) { BlockStorageError::SnapshotNotFound { id } } else { told(error) }
}

fn of_attachment(id: VolumeAttachmentId) -> impl Fn(VolumeError) -> BlockStorageError {
    move |error| if is_missing(&error) { BlockStorageError::AttachmentNotFound { id } } else { told(error) }
}

fn attachment(one: &Attachment) -> BlockAttachment {
    BlockAttachment {
        id: one.id,
        volume_id: one.volume_id,
        instance_id: one.instance_id,
        host: one.host().map(str::to_owned),
        device: one.mountpoint.clone(),
    }
}

fn view(volume: &Volume, types: &[VolumeType]) -> BlockVolume {
    let name = |id: VolumeTypeId| types.iter().find(|of| of.id == id).map(|of| of.name.clone());
    BlockVolume {
        id: volume.id,
        name: volume.name.clone(),
        description: volume.description.clone(),
        size_gb: volume.size_gb,
        status: Some(volume.status),
        availability_zone: volume.availability_zone.to_string(),
        volume_type: volume.volume_type_id.and_then(name),
        bootable: volume.bootable,
        multiattach: volume.multiattach,
        readonly: volume.readonly,
        encrypted: false,
        snapshot_id: volume.snapshot_id,
        metadata: volume.metadata.clone(),
        image_metadata: volume.image_metadata.clone(),
        attachments: volume.attachments.values().map(attachment).collect(),
        migrating: false,
        fault: volume.fault.clone(),
        created_at: Some(volume.created_at),
    }
}

fn snapshot_view(snapshot: &Snapshot) -> BlockSnapshot {
    BlockSnapshot {
        id: snapshot.id,
        volume_id: snapshot.volume_id,
        name: snapshot.name.clone(),
        description: snapshot.description.clone(),
        size_gb: snapshot.size_gb,
        status: snapshot.status.as_str().to_owned(),
        created_at: Some(snapshot.created_at),
    }
}

#[async_trait]
impl BlockStorage for OwnBlockStorage {
    async fn volume(&self, context: &RequestContext, id: VolumeId) -> Result<BlockVolume, BlockStorageError> {
        let volume = self.manager.volume(context, id).await.map_err(of_volume(id))?;
        self.viewed(&volume).await
    }

    async fn volumes(&self, context: &RequestContext) -> Result<Vec<BlockVolume>, BlockStorageError> {
        let query = ListQuery::of(VolumeField::ProjectId, &context.project_id);
        let found = self.manager.store().list_volumes(&query).await.map_err(|error| told(error.into()))?;
        let types = self.types().await?;
        Ok(found.iter().map(|volume| view(volume, &types)).collect())
    }

    async fn snapshot(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
    ) -> Result<BlockSnapshot, BlockStorageError> {
        let snapshot = self.manager.snapshot(context, id).await.map_err(of_snapshot(id))?;
        Ok(snapshot_view(&snapshot))
    }

    async fn snapshots(&self, context: &RequestContext) -> Result<Vec<BlockSnapshot>, BlockStorageError> {
        let query = ListQuery::of(SnapshotField::ProjectId, &context.project_id);
        let found = self.manager.store().list_volume_snapshots(&query).await.map_err(|error| told(error.into()))?;
        Ok(found.iter().map(snapshot_view).collect())
    }

    async fn has_type(&self, context: &RequestContext, name: &str) -> Result<bool, BlockStorageError> {
        match self.manager.volume_type(context, name).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(told(error)),
        }
    }

    async fn create(&self, context: &RequestContext, new: NewBlockVolume) -> Result<BlockVolume, BlockStorageError> {
        let made_of = match new.source {
            BlockSource::Empty => MadeOf::Nothing,
            BlockSource::Image(id) => MadeOf::Image(id),
            BlockSource::Snapshot(id) => MadeOf::Snapshot(id),
        };
        let new = CreateVolume {
            id: Some(new.key),
            size_gb: new.size_gb,
            name: new.name,
            description: new.description,
            availability_zone: new.availability_zone,
            volume_type: new.volume_type,
            made_of,
            multiattach: false,
            metadata: new.metadata,
            waiter: new.waiter,
        };
        let made = self.manager.create(context, new).await.map_err(|error| match (made_of, is_missing(&error)) {
            (MadeOf::Snapshot(id), true) => BlockStorageError::SnapshotNotFound { id },
            _ => told(error),
        })?;
        self.viewed(&made).await
    }

    async fn reimage(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        image: ImageId,
    ) -> Result<(), BlockStorageError> {
        let now = self.manager.volume(context, volume).await.map_err(of_volume(volume))?;
        if now.status == VolumeStatus::Downloading {
            return Ok(());
        }
        self.manager.reimage(context, volume, image, true).await.map(drop).map_err(of_volume(volume))
    }

    fn tells_when_made(&self) -> bool {
        true
    }

    async fn delete(&self, context: &RequestContext, id: VolumeId) -> Result<(), BlockStorageError> {
        match self.manager.volume(context, id).await {
            Err(error) if is_missing(&error) => return Ok(()),
            Ok(volume) if volume.status == VolumeStatus::Deleting => return Ok(()),
            _ => {}
        }
        match self.manager.delete(context, id, false, false).await {
            Err(error) if is_missing(&error) => Ok(()),
            deleted => deleted.map_err(of_volume(id)),
        }
    }

    async fn reserve(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeAttachmentId,
        instance: InstanceId,
        mode: AccessMode,
    ) -> Result<BlockAttachment, BlockStorageError> {
        let reserved = self.manager.reserve_as(context, volume, key, Some(instance), mode).await;
        let (_, made) = reserved.map_err(of_volume(volume))?;
        if made.instance_id != Some(instance) || made.volume_id != volume {
            let message = VolumeProblem::AttachmentStatus { attachment: key, found: "another server's" }.to_string();
            return Err(BlockStorageError::Invalid { message });
        }
        Ok(attachment(&made))
    }

    async fn connect(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
        connector: &Connector,
    ) -> Result<ConnectionInfo, BlockStorageError> {
        let (_, connected) = self.manager.connect(context, id, connector).await.map_err(of_attachment(id))?;
        connected.connection_info.ok_or_else(|| BlockStorageError::Failed {
            what: "connecting the volume",
            fault: "the volume host did not say how".to_owned(),
        })
    }

    async fn complete(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
        device: Option<&str>,
    ) -> Result<(), BlockStorageError> {
        self.manager.complete(context, id, device).await.map(drop).map_err(of_attachment(id))
    }

    async fn release(&self, context: &RequestContext, id: VolumeAttachmentId) -> Result<(), BlockStorageError> {
        match self.manager.release(context, id).await {
            Err(error) if is_missing(&error) => Ok(()),
            released => released.map(drop).map_err(told),
        }
    }

    async fn attachments_of(
        &self,
        _context: &RequestContext,
        instance: InstanceId,
    ) -> Result<Vec<BlockAttachment>, BlockStorageError> {
        let found = self.manager.attachments_of(instance).await.map_err(|error| told(error.into()))?;
        Ok(found.iter().map(attachment).collect())
    }

    async fn attachments(&self, _context: &RequestContext) -> Result<Vec<BlockAttachment>, BlockStorageError> {
        let all = self.manager.store().list_volume_attachments(&ListQuery::default()).await;
        let all = all.map_err(|error| told(error.into()))?;
        Ok(all.iter().map(|(_, one)| attachment(one)).filter(|one| one.instance_id.is_some()).collect())
    }

    async fn begin_detaching(&self, context: &RequestContext, volume: VolumeId) -> Result<(), BlockStorageError> {
        let now = self.manager.volume(context, volume).await.map_err(of_volume(volume))?;
        if now.status == VolumeStatus::Detaching {
            return Ok(());
        }
        self.manager.begin_detaching(context, volume).await.map_err(of_volume(volume))
    }

    async fn roll_detaching(&self, context: &RequestContext, volume: VolumeId) -> Result<(), BlockStorageError> {
        self.manager.roll_detaching(context, volume).await.map_err(of_volume(volume))
    }

    async fn take_snapshot(
        &self,
        context: &RequestContext,
        new: NewBlockSnapshot,
    ) -> Result<BlockSnapshot, BlockStorageError> {
        let none = std::collections::BTreeMap::new();
        let words = (&*new.name, &*new.description);
        let taken = self.manager.take_snapshot_as(context, new.key, new.volume_id, words, &none, true).await;
        Ok(snapshot_view(&taken.map_err(of_volume(new.volume_id))?))
    }

    async fn snapshot_of_key(
        &self,
        context: &RequestContext,
        _volume: VolumeId,
        key: VolumeSnapshotId,
    ) -> Result<Option<BlockSnapshot>, BlockStorageError> {
        match self.manager.snapshot(context, key).await {
            Ok(found) => Ok(Some(snapshot_view(&found))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    async fn delete_snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Result<(), BlockStorageError> {
        match self.manager.snapshot(context, id).await {
            Err(error) if is_missing(&error) => return Ok(()),
            Ok(snapshot) if snapshot.status == SnapshotStatus::Deleting => return Ok(()),
            _ => {}
        }
        match self.manager.delete_snapshot(context, id, false).await {
            Err(error) if is_missing(&error) => Ok(()),
            deleted => deleted.map_err(of_snapshot(id)),
        }
    }
}
