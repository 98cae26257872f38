//! Rescue, rebuild, password, interrupt, counters, copies.

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;

use super::{Scratch, assert_state, fresh, listed};
use crate::{
    ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, ExportRequest, GuestSpec, Hypervisor,
    HypervisorError, Operation, Quiesce, RescueSpec, SnapshotRequest, StableRescue,
};

/// Each operation that the capabilities name, asked of a guest that is not there.
pub(super) async fn life_results(
    hypervisor: &dyn Hypervisor,
    id: InstanceId,
) -> Vec<(bool, Operation, Result<(), HypervisorError>)> {
    let can = hypervisor.capabilities();
    let guest = GuestSpec { instance: id, ..crate::testing::guest_spec(1) };
    let image = DiskSource::Image { base: "/none".into(), format: DiskFormat::Raw };
    let rescue = RescueSpec { image, stable: None, config_drive: None };
    let export =
        ExportRequest { role: DiskRole::Root, index: 0, destination: "/none/none".into(), format: DiskFormat::Raw };
    vec![
        (can.rescue, Operation::Rescue, hypervisor.rescue(id, &rescue).await),
        (can.rescue, Operation::Unrescue, hypervisor.unrescue(id).await),
        (can.rebuild, Operation::Rebuild, hypervisor.rebuild(&guest, false).await),
        (can.inject_nmi, Operation::InjectNmi, hypervisor.inject_nmi(id).await),
        (can.diagnostics, Operation::Diagnostics, hypervisor.diagnostics(id).await.map(drop)),
        (can.migrate, Operation::ExportDisk, hypervisor.export_disk(id, &export).await),
        (can.migrate, Operation::Stash, hypervisor.stash(id, 1).await),
        (can.migrate, Operation::Unstash, hypervisor.unstash(&guest).await),
        (can.migrate, Operation::DropStash, hypervisor.drop_stash(id).await),
        (can.migrate, Operation::ListStashes, hypervisor.list_stashes().await.map(drop)),
        (can.live_migrate, Operation::MigrationProgress, hypervisor.migration_progress(id).await.map(drop)),
        (can.live_migrate, Operation::AbortMigration, hypervisor.abort_migration(id).await),
        (can.live_migrate, Operation::ForceMigration, hypervisor.force_migration(id).await),
        (can.live_migrate, Operation::AdoptIncoming, hypervisor.adopt_incoming(&guest).await),
    ]
}

/// What names a guest that is not there is told so; what removes something is done.
pub async fn what_life_asks_of_an_unknown_guest_is_not_found(hypervisor: &dyn Hypervisor) {
    let id = fresh(hypervisor, 0x120).await.instance;
    for (can, asked, result) in life_results(hypervisor, id).await {
        let done = matches!(
            asked,
            Operation::DropStash | Operation::ListStashes | Operation::MigrationProgress | Operation::AbortMigration
        );
        match result {
            Err(HypervisorError::Unsupported { .. }) => assert!(!can, "{asked} is promised"),
            Ok(()) => assert!(done, "{asked} of a guest that is not there"),
            Err(HypervisorError::NotFound { instance }) => assert!(!done && instance == id, "{asked}"),
            Err(other) => panic!("{asked}: {other:?}"),
        }
    }
}

/// In rescue it runs, stays in rescue across a reboot, and comes back as it was.
pub async fn a_rescued_guest_runs_and_comes_back(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().rescue {
        return;
    }
    let scratch = Scratch::new("rescue");
    let guest = fresh(hypervisor, 0x121).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    for stable in [None, Some(StableRescue::default())] {
        let files = [("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())].into();
        let rescue = RescueSpec { image: scratch.image(), stable, config_drive: Some(ConfigDrive { files }) };
        hypervisor.rescue(id, &rescue).await.unwrap();
        assert_state(hypervisor, id, PowerState::Running).await;
        assert_eq!(hypervisor.info(id).await.unwrap().epoch, guest.epoch);
        hypervisor.power_off(id, None).await.unwrap();
        hypervisor.power_on(id).await.unwrap();
        assert_state(hypervisor, id, PowerState::Running).await;
        for _ in 0..2 {
            hypervisor.unrescue(id).await.unwrap();
            assert_state(hypervisor, id, PowerState::Running).await;
        }
    }
    let blank = RescueSpec { image: DiskSource::Blank, stable: None, config_drive: None };
    let refused = hypervisor.rescue(id, &blank).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_state(hypervisor, id, PowerState::Running).await;
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(listed(hypervisor, id).await, None);
}

/// A second rescue is one; a guest that is off can be rescued; one in rescue can be destroyed.
pub async fn rescue_may_be_repeated_and_started_anew(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().rescue {
        return;
    }
    let scratch = Scratch::new("rescues");
    let guest = GuestSpec { running: false, ..fresh(hypervisor, 0x122).await };
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    let rescue = RescueSpec { image: scratch.image(), stable: None, config_drive: None };
    for _ in 0..2 {
        hypervisor.rescue(id, &rescue).await.unwrap();
        assert_state(hypervisor, id, PowerState::Running).await;
    }
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(listed(hypervisor, id).await, None);
}

/// After a rebuild the guest is of the new order, running or not as that says; repeated, nothing changes.
pub async fn a_rebuilt_guest_is_of_its_new_order(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().rebuild {
        return;
    }
    let scratch = Scratch::new("rebuild");
    let ephemeral = DiskSpec { role: DiskRole::Ephemeral, source: DiskSource::Blank, size_gb: 1 };
    let first = fresh(hypervisor, 0x123).await;
    let first = GuestSpec { disks: [first.disks.clone(), vec![ephemeral]].concat(), ..first };
    let id = first.instance;
    hypervisor.spawn(&first).await.unwrap();
    let mut second = GuestSpec { epoch: 2, display_name: "rebuilt".into(), ..first.clone() };
    second.disks[0].source = scratch.image();
    for _ in 0..2 {
        hypervisor.rebuild(&second, true).await.unwrap();
        let info = hypervisor.info(id).await.unwrap();
        assert_eq!((info.epoch, info.power_state), (2, PowerState::Running));
    }
    let third = GuestSpec { epoch: 3, running: false, ..first.clone() };
    hypervisor.rebuild(&third, false).await.unwrap();
    assert_state(hypervisor, id, PowerState::Shutdown).await;
    assert_eq!(hypervisor.spawn(&second).await.unwrap_err().kind(), ErrorKind::Stale);
    hypervisor.power_on(id).await.unwrap();
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(listed(hypervisor, id).await, None);
}

/// An order of a lower epoch does not rebuild, and one that can't be used does no harm.
pub async fn a_rebuild_of_an_old_order_is_refused(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().rebuild {
        return;
    }
    let guest = GuestSpec { epoch: 5, ..fresh(hypervisor, 0x124).await };
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    let old = GuestSpec { epoch: 4, ..guest.clone() };
    assert_eq!(hypervisor.rebuild(&old, false).await.unwrap_err().kind(), ErrorKind::Stale);
    let bad = GuestSpec { epoch: 6, memory_mb: 0, ..guest.clone() };
    assert_eq!(hypervisor.rebuild(&bad, false).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let info = hypervisor.info(id).await.unwrap();
    assert_eq!((info.epoch, info.power_state), (5, PowerState::Running));
    hypervisor.destroy(id).await.unwrap();
}

/// A running guest takes the password, or has no agent that answers; one that is off can't.
pub async fn a_password_is_set_or_refused(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().set_admin_password {
        return;
    }
    let guest = fresh(hypervisor, 0x125).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    match hypervisor.set_admin_password(id, None, "s3cret").await {
        Ok(()) | Err(HypervisorError::Unsupported { operation: Operation::SetAdminPassword }) => {}
        other => panic!("{other:?}"),
    }
    hypervisor.power_off(id, None).await.unwrap();
    let refused = hypervisor.set_admin_password(id, Some("root"), "s3cret").await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidState | ErrorKind::Unsupported), "{refused:?}");
    hypervisor.destroy(id).await.unwrap();
}

/// What runs or is paused gets it; what is off is told so.
pub async fn an_interrupt_reaches_what_runs(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().inject_nmi {
        return;
    }
    let guest = fresh(hypervisor, 0x126).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    hypervisor.inject_nmi(id).await.unwrap();
    hypervisor.power_off(id, None).await.unwrap();
    assert_eq!(hypervisor.inject_nmi(id).await.unwrap_err().kind(), ErrorKind::InvalidState);
    hypervisor.destroy(id).await.unwrap();
}

/// Counters are of the guest: its size, its disks and interfaces, running or not.
pub async fn counters_are_told(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().diagnostics {
        return;
    }
    let guest = fresh(hypervisor, 0x127).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    let running = hypervisor.diagnostics(id).await.unwrap();
    assert_eq!((running.vcpus, running.memory_mb, running.config_drive), (1, guest.memory_mb, false));
    assert_eq!((running.cpu_time_ns.len(), running.disks.len(), running.interfaces.len()), (1, 1, 0));
    assert_eq!(running.driver, hypervisor.capabilities().driver);
    hypervisor.power_off(id, None).await.unwrap();
    let off = hypervisor.diagnostics(id).await.unwrap();
    assert_eq!((off.vcpus, off.memory_mb, off.uptime, off.disks.len()), (1, guest.memory_mb, 0, 1));
    hypervisor.destroy(id).await.unwrap();
}

/// Of a guest that runs and of one that is off, in each format, and never over a file that is there.
pub async fn a_snapshot_is_a_file_of_its_format(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().snapshot {
        return;
    }
    let scratch = Scratch::new("snapshot");
    let guest = fresh(hypervisor, 0x128).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    for (name, format, running) in
        [("a", DiskFormat::Qcow2, true), ("b", DiskFormat::Qcow2, false), ("c", DiskFormat::Raw, false)]
    {
        if !running {
            hypervisor.power_off(id, None).await.unwrap();
        }
        let request = SnapshotRequest { destination: scratch.file(name), format, quiesce: Quiesce::default() };
        hypervisor.snapshot(id, &request).await.unwrap();
        let mut begin = [0; 4];
        let mut file = std::fs::File::open(&request.destination).unwrap();
        std::io::Read::read_exact(&mut file, &mut begin).unwrap();
        assert_eq!(&begin == b"QFI\xfb", format == DiskFormat::Qcow2, "{name}");
        let state = if running { PowerState::Running } else { PowerState::Shutdown };
        assert_state(hypervisor, id, state).await;
    }
    let over =
        SnapshotRequest { destination: scratch.file("a"), format: DiskFormat::Qcow2, quiesce: Quiesce::default() };
    assert!(hypervisor.snapshot(id, &over).await.is_err(), "it was written over a file");
    hypervisor.destroy(id).await.unwrap();
}

/// A copy for which file systems must stand still is none of a running guest that has no agent; one that need not is.
pub async fn a_copy_that_must_be_quiet_is_refused(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().quiesce {
        return;
    }
    let mut guest = fresh(hypervisor, 0x16a).await;
    guest.hardware.image_properties.insert("hw_qemu_guest_agent".into(), "no".into());
    hypervisor.spawn(&guest).await.unwrap();
    let scratch = Scratch::new("quiesce");
    let copy =
        |name: &str, quiesce| SnapshotRequest { destination: scratch.file(name), format: DiskFormat::Qcow2, quiesce };
    let must = copy("must", Quiesce::Required);
    match hypervisor.snapshot(guest.instance, &must).await.unwrap_err() {
        HypervisorError::Unsupported { operation: Operation::Quiesce } => {}
        other => panic!("{other:?}"),
    }
    assert!(!must.destination.exists());
    match hypervisor.quiesce(guest.instance, Quiesce::Required).await.unwrap_err() {
        HypervisorError::Unsupported { operation: Operation::Quiesce } => {}
        other => panic!("{other:?}"),
    }
    hypervisor.quiesce(guest.instance, Quiesce::IfPossible).await.unwrap();
    assert!(!hypervisor.unquiesce(guest.instance).await.unwrap(), "nobody made them stand still");
    hypervisor.snapshot(guest.instance, &copy("may", Quiesce::IfPossible)).await.unwrap();
    hypervisor.power_off(guest.instance, None).await.unwrap();
    // One that is off writes nothing.
    hypervisor.snapshot(guest.instance, &must).await.unwrap();
    hypervisor.quiesce(guest.instance, Quiesce::Required).await.unwrap();
    assert!(!hypervisor.unquiesce(guest.instance).await.unwrap());
    hypervisor.destroy(guest.instance).await.unwrap();
    assert!(!hypervisor.unquiesce(guest.instance).await.unwrap());
}
