//! Volumes: disks that outlive servers (nova/volume as it was, with Cinder's words).
//!
//! A *volume* is a disk in a *pool* of a *volume host*; a *snapshot* is what it was at one moment; a *type* says which pools
//! may have it; an *attachment* is the volume in somebody's hands, from being reserved for a server to being connected to its
//! host; a *transfer* offers it to another project.

mod block_storage;
pub mod connection;
mod model;
mod problem;
mod quota;
mod server_volume;
mod state;
mod task;

pub use block_storage::{
    BlockAttachment, BlockSnapshot, BlockSource, BlockStorage, BlockStorageError, BlockVolume, NewBlockSnapshot,
    NewBlockVolume,
};
pub use connection::AccessMode;
pub use model::{
    Attachment, AttachmentStatus, DEFAULT_TYPE, GIB, Pool, PoolName, Snapshot, Transfer, Volume, VolumeType,
    type_allows,
};
pub use problem::{VolumeProblem, VolumeProblemClass};
pub use quota::{VolumeLimits, VolumeQuotaKey, VolumeResource};
pub use server_volume::{Hold, ServerVolume, VolumeSwap, VolumeToMake, attachment_key, next_device, snapshot_key};
pub use state::{
    Holds, SnapshotEvent, SnapshotStatus, VolumeEvent, VolumeRefusal, VolumeStatus, next, next_snapshot, rest,
};
pub use task::{VolumeSource, VolumeTask, VolumeWork};
