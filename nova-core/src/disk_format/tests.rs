//! Every pair of what is declared and what is sent; each advisory on images; and that nothing sent can do harm.

use proptest::prelude::*;

use super::samples::*;
use super::*;

const LIMIT: u64 = DISK * 2;

fn refused(data: &[u8], declared: &str) -> String {
    match inspect(data, declared, LIMIT) {
        Ok(found) => panic!("declared {declared}, taken as {found:?}"),
        Err(error) => error.to_string(),
    }
}

/// Samples by the declarations that they are good for.
fn good() -> Vec<(&'static [&'static str], Format, u64, Vec<u8>)> {
    vec![
        (&["raw", "ami", "aki", "ari"], Format::Raw, 65_536, raw()),
        (&["raw", "ami", "aki", "ari"], Format::Raw, 0, Vec::new()),
        (&["raw", "ami", "aki", "ari"], Format::Partitioned, 65_536, partitioned()),
        (&["qcow2"], Format::Qcow2, DISK, qcow2()),
        (&["qcow2"], Format::Qcow2, DISK, qcow2_v2()),
        (&["vmdk"], Format::Vmdk, DISK, good_vmdk()),
        (&["vmdk"], Format::Vmdk, DISK, streamed_vmdk()),
        (&["vhd"], Format::Vhd, DISK, vhd(3)),
        (&["vhd"], Format::Vhd, DISK, fixed_vhd()),
        (&["vhdx"], Format::Vhdx, DISK, vhdx(0)),
        (&["vdi"], Format::Vdi, DISK, vdi(1)),
        (&["iso"], Format::Iso, 65_536, iso()),
        (&["aki", "ari"], Format::Compressed, 65_536, beginning_with(b"\x1f\x8b\x08")),
        (&[], Format::Qed, 0, beginning_with(b"QED\0")),
        (&[], Format::Qcow1, 0, beginning_with(b"QFI\xfb\0\0\0\x01")),
        (&[], Format::Luks, 0, beginning_with(b"LUKS\xba\xbe\0\x01")),
        (&[], Format::Parallels, 0, beginning_with(b"WithoutFreeSpace")),
        (&[], Format::Dmg, 0, dmg()),
        (&[], Format::Bochs, 0, beginning_with(b"Bochs Virtual HD Image")),
        (&[], Format::Cloop, 0, beginning_with(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop")),
        (&["aki", "ari"], Format::Compressed, 65_536, beginning_with(b"BZh91AY&SY")),
        (&[], Format::Vmdk, 0, beginning_with(b"COWD\x01\0\0\0")),
        (&[], Format::Vmdk, 0, descriptor("monolithicFlat", "RW 2097152 FLAT \"/etc/shadow\" 0").into_bytes()),
    ]
}

/// OSSA-2024-002 (row 3): what is declared must be what is there, in all pairs.
#[test]
fn the_declared_format_must_be_the_real_one() {
    let declarations =
        ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "aki", "ari", "ploop", "qed", "", "RAW"];
    for (taken_as, format, virtual_size, data) in good() {
        assert_eq!(detect(data.as_slice()).unwrap(), format);
        for declared in declarations {
            match inspect(data.as_slice(), declared, LIMIT) {
                Ok(found) => {
                    assert!(taken_as.contains(&declared), "{format:?} taken as {declared}");
                    assert_eq!(found, Inspected { format, virtual_size });
                }
                Err(error) => assert!(!taken_as.contains(&declared), "{format:?} as {declared}: {error}"),
            }
        }
    }
}

/// OSSA-2026-002 (row 1) and its elders: a header that a guest wrote onto its raw disk does not make a raw image.
#[test]
fn a_raw_image_that_begins_like_another_format_is_refused() {
    let text = refused(&qcow2(), "raw");
    assert_eq!(text, "The image is declared as raw, but its data is qcow2.");
}

/// OSSA-2024-001 (row 2): a data file outside, by the feature bit and by the name alone.
#[test]
fn qcow2_with_an_external_data_file_is_refused() {
    assert!(refused(&qcow2_with(72, &4u64.to_be_bytes()), "qcow2").contains("external file"));
    let mut name = 0x4441_5441u32.to_be_bytes().to_vec();
    name.extend(11u32.to_be_bytes());
    name.extend(b"/etc/shadow");
    assert!(refused(&qcow2_with(112, &name), "qcow2").contains("external data file"));
    let mut second = 0x6803_f857u32.to_be_bytes().to_vec();
    second.extend(8u32.to_be_bytes());
    second.extend([0; 8]);
    second.extend(&name);
    assert!(refused(&qcow2_with(112, &second), "qcow2").contains("external data file"), "behind another extension");
}

/// OSSA-2014-009, -2016-001, -2016-007 (row 5): a backing file.
#[test]
fn qcow2_with_a_backing_file_is_refused() {
    for (at, bytes) in [(8, 512u64.to_be_bytes().to_vec()), (16, 11u32.to_be_bytes().to_vec())] {
        assert!(refused(&qcow2_with(at, &bytes), "qcow2").contains("backing file"));
    }
    let mut v2 = qcow2_v2();
    v2[15] = 80;
    assert!(refused(&v2, "qcow2").contains("backing file"));
}

#[test]
fn qcow2_that_nobody_here_understands_is_refused() {
    assert!(refused(&qcow2_with(32, &1u32.to_be_bytes()), "qcow2").contains("encrypted"));
    assert!(refused(&qcow2_with(32, &2u32.to_be_bytes()), "qcow2").contains("encrypted"));
    assert!(refused(&qcow2_with(72, &(1u64 << 5).to_be_bytes()), "qcow2").contains("unknown features"));
    assert!(refused(&qcow2_with(72, &(1u64 << 63).to_be_bytes()), "qcow2").contains("unknown features"));
    assert!(refused(&qcow2_with(72, &2u64.to_be_bytes()), "qcow2").contains("corrupt"));
    assert!(refused(&qcow2_with(4, &4u32.to_be_bytes()), "qcow2").contains("version 4"));
    assert!(refused(&qcow2_with(20, &63u32.to_be_bytes()), "qcow2").contains("cluster size"));
    assert!(refused(&qcow2_with(100, &u32::MAX.to_be_bytes()), "qcow2").contains("header length"));
    assert!(refused(&qcow2_with(116, &u32::MAX.to_be_bytes()), "qcow2").contains("extension"));
    for harmless in [1u64, 8, 16] {
        assert!(inspect(qcow2_with(72, &harmless.to_be_bytes()).as_slice(), "qcow2", LIMIT).is_ok(), "{harmless}");
    }
}

/// OSSA-2023-002 (row 4): only VMDKs that are whole in themselves.
#[test]
fn vmdk_is_taken_in_two_variants_only() {
    let extent = "RW 2097152 SPARSE \"disk.vmdk\"";
    let kinds = [
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "vmfs",
        "vmfsSparse",
        "fullDevice",
        "custom",
        "",
        "partitionedDevice",
        "monolithicSparse\" \"x",
    ];
    for kind in kinds {
        assert!(refused(&vmdk(&descriptor(kind, extent), false), "vmdk").contains("its type"), "{kind}");
    }
    let extents = [
        "RW 2097152 FLAT \"/etc/shadow\" 0",
        "RW 2097152 SPARSE \"/etc/shadow\"",
        "RW 2097152 SPARSE \"..\\\\x\"",
        "rdonly 1 flat \"x\" 0",
        "RW\t1\tFLAT \"x\"",
        "RW 1 SPARSE \"a\"\nRW 1 SPARSE \"b\"",
    ];
    for extent in extents {
        assert!(refused(&vmdk(&descriptor("monolithicSparse", extent), false), "vmdk").contains("extent"), "{extent}");
    }
    let parent = descriptor("monolithicSparse", extent).replace("ffffffff", "01234567");
    assert!(refused(&vmdk(&parent, false), "vmdk").contains("parent"));
    let parent = format!("{}parentFileNameHint=\"/etc/shadow\"\n", descriptor("monolithicSparse", extent));
    assert!(refused(&vmdk(&parent, false), "vmdk").contains("parent"));
    let twice = format!("{}createType=\"monolithicFlat\"\n", descriptor("monolithicSparse", extent));
    assert!(refused(&vmdk(&twice, false), "vmdk").contains("twice"));
    let text = descriptor("monolithicSparse", extent).into_bytes();
    assert!(refused(&text, "vmdk").contains("descriptor inside"));
}

#[test]
fn a_vmdk_footer_may_not_tell_another_story() {
    let mut image = streamed_vmdk();
    let at = image.len() - 1024 + 28;
    image[at] = 5;
    assert!(refused(&image, "vmdk").contains("footer"));
    let mut image = streamed_vmdk();
    let at = image.len() - 1024;
    image[at] = 0;
    assert!(refused(&image, "vmdk").contains("footer"));
}

#[test]
fn vmdk_text_is_recognised_behind_comments() {
    for text in ["# x\n\n  \n# y\nversion=3\nRW 1 FLAT \"/etc/shadow\" 0\n", "version=1\r\n"] {
        assert_eq!(detect(text.as_bytes()).unwrap(), Format::Vmdk, "{text}");
        refused(text.as_bytes(), "raw");
    }
}

#[test]
fn disks_with_parents_are_refused_in_every_format() {
    assert!(refused(&vhd(4), "vhd").contains("refer to another file"));
    assert!(refused(&vhdx(2), "vhdx").contains("parent"));
    assert!(refused(&vdi(4), "vdi").contains("refer to another file"));
    assert!(refused(&vdi(3), "vdi").contains("refer to another file"));
}

#[test]
fn two_tales_of_one_disk_are_refused() {
    let mut image = vhd(3);
    let at = image.len() - 512 + 50;
    image[at] = 1;
    assert!(refused(&image, "vhd").contains("differs"));
    let mut image = vhdx(0);
    image[256 * 1024 + 34] = 9;
    assert!(refused(&image, "vhdx").contains("differ"));
}

/// OSSA-2013-012, -2013-029 (row 7): a few bytes that make a huge disk.
#[test]
fn huge_disks_are_refused() {
    let huge = u64::MAX.to_be_bytes();
    assert!(matches!(inspect(qcow2_with(24, &huge).as_slice(), "qcow2", LIMIT), Err(InspectError::TooLarge { .. })));
    assert!(matches!(inspect(qcow2().as_slice(), "qcow2", DISK - 1), Err(InspectError::TooLarge { .. })));
    assert!(inspect(qcow2().as_slice(), "qcow2", DISK).is_ok());
    let mut image = good_vmdk();
    image[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused(&image, "vmdk").contains("capacity"));
}

/// Counts what is read.
struct Counted<'a>(&'a [u8], std::cell::Cell<usize>);

impl ReadAt for Counted<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.set(self.1.get() + buffer.len());
        self.0.read_at(offset, buffer)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// OSSA-2016-012 (row 6): no number in the data makes the inspector read more.
#[test]
fn what_is_read_is_bounded() {
    for (_, _, _, data) in good() {
        let mut hostile = data.clone();
        // Every field after the mark at its most.
        let end = hostile.len().min(4096);
        hostile.iter_mut().take(end).skip(16).for_each(|byte| *byte = 0xff);
        for data in [data, hostile] {
            for declared in ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"] {
                let counted = Counted(&data, Default::default());
                let _ = inspect(&counted, declared, LIMIT);
                assert!(counted.1.get() <= HEAD + 4 * 65_536, "{declared} {}", counted.1.get());
            }
        }
    }
}

#[test]
fn data_that_is_cut_short_is_refused_quietly() {
    for (taken_as, format, _, data) in good() {
        if matches!(format, Format::Raw | Format::Partitioned | Format::Iso | Format::Compressed) {
            continue;
        }
        for length in (0..data.len().min(600)).chain([4096, 65_535]) {
            for declared in taken_as {
                let _ = inspect(&data[..length.min(data.len())], declared, LIMIT);
            }
        }
    }
    for length in [8, 71, 103] {
        assert!(refused(&qcow2()[..length], "qcow2").contains("damaged"), "{length}");
    }
}

fn sample() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> = good().into_iter().map(|(_, _, _, data)| data).collect();
    proptest::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes changed anywhere in a good image: never a panic, and never an answer beyond the limit.
    #[test]
    fn damaged_images_do_no_harm(
        mut data in sample(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..32),
        length in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        for (place, byte, in_header) in changes {
            if !data.is_empty() {
                let within = if in_header { data.len().min(600) } else { data.len() };
                let at = place.index(within);
                data[at] = byte;
            }
        }
        if let Some(length) = length {
            data.truncate(length.index(data.len() + 1));
        }
        for declared in ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "aki"] {
            if let Ok(found) = inspect(data.as_slice(), declared, LIMIT) {
                prop_assert!(found.virtual_size <= LIMIT);
                prop_assert!(may_be(declared, found.format));
            }
        }
    }

    /// Bytes that were never an image.
    #[test]
    fn noise_does_no_harm(mark in proptest::sample::select(vec![&b"QFI\xfb"[..], b"KDMV", b"conectix", b"vhdxfile", b"#", b""]), rest in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let data = [mark, &rest].concat();
        for declared in ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"] {
            let _ = inspect(data.as_slice(), declared, LIMIT);
        }
    }
}
