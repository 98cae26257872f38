//! `os-resetState` ends what is done with a server, and nothing of it is left.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::migration::MigrationStatus;
use nova_core::state::{Action, PowerState, VmState};
use nova_virt::{Hypervisor, Operation};
use serde_json::{Value, json};

use crate::moves::live_migration;
use crate::support::{Cloud, CloudOptions};

async fn with_server() -> (Cloud, InstanceId) {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
    cloud.stored_flavor(2, 512).await;
    let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    (cloud, id)
}

impl Cloud {
    async fn reset(&self, id: InstanceId, state: &str) -> Instance {
        let (status, answer) = self.action(id, json!({"os-resetState": {"state": state}})).await;
        assert_eq!(status, 202, "{answer}");
        self.get(id).await
    }

    fn hang_all(&self, operation: Operation) {
        self.hosts.values().for_each(|host| host.hang(operation));
    }

    fn release_all(&self, operation: Operation) {
        self.hosts.values().for_each(|host| host.release(operation));
    }

    /// Where the guest of the server is.
    async fn guests_of(&self, id: InstanceId) -> Vec<String> {
        let mut found = Vec::new();
        for (host, fake) in &self.hosts {
            if fake.info(id).await.is_ok() {
                found.push(host.to_string());
            }
        }
        found
    }

    async fn brought_back(&self, id: InstanceId) {
        assert!(self.act(id, Action::RebootHard).await);
        self.settle().await;
        let server = self.get(id).await;
        assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running), "{:?}", server.fault);
        self.check_still(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_host_does_is_over_and_its_late_report_changes_nothing() {
    for (state, end) in [("error", VmState::Error), ("active", VmState::Active)] {
        let (cloud, id) = with_server().await;
        cloud.hang_all(Operation::Suspend);
        assert!(cloud.act(id, Action::Suspend).await);
        cloud.pass(Duration::from_secs(1)).await;
        let reset = cloud.reset(id, state).await;
        assert_eq!((reset.vm_state, reset.task_state), (end, None));
        assert!(cloud.store.list_tasks(Some(id)).await.unwrap().is_empty());
        let actions = cloud.store.list_actions(id).await.unwrap();
        let suspend = actions.iter().find(|action| action.action == "suspend").unwrap();
        assert_eq!((suspend.finished.is_some(), suspend.message.as_deref()), (true, Some("Error")));
        cloud.release_all(Operation::Suspend);
        cloud.pass(Duration::from_secs(5)).await;
        assert_eq!(cloud.get(id).await.vm_state, end, "the host has suspended it after all, and nobody asked");
        cloud.brought_back(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_taken_back() {
    for operation in [Operation::PowerOff, Operation::Spawn] {
        for state in ["error", "active"] {
            let (cloud, id) = with_server().await;
            let before = cloud.get(id).await;
            cloud.hang_all(operation);
            assert_eq!(cloud.action(id, json!({"resize": {"flavorRef": "2-512"}})).await.0, 202);
            cloud.pass(Duration::from_secs(2)).await;
            let reset = cloud.reset(id, state).await;
            assert_eq!(reset.vm_state.as_str(), state);
            assert!(reset.task_state.is_some(), "it is being taken back");
            cloud.pass(Duration::from_secs(1)).await;
            cloud.release_all(operation);
            cloud.settle().await;
            let after = cloud.get(id).await;
            assert_eq!((after.vm_state.as_str(), after.task_state), (state, None), "{operation:?}");
            assert_eq!((&after.host, after.flavor.vcpus), (&before.host, 1), "{operation:?}");
            assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Error);
            cloud.pass(Duration::from_secs(200)).await;
            assert_eq!(cloud.guests_of(id).await, [before.host.clone().unwrap().to_string()]);
            cloud.brought_back(id).await;
            cloud.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_migration_is_aborted_and_the_guest_runs_on() {
    let (cloud, id) = with_server().await;
    let before = cloud.get(id).await;
    cloud.hang_all(Operation::LiveMigrate);
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    cloud.pass(Duration::from_secs(2)).await;
    cloud.reset(id, "active").await;
    cloud.settle().await;
    let after = cloud.get(id).await;
    assert_eq!((after.vm_state, after.task_state, after.host), (VmState::Active, None, before.host.clone()));
    assert_eq!(cloud.world.running_on(id), [before.host.unwrap().to_string()]);
    cloud.pass(Duration::from_secs(200)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_is_given_up_and_leaves_nothing() {
    let (cloud, _) = with_server().await;
    cloud.hang_all(Operation::Spawn);
    let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.pass(Duration::from_secs(2)).await;
    cloud.reset(id, "error").await;
    cloud.settle().await;
    cloud.release_all(Operation::Spawn);
    cloud.pass(Duration::from_secs(200)).await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.task_state), (VmState::Error, None));
    assert_eq!(cloud.guests_of(id).await, Vec::<String>::new());
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_waits_for_its_confirmation_is_over() {
    for state in ["error", "active"] {
        let (cloud, id) = with_server().await;
        assert_eq!(cloud.action(id, json!({"resize": {"flavorRef": "2-512"}})).await.0, 202);
        cloud.settle().await;
        let resized = cloud.get(id).await;
        assert_eq!(resized.vm_state, VmState::Resized);
        let reset = cloud.reset(id, state).await;
        assert_eq!((reset.vm_state.as_str(), reset.task_state), (state, None));
        cloud.pass(Duration::from_secs(200)).await;
        assert_eq!(cloud.get(id).await.host, resized.host);
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_goes_on() {
    let (cloud, id) = with_server().await;
    cloud.hang_all(Operation::Destroy);
    assert!(cloud.act(id, Action::Delete).await);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.reset(id, "error").await;
    cloud.release_all(Operation::Destroy);
    cloud.settle().await;
    assert!(cloud.get(id).await.is_deleted());
    cloud.check().await;
    cloud.stop().await;
}

/// At whatever moment it comes, whatever is done: everything ends, and the server can be brought back or deleted.
#[tokio::test(start_paused = true)]
async fn at_any_moment_of_anything_it_leaves_nothing_behind() {
    let deeds: [Value; 7] = [
        json!({"resize": {"flavorRef": "2-512"}}),
        live_migration(),
        json!({"shelve": null}),
        json!({"createImage": {"name": "image"}}),
        json!({"rebuild": {"imageRef": "deb10000-0000-4000-8000-000000000000"}}),
        json!({"rescue": {}}),
        json!({"os-stop": null}),
    ];
    for deed in deeds {
        for (wait, state) in
            [0, 2, 4, 8, 12, 18, 25, 35, 50, 80].into_iter().flat_map(|w| [(w, "error"), (w, "active")])
        {
            let (cloud, id) = with_server().await;
            let (status, answer) = cloud.action(id, deed.clone()).await;
            assert!(matches!(status, 200 | 202), "{deed}: {answer}");
            cloud.pass(Duration::from_millis(wait)).await;
            cloud.reset(id, state).await;
            cloud.settle().await;
            cloud.pass(Duration::from_secs(200)).await;
            let server = cloud.get(id).await;
            assert_eq!(server.task_state, None, "{deed} after {wait} ms");
            let open: Vec<_> = cloud.migrations(id).await.into_iter().filter(|one| one.is_open()).collect();
            assert!(open.is_empty() || server.vm_state == VmState::Resized, "{deed} after {wait} ms: {open:#?}");
            let actions = cloud.store.list_actions(id).await.unwrap();
            assert!(actions.iter().all(|action| action.finished.is_some()), "{deed} after {wait} ms: {actions:#?}");
            assert!(cloud.act(id, Action::ForceDelete).await, "{deed} after {wait} ms: {server:?}");
            cloud.settle().await;
            cloud.pass(Duration::from_secs(200)).await;
            assert!(cloud.get(id).await.is_deleted(), "{deed} after {wait} ms");
            for image in cloud.store.list_images().await.unwrap() {
                cloud.store.delete_image(image.id).await.unwrap();
            }
            cloud.check_still(id).await;
            cloud.stop().await;
        }
    }
}
