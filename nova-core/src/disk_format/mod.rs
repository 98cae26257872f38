//! Looks at an image's own header before anything else reads it: which format it really is, how large a disk it makes,
//! and whether it refers to anything outside itself.
//!
//! The rules follow what a decade of advisories taught (OSSA-2014-009 to OSSA-2024-002): the declared format must be the
//! one that is found, and a format is taken only in the variants that cannot name another file of the host. As in
//! `oslo_utils.imageutils.format_inspector`, only headers are read. Every read has a fixed upper bound that no number in
//! the data can raise, so that hostile data costs no more than good data (OSSA-2016-012).
//!
//! Every path that touches a tenant's disk goes through here: upload, a host's cache, the disks of guests, what comes from
//! another host. Only what is handed in is read: nothing is opened here.

mod qcow2;
mod raw;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of the beginning is read at once: up to the volume descriptor of an ISO image.
const HEAD: usize = 36 * 1024;

/// Data that can be read at any place.
pub trait ReadAt {
    /// Reads from `offset` as much as fits or is there; fewer bytes than asked for mean the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// What the data is, whatever anybody says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// No header that is known: plain disk contents.
    Raw,
    /// A disk with a partition table (MBR or GPT): plain disk contents too.
    Partitioned,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Microsoft's old one.
    Vhd,
    /// Microsoft's new one.
    Vhdx,
    /// VirtualBox's.
    Vdi,
    /// An optical disc.
    Iso,
    /// QEMU's abandoned QED.
    Qed,
    /// QEMU's first copy-on-write format.
    Qcow1,
    /// An encrypted volume.
    Luks,
    /// Parallels' (ploop).
    Parallels,
    /// Apple's disk image.
    Dmg,
    /// Bochs' growing disk.
    Bochs,
    /// A compressed loop image.
    Cloop,
    /// The output of gzip, xz, bzip2, zstd, zip, 7z or lz4.
    Compressed,
}

impl Format {
    /// The word that `disk_format` has for it, or one that a reader understands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Partitioned => "raw (with a partition table)",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Qed => "qed",
            Self::Qcow1 => "qcow",
            Self::Luks => "luks",
            Self::Parallels => "ploop",
            Self::Dmg => "dmg",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
            Self::Compressed => "compressed",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The format.
    pub format: Format,
    /// Bytes of the disk that it makes.
    pub virtual_size: u64,
}

/// Why data is not taken as an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// It is something else than what was declared.
    #[error("The image is declared as {declared}, but its data is {found}.")]
    Mismatch {
        /// `disk_format`.
        declared: String,
        /// What it is.
        found: &'static str,
    },
    /// It has the declared format, in a variant that is refused.
    #[error("The {format} image is refused: {reason}.")]
    Unsafe {
        /// Its format.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Its header cannot be read as the format that it begins like.
    #[error("The {format} image is damaged: {reason}.")]
    Damaged {
        /// Its format.
        format: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk that it makes is larger than allowed.
    #[error("The image makes a disk of {virtual_size} bytes, more than the {limit} that are allowed.")]
    TooLarge {
        /// What it would make, in bytes.
        virtual_size: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// The data could not be read at all.
    #[error("the image's data cannot be read")]
    Io(#[from] io::Error),
}

fn unsafe_image(format: Format, reason: impl Into<String>) -> InspectError {
    InspectError::Unsafe { format: format.as_str(), reason: reason.into() }
}

fn damaged(format: Format, reason: &'static str) -> InspectError {
    InspectError::Damaged { format: format.as_str(), reason }
}

/// Finds the format of the data and holds it to the rules.
///
/// `declared` is the image's `disk_format`, `limit` the most bytes that its disk may have.
///
/// # Errors
/// Everything but [`InspectError::Io`] is the fault of the data and may be shown to whoever sent it.
pub fn inspect<R: ReadAt + ?Sized>(data: &R, declared: &str, limit: u64) -> Result<Inspected, InspectError> {
    let format = detect(data)?;
    if !may_be(declared, format) {
        return Err(InspectError::Mismatch { declared: declared.to_owned(), found: format.as_str() });
    }
    let virtual_size = match format {
        Format::Qcow2 => qcow2::check(data)?,
        Format::Vmdk => vmdk::check(data)?,
        Format::Vhd => vhd::check(data)?,
        Format::Vhdx => vhdx::check(data)?,
        Format::Vdi => vdi::check(data)?,
        _ => data.length()?,
    };
    if virtual_size > limit {
        return Err(InspectError::TooLarge { virtual_size, limit });
    }
    Ok(Inspected { format, virtual_size })
}

/// Which data a declaration stands for. Kernels and ramdisks (`aki`, `ari`) are often compressed; a root file system
/// (`ami`) is plain.
fn may_be(declared: &str, found: Format) -> bool {
    match declared {
        "raw" | "ami" => matches!(found, Format::Raw | Format::Partitioned),
        "aki" | "ari" => matches!(found, Format::Raw | Format::Partitioned | Format::Compressed),
        "qcow2" => found == Format::Qcow2,
        "vmdk" => found == Format::Vmdk,
        "vhd" => found == Format::Vhd,
        "vhdx" => found == Format::Vhdx,
        "vdi" => found == Format::Vdi,
        "iso" => found == Format::Iso,
        _ => false,
    }
}

/// Says what the data is. What stands at the very beginning wins over what stands later, as it does for the programs
/// that guess: a disc image that begins with a qcow2 header is qcow2.
///
/// # Errors
/// Only when the data cannot be read.
pub fn detect<R: ReadAt + ?Sized>(data: &R) -> Result<Format, InspectError> {
    let head = Block::<HEAD>::read(data, 0)?;
    if let Some(format) = raw::at_the_beginning(head.bytes()) {
        return Ok(format);
    }
    if vmdk::looks_like_descriptor(head.bytes()) {
        return Ok(Format::Vmdk);
    }
    if head.u32_le(vdi::SIGNATURE_AT) == Some(vdi::SIGNATURE) {
        return Ok(Format::Vdi);
    }
    if vhd::has_footer(data)? {
        return Ok(Format::Vhd);
    }
    if raw::has_dmg_trailer(data)? {
        return Ok(Format::Dmg);
    }
    Ok(raw::by_structure(head.bytes()))
}

/// A piece of the data, of fixed size, with reads that cannot go wrong.
struct Block<const N: usize> {
    bytes: Box<[u8]>,
}

impl<const N: usize> Block<N> {
    fn read<R: ReadAt + ?Sized>(data: &R, offset: u64) -> io::Result<Self> {
        let mut bytes = vec![0; N];
        let count = data.read_at(offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(Self { bytes: bytes.into_boxed_slice() })
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn array<const M: usize>(&self, at: usize) -> Option<[u8; M]> {
        self.bytes.get(at..at.checked_add(M)?)?.try_into().ok()
    }
    fn u16_le(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }
    fn u32_be(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }
    fn u32_le(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }
    fn u64_be(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_be_bytes)
    }
    fn u64_le(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}
