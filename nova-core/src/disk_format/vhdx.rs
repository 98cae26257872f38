//! VHDX (MS-VHDX): the size of the disk, and whether it has a parent, stand in a table that another table points to.

use super::{Block, Format, InspectError, ReadAt, damaged, unsafe_image};

const REGION_TABLES: [u64; 2] = [192 * 1024, 256 * 1024];
const METADATA_REGION: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const VIRTUAL_DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const HAS_PARENT: u32 = 1 << 1;
const TABLE: usize = 64 * 1024;
const ENTRIES: usize = 2047;

/// Returns the size of the disk in bytes.
pub(super) fn check<R: ReadAt + ?Sized>(data: &R) -> Result<u64, InspectError> {
    // Both copies have to agree: a reader may take either.
    let mut metadata = None;
    for table in REGION_TABLES {
        let block = Block::<TABLE>::read(data, table)?;
        if let Some(found) = metadata_region(&block)
            && metadata.replace(found).is_some_and(|before| before != found)
        {
            return Err(damaged(Format::Vhdx, "its region tables differ"));
        }
    }
    let base = metadata.ok_or_else(|| damaged(Format::Vhdx, "it has no region table"))?;
    let table = Block::<TABLE>::read(data, base)?;
    if !table.bytes().starts_with(b"metadata") {
        return Err(damaged(Format::Vhdx, "it has no metadata table"));
    }
    let item = |guid| metadata_item(&table, guid).and_then(|offset| base.checked_add(u64::from(offset)));
    let parameters = item(FILE_PARAMETERS).ok_or_else(|| damaged(Format::Vhdx, "its parameters are missing"))?;
    let flags = Block::<8>::read(data, parameters)?.u32_le(4);
    match flags {
        Some(flags) if flags & HAS_PARENT == 0 => {}
        Some(_) => return Err(unsafe_image(Format::Vhdx, "it has a parent")),
        None => return Err(damaged(Format::Vhdx, "its parameters are cut short")),
    }
    let size = item(VIRTUAL_DISK_SIZE).ok_or_else(|| damaged(Format::Vhdx, "its size is missing"))?;
    Block::<8>::read(data, size)?.u64_le(0).ok_or_else(|| damaged(Format::Vhdx, "its size is cut short"))
}

fn metadata_region(block: &Block<TABLE>) -> Option<u64> {
    if !block.bytes().starts_with(b"regi") {
        return None;
    }
    let count = (block.u32_le(8)? as usize).min(ENTRIES);
    (0..count)
        .map(|n| 16 + n * 32)
        .find(|at| block.array::<16>(*at) == Some(METADATA_REGION))
        .and_then(|at| block.u64_le(at + 16))
}

fn metadata_item(table: &Block<TABLE>, guid: [u8; 16]) -> Option<u32> {
    let count = usize::from(table.u16_le(10)?).min(ENTRIES);
    (0..count).map(|n| 32 + n * 32).find(|at| table.array::<16>(*at) == Some(guid)).and_then(|at| table.u32_le(at + 16))
}
