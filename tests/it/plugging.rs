//! New servers wait for an outside Neutron to plug their interfaces in.

use std::time::Duration;

use nova::conductor::{ConductorOptions, PluggingOptions};
use nova_core::ids::InstanceId;
use nova_core::network::{NetworkService, PortStatus};
use nova_core::state::{Action, PowerState, TaskState, VmState};
use nova_queue::testing::context;
use nova_virt::Hypervisor;
use serde_json::json;

use crate::support::networks::{on, these};
use crate::support::{Cloud, CloudOptions};

async fn cloud(timeout: u64, fatal: bool) -> Cloud {
    let plugging = PluggingOptions { timeout: Duration::from_secs(timeout), fatal };
    let conductor = ConductorOptions { plugging, ..ConductorOptions::default() };
    Cloud::start(CloudOptions { conductor, outside_network: true, ..CloudOptions::default() }).await
}

/// A server with two interfaces, whose guest is made by now.
async fn made(cloud: &Cloud) -> InstanceId {
    let network = cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(these([on(network.id), on(network.id)]), cloud.flavor(1, 256)).await;
    cloud.pass(Duration::from_secs(2)).await;
    id
}

async fn power(cloud: &Cloud, id: InstanceId) -> PowerState {
    let host = cloud.get(id).await.host.unwrap();
    cloud.hosts[&host].info(id).await.unwrap().power_state
}

/// What Neutron sends.
async fn event(cloud: &Cloud, id: InstanceId, port: impl serde::Serialize, status: &str) {
    let event = json!({"name": "network-vif-plugged", "server_uuid": id, "tag": port, "status": status});
    let body = json!({"events": [event]});
    let (code, answer) = cloud.call_as_admin("POST", "/compute/v2.1/os-server-external-events", Some(body)).await;
    assert_eq!(code, 200, "{answer}");
    cloud.pass(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_stands_still_until_its_interfaces_work() {
    let cloud = cloud(300, true).await;
    let id = made(&cloud).await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.task_state), (VmState::Building, Some(TaskState::Spawning)));
    assert_eq!(power(&cloud, id).await, PowerState::Paused);
    let ports = cloud.ports_of(id).await;
    event(&cloud, id, ports[0].id, "completed").await;
    assert_eq!(power(&cloud, id).await, PowerState::Paused, "one is not all");
    // Longer than the lease of an order: nobody gives it again.
    cloud.pass(Duration::from_secs(100)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Building);
    let begun = cloud.now();
    event(&cloud, id, ports[1].id, "completed").await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running), "{:?}", server.fault);
    assert!(cloud.now().duration_since(begun).as_secs() < 2, "an event is not waited for by looking");
    cloud.pass(Duration::from_secs(1)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// The event got lost: what Neutron says of the ports is enough.
#[tokio::test(start_paused = true)]
async fn what_is_not_told_is_found() {
    let cloud = cloud(300, true).await;
    let id = made(&cloud).await;
    for port in cloud.ports_of(id).await {
        cloud.network.set_status(&context(), port.id, PortStatus::Active).await.unwrap();
    }
    cloud.pass(Duration::from_secs(20)).await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running), "{:?}", server.fault);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_comes_too_late_fails_the_build() {
    for fails in [true, false] {
        let cloud = cloud(60, true).await;
        let id = made(&cloud).await;
        let ports = cloud.ports_of(id).await;
        if fails {
            event(&cloud, id, ports[0].id, "failed").await;
        } else {
            cloud.pass(Duration::from_secs(50)).await;
            assert_eq!(cloud.get(id).await.vm_state, VmState::Building);
            cloud.pass(Duration::from_secs(30)).await;
        }
        let server = cloud.get(id).await;
        let fault = server.fault.unwrap();
        let text = format!("Build of instance {id} aborted: Failed to allocate the network(s), not rescheduling.");
        assert_eq!((server.vm_state, server.host, fault.code, fault.message), (VmState::Error, None, 500, text));
        assert!(fault.details.contains(&ports[0].id.to_string()), "{}", fault.details);
        assert_eq!(cloud.ports().await, [], "nothing is left");
        cloud.pass(Duration::from_secs(1)).await;
        cloud.check().await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_need_not_be_fatal_nor_be_waited_for() {
    for (timeout, seconds) in [(60, 80), (0, 2)] {
        let cloud = cloud(timeout, false).await;
        let id = made(&cloud).await;
        cloud.pass(Duration::from_secs(seconds)).await;
        let server = cloud.get(id).await;
        assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running), "{:?}", server.fault);
        assert_eq!(power(&cloud, id).await, PowerState::Running);
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_waits_may_be_deleted() {
    let cloud = cloud(300, true).await;
    let id = made(&cloud).await;
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    assert_eq!(cloud.ports().await, []);
    cloud.check().await;
    cloud.stop().await;
}
