//! What every [`Hypervisor`] must do, as a suite to hold drivers to.
//!
//! ```ignore
//! nova_virt::hypervisor_conformance!(async { (MyHypervisor::new(), ()) });
//! ```
//!
//! makes one test per check. The future gives each a driver of its own, and whatever must be kept as long as it: a
//! temporary folder, for example. Checks may run at once and share one machine: each
//! makes guests of its own and removes them. The guests have an empty disk and no operating system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a check fails by panicking")]

use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::PowerState;
use nova_core::volume::connection::{AccessMode, ConnectionInfo, ConnectionTarget, FileFormat, FileTarget};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

mod life;
mod migration;
mod moves;
mod volumes;

pub use life::*;
pub use migration::*;
pub use moves::*;
pub use volumes::*;

use crate::Operation;
use crate::testing::{guest_spec, instance_id};
use crate::{
    ConfigDrive, DiskAttachment, DiskFormat, DiskSource, ErrorKind, GuestEvent, GuestEventKind, GuestInfo, GuestSpec,
    Hypervisor, HypervisorError, InterfaceSpec, Quiesce, RebootKind, SnapshotRequest,
};

/// How long a check waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test per check of the suite. With a second argument, the tests are ignored for that reason unless asked for.
#[macro_export]
macro_rules! hypervisor_conformance {
    ($open:expr) => { $crate::hypervisor_conformance!(@all [] $open); };
    ($open:expr, ignore = $reason:literal) => {
        $crate::hypervisor_conformance!(@all [#[ignore = $reason]] $open);
    };
    (@all $ignore:tt $open:expr) => {
        $crate::hypervisor_conformance!(@each $ignore $open =>
            a_spawned_guest_is_listed,
            a_repeated_spawn_changes_nothing,
            an_old_order_is_refused,
            a_newer_order_takes_the_guest_over,
            a_guest_may_be_made_without_starting_it,
            a_guest_may_be_made_standing_still,
            a_bad_spec_is_refused_and_leaves_nothing,
            destroy_leaves_nothing_and_may_be_repeated,
            power_operations_may_be_repeated,
            reboot_of_either_kind_ends_running,
            pause_and_unpause,
            suspend_and_resume,
            suspended_memory_is_thrown_away_by_power_off,
            console_log_is_there_and_bounded,
            the_serial_port_opens_while_it_runs,
            the_screen_is_served_while_it_runs,
            the_screen_is_served_over_spice_while_it_runs,
            events_tell_what_happened,
            an_unknown_guest_is_not_found,
            what_it_cannot_do_it_says,
            resources_are_plausible,
            guests_are_independent,
            interfaces_come_and_go,
            bad_interfaces_are_refused,
            volumes_come_and_go,
            a_guest_boots_from_a_volume,
            volumes_grow_and_are_swapped,
            bad_volumes_are_refused,
            devices_keep_their_places,
            a_rescued_guest_runs_and_comes_back,
            rescue_may_be_repeated_and_started_anew,
            a_rebuilt_guest_is_of_its_new_order,
            a_rebuild_of_an_old_order_is_refused,
            a_password_is_set_or_refused,
            an_interrupt_reaches_what_runs,
            counters_are_told,
            a_snapshot_is_a_file_of_its_format,
            a_copy_that_must_be_quiet_is_refused,
            a_stashed_guest_is_out_of_the_way_and_comes_back,
            a_stash_is_dropped,
            a_later_guest_gives_way_to_the_stashed_one,
            an_exported_disk_becomes_another_guests,
            what_life_asks_of_an_unknown_guest_is_not_found,
        );
    };
    (@each $ignore:tt $open:expr => $($check:ident),+ $(,)?) => {
        $( $crate::hypervisor_conformance!(@one $ignore $open, $check); )+
    };
    (@one [$($ignore:tt)*] $open:expr, $check:ident) => {
        #[tokio::test]
        $($ignore)*
        async fn $check() {
            let (hypervisor, _kept) = $open.await;
            $crate::conformance::$check(&hypervisor).await
        }
    };
}

/// A guest of that number exists in the list and by itself, as it was ordered.
pub async fn a_spawned_guest_is_listed(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x101).await;
    hypervisor.spawn(&guest).await.unwrap();
    let expected =
        GuestInfo { instance: guest.instance, name: guest.name.clone(), power_state: PowerState::Running, epoch: 1 };
    assert_eq!(hypervisor.info(guest.instance).await.unwrap(), expected);
    assert_eq!(listed(hypervisor, guest.instance).await, Some(expected));
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// The same order again is Ok and no event comes of it; it starts a guest that is off.
pub async fn a_repeated_spawn_changes_nothing(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x102).await;
    hypervisor.spawn(&guest).await.unwrap();
    let before = hypervisor.info(guest.instance).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.info(guest.instance).await.unwrap(), before);
    hypervisor.power_off(guest.instance, None).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Running).await;
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// An order of a lower epoch is stale, whatever the guest does.
pub async fn an_old_order_is_refused(hypervisor: &dyn Hypervisor) {
    let guest = GuestSpec { epoch: 5, ..fresh(hypervisor, 0x103).await };
    hypervisor.spawn(&guest).await.unwrap();
    for running in [true, false] {
        if !running {
            hypervisor.power_off(guest.instance, None).await.unwrap();
        }
        let old = GuestSpec { epoch: 4, ..guest.clone() };
        match hypervisor.spawn(&old).await.unwrap_err() {
            HypervisorError::Stale { asked: 4, current: 5, .. } => {}
            other => panic!("not stale: {other:?}"),
        }
    }
    assert_state(hypervisor, guest.instance, PowerState::Shutdown).await;
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// An order of a higher epoch raises the guest's epoch and leaves it running; the old owner is refused from then on.
pub async fn a_newer_order_takes_the_guest_over(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x104).await;
    hypervisor.spawn(&guest).await.unwrap();
    let newer = GuestSpec { epoch: 2, display_name: "renamed & <moved>".into(), ..guest.clone() };
    hypervisor.spawn(&newer).await.unwrap();
    let info = hypervisor.info(guest.instance).await.unwrap();
    assert_eq!((info.epoch, info.power_state), (2, PowerState::Running));
    assert_eq!(listed(hypervisor, guest.instance).await, Some(info));
    let late = hypervisor.spawn(&guest).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Stale);
    hypervisor.reboot(guest.instance, RebootKind::Hard).await.unwrap();
    assert_eq!(hypervisor.info(guest.instance).await.unwrap().epoch, 2, "it lasts");
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// `running: false` makes a guest that is off; the same order with `running: true` starts it.
pub async fn a_guest_may_be_made_without_starting_it(hypervisor: &dyn Hypervisor) {
    let guest = GuestSpec { running: false, ..fresh(hypervisor, 0x105).await };
    for _ in 0..2 {
        hypervisor.spawn(&guest).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Shutdown).await;
    }
    hypervisor.spawn(&GuestSpec { running: true, ..guest.clone() }).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Running).await;
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// `held` makes a guest that stands still until it is let go; the same order again leaves it so, also once it runs.
pub async fn a_guest_may_be_made_standing_still(hypervisor: &dyn Hypervisor) {
    let guest = GuestSpec { held: true, ..fresh(hypervisor, 0x11b).await };
    for _ in 0..2 {
        hypervisor.spawn(&guest).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Paused).await;
    }
    hypervisor.unpause(guest.instance).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Running).await;
    hypervisor.spawn(&guest).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Running).await;
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// Input that can't be used names its field, and no trace of the guest is left.
pub async fn a_bad_spec_is_refused_and_leaves_nothing(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x106).await;
    let bad = [
        GuestSpec { name: "../../etc".into(), ..guest.clone() },
        GuestSpec { vcpus: 0, ..guest.clone() },
        GuestSpec { memory_mb: 0, ..guest.clone() },
    ];
    for spec in bad {
        let error = hypervisor.spawn(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(listed(hypervisor, guest.instance).await, None);
    }
}

/// After `destroy` there is no trace of the guest; again is Ok; the instance may then be made anew, of any epoch.
pub async fn destroy_leaves_nothing_and_may_be_repeated(hypervisor: &dyn Hypervisor) {
    let files = [("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())].into();
    let config_drive = Some(ConfigDrive { files });
    let guest = GuestSpec { epoch: 3, config_drive, ..fresh(hypervisor, 0x107).await };
    for epoch in [3, 1] {
        hypervisor.spawn(&GuestSpec { epoch, ..guest.clone() }).await.unwrap();
        for _ in 0..2 {
            hypervisor.destroy(guest.instance).await.unwrap();
            assert_eq!(listed(hypervisor, guest.instance).await, None);
        }
        let error = hypervisor.info(guest.instance).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

/// Off twice is off, on twice is on; a guest without an operating system is off in the end, asked nicely or not.
pub async fn power_operations_may_be_repeated(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x108).await;
    hypervisor.spawn(&guest).await.unwrap();
    for graceful in [None, None, Some(Duration::from_secs(1))] {
        hypervisor.power_off(guest.instance, graceful).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Shutdown).await;
    }
    for _ in 0..2 {
        hypervisor.power_on(guest.instance).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Running).await;
    }
    hypervisor.power_off(guest.instance, Some(Duration::from_secs(1))).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Shutdown).await;
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// Whatever a guest did before, it runs after a reboot. (Soft only where it is off: this guest can't listen.)
pub async fn reboot_of_either_kind_ends_running(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x109).await;
    hypervisor.spawn(&guest).await.unwrap();
    for _ in 0..2 {
        hypervisor.reboot(guest.instance, RebootKind::Hard).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Running).await;
    }
    for kind in [RebootKind::Soft, RebootKind::Hard] {
        hypervisor.power_off(guest.instance, None).await.unwrap();
        hypervisor.reboot(guest.instance, kind).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Running).await;
    }
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// Pause, as far as the driver has it.
pub async fn pause_and_unpause(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().pause {
        return;
    }
    let guest = fresh(hypervisor, 0x10a).await;
    hypervisor.spawn(&guest).await.unwrap();
    for _ in 0..2 {
        hypervisor.pause(guest.instance).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Paused).await;
    }
    for _ in 0..2 {
        hypervisor.unpause(guest.instance).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Running).await;
    }
    hypervisor.pause(guest.instance).await.unwrap();
    hypervisor.power_on(guest.instance).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Running).await;
    hypervisor.power_off(guest.instance, None).await.unwrap();
    for error in [hypervisor.pause(guest.instance).await, hypervisor.unpause(guest.instance).await] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidState);
    }
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// Suspend, as far as the driver has it.
pub async fn suspend_and_resume(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().suspend {
        return;
    }
    let guest = fresh(hypervisor, 0x10b).await;
    hypervisor.spawn(&guest).await.unwrap();
    for _ in 0..2 {
        hypervisor.suspend(guest.instance).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Suspended).await;
    }
    assert_eq!(listed(hypervisor, guest.instance).await.map(|guest| guest.power_state), Some(PowerState::Suspended));
    for _ in 0..2 {
        hypervisor.resume(guest.instance).await.unwrap();
        assert_state(hypervisor, guest.instance, PowerState::Running).await;
    }
    hypervisor.power_off(guest.instance, None).await.unwrap();
    for error in [hypervisor.suspend(guest.instance).await, hypervisor.resume(guest.instance).await] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidState);
    }
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// A suspended guest can be powered off, and then boots afresh.
pub async fn suspended_memory_is_thrown_away_by_power_off(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().suspend {
        return;
    }
    let guest = fresh(hypervisor, 0x10c).await;
    hypervisor.spawn(&guest).await.unwrap();
    hypervisor.suspend(guest.instance).await.unwrap();
    hypervisor.power_off(guest.instance, None).await.unwrap();
    assert_state(hypervisor, guest.instance, PowerState::Shutdown).await;
    hypervisor.power_on(guest.instance).await.unwrap();
    hypervisor.suspend(guest.instance).await.unwrap();
    hypervisor.destroy(guest.instance).await.unwrap();
    assert_eq!(listed(hypervisor, guest.instance).await, None);
}

/// There is a console log from the beginning, also of a guest that is off, of at most 1 MiB.
pub async fn console_log_is_there_and_bounded(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x10d).await;
    hypervisor.spawn(&guest).await.unwrap();
    assert!(hypervisor.console_log(guest.instance).await.unwrap().len() <= 1 << 20);
    hypervisor.power_off(guest.instance, None).await.unwrap();
    assert!(hypervisor.console_log(guest.instance).await.unwrap().len() <= 1 << 20);
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// The serial port can be opened while the guest runs, as far as the driver has them, and ends with it.
pub async fn the_serial_port_opens_while_it_runs(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().serial {
        return;
    }
    let guest = fresh(hypervisor, 0x11a).await;
    hypervisor.spawn(&guest).await.unwrap();
    let mut port = hypervisor.open_serial(guest.instance).await.unwrap();
    port.input.send(b"x".to_vec()).await.unwrap();
    hypervisor.power_off(guest.instance, None).await.unwrap();
    let ended = async { while port.output.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let error = hypervisor.open_serial(guest.instance).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    hypervisor.destroy(guest.instance).await.unwrap();
    assert_eq!(hypervisor.open_serial(guest.instance).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// The screen has an address while the guest runs, as far as the driver has screens.
pub async fn the_screen_is_served_while_it_runs(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().vnc {
        return;
    }
    let guest = fresh(hypervisor, 0x10e).await;
    hypervisor.spawn(&guest).await.unwrap();
    let endpoint = hypervisor.vnc_endpoint(guest.instance).await.unwrap();
    assert!(endpoint.port > 0 && !endpoint.host.is_empty(), "{endpoint:?}");
    hypervisor.power_off(guest.instance, None).await.unwrap();
    let error = hypervisor.vnc_endpoint(guest.instance).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// So has its screen over SPICE.
pub async fn the_screen_is_served_over_spice_while_it_runs(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().spice {
        return;
    }
    let guest = fresh(hypervisor, 0x11d).await;
    hypervisor.spawn(&guest).await.unwrap();
    let endpoint = hypervisor.spice_endpoint(guest.instance).await.unwrap();
    let ports = [endpoint.port, endpoint.tls_port];
    assert!(ports.iter().flatten().any(|port| *port > 0) && !endpoint.host.is_empty(), "{endpoint:?}");
    hypervisor.power_off(guest.instance, None).await.unwrap();
    let error = hypervisor.spice_endpoint(guest.instance).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// Starting and stopping is told to those who listen.
pub async fn events_tell_what_happened(hypervisor: &dyn Hypervisor) {
    let guest = fresh(hypervisor, 0x10f).await;
    let mut events = hypervisor.events();
    hypervisor.spawn(&guest).await.unwrap();
    wait_for(&mut events, guest.instance, GuestEventKind::Started).await;
    if hypervisor.capabilities().pause {
        hypervisor.pause(guest.instance).await.unwrap();
        wait_for(&mut events, guest.instance, GuestEventKind::Paused).await;
        hypervisor.unpause(guest.instance).await.unwrap();
        wait_for(&mut events, guest.instance, GuestEventKind::Resumed).await;
    }
    if hypervisor.capabilities().suspend {
        hypervisor.suspend(guest.instance).await.unwrap();
        wait_for(&mut events, guest.instance, GuestEventKind::Suspended).await;
        hypervisor.resume(guest.instance).await.unwrap();
        wait_for(&mut events, guest.instance, GuestEventKind::Started).await;
    }
    hypervisor.power_off(guest.instance, None).await.unwrap();
    wait_for(&mut events, guest.instance, GuestEventKind::Stopped).await;
    hypervisor.power_on(guest.instance).await.unwrap();
    wait_for(&mut events, guest.instance, GuestEventKind::Started).await;
    hypervisor.destroy(guest.instance).await.unwrap();
    wait_for(&mut events, guest.instance, GuestEventKind::Stopped).await;
}

/// Whatever is asked of a guest that is not there.
pub async fn an_unknown_guest_is_not_found(hypervisor: &dyn Hypervisor) {
    let id = fresh(hypervisor, 0x110).await.instance;
    let mut results = vec![
        hypervisor.info(id).await.map(drop),
        hypervisor.power_on(id).await,
        hypervisor.power_off(id, None).await,
        hypervisor.power_off(id, Some(PATIENCE)).await,
        hypervisor.reboot(id, RebootKind::Soft).await,
        hypervisor.reboot(id, RebootKind::Hard).await,
        hypervisor.console_log(id).await.map(drop),
    ];
    let can = hypervisor.capabilities();
    if can.pause {
        results.extend([hypervisor.pause(id).await, hypervisor.unpause(id).await]);
    }
    if can.suspend {
        results.extend([hypervisor.suspend(id).await, hypervisor.resume(id).await]);
    }
    if can.vnc {
        results.push(hypervisor.vnc_endpoint(id).await.map(drop));
    }
    if can.spice {
        results.push(hypervisor.spice_endpoint(id).await.map(drop));
    }
    for result in results {
        match result {
            Err(HypervisorError::NotFound { instance }) => assert_eq!(instance, id),
            other => panic!("found: {other:?}"),
        }
    }
}

/// What the capabilities deny answers `Unsupported`, and what they promise does not.
pub async fn what_it_cannot_do_it_says(hypervisor: &dyn Hypervisor) {
    let id = fresh(hypervisor, 0x111).await.instance;
    let can = hypervisor.capabilities();
    assert!(!can.driver.is_empty() && !can.hypervisor_type.is_empty() && !can.architectures.is_empty());
    let volume: VolumeId = "00000000-0000-4000-8000-100000001110".parse().unwrap();
    let target = FileTarget { path: format!("/none/volume-{volume}").into(), format: FileFormat::Raw };
    let (access_mode, target) = (AccessMode::ReadWrite, ConnectionTarget::File(target));
    let disk = DiskAttachment::new(ConnectionInfo { volume_id: volume, access_mode, target });
    let nic = InterfaceSpec {
        mac_address: "fa:16:3e:00:00:00".into(),
        bridge: Some("none".into()),
        tap_name: "none".into(),
        mtu: None,
    };
    let copy =
        SnapshotRequest { destination: "/none/none".into(), format: DiskFormat::Qcow2, quiesce: Quiesce::default() };
    let results = [
        (can.pause, Operation::Pause, hypervisor.pause(id).await),
        (can.pause, Operation::Unpause, hypervisor.unpause(id).await),
        (can.suspend, Operation::Suspend, hypervisor.suspend(id).await),
        (can.suspend, Operation::Resume, hypervisor.resume(id).await),
        (can.vnc, Operation::VncEndpoint, hypervisor.vnc_endpoint(id).await.map(drop)),
        (can.spice, Operation::SpiceEndpoint, hypervisor.spice_endpoint(id).await.map(drop)),
        (can.serial, Operation::OpenSerial, hypervisor.open_serial(id).await.map(drop)),
        (can.attach_disk, Operation::AttachDisk, hypervisor.attach_disk(id, &disk).await.map(drop)),
        (can.attach_disk, Operation::DetachDisk, hypervisor.detach_disk(id, volume).await),
        (can.attach_disk, Operation::AttachedDisks, hypervisor.attached_disks(id).await.map(drop)),
        (can.attach_disk, Operation::ExtendDisk, hypervisor.extend_disk(id, volume, 1 << 30).await),
        (can.attach_disk, Operation::SwapDisk, hypervisor.swap_disk(id, volume, &disk).await),
        (can.attach_disk, Operation::AbortSwap, hypervisor.abort_swap(id).await),
        (can.attach_disk, Operation::SettleSwap, hypervisor.settle_swap(id, volume, volume).await.map(drop)),
        (can.attach_interface, Operation::AttachInterface, hypervisor.attach_interface(id, &nic).await),
        (can.attach_interface, Operation::DetachInterface, hypervisor.detach_interface(id, "none").await),
        (can.snapshot, Operation::Snapshot, hypervisor.snapshot(id, &copy).await),
        (can.quiesce, Operation::Quiesce, hypervisor.quiesce(id, Quiesce::default()).await),
    ];
    let results = results.into_iter().chain(life_results(hypervisor, id).await);
    for (can, asked, result) in results {
        match result {
            Err(HypervisorError::Unsupported { operation }) => {
                assert!(!can, "{asked} is promised");
                assert_eq!(operation, asked);
            }
            result => assert!(can, "{asked} is denied, and answers {result:?}"),
        }
    }
}

/// The machine has something, and the version is known once it was reached.
pub async fn resources_are_plausible(hypervisor: &dyn Hypervisor) {
    hypervisor.ping().await.unwrap();
    let has = hypervisor.resources().await.unwrap();
    assert!(has.vcpus > 0 && has.memory_mb > 0 && has.disk_gb > 0 && has.disk_free_gb <= has.disk_gb);
    assert!(!has.hypervisor_hostname.is_empty() && has.cpu_info.is_object(), "{has:?}");
    let can = hypervisor.capabilities();
    assert_eq!(has.hypervisor_type, can.hypervisor_type);
    assert_eq!(has.hypervisor_version, can.hypervisor_version);
    assert!(can.hypervisor_version > 0);
}

/// What is done to one guest does not touch another.
pub async fn guests_are_independent(hypervisor: &dyn Hypervisor) {
    let one = fresh(hypervisor, 0x112).await;
    let two = fresh(hypervisor, 0x113).await;
    let (made_one, made_two) = tokio::join!(hypervisor.spawn(&one), hypervisor.spawn(&two));
    made_one.unwrap();
    made_two.unwrap();
    hypervisor.destroy(one.instance).await.unwrap();
    assert_state(hypervisor, two.instance, PowerState::Running).await;
    assert_eq!(listed(hypervisor, one.instance).await, None);
    hypervisor.destroy(two.instance).await.unwrap();
}

/// Interfaces are those of the order; one that is attached, to a guest that runs or not, is there from then on, and one that
/// is detached is not. Each may be repeated.
pub async fn interfaces_come_and_go(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_interface {
        return;
    }
    let nic = |last: u8| InterfaceSpec {
        mac_address: format!("fa:16:3e:01:14:{last:02x}"),
        bridge: None,
        tap_name: format!("tapconf114-{last:02x}"),
        mtu: Some(1450),
    };
    let guest = GuestSpec { interfaces: vec![nic(1)], ..fresh(hypervisor, 0x114).await };
    let id = guest.instance;
    let macs = |lasts: &[u8]| lasts.iter().map(|last| nic(*last).mac_address).collect::<Vec<_>>();
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.interfaces(id).await.unwrap(), macs(&[1]));
    for _ in 0..2 {
        hypervisor.attach_interface(id, &nic(2)).await.unwrap();
        assert_eq!(hypervisor.interfaces(id).await.unwrap(), macs(&[1, 2]));
    }
    hypervisor.detach_interface(id, &nic(9).mac_address).await.unwrap();
    hypervisor.power_off(id, None).await.unwrap();
    assert_eq!(hypervisor.interfaces(id).await.unwrap(), macs(&[1, 2]));
    for _ in 0..2 {
        hypervisor.detach_interface(id, &nic(1).mac_address.to_uppercase()).await.unwrap();
        hypervisor.attach_interface(id, &nic(3)).await.unwrap();
        assert_eq!(hypervisor.interfaces(id).await.unwrap(), macs(&[2, 3]));
    }
    hypervisor.power_on(id).await.unwrap();
    assert_eq!(hypervisor.interfaces(id).await.unwrap(), macs(&[2, 3]));
    if hypervisor.capabilities().suspend {
        hypervisor.suspend(id).await.unwrap();
        let attached = hypervisor.attach_interface(id, &nic(4)).await;
        let detached = hypervisor.detach_interface(id, &nic(2).mac_address).await;
        for result in [attached, detached] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidState);
        }
    }
    hypervisor.destroy(id).await.unwrap();
    assert!(matches!(hypervisor.interfaces(id).await, Err(HypervisorError::NotFound { .. })));
    assert!(matches!(hypervisor.attach_interface(id, &nic(1)).await, Err(HypervisorError::NotFound { .. })));
}

/// What the kernel or libvirt would misread never reaches them.
pub async fn bad_interfaces_are_refused(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_interface {
        return;
    }
    let guest = fresh(hypervisor, 0x115).await;
    hypervisor.spawn(&GuestSpec { running: false, ..guest.clone() }).await.unwrap();
    let good = InterfaceSpec {
        mac_address: "fa:16:3e:01:15:01".into(),
        bridge: None,
        tap_name: "tapconf115".into(),
        mtu: None,
    };
    let bad = [
        InterfaceSpec { mac_address: "none".into(), ..good.clone() },
        InterfaceSpec { mac_address: "01:00:5e:00:00:01".into(), ..good.clone() },
        InterfaceSpec { tap_name: "a-name-of-sixteen".into(), ..good.clone() },
        InterfaceSpec { tap_name: "../tap".into(), ..good.clone() },
        InterfaceSpec { bridge: Some(String::new()), ..good },
    ];
    for nic in bad {
        let refused = hypervisor.attach_interface(guest.instance, &nic).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{nic:?}");
    }
    assert!(hypervisor.interfaces(guest.instance).await.unwrap().is_empty());
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// One test per check of live migration. The future gives two drivers that can send guests to each other, and whatever must
/// be kept as long as they.
#[macro_export]
macro_rules! live_migration_conformance {
    ($open:expr) => { $crate::live_migration_conformance!(@all [] $open); };
    ($open:expr, ignore = $reason:literal) => {
        $crate::live_migration_conformance!(@all [#[ignore = $reason]] $open);
    };
    (@all $ignore:tt $open:expr) => {
        $crate::live_migration_conformance!(@each $ignore $open =>
            a_running_guest_moves_while_it_runs,
            a_guest_that_is_off_does_not_move_live,
            a_host_that_is_not_ready_gets_nothing,
            without_a_migration_there_is_no_progress,
        );
    };
    (@each $ignore:tt $open:expr => $($check:ident),+ $(,)?) => {
        $( $crate::live_migration_conformance!(@one $ignore $open, $check); )+
    };
    (@one [$($ignore:tt)*] $open:expr, $check:ident) => {
        #[tokio::test]
        $($ignore)*
        async fn $check() {
            let (from, to, _kept) = $open.await;
            $crate::conformance::$check(&from, &to).await
        }
    };
}

/// A folder for the files of one check; removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nova-virt-{}-{name}", std::process::id()));
        let folder = folder.with_extension(SCRATCH.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// An image of 1 MiB with nothing on it.
    fn image(&self) -> DiskSource {
        let base = self.file("image.raw");
        std::fs::write(&base, vec![0; 1 << 20]).unwrap();
        DiskSource::Image { base, format: DiskFormat::Raw }
    }
}

static SCRATCH: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the machine's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A guest of that number, of which an earlier, broken run left nothing.
async fn fresh(hypervisor: &dyn Hypervisor, number: u32) -> GuestSpec {
    hypervisor.destroy(instance_id(number)).await.unwrap();
    if hypervisor.capabilities().migrate {
        hypervisor.drop_stash(instance_id(number)).await.unwrap();
    }
    guest_spec(number)
}

async fn listed(hypervisor: &dyn Hypervisor, instance: InstanceId) -> Option<GuestInfo> {
    let all = hypervisor.list().await.unwrap();
    assert!(all.is_sorted_by_key(|guest| guest.instance), "{all:?}");
    all.into_iter().find(|guest| guest.instance == instance)
}

async fn assert_state(hypervisor: &dyn Hypervisor, instance: InstanceId, expected: PowerState) {
    assert_eq!(hypervisor.info(instance).await.unwrap().power_state, expected);
}

async fn wait_for(events: &mut Receiver<GuestEvent>, instance: InstanceId, kind: GuestEventKind) {
    let wanted = GuestEvent { instance, kind };
    let come = async {
        loop {
            match events.recv().await {
                Ok(event) if event == wanted => return,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("no more events; {wanted:?} never came"),
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, come).await.is_ok(), "{wanted:?} never came");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// Checks run at once on one hypervisor, and each begins by removing the guest of its number.
    #[test]
    fn no_two_checks_make_the_same_guest() {
        let files = [
            include_str!("conformance.rs"),
            include_str!("conformance/life.rs"),
            include_str!("conformance/migration.rs"),
            include_str!("conformance/moves.rs"),
            include_str!("conformance/volumes.rs"),
        ];
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for function in files.iter().flat_map(|file| file.split("async fn ").skip(1)) {
            let name = function.split('(').next().unwrap();
            for call in function.split("fresh(").skip(1) {
                let Some(number) = call.split([',', ')']).nth(1).map(str::trim).filter(|n| n.starts_with("0x")) else {
                    continue;
                };
                let owner = *owners.entry(number).or_insert(name);
                assert_eq!(owner, name, "both make guest {number}");
            }
        }
        assert!(owners.len() > 40, "only {} numbers were found", owners.len());
    }
}
