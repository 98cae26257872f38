//! Rebuild (nova/virt/libvirt/driver.py, `rebuild`, and the default of nova/compute/manager.py): new disks for a guest.

use std::path::Path;

use tokio::fs;

use super::domains::Guest;
use super::folder::record::{DiskRecord, Records};
use super::folder::{self, Made, beside, remove_file};
use super::operations::Inner;
use super::{errors, rescue};
use crate::{DiskRole, GuestSpec, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "rebuilding the guest";

impl Inner {
    pub(super) async fn rebuild(&self, guest: GuestSpec, preserve_ephemeral: bool) -> Result<()> {
        self.shape_of(&guest)?;
        let instance = guest.instance;
        let _lock = self.locks.lock(instance).await;
        let existing = self.ours(instance).await?.ok_or(HypervisorError::NotFound { instance })?;
        if existing.epoch > guest.epoch {
            return Err(HypervisorError::Stale { instance, asked: guest.epoch, current: existing.epoch });
        }
        if existing.epoch < guest.epoch {
            let mut made = Made::default();
            let new = match self.make_new(&guest, preserve_ephemeral, &mut made).await {
                Ok(new) => new,
                Err(error) => {
                    made.undo().await;
                    return Err(error);
                }
            };
            self.with(instance, Guest::stop).await?;
            self.put_new_in_place(&guest, new).await?;
            self.define(&guest).await?;
        }
        if guest.running { self.start(instance).await } else { Ok(()) }
    }

    /// Makes the new disks beside the old ones.
    async fn make_new(&self, guest: &GuestSpec, preserve_ephemeral: bool, made: &mut Made) -> Result<Records> {
        let folder = folder::folder_of(&self.options, guest.instance);
        let mut new = Records::new();
        for (index, (disk, name)) in guest.disks.iter().zip(folder::disk_names(guest)).enumerate() {
            let path = folder.join(&name);
            let kept = preserve_ephemeral && disk.role != DiskRole::Root && folder::exists(&path).await?;
            if !kept {
                let beside = beside(&path, REBUILT);
                remove_file(&beside).await?;
                folder::disks::make(&self.options, index, disk, &beside, made).await?;
                new.insert(name, folder::disks::record_of(&self.options, disk));
            }
        }
        if let Some(drive) = &guest.config_drive {
            let path = beside(&folder.join(folder::CONFIG_DRIVE), REBUILT);
            remove_file(&path).await?;
            folder::make_config_drive(&self.options, drive, &path, made).await?;
        }
        Ok(new)
    }

    /// The old disks go. Broken off here, the guest is off and of its old order: the new one begins again.
    async fn put_new_in_place(&self, guest: &GuestSpec, new: Records) -> Result<()> {
        let folder = folder::folder_of(&self.options, guest.instance);
        let names = folder::disk_names(guest);
        let mut records = folder::record::read(&folder).await?;
        let gone: Vec<String> = records.keys().filter(|name| !names.contains(name)).cloned().collect();
        for (name, record) in new {
            replace(&folder, &mut records, name, record).await?;
        }
        if guest.config_drive.is_some() {
            let path = folder.join(folder::CONFIG_DRIVE);
            fs::rename(beside(&path, REBUILT), &path).await.map_err(|error| errors::file(DURING, error))?;
        }
        rescue::remove_rescue(&folder).await?;
        // What the old system told its firmware is no business of the new one.
        remove_file(&folder.join(folder::NVRAM)).await?;
        for name in gone {
            remove_file(&folder.join(&name)).await?;
            records.remove(&name);
        }
        folder::record::write(&folder, &records).await
    }
}

const REBUILT: &str = ".rebuilt";

/// Puts a new disk where the old one is.
async fn replace(folder: &Path, records: &mut Records, name: String, record: DiskRecord) -> Result<()> {
    let path = folder.join(&name);
    folder::announce(folder, records, name, record).await?;
    fs::rename(beside(&path, REBUILT), &path).await.map_err(|error| errors::file(DURING, error))
}

#[cfg(test)]
mod tests {
    use super::super::folder::record;
    use super::*;
    use crate::DiskFormat;

    /// OSSA-2016-001 (row 5): wherever a rebuild breaks off, a disk that its guest wrote on is read as what it was made as, or
    /// not at all.
    #[tokio::test]
    async fn an_old_disk_is_never_read_as_the_new_format() {
        let temp = tempfile::tempdir().unwrap();
        let disk = temp.path().join("disk");
        let of = |format| DiskRecord { format, base: None };
        for before in [DiskFormat::Raw, DiskFormat::Qcow2] {
            for after in [DiskFormat::Raw, DiskFormat::Qcow2] {
                let mut records = Records::from([("disk".to_owned(), of(before))]);
                record::write(temp.path(), &records).await.unwrap();
                std::fs::write(&disk, b"QFI\xfb").unwrap();
                // There is no new disk: it breaks off where that would be put in place.
                replace(temp.path(), &mut records, "disk".to_owned(), of(after)).await.unwrap_err();
                assert_eq!(record::read(temp.path()).await.unwrap()["disk"].format, after);
                assert_eq!(disk.exists(), before == after, "{before:?} to {after:?}");
            }
        }
    }
}
