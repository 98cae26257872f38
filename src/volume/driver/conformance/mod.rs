//! What every [`VolumeDriver`] must do, as a suite to hold drivers to.
//!
//! ```ignore
//! nova::volume_driver_conformance!(async { MyBench::new() });
//! ```
//!
//! makes one test per check. The future gives each a [`VolumeBench`] of its own: the driver with an empty pool, and the means to
//! write and read as a guest does. Volumes have 1 to 3 GiB, of which a few KiB are written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a check fails by panicking")]

mod bytes;
mod life;

use async_trait::async_trait;
use nova_core::contracts::{ImageData, ImageServiceError};
use nova_core::ids::VolumeAttachmentId;
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};

pub use bytes::*;
pub use life::*;

use super::{AttachmentOf, ImageSource, NewVolume, VolumeDriver};

/// A driver, and what a guest could do with its volumes.
#[async_trait]
pub trait VolumeBench: Send + Sync {
    /// The driver.
    fn driver(&self) -> &dyn VolumeDriver;
    /// Writes `length` times the byte through a connection; whether it went.
    async fn write(
        &self,
        info: &ConnectionInfo,
        attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool;
    /// Whether there is `length` times that byte; false too where nothing can be read.
    async fn reads(
        &self,
        info: &ConnectionInfo,
        attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool;
}

/// One test per check of the suite. With a second argument, the tests are ignored for that reason unless asked for.
#[macro_export]
macro_rules! volume_driver_conformance {
    ($open:expr) => { $crate::volume_driver_conformance!(@all [] $open); };
    ($open:expr, ignore = $reason:literal) => { $crate::volume_driver_conformance!(@all [#[ignore = $reason]] $open); };
    (@all $ignore:tt $open:expr) => {
        $crate::volume_driver_conformance!(@each $ignore $open =>
            what_is_made_is_there,
            a_deleted_volume_is_gone,
            what_is_unknown_is_not_found,
            room_is_never_promised_twice,
            a_volume_grows,
            a_connected_volume_grows_or_is_busy,
            a_connection_is_given_and_taken,
            what_is_connected_stays,
            snapshots_come_and_go,
            a_new_volume_reads_as_zeros,
            bytes_outlive_connections,
            a_reader_does_not_write,
            who_is_disconnected_reaches_nothing,
            several_hosts_share_one_volume,
            a_snapshot_keeps_what_was,
            a_copy_is_independent,
            an_image_becomes_a_volume,
            an_image_leaves_snapshots_as_they_were,
            a_bad_image_leaves_the_volume_as_it_was,
            a_volume_becomes_an_image,
            space_of_the_deleted_reads_as_zeros,
        );
    };
    (@each $ignore:tt $open:expr => $($check:ident),+ $(,)?) => {
        $( $crate::volume_driver_conformance!(@one $ignore $open, $check); )+
    };
    (@one [$($ignore:tt)*] $open:expr, $check:ident) => {
        #[tokio::test]
        $($ignore)*
        async fn $check() {
            let bench = $open.await;
            $crate::volume::driver::conformance::$check(&bench).await
        }
    };
}

/// Ids by number.
pub mod ids {
    use nova_core::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId};
    use uuid::Uuid;

    fn uuid(kind: u8, number: u8) -> Uuid {
        Uuid::from_u128(u128::from(kind) << 8 | u128::from(number) | 0x4000_8000 << 64)
    }

    /// A volume's.
    pub fn volume(number: u8) -> VolumeId {
        VolumeId::from_uuid(uuid(1, number))
    }
    /// A snapshot's.
    pub fn snapshot(number: u8) -> VolumeSnapshotId {
        VolumeSnapshotId::from_uuid(uuid(2, number))
    }
    /// An attachment's.
    pub fn attachment(number: u8) -> VolumeAttachmentId {
        VolumeAttachmentId::from_uuid(uuid(3, number))
    }
}

/// A volume of 1 GiB.
pub fn small(number: u8) -> NewVolume {
    NewVolume { id: ids::volume(number), size_gb: 1, multiattach: false }
}

/// An attachment that writes.
pub fn writer(number: u8) -> AttachmentOf {
    AttachmentOf { id: ids::attachment(number), access: AccessMode::ReadWrite }
}

/// An attachment that reads.
pub fn reader(number: u8) -> AttachmentOf {
    AttachmentOf { id: ids::attachment(number), access: AccessMode::ReadOnly }
}

/// A host's connector.
pub fn host(name: &str) -> Connector {
    Connector { ip: Some("127.0.0.1".to_owned()), ..Connector::of(name.into()) }
}

/// A declaration of an image.
pub fn image(disk_format: &str) -> ImageSource {
    ImageSource { disk_format: disk_format.to_owned(), size: None }
}

/// An image's data in memory, which comes in pieces.
pub struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    /// All of these bytes, so many at once.
    pub fn of(bytes: &[u8], piece: usize) -> Box<dyn ImageData> {
        Box::new(Self(bytes.chunks(piece.max(1)).rev().map(<[u8]>::to_vec).collect()))
    }
}

#[async_trait]
impl ImageData for Pieces {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        Ok(self.0.pop())
    }
}

/// Some data, and then none because the image service is away.
pub struct Broken(pub bool);

#[async_trait]
impl ImageData for Broken {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        if std::mem::replace(&mut self.0, true) {
            return Err(ImageServiceError::Unavailable { source: "it went away".into() });
        }
        Ok(Some(vec![7; 4096]))
    }
}

async fn connect(bench: &dyn VolumeBench, volume: u8, attachment: &AttachmentOf, at: &str) -> ConnectionInfo {
    bench.driver().connect_host(ids::volume(volume), attachment, &host(at)).await.unwrap()
}
