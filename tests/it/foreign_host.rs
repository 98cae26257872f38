//! A compute host that was taken over speaks for others: the conductor hears it about nothing that is not placed on it.

use nova_core::ids::{HostName, InstanceId, TaskId};
use nova_core::rpc::conductor::{
    ConfirmStrays, ConfirmStraysRequest, Heartbeat, HeartbeatRequest, ListAssigned, ListAssignedRequest, ObservedPower,
    ReportPowerStates, ReportPowerStatesRequest, ReportStep, ReportStepRequest, StepOutcome, Verdict,
};
use nova_core::rpc::{Method, RefusalKind, Role, Sender};
use nova_core::state::{PowerState, VmState};
use nova_queue::{RpcClient, testing};
use nova_virt::Operation;

use crate::support::{Cloud, CloudOptions};

/// A host's voice.
pub fn voice(cloud: &Cloud, host: &HostName) -> RpcClient {
    let sender = Sender { role: Role::Compute, host: host.clone() };
    RpcClient::new(cloud.bus.clone(), sender, cloud.clock.clone(), cloud.entropy.clone())
}

/// The host of a server, and the other one.
async fn hosts(cloud: &Cloud, id: InstanceId) -> (HostName, HostName) {
    let own = cloud.get(id).await.host.unwrap();
    let other = cloud.hosts.keys().find(|host| **host != own).unwrap().clone();
    (own, other)
}

async fn refusal<M: Method>(rpc: &RpcClient, request: &M::Request) -> RefusalKind {
    let Err(error) = rpc.call::<M>(&testing::context(), request).await else { panic!("it was heard") };
    error.refusal().expect("it was refused").kind
}

fn options() -> CloudOptions {
    CloudOptions { hosts: 2, ..CloudOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_not_heard_under_anothers_name() {
    let cloud = Cloud::start(options()).await;
    let id = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let (own, other) = hosts(&cloud, id).await;
    let rpc = voice(&cloud, &other);
    let list = ListAssignedRequest { host: own.clone() };
    assert_eq!(refusal::<ListAssigned>(&rpc, &list).await, RefusalKind::Forbidden);
    let strays = ConfirmStraysRequest { host: own.clone(), instances: vec![id] };
    assert_eq!(refusal::<ConfirmStrays>(&rpc, &strays).await, RefusalKind::Forbidden);
    let beat = HeartbeatRequest {
        host: own.clone(),
        zone: "evil".into(),
        node: None,
        working_on: Vec::new(),
        stats: None,
        disable: Some("out of the way".into()),
        well: true,
    };
    assert_eq!(refusal::<Heartbeat>(&rpc, &beat).await, RefusalKind::Forbidden);
    let services = cloud.store.list_services().await.unwrap();
    assert!(services.iter().all(|service| service.zone.as_str() != "evil"), "{services:?}");
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_stops_no_server_of_another() {
    let cloud = Cloud::start(options()).await;
    let id = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let (own, other) = hosts(&cloud, id).await;
    let server = cloud.get(id).await;
    let off = ObservedPower { instance_id: id, epoch: server.epoch, power_state: PowerState::Shutdown };
    for host in [&own, &other] {
        let told = ReportPowerStatesRequest { host: host.clone(), states: vec![off.clone()] };
        voice(&cloud, &other).cast::<ReportPowerStates>(&testing::context(), &told).await.unwrap();
    }
    cloud.pass(std::time::Duration::from_secs(5)).await;
    let after = cloud.get(id).await;
    assert_eq!((after.vm_state, after.power_state), (VmState::Active, PowerState::Running));
    // Its own host is believed.
    let told = ReportPowerStatesRequest { host: own.clone(), states: vec![off] };
    voice(&cloud, &own).cast::<ReportPowerStates>(&testing::context(), &told).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(5)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Stopped);
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_ends_no_step_of_another_and_keeps_no_lease_of_its() {
    let cloud = Cloud::start(options()).await;
    cloud.hosts.values().for_each(|host| host.hang(Operation::Spawn));
    let id = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.pass(std::time::Duration::from_secs(1)).await;
    let (own, other) = hosts(&cloud, id).await;
    let task = cloud.store.list_tasks(Some(id)).await.unwrap().remove(0);
    let rpc = voice(&cloud, &other);
    let done = |task_id: TaskId| ReportStepRequest {
        task_id,
        instance_id: id,
        epoch: task.epoch,
        outcome: StepOutcome::done(Some(PowerState::Running)),
        alive: None,
    };
    assert_eq!(rpc.call::<ReportStep>(&testing::context(), &done(task.id)).await.unwrap(), Verdict::Stale);
    assert_eq!(cloud.get(id).await.vm_state, VmState::Building, "nobody but its host says that it runs");
    let beat = |host: &HostName| HeartbeatRequest {
        host: host.clone(),
        zone: "nova".into(),
        node: None,
        working_on: vec![task.id],
        stats: None,
        disable: None,
        well: true,
    };
    cloud.pass(std::time::Duration::from_secs(5)).await;
    let lease = cloud.store.get_task(task.id).await.unwrap().lease_until;
    rpc.call::<Heartbeat>(&testing::context(), &beat(&other)).await.unwrap();
    assert_eq!(cloud.store.get_task(task.id).await.unwrap().lease_until, lease);
    voice(&cloud, &own).call::<Heartbeat>(&testing::context(), &beat(&own)).await.unwrap();
    assert!(cloud.store.get_task(task.id).await.unwrap().lease_until > lease);
    cloud.hosts.values().for_each(|host| host.release(Operation::Spawn));
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}
