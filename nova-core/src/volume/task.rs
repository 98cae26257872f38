//! Long operations of volume hosts, as data. As with servers, the row is written with the intent that it carries out; it has
//! an owner, a lease and a deadline, so that another process, or the same one started again, takes it up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::RequestContext;
use crate::ids::{HostName, ImageId, TaskId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId};

/// What a new volume is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// Nothing: it reads as zeros.
    Empty,
    /// An image's data.
    Image(ImageId),
    /// A snapshot in the same pool.
    Snapshot {
        /// The snapshot.
        id: VolumeSnapshotId,
        /// Of that volume.
        volume_id: VolumeId,
    },
    /// A volume in the same pool.
    Volume(VolumeId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum VolumeWork {
    /// Make the volume.
    Create {
        /// Of this.
        source: VolumeSource,
    },
    /// Remove the volume, and its snapshots before.
    Delete,
    /// Make it as large as this; it was `from_gb`.
    Extend {
        /// GiB before.
        from_gb: u64,
        /// GiB after.
        to_gb: u64,
    },
    /// Take a snapshot.
    TakeSnapshot {
        /// Which.
        snapshot: VolumeSnapshotId,
    },
    /// Remove a snapshot.
    DeleteSnapshot {
        /// Which.
        snapshot: VolumeSnapshotId,
    },
    /// Write the volume's data into an image that is described.
    Upload {
        /// The image.
        image: ImageId,
        /// In this format.
        disk_format: String,
    },
    /// Write an image's data in the place of what is on it.
    Reimage {
        /// The image.
        image: ImageId,
        /// What the volume remembers of it from then on.
        remembered: BTreeMap<String, String>,
    },
    /// Let a host come to the volume.
    Connect {
        /// By this attachment.
        attachment: VolumeAttachmentId,
    },
    /// Let a host not come to the volume any more.
    Disconnect {
        /// By this attachment.
        attachment: VolumeAttachmentId,
    },
}

impl VolumeWork {
    /// A word for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Delete => "delete",
            Self::Extend { .. } => "extend",
            Self::TakeSnapshot { .. } => "take_snapshot",
            Self::DeleteSnapshot { .. } => "delete_snapshot",
            Self::Upload { .. } => "upload",
            Self::Reimage { .. } => "reimage",
            Self::Connect { .. } => "connect",
            Self::Disconnect { .. } => "disconnect",
        }
    }

    /// The volume, besides its own, that the work reads: it must not go meanwhile.
    pub const fn reads(&self) -> Option<VolumeId> {
        match self {
            Self::Create { source: VolumeSource::Volume(id) | VolumeSource::Snapshot { volume_id: id, .. } } => {
                Some(*id)
            }
            _ => None,
        }
    }
}

/// One long operation on one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeTask {
    /// The id.
    pub id: VolumeTaskId,
    /// On what.
    pub volume_id: VolumeId,
    /// The volume host that does it.
    pub host: HostName,
    /// What is to be done.
    pub work: VolumeWork,
    /// Who asked for it.
    pub context: RequestContext,
    /// Who works on it: a name that is unique to a process.
    #[serde(default)]
    pub owner: Option<String>,
    /// Until when nobody else touches it; in the past it is anyone's.
    pub lease_until: Timestamp,
    /// By when it ends, if need be in failure.
    pub deadline: Timestamp,
    /// How often it was taken up.
    #[serde(default)]
    pub attempts: u32,
    /// The task of a server that waits for its end, and is told of it.
    #[serde(default)]
    pub waiter: Option<TaskId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}
