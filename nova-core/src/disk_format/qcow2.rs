//! qcow2, versions 2 and 3 (QEMU's `docs/interop/qcow2.rst`).
//!
//! Refused: a backing file and an external data file, both of which name a file of the host (CVE-2024-32498), encryption,
//! damage, and features that are not known here, as nobody can say what they name.

use super::{Block, Format, InspectError, ReadAt, damaged, unsafe_image};

/// Header and extensions are looked for in the first 4 KiB: QEMU writes them well within.
const SEARCHED: usize = 4096;
const DATA_FILE_NAME: u32 = 0x4441_5441;
const FULL_DISK_ENCRYPTION: u32 = 0x0537_be77;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Returns the size of the disk in bytes.
pub(super) fn check<R: ReadAt + ?Sized>(data: &R) -> Result<u64, InspectError> {
    let head = Block::<SEARCHED>::read(data, 0)?;
    let short = || damaged(Format::Qcow2, "the header is cut short");
    let version = head.u32_be(4).ok_or_else(short)?;
    let backing_offset = head.u64_be(8).ok_or_else(short)?;
    let backing_size = head.u32_be(16).ok_or_else(short)?;
    let cluster_bits = head.u32_be(20).ok_or_else(short)?;
    let virtual_size = head.u64_be(24).ok_or_else(short)?;
    let encryption = head.u32_be(32).ok_or_else(short)?;
    head.u64_be(64).ok_or_else(short)?;

    if !(2..=3).contains(&version) {
        return Err(unsafe_image(Format::Qcow2, format!("version {version} is not supported")));
    }
    if backing_offset != 0 || backing_size != 0 {
        return Err(unsafe_image(Format::Qcow2, "it has a backing file"));
    }
    if encryption != 0 {
        return Err(unsafe_image(Format::Qcow2, "it is encrypted"));
    }
    if !(9..=21).contains(&cluster_bits) {
        return Err(damaged(Format::Qcow2, "the cluster size is out of range"));
    }
    if version == 3 {
        check_features(head.u64_be(72).ok_or_else(short)?)?;
    }
    let header_length = if version == 3 { head.u32_be(100).ok_or_else(short)? } else { 72 };
    check_extensions(&head, header_length)?;
    Ok(virtual_size)
}

fn check_features(incompatible: u64) -> Result<(), InspectError> {
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(unsafe_image(Format::Qcow2, "it keeps its data in an external file"));
    }
    if incompatible & CORRUPT != 0 {
        return Err(damaged(Format::Qcow2, "it is marked as corrupt"));
    }
    let unknown = incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return Err(unsafe_image(Format::Qcow2, format!("it needs unknown features ({unknown:#x})")));
    }
    Ok(())
}

/// Walks the header extensions. Each step goes forward by at least eight bytes within a fixed buffer.
fn check_extensions(head: &Block<SEARCHED>, header_length: u32) -> Result<(), InspectError> {
    let mut at = header_length as usize;
    if !(72..=SEARCHED).contains(&at) {
        return Err(damaged(Format::Qcow2, "the header length is out of range"));
    }
    while let (Some(kind), Some(length)) = (head.u32_be(at), head.u32_be(at.saturating_add(4))) {
        match kind {
            0 => return Ok(()),
            DATA_FILE_NAME => return Err(unsafe_image(Format::Qcow2, "it names an external data file")),
            FULL_DISK_ENCRYPTION => return Err(unsafe_image(Format::Qcow2, "it is encrypted")),
            _ => {}
        }
        let padded = (length as usize).checked_next_multiple_of(8).and_then(|length| length.checked_add(8));
        at = match padded.and_then(|step| at.checked_add(step)) {
            Some(next) if next <= SEARCHED => next,
            _ => return Err(damaged(Format::Qcow2, "a header extension is too long")),
        };
    }
    Ok(())
}
