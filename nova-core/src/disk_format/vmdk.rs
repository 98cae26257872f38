//! VMDK (VMware's "Virtual Disk Format 5.0"), in its two self-contained variants alone.
//!
//! A VMDK is a text that lists extents, each of which may be a path on the host: CVE-2022-47951. Taken are a single sparse
//! file with its text inside, `monolithicSparse` and `streamOptimized`, whose one extent names no directory.

use super::{Block, Format, InspectError, ReadAt, damaged, unsafe_image};

const SECTOR: u64 = 512;
/// The text is a few hundred bytes; VMware reserves 20 sectors for it.
const DESCRIPTOR: usize = 20 * 512;
/// Says that the grain directory's place is told in a footer at the end.
const DIRECTORY_AT_END: u64 = u64::MAX;

/// Does it begin as the text form does, as QEMU's `vmdk_probe` sees it: comments and blank lines, then `version=`?
pub(super) fn looks_like_descriptor(head: &[u8]) -> bool {
    let mut rest = &head[..head.len().min(4096)];
    if rest.starts_with(b"# Disk DescriptorFile") {
        return true;
    }
    while let Some((line, next)) =
        rest.iter().position(|byte| *byte == b'\n').map(|end| (&rest[..end], &rest[end + 1..]))
    {
        let line = line.trim_ascii();
        if line.starts_with(b"version=") {
            return true;
        }
        if !line.is_empty() && !line.starts_with(b"#") {
            return false;
        }
        rest = next;
    }
    false
}

/// Returns the size of the disk in bytes.
pub(super) fn check<R: ReadAt + ?Sized>(data: &R) -> Result<u64, InspectError> {
    let head = Block::<512>::read(data, 0)?;
    if !head.bytes().starts_with(b"KDMV") {
        return Err(unsafe_image(Format::Vmdk, "it is not a single sparse file with its descriptor inside"));
    }
    let header = Header::parse(&head).ok_or_else(|| damaged(Format::Vmdk, "the header is cut short"))?;
    if !(1..=3).contains(&header.version) {
        return Err(unsafe_image(Format::Vmdk, format!("version {} is not supported", header.version)));
    }
    if header.directory == DIRECTORY_AT_END {
        check_footer(data, &header)?;
    }
    check_descriptor(data, &header)?;
    header.capacity.checked_mul(SECTOR).ok_or_else(|| damaged(Format::Vmdk, "the capacity is out of range"))
}

/// The sparse extent header's fields that matter here, in sectors.
#[derive(PartialEq)]
struct Header {
    version: u32,
    capacity: u64,
    descriptor: u64,
    descriptor_size: u64,
    directory: u64,
}

impl Header {
    fn parse(block: &Block<512>) -> Option<Self> {
        Some(Self {
            version: block.u32_le(4)?,
            capacity: block.u64_le(12)?,
            descriptor: block.u64_le(28)?,
            descriptor_size: block.u64_le(36)?,
            directory: block.u64_le(56)?,
        })
    }
}

/// The footer repeats the header, and readers believe the footer: it may differ in nothing but the directory's place.
fn check_footer<R: ReadAt + ?Sized>(data: &R, header: &Header) -> Result<(), InspectError> {
    let wrong = || damaged(Format::Vmdk, "its footer is missing or differs from its header");
    let offset = data.length()?.checked_sub(2 * SECTOR).ok_or_else(wrong)?;
    let block = Block::<512>::read(data, offset)?;
    if !block.bytes().starts_with(b"KDMV") {
        return Err(wrong());
    }
    let footer = Header { directory: header.directory, ..Header::parse(&block).ok_or_else(wrong)? };
    if footer == *header { Ok(()) } else { Err(wrong()) }
}

fn check_descriptor<R: ReadAt + ?Sized>(data: &R, header: &Header) -> Result<(), InspectError> {
    let at =
        header.descriptor.checked_mul(SECTOR).ok_or_else(|| damaged(Format::Vmdk, "the descriptor is out of range"))?;
    let size = header.descriptor_size.checked_mul(SECTOR).and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| at != 0 && (1..=DESCRIPTOR).contains(size)) else {
        return Err(unsafe_image(Format::Vmdk, "its descriptor is missing or too large"));
    };
    let block = Block::<DESCRIPTOR>::read(data, at)?;
    let text = block.bytes().get(..size.min(block.bytes().len())).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| damaged(Format::Vmdk, "the descriptor is not text"))?;
    check_text(text)
}

fn check_text(text: &str) -> Result<(), InspectError> {
    let mut create_type = None;
    let mut extents = 0;
    for line in text.lines().map(str::trim) {
        let lower = line.to_ascii_lowercase();
        let (key, value) = lower.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
        match key {
            "createtype" if create_type.is_none() => create_type = Some(value.trim_matches('"').to_owned()),
            "createtype" => return Err(unsafe_image(Format::Vmdk, "it tells its type twice")),
            "parentcid" if value == "ffffffff" => {}
            "parentcid" | "parentfilenamehint" => return Err(unsafe_image(Format::Vmdk, "it has a parent")),
            _ if is_extent(&lower) => {
                extents += 1;
                check_extent(line)?;
            }
            _ => {}
        }
    }
    match create_type.as_deref() {
        Some("monolithicsparse" | "streamoptimized") => {}
        Some(other) => {
            return Err(unsafe_image(Format::Vmdk, format!("its type is {:?}", other.get(..32).unwrap_or(other))));
        }
        None => return Err(unsafe_image(Format::Vmdk, "it does not tell its type")),
    }
    if extents > 1 {
        return Err(unsafe_image(Format::Vmdk, "it has more than one extent"));
    }
    Ok(())
}

/// Does the line begin with an access, as only extents do?
fn is_extent(lower: &str) -> bool {
    matches!(lower.split_ascii_whitespace().next(), Some("rw" | "rdonly" | "noaccess"))
}

/// `RW 4192256 SPARSE "name.vmdk"`
fn check_extent(line: &str) -> Result<(), InspectError> {
    let kind = line.split_ascii_whitespace().nth(2).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("SPARSE") {
        return Err(unsafe_image(Format::Vmdk, "its extent is not sparse"));
    }
    if line.contains('/') || line.contains('\\') {
        return Err(unsafe_image(Format::Vmdk, "its extent names a directory"));
    }
    Ok(())
}
