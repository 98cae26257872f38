//! Small images of every format, made by hand from the formats' descriptions, to test with.

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The size of the disk that each makes, where the format tells one.
pub const DISK: u64 = 1 << 30;

/// Plain bytes.
pub fn raw() -> Vec<u8> {
    b"just some bytes\n".repeat(4096)
}

/// A disk with a partition table.
pub fn partitioned() -> Vec<u8> {
    let mut image = vec![0; 65_536];
    put(&mut image, 446, &[0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 0xff, 0, 0, 0]);
    put(&mut image, 510, &[0x55, 0xaa]);
    image
}

/// Version 3.
pub fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 65_536 * 3];
    put(&mut image, 0, b"QFI\xfb\0\0\0\x03");
    put(&mut image, 20, &16u32.to_be_bytes());
    put(&mut image, 24, &DISK.to_be_bytes());
    put(&mut image, 36, &1u32.to_be_bytes());
    put(&mut image, 40, &65_536u64.to_be_bytes());
    put(&mut image, 48, &131_072u64.to_be_bytes());
    put(&mut image, 56, &1u32.to_be_bytes());
    put(&mut image, 96, &4u32.to_be_bytes());
    put(&mut image, 100, &112u32.to_be_bytes());
    // The feature name table, as QEMU writes it, and the end.
    put(&mut image, 112, &0x6803_f857u32.to_be_bytes());
    put(&mut image, 116, &48u32.to_be_bytes());
    image
}

/// Version 2.
pub fn qcow2_v2() -> Vec<u8> {
    let mut image = qcow2();
    put(&mut image, 4, &2u32.to_be_bytes());
    put(&mut image, 72, &[0; 200]);
    image
}

/// With one field changed.
pub fn qcow2_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = qcow2();
    put(&mut image, at, bytes);
    image
}

/// A sparse file with that text inside; with the place of its directory told at the end, or not.
pub fn vmdk(descriptor: &str, at_end: bool) -> Vec<u8> {
    let mut image = vec![0; 512 * 64];
    let mut header = vec![0; 512];
    put(&mut header, 0, b"KDMV\x01\0\0\0");
    put(&mut header, 12, &(DISK / 512).to_le_bytes());
    put(&mut header, 20, &128u64.to_le_bytes());
    put(&mut header, 28, &1u64.to_le_bytes());
    put(&mut header, 36, &20u64.to_le_bytes());
    put(&mut header, 44, &512u32.to_le_bytes());
    put(&mut header, 56, &26u64.to_le_bytes());
    let footer = header.clone();
    if at_end {
        put(&mut header, 56, &u64::MAX.to_le_bytes());
        let at = image.len() - 1024;
        put(&mut image, at, &footer);
    }
    put(&mut image, 0, &header);
    put(&mut image, 512, descriptor.as_bytes());
    image
}

/// The text of a VMDK.
pub fn descriptor(kind: &str, extent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=01234567\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n# Extent description\n{extent}\n\n#DDB\nddb.adapterType = \"ide\"\n"
    )
}

/// One that is taken.
pub fn good_vmdk() -> Vec<u8> {
    vmdk(&descriptor("monolithicSparse", "RW 2097152 SPARSE \"disk.vmdk\""), false)
}

/// One that is taken, with a footer.
pub fn streamed_vmdk() -> Vec<u8> {
    vmdk(&descriptor("streamOptimized", "RW 2097152 SPARSE \"disk.vmdk\""), true)
}

fn vhd_footer(kind: u32) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 48, &DISK.to_be_bytes());
    put(&mut footer, 60, &kind.to_be_bytes());
    footer
}

/// Of that type.
pub fn vhd(kind: u32) -> Vec<u8> {
    let mut image = vec![0; 65_536];
    put(&mut image, 0, &vhd_footer(kind));
    put(&mut image, 65_536 - 512, &vhd_footer(kind));
    image
}

/// A disk with a footer behind it.
pub fn fixed_vhd() -> Vec<u8> {
    let mut image = partitioned();
    image.extend(vhd_footer(2));
    image
}

/// With those flags in its file parameters.
pub fn vhdx(flags: u32) -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    put(&mut image, 0, b"vhdxfile");
    for table in [192 * 1024, 256 * 1024] {
        put(&mut image, table, b"regi");
        put(&mut image, table + 8, &1u32.to_le_bytes());
        put(&mut image, table + 16, b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e");
        put(&mut image, table + 32, &(512u64 * 1024).to_le_bytes());
    }
    let base = 512 * 1024;
    put(&mut image, base, b"metadata");
    put(&mut image, base + 10, &2u16.to_le_bytes());
    put(&mut image, base + 32, b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b");
    put(&mut image, base + 48, &65_536u32.to_le_bytes());
    put(&mut image, base + 64, b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8");
    put(&mut image, base + 80, &65_544u32.to_le_bytes());
    put(&mut image, base + 65_540, &flags.to_le_bytes());
    put(&mut image, base + 65_544, &DISK.to_le_bytes());
    image
}

/// Of that type.
pub fn vdi(kind: u32) -> Vec<u8> {
    let mut image = vec![0; 65_536];
    put(&mut image, 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
    put(&mut image, 64, &0xbeda_107fu32.to_le_bytes());
    put(&mut image, 76, &kind.to_le_bytes());
    put(&mut image, 368, &DISK.to_le_bytes());
    image
}

/// A disc.
pub fn iso() -> Vec<u8> {
    let mut image = vec![0; 65_536];
    put(&mut image, 32_768, b"\x01CD001\x01");
    image
}

/// Zeros behind a mark.
pub fn beginning_with(mark: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 65_536];
    put(&mut image, 0, mark);
    image
}

/// One of Apple's.
pub fn dmg() -> Vec<u8> {
    let mut image = vec![7; 65_536];
    put(&mut image, 65_536 - 512, b"koly");
    image
}
