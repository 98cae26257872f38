//! The part of a driver that all have whose volumes are in a pool of files.

use async_trait::async_trait;
use nova_core::contracts::ImageData;
use nova_core::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{ConnectionInfo, Connector};

use super::{FilePool, Granted, LiveCopier};
use crate::volume::driver::{
    AttachmentOf, DriverCapabilities, ImageFormat, ImageSource, Inventory, NewVolume, PoolSpace, VolumeDriver,
    VolumeDriverError, VolumeImage,
};

type Result<T> = std::result::Result<T, VolumeDriverError>;

/// What differs: how hosts are let in to a file of the pool.
#[async_trait]
pub(in crate::volume::driver) trait Pooled: LiveCopier {
    fn pool(&self) -> &FilePool;

    fn describe(&self) -> DriverCapabilities;

    /// Lets a host in; Ok if it is. It stands in the pool's books, as new or not.
    async fn admit(&self, volume: VolumeId, attachment: &AttachmentOf, connector: &Connector)
    -> Result<ConnectionInfo>;

    /// Lets a host in no more.
    async fn expel(&self, volume: VolumeId, attachment: VolumeAttachmentId, granted: &Granted) -> Result<()>;

    async fn answers(&self) -> Result<()>;
}

#[async_trait]
impl<P: Pooled> VolumeDriver for P {
    fn capabilities(&self) -> DriverCapabilities {
        self.describe()
    }

    async fn stats(&self) -> Result<PoolSpace> {
        self.pool().space()
    }

    async fn inventory(&self) -> Result<Inventory> {
        self.pool().inventory().await
    }

    async fn create(&self, volume: &NewVolume) -> Result<()> {
        self.pool().create(volume).await
    }

    async fn create_from_volume(&self, volume: &NewVolume, source: VolumeId) -> Result<()> {
        self.pool().copy_volume(volume, source, self).await
    }

    async fn create_from_snapshot(
        &self,
        volume: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Result<()> {
        self.pool().copy_snapshot(volume, source, snapshot).await
    }

    async fn write_image(&self, volume: VolumeId, image: &ImageSource, data: Box<dyn ImageData>) -> Result<()> {
        self.pool().write_image(volume, image, data).await
    }

    async fn read_image(&self, volume: VolumeId, format: ImageFormat) -> Result<VolumeImage> {
        self.pool().read_image(volume, format, self).await
    }

    async fn delete(&self, volume: VolumeId) -> Result<()> {
        self.pool().delete(volume).await
    }

    async fn extend(&self, volume: VolumeId, size_gb: u64) -> Result<()> {
        self.pool().extend(volume, size_gb, self.describe().online_extend).await
    }

    async fn create_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        self.pool().create_snapshot(volume, snapshot, self).await
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        self.pool().delete_snapshot(volume, snapshot).await
    }

    async fn connect_host(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Result<ConnectionInfo> {
        let _turn = self.pool().turn(volume).await;
        let known = self.pool().entry(volume)?.connections.get(&attachment.id).cloned();
        let granted = Granted { host: connector.host.clone(), access: attachment.access };
        if let Some(before) = known.as_ref().filter(|before| **before != granted) {
            // The attachment is another host's, or allowed something else, until it is disconnected.
            let difference = format!("lets host {} in ({:?})", before.host, before.access);
            return Err(VolumeDriverError::Conflict { kind: "attachment", id: attachment.id.to_string(), difference });
        }
        self.pool().check_whole(volume).await?;
        // Written down first: whatever is let in, the books know of it.
        self.pool().grant(volume, attachment.id, granted.clone()).await?;
        let admitted = self.admit(volume, attachment, connector).await;
        if admitted.is_err() && known.is_none() && self.expel(volume, attachment.id, &granted).await.is_ok() {
            // If this fails, the inventory says so, and whoever disconnects takes it back.
            let _ = self.pool().revoke(volume, attachment.id).await;
        }
        admitted
    }

    async fn disconnect_host(&self, volume: VolumeId, attachment: VolumeAttachmentId) -> Result<()> {
        let _turn = self.pool().turn(volume).await;
        let Ok(entry) = self.pool().entry(volume) else { return Ok(()) };
        let Some(granted) = entry.connections.get(&attachment) else { return Ok(()) };
        self.expel(volume, attachment, granted).await?;
        self.pool().revoke(volume, attachment).await
    }

    async fn ping(&self) -> Result<()> {
        self.pool().space()?;
        self.answers().await
    }
}
