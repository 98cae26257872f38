//! A server is resized where it is (`allow_resize_to_same_host`): what is booked is the larger of both sizes until it is
//! confirmed or goes back, and then what the server is.

use std::time::Duration;

use nova_core::context::RequestContext;
use nova_core::flavor::Resources;
use nova_core::ids::{InstanceId, RequestId};
use nova_core::migration::MigrationStatus;
use nova_core::rpc::conductor::{ListAssigned, ListAssignedRequest};
use nova_core::rpc::{Role, Sender};
use nova_core::state::{Action, PowerState, VmState};
use nova_queue::RpcClient;
use nova_virt::{ErrorKind, Hypervisor, Operation};
use serde_json::json;

use crate::support::{Cloud, CloudOptions};

const OLD: Resources = Resources { vcpus: 2, memory_mb: 512, disk_gb: 1 };
const NEW: Resources = Resources { vcpus: 1, memory_mb: 1024, disk_gb: 1 };
const BOTH: Resources = Resources { vcpus: 2, memory_mb: 1024, disk_gb: 1 };

/// A cloud of one host, with a server and a flavor that is larger in one way and smaller in another.
async fn alone(same_host: bool) -> (Cloud, InstanceId) {
    let cloud = Cloud::start(CloudOptions { hosts: 1, same_host, ..CloudOptions::default() }).await;
    let id = cloud.boot(1, cloud.flavor(2, 512)).await.unwrap()[0];
    cloud.stored_flavor(1, 1024).await;
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    (cloud, id)
}

impl Cloud {
    /// What is booked on its only host, what the node counts, and what the host is told to hold.
    async fn holds(&self) -> Resources {
        let held = self.store.list_allocations(None).await.unwrap();
        let sum = held.iter().fold(Resources::default(), |sum, one| sum.plus(one.resources));
        let node = self.store.list_nodes().await.unwrap().remove(0);
        assert_eq!((node.used, held.len()), (sum, 1));
        let host = node.host.clone();
        let sender = Sender { role: Role::Compute, host: host.clone() };
        let rpc = RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone());
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        let assigned = rpc.call::<ListAssigned>(&context, &ListAssignedRequest { host }).await.unwrap();
        assert_eq!(assigned.iter().map(|one| one.resources).collect::<Vec<_>>(), [sum], "what the host compares with");
        sum
    }

    async fn resize_here(&self, id: InstanceId) {
        let (status, text) = self.action(id, json!({"resize": {"flavorRef": "1-1024"}})).await;
        assert_eq!(status, 202, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_booked_adds_up_at_each_step() {
    for confirm in [true, false] {
        let (cloud, id) = alone(true).await;
        let host = cloud.get(id).await.host.unwrap();
        assert_eq!(cloud.holds().await, OLD);
        cloud.hosts[&host].hang(Operation::Spawn);
        cloud.resize_here(id).await;
        cloud.pass(Duration::from_secs(2)).await;
        assert_eq!(cloud.get(id).await.flavor.vcpus, 2, "it is being made");
        assert_eq!(cloud.holds().await, BOTH);
        cloud.hosts[&host].release(Operation::Spawn);
        cloud.settle().await;
        let resized = cloud.get(id).await;
        assert_eq!((resized.vm_state, &resized.host), (VmState::Resized, &Some(host.clone())), "{:?}", resized.fault);
        assert_eq!((resized.flavor.vcpus, resized.flavor.memory_mb), (1, 1024));
        assert_eq!(cloud.world.running_on(id), [host.to_string()]);
        assert_eq!(cloud.hosts[&host].list_stashes().await.unwrap().len(), 1);
        assert_eq!(cloud.holds().await, BOTH);
        // Long enough for the host to compare: what is set aside stays.
        cloud.pass(Duration::from_secs(300)).await;
        assert_eq!(cloud.hosts[&host].list_stashes().await.unwrap().len(), 1);
        assert_eq!(cloud.holds().await, BOTH);
        let (body, status) =
            if confirm { (json!({"confirmResize": null}), 204) } else { (json!({"revertResize": null}), 202) };
        assert_eq!(cloud.action(id, body).await.0, status);
        cloud.settle().await;
        let after = cloud.get(id).await;
        let (size, ended) = if confirm { (NEW, MigrationStatus::Confirmed) } else { (OLD, MigrationStatus::Reverted) };
        assert_eq!((after.vm_state, after.booked_resources()), (VmState::Active, size), "{:?}", after.fault);
        assert_eq!((cloud.holds().await, cloud.migrations(id).await[0].status), (size, ended));
        let guest = cloud.hosts[&host].info(id).await.unwrap();
        assert_eq!(guest.power_state, PowerState::Running);
        cloud.pass(Duration::from_secs(120)).await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_holds_what_it_held() {
    for operation in [Operation::Stash, Operation::Spawn] {
        let (cloud, id) = alone(true).await;
        let host = cloud.get(id).await.host.unwrap();
        cloud.hosts[&host].fail_next_after_effect(operation, 1, ErrorKind::Failed);
        cloud.resize_here(id).await;
        cloud.settle().await;
        let after = cloud.get(id).await;
        assert_eq!((after.vm_state, after.booked_resources()), (VmState::Active, OLD), "{operation:?}");
        assert!(after.fault.is_some());
        assert_eq!(cloud.holds().await, OLD, "{operation:?}");
        assert_eq!(cloud.world.running_on(id), [host.to_string()]);
        cloud.pass(Duration::from_secs(120)).await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_state_is_reset_holds_what_it_is() {
    let (cloud, id) = alone(true).await;
    cloud.resize_here(id).await;
    cloud.settle().await;
    assert_eq!(cloud.action(id, json!({"os-resetState": {"state": "active"}})).await.0, 202);
    assert_eq!(cloud.holds().await, NEW);
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    cloud.stop().await;
}

/// Off, as it is by default, the only host is none for it; a cold migration never ends where it began.
#[tokio::test(start_paused = true)]
async fn without_the_option_a_server_does_not_stay() {
    for (same_host, body) in [(false, json!({"resize": {"flavorRef": "1-1024"}})), (true, json!({"migrate": null}))] {
        let (cloud, id) = alone(same_host).await;
        assert_eq!(cloud.action(id, body).await.0, 202);
        cloud.settle().await;
        let after = cloud.get(id).await;
        assert_eq!((after.vm_state, after.booked_resources()), (VmState::Active, OLD));
        assert!(after.fault.is_some_and(|fault| fault.message.contains("No valid host")));
        assert!(cloud.act(id, Action::Delete).await);
        cloud.settle().await;
        cloud.check_still(id).await;
        cloud.stop().await;
    }
}
