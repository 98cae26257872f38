//! Rescue (nova/virt/libvirt/driver.py, `rescue`, `unrescue`): the guest runs from another root disk, with its own beside it.
//!
//! What the guest was is kept in a file beside its disks, so that it comes back after a restart of everything. As long as
//! the file is there, the guest is in rescue.

mod definition;

use std::io::ErrorKind;
use std::path::Path;

use nova_core::ids::InstanceId;
use tokio::fs;

use super::domains::{self, Guest};
use super::errors;
use super::folder::{self, Made, beside, exists, finish, remove_file};
use super::operations::Inner;
use super::xml_tree::{self, Element};
use crate::{BoxError, DiskRole, DiskSource, DiskSpec, HypervisorError, RescueSpec};

use definition::{Beside, rescued};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "rescuing the guest";
/// Nova's name for it.
const ORIGINAL: &str = "unrescue.xml";
const DISK: &str = "disk.rescue";
const CONFIG_DRIVE: &str = "disk.config.rescue";

impl Inner {
    pub(super) async fn rescue(&self, instance: InstanceId, rescue: RescueSpec) -> Result<()> {
        if !matches!(rescue.image, DiskSource::Image { .. }) {
            return Err(HypervisorError::invalid("rescue.image", "must be an image"));
        }
        let stable = rescue.stable.as_ref().map(Beside::of).transpose()?;
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        let defined = self.with(instance, Guest::definition).await?;
        let original = match original(&folder).await? {
            Some(original) => original,
            None => defined,
        };
        // The disk of an earlier rescue can't be replaced while it is in use.
        if exists(&folder.join(DISK)).await? {
            self.with(instance, Guest::stop).await?;
            remove_file(&folder.join(DISK)).await?;
        }
        let mut made = Made::default();
        match self.begin_rescue(instance, &folder, &original, &rescue, stable, &mut made).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = original.write().map_err(broken)?;
                let back = self.call(move |conn| domains::define(conn, &text)).await;
                match back {
                    Ok(()) => {
                        made.undo().await;
                        remove_rescue(&folder).await?;
                    }
                    Err(undo) => tracing::warn!(%instance, error = %undo, "can't undo a failed rescue"),
                }
                self.known.forget(instance);
                Err(error)
            }
        }
    }

    async fn begin_rescue(
        &self,
        instance: InstanceId,
        folder: &Path,
        original: &Element,
        rescue: &RescueSpec,
        stable: Option<Beside>,
        made: &mut Made,
    ) -> Result<()> {
        let path = folder.join(DISK);
        let disk = DiskSpec { role: DiskRole::Root, source: rescue.image.clone(), size_gb: 0 };
        let record = folder::disks::record_of(&self.options, &disk);
        let format = record.format;
        let mut records = folder::record::read(folder).await?;
        folder::announce(folder, &mut records, DISK.to_owned(), record).await?;
        folder::disks::make(&self.options, 0, &disk, &path, made).await.map_err(name_field)?;
        let drive = match &rescue.config_drive {
            Some(drive) => {
                let path = folder.join(CONFIG_DRIVE);
                folder::make_config_drive(&self.options, drive, &path, made).await?;
                Some(path)
            }
            None => None,
        };
        let rescued = rescued(original, &path, format.as_str(), stable, drive.as_deref()).map_err(broken)?;
        let rescued = rescued.write().map_err(broken)?;
        keep_original(folder, original).await?;
        self.with(instance, Guest::stop).await?;
        self.call(move |conn| domains::define(conn, &rescued)).await?;
        self.known.forget(instance);
        self.put_places_onto(instance, rescue.config_drive.as_ref(), CONFIG_DRIVE).await?;
        self.start(instance).await
    }

    pub(super) async fn unrescue(&self, instance: InstanceId) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let folder = folder::folder_of(&self.options, instance);
        // It must be ours, whatever is in its folder.
        self.with(instance, |_| Ok(())).await?;
        if let Some(original) = original(&folder).await? {
            let original = original.write().map_err(broken)?;
            self.with(instance, Guest::stop).await?;
            self.call(move |conn| domains::define(conn, &original)).await?;
            self.known.forget(instance);
            remove_rescue(&folder).await?;
        }
        self.start(instance).await
    }
}

fn broken(source: BoxError) -> HypervisorError {
    HypervisorError::Failed { during: DURING, source }
}

/// The rescue image is no disk of the order.
fn name_field(error: HypervisorError) -> HypervisorError {
    match error {
        HypervisorError::InvalidInput { problem, .. } => HypervisorError::invalid("rescue.image", problem),
        other => other,
    }
}

async fn keep_original(folder: &Path, original: &Element) -> Result<()> {
    let path = folder.join(ORIGINAL);
    let new = beside(&path, ".new");
    let text = original.write().map_err(broken)?;
    fs::write(&new, text).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &path).await.map_err(|error| errors::file(DURING, error))
}

async fn original(folder: &Path) -> Result<Option<Element>> {
    match fs::read_to_string(folder.join(ORIGINAL)).await {
        Ok(text) => xml_tree::parse(&text).map(Some).map_err(broken),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(errors::file(DURING, error)),
    }
}

/// The guest is no longer in rescue.
pub(super) async fn forget_original(folder: &Path) -> Result<()> {
    remove_file(&folder.join(ORIGINAL)).await
}

/// Removes all that was made for a rescue; the file that says so goes first.
pub(super) async fn remove_rescue(folder: &Path) -> Result<()> {
    for name in [ORIGINAL, DISK, CONFIG_DRIVE] {
        remove_file(&folder.join(name)).await?;
    }
    // Its image is needed no more.
    let mut records = folder::record::read(folder).await?;
    match records.remove(DISK) {
        Some(_) => folder::record::write(folder, &records).await,
        None => Ok(()),
    }
}
