//! A guest's folder: disks, config drive and console log.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nova_core::ids::InstanceId;
use serde::Deserialize;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::domain_xml::GuestFiles;
use super::options::LibvirtOptions;
use super::{errors, tools};
use crate::{ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, GuestSpec, HypervisorError};

/// The console log's last bytes that anyone reads.
const CONSOLE_BYTES: u64 = 1 << 20;
const CONSOLE_LOG: &str = "console.log";
const CONFIG_DRIVE: &str = "disk.config";

/// What one call made, to be taken back if the rest fails.
#[derive(Debug, Default)]
pub(super) struct Made {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Removes it again. What can't be removed shows in the list of guests.
    pub(super) async fn undo(self) {
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

/// Where a guest's files are.
pub(super) fn folder_of(options: &LibvirtOptions, instance: InstanceId) -> PathBuf {
    options.instances_path.join(instance.to_string())
}

/// The paths of a guest's files, made or not.
pub(super) fn files_of(options: &LibvirtOptions, guest: &GuestSpec) -> GuestFiles {
    let folder = folder_of(options, guest.instance);
    let mut ephemerals = 0;
    let mut name = |role| match role {
        DiskRole::Root => "disk".to_owned(),
        DiskRole::Swap => "disk.swap".to_owned(),
        DiskRole::Ephemeral => {
            ephemerals += 1;
            format!("disk.eph{}", ephemerals - 1)
        }
    };
    GuestFiles {
        disks: guest.disks.iter().map(|disk| folder.join(name(disk.role))).collect(),
        config_drive: guest.config_drive.as_ref().map(|_| folder.join(CONFIG_DRIVE)),
        console_log: folder.join(CONSOLE_LOG),
    }
}

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

    let files = files_of(options, guest);
    for (index, (disk, path)) in guest.disks.iter().zip(&files.disks).enumerate() {
        if !exists(path).await? {
            make_disk(options, index, disk, path, made).await?;
        }
    }
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
    Ok(())
}

async fn make_disk(
    options: &LibvirtOptions,
    index: usize,
    disk: &DiskSpec,
    path: &Path,
    made: &mut Made,
) -> Result<(), HypervisorError> {
    let during = match disk.role {
        DiskRole::Root => "creating the root disk",
        DiskRole::Ephemeral => "creating an ephemeral disk",
        DiskRole::Swap => "creating the swap disk",
    };
    let wanted = disk.size_gb << 30;
    let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2"].map(OsString::from).into();
    let size = match &disk.source {
        DiskSource::Blank => wanted,
        DiskSource::Image { base, format } => {
            let size = base_size(options, index, base, *format).await?;
            args.extend(["-F", format.as_str(), "-b"].map(OsString::from));
            args.push(base.clone().into());
            wanted.max(size)
        }
    };
    let new = beside(path, ".new");
    args.push(new.clone().into());
    args.push(size.to_string().into());
    remove_file(&new).await?;
    let made_it = tools::run("qemu-img", args, during, options.tool_limit).await;
    put_in_place(made_it.map(drop), &new, path, during, made).await
}

/// What `qemu-img info` tells of an image; only what could do harm, and its size.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageInfo {
    virtual_size: u64,
    backing_filename: Option<String>,
    #[serde(default)]
    format_specific: FormatSpecific,
}

#[derive(Debug, Default, Deserialize)]
struct FormatSpecific {
    #[serde(default)]
    data: FormatData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FormatData {
    data_file: Option<String>,
}

/// The size in bytes of a base image, read as the given format. An image that refers to other files is refused: it
/// would give the guest whatever they hold.
async fn base_size(
    options: &LibvirtOptions,
    index: usize,
    base: &Path,
    format: DiskFormat,
) -> Result<u64, HypervisorError> {
    const DURING: &str = "inspecting the base image";
    let mut args: Vec<OsString> = ["info", "--output=json", "-U", "-f", format.as_str()].map(OsString::from).into();
    args.push(base.into());
    let printed = tools::run("qemu-img", args, DURING, options.tool_limit).await?;
    let info: ImageInfo = serde_json::from_slice(&printed)
        .map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })?;
    if info.backing_filename.is_some() || info.format_specific.data.data_file.is_some() {
        let field = format!("disks[{index}].source");
        return Err(HypervisorError::invalid(field, "the base image refers to other files"));
    }
    Ok(info.virtual_size)
}

/// Writes the config drive: ISO 9660 with Joliet and Rock Ridge names, labelled as every guest agent looks for it.
async fn make_config_drive(
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
            tools::run("xorriso", args, DURING, options.tool_limit).await.map(drop)
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
async fn finish(new: &Path, path: &Path) -> std::io::Result<()> {
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

/// Removes a guest's folder with everything in it. An absent one is Ok.
pub(super) async fn remove(options: &LibvirtOptions, instance: InstanceId) -> Result<(), HypervisorError> {
    remove_folder(&folder_of(options, instance), "removing the guest's files").await
}

/// The instances that have a folder.
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
        found.extend(id.filter(|id| entry.file_name().to_str() == Some(id.to_string().as_str())));
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

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn exists(path: &Path) -> Result<bool, HypervisorError> {
    fs::try_exists(path).await.map_err(|error| errors::file("looking for the guest's files", error))
}

async fn remove_file(path: &Path) -> Result<(), HypervisorError> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(errors::file("removing an unfinished file", error)),
        _ => Ok(()),
    }
}

async fn remove_folder(path: &Path, during: &'static str) -> Result<(), HypervisorError> {
    match fs::remove_dir_all(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(errors::file(during, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
