//! Formats that are known by a mark alone, and what is left when there is no mark.

use std::io;

use super::{Block, Format, ReadAt};

/// Marks at the first byte.
const MARKS: &[(&[u8], Format)] = &[
    (b"KDMV", Format::Vmdk),
    (b"COWD", Format::Vmdk),
    (b"conectix", Format::Vhd),
    (b"vhdxfile", Format::Vhdx),
    (b"QED\0", Format::Qed),
    (b"LUKS\xba\xbe", Format::Luks),
    (b"SKUL\xba\xbe", Format::Luks),
    (b"WithoutFreeSpace", Format::Parallels),
    (b"WithouFreSpacExt", Format::Parallels),
    (b"Bochs Virtual HD Image", Format::Bochs),
    (b"#!/bin/sh\n#V2.0 Format\n", Format::Cloop),
    (b"\x1f\x8b", Format::Compressed),
    (b"\xfd7zXZ\0", Format::Compressed),
    (b"\x28\xb5\x2f\xfd", Format::Compressed),
    (b"\x04\x22\x4d\x18", Format::Compressed),
    (b"PK\x03\x04", Format::Compressed),
    (b"7z\xbc\xaf\x27\x1c", Format::Compressed),
];

/// Recognises what the first bytes tell.
pub(super) fn at_the_beginning(head: &[u8]) -> Option<Format> {
    if let Some(rest) = head.strip_prefix(b"QFI\xfb") {
        return Some(if rest.starts_with(&[0, 0, 0, 1]) { Format::Qcow1 } else { Format::Qcow2 });
    }
    if head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY") {
        return Some(Format::Compressed);
    }
    MARKS.iter().find(|(mark, _)| head.starts_with(mark)).map(|(_, format)| *format)
}

/// Apple's disk images end with a block that begins with `koly`.
pub(super) fn has_dmg_trailer<R: ReadAt + ?Sized>(data: &R) -> io::Result<bool> {
    let Some(offset) = data.length()?.checked_sub(512) else { return Ok(false) };
    Ok(Block::<4>::read(data, offset)?.bytes() == b"koly")
}

/// What has no mark of its own: a disc by its volume descriptor, a disk by its partition table, or neither.
pub(super) fn by_structure(head: &[u8]) -> Format {
    if head.get(32_769..32_774).is_some_and(|mark| mark == b"CD001" || mark == b"BEA01") {
        return Format::Iso;
    }
    if head.get(510..512) == Some(&[0x55, 0xaa]) || head.get(512..520) == Some(b"EFI PART") {
        return Format::Partitioned;
    }
    Format::Raw
}
