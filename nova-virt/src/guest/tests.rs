use nova_core::topology::{PlacedCell, Placement};

use super::*;
use crate::ErrorKind;
use crate::testing::guest_spec;

fn problem_field(spec: &GuestSpec) -> String {
    match spec.validate() {
        Err(HypervisorError::InvalidInput { field, .. }) => field,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_plain_spec_is_accepted() {
    guest_spec(1).validate().unwrap();
}

#[test]
fn names_that_could_leave_their_place_are_refused() {
    for name in ["", "../x", "a/b", "-o", "a b", "é", "a\0", &"a".repeat(65)] {
        let spec = GuestSpec { name: name.into(), ..guest_spec(1) };
        assert_eq!(problem_field(&spec), "name", "{name:?}");
    }
}

#[test]
fn empty_guests_are_refused() {
    assert_eq!(problem_field(&GuestSpec { vcpus: 0, ..guest_spec(1) }), "vcpus");
    assert_eq!(problem_field(&GuestSpec { memory_mb: 0, ..guest_spec(1) }), "memory_mb");
    assert_eq!(problem_field(&GuestSpec { memory_mb: u64::MAX, ..guest_spec(1) }), "memory_mb");
}

#[test]
fn disks_that_make_no_sense_are_refused() {
    let blank = |role, size_gb| DiskSpec { role, source: DiskSource::Blank, size_gb };
    let with = |disks| GuestSpec { disks, ..guest_spec(1) };
    assert_eq!(problem_field(&with(vec![blank(DiskRole::Root, 1), blank(DiskRole::Root, 1)])), "disks");
    assert_eq!(problem_field(&with(vec![blank(DiskRole::Ephemeral, 1); 27])), "disks");
    assert_eq!(problem_field(&with(vec![blank(DiskRole::Root, 0)])), "disks[0].size_gb");
    assert_eq!(problem_field(&with(vec![blank(DiskRole::Root, u64::MAX)])), "disks[0].size_gb");
    let relative = DiskSource::Image { base: "image".into(), format: DiskFormat::Raw };
    let disks = vec![DiskSpec { role: DiskRole::Root, source: relative, size_gb: 1 }];
    assert_eq!(problem_field(&with(disks)), "disks[0].source");
}

#[test]
fn config_drive_files_stay_inside_the_drive() {
    for path in ["", "/etc/passwd", "a/../../b", "..", "a//b", "./a", "a\0b"] {
        let files = BTreeMap::from([(path.to_owned(), Vec::new())]);
        let error = ConfigDrive { files }.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
    }
}

#[test]
fn placements_that_leave_a_cpu_or_memory_out_are_refused() {
    let cell = |cpus: &[u32], memory_mb| PlacedCell {
        cpus: cpus.iter().copied().collect(),
        floats: [7].into(),
        memory_mb,
        ..PlacedCell::default()
    };
    let with = |cells: Vec<PlacedCell>| GuestSpec { vcpus: 2, placement: Some(Placement { cells }), ..guest_spec(1) };
    with(vec![cell(&[0], 32), cell(&[1], 32)]).validate().unwrap();
    let pins = PlacedCell { pins: [(0, 4)].into(), ..cell(&[0, 1], 64) };
    let nothing = PlacedCell { floats: Default::default(), ..cell(&[0, 1], 64) };
    for cells in [
        vec![],
        vec![cell(&[0], 64)],
        vec![cell(&[0, 1], 32), cell(&[1], 32)],
        vec![cell(&[0, 1, 2], 64)],
        vec![cell(&[0, 1], 63)],
        vec![pins],
        vec![nothing],
    ] {
        assert_eq!(problem_field(&with(cells.clone())), "placement", "{cells:?}");
    }
}
