//! What happens without anybody's doing: hosts that are down while something is to be done with their servers, and what is
//! due after a while.

use std::time::Duration;

use nova::conductor::ConductorOptions;
use nova_core::ids::{HostName, InstanceId};
use nova_core::state::{Action, PowerState, TaskState, VmState};
use nova_virt::{Hypervisor, Operation};
use serde_json::json;

use crate::support::{Cloud, CloudOptions};

/// Longer than a service may be silent.
const SILENT: Duration = Duration::from_secs(90);
/// Longer than it takes to look for what is due.
const A_LOOK: Duration = Duration::from_secs(70);

async fn with_server(conductor: ConductorOptions) -> (Cloud, InstanceId, HostName) {
    let cloud = Cloud::start(CloudOptions { hosts: 2, conductor, ..CloudOptions::default() }).await;
    cloud.add_network("10.0.0.0/24").await;
    let id = cloud.boot_on(nova_core::network::RequestedNetworks::Auto, cloud.flavor(1, 512)).await;
    cloud.settle().await;
    cloud.pass(Duration::from_secs(1)).await;
    let host = cloud.get(id).await.host.unwrap();
    (cloud, id, host)
}

/// It does not wait for the host, which removes the guest when it comes back.
#[tokio::test(start_paused = true)]
async fn a_server_is_deleted_without_its_host() {
    // Down already; and gone in the midst of it.
    for meanwhile in [false, true] {
        let (mut cloud, id, host) = with_server(ConductorOptions::default()).await;
        if meanwhile {
            cloud.hosts[&host].hang(Operation::Destroy);
            assert!(cloud.act(id, Action::Delete).await);
            cloud.pass(Duration::from_secs(2)).await;
            cloud.kill_agent(&host);
        } else {
            cloud.kill_agent(&host);
            cloud.pass(SILENT).await;
            assert!(cloud.act(id, Action::Delete).await);
        }
        let began = cloud.now();
        cloud.settle().await;
        assert!(cloud.get(id).await.is_deleted(), "meanwhile: {meanwhile}");
        let took = cloud.now().duration_since(began).as_secs();
        assert!(took < 300, "long before its deadline: {took} s");
        assert!(cloud.ports_of(id).await.is_empty(), "its port is free");
        assert!(cloud.store.list_allocations(Some(&host)).await.unwrap().is_empty(), "nothing is booked");
        let actions = cloud.store.list_actions(id).await.unwrap();
        assert!(actions.iter().all(|action| action.finished.is_some()), "{actions:#?}");
        cloud.hosts[&host].release(Operation::Destroy);
        if !meanwhile {
            assert_eq!(cloud.hosts[&host].list().await.unwrap().len(), 1, "nobody has told the host");
        }
        cloud.start_agent(&host, None).await;
        cloud.pass(Duration::from_secs(1)).await;
        assert!(cloud.hosts[&host].list().await.unwrap().is_empty());
        assert!(cloud.world.running_on(id).is_empty());
        cloud.check().await;
        cloud.stop().await;
    }
}

/// `reboot_timeout`: the guest does not listen, and the plug is pulled.
#[tokio::test(start_paused = true)]
async fn a_soft_reboot_that_takes_too_long_becomes_a_hard_one() {
    let reboot_timeout = Duration::from_secs(120);
    let (cloud, id, host) = with_server(ConductorOptions { reboot_timeout, ..ConductorOptions::default() }).await;
    let fake = &cloud.hosts[&host];
    fake.hang(Operation::Reboot);
    assert!(cloud.act(id, Action::RebootSoft).await);
    cloud.pass(Duration::from_secs(110)).await;
    let waiting = cloud.get(id).await;
    assert!(waiting.task_state.is_some_and(|task| task != TaskState::RebootingHard), "{:?}", waiting.task_state);
    cloud.pass(A_LOOK + Duration::from_secs(10)).await;
    let hard = [TaskState::RebootingHard, TaskState::RebootPendingHard, TaskState::RebootStartedHard];
    let now = cloud.get(id).await.task_state;
    assert!(now.is_some_and(|task| hard.contains(&task)), "{now:?}");
    fake.release(Operation::Reboot);
    cloud.settle().await;
    let after = cloud.get(id).await;
    let states = (after.vm_state, after.task_state, after.power_state);
    assert_eq!(states, (VmState::Active, None, PowerState::Running), "{:?}", after.fault);
    let actions = cloud.store.list_actions(id).await.unwrap();
    assert_eq!(actions.iter().filter(|action| action.action == "reboot").count(), 2);
    assert!(actions.iter().all(|action| action.finished.is_some()), "{actions:#?}");
    cloud.check().await;
    cloud.stop().await;
}

/// One that ends in time is left alone, and so is every other where nothing is set.
#[tokio::test(start_paused = true)]
async fn a_soft_reboot_has_its_time() {
    for (timeout, hang) in [(600, 300), (0, 500)] {
        let reboot_timeout = Duration::from_secs(timeout);
        let (cloud, id, host) = with_server(ConductorOptions { reboot_timeout, ..ConductorOptions::default() }).await;
        cloud.hosts[&host].hang(Operation::Reboot);
        assert!(cloud.act(id, Action::RebootSoft).await);
        cloud.pass(Duration::from_secs(hang)).await;
        let now = cloud.get(id).await.task_state;
        assert!(now.is_some_and(|task| task != TaskState::RebootingHard), "{now:?}");
        cloud.hosts[&host].release(Operation::Reboot);
        cloud.settle().await;
        assert_eq!(cloud.get(id).await.task_state, None);
        assert_eq!(cloud.store.list_actions(id).await.unwrap().len(), 2, "create and reboot");
        cloud.check().await;
        cloud.stop().await;
    }
}

/// `shelved_offload_time`: meanwhile the server is on its host, and comes back there.
#[tokio::test(start_paused = true)]
async fn a_shelved_server_leaves_its_host_after_a_while() {
    let mut conductor = ConductorOptions::default();
    conductor.moves.shelved_offload_time = Some(Duration::from_secs(300));
    let (cloud, id, host) = with_server(conductor).await;
    let shelve = async || {
        assert_eq!(cloud.action(id, json!({"shelve": null})).await.0, 202);
        cloud.settle().await;
        let shelved = cloud.get(id).await;
        let is = (shelved.vm_state, shelved.task_state, shelved.host, shelved.power_state);
        assert_eq!(is, (VmState::Shelved, None, Some(host.clone()), PowerState::Shutdown), "{:?}", shelved.fault);
    };
    shelve().await;
    cloud.pass(Duration::from_secs(240)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Shelved);
    assert_eq!(cloud.action(id, json!({"unshelve": null})).await.0, 202);
    cloud.settle().await;
    let back = cloud.get(id).await;
    assert_eq!((back.vm_state, back.host.as_ref()), (VmState::Active, Some(&host)), "{:?}", back.fault);
    // The time counts from the second shelving.
    shelve().await;
    cloud.pass(Duration::from_secs(220)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Shelved);
    cloud.pass(Duration::from_secs(80) + A_LOOK).await;
    cloud.settle().await;
    let offloaded = cloud.get(id).await;
    assert_eq!((offloaded.vm_state, offloaded.host), (VmState::ShelvedOffloaded, None), "{:?}", offloaded.fault);
    assert!(cloud.hosts[&host].list().await.unwrap().is_empty());
    assert!(cloud.store.list_allocations(Some(&host)).await.unwrap().is_empty());
    cloud.check_still(id).await;
    cloud.stop().await;
}
