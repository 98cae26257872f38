//! What volumes a guest has and how they are reached, beside its disks: to look at them again before each start, also after
//! libvirt or the host was away. It may hold passwords, and only this user reads it.

use std::io::ErrorKind;
use std::path::Path;

use nova_core::ids::{InstanceId, VolumeId};
use tokio::fs;
use tokio::io::AsyncWriteExt;

use super::{Inner, Result, has_password};
use crate::libvirt::domains::Guest;
use crate::libvirt::errors;
use crate::libvirt::folder::{self, beside, exists, finish, remove_file};
use crate::{DiskAttachment, GuestSpec, HypervisorError};

const NAME: &str = "volumes.json";
const DURING: &str = "keeping the record of the guest's volumes";

/// Reads the record of a folder; none is empty.
pub(in crate::libvirt) async fn read(folder: &Path) -> Result<Vec<DiskAttachment>> {
    match fs::read(folder.join(NAME)).await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(errors::file(DURING, error)),
    }
}

/// Writes it: whole, or not at all.
pub(in crate::libvirt) async fn write(folder: &Path, volumes: &[DiskAttachment]) -> Result<()> {
    let path = folder.join(NAME);
    if volumes.is_empty() {
        return remove_file(&path).await;
    }
    let bytes = serde_json::to_vec(volumes)
        .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })?;
    let new = beside(&path, ".new");
    remove_file(&new).await?;
    let written = async {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).await?;
        file.write_all(&bytes).await?;
        file.flush().await?;
        finish(&new, &path).await
    };
    written.await.map_err(|error| errors::file(DURING, error))
}

impl Inner {
    /// Adds a volume to a guest's record, in place of one that it replaces.
    pub(super) async fn record_volume(&self, instance: InstanceId, volume: &DiskAttachment) -> Result<()> {
        let folder = folder::folder_of(&self.options, instance);
        let mut known = read(&folder).await?;
        known.retain(|other| other.volume() != volume.volume());
        known.push(volume.clone());
        write(&folder, &known).await
    }

    pub(super) async fn unrecord_volume(&self, instance: InstanceId, volume: VolumeId) -> Result<()> {
        let folder = folder::folder_of(&self.options, instance);
        let mut known = read(&folder).await?;
        let before = known.len();
        known.retain(|other| other.volume() != volume);
        if known.len() == before || !exists(&folder).await? { Ok(()) } else { write(&folder, &known).await }
    }

    /// Starts a guest, or lets it go on. One that is off sees its volumes anew, so each is looked at before.
    pub(in crate::libvirt) async fn start(&self, instance: InstanceId) -> Result<()> {
        if !self.with(instance, |guest| Ok(guest.active)).await? {
            let volumes = read(&folder::folder_of(&self.options, instance)).await?;
            self.admit_volumes(&volumes).await?;
        }
        self.with(instance, Guest::start).await
    }

    /// The same of a guest that is to be as it was ordered: going, or standing still.
    pub(in crate::libvirt) async fn start_for(&self, guest: &GuestSpec) -> Result<()> {
        if !guest.held {
            return self.start(guest.instance).await;
        }
        self.admit_volumes(&guest.volumes).await?;
        self.with(guest.instance, Guest::start_held).await
    }

    /// Forgets the passwords of a guest that goes.
    pub(in crate::libvirt) async fn forget_passwords(&self, instance: InstanceId) -> Result<()> {
        for volume in read(&folder::folder_of(&self.options, instance)).await? {
            if has_password(&volume) {
                self.drop_secret(volume.volume()).await;
            }
        }
        Ok(())
    }
}
