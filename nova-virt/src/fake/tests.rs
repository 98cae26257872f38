use std::sync::Arc;

use nova_core::disk_format;
use nova_core::topology::{HostCell, HugePages, PlacedCell, Placement};

use super::*;
use crate::testing::{guest_spec, instance_id};
use crate::{
    ConfigDrive, DiskFormat, DiskSource, DiskSpec, Hypervisor, InterfaceSpec, LiveMigration, Quiesce, RebootKind,
    SnapshotRequest, StashInfo,
};

fn fake() -> FakeHypervisor {
    FakeHypervisor::new(FakeOptions::new("host1"))
}

fn outcomes(fake: &FakeHypervisor) -> Vec<(Operation, JournalOutcome)> {
    fake.journal().into_iter().map(|entry| (entry.operation, entry.outcome)).collect()
}

#[tokio::test]
async fn failures_come_on_command_and_only_as_often() {
    let fake = fake();
    fake.fail_next(Operation::Spawn, 2, ErrorKind::NoSpace);
    for _ in 0..2 {
        let error = fake.spawn(&guest_spec(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(fake.list().await.unwrap().is_empty());
    }
    fake.spawn(&guest_spec(1)).await.unwrap();
    assert_eq!(fake.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_failure_after_the_effect_leaves_the_effect() {
    let fake = fake();
    fake.fail_next_after_effect(Operation::Spawn, 1, ErrorKind::TimedOut);
    let error = fake.spawn(&guest_spec(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(fake.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
    let told = JournalOutcome::DoneButFailed(ErrorKind::TimedOut);
    assert_eq!(outcomes(&fake)[0], (Operation::Spawn, told));
}

#[tokio::test(start_paused = true)]
async fn latency_is_on_tokios_clock() {
    let latencies = BTreeMap::from([(Operation::Spawn, Duration::from_secs(30))]);
    let options = FakeOptions { latency: Duration::from_secs(1), latencies, ..FakeOptions::default() };
    let fake = FakeHypervisor::new(options);
    let start = tokio::time::Instant::now();
    fake.spawn(&guest_spec(1)).await.unwrap();
    fake.ping().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_waits_for_its_release_and_holds_up_nobody_else() {
    let fake = Arc::new(fake());
    fake.hang(Operation::Spawn);
    let hung = tokio::spawn({
        let fake = fake.clone();
        async move { fake.spawn(&guest_spec(1)).await }
    });
    // With the clock paused, this passes only once everything else stands still.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!hung.is_finished());
    assert!(fake.list().await.unwrap().is_empty());
    fake.release(Operation::Spawn);
    hung.await.unwrap().unwrap();
    assert_eq!(fake.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_unavailable_hypervisor_keeps_its_guests() {
    let fake = fake();
    fake.spawn(&guest_spec(1)).await.unwrap();
    fake.set_available(false);
    assert!(fake.ping().await.unwrap_err().is_retryable());
    fake.set_available(true);
    assert_eq!(fake.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
}

#[tokio::test]
async fn a_crash_is_told_and_seen() {
    let fake = fake();
    fake.spawn(&guest_spec(1)).await.unwrap();
    let mut events = fake.events();
    assert!(fake.crash_guest(instance_id(1)));
    assert!(!fake.crash_guest(instance_id(1)), "it crashes once");
    let crashed = GuestEvent { instance: instance_id(1), kind: GuestEventKind::Crashed };
    assert_eq!(events.recv().await.unwrap(), crashed);
    assert_eq!(fake.info(instance_id(1)).await.unwrap().power_state, PowerState::Crashed);
}

#[tokio::test]
async fn leftovers_are_listed_and_removed() {
    let fake = fake();
    fake.plant_leftover(instance_id(1));
    let listed = fake.list().await.unwrap();
    assert_eq!(listed[0].power_state, PowerState::NoState);
    assert_eq!(fake.info(instance_id(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    fake.destroy(instance_id(1)).await.unwrap();
    assert!(fake.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn guests_outlive_the_process_with_a_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("guests.json"));
    let options = FakeOptions { state_file, ..FakeOptions::new("host1") };
    let first = FakeHypervisor::new(options.clone());
    let files = BTreeMap::from([("openstack/latest/user_data".to_owned(), vec![0, 255])]);
    let config_drive = Some(ConfigDrive { files });
    first.spawn(&GuestSpec { config_drive, ..guest_spec(1) }).await.unwrap();
    first.spawn(&guest_spec(2)).await.unwrap();
    first.power_off(instance_id(2), None).await.unwrap();
    drop(first);

    let again = FakeHypervisor::new(options);
    let states: Vec<_> = again.list().await.unwrap().iter().map(|guest| guest.power_state).collect();
    assert_eq!(states, [PowerState::Running, PowerState::Shutdown]);
}

#[tokio::test]
async fn a_broken_state_file_stops_everything_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guests.json");
    std::fs::write(&path, "{ not json").unwrap();
    let fake = FakeHypervisor::new(FakeOptions { state_file: Some(path.clone()), ..FakeOptions::default() });
    assert_eq!(fake.spawn(&guest_spec(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(fake.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ not json");
}

#[tokio::test]
async fn the_world_notices_an_instance_that_runs_twice() {
    let world = FakeWorld::new();
    let host = |name: &str| FakeHypervisor::new(FakeOptions { world: world.clone(), ..FakeOptions::new(name) });
    let (one, two) = (host("one"), host("two"));
    one.spawn(&guest_spec(1)).await.unwrap();
    one.destroy(instance_id(1)).await.unwrap();
    two.spawn(&guest_spec(1)).await.unwrap();
    assert!(world.violations().is_empty(), "one after the other is fine");
    two.pause(instance_id(1)).await.unwrap();
    one.spawn(&guest_spec(1)).await.unwrap();
    let twice = WorldViolation { instance: instance_id(1), running_on: vec!["two".into()], started_on: "one".into() };
    assert_eq!(world.violations(), [twice]);
    assert_eq!(world.running_on(instance_id(1)), ["one", "two"]);
    two.destroy(instance_id(1)).await.unwrap();
    one.lose_power();
    assert!(world.running_on(instance_id(1)).is_empty());
}

#[tokio::test]
async fn equal_runs_have_equal_hashes() {
    let run = async |host: &str, epoch: u64| {
        let fake = FakeHypervisor::new(FakeOptions { journal_limit: 2, ..FakeOptions::new(host) });
        fake.spawn(&GuestSpec { epoch, ..guest_spec(1) }).await.unwrap();
        fake.reboot(instance_id(1), RebootKind::Hard).await.unwrap();
        fake.destroy(instance_id(1)).await.unwrap();
        assert_eq!(fake.journal().len(), 2, "only the last are kept");
        assert_eq!(fake.journal()[0].sequence, 2);
        fake.journal_hash()
    };
    assert_eq!(run("host1", 1).await, run("host1", 1).await);
    assert_ne!(run("host1", 1).await, run("host1", 2).await);
}

#[tokio::test]
async fn a_paused_guest_is_left_alone_by_a_repeated_spawn() {
    let fake = fake();
    fake.spawn(&guest_spec(1)).await.unwrap();
    fake.pause(instance_id(1)).await.unwrap();
    fake.spawn(&guest_spec(1)).await.unwrap();
    assert_eq!(fake.info(instance_id(1)).await.unwrap().power_state, PowerState::Paused);
}

#[tokio::test]
async fn the_console_shows_each_boot_up_to_the_login_banner() {
    let fake = fake();
    fake.spawn(&guest_spec(1)).await.unwrap();
    fake.reboot(instance_id(1), RebootKind::Hard).await.unwrap();
    let log = String::from_utf8(fake.console_log(instance_id(1)).await.unwrap()).unwrap();
    assert_eq!(log.matches("server-1 login:").count(), 2, "{log}");
}

#[tokio::test]
async fn two_guests_on_one_dedicated_cpu_are_seen() {
    let fake = fake();
    let pinned = |number: u32, cpu: u32| {
        let cell = PlacedCell { cpus: [0].into(), pins: [(0, cpu)].into(), memory_mb: 64, ..PlacedCell::default() };
        GuestSpec { placement: Some(Placement { cells: vec![cell] }), ..guest_spec(number) }
    };
    for guest in [pinned(1, 2), pinned(2, 3), guest_spec(3), pinned(2, 3)] {
        fake.spawn(&guest).await.unwrap();
    }
    let world = &fake.options().world;
    assert_eq!(world.cpu_violations(), []);
    assert_eq!(fake.spec_of(instance_id(1)), Some(pinned(1, 2)));
    fake.spawn(&pinned(4, 2)).await.unwrap();
    let instances = vec![instance_id(1), instance_id(4)];
    assert_eq!(world.cpu_violations(), [CpuViolation { host: "host1".into(), cpu: 2, instances }]);
}

#[tokio::test]
async fn a_host_has_one_cell_or_as_many_as_it_is_told() {
    let mut options = FakeOptions { vcpus: 6, memory_mb: 1000, ..FakeOptions::default() };
    let cells = |options: &FakeOptions| {
        let fake = FakeHypervisor::new(options.clone());
        async move { fake.resources().await.unwrap().cells }
    };
    let one = HostCell { shared_cpus: (0..6).collect(), memory_mb: 1000, ..HostCell::default() };
    assert_eq!(cells(&options).await, [one]);
    options.spread_over(2, 100);
    let huge_pages = vec![HugePages { size_kb: 2048, count: 50 }];
    let cell = |id: u32| HostCell {
        id,
        shared_cpus: (id * 3..(id + 1) * 3).collect(),
        memory_mb: 400,
        huge_pages: huge_pages.clone(),
        ..HostCell::default()
    };
    assert_eq!(cells(&options).await, [cell(0), cell(1)]);
}

#[tokio::test]
async fn interfaces_are_remembered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let options = FakeOptions { state_file: Some(folder.path().join("guests")), ..FakeOptions::new("host1") };
    let mac = |last: &str| format!("fa:16:3e:00:00:0{last}");
    let nic = |last: &str| InterfaceSpec { mac_address: mac(last), bridge: None, tap_name: "tap0".into(), mtu: None };
    let fake = FakeHypervisor::new(options.clone());
    fake.spawn(&GuestSpec { interfaces: vec![nic("a"), nic("b")], ..guest_spec(1) }).await.unwrap();
    fake.attach_interface(instance_id(1), &nic("c")).await.unwrap();
    fake.detach_interface(instance_id(1), &mac("a")).await.unwrap();
    let again = FakeHypervisor::new(options);
    assert_eq!(again.spec_of(instance_id(1)).unwrap().interfaces, [nic("b"), nic("c")]);
}

/// Two fakes of one world; the second is ready for guest 1, which runs on the first.
async fn pair() -> (Arc<FakeHypervisor>, Arc<FakeHypervisor>, LiveMigration) {
    let world = FakeWorld::new();
    let host = |name: &str| {
        let options = FakeOptions { world: world.clone(), ..FakeOptions::new(name) };
        Arc::new(FakeHypervisor::new(options))
    };
    let (one, two) = (host("one"), host("two"));
    one.spawn(&guest_spec(1)).await.unwrap();
    let to = two.prepare_incoming(&GuestSpec { epoch: 2, ..guest_spec(1) }).await.unwrap();
    let max_downtime = Duration::from_millis(500);
    (one, two, LiveMigration { to, block: true, bandwidth: None, max_downtime, auto_converge: false, post_copy: false })
}

#[tokio::test(start_paused = true)]
async fn a_migration_takes_its_time_and_shows_how_far_it_is() {
    let (one, two, how) = pair().await;
    one.write_disk(instance_id(1), DiskRole::Root, "a marker");
    one.set_latency(Operation::LiveMigrate, Duration::from_secs(100));
    let moving = tokio::spawn({
        let one = one.clone();
        async move { one.live_migrate(instance_id(1), &how).await }
    });
    tokio::time::sleep(Duration::from_secs(25)).await;
    let progress = one.migration_progress(instance_id(1)).await.unwrap().unwrap();
    let (memory, disk) = (64 << 20, 1 << 30);
    assert_eq!((progress.memory_total, progress.disk_total), (memory, disk));
    assert_eq!((progress.memory_processed, progress.disk_processed), (memory / 100 * 25, disk / 100 * 25));
    assert_eq!(progress.memory_processed + progress.memory_remaining, memory);
    assert_eq!(two.info(instance_id(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(two.list().await.unwrap()[0].epoch, 2, "it is ready for it");
    moving.await.unwrap().unwrap();
    assert_eq!(one.migration_progress(instance_id(1)).await.unwrap(), None);
    assert_eq!(two.disk_of(instance_id(1), DiskRole::Root).unwrap(), "a marker");
    assert_eq!(two.diagnostics(instance_id(1)).await.unwrap().uptime, 100, "it never stopped");
    assert!(one.options().world.violations().is_empty());
    assert_eq!(one.options().world.running_on(instance_id(1)), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_does_not_end_is_aborted_or_forced() {
    for force in [false, true] {
        let (one, two, how) = pair().await;
        one.hang(Operation::LiveMigrate);
        let moving = tokio::spawn({
            let one = one.clone();
            async move { one.live_migrate(instance_id(1), &how).await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!moving.is_finished());
        if force {
            one.force_migration(instance_id(1)).await.unwrap();
            moving.await.unwrap().unwrap();
            assert_eq!(two.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
        } else {
            one.abort_migration(instance_id(1)).await.unwrap();
            assert_eq!(moving.await.unwrap().unwrap_err().kind(), ErrorKind::Failed);
            assert_eq!(one.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
        }
    }
}

#[tokio::test]
async fn a_guest_does_not_leave_for_a_host_that_is_lost() {
    let (one, two, how) = pair().await;
    two.lose_host();
    assert_eq!(one.live_migrate(instance_id(1), &how).await.unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(one.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
    two.bring_back();
    one.fail_next_after_effect(Operation::LiveMigrate, 1, ErrorKind::TimedOut);
    assert_eq!(one.live_migrate(instance_id(1), &how).await.unwrap_err().kind(), ErrorKind::TimedOut);
    one.live_migrate(instance_id(1), &how).await.unwrap();
    assert_eq!(two.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
}

#[tokio::test]
async fn a_delete_during_a_migration_wins() {
    let (one, two, how) = pair().await;
    one.hang(Operation::LiveMigrate);
    let moving = tokio::spawn({
        let one = one.clone();
        async move { one.live_migrate(instance_id(1), &how).await }
    });
    tokio::task::yield_now().await;
    one.destroy(instance_id(1)).await.unwrap();
    two.destroy(instance_id(1)).await.unwrap();
    one.release(Operation::LiveMigrate);
    moving.await.unwrap().unwrap_err();
    assert!(one.list().await.unwrap().is_empty() && two.list().await.unwrap().is_empty());
    assert!(one.options().world.running_on(instance_id(1)).is_empty());
}

#[tokio::test]
async fn the_nth_call_fails() {
    let fake = fake();
    fake.fail_nth(Operation::Ping, 3, ErrorKind::Unavailable);
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(fake.ping().await.is_ok());
    }
    assert_eq!(results, [true, true, false, true]);
}

#[tokio::test]
async fn stashes_and_disks_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = FakeOptions { state_file: Some(folder.path().join("guests")), ..FakeOptions::new("host1") };
    let fake = FakeHypervisor::new(options.clone());
    fake.spawn(&guest_spec(1)).await.unwrap();
    fake.write_disk(instance_id(1), DiskRole::Root, "a marker");
    fake.stash(instance_id(1), 2).await.unwrap();
    let again = FakeHypervisor::new(options);
    assert_eq!(again.list_stashes().await.unwrap(), [StashInfo { instance: instance_id(1), epoch: 2 }]);
    again.unstash(&GuestSpec { epoch: 3, ..guest_spec(1) }).await.unwrap();
    assert_eq!(again.disk_of(instance_id(1), DiskRole::Root).unwrap(), "a marker");
}

#[tokio::test]
async fn a_state_file_of_guests_alone_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guests");
    let guest = serde_json::json!({ "spec": guest_spec(1), "power_state": PowerState::Running, "boots": 1 });
    let guests = serde_json::json!({ instance_id(1).to_string(): guest });
    std::fs::write(&path, guests.to_string()).unwrap();
    let fake = FakeHypervisor::new(FakeOptions { state_file: Some(path), ..FakeOptions::new("host1") });
    assert_eq!(fake.info(instance_id(1)).await.unwrap().power_state, PowerState::Running);
}

#[tokio::test]
async fn a_rebuild_makes_new_disks_and_keeps_what_it_is_told() {
    let fake = fake();
    let disk = |role| DiskSpec { role, source: DiskSource::Blank, size_gb: 1 };
    let guest = GuestSpec { disks: [DiskRole::Root, DiskRole::Ephemeral].map(disk).into(), ..guest_spec(1) };
    let contents = |fake: &FakeHypervisor| {
        [DiskRole::Root, DiskRole::Ephemeral].map(|role| fake.disk_of(instance_id(1), role).unwrap())
    };
    fake.spawn(&guest).await.unwrap();
    fake.write_disk(instance_id(1), DiskRole::Root, "mine");
    fake.write_disk(instance_id(1), DiskRole::Ephemeral, "mine");
    fake.rebuild(&GuestSpec { epoch: 2, ..guest.clone() }, true).await.unwrap();
    assert_eq!(contents(&fake), ["blank", "mine"]);
    fake.rebuild(&GuestSpec { epoch: 3, ..guest }, false).await.unwrap();
    assert_eq!(contents(&fake), ["blank", "blank"]);
}

/// What is uploaded or sent to another host is inspected there.
#[tokio::test]
async fn copies_are_files_of_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake();
    fake.spawn(&GuestSpec { running: false, ..guest_spec(1) }).await.unwrap();
    fake.write_disk(instance_id(1), DiskRole::Root, "a marker");
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let destination = folder.path().join(format.as_str());
        let request = SnapshotRequest { destination: destination.clone(), format, quiesce: Quiesce::default() };
        fake.snapshot(instance_id(1), &request).await.unwrap();
        let file = std::fs::File::open(&destination).unwrap();
        disk_format::inspect(&file, format.as_str(), 1 << 30).unwrap();
        let source = DiskSource::File { path: destination, format };
        let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }];
        fake.destroy(instance_id(2)).await.unwrap();
        fake.spawn(&GuestSpec { disks, ..guest_spec(2) }).await.unwrap();
        assert_eq!(fake.disk_of(instance_id(2), DiskRole::Root).unwrap(), "a marker");
    }
}
