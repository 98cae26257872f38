//! What is in a pool of files, from the names in its folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nova_core::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId};

use super::{GIB, Granted};
use crate::volume::driver::{FoundVolume, Inventory};

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::volume::driver) struct Entry {
    /// In bytes.
    pub(in crate::volume::driver) size: u64,
    /// Sizes of the snapshots, in bytes.
    pub(in crate::volume::driver) snapshots: BTreeMap<VolumeSnapshotId, u64>,
    pub(in crate::volume::driver) connections: BTreeMap<VolumeAttachmentId, Granted>,
}

/// All of them, and what is promised to those that are being made.
#[derive(Debug, Default)]
pub(in crate::volume::driver) struct Table {
    pub(in crate::volume::driver) volumes: BTreeMap<VolumeId, Entry>,
    pub(super) promised: u64,
    unknown: Vec<String>,
}

/// What a file's name says that it is.
enum Named {
    Volume(VolumeId),
    Snapshot(VolumeId, VolumeSnapshotId),
    Connections(VolumeId),
    /// What a process left that ended in the middle.
    Unfinished,
    Ours,
    Unknown,
}

fn named(name: &str) -> Named {
    if name.ends_with(".new") {
        return Named::Unfinished;
    }
    let Some(rest) = name.strip_prefix("volume-") else {
        return if name == ".lock" { Named::Ours } else { Named::Unknown };
    };
    // Only the form in which this driver writes ids.
    let id = |text: &str| text.parse::<VolumeId>().ok().filter(|id| id.to_string() == text);
    match rest.split_once('.') {
        None => id(rest).map_or(Named::Unknown, Named::Volume),
        Some((volume, "connections")) => id(volume).map_or(Named::Unknown, Named::Connections),
        Some((volume, what)) => match (id(volume), what.strip_prefix("snapshot-").map(str::parse)) {
            (Some(volume), Some(Ok(snapshot))) => Named::Snapshot(volume, snapshot),
            _ => Named::Unknown,
        },
    }
}

impl Table {
    /// Reads the folder; leaves alone what it does not know.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut table = Self::default();
        let (mut snapshots, mut connections) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match named(&name) {
                Named::Volume(id) => {
                    let size = entry.metadata()?.len();
                    table.volumes.entry(id).or_default().size = size;
                }
                Named::Snapshot(volume, snapshot) => snapshots.push((volume, snapshot, entry.metadata()?.len(), name)),
                Named::Connections(volume) => connections.push((volume, fs::read(entry.path())?, name)),
                Named::Unfinished | Named::Ours => {}
                Named::Unknown => table.unknown.push(name),
            }
        }
        for (volume, snapshot, size, name) in snapshots {
            match table.volumes.get_mut(&volume) {
                Some(entry) => drop(entry.snapshots.insert(snapshot, size)),
                None => table.unknown.push(name),
            }
        }
        for (volume, bytes, name) in connections {
            match (table.volumes.get_mut(&volume), serde_json::from_slice(&bytes)) {
                (Some(entry), Ok(known)) => entry.connections = known,
                _ => table.unknown.push(name),
            }
        }
        table.unknown.sort();
        Ok(table)
    }

    /// The sum of what volumes and snapshots may come to take, and what is promised beside.
    pub(super) fn provisioned(&self) -> u64 {
        let of = |entry: &Entry| entry.snapshots.values().copied().fold(entry.size, u64::saturating_add);
        self.volumes.values().map(of).fold(self.promised, u64::saturating_add)
    }

    pub(super) fn inventory(self) -> Inventory {
        let found = |entry: Entry| FoundVolume {
            size_gb: entry.size / GIB,
            snapshots: entry.snapshots.into_keys().collect(),
            connections: entry.connections.into_iter().map(|(id, granted)| (id, granted.host)).collect(),
        };
        let volumes = self.volumes.into_iter().map(|(id, entry)| (id, found(entry))).collect();
        Inventory { volumes, unknown: self.unknown }
    }
}

/// Removes what was left unfinished.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if matches!(named(&entry.file_name().to_string_lossy()), Named::Unfinished) {
            super::files::remove(&entry.path())?;
        }
    }
    Ok(())
}
