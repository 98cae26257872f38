use std::sync::Arc;

use nova_core::topology::{PlacedCell, Placement};

use super::*;
use crate::ConfigDrive;
use crate::testing::{guest_spec, instance_id};

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
