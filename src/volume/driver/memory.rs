//! Volumes in memory: for tests and simulations, and to try the service without a backend.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nova_core::contracts::{ImageData, ImageServiceError};
use nova_core::disk_format;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, ConnectionTarget, Connector, FileFormat, FileTarget};

use super::{
    AttachmentOf, DriverCapabilities, FoundVolume, ImageFormat, ImageSource, Inventory, NewVolume, PoolSpace,
    VolumeDriver, VolumeDriverError, VolumeErrorKind, VolumeImage,
};

type Result<T> = std::result::Result<T, VolumeDriverError>;

const DRIVER: &str = "memory";
const GIB: u64 = 1 << 30;
/// What is between two places that were written to.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// Pieces in which an image is read.
const CHUNK: usize = 1 << 20;

/// A [`VolumeDriver`] whose volumes are entries in a table. They hold the bytes that were written to them, and nothing for
/// those that were not. An image in another format than raw is inspected, and kept as the bytes that it is. Hosts "reach" a
/// volume through a path that leads nowhere; tests write and read through [`write`](Self::write) and [`read`](Self::read).
pub struct MemoryVolumes {
    state: Mutex<State>,
}

struct State {
    total: u64,
    ratio: f64,
    volumes: BTreeMap<VolumeId, Volume>,
    faults: BTreeMap<&'static str, VecDeque<VolumeFault>>,
}

#[derive(Default)]
struct Volume {
    size_gb: u64,
    bytes: Vec<u8>,
    snapshots: BTreeMap<VolumeSnapshotId, (u64, Vec<u8>)>,
    connections: BTreeMap<VolumeAttachmentId, (HostName, AccessMode)>,
}

/// A failure on command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeFault {
    /// Nothing is done.
    Before(VolumeErrorKind),
    /// It is done, and the answer is lost.
    After(VolumeErrorKind),
}

impl fmt::Debug for MemoryVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryVolumes").field("volumes", &self.lock().volumes.len()).finish_non_exhaustive()
    }
}

impl MemoryVolumes {
    /// A pool of so many GiB, of which may be promised `ratio` times as much.
    pub fn new(total_gb: u64, ratio: f64) -> Self {
        let (volumes, faults) = Default::default();
        Self { state: Mutex::new(State { total: total_gb.saturating_mul(GIB), ratio, volumes, faults }) }
    }

    /// The next call of that method of [`VolumeDriver`] (`create`, `connect_host`, …) fails so. Those after it do not, unless
    /// told again: failures wait in line.
    pub fn fail_next(&self, method: &'static str, fault: VolumeFault) {
        self.lock().faults.entry(method).or_default().push_back(fault);
    }

    /// Writes as the guest behind that connection does. Refused without one, and through one that only reads.
    pub fn write(&self, volume: VolumeId, attachment: VolumeAttachmentId, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.lock();
        let volume = find(&mut state.volumes, volume)?;
        match volume.connections.get(&attachment) {
            Some((_, AccessMode::ReadWrite)) => {}
            _ => return Err(VolumeDriverError::failed("writing", "there is no connection that may write")),
        }
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes.len()));
        let end = end.filter(|end| *end as u64 <= volume.size_gb.saturating_mul(GIB));
        let Some(end) = end else { return Err(VolumeDriverError::failed("writing", "it is behind the volume's end")) };
        // Not byte by byte: without an optimiser that takes seconds for each hundred MiB.
        while volume.bytes.len() < end {
            let more = ZEROS.len().min(end - volume.bytes.len());
            volume.bytes.extend_from_slice(&ZEROS[..more]);
        }
        volume.bytes[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    /// Reads as the guest behind that connection does.
    pub fn read(
        &self,
        volume: VolumeId,
        attachment: VolumeAttachmentId,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>> {
        let mut state = self.lock();
        let volume = find(&mut state.volumes, volume)?;
        if !volume.connections.contains_key(&attachment) {
            return Err(VolumeDriverError::failed("reading", "there is no connection"));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(volume.bytes.len());
        let held = &volume.bytes[start..];
        let held = &held[..held.len().min(length)];
        let mut read = vec![0; length];
        read[..held.len()].copy_from_slice(held);
        Ok(read)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one method, with the failure that was ordered for it.
    fn act<T>(&self, method: &'static str, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        match state.faults.get_mut(method).and_then(VecDeque::pop_front) {
            None => work(&mut state),
            Some(VolumeFault::Before(kind)) => Err(made_up(kind, method)),
            Some(VolumeFault::After(kind)) => work(&mut state).and_then(|_| Err(made_up(kind, method))),
        }
    }
}

fn made_up(kind: VolumeErrorKind, during: &'static str) -> VolumeDriverError {
    let source = || "it was told to fail".into();
    match kind {
        VolumeErrorKind::NotFound => VolumeDriverError::no_volume("of the order"),
        VolumeErrorKind::Conflict => VolumeDriverError::other_size("of the order", 0),
        VolumeErrorKind::Busy => VolumeDriverError::busy("of the order", "is told to be busy"),
        VolumeErrorKind::NoSpace => VolumeDriverError::NoSpace { during, source: source() },
        VolumeErrorKind::InvalidImage => VolumeDriverError::InvalidImage("The image is told to be bad.".to_owned()),
        VolumeErrorKind::Source => VolumeDriverError::Source { source: source() },
        VolumeErrorKind::Unsupported => VolumeDriverError::Unsupported { operation: during },
        VolumeErrorKind::Unavailable => VolumeDriverError::Unavailable { driver: DRIVER, source: source() },
        VolumeErrorKind::TimedOut => VolumeDriverError::TimedOut { during, after: std::time::Duration::ZERO },
        VolumeErrorKind::Failed => VolumeDriverError::Failed { during, source: source() },
    }
}

fn find(volumes: &mut BTreeMap<VolumeId, Volume>, id: VolumeId) -> Result<&mut Volume> {
    volumes.get_mut(&id).ok_or_else(|| VolumeDriverError::no_volume(id))
}

impl State {
    fn space(&self) -> PoolSpace {
        let sizes = |volume: &Volume| {
            volume.snapshots.values().map(|(size_gb, _)| *size_gb).fold(volume.size_gb, u64::saturating_add)
        };
        let held: u64 = self.volumes.values().map(|volume| volume.bytes.len() as u64).sum();
        PoolSpace {
            total: self.total,
            free: self.total.saturating_sub(held),
            provisioned: self.volumes.values().map(sizes).fold(0, u64::saturating_add).saturating_mul(GIB),
            over_subscription_ratio: self.ratio,
            reserved_percentage: 0,
        }
    }

    fn promise(&self, size_gb: u64, during: &'static str) -> Result<()> {
        let refused = self.space().admits(size_gb.saturating_mul(GIB));
        refused.map_err(|refusal| VolumeDriverError::NoSpace { during, source: refusal.into() })
    }

    fn make(&mut self, new: &NewVolume, bytes: impl FnOnce(&mut Self) -> Result<(u64, Vec<u8>)>) -> Result<()> {
        const DURING: &str = "creating a volume";
        match self.volumes.get(&new.id) {
            Some(volume) if volume.size_gb == new.size_gb => return Ok(()),
            Some(volume) => return Err(VolumeDriverError::other_size(new.id, volume.size_gb)),
            None => {}
        }
        let (least, bytes) = bytes(self)?;
        if new.size_gb < least.max(1) {
            return Err(VolumeDriverError::failed(DURING, format!("{} GiB are less than {least}", new.size_gb)));
        }
        self.promise(new.size_gb, DURING)?;
        self.volumes.insert(new.id, Volume { size_gb: new.size_gb, bytes, ..Volume::default() });
        Ok(())
    }
}

/// Reads all that a source of an image gives, up to so many bytes.
async fn collect(mut data: Box<dyn ImageData>, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        data.next_chunk().await.map_err(|error| VolumeDriverError::Source { source: error.into() })?
    {
        if (bytes.len() as u64).saturating_add(chunk.len() as u64) > most {
            return Err(VolumeDriverError::InvalidImage("The image is larger than the volume.".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[async_trait]
impl VolumeDriver for MemoryVolumes {
    fn capabilities(&self) -> DriverCapabilities {
        DriverCapabilities {
            driver: DRIVER,
            storage_protocol: DRIVER,
            vendor: "Open Source",
            online_extend: true,
            multiattach: true,
            live_snapshot: true,
            live_copy: true,
            thin: true,
            cuts_off: true,
        }
    }

    async fn stats(&self) -> Result<PoolSpace> {
        self.act("stats", |state| Ok(state.space()))
    }

    async fn inventory(&self) -> Result<Inventory> {
        self.act("inventory", |state| {
            let found = |volume: &Volume| FoundVolume {
                size_gb: volume.size_gb,
                snapshots: volume.snapshots.keys().copied().collect(),
                connections: volume.connections.iter().map(|(id, (host, _))| (*id, host.clone())).collect(),
            };
            let volumes = state.volumes.iter().map(|(id, volume)| (*id, found(volume))).collect();
            Ok(Inventory { volumes, unknown: Vec::new() })
        })
    }

    async fn create(&self, volume: &NewVolume) -> Result<()> {
        self.act("create", |state| state.make(volume, |_| Ok((0, Vec::new()))))
    }

    async fn create_from_volume(&self, volume: &NewVolume, source: VolumeId) -> Result<()> {
        self.act("create_from_volume", |state| {
            state.make(volume, |state| {
                let source = find(&mut state.volumes, source)?;
                Ok((source.size_gb, source.bytes.clone()))
            })
        })
    }

    async fn create_from_snapshot(
        &self,
        volume: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Result<()> {
        self.act("create_from_snapshot", |state| {
            state.make(volume, |state| {
                let kept = find(&mut state.volumes, source)?.snapshots.get(&snapshot).cloned();
                kept.ok_or_else(|| VolumeDriverError::no_snapshot(snapshot))
            })
        })
    }

    async fn write_image(&self, volume: VolumeId, image: &ImageSource, data: Box<dyn ImageData>) -> Result<()> {
        let most =
            self.act("write_image (size)", |state| Ok(find(&mut state.volumes, volume)?.size_gb.saturating_mul(GIB)))?;
        let bytes = collect(data, most).await?;
        disk_format::inspect(bytes.as_slice(), &image.disk_format, most)
            .map_err(|error| VolumeDriverError::inspected("inspecting an image", error))?;
        self.act("write_image", |state| {
            let found = find(&mut state.volumes, volume)?;
            if !found.connections.is_empty() {
                return Err(VolumeDriverError::busy(volume, "is connected to a host"));
            }
            found.bytes = bytes;
            Ok(())
        })
    }

    async fn read_image(&self, volume: VolumeId, _format: ImageFormat) -> Result<VolumeImage> {
        self.act("read_image", |state| {
            let bytes = find(&mut state.volumes, volume)?.bytes.clone();
            let size = bytes.len() as u64;
            Ok(VolumeImage { size, data: Box::new(MemoryData { bytes, at: 0 }) })
        })
    }

    async fn delete(&self, volume: VolumeId) -> Result<()> {
        self.act("delete", |state| {
            match state.volumes.get(&volume) {
                Some(found) if !found.connections.is_empty() => {
                    return Err(VolumeDriverError::busy(volume, "is connected to a host"));
                }
                Some(found) if !found.snapshots.is_empty() => {
                    return Err(VolumeDriverError::busy(volume, "has snapshots"));
                }
                Some(_) | None => state.volumes.remove(&volume),
            };
            Ok(())
        })
    }

    async fn extend(&self, volume: VolumeId, size_gb: u64) -> Result<()> {
        self.act("extend", |state| {
            let old = find(&mut state.volumes, volume)?.size_gb;
            if old > size_gb {
                return Err(VolumeDriverError::other_size(volume, old));
            }
            state.promise(size_gb - old, "extending a volume")?;
            find(&mut state.volumes, volume)?.size_gb = size_gb;
            Ok(())
        })
    }

    async fn create_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        self.act("create_snapshot", |state| {
            let found = find(&mut state.volumes, volume)?;
            if found.snapshots.contains_key(&snapshot) {
                return Ok(());
            }
            let kept = (found.size_gb, found.bytes.clone());
            state.promise(kept.0, "creating a snapshot")?;
            find(&mut state.volumes, volume)?.snapshots.insert(snapshot, kept);
            Ok(())
        })
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        self.act("delete_snapshot", |state| {
            if let Some(found) = state.volumes.get_mut(&volume) {
                found.snapshots.remove(&snapshot);
            }
            Ok(())
        })
    }

    async fn connect_host(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Result<ConnectionInfo> {
        self.act("connect_host", |state| {
            let found = find(&mut state.volumes, volume)?;
            found.connections.insert(attachment.id, (connector.host.clone(), attachment.access));
            let target = FileTarget { path: format!("/nowhere/volume-{volume}").into(), format: FileFormat::Raw };
            let target = ConnectionTarget::File(target);
            Ok(ConnectionInfo { volume_id: volume, access_mode: attachment.access, target })
        })
    }

    async fn disconnect_host(&self, volume: VolumeId, attachment: VolumeAttachmentId) -> Result<()> {
        self.act("disconnect_host", |state| {
            if let Some(found) = state.volumes.get_mut(&volume) {
                found.connections.remove(&attachment);
            }
            Ok(())
        })
    }

    async fn ping(&self) -> Result<()> {
        self.act("ping", |_| Ok(()))
    }
}

struct MemoryData {
    bytes: Vec<u8>,
    at: usize,
}

#[async_trait]
impl ImageData for MemoryData {
    async fn next_chunk(&mut self) -> std::result::Result<Option<Vec<u8>>, ImageServiceError> {
        let end = self.bytes.len().min(self.at.saturating_add(CHUNK));
        let chunk = self.bytes[self.at..end].to_vec();
        self.at = end;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{VolumeBench, ids};
    use super::*;

    struct Memory(MemoryVolumes);

    #[async_trait]
    impl VolumeBench for Memory {
        fn driver(&self) -> &dyn VolumeDriver {
            &self.0
        }
        async fn write(
            &self,
            info: &ConnectionInfo,
            attachment: VolumeAttachmentId,
            offset: u64,
            pattern: u8,
            length: usize,
        ) -> bool {
            self.0.write(info.volume_id, attachment, offset, &vec![pattern; length]).is_ok()
        }
        async fn reads(
            &self,
            info: &ConnectionInfo,
            attachment: VolumeAttachmentId,
            offset: u64,
            pattern: u8,
            length: usize,
        ) -> bool {
            let read = self.0.read(info.volume_id, attachment, offset, length);
            read.is_ok_and(|bytes| bytes == vec![pattern; length])
        }
    }

    crate::volume_driver_conformance!(async { Memory(MemoryVolumes::new(32, 2.0)) });

    #[tokio::test]
    async fn it_fails_on_command_before_or_after() {
        let driver = MemoryVolumes::new(10, 1.0);
        let new = NewVolume { id: ids::volume(1), size_gb: 1, multiattach: false };
        driver.fail_next("create", VolumeFault::Before(VolumeErrorKind::Unavailable));
        driver.fail_next("create", VolumeFault::After(VolumeErrorKind::TimedOut));
        assert_eq!(driver.create(&new).await.unwrap_err().kind(), VolumeErrorKind::Unavailable);
        assert!(driver.inventory().await.unwrap().volumes.is_empty());
        assert_eq!(driver.create(&new).await.unwrap_err().kind(), VolumeErrorKind::TimedOut);
        assert_eq!(driver.inventory().await.unwrap().volumes.len(), 1);
        driver.create(&new).await.unwrap();
    }
}
