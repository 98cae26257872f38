//! A host is emptied for maintenance.

use std::time::Duration;

use nova_core::drain::{Drain, DrainManner, Standing};
use nova_core::host::Service;
use nova_core::ids::{HostName, InstanceId};
use nova_core::migration::MigrationStatus;
use nova_core::state::{Action, VmState};
use nova_db::{InstanceQuery, MigrationQuery, ServiceQuery};
use nova_virt::{ErrorKind, Operation};
use serde_json::json;

use crate::moves::live_migration;
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

/// More moments than a drain of two servers has.
const MOMENTS: u32 = 120;

impl Cloud {
    async fn compute_service(&self, host: &HostName) -> Service {
        self.store.find_services(&ServiceQuery::computes([host])).await.unwrap().remove(0)
    }

    /// What `nova-manage host drain` writes.
    async fn drain(&self, host: &HostName, manner: DrainManner, at_once: usize) {
        let service = self.compute_service(host).await;
        let known = service.drain.clone().unwrap_or_default();
        let drain = Drain { manner, at_once, begun: self.now(), failed: Default::default(), ..known };
        self.store.update_service(Service { disabled: true, drain: Some(drain), ..service }).await.unwrap();
    }

    async fn on(&self, host: &HostName) -> Vec<InstanceId> {
        let query = InstanceQuery { host: Some(host.clone()), ..InstanceQuery::default() };
        self.store.list_instances(&query).await.unwrap().into_iter().map(|server| server.id).collect()
    }

    async fn standing(&self, host: &HostName) -> Standing {
        let drain = self.compute_service(host).await.drain.expect("it is being emptied");
        let query = InstanceQuery { host: Some(host.clone()), ..InstanceQuery::default() };
        let servers = self.store.list_instances(&query).await.unwrap();
        let query = MigrationQuery { host: Some(host.clone()), ..MigrationQuery::open() };
        drain.standing(host, &servers, &self.store.list_migrations(&query).await.unwrap())
    }

    /// Lets it come to its end; how many were on their way at most.
    async fn until_drained(&self, host: &HostName) -> (Standing, usize) {
        let mut most = 0;
        for _ in 0..20_000 {
            self.pass(Duration::from_millis(50)).await;
            let query = MigrationQuery { source_compute: Some(host.clone()), ..MigrationQuery::open() };
            most = most.max(self.store.list_migrations(&query).await.unwrap().len());
            let standing = self.standing(host).await;
            if standing.is_over() {
                return (standing, most);
            }
        }
        panic!("it never ends: {:?}", self.standing(host).await);
    }

    /// Servers that run, half of them on the host that is returned.
    async fn two_hosts(servers: u32) -> (Self, HostName, Vec<InstanceId>) {
        let cloud = Self::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
        cloud.boot(servers, cloud.flavor(1, 256)).await.unwrap();
        cloud.settle().await;
        let host = cloud.hosts.keys().next().unwrap().clone();
        let there = cloud.on(&host).await;
        assert_eq!(there.len(), servers as usize / 2);
        (cloud, host, there)
    }
}

#[tokio::test(start_paused = true)]
async fn servers_leave_while_they_run_so_many_at_once() {
    let (cloud, host, servers) = Cloud::two_hosts(8).await;
    cloud.hosts[&host].hang(Operation::LiveMigrate);
    cloud.drain(&host, DrainManner::Any, 2).await;
    cloud.pass(Duration::from_secs(60)).await;
    let standing = cloud.standing(&host).await;
    assert_eq!((standing.leaving.len(), standing.wait.len()), (2, 2), "{standing:?}");
    cloud.hosts[&host].release(Operation::LiveMigrate);
    let (standing, most) = cloud.until_drained(&host).await;
    assert_eq!((standing.left, standing.is_empty(), most), (4, true, 2), "{standing:?}");
    for id in servers {
        let server = cloud.get(id).await;
        assert_eq!((server.vm_state, server.fault), (VmState::Active, None));
        assert_eq!(cloud.migrations(id).await[0].status, MigrationStatus::Completed);
        let actions = cloud.store.list_actions(id).await.unwrap();
        assert_eq!(actions.iter().filter(|action| action.action == "live-migration").count(), 1);
        cloud.check_still(id).await;
    }
    // A server that comes there after all is sent on.
    let body = live_migration();
    let other = cloud.hosts.keys().nth(1).unwrap().clone();
    let id = cloud.on(&other).await[0];
    let service = cloud.compute_service(&host).await;
    cloud.store.update_service(Service { disabled: false, ..service }).await.unwrap();
    cloud.pass(Duration::from_secs(15)).await;
    assert_eq!(cloud.action(id, body).await.0, 202);
    cloud.pass(Duration::from_secs(60)).await;
    cloud.until_drained(&host).await;
    assert_eq!(cloud.get(id).await.host, Some(other));
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_off_leaves_as_it_is_and_is_confirmed() {
    let (cloud, host, servers) = Cloud::two_hosts(4).await;
    assert!(cloud.act(servers[0], Action::Stop).await);
    cloud.settle().await;
    for (manner, way) in [(DrainManner::Live, VmState::Stopped), (DrainManner::Cold, VmState::Stopped)] {
        cloud.drain(&host, manner, 5).await;
        let (standing, _) = cloud.until_drained(&host).await;
        assert_eq!(cloud.get(servers[0]).await.vm_state, way);
        if manner == DrainManner::Live {
            let [(id, why)] = &standing.stay[..] else { panic!("{standing:?}") };
            assert_eq!((*id, why.contains("stopped")), (servers[0], true), "{why}");
        } else {
            assert!(standing.is_empty(), "{standing:?}");
        }
    }
    assert_eq!(cloud.migrations(servers[0]).await[0].status, MigrationStatus::Confirmed);
    let actions = cloud.store.list_actions(servers[0]).await.unwrap();
    assert!(actions.iter().any(|action| action.action == "migrate"), "{actions:?}");
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(servers[0]).await;
    // In the other direction everything is stopped for its move, and runs afterwards.
    let other = cloud.hosts.keys().nth(1).unwrap().clone();
    let (status, answer) = cloud.enable(&host).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(cloud.compute_service(&host).await.drain, None, "who enables a host does not want it emptied");
    cloud.drain(&other, DrainManner::Cold, 2).await;
    let (standing, _) = cloud.until_drained(&other).await;
    assert!(standing.is_empty() && standing.left == 4, "{standing:?}");
    assert_eq!(cloud.get(servers[1]).await.vm_state, VmState::Active);
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(servers[1]).await;
    cloud.stop().await;
}

impl Cloud {
    async fn enable(&self, host: &HostName) -> (u16, serde_json::Value) {
        let path = format!("/compute/v2.1/os-services/{}", self.compute_service(host).await.id);
        self.call_as_admin("PUT", &path, Some(json!({"status": "enabled"}))).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_leave_is_named_with_its_reason() {
    let (cloud, host, servers) = Cloud::two_hosts(6).await;
    assert!(cloud.act(servers[0], Action::Suspend).await);
    cloud.settle().await;
    let other = cloud.hosts.keys().nth(1).unwrap();
    cloud.hosts[other].fail_next(Operation::PrepareIncoming, 1, ErrorKind::Failed);
    cloud.drain(&host, DrainManner::Any, 1).await;
    let (standing, _) = cloud.until_drained(&host).await;
    assert_eq!(standing.left, 1, "{standing:?}");
    assert_eq!(standing.stay.len(), 2, "{standing:?}");
    let why = |id: InstanceId| standing.stay.iter().find(|(one, _)| *one == id).map(|(_, why)| why.clone());
    assert!(why(servers[0]).unwrap().contains("suspended"), "{standing:?}");
    let failed = standing.stay.iter().find(|(id, _)| *id != servers[0]).unwrap();
    assert!(failed.1.contains("The host could not get ready"), "{standing:?}");
    // Nothing of it is tried again by itself.
    cloud.pass(Duration::from_secs(300)).await;
    assert_eq!(cloud.migrations(failed.0).await.len(), 1);
    // It is when the host is drained again; and who was resumed follows.
    assert!(cloud.act(servers[0], Action::Resume).await);
    cloud.settle().await;
    cloud.drain(&host, DrainManner::Any, 1).await;
    let (standing, _) = cloud.until_drained(&host).await;
    assert!(standing.is_empty() && standing.left == 3, "{standing:?}");
    cloud.check_still(servers[0]).await;
    cloud.stop().await;
}

/// Whenever its conductor dies, another goes on, and moves no server twice.
async fn goes_on(manner: DrainManner, action: &str) {
    for moment in 1..MOMENTS {
        let (mut cloud, host, servers) = Cloud::two_hosts(4).await;
        let life = Life::of(moment);
        cloud.replace_conductor("mortal", Some(life.clone())).await;
        cloud.drain(&host, manner, 2).await;
        cloud.pass(Duration::from_secs(30)).await;
        let died = life.is_over();
        cloud.replace_conductor("heir", None).await;
        let (standing, _) = cloud.until_drained(&host).await;
        assert!(standing.is_empty() && standing.left == 2, "at {moment}: {standing:?}");
        cloud.pass(Duration::from_secs(120)).await;
        for id in servers {
            let actions = cloud.store.list_actions(id).await.unwrap();
            let moved = actions.iter().filter(|one| one.action == action).count();
            assert_eq!(moved, 1, "at {moment}: {actions:?}");
            cloud.check_still(id).await;
        }
        cloud.stop().await;
        if !died {
            assert!(moment > 4, "it has only {moment} moments");
            return;
        }
    }
    panic!("it never ends");
}

#[tokio::test(start_paused = true)]
async fn emptying_a_host_survives_its_conductor() {
    goes_on(DrainManner::Any, "live-migration").await;
}

#[tokio::test(start_paused = true)]
async fn emptying_a_host_by_cold_migration_survives_its_conductor() {
    goes_on(DrainManner::Cold, "migrate").await;
}

#[tokio::test(start_paused = true)]
async fn a_shelved_server_leaves_its_host() {
    let mut conductor = nova::conductor::ConductorOptions::default();
    conductor.moves.shelved_offload_time = None;
    let cloud = Cloud::start(CloudOptions { hosts: 2, conductor, ..CloudOptions::default() }).await;
    let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    assert_eq!(cloud.action(id, json!({"shelve": null})).await.0, 202);
    cloud.settle().await;
    let shelved = cloud.get(id).await;
    assert_eq!(shelved.vm_state, VmState::Shelved);
    let host = shelved.host.unwrap();
    cloud.drain(&host, DrainManner::Any, 1).await;
    let (standing, _) = cloud.until_drained(&host).await;
    assert!(standing.is_empty() && standing.left == 1, "{standing:?}");
    assert_eq!(cloud.get(id).await.vm_state, VmState::ShelvedOffloaded);
    cloud.stop().await;
}
