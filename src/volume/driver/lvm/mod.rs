//! Logical volumes of a thin pool, which hosts reach over iSCSI (`cinder/volume/drivers/lvm.py`).
//!
//! A volume is `volume-ID`, a snapshot `volume-ID.snapshot-ID`: a thin volume as well, so that each outlives the other. Who is
//! let in stands in the volume's tags. The pool must clear blocks before it gives them out (`zero`): what a deleted volume had
//! is then in no other one.

mod commands;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::contracts::ImageData;
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};
use tokio::sync::Mutex;

use self::commands::{Machine, Runner, SHOW, Shown, shown};
use super::iscsi::{Exporter, PortalOptions};
use super::pool::images;
use super::{
    AttachmentOf, DriverCapabilities, FoundVolume, ImageFormat, ImageSource, Inventory, NewVolume, PoolSpace,
    VolumeDriver, VolumeDriverError, VolumeImage,
};

type Result<T> = std::result::Result<T, VolumeDriverError>;

const GIB: u64 = 1 << 30;
/// What begins the tags of ours.
const TAG: &str = "nova";

/// What the driver is told.
#[derive(Debug, Clone, PartialEq)]
pub struct LvmOptions {
    /// The volume group (`volume_group`).
    pub group: String,
    /// The thin pool in it.
    pub thin_pool: String,
    /// Where images are stored while they are looked at and converted.
    pub staging: PathBuf,
    /// How much may be promised of each byte.
    pub over_subscription_ratio: f64,
    /// Per cent that nobody gets.
    pub reserved_percentage: u8,
    /// How long a program may take to convert an image.
    pub tool_limit: Duration,
    /// How hosts are let in.
    pub portal: PortalOptions,
}

/// Logical volumes over iSCSI.
pub struct LvmVolumes {
    options: LvmOptions,
    runner: Box<dyn Runner>,
    exporter: Exporter,
    /// LVM itself does one thing at a time in a group; so what was looked at is still so when it is changed.
    turn: Mutex<()>,
}

impl fmt::Debug for LvmVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LvmVolumes").field("group", &self.options.group).finish_non_exhaustive()
    }
}

/// What is in the pool.
#[derive(Debug, Default)]
struct Table {
    total: u64,
    free: u64,
    volumes: BTreeMap<VolumeId, Volume>,
    unknown: Vec<String>,
    /// Names of what was left unfinished.
    unfinished: Vec<String>,
    /// Volumes whose bytes were being replaced.
    replaced: Vec<VolumeId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Volume {
    size: u64,
    snapshots: BTreeMap<VolumeSnapshotId, u64>,
    connections: BTreeMap<VolumeAttachmentId, (HostName, AccessMode)>,
}

impl LvmVolumes {
    /// Looks at the pool, takes away what was left unfinished, and serves again what was served before.
    pub async fn open(options: LvmOptions, entropy: &dyn Entropy) -> Result<Self> {
        let runner = Box::new(Machine { limit: options.portal.command_limit });
        Self::open_with(options, runner, entropy).await
    }

    async fn open_with(options: LvmOptions, runner: Box<dyn Runner>, entropy: &dyn Entropy) -> Result<Self> {
        for name in [&options.group, &options.thin_pool] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
            if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
                let source = format!("{name:?} is no name of a volume group or pool");
                return Err(VolumeDriverError::failed("starting the volume driver", source));
            }
        }
        images::prepare(&options.staging).await?;
        let exporter = Exporter::open(&options.portal, entropy).await?;
        let driver = Self { options, runner, exporter, turn: Mutex::default() };
        let mut table = driver.table().await?;
        for name in &table.unfinished {
            driver.remove(name).await?;
        }
        for id in std::mem::take(&mut table.replaced) {
            let (name, old) = (name_of(id), format!("{}.old", name_of(id)));
            if table.volumes.contains_key(&id) {
                driver.remove(&old).await?;
            } else {
                driver.rename(&old, &name).await?;
                table = driver.table().await?;
            }
        }
        let mut again = Vec::new();
        for (id, volume) in &table.volumes {
            for (attachment, (_, access)) in &volume.connections {
                again.push((*id, driver.device(*id), *attachment, *access));
            }
        }
        driver.exporter.serve_again(again).await?;
        Ok(driver)
    }

    async fn table(&self) -> Result<Table> {
        let words = [SHOW, &[self.options.group.as_str()]].concat();
        let printed = self.runner.run("lvs", &words).await?;
        read(shown(&printed)?, &self.options.thin_pool)
    }

    /// `GROUP/NAME`.
    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.options.group)
    }

    fn device(&self, volume: VolumeId) -> PathBuf {
        PathBuf::from("/dev").join(&self.options.group).join(name_of(volume))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.runner.run("lvremove", &["-y", "-f", &self.full(name)]).await.map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.runner.run("lvrename", &[&self.options.group, from, to]).await.map(drop)
    }

    async fn make_thin(&self, name: &str, bytes: u64) -> Result<()> {
        let (size, pool) = (format!("{bytes}b"), self.full(&self.options.thin_pool));
        let words = ["-y", "--type", "thin", "-V", &size, "--thinpool", &pool, "-n", name];
        self.runner.run("lvcreate", &words).await.map(drop)
    }

    /// A thin copy of that size, whole or not at all.
    async fn make_copy(&self, from: &str, size: u64, name: &str, bytes: u64) -> Result<()> {
        let (from, unfinished) = (self.full(from), format!("{name}.new"));
        let words = ["-y", "-s", "--setactivationskip", "n", "-n", &unfinished, &from];
        self.runner.run("lvcreate", &words).await?;
        if bytes > size {
            let wanted = format!("{bytes}b");
            self.runner.run("lvextend", &["-L", &wanted, &self.full(&unfinished)]).await?;
        }
        self.rename(&unfinished, name).await
    }

    /// What may be made of that id: nothing if it is there.
    fn admits(&self, table: &Table, new: &NewVolume, least: u64, during: &'static str) -> Result<Option<u64>> {
        let bytes = new.size_gb.saturating_mul(GIB);
        match table.volumes.get(&new.id) {
            Some(volume) if volume.size == bytes => return Ok(None),
            Some(volume) => return Err(VolumeDriverError::other_size(new.id, volume.size / GIB)),
            None => {}
        }
        if bytes < least.max(GIB) {
            let source = format!("{} GiB are less than {least} bytes", new.size_gb);
            return Err(VolumeDriverError::failed(during, source));
        }
        self.promise(table, bytes, during)?;
        Ok(Some(bytes))
    }

    fn promise(&self, table: &Table, bytes: u64, during: &'static str) -> Result<()> {
        let refused = self.space(table).admits(bytes);
        refused.map_err(|refusal| VolumeDriverError::NoSpace { during, source: refusal.into() })
    }

    fn space(&self, table: &Table) -> PoolSpace {
        let of = |volume: &Volume| volume.snapshots.values().copied().fold(volume.size, u64::saturating_add);
        PoolSpace {
            total: table.total,
            free: table.free,
            provisioned: table.volumes.values().map(of).fold(0, u64::saturating_add),
            over_subscription_ratio: self.options.over_subscription_ratio,
            reserved_percentage: self.options.reserved_percentage,
        }
    }

    async fn change_tag(&self, volume: VolumeId, flag: &str, tag: &str) -> Result<()> {
        self.runner.run("lvchange", &[flag, tag, &self.full(&name_of(volume))]).await.map(drop)
    }
}

fn name_of(volume: VolumeId) -> String {
    format!("volume-{volume}")
}

fn snapshot_name(volume: VolumeId, snapshot: VolumeSnapshotId) -> String {
    format!("volume-{volume}.snapshot-{snapshot}")
}

/// Who is let in, in characters that a tag may have: a host's name in hexadecimal.
fn tag(attachment: VolumeAttachmentId, host: &HostName, access: AccessMode) -> String {
    let host: String = host.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    let access = if access == AccessMode::ReadOnly { "ro" } else { "rw" };
    format!("{TAG}.{attachment}.{access}.{host}")
}

fn read_tag(tag: &str) -> Option<(VolumeAttachmentId, (HostName, AccessMode))> {
    let mut parts = tag.strip_prefix(TAG)?.strip_prefix('.')?.splitn(3, '.');
    let attachment = parts.next()?.parse().ok()?;
    let access = match parts.next()? {
        "rw" => AccessMode::ReadWrite,
        "ro" => AccessMode::ReadOnly,
        _ => return None,
    };
    let digits = parts.next()?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Some((attachment, (HostName::new(String::from_utf8(bytes?).ok()?), access)))
}

/// What is ours of a group's logical volumes.
fn read(all: Vec<Shown>, pool: &str) -> Result<Table> {
    const DURING: &str = "looking at the thin pool";
    let mut table = Table::default();
    let Some(found) = all.iter().find(|one| one.name == pool) else {
        return Err(VolumeDriverError::failed(DURING, format!("there is no thin pool {pool}")));
    };
    if found.zero != "zero" {
        let source = format!("the pool {pool} does not clear blocks before it gives them out: lvchange --zero y");
        return Err(VolumeDriverError::failed(DURING, source));
    }
    table.total = found.bytes();
    let used = found.data_percent.parse::<f64>().unwrap_or(100.0).clamp(0.0, 100.0);
    table.free = (table.total as f64 * (1.0 - used / 100.0)) as u64;
    let mut snapshots = Vec::new();
    for one in all.iter().filter(|one| one.pool == pool) {
        let Some(rest) = one.name.strip_prefix("volume-") else {
            table.unknown.push(one.name.clone());
            continue;
        };
        match (rest.split_once('.'), rest.parse::<VolumeId>()) {
            (Some((_, "new" | "copy")), _) => table.unfinished.push(one.name.clone()),
            (Some((volume, "old")), _) => match volume.parse() {
                Ok(volume) => table.replaced.push(volume),
                Err(_) => table.unknown.push(one.name.clone()),
            },
            (Some((volume, what)), _) => match (volume.parse(), what.strip_prefix("snapshot-").map(str::parse)) {
                (Ok(volume), Some(Ok(snapshot))) => snapshots.push((volume, snapshot, one)),
                _ => table.unknown.push(one.name.clone()),
            },
            (None, Ok(id)) => {
                let connections = one.tags.split(',').filter_map(read_tag).collect();
                let snapshots = BTreeMap::new();
                table.volumes.insert(id, Volume { size: one.bytes(), snapshots, connections });
            }
            (None, Err(_)) => table.unknown.push(one.name.clone()),
        }
    }
    for (volume, snapshot, one) in snapshots {
        match table.volumes.get_mut(&volume) {
            Some(volume) => drop(volume.snapshots.insert(snapshot, one.bytes())),
            None => table.unknown.push(one.name.clone()),
        }
    }
    Ok(table)
}

impl Table {
    fn volume(&self, id: VolumeId) -> Result<&Volume> {
        self.volumes.get(&id).ok_or_else(|| VolumeDriverError::no_volume(id))
    }
}

#[async_trait]
impl VolumeDriver for LvmVolumes {
    fn capabilities(&self) -> DriverCapabilities {
        DriverCapabilities {
            driver: "lvm",
            storage_protocol: "iSCSI",
            vendor: "Open Source",
            online_extend: false,
            multiattach: true,
            live_snapshot: true,
            live_copy: true,
            thin: true,
            cuts_off: true,
        }
    }

    async fn stats(&self) -> Result<PoolSpace> {
        Ok(self.space(&self.table().await?))
    }

    async fn inventory(&self) -> Result<Inventory> {
        let table = self.table().await?;
        let found = |volume: Volume| FoundVolume {
            size_gb: volume.size / GIB,
            snapshots: volume.snapshots.into_keys().collect(),
            connections: volume.connections.into_iter().map(|(id, (host, _))| (id, host)).collect(),
        };
        let volumes = table.volumes.into_iter().map(|(id, volume)| (id, found(volume))).collect();
        Ok(Inventory { volumes, unknown: table.unknown })
    }

    async fn create(&self, volume: &NewVolume) -> Result<()> {
        let _turn = self.turn.lock().await;
        match self.admits(&self.table().await?, volume, 0, "creating a volume")? {
            Some(bytes) => self.make_thin(&name_of(volume.id), bytes).await,
            None => Ok(()),
        }
    }

    async fn create_from_volume(&self, volume: &NewVolume, source: VolumeId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let size = table.volume(source)?.size;
        match self.admits(&table, volume, size, "copying a volume")? {
            Some(bytes) => self.make_copy(&name_of(source), size, &name_of(volume.id), bytes).await,
            None => Ok(()),
        }
    }

    async fn create_from_snapshot(
        &self,
        volume: &NewVolume,
        source: VolumeId,
        snapshot: VolumeSnapshotId,
    ) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let size = table.volume(source)?.snapshots.get(&snapshot).copied();
        let size = size.ok_or_else(|| VolumeDriverError::no_snapshot(snapshot))?;
        match self.admits(&table, volume, size, "copying a snapshot")? {
            Some(bytes) => self.make_copy(&snapshot_name(source, snapshot), size, &name_of(volume.id), bytes).await,
            None => Ok(()),
        }
    }

    async fn write_image(&self, volume: VolumeId, image: &ImageSource, data: Box<dyn ImageData>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let known = table.volume(volume)?;
        if !known.connections.is_empty() {
            return Err(VolumeDriverError::busy(volume, "is connected to a host"));
        }
        let size = known.size;
        let (name, unfinished) = (name_of(volume), format!("{}.new", name_of(volume)));
        let staged = images::stage(&self.options.staging, volume, image, data, size).await?;
        self.make_thin(&unfinished, size).await?;
        let device = PathBuf::from("/dev").join(&self.options.group).join(&unfinished);
        if let Err(error) = staged.convert_onto(&device, size, self.options.tool_limit).await {
            self.remove(&unfinished).await?;
            return Err(error);
        }
        // Broken off in between, the volume is what it was, or what it is to be. Snapshots are thin volumes of their own.
        let old = format!("{name}.old");
        self.rename(&name, &old).await?;
        self.rename(&unfinished, &name).await?;
        self.remove(&old).await
    }

    async fn read_image(&self, volume: VolumeId, format: ImageFormat) -> Result<VolumeImage> {
        let _turn = self.turn.lock().await;
        let size = self.table().await?.volume(volume)?.size;
        let copy = format!("{}.copy", name_of(volume));
        let words = ["-y", "-s", "--setactivationskip", "n", "-n", &copy, &self.full(&name_of(volume))];
        self.runner.run("lvcreate", &words).await?;
        let device = PathBuf::from("/dev").join(&self.options.group).join(&copy);
        let limit = self.options.tool_limit;
        let made = images::take(&device, &self.options.staging, volume, format, size, limit).await;
        self.remove(&copy).await?;
        made
    }

    async fn delete(&self, volume: VolumeId) -> Result<()> {
        let _turn = self.turn.lock().await;
        match self.table().await?.volumes.get(&volume) {
            Some(known) if !known.connections.is_empty() => {
                Err(VolumeDriverError::busy(volume, "is connected to a host"))
            }
            Some(known) if !known.snapshots.is_empty() => Err(VolumeDriverError::busy(volume, "has snapshots")),
            Some(_) => self.remove(&name_of(volume)).await,
            None => Ok(()),
        }
    }

    async fn extend(&self, volume: VolumeId, size_gb: u64) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let (known, bytes) = (table.volume(volume)?, size_gb.saturating_mul(GIB));
        match bytes.cmp(&known.size) {
            std::cmp::Ordering::Less => return Err(VolumeDriverError::other_size(volume, known.size / GIB)),
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => {}
        }
        if !known.connections.is_empty() {
            return Err(VolumeDriverError::busy(volume, "is connected to a host"));
        }
        self.promise(&table, bytes - known.size, "extending a volume")?;
        let wanted = format!("{bytes}b");
        self.runner.run("lvextend", &["-L", &wanted, &self.full(&name_of(volume))]).await.map(drop)
    }

    async fn create_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let known = table.volume(volume)?;
        if known.snapshots.contains_key(&snapshot) {
            return Ok(());
        }
        self.promise(&table, known.size, "creating a snapshot")?;
        let (name, origin) = (snapshot_name(volume, snapshot), self.full(&name_of(volume)));
        let words = ["-y", "-s", "--setactivationskip", "n", "-n", &name, &origin];
        self.runner.run("lvcreate", &words).await.map(drop)
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: VolumeSnapshotId) -> Result<()> {
        let _turn = self.turn.lock().await;
        match self.table().await?.volumes.get(&volume) {
            Some(known) if known.snapshots.contains_key(&snapshot) => {
                self.remove(&snapshot_name(volume, snapshot)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn connect_host(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Result<ConnectionInfo> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let granted = (connector.host.clone(), attachment.access);
        let known = table.volume(volume)?.connections.get(&attachment.id);
        if let Some((host, access)) = known.filter(|known| **known != granted) {
            let difference = format!("lets host {host} in ({access:?})");
            return Err(VolumeDriverError::Conflict { kind: "attachment", id: attachment.id.to_string(), difference });
        }
        let tag = tag(attachment.id, &connector.host, attachment.access);
        if known.is_none() {
            self.change_tag(volume, "--addtag", &tag).await?;
        }
        let admitted = self.exporter.admit(volume, &self.device(volume), attachment).await;
        if admitted.is_err() && known.is_none() {
            // If this fails, the inventory says so, and whoever disconnects takes it back.
            let _ = self.change_tag(volume, "--deltag", &tag).await;
        }
        admitted
    }

    async fn disconnect_host(&self, volume: VolumeId, attachment: VolumeAttachmentId) -> Result<()> {
        let _turn = self.turn.lock().await;
        let table = self.table().await?;
        let known = table.volumes.get(&volume).and_then(|known| known.connections.get(&attachment));
        let Some((host, access)) = known else { return Ok(()) };
        self.exporter.expel(attachment).await?;
        self.change_tag(volume, "--deltag", &tag(attachment, host, *access)).await
    }

    async fn ping(&self) -> Result<()> {
        self.table().await?;
        self.exporter.answers().await
    }
}
