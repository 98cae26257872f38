//! The fake's disks: a text each, which says what it was made of. Copies of them are small files of the real formats.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DiskFormat, DiskRole, DiskSource, DiskSpec, ExportRequest, GuestSpec, HypervisorError};

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FakeDisk {
    pub(super) role: DiskRole,
    pub(super) content: String,
}

/// What begins the text of a fake disk in a file.
const MARK: &str = "fake disk: ";
/// The size of a copy: whatever a fake disk says fits.
const COPY_BYTES: u64 = 64 << 10;
/// A cluster of the qcow2 files that are written here: the text is in the sixth.
const CLUSTER: u64 = 64 << 10;

/// New disks for a guest. Files that it is to have become them: they are gone afterwards.
pub(super) fn make(spec: &GuestSpec) -> Result<Vec<FakeDisk>, HypervisorError> {
    spec.disks.iter().map(|disk| Ok(FakeDisk { role: disk.role, content: content(spec, disk)? })).collect()
}

fn content(spec: &GuestSpec, disk: &DiskSpec) -> Result<String, HypervisorError> {
    Ok(match &disk.source {
        DiskSource::Blank => "blank".to_owned(),
        DiskSource::Image { .. } => format!("image {}", spec.image_id.as_deref().unwrap_or("unknown")),
        DiskSource::File { path, format } => {
            const DURING: &str = "taking over a disk";
            let failed = |error: std::io::Error| HypervisorError::Failed { during: DURING, source: error.into() };
            let content = read(path, *format).map_err(failed)?;
            std::fs::remove_file(path).map_err(failed)?;
            content
        }
    })
}

/// Writes a copy of the disk that is asked for.
pub(super) fn export(disks: &[FakeDisk], request: &ExportRequest) -> Result<(), HypervisorError> {
    let index = usize::try_from(request.index).unwrap_or(usize::MAX);
    let Some(disk) = disks.iter().filter(|disk| disk.role == request.role).nth(index) else {
        return Err(HypervisorError::invalid("role", "the guest has no such disk"));
    };
    write(&request.destination, request.format, &disk.content)
        .map_err(|error| HypervisorError::Failed { during: "copying a disk", source: error.into() })
}

/// Writes what a copy says, or a file is, as a raw copy.
pub(super) fn convert(from: &Path, format: DiskFormat, to: &Path, bytes: u64) -> Result<(), HypervisorError> {
    let failed =
        |error: std::io::Error| HypervisorError::Failed { during: "converting an image", source: error.into() };
    if bytes < COPY_BYTES {
        return Err(HypervisorError::invalid("from", format!("makes {COPY_BYTES} bytes, of {bytes} at most")));
    }
    let content = read(from, format).map_err(failed)?;
    write(to, DiskFormat::Raw, &content).map_err(failed)
}

fn write(path: &Path, format: DiskFormat, content: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let text = format!("{MARK}{content}");
    if text.len() as u64 > COPY_BYTES {
        return Err(std::io::Error::other("too long a text for a fake disk"));
    }
    let begin = match format {
        DiskFormat::Raw => 0,
        DiskFormat::Qcow2 => {
            for (cluster, words) in qcow2() {
                file.seek(SeekFrom::Start(cluster * CLUSTER))?;
                file.write_all(&words)?;
            }
            5 * CLUSTER
        }
    };
    file.seek(SeekFrom::Start(begin))?;
    file.write_all(text.as_bytes())?;
    file.set_len(begin + COPY_BYTES)
}

/// The first five clusters of a qcow2 file with one cluster of data: header, table of reference counts, the counts, and both
/// levels of the map (QEMU's docs/interop/qcow2.rst, version 2).
fn qcow2() -> [(u64, Vec<u8>); 5] {
    let mut header = b"QFI\xfb".to_vec();
    header.extend(2u32.to_be_bytes());
    // No backing file; clusters of 2^16.
    header.extend([0; 12]);
    header.extend(16u32.to_be_bytes());
    header.extend(COPY_BYTES.to_be_bytes());
    // Not encrypted; one entry in the first level, which is in cluster 3; counts from cluster 1 on, no snapshots.
    header.extend(0u32.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    header.extend([0; 12]);
    let copied = |cluster: u64| ((1u64 << 63) | (cluster * CLUSTER)).to_be_bytes().to_vec();
    let counts = [0, 1].repeat(6);
    [(0, header), (1, (2 * CLUSTER).to_be_bytes().to_vec()), (2, counts), (3, copied(4)), (4, copied(5))]
}

/// What a copy says; of a file that is none, how long it is.
fn read(path: &Path, format: DiskFormat) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let begin = match format {
        DiskFormat::Raw => 0,
        DiskFormat::Qcow2 => 5 * CLUSTER,
    };
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(COPY_BYTES).read_to_end(&mut bytes)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).unwrap_or_default();
    Ok(text.strip_prefix(MARK).map_or_else(|| format!("a file of {length} bytes"), str::to_owned))
}
