//! The driver that shows how to write one, held to the suite that every driver passes.

use nova_core::state::PowerState;
use nova_examples::processes::ProcessHypervisor;
use nova_virt::testing::{guest_spec, instance_id};
use nova_virt::{GuestSpec, Hypervisor};
use tempfile::TempDir;

const PROGRAM: &[&str] = &["sh", "-c", "echo up; exec sleep 3600"];

fn open() -> (ProcessHypervisor, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (ProcessHypervisor::new("host1", folder.path(), PROGRAM).unwrap(), folder)
}

nova_virt::hypervisor_conformance!(async { open() });

#[tokio::test]
async fn guests_outlive_the_driver() {
    let (first, folder) = open();
    let guest = GuestSpec { epoch: 3, ..guest_spec(1) };
    first.spawn(&guest).await.unwrap();
    drop(first);
    let second = ProcessHypervisor::new("host1", folder.path(), PROGRAM).unwrap();
    let info = second.info(guest.instance).await.unwrap();
    assert_eq!((info.power_state, info.epoch), (PowerState::Running, 3));
    second.destroy(guest.instance).await.unwrap();
    assert!(second.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_has_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let hypervisor = ProcessHypervisor::new("host1", folder.path(), &["true"]).unwrap();
    hypervisor.spawn(&guest_spec(2)).await.unwrap();
    while hypervisor.info(instance_id(2)).await.unwrap().power_state == PowerState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(hypervisor.info(instance_id(2)).await.unwrap().power_state, PowerState::Crashed);
    hypervisor.destroy(instance_id(2)).await.unwrap();
}
