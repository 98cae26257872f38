//! Live migration between two libvirts of this machine.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{
    ConfigDrive, DiskAttachment, DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, GuestSpec, Hypervisor,
    LibvirtHypervisor, LibvirtOptions, LiveMigration, Quiesce, RebootKind, SnapshotRequest,
};
use tokio::sync::SemaphorePermit;

use super::boot::console;
use super::daemon::Daemon;
use super::disks::{assert_only_bytes, header_that_names_a_file, write_at_the_beginning};
use super::serial::typed_is_logged;
use super::volumes::Server;
use super::{PATIENCE, ROOM};

static PAIRS: AtomicU32 = AtomicU32::new(0);

type Kept = (Daemon, Daemon, SemaphorePermit<'static>);

/// Two drivers, each of a libvirt with an address of its own.
async fn two() -> (LibvirtHypervisor, LibvirtHypervisor, Kept) {
    two_in(None).await
}

/// The same, with guests' folders of their own, or with a folder that they share.
async fn two_in(shared: Option<&Path>) -> (LibvirtHypervisor, LibvirtHypervisor, Kept) {
    let room = ROOM.acquire().await.unwrap();
    let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
    let host = |number: u32| {
        // Other tests, and other runs of this one, have others.
        let pid = std::process::id();
        let address = format!("127.{}.{}.{}", 64 + pid / 256 % 128, pid % 256, 1 + 2 * pair + number);
        let daemon = Daemon::start_at(&format!("host{number}"), &address);
        let mut own = daemon.options();
        (own.host, own.live_migration_inbound_addr) = (format!("host{number}"), address.clone());
        own.vnc_listen = address;
        if let Some(shared) = shared {
            own.instances_path = shared.to_owned();
        }
        (LibvirtHypervisor::new(own).unwrap(), daemon)
    };
    let ((one, first), (other, second)) = (host(0), host(1));
    (one, other, (first, second, room))
}

mod contract {
    nova_virt::live_migration_conformance!(super::two(), ignore = "needs NOVA_TEST_LIBVIRT_URI");
}

fn how(to: nova_virt::IncomingAddress) -> LiveMigration {
    let max_downtime = Duration::from_millis(500);
    LiveMigration { to, block: true, bandwidth: None, max_downtime, auto_converge: false, post_copy: false }
}

/// A migration that takes for ever shows how far it is, and is ended by an abort, a deletion, or by force.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_slow_migration_is_watched_and_ended() {
    let (one, other, _kept) = two().await;
    let one = Arc::new(one);
    let guest = GuestSpec { memory_mb: 256, ..guest_spec(0x520) };
    let id = guest.instance;
    one.spawn(&guest).await.unwrap();
    let to = other.prepare_incoming(&GuestSpec { epoch: 2, ..guest.clone() }).await.unwrap();
    // Disks first: a GiB of nothing at a MiB per second takes longer than anyone waits.
    let slow = LiveMigration { bandwidth: Some(1 << 20), ..how(to) };
    let begin = || {
        let (one, slow) = (one.clone(), slow.clone());
        tokio::spawn(async move { one.live_migrate(id, &slow).await })
    };
    let begun = async {
        loop {
            if let Ok(Some(progress)) = one.migration_progress(id).await
                && progress.disk_total > 0
            {
                return progress;
            }
        }
    };
    let moving = begin();
    let progress = tokio::time::timeout(PATIENCE, begun).await.unwrap();
    assert!(progress.disk_total >= 1 << 30 && progress.disk_remaining <= progress.disk_total, "{progress:?}");
    one.abort_migration(id).await.unwrap();
    moving.await.unwrap().unwrap_err();
    assert_eq!(one.info(id).await.unwrap().power_state, PowerState::Running);
    assert_eq!(one.migration_progress(id).await.unwrap(), None);
    assert_eq!(other.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);

    let moving = begin();
    let begun =
        async { while !matches!(one.migration_progress(id).await, Ok(Some(progress)) if progress.disk_total > 0) {} };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    one.destroy(id).await.unwrap();
    moving.await.unwrap().unwrap_err();
    other.destroy(id).await.unwrap();
    for hypervisor in [&*one, &other] {
        assert!(hypervisor.list().await.unwrap().iter().all(|guest| guest.instance != id), "delete wins");
    }
}

/// What a guest left behind that was sent away is as old as its leaving: nothing of it is in what it comes back to.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn what_was_left_behind_is_not_what_it_comes_back_to() {
    const CANARY: &[u8] = b"left behind";
    let (one, other, _kept) = two().await;
    let guest = guest_spec(0x524);
    let id = guest.instance;
    let left = one.options().instances_path.join(id.to_string()).join("disk");
    for spawned in [false, true] {
        one.spawn(&guest).await.unwrap();
        let newer = GuestSpec { epoch: 2, ..guest.clone() };
        let to = other.prepare_incoming(&newer).await.unwrap();
        one.live_migrate(id, &how(to)).await.unwrap();
        other.adopt_incoming(&newer).await.unwrap();
        assert!(left.exists(), "it is removed by who knows that the guest is there");
        std::fs::write(&left, CANARY).unwrap();
        let back = GuestSpec { epoch: 3, ..guest.clone() };
        if spawned {
            // As an evacuation does.
            other.destroy(id).await.unwrap();
            one.spawn(&back).await.unwrap();
        } else {
            let to = one.prepare_incoming(&back).await.unwrap();
            assert_ne!(std::fs::read(&left).unwrap(), CANARY);
            other.live_migrate(id, &how(to)).await.unwrap();
            one.adopt_incoming(&back).await.unwrap();
            other.destroy(id).await.unwrap();
        }
        assert_ne!(std::fs::read(&left).unwrap(), CANARY);
        assert_eq!(one.info(id).await.unwrap().power_state, PowerState::Running);
        one.destroy(id).await.unwrap();
    }
}

/// OSSA-2016-001 (row 5): a raw disk with a qcow2 header on it, which names a file that the other host has, too, is sent as bytes;
/// and a disk that was left there by an earlier guest is none that waits for this one.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_header_on_a_raw_disk_goes_along_as_bytes() {
    let (one, other, _kept) = two().await;
    let flat = |host: &LibvirtHypervisor| {
        LibvirtHypervisor::new(LibvirtOptions { use_cow_images: false, ..host.options().clone() }).unwrap()
    };
    let (one, other) = (flat(&one), flat(&other));
    let files = super::folder();
    let header = header_that_names_a_file(files.path());
    let guest = GuestSpec { running: false, ..guest_spec(0x52e) };
    let id = guest.instance;
    let disk = |host: &LibvirtHypervisor| host.options().instances_path.join(id.to_string()).join("disk");
    // As a deletion leaves it that was broken off.
    other.spawn(&guest).await.unwrap();
    let left = std::fs::read(disk(&other).with_file_name("disk.info")).unwrap();
    other.destroy(id).await.unwrap();
    std::fs::create_dir(disk(&other).parent().unwrap()).unwrap();
    std::fs::write(disk(&other).with_file_name("disk.info"), left).unwrap();
    std::fs::write(disk(&other), &header).unwrap();

    one.spawn(&guest).await.unwrap();
    write_at_the_beginning(&disk(&one), &header);
    one.power_on(id).await.unwrap();
    let newer = GuestSpec { epoch: 2, running: true, ..guest.clone() };
    let to = other.prepare_incoming(&newer).await.unwrap();
    assert!(!std::fs::read(disk(&other)).unwrap().starts_with(&header), "it was left there");
    one.live_migrate(id, &how(to)).await.unwrap();
    other.adopt_incoming(&newer).await.unwrap();
    for state in ["live", "started", "off"] {
        match state {
            "started" => other.reboot(id, RebootKind::Hard).await.unwrap(),
            "off" => other.power_off(id, None).await.unwrap(),
            _ => {}
        }
        let (destination, format) = (files.path().join(state), DiskFormat::Raw);
        let copy = SnapshotRequest { destination, format, quiesce: Quiesce::default() };
        other.snapshot(id, &copy).await.unwrap();
        assert_only_bytes(&copy.destination, format, &header);
    }
    one.destroy(id).await.unwrap();
    other.destroy(id).await.unwrap();
}

/// What a guest wrote before it was sent is read where it was, and stands before what it writes where it went.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn what_it_wrote_goes_along() {
    const SAID: &str = "said before it left\n";
    let (one, other, _kept) = two().await;
    let guest = guest_spec(0x52c);
    let id = guest.instance;
    one.spawn(&guest).await.unwrap();
    let log = |host: &LibvirtHypervisor| host.options().instances_path.join(id.to_string()).join("console.log");
    std::fs::OpenOptions::new().append(true).open(log(&one)).unwrap().write_all(SAID.as_bytes()).unwrap();
    let newer = GuestSpec { epoch: 2, ..guest.clone() };
    let to = other.prepare_incoming(&newer).await.unwrap();
    one.live_migrate(id, &how(to)).await.unwrap();
    let said = String::from_utf8(one.console_log(id).await.unwrap()).unwrap();
    assert!(said.contains(SAID), "{said:?}");
    let newer = GuestSpec { earlier_console: said, ..newer };
    for _ in 0..2 {
        other.adopt_incoming(&newer).await.unwrap();
    }
    std::fs::OpenOptions::new().append(true).open(log(&other)).unwrap().write_all(b"said here\n").unwrap();
    other.reboot(id, RebootKind::Hard).await.unwrap();
    let said = String::from_utf8(other.console_log(id).await.unwrap()).unwrap();
    assert!(said.starts_with(SAID) && said.contains("said here") && said.matches(SAID).count() == 1, "{said:?}");
    one.destroy(id).await.unwrap();
    assert_eq!(one.console_log(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    other.destroy(id).await.unwrap();
    assert!(!log(&other).exists());
}

/// Hosts that share the folder of guests send no disks, and none of them touches what is another one's: not when it looks for
/// traces, not when it is told to remove what it has.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn disks_that_both_hosts_see_stay_where_they_are() {
    let shared = super::folder();
    let (one, other, _kept) = two_in(Some(shared.path())).await;
    let guest = guest_spec(0x525);
    let id = guest.instance;
    one.spawn(&guest).await.unwrap();
    let disk = shared.path().join(id.to_string()).join("disk");
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&disk).unwrap());
    let before = inode();
    assert!(other.list().await.unwrap().is_empty(), "it is no trace of that host's");
    other.destroy(id).await.unwrap();
    let refused = other.spawn(&GuestSpec { epoch: 2, ..guest.clone() }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Failed, "the disk has one user");
    let (mut from, mut to) = (&one, &other);
    for epoch in [2, 4] {
        let newer = GuestSpec { epoch, ..guest.clone() };
        assert!(to.prepare_incoming(&newer).await.unwrap().shared_disks);
        // It is not to come after all.
        to.destroy(id).await.unwrap();
        let newer = GuestSpec { epoch: epoch + 1, ..guest.clone() };
        let address = to.prepare_incoming(&newer).await.unwrap();
        let memory = LiveMigration { block: false, ..how(address) };
        from.live_migrate(id, &memory).await.unwrap();
        from.live_migrate(id, &memory).await.expect("it has left");
        to.adopt_incoming(&newer).await.unwrap();
        assert_eq!(to.info(id).await.unwrap().power_state, PowerState::Running);
        assert!(from.list().await.unwrap().is_empty());
        from.destroy(id).await.unwrap();
        assert_eq!(inode(), before, "no copy of it");
        (from, to) = (to, from);
    }
    from.stash(id, 6).await.unwrap();
    assert!(to.list_stashes().await.unwrap().is_empty());
    to.drop_stash(id).await.unwrap();
    assert_eq!(from.list_stashes().await.unwrap().len(), 1);
    from.drop_stash(id).await.unwrap();
    assert_eq!(std::fs::read_dir(shared.path()).unwrap().count(), 0);
}

/// How far a guest has counted that writes `tick=N.`
fn ticks_of(log: &str) -> u32 {
    log.split("tick=").filter_map(|rest| rest.split_once('.')?.0.parse().ok()).max().unwrap_or(0)
}

/// A guest that writes to its memory faster than it is sent does not arrive by itself. Forced, it does: halted until the rest is
/// there; or, where it may, running, while its memory follows. It is the same guest, which runs on.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_busy_guest_arrives_when_it_is_forced() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let shared = super::folder();
    let (one, other, _kept) = two_in(Some(shared.path())).await;
    let (mut from, mut to) = (Arc::new(one), Arc::new(other));
    let script = "#!/bin/sh\n( dd if=/dev/urandom of=/tmp/x bs=1M count=24 2>/dev/null; \
        (while :; do cat /tmp/x >/tmp/y; done) & \
        n=0; while :; do n=$((n+1)); echo tick=$n.; sleep 1; done ) >/dev/console 2>&1 &\n";
    let files = [
        ("openstack/latest/meta_data.json".to_owned(), b"{\"hostname\": \"busy.example\"}".to_vec()),
        ("openstack/latest/user_data".to_owned(), script.as_bytes().to_vec()),
    ];
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }];
    let config_drive = Some(ConfigDrive { files: files.into() });
    let guest = GuestSpec { memory_mb: 256, disks, config_drive, ..guest_spec(0x527) };
    let id = guest.instance;
    from.spawn(&guest).await.unwrap();
    console(&from, id, "tick=3.", 1).await;
    for (epoch, post_copy) in [(2, false), (3, true)] {
        let newer = GuestSpec { epoch, ..guest.clone() };
        let address = to.prepare_incoming(&newer).await.unwrap();
        let (bandwidth, max_downtime) = (Some(8 << 20), Duration::from_millis(100));
        let slow = LiveMigration { block: false, post_copy, bandwidth, max_downtime, ..how(address) };
        let moving = tokio::spawn({
            let from = from.clone();
            async move { from.live_migrate(id, &slow).await }
        });
        // What is left to send gets more again.
        let mut least = u64::MAX;
        let busy = async {
            loop {
                if let Ok(Some(progress)) = from.migration_progress(id).await
                    && progress.memory_remaining > 0
                {
                    if progress.memory_remaining > least.saturating_add(4 << 20) {
                        return;
                    }
                    least = least.min(progress.memory_remaining);
                }
            }
        };
        tokio::time::timeout(PATIENCE, busy).await.expect("it is sent faster than it writes");
        assert!(!moving.is_finished());
        let from_log = String::from_utf8_lossy(&from.console_log(id).await.unwrap()).into_owned();
        from.force_migration(id).await.unwrap();
        tokio::time::timeout(PATIENCE, moving).await.expect("it does not arrive").unwrap().unwrap();
        to.adopt_incoming(&newer).await.unwrap();
        assert_eq!(to.info(id).await.unwrap().power_state, PowerState::Running, "post-copy: {post_copy}");
        assert_eq!(from.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
        // It goes on counting where it was.
        let before = ticks_of(&from_log);
        let mut log = String::new();
        let counts = async {
            while ticks_of(&log) < before + 3 {
                log = String::from_utf8_lossy(&to.console_log(id).await.unwrap()).into_owned();
            }
        };
        let counted = tokio::time::timeout(PATIENCE, counts).await;
        assert!(counted.is_ok() && log.matches("boots=").count() == 1, "from {before}: {log}");
        from.destroy(id).await.unwrap();
        std::mem::swap(&mut from, &mut to);
    }
    from.destroy(id).await.unwrap();
}

/// A guest with an operating system goes on where it was, with its disk, and boots from that disk there.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_guest_does_not_notice() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let (one, other, _kept) = two().await;
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }];
    let mut guest = GuestSpec { memory_mb: 192, disks, ..guest_spec(0x521) };
    guest.hardware.image_properties.insert("hw_qemu_guest_agent".into(), "yes".into());
    let id = guest.instance;
    one.spawn(&guest).await.unwrap();
    let log = console(&one, id, "boot finished", 1).await;
    assert!(log.contains("boots=1"), "{log}");
    let newer = GuestSpec { epoch: 2, ..guest.clone() };
    let to = other.prepare_incoming(&newer).await.unwrap();
    one.live_migrate(id, &how(to)).await.unwrap();
    other.adopt_incoming(&newer).await.unwrap();
    one.destroy(id).await.unwrap();
    let counters = other.diagnostics(id).await.unwrap();
    assert_eq!((counters.vcpus, counters.memory_mb), (1, 192));
    // Its agent answers: it runs, and not only its process.
    other.set_admin_password(id, None, "moved").await.unwrap();
    // Its serial port is there, and the log goes on with what is said from now on.
    typed_is_logged(&other, id, "newcomer").await;
    other.power_off(id, Some(PATIENCE)).await.unwrap();
    let log = console(&other, id, "going down", 1).await;
    assert!(!log.contains("boots="), "it did not boot on its way: {log}");
    other.power_on(id).await.unwrap();
    console(&other, id, "boots=2", 1).await;
    other.destroy(id).await.unwrap();
}

/// Volumes go along by being reached from there; only the guest's own disks are sent, if it has any. What is started anew there
/// has the paths of there (OSSA-2020-006, row 9).
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn volumes_go_along_and_are_not_sent() {
    let (one, other, _kept) = two().await;
    let folder = super::folder();
    let server = Server::new(folder.path(), 0x5221);
    let volume = server.attachment();
    let boot = DiskAttachment { boot: true, ..volume.clone() };
    let both = GuestSpec { volumes: vec![volume], ..guest_spec(0x522) };
    let without = GuestSpec { volumes: vec![boot], disks: Vec::new(), ..guest_spec(0x523) };
    for guest in [both, without] {
        let id = guest.instance;
        one.spawn(&guest).await.unwrap();
        let before = one.attached_disks(id).await.unwrap();
        assert_eq!(before.len(), 1);
        let newer = GuestSpec { epoch: 2, ..guest.clone() };
        let to = other.prepare_incoming(&newer).await.unwrap();
        one.live_migrate(id, &how(to)).await.unwrap();
        other.adopt_incoming(&newer).await.unwrap();
        one.destroy(id).await.unwrap();
        assert_eq!(other.attached_disks(id).await.unwrap(), before);
        other.reboot(id, RebootKind::Hard).await.unwrap();
        assert_eq!(other.attached_disks(id).await.unwrap(), before);
        other.destroy(id).await.unwrap();
        // A copy onto itself would have filled it.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(server.file()).unwrap());
        assert_eq!(blocks, 0, "the volume was written to");
    }
}
