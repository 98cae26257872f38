//! VHD (Microsoft's "Virtual Hard Disk Image Format Specification"): fixed and dynamic disks. A differencing disk names
//! its parent and is refused.

use std::io;

use super::{Block, Format, InspectError, ReadAt, damaged, unsafe_image};

const FOOTER: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;

/// Does it end with a footer? A fixed disk has nothing else.
pub(super) fn has_footer<R: ReadAt + ?Sized>(data: &R) -> io::Result<bool> {
    Ok(footer(data)?.is_some())
}

fn footer<R: ReadAt + ?Sized>(data: &R) -> io::Result<Option<Block<512>>> {
    let Some(offset) = data.length()?.checked_sub(FOOTER) else { return Ok(None) };
    let block = Block::<512>::read(data, offset)?;
    Ok(block.bytes().starts_with(b"conectix").then_some(block))
}

/// Returns the size of the disk in bytes.
pub(super) fn check<R: ReadAt + ?Sized>(data: &R) -> Result<u64, InspectError> {
    let head = Block::<512>::read(data, 0)?;
    let first = if head.bytes().starts_with(b"conectix") { Some(size_of(&head)?) } else { None };
    let last = match footer(data)? {
        Some(block) => Some(size_of(&block)?),
        None => None,
    };
    match (first, last) {
        (Some(first), Some(last)) if first != last => Err(damaged(Format::Vhd, "its footer differs from its header")),
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => Err(damaged(Format::Vhd, "it has no footer")),
    }
}

fn size_of(block: &Block<512>) -> Result<u64, InspectError> {
    let (Some(size), Some(kind)) = (block.u64_be(48), block.u32_be(60)) else {
        return Err(damaged(Format::Vhd, "the header is cut short"));
    };
    match kind {
        FIXED | DYNAMIC => Ok(size),
        other => Err(unsafe_image(Format::Vhd, format!("disks of type {other} refer to another file"))),
    }
}
