//! The built-in volume service: disks that outlive servers (nova/volume as it was, with Cinder's words).
//!
//! [`VolumeManager`] is what the API and other control services ask: it checks, and writes what is to be together with a task.
//! [`service::VolumeHost`] runs on a volume host, takes up the tasks of its host and carries them out with a
//! [`driver::VolumeDriver`]. Between them is the store; a word on the bus only shortens the wait. What may be done when is
//! [`nova_core::volume::next`]'s to say.

mod attachments;
mod block_storage;
mod change;
mod cinder;
mod create;
pub mod driver;
mod error;
mod manager;
mod options;
mod place;
mod reimage;
pub mod service;
mod snapshots;
mod transfers;
mod types;

pub use block_storage::OwnBlockStorage;
pub use change::{Reset, VolumeEdit};
pub use cinder::{CINDER_OPTIONS, CinderClient, CinderOptions, VOLUME_SERVICE, cinder_fits};
pub use create::{CreateVolume, MadeOf};
pub use error::VolumeError;
pub use manager::{VolumeManager, VolumeParts};
pub use options::{VOLUME_OPTIONS, VolumeOptions, host_options};
pub use transfers::Offered;
