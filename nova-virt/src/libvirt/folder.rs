//! A guest's folder: disks, config drive and console log.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nova_core::ids::InstanceId;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::domain_xml::{DiskFile, GuestFiles};
use super::errors;
use super::options::LibvirtOptions;
use super::tools::{self, Limits};
use crate::{ConfigDrive, DiskFormat, DiskRole, GuestSpec, HypervisorError};

pub(super) mod disks;
pub(super) mod owner;
pub(super) mod record;

use record::{DiskRecord, Records};

/// The console log's last bytes that anyone reads.
const CONSOLE_BYTES: u64 = 1 << 20;
const CONSOLE_LOG: &str = "console.log";
pub(super) const CONFIG_DRIVE: &str = "disk.config";
/// A config drive is a copy of what was made in memory, and some tables.
const CONFIG_DRIVE_BYTES: u64 = 256 << 20;

/// What one call made, to be taken back if the rest fails.
#[derive(Debug, Default)]
pub(super) struct Made {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
    /// Where it is, and where it was.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Made {
    /// Removes it again. What can't be removed shows in the list of guests.
    pub(super) async fn undo(self) {
        for (path, from) in &self.moved {
            if let Err(error) = disks::move_file(path, from).await {
                tracing::warn!(file = %path.display(), %error, "can't give back a file of a failed spawn");
            }
        }
        for file in &self.files {
            if let Err(error) = fs::remove_file(file).await {
                tracing::warn!(file = %file.display(), %error, "can't remove a file of a failed spawn");
            }
        }
        if let Some(folder) = &self.folder
            && let Err(error) = fs::remove_dir_all(folder).await
        {
            tracing::warn!(folder = %folder.display(), %error, "can't remove the folder of a failed spawn");
        }
    }
}

impl Made {
    fn moved(&mut self, path: &Path, from: &Path) {
        self.moved.push((path.to_owned(), from.to_owned()));
    }
}

/// Where a guest's files are.
pub(super) fn folder_of(options: &LibvirtOptions, instance: InstanceId) -> PathBuf {
    options.instances_path.join(instance.to_string())
}

/// The file names of a guest's disks, one for each, in order.
pub(super) fn disk_names(guest: &GuestSpec) -> Vec<String> {
    let mut ephemerals = 0;
    let mut name = |role| match role {
        DiskRole::Root => "disk".to_owned(),
        DiskRole::Swap => "disk.swap".to_owned(),
        DiskRole::Ephemeral => {
            ephemerals += 1;
            format!("disk.eph{}", ephemerals - 1)
        }
    };
    guest.disks.iter().map(|disk| name(disk.role)).collect()
}

/// The file name of the disk of that role and place.
pub(super) fn disk_name(role: DiskRole, index: u32) -> Option<String> {
    match role {
        DiskRole::Root => (index == 0).then(|| "disk".to_owned()),
        DiskRole::Swap => (index == 0).then(|| "disk.swap".to_owned()),
        DiskRole::Ephemeral => Some(format!("disk.eph{index}")),
    }
}

/// A guest's files. What is not in the record was not made here.
pub(super) fn files_of(folder: &Path, guest: &GuestSpec, records: &Records) -> GuestFiles {
    let format = |name: &String| records.get(name).map_or(DiskFormat::Qcow2, |record| record.format);
    let file = |name: String| DiskFile { format: format(&name), path: folder.join(&name) };
    GuestFiles {
        disks: disk_names(guest).into_iter().map(file).collect(),
        config_drive: guest.config_drive.as_ref().map(|_| folder.join(CONFIG_DRIVE)),
        console_log: folder.join(CONSOLE_LOG),
        nvram: folder.join(NVRAM),
    }
}

/// The firmware's variables of a guest that has such.
pub(super) const NVRAM: &str = "nvram.fd";

/// Makes what is missing of a guest's files. Disks that are there stay as they are; each file appears whole or not at
/// all. Whatever this call made is in `made`, also when it fails.
pub(super) async fn make(
    options: &LibvirtOptions,
    guest: &GuestSpec,
    renew_config_drive: bool,
    made: &mut Made,
) -> Result<(), HypervisorError> {
    const MAKING: &str = "making the guest's folder";
    let folder = folder_of(options, guest.instance);
    fs::create_dir_all(&options.instances_path).await.map_err(|error| errors::file(MAKING, error))?;
    match fs::create_dir(&folder).await {
        Ok(()) => made.folder = Some(folder.clone()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(errors::file(MAKING, error)),
    }
    let mode = std::fs::Permissions::from_mode(options.folder_mode);
    fs::set_permissions(&folder, mode).await.map_err(|error| errors::file(MAKING, error))?;

    owner::give(&folder, &options.host).await?;
    let mut records = record::read(&folder).await?;
    for (index, (disk, name)) in guest.disks.iter().zip(disk_names(guest)).enumerate() {
        let path = folder.join(&name);
        if exists(&path).await? {
            continue;
        }
        announce(&folder, &mut records, name, disks::record_of(options, disk)).await?;
        disks::make(options, index, disk, &path, made).await?;
    }
    let files = files_of(&folder, guest, &records);
    if let (Some(drive), Some(path)) = (&guest.config_drive, &files.config_drive)
        && (renew_config_drive || !exists(path).await?)
    {
        make_config_drive(options, drive, path, made).await?;
    }
    // It is ours to read, whoever writes it: the log's writer keeps a file that is there.
    if !exists(&files.console_log).await? {
        let new = beside(&files.console_log, ".new");
        let written = fs::write(&new, b"").await.map_err(|error| errors::file(MAKING, error));
        put_in_place(written, &new, &files.console_log, MAKING, made).await?;
    }
    begin_console(&folder, guest).await
}

/// What the guest wrote on another host stands where an older part of the log would: whoever writes the log lets it be, and
/// continues it as any other.
pub(super) async fn begin_console(folder: &Path, guest: &GuestSpec) -> Result<(), HypervisorError> {
    const DURING: &str = "keeping the console log of another host";
    let earlier = beside(&folder.join(CONSOLE_LOG), ".0");
    if guest.earlier_console.is_empty() || exists(&earlier).await? {
        return Ok(());
    }
    let new = beside(&earlier, ".new");
    fs::write(&new, &guest.earlier_console).await.map_err(|error| errors::file(DURING, error))?;
    finish(&new, &earlier).await.map_err(|error| errors::file(DURING, error))
}

/// Writes down what a disk is, before it has its name: a host that dies in between leaves none that is taken for what it is not.
/// An old one of another format goes first: a guest may have written a header of the new format onto it (OSSA-2016-001).
pub(super) async fn announce(
    folder: &Path,
    records: &mut Records,
    name: String,
    disk: DiskRecord,
) -> Result<(), HypervisorError> {
    if records.get(&name).is_none_or(|old| old.format != disk.format) {
        remove_file(&folder.join(&name)).await?;
    }
    records.insert(name, disk);
    record::write(folder, records).await
}

/// Writes the config drive: ISO 9660 with Joliet and Rock Ridge names, labelled as every guest agent looks for it.
pub(super) async fn make_config_drive(
    options: &LibvirtOptions,
    drive: &ConfigDrive,
    path: &Path,
    made: &mut Made,
) -> Result<(), HypervisorError> {
    const DURING: &str = "making the config drive";
    let (tree, new) = (beside(path, ".tree"), beside(path, ".new"));
    remove_folder(&tree, DURING).await?;
    remove_file(&new).await?;
    let written = write_tree(&tree, drive).await.map_err(|error| errors::file(DURING, error));
    let made_it = match written {
        Ok(()) => {
            let flags = "-as mkisofs -quiet -J -r -V config-2 -ldots -allow-lowercase -allow-multidot -l -o";
            let mut args: Vec<&OsStr> = flags.split(' ').map(OsStr::new).collect();
            args.extend([new.as_os_str(), tree.as_os_str()]);
            let limits = Limits::new(options.tool_limit, CONFIG_DRIVE_BYTES);
            tools::run("xorriso", args, DURING, limits).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let removed = remove_folder(&tree, DURING).await;
    put_in_place(made_it.and(removed), &new, path, DURING, made).await
}

async fn write_tree(tree: &Path, drive: &ConfigDrive) -> std::io::Result<()> {
    fs::create_dir_all(tree).await?;
    for (name, content) in &drive.files {
        let path = tree.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await?;
        }
        fs::write(&path, content).await?;
    }
    Ok(())
}

/// Disks, config drives and consoles hold a user's secrets: nobody else on this host may read them.
pub(super) async fn finish(new: &Path, path: &Path) -> std::io::Result<()> {
    fs::set_permissions(new, std::fs::Permissions::from_mode(0o600)).await?;
    fs::rename(new, path).await
}

/// Gives a finished file its name, or removes what is there of one that failed.
async fn put_in_place(
    made_it: Result<(), HypervisorError>,
    new: &Path,
    path: &Path,
    during: &'static str,
    made: &mut Made,
) -> Result<(), HypervisorError> {
    let result = match made_it {
        Ok(()) => finish(new, path).await.map_err(|error| errors::file(during, error)),
        Err(error) => Err(error),
    };
    match &result {
        Ok(()) => made.files.push(path.to_owned()),
        Err(_) => remove_file(new).await?,
    }
    result
}

/// Removes a guest's folder with everything in it. An absent one is Ok, and another host's stays.
pub(super) async fn remove(options: &LibvirtOptions, instance: InstanceId) -> Result<(), HypervisorError> {
    remove_own(options, &folder_of(options, instance), "removing the guest's files").await
}

/// Removes a folder, unless it is another host's.
pub(super) async fn remove_own(
    options: &LibvirtOptions,
    folder: &Path,
    during: &'static str,
) -> Result<(), HypervisorError> {
    match owner::another(options, folder).await? {
        Some(host) => {
            tracing::info!(folder = %folder.display(), %host, "it is another host's, and stays");
            Ok(())
        }
        None => remove_folder(folder, during).await,
    }
}

/// The instances that have a folder of this host.
pub(super) async fn instances(options: &LibvirtOptions) -> Result<BTreeSet<InstanceId>, HypervisorError> {
    const DURING: &str = "looking for guests' folders";
    let mut found = BTreeSet::new();
    let mut entries = match fs::read_dir(&options.instances_path).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(errors::file(DURING, error)),
    };
    while let Some(entry) = entries.next_entry().await.map_err(|error| errors::file(DURING, error))? {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok());
        let id = id.filter(|id| entry.file_name().to_str() == Some(id.to_string().as_str()));
        if let Some(id) = id
            && owner::another(options, &entry.path()).await?.is_none()
        {
            found.insert(id);
        }
    }
    Ok(found)
}

/// Whether an instance has a folder.
pub(super) async fn is_there(options: &LibvirtOptions, instance: InstanceId) -> Result<bool, HypervisorError> {
    exists(&folder_of(options, instance)).await
}

/// The last of what a guest wrote to its console. Long logs are continued in a new file; the old one is beside it.
pub(super) async fn console(options: &LibvirtOptions, instance: InstanceId) -> Result<Vec<u8>, HypervisorError> {
    let path = folder_of(options, instance).join(CONSOLE_LOG);
    let log = tail(&path, CONSOLE_BYTES).await?;
    let room = CONSOLE_BYTES.saturating_sub(log.len() as u64);
    let mut whole = if room > 0 { tail(&beside(&path, ".0"), room).await? } else { Vec::new() };
    whole.extend(log);
    Ok(whole)
}

/// The first bytes of a file.
pub(super) async fn head(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path).await?.take(bytes).read_to_end(&mut content).await?;
    Ok(content)
}

async fn tail(path: &Path, bytes: u64) -> Result<Vec<u8>, HypervisorError> {
    let read = async {
        let mut file = fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes))).await?;
        let mut content = Vec::new();
        file.take(bytes).read_to_end(&mut content).await?;
        Ok(content)
    };
    match read.await {
        Err(error) if std::io::Error::kind(&error) == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| errors::file("reading the console log", error)),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) async fn exists(path: &Path) -> Result<bool, HypervisorError> {
    fs::try_exists(path).await.map_err(|error| errors::file("looking for the guest's files", error))
}

pub(super) async fn remove_file(path: &Path) -> Result<(), HypervisorError> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(errors::file("removing an unfinished file", error)),
        _ => Ok(()),
    }
}

pub(super) async fn remove_folder(path: &Path, during: &'static str) -> Result<(), HypervisorError> {
    match fs::remove_dir_all(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(errors::file(during, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
