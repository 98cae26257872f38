use super::*;
use crate::testing::{guest_spec, instance_id};
use crate::{DiskSource, DiskSpec};

fn options(folder: &Path) -> LibvirtOptions {
    LibvirtOptions::new("qemu:///system", folder)
}

#[test]
fn disks_have_novas_names() {
    let blank = |role| DiskSpec { role, source: DiskSource::Blank, size_gb: 1 };
    let roles = [DiskRole::Root, DiskRole::Ephemeral, DiskRole::Ephemeral, DiskRole::Swap];
    let guest = GuestSpec { disks: roles.map(blank).into(), ..guest_spec(1) };
    let folder = folder_of(&options(Path::new("/instances")), guest.instance);
    let record = DiskRecord { format: DiskFormat::Raw, base: None };
    let files = files_of(&folder, &guest, &Records::from([("disk.eph1".to_owned(), record)]));
    let names: Vec<_> = files.disks.iter().filter_map(|disk| disk.path.file_name()?.to_str()).collect();
    assert_eq!(names, ["disk", "disk.eph0", "disk.eph1", "disk.swap"]);
    let raw: Vec<_> = files.disks.iter().map(|disk| disk.format == DiskFormat::Raw).collect();
    assert_eq!(raw, [false, false, true, false], "the record counts, not the disk");
    assert_eq!(files.disks[0].path, Path::new("/instances/00000000-0000-4000-8000-000000000001/disk"));
    for (index, name) in names.iter().enumerate() {
        let (role, place) = (roles[index], u32::from(index == 2));
        assert_eq!(disk_name(role, place).as_deref(), Some(*name));
    }
}

#[tokio::test]
async fn a_failure_takes_back_what_was_made() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    let source = DiskSource::Image { base: "/no/such/image".into(), format: DiskFormat::Raw };
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 0 }];
    let guest = GuestSpec { disks, ..guest_spec(1) };
    let mut made = Made::default();
    make(&options, &guest, true, &mut made).await.unwrap_err();
    made.undo().await;
    assert!(instances(&options).await.unwrap().is_empty());
}

/// A host that dies while it makes a disk: there is none whose format nobody wrote down, and what was begun is done with next time.
#[tokio::test]
async fn what_a_disk_is_stands_before_it_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(&temp.path().join("instances"));
    let sent = temp.path().join("sent");
    let source = DiskSource::File { path: sent.clone(), format: DiskFormat::Raw };
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 0 }];
    let guest = GuestSpec { disks, ..guest_spec(1) };
    let folder = folder_of(&options, guest.instance);
    let (disk, unwritable) = (folder.join("disk"), folder.join("disk.info.new"));
    std::fs::create_dir_all(&unwritable).unwrap();
    std::fs::write(&sent, [7; 4096]).unwrap();
    // It ends where the record is written; nobody takes anything back.
    make(&options, &guest, true, &mut Made::default()).await.unwrap_err();
    assert!(!disk.exists() && sent.exists(), "a disk without a record");
    std::fs::remove_dir(&unwritable).unwrap();
    std::fs::rename(&sent, temp.path().join("away")).unwrap();
    // It ends where the disk is made.
    make(&options, &guest, true, &mut Made::default()).await.unwrap_err();
    assert_eq!(record::read(&folder).await.unwrap()["disk"].format, DiskFormat::Raw);
    std::fs::rename(temp.path().join("away"), &sent).unwrap();
    make(&options, &guest, true, &mut Made::default()).await.unwrap();
    let files = files_of(&folder, &guest, &record::read(&folder).await.unwrap());
    assert_eq!(files.disks, [DiskFile { path: disk.clone(), format: DiskFormat::Raw }]);
    assert_eq!(std::fs::read(&disk).unwrap(), [7; 4096]);
}

#[tokio::test]
async fn only_folders_of_instances_count() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(&temp.path().join("instances"));
    assert!(instances(&options).await.unwrap().is_empty(), "no folder, no instances");
    for name in ["_base", "locks", "00000000000040008000000000000001", "x.tmp"] {
        std::fs::create_dir_all(options.instances_path.join(name)).unwrap();
    }
    std::fs::create_dir(folder_of(&options, instance_id(7))).unwrap();
    assert_eq!(instances(&options).await.unwrap(), BTreeSet::from([instance_id(7)]));
    remove(&options, instance_id(7)).await.unwrap();
    remove(&options, instance_id(7)).await.unwrap();
    assert!(instances(&options).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_console_is_bounded_and_goes_on_across_files() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    assert!(console(&options, instance_id(1)).await.unwrap().is_empty(), "no log yet");
    let folder = folder_of(&options, instance_id(1));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("console.log.0"), vec![b'a'; 2 << 20]).unwrap();
    std::fs::write(folder.join("console.log"), b"login: ").unwrap();
    let log = console(&options, instance_id(1)).await.unwrap();
    assert_eq!(log.len(), 1 << 20);
    assert!(log.starts_with(b"aaa") && log.ends_with(b"aalogin: "));
}

#[tokio::test]
async fn images_of_guests_and_stashes_are_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let record = |base: &str| DiskRecord { format: DiskFormat::Qcow2, base: Some(base.into()) };
    for (name, base) in
        [("00000000-0000-4000-8000-000000000001", "/a"), ("00000000-0000-4000-8000-000000000002_resize", "/b")]
    {
        let folder = temp.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        record::write(&folder, &Records::from([("disk".to_owned(), record(base))])).await.unwrap();
    }
    std::fs::create_dir(temp.path().join("_base")).unwrap();
    std::fs::write(temp.path().join("file"), b"").unwrap();
    let expected: BTreeSet<PathBuf> = ["/a", "/b"].map(PathBuf::from).into();
    assert_eq!(record::bases(temp.path()).await.unwrap(), expected);
    // Nobody knows what this one stands on: then nothing is known at all.
    std::fs::create_dir(temp.path().join("old")).unwrap();
    std::fs::write(temp.path().join("old/disk"), b"").unwrap();
    record::bases(temp.path()).await.unwrap_err();
}
