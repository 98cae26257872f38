//! What a guest's disks are (nova's `disk.info`): a disk's own bytes are its guest's, and tell nothing that can be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::fs;
use tokio::io::AsyncWriteExt;

use super::{beside, errors, finish};
use crate::{DiskFormat, HypervisorError};

const NAME: &str = "disk.info";
const DURING: &str = "keeping the record of the guest's disks";

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::libvirt) struct DiskRecord {
    pub(in crate::libvirt) format: DiskFormat,
    /// The file that it stands on, which is not this guest's alone.
    #[serde(default)]
    pub(in crate::libvirt) base: Option<PathBuf>,
}

/// All disks of a folder, by file name.
pub(in crate::libvirt) type Records = BTreeMap<String, DiskRecord>;

/// Reads the record of a folder; none is empty.
pub(in crate::libvirt) async fn read(folder: &Path) -> Result<Records, HypervisorError> {
    match fs::read(folder.join(NAME)).await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Records::new()),
        Err(error) => Err(errors::file(DURING, error)),
    }
}

/// Writes it: whole, or not at all.
pub(in crate::libvirt) async fn write(folder: &Path, records: &Records) -> Result<(), HypervisorError> {
    let bytes = serde_json::to_vec(records)
        .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })?;
    let path = folder.join(NAME);
    let new = beside(&path, ".new");
    let written = async {
        let mut file = fs::File::create(&new).await?;
        file.write_all(&bytes).await?;
        // What is renamed after it is not on the disk before it, also if the machine loses its power.
        file.sync_all().await?;
        finish(&new, &path).await
    };
    written.await.map_err(|error| errors::file(DURING, error))
}

/// The files that disks of any guest or stash stand on. A folder with disks and no record is an error: nothing is known of
/// what it needs.
pub(in crate::libvirt) async fn bases(instances: &Path) -> Result<BTreeSet<PathBuf>, HypervisorError> {
    const DURING: &str = "looking for the images that are in use";
    let mut bases = BTreeSet::new();
    let mut entries = match fs::read_dir(instances).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(bases),
        Err(error) => return Err(errors::file(DURING, error)),
    };
    while let Some(entry) = entries.next_entry().await.map_err(|error| errors::file(DURING, error))? {
        if !entry.file_type().await.map_err(|error| errors::file(DURING, error))?.is_dir() {
            continue;
        }
        let folder = entry.path();
        let records = read(&folder).await?;
        if records.is_empty() && fs::try_exists(folder.join("disk")).await.unwrap_or(true) {
            let source = format!("{} has no record of its disks", folder.display()).into();
            return Err(HypervisorError::Failed { during: DURING, source });
        }
        bases.extend(records.into_values().filter_map(|record| record.base));
    }
    Ok(bases)
}
