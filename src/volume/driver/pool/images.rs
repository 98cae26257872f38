//! Images into volumes, and volumes into images.
//!
//! What comes from outside is stored as it is, inspected there by `nova_core::disk_format`, and only then given to a program,
//! which is told the format (OSSA-2026-002, -2024-001, -2024-002, -2023-002).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::contracts::{ImageData, ImageServiceError};
use nova_core::disk_format::{self, Format, InspectError};
use nova_core::ids::VolumeId;

use super::{FilePool, LiveCopier, copy_file, files};
use crate::volume::driver::tools::{self, Limits, blocking};
use crate::volume::driver::{ImageFormat, ImageSource, VolumeDriverError, VolumeImage};

type Result<T> = std::result::Result<T, VolumeDriverError>;

/// Headers and tables of an image beyond its disk.
const TABLES: u64 = 64 << 20;
/// Pieces in which an image is read.
const CHUNK: usize = 1 << 20;

/// A file that goes when this does. What a killed process leaves is removed when the pool is opened.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Of no more use either way.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl FilePool {
    /// Replaces what is on a volume by an image.
    pub(in crate::volume::driver) async fn write_image(
        &self,
        volume: VolumeId,
        image: &ImageSource,
        data: Box<dyn ImageData>,
    ) -> Result<()> {
        const DURING: &str = "writing an image to a volume";
        let _turn = self.turn(volume).await;
        let entry = self.entry(volume)?;
        if !entry.connections.is_empty() {
            return Err(VolumeDriverError::busy(volume, "is connected to a host"));
        }
        let staged = stage(&self.options.folder, volume, image, data, entry.size).await?;
        let disk = if staged.is_disk() {
            staged.file
        } else {
            let disk = Temporary(side_path(&self.options.folder, volume, "disk"));
            let (begun, size) = (disk.0.clone(), entry.size);
            blocking(DURING, move || files::begin(&begun)?.set_len(size)).await?;
            staged.convert_onto(&disk.0, entry.size, self.options.tool_limit).await?;
            disk
        };
        let (from, to, size) = (disk.0.clone(), self.path(volume), entry.size);
        blocking(DURING, move || {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&from)?;
            file.set_len(size)?;
            files::finish(&file, &from, &to)
        })
        .await
    }

    /// Makes an image of what is on a volume.
    pub(in crate::volume::driver) async fn read_image(
        &self,
        volume: VolumeId,
        format: ImageFormat,
        live: &dyn LiveCopier,
    ) -> Result<VolumeImage> {
        const DURING: &str = "making an image of a volume";
        let turn = self.turn(volume).await;
        let entry = self.entry(volume)?;
        let (path, size) = (self.path(volume), entry.size);
        // Whoever writes to it from here on must not be seen: it is the volume at one moment.
        let copy = Temporary(self.side_path(volume, "copy"));
        let begun = copy.0.clone();
        let file = Arc::new(blocking(DURING, move || files::begin(&begun)).await?);
        match format {
            ImageFormat::Qcow2 if entry.connections.is_empty() => {
                convert(&path, &copy.0, format, size, self.options.tool_limit, DURING).await?;
            }
            ImageFormat::Raw if entry.connections.is_empty() => copy_file(path, file, size, DURING).await?,
            ImageFormat::Raw => self.copy_now(volume, &entry, &copy.0, file, size, live, DURING).await?,
            ImageFormat::Qcow2 => {
                let raw = Temporary(self.side_path(volume, "frozen"));
                let begun = raw.0.clone();
                let frozen = Arc::new(blocking(DURING, move || files::begin(&begun)).await?);
                self.copy_now(volume, &entry, &raw.0, frozen, size, live, DURING).await?;
                convert(&raw.0, &copy.0, format, size, self.options.tool_limit, DURING).await?;
            }
        }
        drop(turn);
        hand_over(copy).await
    }

    fn side_path(&self, volume: VolumeId, what: &str) -> PathBuf {
        side_path(&self.options.folder, volume, what)
    }
}

fn side_path(folder: &Path, volume: VolumeId, what: &str) -> PathBuf {
    folder.join(format!("volume-{volume}.{what}.new"))
}

/// Makes a folder for images on their way, and removes what a killed process left there.
pub(in crate::volume::driver) async fn prepare(folder: &Path) -> Result<()> {
    let folder = folder.to_owned();
    blocking("making the folder of images", move || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        super::table::sweep(&folder)
    })
    .await
}

/// An image that was stored and inspected.
pub(in crate::volume::driver) struct Staged {
    file: Temporary,
    format: Format,
}

/// Stores an image of a volume of that size, and inspects it.
pub(in crate::volume::driver) async fn stage(
    folder: &Path,
    volume: VolumeId,
    image: &ImageSource,
    data: Box<dyn ImageData>,
    size: u64,
) -> Result<Staged> {
    let file = Temporary(side_path(folder, volume, "image"));
    let begun = file.0.clone();
    let opened = Arc::new(blocking("storing an image", move || files::begin(&begun)).await?);
    receive(&opened, data, size.saturating_add(TABLES)).await?;
    let format = inspect(opened, image.disk_format.clone(), size).await?;
    Ok(Staged { file, format })
}

impl Staged {
    /// Its bytes are those of the disk.
    fn is_disk(&self) -> bool {
        qemu_name(self.format).is_none()
    }

    /// Writes the disk onto a file or device that is there, is as large, and reads as zeros.
    pub(in crate::volume::driver) async fn convert_onto(&self, target: &Path, size: u64, time: Duration) -> Result<()> {
        const DURING: &str = "writing an image to a volume";
        let name = qemu_name(self.format).unwrap_or("raw");
        let args = ["convert", "-q", "-n", "--target-is-zero", "-f", name, "-O", "raw", "-S", "64k"];
        let words = args.iter().map(AsRef::as_ref).chain([self.file.0.as_os_str(), target.as_os_str()]);
        tools::run("qemu-img", words, DURING, Limits { time, file_bytes: size }).await.map(drop)
    }
}

/// Makes an image of what is on a device that nobody writes to.
pub(in crate::volume::driver) async fn take(
    device: &Path,
    folder: &Path,
    volume: VolumeId,
    format: ImageFormat,
    size: u64,
    time: Duration,
) -> Result<VolumeImage> {
    const DURING: &str = "making an image of a volume";
    let copy = Temporary(side_path(folder, volume, "copy"));
    let begun = copy.0.clone();
    blocking(DURING, move || files::begin(&begun).map(drop)).await?;
    convert(device, &copy.0, format, size, time, DURING).await?;
    hand_over(copy).await
}

/// Of the bytes of a disk.
async fn convert(
    from: &Path,
    to: &Path,
    format: ImageFormat,
    size: u64,
    time: Duration,
    during: &'static str,
) -> Result<()> {
    let limits = Limits { time, file_bytes: size.saturating_add(TABLES) };
    let args = ["convert", "-q", "-f", "raw", "-O", format.as_str()];
    let words = args.iter().map(AsRef::as_ref).chain([from.as_os_str(), to.as_os_str()]);
    tools::run("qemu-img", words, during, limits).await.map(drop)
}

/// The file is read to its end although it has no name any more.
async fn hand_over(copy: Temporary) -> Result<VolumeImage> {
    let opened = copy.0.clone();
    let (file, size) = blocking("making an image of a volume", move || {
        let file = File::open(&opened)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    })
    .await?;
    drop(copy);
    Ok(VolumeImage { size, data: Box::new(FileData { file: Arc::new(file), at: 0, size }) })
}

/// Stores what comes, up to so many bytes.
async fn receive(file: &Arc<File>, mut data: Box<dyn ImageData>, most: u64) -> Result<()> {
    const DURING: &str = "storing an image";
    let mut at: u64 = 0;
    while let Some(chunk) =
        data.next_chunk().await.map_err(|error| VolumeDriverError::Source { source: error.into() })?
    {
        let (offset, length) = (at, chunk.len() as u64);
        at = at.saturating_add(length);
        if at > most {
            return Err(VolumeDriverError::InvalidImage("The image is larger than the volume.".to_owned()));
        }
        let file = file.clone();
        blocking(DURING, move || files::write_sparse(&file, offset, &chunk)).await?;
    }
    let file = file.clone();
    blocking(DURING, move || file.set_len(at)).await
}

/// What the image is, if it is what it is declared to be and makes a disk that fits.
async fn inspect(file: Arc<File>, declared: String, most: u64) -> Result<Format> {
    const DURING: &str = "inspecting an image";
    let looked = tokio::task::spawn_blocking(move || disk_format::inspect(&*file, &declared, most));
    match looked.await {
        Ok(Ok(found)) => Ok(found.format),
        Ok(Err(InspectError::Io(error))) => Err(tools::file(DURING, error)),
        Ok(Err(error)) => Err(VolumeDriverError::inspected(DURING, error)),
        Err(error) => Err(VolumeDriverError::failed(DURING, error)),
    }
}

/// QEMU's name of a format; `None` where the bytes are those of a disk.
fn qemu_name(format: Format) -> Option<&'static str> {
    match format {
        Format::Qcow2 => Some("qcow2"),
        Format::Vmdk => Some("vmdk"),
        Format::Vhd => Some("vpc"),
        Format::Vhdx => Some("vhdx"),
        Format::Vdi => Some("vdi"),
        _ => None,
    }
}

struct FileData {
    file: Arc<File>,
    at: u64,
    size: u64,
}

#[async_trait]
impl ImageData for FileData {
    async fn next_chunk(&mut self) -> std::result::Result<Option<Vec<u8>>, ImageServiceError> {
        let length = (self.size - self.at).min(CHUNK as u64) as usize;
        if length == 0 {
            return Ok(None);
        }
        let (file, at) = (self.file.clone(), self.at);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at).map(|()| chunk)
        });
        let chunk = match read.await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(source)) => return Err(ImageServiceError::Unavailable { source: source.into() }),
            Err(source) => return Err(ImageServiceError::Unavailable { source: io::Error::other(source).into() }),
        };
        self.at += length as u64;
        Ok(Some(chunk))
    }
}
