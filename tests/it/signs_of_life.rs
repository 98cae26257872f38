//! A host that reports lives: it need not say so again, and stays up.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nova_core::host::Service;
use nova_core::ids::{HostName, InstanceId};
use nova_core::rpc::conductor::{ReportStep, ReportStepRequest, StepOutcome, Verdict};
use nova_core::state::{Action, PowerState, VmState};
use nova_queue::testing;
use nova_virt::Operation;

use crate::foreign_host::voice;
use crate::support::{Cloud, CloudOptions};

async fn service(cloud: &Cloud, host: &HostName) -> Service {
    let all = cloud.store.list_services().await.unwrap();
    all.into_iter().find(|service| service.binary == "nova-compute" && service.host == *host).unwrap()
}

/// The host of a server says that it is built.
async fn report(cloud: &Cloud, id: InstanceId, alive: bool) -> (Verdict, Timestamp, Service) {
    let host = cloud.get(id).await.host.unwrap();
    let task = cloud.store.list_tasks(Some(id)).await.unwrap().remove(0);
    let request = ReportStepRequest {
        task_id: task.id,
        instance_id: id,
        epoch: task.epoch,
        outcome: StepOutcome::done(Some(PowerState::Running)),
        alive: alive.then(|| "nova".into()),
    };
    let told = cloud.now();
    let verdict = voice(cloud, &host).call::<ReportStep>(&testing::context(), &request).await.unwrap();
    cloud.pass(Duration::from_secs(1)).await;
    (verdict, told, service(cloud, &host).await)
}

#[tokio::test(start_paused = true)]
async fn a_report_is_one_if_it_says_so() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    cloud.hosts.values().for_each(|host| host.hang(Operation::Spawn));
    // No heartbeat is due in the seconds that follow.
    cloud.pass(Duration::from_secs(12)).await;
    let ids = cloud.boot(2, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(Duration::from_secs(1)).await;
    let (verdict, told, service) = report(&cloud, ids[0], false).await;
    assert_eq!(verdict, Verdict::Recorded, "whoever does not ask is not told");
    assert!(service.last_seen_up < told, "{} is before {told}", service.last_seen_up);
    let (verdict, told, service) = report(&cloud, ids[1], true).await;
    assert_eq!(verdict, Verdict::RecordedAlive);
    assert!(service.last_seen_up >= told, "{} is not before {told}", service.last_seen_up);
    cloud.hosts.values().for_each(|host| host.release(Operation::Spawn));
    cloud.settle().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_always_at_work_stays_up() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.keys().next().unwrap().clone();
    let flavor = cloud.flavor(1, 64);
    let oldest = SignedDuration::from_secs(15);
    for _ in 0..40 {
        let id = cloud.boot(1, flavor.clone()).await.unwrap()[0];
        for _ in 0..3 {
            cloud.pass(Duration::from_secs(1)).await;
            let age = cloud.now().duration_since(service(&cloud, &host).await.last_seen_up);
            assert!(age <= oldest, "nobody heard of it for {age}");
        }
        assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
        assert!(cloud.act(id, Action::Delete).await);
    }
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}
