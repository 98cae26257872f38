//! VDI (VirtualBox's `VDICore.h`): dynamic and fixed disks. Undo and differencing disks have a parent and are refused.

use super::{Block, Format, InspectError, ReadAt, damaged, unsafe_image};

pub(super) const SIGNATURE_AT: usize = 64;
pub(super) const SIGNATURE: u32 = 0xbeda_107f;
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;

/// Returns the size of the disk in bytes.
pub(super) fn check<R: ReadAt + ?Sized>(data: &R) -> Result<u64, InspectError> {
    let head = Block::<512>::read(data, 0)?;
    let (Some(kind), Some(size)) = (head.u32_le(76), head.u64_le(368)) else {
        return Err(damaged(Format::Vdi, "the header is cut short"));
    };
    match kind {
        DYNAMIC | FIXED => Ok(size),
        other => Err(unsafe_image(Format::Vdi, format!("disks of type {other} refer to another file"))),
    }
}
