//! Where volumes' bytes are: [`VolumeDriver`] is what the volume service needs of a storage backend.
//!
//! A driver knows volumes by their ids and keeps no books of its own beyond what it needs to find its files: what should be
//! there is the store's to say, and [`inventory`](VolumeDriver::inventory) tells what is. Implementations:
//!
//! - [`NbdVolumes`]: raw files, exported over NBD by QEMU's storage daemons.
//! - [`FileVolumes`]: raw files that hosts open themselves, on a file system that they share.
//! - [`IscsiVolumes`]: raw files, exported over iSCSI by `tgtd`.
//! - [`LvmVolumes`]: thin logical volumes, exported over iSCSI by `tgtd`.
//! - [`MemoryVolumes`]: volumes are entries in a table, hold what is written, and take no room. It fails on command.
//!
//! Each is held to the same suite (`conformance`). Cinder's counterpart is `cinder/volume/driver.py`.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod file;
mod iscsi;
mod lvm;
mod memory;
mod nbd;
mod options;
mod pool;
mod space;
mod tools;

use std::collections::BTreeMap;

use async_trait::async_trait;
use nova_core::contracts::ImageData;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};

pub use error::{BoxError, VolumeDriverError, VolumeErrorKind};
pub use file::FileVolumes;
pub use iscsi::{IscsiOptions, IscsiVolumes, PortalOptions};
pub use lvm::{LvmOptions, LvmVolumes};
pub use memory::{MemoryVolumes, VolumeFault};
pub use nbd::{NbdOptions, NbdVolumes, TlsFolder};
pub use options::{VOLUME_DRIVER_OPTIONS, open, volume_driver_fits};
pub use pool::PoolOptions;
pub use space::{PoolSpace, SpaceRefusal};

/// A storage backend.
///
/// Every operation may be repeated with the same ids: when what it asks for is already so, it succeeds and changes nothing. A
/// failed operation leaves nothing half made behind that its repetition, or `delete`, would not take up. Operations on one
/// volume come one after the other, as far as they change it. Sizes are in GiB, as users give them.
///
/// Any operation may fail with [`Unavailable`](VolumeDriverError::Unavailable), [`TimedOut`](VolumeDriverError::TimedOut) and
/// [`Failed`](VolumeDriverError::Failed); those that name a volume or snapshot to work on, deletions excepted, with
/// [`NotFound`](VolumeDriverError::NotFound); those that need room with [`NoSpace`](VolumeDriverError::NoSpace).
#[async_trait]
pub trait VolumeDriver: Send + Sync {
    /// What this driver can do. Never blocks.
    fn capabilities(&self) -> DriverCapabilities;

    /// What there is of room, and what was promised of it.
    async fn stats(&self) -> Result<PoolSpace, VolumeDriverError>;

    /// Everything that is there, ordered by id: for comparing with the books, at start and for checks.
    async fn inventory(&self) -> Result<Inventory, VolumeDriverError>;

    /// Makes an empty volume: it reads as zeros. One of that id and size is Ok, of another size
    /// [`Conflict`](VolumeDriverError::Conflict).
    async fn create(&self, volume: &NewVolume) -> Result<(), VolumeDriverError>;

    /// Makes a volume that begins as a copy of another one (as it is now) and is at least as large. It stays good when the
    /// source is changed or deleted. A source that is connected is [`Busy`](VolumeDriverError::Busy), unless
    /// [`live_copy`](DriverCapabilities::live_copy).
    async fn create_from_volume(&self, volume: &NewVolume, source: VolumeId) -> Result<(), VolumeDriverError>;

    /// Makes a volume that begins as a copy of a snapshot and is at least as large. It stays good when the snapshot is deleted.
    async fn create_from_snapshot(
        &self,
        volume: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Result<(), VolumeDriverError>;

    /// Replaces what is on a volume that is not connected by the disk that an image makes. The image is inspected before any
    /// program sees it, and must be what it is declared to be, stand alone and fit:
    /// [`InvalidImage`](VolumeDriverError::InvalidImage). What is behind the image's end reads as zeros. All of it is written,
    /// or the volume is as it was. Its snapshots stay what they were.
    async fn write_image(
        &self,
        volume: VolumeId,
        image: &ImageSource,
        data: Box<dyn ImageData>,
    ) -> Result<(), VolumeDriverError>;

    /// What is on a volume now, as an image of that format, which stands alone. As for
    /// [`create_from_volume`](Self::create_from_volume), it must not be connected.
    async fn read_image(&self, volume: VolumeId, format: ImageFormat) -> Result<VolumeImage, VolumeDriverError>;

    /// Removes a volume: nobody reads its bytes from then on, whoever gets the space. An absent one is Ok. One that is connected
    /// or has snapshots is [`Busy`](VolumeDriverError::Busy).
    async fn delete(&self, volume: VolumeId) -> Result<(), VolumeDriverError>;

    /// Makes a volume larger; what is added reads as zeros. One of that size is Ok, a larger one
    /// [`Conflict`](VolumeDriverError::Conflict). One that is connected is [`Busy`](VolumeDriverError::Busy) unless
    /// [`online_extend`](DriverCapabilities::online_extend); where it can, the hosts have to tell their guests.
    async fn extend(&self, volume: VolumeId, size_gb: u64) -> Result<(), VolumeDriverError>;

    /// Keeps what is on a volume now: of one that is connected, as if its power was cut at one moment (only where
    /// [`live_snapshot`](DriverCapabilities::live_snapshot), else [`Busy`](VolumeDriverError::Busy)).
    async fn create_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<(), VolumeDriverError>;

    /// Removes a snapshot; its bytes as for [`delete`](Self::delete). An absent one is Ok.
    async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<(), VolumeDriverError>;

    /// Lets one host reach the volume, for one attachment, and says how. Repeated for the same attachment: the same answer (so a
    /// service that starts says all its attachments again, and what was lost is given again). Several attachments at once are
    /// the caller's to allow: of a volume that is to be shared, or of one guest on the way from host to host.
    async fn connect_host(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Result<ConnectionInfo, VolumeDriverError>;

    /// Ends what [`connect_host`](Self::connect_host) allowed: when it returns, nothing more is written through that
    /// attachment, whatever the host does, as far as the driver [can cut it off](DriverCapabilities::cuts_off). An unknown
    /// attachment is Ok.
    async fn disconnect_host(&self, volume: VolumeId, attachment: VolumeAttachmentId) -> Result<(), VolumeDriverError>;

    /// Checks that the backend answers.
    async fn ping(&self) -> Result<(), VolumeDriverError>;
}

/// What a driver can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverCapabilities {
    /// The driver's name in the configuration.
    pub driver: &'static str,
    /// How hosts reach its volumes, as `storage_protocol` shows it: `nbd`, `iSCSI`, `file`, …
    pub storage_protocol: &'static str,
    /// `vendor_name` of the pool.
    pub vendor: &'static str,
    /// Volumes that hosts are connected to can be extended.
    pub online_extend: bool,
    /// Volumes can be connected to several hosts for good.
    pub multiattach: bool,
    /// Snapshots of connected volumes.
    pub live_snapshot: bool,
    /// Copies of connected volumes, and images made of them.
    pub live_copy: bool,
    /// Room is taken when it is written to.
    pub thin: bool,
    /// A host that is disconnected, or may only read, is held to it by the backend. Where this is not so, it must have let go
    /// before: nothing here can make it.
    pub cuts_off: bool,
}

/// A volume to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id.
    pub id: VolumeId,
    /// Its size in GiB, at least 1.
    pub size_gb: u64,
    /// Whether several servers are to have it at once.
    pub multiattach: bool,
}

/// One attachment, as a driver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentOf {
    /// Its id.
    pub id: VolumeAttachmentId,
    /// Whether it writes.
    pub access: AccessMode,
}

/// An image whose data follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSource {
    /// `disk_format` as the image service has it: what the data must be.
    pub disk_format: String,
    /// How many bytes there are, where that is known.
    pub size: Option<u64>,
}

/// A format in which images of volumes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's, with holes left out.
    Qcow2,
}

impl ImageFormat {
    /// The word of `disk_format`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// An image of a volume, ready to be sent.
pub struct VolumeImage {
    /// How many bytes there are.
    pub size: u64,
    /// The bytes.
    pub data: Box<dyn ImageData>,
}

/// What a backend holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Volumes.
    pub volumes: BTreeMap<VolumeId, FoundVolume>,
    /// Files and other things of ours that belong to none of them, for people to look at.
    pub unknown: Vec<String>,
}

/// A volume that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundVolume {
    /// Its size in GiB.
    pub size_gb: u64,
    /// Its snapshots, by id.
    pub snapshots: Vec<VolumeSnapshotId>,
    /// Who is let in: host by attachment.
    pub connections: BTreeMap<VolumeAttachmentId, HostName>,
}
