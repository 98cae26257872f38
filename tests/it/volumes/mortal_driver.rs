//! A driver whose service dies at one of its calls: it never answers again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use nova::volume::driver::{
    AttachmentOf, DriverCapabilities, ImageFormat, ImageSource, Inventory, MemoryVolumes, NewVolume, PoolSpace,
    VolumeDriver, VolumeDriverError, VolumeImage,
};
use nova_core::contracts::ImageData;
use nova_core::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{ConnectionInfo, Connector};
use tokio::sync::Notify;

pub struct MortalDriver {
    inner: Arc<MemoryVolumes>,
    armed: AtomicBool,
    calls: AtomicUsize,
    moment: usize,
    after: bool,
    pub died: Notify,
}

impl MortalDriver {
    pub fn new(inner: Arc<MemoryVolumes>, moment: usize, after: bool) -> Self {
        Self { inner, armed: AtomicBool::new(false), calls: AtomicUsize::new(0), moment, after, died: Notify::new() }
    }

    /// Calls count from now on.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Has its moment come?
    pub fn is_dead(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.moment
    }

    async fn live<T>(&self, work: impl Future<Output = T>) -> T {
        if !self.armed.load(Ordering::SeqCst) {
            return work.await;
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call == self.moment && !self.after {
            return self.die().await;
        }
        let done = work.await;
        if call == self.moment {
            return self.die().await;
        }
        done
    }

    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }
}

type Answer<T> = Result<T, VolumeDriverError>;

#[async_trait]
impl VolumeDriver for MortalDriver {
    fn capabilities(&self) -> DriverCapabilities {
        self.inner.capabilities()
    }
    async fn stats(&self) -> Answer<PoolSpace> {
        self.inner.stats().await
    }
    async fn inventory(&self) -> Answer<Inventory> {
        self.inner.inventory().await
    }
    async fn create(&self, volume: &NewVolume) -> Answer<()> {
        self.live(self.inner.create(volume)).await
    }
    async fn create_from_volume(&self, volume: &NewVolume, source: VolumeId) -> Answer<()> {
        self.live(self.inner.create_from_volume(volume, source)).await
    }
    async fn create_from_snapshot(
        &self,
        volume: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Answer<()> {
        self.live(self.inner.create_from_snapshot(volume, source, snapshot)).await
    }
    async fn write_image(&self, volume: VolumeId, image: &ImageSource, data: Box<dyn ImageData>) -> Answer<()> {
        self.live(self.inner.write_image(volume, image, data)).await
    }
    async fn read_image(&self, volume: VolumeId, format: ImageFormat) -> Answer<VolumeImage> {
        self.live(self.inner.read_image(volume, format)).await
    }
    async fn delete(&self, volume: VolumeId) -> Answer<()> {
        self.live(self.inner.delete(volume)).await
    }
    async fn extend(&self, volume: VolumeId, size_gb: u64) -> Answer<()> {
        self.live(self.inner.extend(volume, size_gb)).await
    }
    async fn create_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Answer<()> {
        self.live(self.inner.create_snapshot(volume, snapshot)).await
    }
    async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Answer<()> {
        self.live(self.inner.delete_snapshot(volume, snapshot)).await
    }
    async fn connect_host(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Answer<ConnectionInfo> {
        self.live(self.inner.connect_host(volume, attachment, connector)).await
    }
    async fn disconnect_host(&self, volume: VolumeId, attachment: VolumeAttachmentId) -> Answer<()> {
        self.live(self.inner.disconnect_host(volume, attachment)).await
    }
    async fn ping(&self) -> Answer<()> {
        self.inner.ping().await
    }
}
