//! Guests that are set aside, and disks that go to another guest.

use nova_core::state::PowerState;

use super::{Scratch, assert_state, fresh, listed};
use crate::{DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, ExportRequest, GuestSpec, Hypervisor, StashInfo};

/// The stash of that instance, if there is one.
async fn stash_of(hypervisor: &dyn Hypervisor, guest: &GuestSpec) -> Option<StashInfo> {
    let all = hypervisor.list_stashes().await.unwrap();
    assert!(all.is_sorted_by_key(|stash| stash.instance), "{all:?}");
    all.into_iter().find(|stash| stash.instance == guest.instance)
}

/// A stashed guest is not listed and can't be found; taken back it is off, of the new order, and runs again.
pub async fn a_stashed_guest_is_out_of_the_way_and_comes_back(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().migrate {
        return;
    }
    let guest = fresh(hypervisor, 0x130).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    for _ in 0..2 {
        hypervisor.stash(id, 2).await.unwrap();
        assert_eq!(listed(hypervisor, id).await, None);
        assert_eq!(hypervisor.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(stash_of(hypervisor, &guest).await, Some(StashInfo { instance: id, epoch: 2 }));
    }
    let back = GuestSpec { epoch: 3, ..guest.clone() };
    for _ in 0..2 {
        hypervisor.unstash(&back).await.unwrap();
        let info = hypervisor.info(id).await.unwrap();
        assert_eq!((info.epoch, info.power_state), (3, PowerState::Shutdown));
        assert_eq!(stash_of(hypervisor, &guest).await, None);
    }
    hypervisor.power_on(id).await.unwrap();
    assert_state(hypervisor, id, PowerState::Running).await;
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(listed(hypervisor, id).await, None);
}

/// A dropped stash is gone; there is nothing to take back.
pub async fn a_stash_is_dropped(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().migrate {
        return;
    }
    let guest = fresh(hypervisor, 0x131).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.stash(id, 0).await.unwrap_err().kind(), ErrorKind::Stale);
    assert_state(hypervisor, id, PowerState::Running).await;
    hypervisor.stash(id, 2).await.unwrap();
    for _ in 0..2 {
        hypervisor.drop_stash(id).await.unwrap();
        assert_eq!(stash_of(hypervisor, &guest).await, None);
    }
    let back = GuestSpec { epoch: 3, ..guest.clone() };
    assert_eq!(hypervisor.unstash(&back).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A guest of the instance that was made since runs beside the stash, is not touched by a repeated stash, and goes when the
/// stashed one comes back.
pub async fn a_later_guest_gives_way_to_the_stashed_one(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().migrate {
        return;
    }
    let guest = fresh(hypervisor, 0x132).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    hypervisor.stash(id, 2).await.unwrap();
    let larger = GuestSpec { epoch: 3, memory_mb: 96, ..guest.clone() };
    hypervisor.spawn(&larger).await.unwrap();
    hypervisor.stash(id, 2).await.unwrap();
    assert_state(hypervisor, id, PowerState::Running).await;
    assert_eq!(stash_of(hypervisor, &guest).await.map(|stash| stash.epoch), Some(2));
    hypervisor.unstash(&GuestSpec { epoch: 4, ..guest.clone() }).await.unwrap();
    let info = hypervisor.info(id).await.unwrap();
    assert_eq!((info.epoch, info.power_state), (4, PowerState::Shutdown));
    assert_eq!(stash_of(hypervisor, &guest).await, None);
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(listed(hypervisor, id).await, None);
}

/// A disk of a guest that is off or stashed is written to a file, which becomes the disk of another guest.
pub async fn an_exported_disk_becomes_another_guests(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().migrate {
        return;
    }
    let scratch = Scratch::new("export");
    let guest = fresh(hypervisor, 0x133).await;
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    let request =
        |name: &str, role| ExportRequest { role, index: 0, destination: scratch.file(name), format: DiskFormat::Qcow2 };
    let running = hypervisor.export_disk(id, &request("running", DiskRole::Root)).await.unwrap_err();
    assert_eq!(running.kind(), ErrorKind::InvalidState);
    hypervisor.power_off(id, None).await.unwrap();
    hypervisor.export_disk(id, &request("off", DiskRole::Root)).await.unwrap();
    let none = hypervisor.export_disk(id, &request("none", DiskRole::Swap)).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput);
    hypervisor.stash(id, 2).await.unwrap();
    hypervisor.export_disk(id, &request("stashed", DiskRole::Root)).await.unwrap();
    hypervisor.drop_stash(id).await.unwrap();

    let other = fresh(hypervisor, 0x134).await;
    let path = scratch.file("stashed");
    let source = DiskSource::File { path: path.clone(), format: DiskFormat::Qcow2 };
    // It grows on the way.
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 2 }];
    let other = GuestSpec { disks, ..other };
    for _ in 0..2 {
        hypervisor.spawn(&other).await.unwrap();
        assert_state(hypervisor, other.instance, PowerState::Running).await;
        assert!(!path.exists(), "it was copied rather than moved");
    }
    hypervisor.destroy(other.instance).await.unwrap();
}
