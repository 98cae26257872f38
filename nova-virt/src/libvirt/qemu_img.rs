//! `qemu-img`, never without a format.
//!
//! A guest writes what it wants onto its disk, a qcow2 header for example (OSSA-2026-002). Whoever guesses what a disk is
//! does what its guest wants, so nothing here takes a path alone: [`Image`] is a path and the format that it was made or
//! inspected as. Each call runs under limits of processor time, memory and what it may write (OSSA-2016-012, -2013-012).

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_core::disk_format::{self, InspectError};
use tokio::fs;

use super::tools::{self, Limits};
use super::{errors, folder};
use crate::{DiskFormat, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

/// What qemu-img may write beyond the disk's own size: headers and tables of qcow2.
const TABLES: u64 = 64 << 20;

/// A disk, and what it is: as this driver made or inspected it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    path: PathBuf,
    format: DiskFormat,
}

impl Image {
    pub(super) fn new(path: impl Into<PathBuf>, format: DiskFormat) -> Self {
        Self { path: path.into(), format }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn format(&self) -> DiskFormat {
        self.format
    }
}

/// The size in bytes of the disk that an image from outside makes; it must be what it is said to be, and stand alone. Reads
/// its header, and runs nothing. `field` names it in the refusal.
pub(super) async fn inspect(image: &Image, field: &str) -> Result<u64> {
    const DURING: &str = "inspecting an image";
    let (path, format, field) = (image.path.clone(), image.format.as_str(), field.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        let file = File::open(&path)?;
        let most = i64::MAX as u64;
        match disk_format::inspect(&file, format, most) {
            // A disc is a disk that is read as it is, too.
            Err(InspectError::Mismatch { found: "iso", .. }) if format == "raw" => {
                disk_format::inspect(&file, "iso", most)
            }
            inspected => inspected,
        }
    });
    match looked.await {
        Ok(Ok(found)) => Ok(found.virtual_size),
        Ok(Err(InspectError::Io(error))) => Err(errors::file(DURING, error)),
        Ok(Err(refused)) => Err(HypervisorError::invalid(field, refused.to_string())),
        Err(error) => Err(HypervisorError::Failed { during: DURING, source: error.into() }),
    }
}

/// Makes an empty disk. A file is holes where nothing was written: it reads as zeros.
pub(super) async fn create(new: &Image, bytes: u64, during: &'static str, limit: Duration) -> Result<()> {
    let mut args = words(&["create", "-q", "-f", new.format.as_str()]);
    args.extend([new.path.clone().into(), bytes.to_string().into()]);
    run(args, during, Limits::new(limit, bytes.saturating_add(TABLES))).await
}

/// Makes a qcow2 disk of that size over a base that is not written to.
pub(super) async fn overlay(new: &Path, base: &Image, bytes: u64, during: &'static str, limit: Duration) -> Result<()> {
    let mut args = words(&["create", "-q", "-f", DiskFormat::Qcow2.as_str(), "-F", base.format.as_str(), "-b"]);
    args.extend([base.path.clone().into(), new.into(), bytes.to_string().into()]);
    run(args, during, Limits::new(limit, TABLES.max(bytes / 64))).await
}

/// Writes a copy that stands on no other file, and no more than `bytes` of it.
pub(super) async fn convert(from: &Image, to: &Image, bytes: u64, during: &'static str, limit: Duration) -> Result<()> {
    let mut args = words(&["convert", "-q", "-f", from.format.as_str(), "-O", to.format.as_str()]);
    args.extend([from.path.clone().into(), to.path.clone().into()]);
    run(args, during, Limits::new(limit, bytes.saturating_add(TABLES))).await
}

/// Makes a disk larger.
pub(super) async fn grow(image: &Image, bytes: u64, during: &'static str, limit: Duration) -> Result<()> {
    let mut args = words(&["resize", "-q", "-f", image.format.as_str()]);
    args.extend([image.path.clone().into(), bytes.to_string().into()]);
    run(args, during, Limits::new(limit, bytes.saturating_add(TABLES))).await
}

/// The size in bytes of a disk that this driver made, from its header; what it stands on is no matter.
pub(super) async fn size(image: &Image) -> Result<u64> {
    const DURING: &str = "reading a disk's size";
    let failed = |error| errors::file(DURING, error);
    match image.format {
        DiskFormat::Raw => Ok(fs::metadata(&image.path).await.map_err(failed)?.len()),
        DiskFormat::Qcow2 => {
            let head = folder::head(&image.path, 32).await.map_err(failed)?;
            let bytes = head.get(24..32).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            bytes.filter(|_| head.starts_with(b"QFI\xfb")).ok_or_else(|| HypervisorError::Failed {
                during: DURING,
                source: format!("{} is no qcow2 file", image.path.display()).into(),
            })
        }
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

async fn run(args: Vec<OsString>, during: &'static str, limits: Limits) -> Result<()> {
    tools::run("qemu-img", args, during, limits).await.map(drop)
}

#[cfg(test)]
mod tests {
    use nova_core::disk_format::samples;

    use super::*;
    use crate::ErrorKind;

    /// Rows 1 to 5: what the header says counts, and must be what was declared, for each pair.
    #[tokio::test]
    async fn only_what_is_declared_and_stands_alone_is_an_image() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("image");
        let real = [
            (samples::raw(), Some(DiskFormat::Raw)),
            (samples::partitioned(), Some(DiskFormat::Raw)),
            (samples::qcow2(), Some(DiskFormat::Qcow2)),
            (samples::qcow2_v2(), Some(DiskFormat::Qcow2)),
            (samples::qcow2_with(8, &512u64.to_be_bytes()), None),
            (samples::qcow2_with(72, &4u64.to_be_bytes()), None),
            (samples::good_vmdk(), None),
            (samples::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/shadow\" 0").into_bytes(), None),
            (samples::vhd(3), None),
            (samples::vhdx(0), None),
            (samples::vdi(1), None),
            (samples::iso(), Some(DiskFormat::Raw)),
            (samples::beginning_with(b"QED\0"), None),
            (samples::beginning_with(b"LUKS\xba\xbe\0\x01"), None),
        ];
        for (number, (bytes, good)) in real.iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            for declared in [DiskFormat::Raw, DiskFormat::Qcow2] {
                let looked = inspect(&Image::new(&path, declared), "disks[0].source").await;
                match looked {
                    Ok(_) => assert_eq!(*good, Some(declared), "sample {number}"),
                    Err(error) => {
                        assert_ne!(*good, Some(declared), "sample {number}: {error}");
                        assert_eq!(error.kind(), ErrorKind::InvalidInput);
                        assert!(error.to_string().starts_with("disks[0].source: "), "{error}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn the_size_is_in_the_header() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("disk");
        std::fs::write(&path, samples::qcow2_with(8, &512u64.to_be_bytes())).unwrap();
        assert_eq!(size(&Image::new(&path, DiskFormat::Qcow2)).await.unwrap(), samples::DISK);
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size(&Image::new(&path, DiskFormat::Raw)).await.unwrap(), length);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(size(&Image::new(&path, DiskFormat::Qcow2)).await.unwrap_err().kind(), ErrorKind::Failed);
    }
}
