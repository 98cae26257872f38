//! Making disks: from an image, from a file that another host sent, or of nothing.

use std::path::Path;

use tokio::fs;

use super::record::DiskRecord;
use super::{Made, beside, errors, exists, put_in_place, remove_file};
use crate::libvirt::options::{LibvirtOptions, Preallocate};
use crate::libvirt::qemu_img::{self, Image};
use crate::{DiskFormat, DiskRole, DiskSource, DiskSpec, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

/// What a disk will be, once it is made.
pub(in crate::libvirt) fn record_of(options: &LibvirtOptions, disk: &DiskSpec) -> DiskRecord {
    match &disk.source {
        DiskSource::Blank => DiskRecord { format: own_format(options), base: None },
        DiskSource::Image { base, .. } => {
            let base = options.use_cow_images.then(|| base.clone());
            DiskRecord { format: own_format(options), base }
        }
        DiskSource::File { format, .. } => DiskRecord { format: *format, base: None },
    }
}

/// Makes a disk at that place.
pub(in crate::libvirt) async fn make(
    options: &LibvirtOptions,
    index: usize,
    disk: &DiskSpec,
    path: &Path,
    made: &mut Made,
) -> Result<()> {
    let during = match disk.role {
        DiskRole::Root => "creating the root disk",
        DiskRole::Ephemeral => "creating an ephemeral disk",
        DiskRole::Swap => "creating the swap disk",
    };
    let field = format!("disks[{index}].source");
    let wanted = disk.size_gb << 30;
    match &disk.source {
        DiskSource::Blank => make_blank(options, own_format(options), wanted, path, during, made).await,
        DiskSource::Image { base, format } => {
            make_from(options, &Image::new(base, *format), &field, wanted, path, during, made).await
        }
        DiskSource::File { path: from, format } => {
            take_over(options, &Image::new(from, *format), &field, wanted, path, during, made).await
        }
    }
}

/// The format of disks that are written in full.
fn own_format(options: &LibvirtOptions) -> DiskFormat {
    if options.use_cow_images { DiskFormat::Qcow2 } else { DiskFormat::Raw }
}

/// With nothing on it.
pub(in crate::libvirt) async fn make_blank(
    options: &LibvirtOptions,
    format: DiskFormat,
    bytes: u64,
    path: &Path,
    during: &'static str,
    made: &mut Made,
) -> Result<()> {
    let new = Image::new(beside(path, ".new"), format);
    remove_file(new.path()).await?;
    let made_it = async {
        qemu_img::create(&new, bytes, during, options.tool_limit).await?;
        preallocate(options, new.path(), bytes, during).await
    };
    put_in_place(made_it.await, new.path(), path, during, made).await
}

/// Over a base image, or as a copy of it. It is inspected before any program sees it, each time: whoever filled the cache may
/// have been deceived.
async fn make_from(
    options: &LibvirtOptions,
    base: &Image,
    field: &str,
    wanted: u64,
    path: &Path,
    during: &'static str,
    made: &mut Made,
) -> Result<()> {
    let size = qemu_img::inspect(base, field).await?;
    let (bytes, limit) = (wanted.max(size), options.tool_limit);
    let new = Image::new(beside(path, ".new"), own_format(options));
    remove_file(new.path()).await?;
    let made_it = async {
        if options.use_cow_images {
            qemu_img::overlay(new.path(), base, bytes, during, limit).await?;
        } else {
            qemu_img::convert(base, &new, bytes, during, limit).await?;
            if bytes > size {
                qemu_img::grow(&new, bytes, during, limit).await?;
            }
        }
        preallocate(options, new.path(), bytes, during).await
    };
    put_in_place(made_it.await, new.path(), path, during, made).await
}

/// A file becomes the disk, and is grown to the size that is wanted. It goes back where it was if the rest fails.
async fn take_over(
    options: &LibvirtOptions,
    from: &Image,
    field: &str,
    wanted: u64,
    path: &Path,
    during: &'static str,
    made: &mut Made,
) -> Result<()> {
    let size = qemu_img::inspect(from, field).await?;
    let new = Image::new(beside(path, ".new"), from.format());
    move_file(from.path(), new.path()).await.map_err(|error| errors::file(during, error))?;
    let grown = if wanted > size { qemu_img::grow(&new, wanted, during, options.tool_limit).await } else { Ok(()) };
    let placed = match grown {
        Ok(()) => super::finish(new.path(), path).await.map_err(|error| errors::file(during, error)),
        Err(error) => Err(error),
    };
    match placed {
        Ok(()) => made.moved(path, from.path()),
        Err(_) => move_file(new.path(), from.path()).await.map_err(|error| errors::file(during, error))?,
    }
    placed
}

/// Renames it; where that is another file system, copies it and removes the old one.
pub(in crate::libvirt) async fn move_file(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::rename(from, to).await {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).await?;
            fs::remove_file(from).await
        }
        renamed => renamed,
    }
}

/// Books the space that the disk may come to need (`preallocate_images`), without changing what is in it.
async fn preallocate(options: &LibvirtOptions, path: &Path, bytes: u64, during: &'static str) -> Result<()> {
    if options.preallocate_images == Preallocate::None || !exists(path).await? {
        return Ok(());
    }
    let path = path.to_owned();
    let booked = tokio::task::spawn_blocking(move || {
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes).map_err(std::io::Error::from)
    });
    match booked.await {
        Ok(booked) => booked.map_err(|error| errors::file(during, error)),
        Err(error) => Err(HypervisorError::Failed { during, source: error.into() }),
    }
}
