//! Is it this volume? Looked at from the host, before a guest sees it (OSSA-2023-003): an address or a device that once was one
//! tenant's volume may be another's by now.
//!
//! An NBD export says which volume it is in its description, a SCSI disk in its serial number, a file and a logical volume in
//! their names.

use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nova_core::volume::connection::{ConnectionTarget, DeviceTarget, FileFormat, FileTarget, IscsiTarget, NbdTarget};
use tokio::fs;

use crate::libvirt::errors;
use crate::libvirt::options::LibvirtOptions;
use crate::libvirt::qemu_img::{self, Image};
use crate::libvirt::tools::{self, Limits};
use crate::{DiskAttachment, DiskFormat, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "looking at a volume";

/// Refuses what is not this volume, or can't be reached.
pub(super) async fn check(volume: &DiskAttachment, options: &LibvirtOptions) -> Result<()> {
    volume.validate()?;
    let id = volume.volume().to_string();
    match &volume.connection.target {
        ConnectionTarget::Nbd(nbd) => check_nbd(nbd, &id, options).await,
        ConnectionTarget::Iscsi(iscsi) => check_iscsi(iscsi, &id, options).await,
        ConnectionTarget::File(file) => check_file(file, &id).await,
        ConnectionTarget::Local(device) => check_device(device, &id).await,
        _ => Err(HypervisorError::invalid("volume.driver_volume_type", "is not known here")),
    }
}

fn another(what: &str) -> HypervisorError {
    HypervisorError::invalid("volume", format!("is not what {what} leads to"))
}

fn limits(options: &LibvirtOptions) -> Limits {
    Limits::new(options.tool_limit, 0)
}

async fn check_nbd(nbd: &NbdTarget, id: &str, options: &LibvirtOptions) -> Result<()> {
    let mut words: Vec<OsString> = ["--list", "-b", &nbd.host, "-p", &nbd.port.to_string()].map(OsString::from).into();
    if let Some(tls) = &nbd.tls {
        let folder = options.volume_tls_path.to_string_lossy().replace(',', ",,");
        let object = format!("tls-creds-x509,id=tls,endpoint=client,verify-peer=on,dir={folder}");
        let more = ["--object", &object, "--tls-creds", "tls", "--tls-hostname", &tls.server_name];
        words.extend(more.map(OsString::from));
    }
    let printed = tools::run("qemu-nbd", words, DURING, limits(options)).await?;
    match description(&String::from_utf8_lossy(&printed), &nbd.export) {
        Some(Some(found)) if found == id => Ok(()),
        Some(_) => Err(another("the export")),
        None => Err(HypervisorError::Failed { during: DURING, source: "the server has no such export".into() }),
    }
}

/// What `qemu-nbd --list` says of an export: nothing where there is none, and its description where it has one.
fn description(listing: &str, export: &str) -> Option<Option<String>> {
    let mut lines = listing.lines().skip_while(|line| line.strip_prefix(" export: '") != Some(&format!("{export}'")));
    lines.next()?;
    let mut own = lines.take_while(|line| !line.starts_with(" export:"));
    Some(own.find_map(|line| line.strip_prefix("  description: ").map(|text| text.trim().to_owned())))
}

async fn check_iscsi(iscsi: &IscsiTarget, id: &str, options: &LibvirtOptions) -> Result<()> {
    let url = format!("iscsi://{}/{}/{}", iscsi.target_portal, iscsi.target_iqn, iscsi.target_lun);
    // In the environment, where other users don't see it.
    let secrets: Vec<(&str, &str)> = match &iscsi.auth {
        Some(auth) => vec![
            ("LIBISCSI_CHAP_USERNAME", auth.auth_username.as_str()),
            ("LIBISCSI_CHAP_PASSWORD", auth.auth_password.as_str()),
        ],
        None => Vec::new(),
    };
    let words = ["-e", "1", "-c", "128", &url].map(OsString::from);
    let printed = tools::run_with("iscsi-inq", words, &secrets, DURING, limits(options)).await?;
    match serial(&String::from_utf8_lossy(&printed)) {
        // A target gives back as much of it as its page has room for, at least what makes an id unique.
        Some(found) if is_serial_of(&found, id) => Ok(()),
        _ => Err(another("the target")),
    }
}

/// The serial number in what `iscsi-inq` prints of page 0x80.
fn serial(printed: &str) -> Option<String> {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("Unit Serial Number:"))?;
    Some(line.trim().trim_matches(['[', ']']).trim().to_owned())
}

/// A SCSI serial number of an id: whole, with or without its dashes.
fn is_serial_of(serial: &str, id: &str) -> bool {
    let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let serial = plain(serial);
    serial.len() == 32 && serial == plain(id)
}

async fn check_file(file: &FileTarget, id: &str) -> Result<()> {
    let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name != format!("volume-{id}") && name != format!("volume-{id}.qcow2") {
        return Err(another("the path"));
    }
    let failed = |error| errors::file(DURING, error);
    // A link would lead wherever whoever made it wants.
    if !fs::symlink_metadata(&file.path).await.map_err(failed)?.file_type().is_file() {
        return Err(HypervisorError::invalid("volume.path", "is no file"));
    }
    match file.format {
        // What is on it is its guest's, and is never read as anything else.
        FileFormat::Raw => Ok(()),
        FileFormat::Qcow2 => {
            qemu_img::inspect(&Image::new(&file.path, DiskFormat::Qcow2), "volume.path").await.map(drop)
        }
    }
}

async fn check_device(device: &DeviceTarget, id: &str) -> Result<()> {
    let failed = |error| errors::file(DURING, error);
    let found = fs::metadata(&device.device_path).await.map_err(failed)?;
    if !found.file_type().is_block_device() {
        return Err(HypervisorError::invalid("volume.device_path", "is no block device"));
    }
    let number = found.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let folder = format!("/sys/dev/block/{major}:{minor}");
    if names_volume(Path::new(&folder), id).await.map_err(failed)? { Ok(()) } else { Err(another("the device")) }
}

/// What the kernel says of a device: the name of a logical volume (`GROUP-volume--ID`, dashes doubled), or a serial number.
async fn names_volume(folder: &Path, id: &str) -> std::io::Result<bool> {
    let read = async |name: &str| match fs::read(folder.join(name)).await {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    if let Some(name) = read("dm/name").await? {
        return Ok(name.ends_with(&format!("-volume--{}", id.replace('-', "--"))));
    }
    for name in ["serial", "device/serial"] {
        if let Some(serial) = read(name).await? {
            return Ok(is_serial_of(&serial, id));
        }
    }
    // Two bytes, the page's number and its length in two more, then the serial number.
    match fs::read(folder.join("device/vpd_pg80")).await {
        Ok(page) => Ok(page.get(4..).is_some_and(|serial| is_serial_of(String::from_utf8_lossy(serial).trim(), id))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f000000-aaaa-4bbb-8ccc-000000000001";

    #[test]
    fn an_export_is_known_by_its_description() {
        let listing = format!(
            "exports available: 3\n export: 'a'\n  description: {ID}\n  size:  67108864\n export: 'b'\n  size: 1\n \
             export: 'ab'\n  description: other\n"
        );
        assert_eq!(description(&listing, "a"), Some(Some(ID.to_owned())));
        assert_eq!(description(&listing, "b"), Some(None), "the next one's description is not its own");
        assert_eq!(description(&listing, "ab"), Some(Some("other".to_owned())));
        assert_eq!(description(&listing, "c"), None);
    }

    #[test]
    fn a_scsi_disk_is_known_by_its_serial_number() {
        let printed = format!("VPD SUPPORTED\nPeripheral Qualifier:CONNECTED\nUnit Serial Number:[{ID}]\n");
        assert!(is_serial_of(&serial(&printed).unwrap(), ID));
        assert!(is_serial_of("5F000000AAAA4BBB8CCC000000000001", ID));
        assert!(!is_serial_of("5f000000-aaaa-4bbb-8ccc-00000000000", ID), "part of it is not it");
        assert_eq!(serial("nothing"), None);
    }

    #[tokio::test]
    async fn a_file_is_known_by_its_name_and_is_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let target = |name: &str, format| FileTarget { path: temp.path().join(name), format };
        let good = format!("volume-{ID}");
        std::fs::write(temp.path().join(&good), b"x").unwrap();
        check_file(&target(&good, FileFormat::Raw), ID).await.unwrap();
        check_file(&target(&good, FileFormat::Qcow2), ID).await.unwrap_err();
        check_file(&target("volume-other", FileFormat::Raw), ID).await.unwrap_err();
        let other = temp.path().join("elsewhere");
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", other.join(&good)).unwrap();
        let linked = FileTarget { path: other.join(&good), format: FileFormat::Raw };
        check_file(&linked, ID).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_device_is_known_by_what_the_kernel_says() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        assert!(!names_volume(folder, ID).await.unwrap());
        std::fs::create_dir(folder.join("device")).unwrap();
        let page = [b"\0\x80\0\x24".as_slice(), ID.as_bytes()].concat();
        std::fs::write(folder.join("device/vpd_pg80"), page).unwrap();
        assert!(names_volume(folder, ID).await.unwrap());
        std::fs::write(folder.join("serial"), "another\n").unwrap();
        assert!(!names_volume(folder, ID).await.unwrap());
        std::fs::create_dir(folder.join("dm")).unwrap();
        std::fs::write(folder.join("dm/name"), format!("nova--volumes-volume--{}\n", ID.replace('-', "--"))).unwrap();
        assert!(names_volume(folder, ID).await.unwrap());
    }
}
