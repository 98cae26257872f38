//! Guests that are set aside (nova/virt/libvirt/driver.py, `migrate_disk_and_power_off`, `finish_revert_migration`,
//! `_cleanup_resize`): unknown to libvirt, their folder under Nova's name for it.
//!
//! A note in the folder says of which order; it is there before the guest is touched and until it is back, so that each
//! operation, broken off anywhere, is finished by its repetition.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nova_core::ids::InstanceId;
use serde::{Deserialize, Serialize};
use tokio::fs;

use super::domains::Guest;
use super::folder::{self, beside, exists, finish, remove_file, remove_folder};
use super::operations::Inner;
use super::{errors, rescue};
use crate::{GuestSpec, HypervisorError, StashInfo};

type Result<T> = std::result::Result<T, HypervisorError>;

const SUFFIX: &str = "_resize";
const NOTE: &str = "stash.json";

/// Of which order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Note {
    epoch: u64,
}

impl Inner {
    pub(super) fn stash_folder(&self, instance: InstanceId) -> PathBuf {
        self.options.instances_path.join(format!("{instance}{SUFFIX}"))
    }

    pub(super) async fn stash(&self, instance: InstanceId, epoch: u64) -> Result<()> {
        const DURING: &str = "setting the guest aside";
        self.stop_sending(instance).await?;
        let _lock = self.locks.lock(instance).await;
        let (folder, aside) = (folder::folder_of(&self.options, instance), self.stash_folder(instance));
        // A guest beside it is a later one, which the same order must not touch.
        if read(&aside).await?.is_some_and(|note| note.epoch >= epoch) {
            return Ok(());
        }
        match self.ours(instance).await? {
            Some(guest) if guest.epoch > epoch => {
                return Err(HypervisorError::Stale { instance, asked: epoch, current: guest.epoch });
            }
            Some(_) => {
                self.leave_rescue(instance, &folder).await?;
                self.was_not_sent(instance).await?;
                write(&folder, Note { epoch }).await?;
                self.with(instance, Guest::forget).await?;
                self.known.forget(instance);
            }
            // Broken off after the guest was forgotten.
            None if read(&folder).await?.is_some_and(|note| note.epoch == epoch) => {}
            None => return Err(HypervisorError::NotFound { instance }),
        }
        remove_folder(&aside, DURING).await?;
        fs::rename(&folder, &aside).await.map_err(|error| errors::file(DURING, error))
    }

    /// A guest in rescue is set aside as what it is without.
    async fn leave_rescue(&self, instance: InstanceId, folder: &Path) -> Result<()> {
        self.with(instance, Guest::stop).await?;
        rescue::remove_rescue(folder).await
    }

    pub(super) async fn unstash(&self, guest: GuestSpec) -> Result<()> {
        const DURING: &str = "taking the guest back";
        self.shape_of(&guest)?;
        let (instance, asked) = (guest.instance, guest.epoch);
        let _lock = self.locks.lock(instance).await;
        let (folder, aside) = (folder::folder_of(&self.options, instance), self.stash_folder(instance));
        let (stash, there) = (read(&aside).await?, self.ours(instance).await?);
        let stashed = stash.map_or(0, |note| note.epoch);
        let current = there.as_ref().map_or(0, |guest| guest.epoch).max(stashed);
        if current > asked {
            return Err(HypervisorError::Stale { instance, asked, current });
        }
        if stash.is_some() {
            if there.is_some() {
                self.with(instance, Guest::remove).await?;
                self.known.forget(instance);
            }
            remove_folder(&folder, DURING).await?;
            fs::rename(&aside, &folder).await.map_err(|error| errors::file(DURING, error))?;
        } else if there.is_none() && read(&folder).await?.is_none() {
            return Err(HypervisorError::NotFound { instance });
        }
        for name in folder::disk_names(&guest) {
            if !exists(&folder.join(&name)).await? {
                let source = format!("its file {name} is not there").into();
                return Err(HypervisorError::Failed { during: DURING, source });
            }
        }
        match (stash, there) {
            (None, Some(there)) => self.redefine(&guest, there).await?,
            _ => self.define(&guest).await?,
        }
        remove_file(&folder.join(NOTE)).await
    }

    pub(super) async fn drop_stash(&self, instance: InstanceId) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let folder = self.stash_folder(instance);
        folder::remove_own(&self.options, &folder, "removing a guest that was set aside").await
    }

    pub(super) async fn list_stashes(&self) -> Result<Vec<StashInfo>> {
        const DURING: &str = "looking for guests that were set aside";
        let mut found = Vec::new();
        let mut entries = match fs::read_dir(&self.options.instances_path).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(errors::file(DURING, error)),
        };
        while let Some(entry) = entries.next_entry().await.map_err(|error| errors::file(DURING, error))? {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let parsed = id.and_then(|id| id.parse::<InstanceId>().ok());
            if let Some(instance) = parsed.filter(|parsed| id == Some(parsed.to_string().as_str()))
                && folder::owner::another(&self.options, &entry.path()).await?.is_none()
            {
                // Without a note, nobody knows whose it is: it is the oldest there can be.
                let epoch = read(&entry.path()).await?.map_or(0, |note| note.epoch);
                found.push(StashInfo { instance, epoch });
            }
        }
        found.sort_by_key(|stash| stash.instance);
        Ok(found)
    }
}

async fn read(folder: &Path) -> Result<Option<Note>> {
    const DURING: &str = "reading of which order a guest was set aside";
    match fs::read(folder.join(NOTE)).await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(errors::file(DURING, error)),
    }
}

async fn write(folder: &Path, note: Note) -> Result<()> {
    const DURING: &str = "noting of which order a guest is set aside";
    let (path, bytes) = (folder.join(NOTE), serde_json::to_vec(&note));
    let bytes = bytes.map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })?;
    let new = beside(&path, ".new");
    fs::write(&new, bytes).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &path).await.map_err(|error| errors::file(DURING, error))
}
