//! A folder full of disks: what the drivers that keep volumes in files have in common.
//!
//! A volume is a raw file with holes, `volume-ID`, of the size that was asked for; a snapshot is one beside it,
//! `volume-ID.snapshot-ID`; who is let in stands in `volume-ID.connections`. What is unfinished is called `….new` and is
//! removed when the pool is opened. Raw, because several processes may have a raw file open at once (a shared volume, a guest
//! on the way between hosts), which no copy-on-write format allows; and because nothing that a guest writes can make it
//! refer to another file (OSSA-2024-001).
//!
//! The folder belongs to one process at a time, so the table in memory is what is there.

mod driver;
pub(super) mod files;
pub(super) mod images;
mod table;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::AccessMode;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

pub(super) use driver::Pooled;
pub(super) use table::{Entry, Table};

use super::tools::blocking;
use super::{Inventory, NewVolume, PoolSpace, VolumeDriverError};

type Result<T> = std::result::Result<T, VolumeDriverError>;

const GIB: u64 = 1 << 30;

/// What a pool of files is told.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// The folder.
    pub folder: PathBuf,
    /// How much may be promised of each byte.
    pub over_subscription_ratio: f64,
    /// Per cent that nobody gets.
    pub reserved_percentage: u8,
    /// How long a program may take to convert an image.
    pub tool_limit: Duration,
}

/// Someone who is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Granted {
    pub(super) host: HostName,
    pub(super) access: AccessMode,
}

/// Copies a volume that somebody has, as it is at one moment. `to` is there, and as large.
#[async_trait]
pub(super) trait LiveCopier: Send + Sync {
    async fn copy_live(&self, volume: VolumeId, _from: &Path, _to: &Path) -> Result<()> {
        Err(VolumeDriverError::busy(volume, "is connected to a host"))
    }
}

const OPENING: &str = "opening the pool of volumes";
/// For so long the folder may still be another's. A service that ends keeps it for an instant longer where it began a program at
/// that moment: the child has the lock, too, until it is that program.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(20);

async fn take(lock: &File) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(LOCK_LOOK).await,
            taken => return taken.map_err(io::Error::from),
        }
    }
}

/// The folder and what is in it.
pub(super) struct FilePool {
    options: PoolOptions,
    table: Mutex<Table>,
    turns: Mutex<BTreeMap<VolumeId, Arc<tokio::sync::Mutex<()>>>>,
    _lock: File,
}

impl FilePool {
    /// Takes the folder over; makes it if it is not there. Another process must not have it.
    pub(super) async fn open(options: PoolOptions) -> Result<Self> {
        let folder = options.folder.clone();
        let made = folder.clone();
        let lock = blocking(OPENING, move || {
            // Hypervisors on this machine, and hosts that share it, open files by their names: they need not list them.
            DirBuilder::new().recursive(true).mode(0o711).create(&made)?;
            fs::set_permissions(&made, fs::Permissions::from_mode(0o711))?;
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(made.join(".lock"))
        })
        .await?;
        take(&lock).await.map_err(|error| VolumeDriverError::failed(OPENING, error))?;
        let table = blocking(OPENING, move || {
            table::sweep(&folder)?;
            Table::read(&folder)
        })
        .await?;
        Ok(Self { options, table: Mutex::new(table), turns: Mutex::default(), _lock: lock })
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on this volume.
    pub(super) async fn turn(&self, volume: VolumeId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(volume).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// The file of a volume.
    pub(super) fn path(&self, volume: VolumeId) -> PathBuf {
        self.options.folder.join(format!("volume-{volume}"))
    }

    fn snapshot_path(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> PathBuf {
        self.options.folder.join(format!("volume-{volume}.snapshot-{snapshot}"))
    }

    fn connections_path(&self, volume: VolumeId) -> PathBuf {
        self.options.folder.join(format!("volume-{volume}.connections"))
    }

    pub(super) fn space(&self) -> Result<PoolSpace> {
        self.space_beside(self.table().provisioned())
    }

    fn space_beside(&self, provisioned: u64) -> Result<PoolSpace> {
        let stat = rustix::fs::statvfs(&self.options.folder)
            .map_err(|error| VolumeDriverError::failed("measuring the pool of volumes", io::Error::from(error)))?;
        Ok(PoolSpace {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            provisioned,
            over_subscription_ratio: self.options.over_subscription_ratio,
            reserved_percentage: self.options.reserved_percentage,
        })
    }

    /// Promises room; given back when the promise is dropped, by when the table must say what was made of it.
    fn promise(&self, bytes: u64, during: &'static str) -> Result<Promise<'_>> {
        let mut table = self.table();
        let space = self.space_beside(table.provisioned())?;
        space.admits(bytes).map_err(|refusal| VolumeDriverError::NoSpace { during, source: refusal.into() })?;
        table.promised = table.promised.saturating_add(bytes);
        Ok(Promise { pool: self, bytes })
    }

    /// What is in the folder now, as opposed to what is remembered.
    pub(super) async fn inventory(&self) -> Result<Inventory> {
        let folder = self.options.folder.clone();
        blocking("listing the pool of volumes", move || Table::read(&folder).map(Table::inventory)).await
    }

    /// Makes an empty volume.
    pub(super) async fn create(&self, new: &NewVolume) -> Result<()> {
        let _turn = self.turn(new.id).await;
        self.make(new, "creating a volume", async |_, file: Arc<File>, bytes| {
            blocking("creating a volume", move || file.set_len(bytes)).await
        })
        .await
    }

    /// Makes a volume from another one.
    pub(super) async fn copy_volume(&self, new: &NewVolume, source: VolumeId, live: &dyn LiveCopier) -> Result<()> {
        const DURING: &str = "copying a volume";
        let _turns = self.turns_of(new.id, source).await;
        let entry = self.entry(source)?;
        at_least(new, entry.size, DURING)?;
        self.make(new, DURING, async |path: PathBuf, file, bytes| {
            self.copy_now(source, &entry, &path, file, bytes, live, DURING).await
        })
        .await
    }

    /// Makes a volume from a snapshot.
    pub(super) async fn copy_snapshot(
        &self,
        new: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Result<()> {
        const DURING: &str = "copying a snapshot";
        let _turns = self.turns_of(new.id, source).await;
        let size = self.entry(source)?.snapshots.get(&snapshot).copied();
        at_least(new, size.ok_or_else(|| VolumeDriverError::no_snapshot(snapshot))?, DURING)?;
        let from = self.snapshot_path(source, snapshot);
        self.make(new, DURING, async |_, file, bytes| copy_file(from, file, bytes, DURING).await).await
    }

    /// Keeps what is on a volume.
    pub(super) async fn create_snapshot(
        &self,
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
        live: &dyn LiveCopier,
    ) -> Result<()> {
        const DURING: &str = "creating a snapshot";
        let _turn = self.turn(volume).await;
        let entry = self.entry(volume)?;
        if entry.snapshots.contains_key(&snapshot) {
            return Ok(());
        }
        let _promise = self.promise(entry.size, DURING)?;
        self.make_file(self.snapshot_path(volume, snapshot), DURING, async |path: PathBuf, file| {
            self.copy_now(volume, &entry, &path, file, entry.size, live, DURING).await
        })
        .await?;
        if let Some(known) = self.table().volumes.get_mut(&volume) {
            known.snapshots.insert(snapshot, entry.size);
        }
        Ok(())
    }

    /// Forgets what was kept.
    pub(super) async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        let _turn = self.turn(volume).await;
        let path = self.snapshot_path(volume, snapshot);
        blocking("deleting a snapshot", move || files::remove(&path)).await?;
        if let Some(known) = self.table().volumes.get_mut(&volume) {
            known.snapshots.remove(&snapshot);
        }
        Ok(())
    }

    /// Removes a volume. The file system gives its space to nobody without having cleared it.
    pub(super) async fn delete(&self, volume: VolumeId) -> Result<()> {
        let _turn = self.turn(volume).await;
        match self.table().volumes.get(&volume) {
            Some(entry) if !entry.connections.is_empty() => {
                return Err(VolumeDriverError::busy(volume, "is connected to a host"));
            }
            Some(entry) if !entry.snapshots.is_empty() => {
                return Err(VolumeDriverError::busy(volume, "has snapshots"));
            }
            Some(_) | None => {}
        }
        let paths = [self.path(volume), self.connections_path(volume)];
        blocking("deleting a volume", move || paths.iter().try_for_each(|path| files::remove(path))).await?;
        self.table().volumes.remove(&volume);
        Ok(())
    }

    /// Makes a volume larger. `online`: also one that is connected.
    pub(super) async fn extend(&self, volume: VolumeId, size_gb: u64, online: bool) -> Result<()> {
        const DURING: &str = "extending a volume";
        let _turn = self.turn(volume).await;
        let (entry, bytes) = (self.entry(volume)?, size_gb.saturating_mul(GIB));
        if bytes < entry.size {
            return Err(VolumeDriverError::other_size(volume, entry.size / GIB));
        }
        if bytes == entry.size {
            return Ok(());
        }
        if !online && !entry.connections.is_empty() {
            return Err(VolumeDriverError::busy(volume, "is connected to a host"));
        }
        let _promise = self.promise(bytes - entry.size, DURING)?;
        let path = self.path(volume);
        blocking(DURING, move || {
            let file = OpenOptions::new().write(true).open(&path)?;
            // A hypervisor may have grown it already.
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)?;
            }
            file.sync_all()
        })
        .await?;
        if let Some(known) = self.table().volumes.get_mut(&volume) {
            known.size = bytes;
        }
        Ok(())
    }

    /// Makes sure that a volume's file is what it should be, before anyone is let in to it. The caller has its turn.
    pub(super) async fn check_whole(&self, volume: VolumeId) -> Result<()> {
        const DURING: &str = "looking at a volume's file";
        let (path, size) = (self.path(volume), self.entry(volume)?.size);
        let found = blocking(DURING, move || {
            let found = fs::symlink_metadata(path)?;
            Ok(if found.is_file() { Some(found.len()) } else { None })
        })
        .await?;
        if found == Some(size) && size > 0 && size % GIB == 0 {
            return Ok(());
        }
        let source = format!("volume {volume} is damaged: it should have {size} bytes, and there are {found:?}");
        Err(VolumeDriverError::failed(DURING, source))
    }

    /// Writes down who is let in; true if they were before. The caller has the volume's turn.
    pub(super) async fn grant(&self, volume: VolumeId, id: VolumeAttachmentId, granted: Granted) -> Result<bool> {
        let mut entry = self.entry(volume)?;
        let before = entry.connections.insert(id, granted);
        if before.as_ref() == entry.connections.get(&id) {
            return Ok(true);
        }
        self.keep_connections(volume, entry.connections).await?;
        Ok(false)
    }

    /// Writes down who is let in no more. The caller has the volume's turn.
    pub(super) async fn revoke(&self, volume: VolumeId, id: VolumeAttachmentId) -> Result<()> {
        let Ok(mut entry) = self.entry(volume) else { return Ok(()) };
        if entry.connections.remove(&id).is_none() {
            return Ok(());
        }
        self.keep_connections(volume, entry.connections).await
    }

    async fn keep_connections(
        &self,
        volume: VolumeId,
        connections: BTreeMap<VolumeAttachmentId, Granted>,
    ) -> Result<()> {
        const DURING: &str = "keeping who has a volume";
        let path = self.connections_path(volume);
        let bytes = serde_json::to_vec(&connections).map_err(|error| VolumeDriverError::failed(DURING, error))?;
        let empty = connections.is_empty();
        blocking(DURING, move || {
            if empty {
                return files::remove(&path);
            }
            let new = files::unfinished(&path);
            let file = files::begin(&new)?;
            io::Write::write_all(&mut &file, &bytes)?;
            files::finish(&file, &new, &path)
        })
        .await?;
        if let Some(known) = self.table().volumes.get_mut(&volume) {
            known.connections = connections;
        }
        Ok(())
    }

    /// What is known of a volume.
    pub(super) fn entry(&self, volume: VolumeId) -> Result<Entry> {
        self.table().volumes.get(&volume).cloned().ok_or_else(|| VolumeDriverError::no_volume(volume))
    }

    /// Both turns, in one order everywhere.
    async fn turns_of(&self, one: VolumeId, other: VolumeId) -> (OwnedMutexGuard<()>, Option<OwnedMutexGuard<()>>) {
        let (first, second) = (one.min(other), one.max(other));
        let held = self.turn(first).await;
        (held, if first == second { None } else { Some(self.turn(second).await) })
    }

    /// Makes a volume's file by `fill`, which gets it with its path for now and its size.
    async fn make(
        &self,
        new: &NewVolume,
        during: &'static str,
        fill: impl AsyncFnOnce(PathBuf, Arc<File>, u64) -> Result<()>,
    ) -> Result<()> {
        let bytes = new.size_gb.saturating_mul(GIB);
        match self.table().volumes.get(&new.id) {
            Some(entry) if entry.size == bytes => return Ok(()),
            Some(entry) => return Err(VolumeDriverError::other_size(new.id, entry.size / GIB)),
            None => {}
        }
        at_least(new, GIB, during)?;
        let _promise = self.promise(bytes, during)?;
        self.make_file(self.path(new.id), during, async |path, file| fill(path, file, bytes).await).await?;
        self.table().volumes.insert(new.id, Entry { size: bytes, ..Entry::default() });
        Ok(())
    }

    /// Makes a file by `fill`, whole or not at all.
    async fn make_file(
        &self,
        path: PathBuf,
        during: &'static str,
        fill: impl AsyncFnOnce(PathBuf, Arc<File>) -> Result<()>,
    ) -> Result<()> {
        let new = files::unfinished(&path);
        let begun = new.clone();
        let file = Arc::new(blocking(during, move || files::begin(&begun)).await?);
        let filled = match fill(new.clone(), file.clone()).await {
            Ok(()) => {
                let from = new.clone();
                blocking(during, move || files::finish(&file, &from, &path)).await
            }
            Err(error) => Err(error),
        };
        if filled.is_err() {
            // What stays here is removed when the pool is opened.
            let _ = blocking(during, move || files::remove(&new)).await;
        }
        filled
    }

    /// Copies a volume as it is now, whether somebody has it or not. The caller has its turn.
    #[allow(clippy::too_many_arguments, reason = "what is copied, where to, and how, for two callers")]
    async fn copy_now(
        &self,
        volume: VolumeId,
        entry: &Entry,
        path: &Path,
        file: Arc<File>,
        bytes: u64,
        live: &dyn LiveCopier,
        during: &'static str,
    ) -> Result<()> {
        let from = self.path(volume);
        if entry.connections.is_empty() {
            return copy_file(from, file, bytes, during).await;
        }
        let (size, sized) = (entry.size, file.clone());
        blocking(during, move || sized.set_len(size)).await?;
        live.copy_live(volume, &from, path).await?;
        blocking(during, move || file.set_len(bytes)).await
    }
}

async fn copy_file(from: PathBuf, to: Arc<File>, bytes: u64, during: &'static str) -> Result<()> {
    blocking(during, move || {
        files::copy(&File::open(from)?, &to)?;
        to.set_len(bytes)
    })
    .await
}

fn at_least(new: &NewVolume, bytes: u64, during: &'static str) -> Result<()> {
    if new.size_gb.saturating_mul(GIB) >= bytes {
        return Ok(());
    }
    Err(VolumeDriverError::failed(during, format!("{} GiB are less than {bytes} bytes", new.size_gb)))
}

/// Room that is promised for as long as this lives.
struct Promise<'a> {
    pool: &'a FilePool,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut table = self.pool.table();
        table.promised = table.promised.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod full;
#[cfg(test)]
mod tests;
