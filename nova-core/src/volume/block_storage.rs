//! What compute needs of a block storage service (nova/volume/cinder.py): the built-in one, or an outside Cinder with its
//! attachments API (3.27, `os-complete` of 3.44).

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::VolumeStatus;
use super::connection::{AccessMode, ConnectionInfo, Connector};
use crate::context::RequestContext;
use crate::contracts::BoxError;
use crate::ids::{ImageId, InstanceId, TaskId, VolumeAttachmentId, VolumeId, VolumeSnapshotId};

/// Why the block storage service did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockStorageError {
    /// No such volume, or none that this project may know of.
    #[error("Volume {id} could not be found.")]
    VolumeNotFound {
        /// The id.
        id: VolumeId,
    },
    /// No such snapshot.
    #[error("Snapshot {id} could not be found.")]
    SnapshotNotFound {
        /// The id.
        id: VolumeSnapshotId,
    },
    /// No such attachment.
    #[error("Volume attachment {id} could not be found.")]
    AttachmentNotFound {
        /// The id.
        id: VolumeAttachmentId,
    },
    /// Not in this state, or not with these values. The text says what would do.
    #[error("{message}")]
    Invalid {
        /// In the service's words.
        message: String,
    },
    /// The project may not have that much.
    #[error("{message}")]
    OverQuota {
        /// In the service's words.
        message: String,
    },
    /// The service cannot do it.
    #[error("the block storage service cannot {what}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// It was tried, and did not work. The text is for operators.
    #[error("{what} failed: {fault}")]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// What was met.
        fault: String,
    },
    /// No answer. Whether something was done is not known; it may be asked again.
    #[error("the block storage service does not answer")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// A volume, as compute sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockVolume {
    /// The id.
    pub id: VolumeId,
    /// Display name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Size in GiB.
    pub size_gb: u64,
    /// Where it is in its life; `None`: a word that is not known here.
    pub status: Option<VolumeStatus>,
    /// Its zone.
    pub availability_zone: String,
    /// The name of its type.
    pub volume_type: Option<String>,
    /// Servers can boot from it.
    pub bootable: bool,
    /// It may be in several hands.
    pub multiattach: bool,
    /// Nobody may write to it.
    pub readonly: bool,
    /// It is encrypted by the hosts that have it.
    pub encrypted: bool,
    /// The snapshot that it was made of.
    pub snapshot_id: Option<VolumeSnapshotId>,
    /// Users' labels.
    pub metadata: BTreeMap<String, String>,
    /// What it remembers of the image that it was made of; empty: of none.
    pub image_metadata: BTreeMap<String, String>,
    /// In whose hands it is.
    pub attachments: Vec<BlockAttachment>,
    /// The service itself is moving it elsewhere.
    pub migrating: bool,
    /// Why the last operation on it failed, where the service tells.
    pub fault: Option<String>,
    /// When it was asked for, as the API shows it.
    pub created_at: Option<jiff::Timestamp>,
}

impl BlockVolume {
    /// Its attachments to that server.
    pub fn of(&self, instance: InstanceId) -> impl Iterator<Item = &BlockAttachment> {
        self.attachments.iter().filter(move |one| one.instance_id == Some(instance))
    }
}

/// A volume in a server's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAttachment {
    /// The id.
    pub id: VolumeAttachmentId,
    /// The volume.
    pub volume_id: VolumeId,
    /// The server; `None`: somebody else.
    pub instance_id: Option<InstanceId>,
    /// The host that may come to it; `None`: none yet, or it is not told.
    pub host: Option<String>,
    /// The device as the server sees it.
    pub device: Option<String>,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSnapshot {
    /// The id.
    pub id: VolumeSnapshotId,
    /// Of which volume.
    pub volume_id: VolumeId,
    /// Display name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The volume's size then, in GiB.
    pub size_gb: u64,
    /// The service's word: `available`, `creating`, ….
    pub status: String,
    /// When it was taken.
    pub created_at: Option<jiff::Timestamp>,
}

/// What a new volume is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// Nothing.
    Empty,
    /// An image.
    Image(ImageId),
    /// A snapshot.
    Snapshot(VolumeSnapshotId),
}

/// A volume that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlockVolume {
    /// A second request with the same key makes no second volume. A service that can choose ids takes it as the id; another
    /// one leaves it in the volume's metadata and looks for it.
    pub key: VolumeId,
    /// Made of this.
    pub source: BlockSource,
    /// GiB; `None`: as large as what it is made of.
    pub size_gb: Option<u64>,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Of the type of this name or id.
    pub volume_type: Option<String>,
    /// In this zone.
    pub availability_zone: Option<String>,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// The server's task that goes on once the volume is made, or cannot be: a service that
    /// [tells](BlockStorage::tells_when_made) wakes it.
    #[serde(default)]
    pub waiter: Option<TaskId>,
}

/// A snapshot that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlockSnapshot {
    /// A second request with the same key takes no second snapshot, as of [`NewBlockVolume::key`].
    pub key: VolumeSnapshotId,
    /// Of this volume.
    pub volume_id: VolumeId,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
}

/// Volumes, as compute asks for them. What is another project's than the context's is not there, unless an administrator or the
/// control plane itself asks.
#[async_trait]
pub trait BlockStorage: Send + Sync {
    /// A volume.
    async fn volume(&self, context: &RequestContext, id: VolumeId) -> Result<BlockVolume, BlockStorageError>;

    /// The project's volumes, by when they were made.
    async fn volumes(&self, context: &RequestContext) -> Result<Vec<BlockVolume>, BlockStorageError>;

    /// A snapshot.
    async fn snapshot(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
    ) -> Result<BlockSnapshot, BlockStorageError>;

    /// The project's snapshots, by when they were taken.
    async fn snapshots(&self, context: &RequestContext) -> Result<Vec<BlockSnapshot>, BlockStorageError>;

    /// Is there a type of that name or id that the project may use?
    async fn has_type(&self, context: &RequestContext, name: &str) -> Result<bool, BlockStorageError>;

    /// Begins to make a volume; it is there when this returns, and `creating`. May be repeated with the same key. The volume's
    /// id is the one that is answered, which may be another than the key.
    async fn create(&self, context: &RequestContext, new: NewBlockVolume) -> Result<BlockVolume, BlockStorageError>;

    /// Begins to write an image's data in the place of what is on a volume that is promised to a server and that no host comes
    /// to: it is `downloading` until then, and `reserved` afterwards. Fine if that is under way.
    async fn reimage(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        image: ImageId,
    ) -> Result<(), BlockStorageError>;

    /// Does the service wake whoever [waits](NewBlockVolume::waiter) for a new volume? What is told may be lost: it is to be
    /// looked for now and then all the same. If not, it must be looked for often.
    fn tells_when_made(&self) -> bool {
        false
    }

    /// Begins to remove a volume. Fine if there is none.
    async fn delete(&self, context: &RequestContext, id: VolumeId) -> Result<(), BlockStorageError>;

    /// Promises a volume to a server. May be repeated with the same key: a service that can choose ids takes it as the id;
    /// another one answers with an attachment of that server that no host has yet, if there is one. The attachment's id is the
    /// one that is answered.
    ///
    /// A server may have a volume twice: on its way from host to host.
    async fn reserve(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeAttachmentId,
        instance: InstanceId,
        mode: AccessMode,
    ) -> Result<BlockAttachment, BlockStorageError>;

    /// Lets a host come to the volume, and says how. May be repeated by the same host.
    async fn connect(
        &self,
        context: &RequestContext,
        attachment: VolumeAttachmentId,
        connector: &Connector,
    ) -> Result<ConnectionInfo, BlockStorageError>;

    /// The server has it, as this device. May be repeated.
    async fn complete(
        &self,
        context: &RequestContext,
        attachment: VolumeAttachmentId,
        device: Option<&str>,
    ) -> Result<(), BlockStorageError>;

    /// Gives it back: no host comes to it by this attachment when this returns. Fine if there is none.
    async fn release(&self, context: &RequestContext, attachment: VolumeAttachmentId) -> Result<(), BlockStorageError>;

    /// All attachments of a server, as far as the service tells: to find those that nobody knows of.
    async fn attachments_of(
        &self,
        context: &RequestContext,
        instance: InstanceId,
    ) -> Result<Vec<BlockAttachment>, BlockStorageError>;

    /// All attachments to servers, as far as the service tells, also those of other clouds.
    async fn attachments(&self, context: &RequestContext) -> Result<Vec<BlockAttachment>, BlockStorageError>;

    /// Its server is to give it back: nothing else is begun with it meanwhile. Fine if that was said before.
    async fn begin_detaching(&self, context: &RequestContext, volume: VolumeId) -> Result<(), BlockStorageError>;

    /// Its server keeps it. Fine if nothing was begun.
    async fn roll_detaching(&self, context: &RequestContext, volume: VolumeId) -> Result<(), BlockStorageError>;

    /// Begins to take a snapshot of a volume, also of one that is in use. May be repeated with the same key; the snapshot's id is
    /// the one that is answered.
    async fn take_snapshot(
        &self,
        context: &RequestContext,
        new: NewBlockSnapshot,
    ) -> Result<BlockSnapshot, BlockStorageError>;

    /// The snapshot of that volume that was taken with that key, if one was.
    async fn snapshot_of_key(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeSnapshotId,
    ) -> Result<Option<BlockSnapshot>, BlockStorageError>;

    /// Begins to remove a snapshot. Fine if there is none.
    async fn delete_snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Result<(), BlockStorageError>;

    /// The data of one volume is on another by now (Cinder's `os-migrate_volume_completion`): which id is the server's from now
    /// on?
    async fn swapped(
        &self,
        _context: &RequestContext,
        _old: VolumeId,
        new: VolumeId,
    ) -> Result<VolumeId, BlockStorageError> {
        Ok(new)
    }
}
