//! Copies of disks, which stand on no other file (nova/virt/libvirt/driver.py, `snapshot`, `_live_snapshot`).
//!
//! Of a guest that runs, QEMU itself copies: its disk stays what it is, whatever happens meanwhile, and the copy is what the
//! disk was when the copy ended.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use tokio::fs;
use tokio::time::MissedTickBehavior;

use super::domains::Guest;
use super::folder::{self, beside, exists, finish, remove_file};
use super::operations::Inner;
use super::qemu_img::{self, Image};
use super::xml_tree::Element;
use super::{errors, ffi};
use crate::{DiskFormat, DiskRole, ErrorKind, ExportRequest, HypervisorError, Operation, Quiesce, SnapshotRequest};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "copying the guest's disk";
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Inner {
    pub(super) async fn snapshot(&self, instance: InstanceId, request: SnapshotRequest) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let state = self.with(instance, |guest| Ok((guest.active, guest.power_state))).await?;
        let folder = folder::folder_of(&self.options, instance);
        let disk = self.disk_in(&folder, DiskRole::Root, 0).await?;
        refuse_existing(&request.destination).await?;
        let copy = Image::new(folder.join(COPY), request.format);
        remove_file(copy.path()).await?;
        let copied = match state {
            (true, PowerState::Running) => self.copy_live(instance, &disk, &copy, Some(request.quiesce)).await,
            // Nobody in a halted guest answers, and it writes nothing.
            (true, PowerState::Paused) => self.copy_live(instance, &disk, &copy, None).await,
            _ => self.copy(&disk, &copy).await,
        };
        self.hand_out(copied, &copy, &request.destination).await
    }

    /// The file systems of one that runs stand still from now on.
    pub(super) async fn quiesce(&self, instance: InstanceId, quiesce: Quiesce) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        if self.with(instance, |guest| Ok((guest.active, guest.power_state))).await? != (true, PowerState::Running) {
            return Ok(());
        }
        if exists(&folder::folder_of(&self.options, instance).join(FROZEN)).await? {
            // Whose agent has them stand still takes no other word than to let them go on.
            self.thaw(instance).await;
        }
        let mut frozen = false;
        let asked = self.freeze(instance, quiesce, &mut frozen).await;
        if asked.is_err() && frozen {
            self.thaw(instance).await;
        }
        asked
    }

    /// They go on. False: they did already, or nobody made them stand still.
    pub(super) async fn unquiesce(&self, instance: InstanceId) -> Result<bool> {
        let _lock = self.locks.lock(instance).await;
        let note = folder::folder_of(&self.options, instance).join(FROZEN);
        if !exists(&note).await? {
            return Ok(false);
        }
        let stood = self.with(instance, |guest| {
            guest.thaw()?;
            Ok(guest.active && guest.power_state == PowerState::Running)
        });
        let stood = match stood.await {
            Err(HypervisorError::NotFound { .. }) => false,
            stood => stood?,
        };
        remove_file(&note).await?;
        Ok(stood)
    }

    pub(super) async fn export_disk(&self, instance: InstanceId, request: ExportRequest) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let stash = self.stash_folder(instance);
        // A stashed guest's disks win over those of one that was made since.
        let folder = if exists(&stash).await? {
            stash
        } else {
            self.with(instance, |guest| match guest.power_state {
                PowerState::Shutdown | PowerState::Crashed | PowerState::NoState if !guest.active => Ok(()),
                _ => Err(guest.wrong_state(Operation::ExportDisk)),
            })
            .await?;
            folder::folder_of(&self.options, instance)
        };
        let disk = self.disk_in(&folder, request.role, request.index).await?;
        refuse_existing(&request.destination).await?;
        let copy = Image::new(folder.join(COPY), request.format);
        remove_file(copy.path()).await?;
        let copied = self.copy(&disk, &copy).await;
        self.hand_out(copied, &copy, &request.destination).await
    }

    /// The disk of that role and place, as it was made.
    async fn disk_in(&self, folder: &Path, role: DiskRole, index: u32) -> Result<Image> {
        let none = || HypervisorError::invalid("role", "the guest has no such disk");
        let name = folder::disk_name(role, index).ok_or_else(none)?;
        let path = folder.join(&name);
        if !exists(&path).await? {
            return Err(none());
        }
        let records = folder::record::read(folder).await?;
        let format = records.get(&name).map_or(DiskFormat::Qcow2, |record| record.format);
        Ok(Image::new(path, format))
    }

    /// Of a guest that does not run.
    async fn copy(&self, disk: &Image, copy: &Image) -> Result<()> {
        let bytes = qemu_img::size(disk).await?;
        qemu_img::convert(disk, copy, bytes, DURING, self.options.copy_limit).await
    }

    /// Of a guest that runs; `quiesce`: its file systems stand still for the moment that the copy is of.
    async fn copy_live(
        &self,
        instance: InstanceId,
        disk: &Image,
        copy: &Image,
        quiesce: Option<Quiesce>,
    ) -> Result<()> {
        let bytes = qemu_img::size(disk).await?;
        qemu_img::create(copy, bytes, DURING, self.options.tool_limit).await?;
        let begun = text(&destination(copy)?)?;
        let path = disk.path().to_owned();
        let target = self
            .with(instance, move |guest| {
                let target = text(&guest.target_of(&path)?)?;
                // One that broke off may still be there.
                if let Ok(Some(_)) = ffi::block_job(&guest.domain, &target) {
                    ffi::end_block_job(&guest.domain, &target).map_err(failed)?;
                }
                ffi::block_copy(&guest.domain, &target, &begun).map_err(failed)?;
                Ok(target)
            })
            .await?;
        // In step: from here on both are the same, until the job ends.
        let mut copied = self.until_in_step(instance, &target).await;
        let mut frozen = false;
        if let (Ok(()), Some(quiesce)) = (&copied, quiesce) {
            copied = self.freeze(instance, quiesce, &mut frozen).await;
            if copied.is_ok() && frozen {
                // What it has written for it.
                copied = self.until_in_step(instance, &target).await;
            }
        }
        let ended = self
            .with(instance, move |guest| match ffi::block_job(&guest.domain, &target).map_err(failed)? {
                Some(_) => ffi::end_block_job(&guest.domain, &target).map_err(failed),
                None => Ok(()),
            })
            .await;
        if frozen {
            self.thaw(instance).await;
        }
        copied.and(ended)
    }

    async fn until_in_step(&self, instance: InstanceId, target: &CStr) -> Result<()> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let target = target.to_owned();
            let in_step = self
                .with(instance, move |guest| match ffi::block_job(&guest.domain, &target).map_err(failed)? {
                    Some((done, all)) => Ok(done == all && all > 0),
                    None => Err(HypervisorError::Failed { during: DURING, source: "the copy ended too early".into() }),
                })
                .await?;
            if in_step {
                return Ok(());
            }
        }
    }

    /// Has the guest's file systems stand still, if it can. A note says so first: whoever comes after us lets them go on.
    async fn freeze(&self, instance: InstanceId, quiesce: Quiesce, frozen: &mut bool) -> Result<()> {
        let note = folder::folder_of(&self.options, instance).join(FROZEN);
        fs::write(&note, b"").await.map_err(|error| errors::file(DURING, error))?;
        match self.with(instance, Guest::freeze).await {
            Ok(()) => *frozen = true,
            Err(error) => {
                if error.kind() == ErrorKind::Unsupported {
                    remove_file(&note).await?;
                } else {
                    // Nobody knows how far it came.
                    *frozen = true;
                }
                if quiesce == Quiesce::Required {
                    return Err(error);
                }
                tracing::info!(%instance, "its file systems do not stand still for the copy: {error}");
            }
        }
        Ok(())
    }

    /// Lets them go on. As long as it does not answer, the note stays.
    async fn thaw(&self, instance: InstanceId) {
        let note = folder::folder_of(&self.options, instance).join(FROZEN);
        let thawed = match self.with(instance, Guest::thaw).await {
            Ok(()) => remove_file(&note).await,
            Err(error) => Err(error),
        };
        if let Err(error) = thawed {
            tracing::warn!(%instance, "its file systems may stand still: {error}");
        }
    }

    /// Guests whose file systems may stand still since whoever made them so has ended.
    async fn thaw_all(&self) -> Result<()> {
        for instance in folder::instances(&self.options).await? {
            let note = folder::folder_of(&self.options, instance).join(FROZEN);
            if !exists(&note).await? {
                continue;
            }
            // Who has it frozen now holds the lock.
            let _lock = self.locks.lock(instance).await;
            match self.with(instance, Guest::thaw).await {
                Ok(()) | Err(HypervisorError::NotFound { .. }) => remove_file(&note).await?,
                Err(error) if error.is_retryable() => return Err(error),
                // Its agent is gone: whoever starts it anew has file systems that go.
                Err(error) => {
                    tracing::warn!(%instance, "its file systems may stand still: {error}");
                    remove_file(&note).await?;
                }
            }
        }
        Ok(())
    }

    /// Brings a finished copy where it shall be; nothing is left of one that failed.
    async fn hand_out(&self, copied: Result<()>, copy: &Image, destination: &Path) -> Result<()> {
        let new = beside(destination, ".part");
        let moved = match copied {
            Ok(()) => {
                let moved = async {
                    folder::disks::move_file(copy.path(), &new).await?;
                    finish(&new, destination).await
                };
                moved.await.map_err(|error| errors::file(DURING, error))
            }
            Err(error) => Err(error),
        };
        if moved.is_err() {
            remove_file(copy.path()).await?;
            remove_file(&new).await?;
        }
        moved
    }
}

const COPY: &str = "disk.copy";
/// Says in a guest's folder that its file systems stand still, or may.
const FROZEN: &str = "frozen";
/// How long to wait for a hypervisor that does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// At the driver's start: a guest must not stand still for ever since a copy was broken off.
pub(super) async fn thaw_what_was_left(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        match inner.thaw_all().await {
            Ok(()) => return,
            Err(error) => tracing::debug!("guests are not looked at yet: {error}"),
        }
        drop(inner);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn refuse_existing(destination: &Path) -> Result<()> {
    if exists(destination).await? {
        return Err(HypervisorError::invalid("destination", "there is a file already"));
    }
    Ok(())
}

fn failed(error: virt::error::Error) -> HypervisorError {
    errors::failed(DURING, error)
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })
}

/// Where to, as libvirt wants it.
fn destination(copy: &Image) -> Result<String> {
    let failed = |source| HypervisorError::Failed { during: DURING, source };
    let path = copy.path().to_str().ok_or_else(|| failed("the copy's path is no text".into()))?;
    let disk = Element::new("disk", &[("type", "file")])
        .with(Element::new("source", &[("file", path)]))
        .with(Element::new("driver", &[("type", copy.format().as_str())]));
    disk.write().map_err(failed)
}

impl Guest {
    /// The device name in the guest of the disk that is that file.
    fn target_of(&self, path: &Path) -> Result<String> {
        let definition = self.live_definition()?;
        let devices = definition.child("devices");
        let mut disks = devices.iter().flat_map(|devices| devices.elements()).filter(|disk| disk.name == "disk");
        let disk = disks.find(|disk| {
            let file = disk.child("source").and_then(|source| source.attribute("file"));
            file.is_some_and(|file| Path::new(file) == path)
        });
        let target = disk.and_then(|disk| disk.child("target")?.attribute("dev")).map(str::to_owned);
        target.ok_or_else(|| HypervisorError::Failed { during: DURING, source: "it has no such disk".into() })
    }
}
