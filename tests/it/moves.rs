//! Servers go from host to host.

use std::time::Duration;

use nova_core::flavor::Flavor;
use nova_core::ids::{HostName, InstanceId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus};
use nova_core::state::{Action, PowerState, VmState};
use nova_db::{MigrationQuery, StoreError};
use nova_virt::testing::guest_spec;
use nova_virt::{ErrorKind, GuestSpec, Hypervisor, Operation};
use serde_json::{Value, json};

use crate::support::networks::{on, these};
use crate::support::{Cloud, CloudOptions};

/// The action that has a running guest go to another host.
pub fn live_migration() -> Value {
    json!({"os-migrateLive": {"host": null, "block_migration": "auto"}})
}

impl Cloud {
    /// Begins to have the guest go to another host while it runs.
    pub async fn live_migrate(&self, id: InstanceId) -> (u16, String) {
        self.action(id, live_migration()).await
    }

    /// A server action of the administrator: the answer's status, and its text.
    pub async fn action(&self, id: InstanceId, body: Value) -> (u16, String) {
        let path = format!("/compute/v2.1/servers/{id}/action");
        let (status, answer) = self.call_as_admin("POST", &path, Some(body)).await;
        (status, answer.to_string())
    }

    /// A flavor that servers can be resized to.
    pub async fn stored_flavor(&self, vcpus: u32, memory_mb: u64) -> Flavor {
        let id = nova_core::ids::FlavorId::new(format!("{vcpus}-{memory_mb}"));
        let flavor = Flavor { name: id.to_string(), id, ..self.flavor(vcpus, memory_mb) };
        match self.store.create_flavor(flavor.clone()).await {
            Ok(made) => made,
            Err(StoreError::Duplicate { .. }) => self.store.get_flavor(&flavor.id).await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn migrations(&self, id: InstanceId) -> Vec<Migration> {
        let query = MigrationQuery { instance: Some(id), ..MigrationQuery::default() };
        self.store.list_migrations(&query).await.unwrap()
    }

    /// A server with an interface that runs.
    async fn running(&self) -> InstanceId {
        let network = match self.store.list_networks(&Default::default()).await.unwrap().first() {
            Some(network) => network.id,
            None => self.add_network("10.0.0.0/24").await.id,
        };
        let id = self.boot_on(these([on(network)]), self.flavor(1, 512)).await;
        self.settle().await;
        self.pass(Duration::from_secs(1)).await;
        assert_eq!(self.get(id).await.vm_state, VmState::Active);
        id
    }

    async fn stashes(&self) -> Vec<(HostName, InstanceId)> {
        let mut all = Vec::new();
        for (host, fake) in &self.hosts {
            all.extend(fake.list_stashes().await.unwrap().into_iter().map(|stash| (host.clone(), stash.instance)));
        }
        all
    }

    async fn power_of(&self, id: InstanceId) -> PowerState {
        let server = self.get(id).await;
        self.hosts[&server.host.unwrap()].info(id).await.unwrap().power_state
    }

    /// What must hold of a server that is at one place and moves no more.
    pub async fn check_still(&self, id: InstanceId) {
        self.check().await;
        assert_eq!(self.stashes().await, [], "of server {id}");
        assert!(self.ports_of(id).await.iter().all(|port| port.migrating_to().is_none()), "a port still comes");
        assert!(self.migrations(id).await.iter().all(|one| !one.is_open()), "{:#?}", self.migrations(id).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_resized_and_confirmed() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let before = cloud.get(id).await;
    let large = cloud.stored_flavor(2, 1024).await;
    let (status, text) = cloud.action(id, json!({"resize": {"flavorRef": large.id}})).await;
    assert_eq!(status, 202, "{text}");
    assert_eq!(cloud.action(id, json!({"resize": {"flavorRef": large.id}})).await.0, 409, "one at a time");
    cloud.settle().await;
    let resized = cloud.get(id).await;
    assert_eq!((resized.vm_state, resized.task_state), (VmState::Resized, None), "{:?}", resized.fault);
    assert_ne!(resized.host, before.host);
    assert_eq!((resized.flavor.vcpus, resized.power_state), (2, PowerState::Running));
    assert_eq!(cloud.stashes().await, [(before.host.clone().unwrap(), id)]);
    assert_eq!(cloud.world.running_on(id), [resized.host.clone().unwrap().to_string()]);
    let [migration] = &cloud.migrations(id).await[..] else { panic!("one migration") };
    assert_eq!(migration.status, MigrationStatus::Finished);
    assert_eq!((Some(&migration.source_compute), &migration.dest_compute), (before.host.as_ref(), &resized.host));
    let held = cloud.store.list_allocations(None).await.unwrap();
    assert_eq!(held.iter().map(|a| a.resources.vcpus).sum::<u64>(), 3, "both places are kept: {held:?}");
    assert!(cloud.ports_of(id).await.iter().all(|port| port.host == resized.host), "its ports have followed");
    // Long enough for all hosts to compare: neither of the two takes the other's for a stray.
    cloud.pass(Duration::from_secs(300)).await;
    assert_eq!(cloud.stashes().await.len(), 1);
    assert_eq!(cloud.action(id, json!({"confirmResize": null})).await.0, 204);
    let (status, text) = cloud.action(id, json!({"revertResize": null})).await;
    assert_eq!((status, text.contains("Instance has not been resized.")), (400, true), "one of both: {text}");
    cloud.settle().await;
    let after = cloud.get(id).await;
    assert_eq!((after.vm_state, after.host), (VmState::Active, resized.host));
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Confirmed);
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_server_is_migrated_and_goes_back() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    assert!(cloud.act(id, Action::Stop).await);
    cloud.settle().await;
    let before = cloud.get(id).await;
    let (status, text) = cloud.action(id, json!({"migrate": null})).await;
    assert_eq!(status, 202, "{text}");
    cloud.settle().await;
    let moved = cloud.get(id).await;
    assert_eq!(moved.vm_state, VmState::Resized, "{:?}", moved.fault);
    assert_ne!(moved.host, before.host);
    assert_eq!(cloud.power_of(id).await, PowerState::Shutdown);
    assert_eq!(cloud.action(id, json!({"revertResize": null})).await.0, 202);
    cloud.settle().await;
    let back = cloud.get(id).await;
    assert_eq!((back.vm_state, &back.host, &back.flavor), (VmState::Stopped, &before.host, &before.flavor));
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Reverted);
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_no_host_finishes_leaves_the_server_as_it_was() {
    for operation in [Operation::Stash, Operation::Spawn] {
        let cloud = Cloud::start(CloudOptions::default()).await;
        let id = cloud.running().await;
        let before = cloud.get(id).await;
        for host in cloud.hosts.values() {
            host.fail_next_after_effect(operation, 1, ErrorKind::Failed);
        }
        let large = cloud.stored_flavor(2, 1024).await;
        assert_eq!(cloud.action(id, json!({"resize": {"flavorRef": large.id}})).await.0, 202);
        cloud.settle().await;
        let after = cloud.get(id).await;
        assert_eq!((after.vm_state, &after.host, after.flavor.vcpus), (VmState::Active, &before.host, 1));
        assert!(after.fault.is_some());
        assert_eq!(cloud.power_of(id).await, PowerState::Running, "{operation:?}");
        assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Error);
        cloud.pass(Duration::from_secs(120)).await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_deleted_while_it_waits_for_confirmation() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    assert_eq!(cloud.action(id, json!({"migrate": null})).await.0, 202);
    cloud.settle().await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    assert!(cloud.get(id).await.is_deleted());
    cloud.pass(Duration::from_secs(1)).await;
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Confirmed);
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_resized_is_refused() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let same = cloud.get(id).await.flavor.id;
    cloud.store.create_flavor(cloud.flavor(1, 512)).await.unwrap();
    for (flavor, text) in [(json!("nope"), "Flavor nope could not be found."), (json!(same), "must change flavor")] {
        let (status, answer) = cloud.action(id, json!({"resize": {"flavorRef": flavor}})).await;
        assert_eq!((status, answer.contains(text)), (400, true), "{answer}");
    }
    for body in [json!({"confirmResize": null}), json!({"revertResize": null})] {
        assert_eq!(cloud.action(id, body).await.0, 409);
    }
    let host = cloud.get(id).await.host.unwrap();
    for (named, text) in [(host.as_str(), "where the server exists"), ("nowhere", "Compute host nowhere")] {
        let (status, answer) = cloud.action(id, json!({"migrate": {"host": named}})).await;
        assert_eq!((status, answer.contains(text)), (400, true), "{answer}");
    }
    cloud.check_still(id).await;
    cloud.stop().await;
}

/// Its host is declared dead, and comes back: it removes what it has.
#[tokio::test(start_paused = true)]
async fn a_server_is_evacuated_from_a_dead_host() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let before = cloud.get(id).await.host.unwrap();
    let (status, text) = cloud.action(id, json!({"evacuate": {}})).await;
    assert_eq!((status, text.contains("still in use")), (400, true), "{text}");
    cloud.hosts[&before].set_available(false);
    cloud.hosts[&before].lose_power();
    cloud.force_down(&before, true).await;
    let (status, text) = cloud.action(id, json!({"evacuate": {}})).await;
    assert_eq!(status, 200, "{text}");
    cloud.settle().await;
    let after = cloud.get(id).await;
    assert_eq!((after.vm_state, after.task_state), (VmState::Stopped, None), "2.95: {:?}", after.fault);
    assert_ne!(after.host.as_ref(), Some(&before));
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Done);
    cloud.hosts[&before].set_available(true);
    cloud.force_down(&before, false).await;
    cloud.pass(Duration::from_secs(120)).await;
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Completed);
    assert!(cloud.act(id, Action::Start).await);
    cloud.settle().await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_running_server_is_migrated() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let before = cloud.get(id).await;
    let (status, text) = cloud.live_migrate(id).await;
    assert_eq!(status, 202, "{text}");
    cloud.settle().await;
    let after = cloud.get(id).await;
    assert_eq!((after.vm_state, after.task_state), (VmState::Active, None), "{:?}", after.fault);
    assert_ne!(after.host, before.host);
    assert_eq!(cloud.world.running_on(id), [after.host.clone().unwrap().to_string()]);
    assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Completed);
    assert!(cloud.ports_of(id).await.iter().all(|port| port.host == after.host));
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

/// The source has its files until the records say that it has left; it does not wait for its next look for them.
#[tokio::test(start_paused = true)]
async fn what_a_guest_leaves_behind_is_removed_soon() {
    let began = tokio::time::Instant::now();
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let source = cloud.get(id).await.host.unwrap();
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    cloud.settle().await;
    let fake = &cloud.hosts[&source];
    fake.spawn(&GuestSpec { instance: id, running: false, ..guest_spec(1) }).await.unwrap();
    cloud.pass(Duration::from_secs(12)).await;
    assert_eq!(fake.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(began.elapsed() < Duration::from_secs(60), "the host looks every minute anyway");
    cloud.check_still(id).await;
    cloud.stop().await;
}

/// A server whose guest leaves its host while it runs, without end.
async fn leaving_alive() -> (Cloud, InstanceId, Instance) {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let before = cloud.get(id).await;
    cloud.hosts[before.host.as_ref().unwrap()].hang(Operation::LiveMigrate);
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    (cloud, id, before)
}

#[tokio::test(start_paused = true)]
async fn a_live_migration_is_aborted_or_hurried() {
    for force in [false, true] {
        let (cloud, id, before) = leaving_alive().await;
        cloud.pass(Duration::from_secs(12)).await;
        let path = format!("/compute/v2.1/servers/{id}/migrations");
        let (_, listed) = cloud.call_as_admin("GET", &path, None).await;
        let one = &listed["migrations"][0];
        assert_eq!(one["status"], "running", "{listed}");
        assert!(one["memory_total_bytes"].as_u64().is_some_and(|bytes| bytes == 512 << 20), "{listed}");
        let path = format!("{path}/{}", one["id"]);
        let answer = if force {
            cloud.call_as_admin("POST", &format!("{path}/action"), Some(json!({"force_complete": null}))).await
        } else {
            cloud.call_as_admin("DELETE", &path, None).await
        };
        assert_eq!(answer.0, 202, "{answer:?}");
        cloud.settle().await;
        let after = cloud.get(id).await;
        assert_eq!((after.vm_state, after.host == before.host), (VmState::Active, !force), "{:?}", after.fault);
        let status = if force { MigrationStatus::Completed } else { MigrationStatus::Cancelled };
        assert_eq!(cloud.migrations(id).await[0].status, status);
        cloud.pass(Duration::from_secs(120)).await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

/// It never ends of itself; after the time that it may take it is aborted, or ended at the price of a pause
/// (`live_migration_timeout_action`).
#[tokio::test(start_paused = true)]
async fn a_live_migration_that_takes_too_long_is_ended() {
    for force_complete in [false, true] {
        let mut options = CloudOptions::default();
        options.conductor.moves.force_complete = force_complete;
        options.conductor.moves.completion_timeout_per_gib = Some(Duration::from_secs(20));
        let cloud = Cloud::start(options).await;
        let id = cloud.running().await;
        let before = cloud.get(id).await;
        cloud.hosts[before.host.as_ref().unwrap()].hang(Operation::LiveMigrate);
        assert_eq!(cloud.action(id, live_migration()).await.0, 202);
        // 2 GiB of memory at least, and 1 GiB of disk.
        cloud.pass(Duration::from_secs(55)).await;
        assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Running);
        cloud.pass(Duration::from_secs(20)).await;
        let after = cloud.get(id).await;
        assert_eq!((after.vm_state, after.host == before.host), (VmState::Active, !force_complete));
        let status = if force_complete { MigrationStatus::Completed } else { MigrationStatus::Error };
        assert_eq!(cloud.migrations(id).await[0].status, status);
        cloud.pass(Duration::from_secs(120)).await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_deleted_while_it_leaves_its_host_alive() {
    let (cloud, id, _) = leaving_alive().await;
    cloud.pass(Duration::from_secs(2)).await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    assert!(cloud.get(id).await.is_deleted());
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

impl Cloud {
    /// An operator says that the host is down, or takes that back.
    pub async fn force_down(&self, host: &HostName, down: bool) {
        let service = self.store.find_services(&nova_db::ServiceQuery::computes([host])).await.unwrap().remove(0);
        let path = format!("/compute/v2.1/os-services/{}", service.id);
        let (status, answer) = self.call_as_admin("PUT", &path, Some(json!({"forced_down": down}))).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_shelved_and_comes_back() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    let address = cloud.ports_of(id).await[0].fixed_ips[0].ip_address;
    let (status, text) = cloud.action(id, json!({"shelve": null})).await;
    assert_eq!(status, 202, "{text}");
    cloud.settle().await;
    let shelved = cloud.get(id).await;
    assert_eq!((shelved.vm_state, shelved.task_state), (VmState::ShelvedOffloaded, None), "{:?}", shelved.fault);
    assert_eq!((shelved.host, shelved.power_state), (None, PowerState::NoState));
    let images = cloud.store.list_images().await.unwrap();
    assert_eq!(images.iter().map(|image| image.name.clone().unwrap()).collect::<Vec<_>>(), ["server-shelved"]);
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    assert_eq!(cloud.action(id, json!({"unshelve": null})).await.0, 202);
    cloud.settle().await;
    let back = cloud.get(id).await;
    assert_eq!((back.vm_state, back.power_state), (VmState::Active, PowerState::Running), "{:?}", back.fault);
    assert_eq!(cloud.ports_of(id).await[0].fixed_ips[0].ip_address, address);
    assert_eq!(cloud.store.list_images().await.unwrap(), []);
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_no_host_takes_stays_shelved() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let id = cloud.running().await;
    assert_eq!(cloud.action(id, json!({"shelve": null})).await.0, 202);
    cloud.settle().await;
    cloud.hosts.values().for_each(|host| host.fail_next(Operation::Spawn, 9, ErrorKind::Failed));
    assert_eq!(cloud.action(id, json!({"unshelve": null})).await.0, 202);
    cloud.settle().await;
    let still = cloud.get(id).await;
    assert_eq!((still.vm_state, &still.host), (VmState::ShelvedOffloaded, &None));
    assert!(still.fault.is_some());
    assert_eq!(cloud.store.list_images().await.unwrap().len(), 1, "what it is kept as stays");
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_confirmed_after_a_while() {
    let mut conductor = nova::conductor::ConductorOptions::default();
    conductor.moves.resize_confirm_window = Some(Duration::from_secs(600));
    let cloud = Cloud::start(CloudOptions { conductor, ..CloudOptions::default() }).await;
    let id = cloud.running().await;
    assert_eq!(cloud.action(id, json!({"migrate": null})).await.0, 202);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(500)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Resized);
    cloud.pass(Duration::from_secs(200)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    cloud.check_still(id).await;
    cloud.stop().await;
}
