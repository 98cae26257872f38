//! Disks that a tenant has written what it wants to (each test names its advisories).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nova_core::disk_format::samples;
use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{
    ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, ExportRequest, GuestSpec, Hypervisor,
    LibvirtHypervisor, LibvirtOptions, Preallocate, Quiesce, RescueSpec, SnapshotRequest,
};

use super::{ROOM, folder, open, options, run, uri};

/// Images that are none of those that they are said to be, or that name other files.
fn hostile() -> Vec<(Vec<u8>, DiskFormat)> {
    vec![
        (samples::qcow2(), DiskFormat::Raw),
        (samples::raw(), DiskFormat::Qcow2),
        (samples::qcow2_with(8, &512u64.to_be_bytes()), DiskFormat::Qcow2),
        (samples::qcow2_with(72, &4u64.to_be_bytes()), DiskFormat::Qcow2),
        (samples::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/shadow\" 0").into_bytes(), DiskFormat::Raw),
        (samples::good_vmdk(), DiskFormat::Raw),
        (samples::vdi(1), DiskFormat::Raw),
    ]
}

/// OSSA-2014-009, -2016-001, -2016-007, -2024-001, -2024-002, -2023-002 (rows 2 to 5): every path by which a file becomes a
/// disk looks at it first, and a refusal leaves everything as it was.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn no_path_takes_a_hostile_image() {
    let (hypervisor, (folder, _room)) = open().await;
    let guest = guest_spec(0x510);
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let path = folder.path().join("image");
    for (bytes, format) in hostile() {
        std::fs::write(&path, &bytes).unwrap();
        let image = DiskSource::Image { base: path.clone(), format };
        let file = DiskSource::File { path: path.clone(), format };
        let with = |number, epoch, source: &DiskSource| {
            let disks = vec![DiskSpec { role: DiskRole::Root, source: source.clone(), size_gb: 1 }];
            GuestSpec { epoch, disks, ..guest_spec(number) }
        };
        let rescue = RescueSpec { image: image.clone(), stable: None, config_drive: None };
        let refused = [
            hypervisor.spawn(&with(0x511, 1, &image)).await,
            hypervisor.spawn(&with(0x511, 1, &file)).await,
            hypervisor.rebuild(&with(0x510, 2, &image), false).await,
            hypervisor.rescue(id, &rescue).await,
            hypervisor.prepare_incoming(&with(0x511, 1, &image)).await.map(drop),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "path {number}, declared {format:?}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is where it was");
        let info = hypervisor.info(id).await.unwrap();
        assert_eq!((info.epoch, info.power_state), (1, PowerState::Running));
        assert!(!folder.path().join(guest_spec(0x511).instance.to_string()).exists());
    }
    hypervisor.destroy(id).await.unwrap();
}

/// What a guest can write onto the beginning of its disk: a qcow2 header that names a file of the host, which is made there, and
/// makes a disk of the size that the guest's has.
pub(super) fn header_that_names_a_file(folder: &Path) -> Vec<u8> {
    let (secret, evil) = (folder.join("secret"), folder.join("evil"));
    std::fs::write(&secret, [b'S'; 1 << 20]).unwrap();
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&secret), text(&evil), "1G"]);
    std::fs::read(&evil).unwrap()
}

/// As the guest would, from inside.
pub(super) fn write_at_the_beginning(disk: &Path, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
}

/// That a copy of its disk has what the guest wrote, stands alone, and has nothing of the host's file.
pub(super) fn assert_only_bytes(copy: &Path, format: DiskFormat, header: &[u8]) {
    let raw = copy.with_extension("as-raw");
    if format == DiskFormat::Qcow2 {
        let told = run("qemu-img", &["info", "-f", "qcow2", "--output", "json", text(copy)]);
        assert!(!told.contains("backing-filename"), "{copy:?} stands on another file: {told}");
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(copy), text(&raw)]);
    } else {
        std::fs::rename(copy, &raw).unwrap();
    }
    let mut bytes = vec![0; 2 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&raw).unwrap(), &mut bytes, 0).unwrap();
    std::fs::remove_file(&raw).unwrap();
    assert!(bytes.starts_with(header), "{copy:?}: the bytes are not the guest's own");
    assert!(!bytes.windows(64).step_by(64).any(|window| window == [b'S'; 64]), "{copy:?} has the host's file");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// OSSA-2026-002, -2016-001 (rows 1 and 5): a guest writes a qcow2 header that names a file of the host onto its raw disk. It
/// stays a raw disk: for the next start, for images of it, for shelving, for another host.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_header_on_a_raw_disk_is_just_bytes() {
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let flat = LibvirtOptions { use_cow_images: false, ..options(uri(), folder.path()) };
    let hypervisor = LibvirtHypervisor::new(flat).unwrap();
    let guest = GuestSpec { running: false, ..guest_spec(0x512) };
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let header = header_that_names_a_file(folder.path());
    write_at_the_beginning(&folder.path().join(id.to_string()).join("disk"), &header);
    let snapshots = async |state: &str| {
        for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
            let destination = folder.path().join(format!("{state}-{}", format.as_str()));
            let request = SnapshotRequest { destination, format, quiesce: Quiesce::default() };
            hypervisor.snapshot(id, &request).await.unwrap();
            assert_only_bytes(&request.destination, format, &header);
        }
    };
    let exports = async |state: &str| {
        for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
            let destination = folder.path().join(format!("{state}-{}", format.as_str()));
            let request = ExportRequest { role: DiskRole::Root, index: 0, destination, format };
            hypervisor.export_disk(id, &request).await.unwrap();
            assert_only_bytes(&request.destination, format, &header);
        }
    };
    hypervisor.power_on(id).await.unwrap();
    snapshots("live").await;
    hypervisor.pause(id).await.unwrap();
    snapshots("paused").await;
    hypervisor.power_off(id, None).await.unwrap();
    snapshots("off").await;
    exports("exported").await;
    hypervisor.stash(id, 2).await.unwrap();
    exports("stashed").await;
    // Its definition is made anew, and it runs.
    hypervisor.unstash(&GuestSpec { epoch: 3, ..guest }).await.unwrap();
    hypervisor.power_on(id).await.unwrap();
    snapshots("taken-back").await;
    hypervisor.stash(id, 4).await.unwrap();
    // Said to be raw it is refused where it would enter again: nobody after us is to guess, either.
    let destination = folder.path().join("sent");
    let export = ExportRequest { role: DiskRole::Root, index: 0, destination, format: DiskFormat::Raw };
    hypervisor.export_disk(id, &export).await.unwrap();
    let file = DiskSource::File { path: export.destination, format: DiskFormat::Raw };
    let disks = vec![DiskSpec { role: DiskRole::Root, source: file, size_gb: 1 }];
    let other = GuestSpec { disks, ..guest_spec(0x513) };
    assert_eq!(hypervisor.spawn(&other).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    hypervisor.drop_stash(id).await.unwrap();
}

/// OSSA-2014-003, -2012-020 (row 11): what another tenant has left on the host's disk is in no new disk.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn new_disks_read_as_zeros() {
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    for use_cow_images in [true, false] {
        let own = LibvirtOptions { use_cow_images, ..options(uri(), folder.path()) };
        let hypervisor = LibvirtHypervisor::new(own).unwrap();
        let guest = GuestSpec { running: false, ..guest_spec(0x514) };
        let id = guest.instance;
        hypervisor.destroy(id).await.unwrap();
        // What is unfinished may be another's, from before a crash.
        let left = folder.path().join(id.to_string());
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("disk.new"), vec![b'C'; 4 << 20]).unwrap();
        hypervisor.spawn(&guest).await.unwrap();
        let destination = folder.path().join(format!("copy-{use_cow_images}"));
        hypervisor
            .snapshot(
                id,
                &SnapshotRequest {
                    destination: destination.clone(),
                    format: DiskFormat::Raw,
                    quiesce: Quiesce::default(),
                },
            )
            .await
            .unwrap();
        assert!(is_all_zeros(&destination), "canary in a new disk");
        hypervisor.destroy(id).await.unwrap();
    }
}

/// `preallocate_images`: the room of a disk is the guest's from the beginning. `use_cow_images` off: a root disk stands on no
/// other file.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn disks_have_their_room_and_stand_alone_if_they_shall() {
    use std::os::unix::fs::MetadataExt;
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let base = folder.path().join("base");
    run("qemu-img", &["create", "-q", "-f", "qcow2", base.to_str().unwrap(), "8M"]);
    for (use_cow_images, preallocate_images) in
        [(true, Preallocate::None), (false, Preallocate::None), (true, Preallocate::Space), (false, Preallocate::Space)]
    {
        let own = LibvirtOptions { use_cow_images, preallocate_images, ..options(uri(), folder.path()) };
        let hypervisor = LibvirtHypervisor::new(own).unwrap();
        let source = DiskSource::Image { base: base.clone(), format: DiskFormat::Qcow2 };
        let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }];
        let guest = GuestSpec { running: false, disks, ..guest_spec(0x517) };
        hypervisor.destroy(guest.instance).await.unwrap();
        hypervisor.spawn(&guest).await.unwrap();
        let disk = folder.path().join(guest.instance.to_string()).join("disk");
        let room = std::fs::metadata(&disk).unwrap().blocks() * 512;
        let whole = preallocate_images == Preallocate::Space;
        assert_eq!(room >= 1 << 30, whole, "{use_cow_images} {preallocate_images:?}: {room} bytes");
        let format = if use_cow_images { "qcow2" } else { "raw" };
        let told = run("qemu-img", &["info", "-f", format, "--output", "json", disk.to_str().unwrap()]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["virtual-size"], 1u64 << 30);
        assert_eq!(told["backing-filename"].is_string(), use_cow_images, "{told}");
        let bases = hypervisor.images_in_use().await.unwrap();
        assert_eq!(bases.contains(&base), use_cow_images, "{bases:?}");
        hypervisor.destroy(guest.instance).await.unwrap();
    }
}

/// `force_raw_images`: a qcow2 image becomes the bytes of its disk; what is none, or makes more than it may, is refused.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn images_are_converted_to_raw_ones() {
    let (hypervisor, (folder, _room)) = open().await;
    let (raw, image, made) = (folder.path().join("raw"), folder.path().join("image"), folder.path().join("made"));
    std::fs::write(&raw, [vec![7; 1 << 20], vec![0; 7 << 20]].concat()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &text(&raw), &text(&image)]);
    hypervisor.convert_image(&image, DiskFormat::Qcow2, &made, 8 << 20).await.unwrap();
    assert_eq!(std::fs::read(&made).unwrap(), std::fs::read(&raw).unwrap());
    let small = hypervisor.convert_image(&image, DiskFormat::Qcow2, &folder.path().join("x"), 7 << 20).await;
    assert_eq!(small.unwrap_err().kind(), ErrorKind::InvalidInput);
    for (bytes, format) in hostile() {
        std::fs::write(&image, &bytes).unwrap();
        let refused = hypervisor.convert_image(&image, format, &folder.path().join("x"), u64::MAX).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput, "{format:?}");
    }
    assert!(!folder.path().join("x").exists());
}

fn is_all_zeros(path: &Path) -> bool {
    use std::io::Read;
    let mut file = std::fs::File::open(path).unwrap();
    let (mut piece, zeros) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return true,
            count if piece[..count] != zeros[..count] => return false,
            _ => {}
        }
    }
}

/// OSSA-2014-001 (row 26): nobody else on the host reads a guest's disks, or what is made on the way.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn folders_and_files_are_private() {
    let (hypervisor, (folder, _room)) = open().await;
    let files = [("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())].into();
    let guest = GuestSpec { config_drive: Some(ConfigDrive { files }), running: false, ..guest_spec(0x515) };
    hypervisor.destroy(guest.instance).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let request = SnapshotRequest {
        destination: folder.path().join("copy"),
        format: DiskFormat::Qcow2,
        quiesce: Quiesce::default(),
    };
    hypervisor.snapshot(guest.instance, &request).await.unwrap();
    let own = folder.path().join(guest.instance.to_string());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&own), 0o700);
    assert_eq!(mode(&request.destination), 0o600);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&own).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["console.log", "disk", "disk.config", "disk.info", "host"], "and nothing is left");
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// OSSA-2012-008 and its kin (row 25): what is put into a guest comes on a drive; a name on it can't lead anywhere.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn files_for_a_guest_stay_on_its_drive() {
    let (hypervisor, (folder, _room)) = open().await;
    let id = guest_spec(0x516).instance;
    hypervisor.destroy(id).await.unwrap();
    for name in ["../../escaped", "/escaped", "a/../../escaped", ""] {
        let files = [(name.to_owned(), b"x".to_vec())].into();
        let guest = GuestSpec { config_drive: Some(ConfigDrive { files }), ..guest_spec(0x516) };
        assert_eq!(hypervisor.spawn(&guest).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
