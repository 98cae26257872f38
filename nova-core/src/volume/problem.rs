//! Why a volume cannot be as asked, in Cinder's words (cinder/exception.py).

use super::{SnapshotStatus, VolumeRefusal, VolumeResource, VolumeStatus};
use crate::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId};

/// What kind of answer a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeProblemClass {
    /// What was asked makes no sense, or not in this state.
    BadRequest,
    /// Something that it names is not there.
    NotFound,
    /// It makes sense, but not now.
    Conflict,
    /// The project may not have that much.
    OverQuota,
}

/// Why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are what the texts say of them")]
pub enum VolumeProblem {
    /// Not in this state.
    #[error("Invalid volume: {}", refusal_text(.0))]
    Status(VolumeRefusal),
    /// Anything else about the volume that is in the way.
    #[error("Invalid volume: {message}")]
    Invalid { message: String },
    /// Snapshots are made of it.
    #[error("Invalid volume: Volume {volume} still has {count} dependent snapshots.")]
    HasSnapshots { volume: VolumeId, count: usize },
    /// Something is being made of it.
    #[error("Invalid volume: Volume {volume} is being copied.")]
    Copied { volume: VolumeId },
    /// The snapshot, not in this state.
    #[error("Invalid snapshot: Snapshot {snapshot} status must be {} , but is {found}.", join(.needs))]
    SnapshotStatus { snapshot: VolumeSnapshotId, needs: &'static [SnapshotStatus], found: SnapshotStatus },
    /// A value that cannot be.
    #[error("Invalid input received: {message}")]
    Input { message: String },
    /// The attachment, not in this state.
    #[error("Invalid volume: attachment {attachment} is {found}")]
    AttachmentStatus { attachment: VolumeAttachmentId, found: &'static str },
    /// Nothing of that kind and id.
    #[error("{kind} {id} could not be found.")]
    NotFound { kind: &'static str, id: String },
    /// Cinder finds attachments by filters.
    #[error("Volume attachment could not be found with filter: attachment_id = {0}.")]
    NoAttachment(String),
    /// It is offered already, or was changed meanwhile.
    #[error("{message}")]
    Conflict { message: String },
    /// No more volumes or snapshots.
    #[error("{} allowed ({limit}) exceeded for quota '{name}'.", maximum(.resource))]
    TooMany { resource: VolumeResource, name: String, limit: u64 },
    /// No more room.
    #[error(
        "Requested volume or snapshot exceeds allowed {name} quota. Requested {requested}G, quota is {limit}G and {used}G has been consumed."
    )]
    TooLarge { name: String, requested: u64, limit: u64, used: u64 },
    /// A volume may not be so large.
    #[error("Requested volume size {size}G is larger than maximum allowed limit {limit}G.")]
    OverSize { size: u64, limit: u64 },
    /// The pool has not so much.
    #[error("pool {pool} has no room for {wanted_gb} GiB")]
    NoRoom { pool: String, wanted_gb: u64 },
    /// No pool does.
    #[error("No valid backend was found. {reason}")]
    NoPool { reason: String },
}

fn join<T: std::fmt::Display>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn maximum(resource: &VolumeResource) -> &'static str {
    match resource {
        VolumeResource::Snapshots => "Maximum number of snapshots",
        VolumeResource::Volumes | VolumeResource::Gigabytes | VolumeResource::PerVolumeGigabytes => {
            "Maximum number of volumes"
        }
    }
}

fn refusal_text(refusal: &VolumeRefusal) -> String {
    let needs = join::<VolumeStatus>(refusal.needs);
    if refusal.held {
        return format!(
            "Volume status must be {needs} and it must not be attached, but the status is {}.",
            refusal.found
        );
    }
    format!("Volume status must be {needs}, but current status is: {}.", refusal.found)
}

impl VolumeProblem {
    /// A volume that is not there, or that nobody may know of.
    pub fn no_volume(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "Volume", id: id.to_string() }
    }

    /// A snapshot that is not there.
    pub fn no_snapshot(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "Snapshot", id: id.to_string() }
    }

    /// A type that is not there.
    pub fn no_type(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "Volume type", id: id.to_string() }
    }

    /// A value that cannot be.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input { message: message.into() }
    }

    /// Something about the volume.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// What kind of answer it is.
    pub fn class(&self) -> VolumeProblemClass {
        use VolumeProblemClass as C;
        match self {
            Self::Status(_)
            | Self::Invalid { .. }
            | Self::HasSnapshots { .. }
            | Self::Copied { .. }
            | Self::SnapshotStatus { .. }
            | Self::Input { .. }
            | Self::AttachmentStatus { .. }
            | Self::OverSize { .. }
            | Self::NoPool { .. } => C::BadRequest,
            Self::NotFound { .. } | Self::NoAttachment(_) => C::NotFound,
            Self::Conflict { .. } | Self::NoRoom { .. } => C::Conflict,
            Self::TooMany { .. } | Self::TooLarge { .. } => C::OverQuota,
        }
    }
}

impl From<VolumeRefusal> for VolumeProblem {
    fn from(refusal: VolumeRefusal) -> Self {
        Self::Status(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Holds, VolumeEvent, next};

    #[test]
    fn texts_say_what_would_do() {
        let refusal = next(VolumeStatus::InUse, Holds::default(), VolumeEvent::Extend { online: false }).unwrap_err();
        assert_eq!(
            VolumeProblem::from(refusal).to_string(),
            "Invalid volume: Volume status must be available, but current status is: in-use."
        );
        let over = VolumeProblem::TooLarge { name: "gigabytes".into(), requested: 5, limit: 1000, used: 998 };
        assert_eq!(
            over.to_string(),
            "Requested volume or snapshot exceeds allowed gigabytes quota. Requested 5G, quota is 1000G and 998G has been consumed."
        );
        assert_eq!(over.class(), VolumeProblemClass::OverQuota);
        let many = VolumeProblem::TooMany { resource: VolumeResource::Volumes, name: "volumes".into(), limit: 10 };
        assert_eq!(many.to_string(), "Maximum number of volumes allowed (10) exceeded for quota 'volumes'.");
    }
}
