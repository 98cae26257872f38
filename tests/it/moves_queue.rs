//! Live migrations that wait for their turn or are being made ready, and end before their guests are sent.

use std::time::Duration;

use nova_core::ids::{HostName, InstanceId};
use nova_core::migration::MigrationStatus;
use nova_core::state::VmState;
use nova_virt::Operation;
use serde_json::Value;

use crate::support::{Cloud, CloudOptions};

/// A moment in which a step is done.
const A_MOMENT: Duration = Duration::from_secs(15);

/// Servers on the one host that is chosen while it can be.
async fn on_one_host(count: u32, at_once: usize) -> (Cloud, Vec<InstanceId>, HostName) {
    let mut options = CloudOptions {
        hosts: 2,
        scheduler: "filter",
        dress: |name, machine, _| {
            let times = if name == "host00" { 16 } else { 1 };
            (machine.memory_mb, machine.vcpus) = (machine.memory_mb * u64::from(times), machine.vcpus * times);
        },
        ..CloudOptions::default()
    };
    options.conductor.moves.max_concurrent_live_migrations = at_once;
    let cloud = Cloud::start(options).await;
    let ids = cloud.boot(count, cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    let host = HostName::new("host00");
    for id in &ids {
        assert_eq!(cloud.get(*id).await.host.as_ref(), Some(&host));
    }
    (cloud, ids, host)
}

async fn statuses(cloud: &Cloud, ids: &[InstanceId]) -> Vec<MigrationStatus> {
    let mut all = Vec::new();
    for id in ids {
        all.push(cloud.migrations(*id).await[0].status);
    }
    all
}

async fn abort(cloud: &Cloud, minor: u16, id: InstanceId) -> (u16, Value) {
    let number = cloud.migrations(id).await[0].id;
    let path = format!("/compute/v2.1/servers/{id}/migrations/{number}");
    cloud.call_as_admin_at(minor, "DELETE", &path, None).await
}

/// It was at 2.64 and 2.65, and the second ended it.
async fn ends_early(cloud: &Cloud, id: InstanceId, status: &str) {
    let number = cloud.migrations(id).await[0].id;
    let (code, answer) = abort(cloud, 64, id).await;
    let text = format!(
        "Migration {number} state of instance {id} is {status}. Cannot abort live migration while the migration is in this \
         state."
    );
    assert_eq!((code, answer["badRequest"]["message"].as_str()), (400, Some(text.as_str())));
    assert_eq!(abort(cloud, 65, id).await.0, 202);
}

#[tokio::test(start_paused = true)]
async fn guests_leave_a_host_in_the_order_in_which_it_was_asked_for_and_so_many_at_once() {
    use MigrationStatus::{Cancelled, Completed, Queued, Running};
    let (cloud, ids, host) = on_one_host(5, 2).await;
    cloud.hosts[&host].hang(Operation::LiveMigrate);
    for id in &ids {
        assert_eq!(cloud.live_migrate(*id).await.0, 202);
        cloud.pass(Duration::from_secs(1)).await;
    }
    cloud.pass(A_MOMENT).await;
    assert_eq!(statuses(&cloud, &ids).await, [Running, Running, Queued, Queued, Queued]);
    // However long that lasts.
    cloud.pass(Duration::from_secs(120)).await;
    assert_eq!(statuses(&cloud, &ids).await, [Running, Running, Queued, Queued, Queued]);
    assert_eq!(abort(&cloud, 64, ids[1]).await.0, 202, "one that runs could always be ended");
    cloud.pass(Duration::from_secs(60)).await;
    assert_eq!(statuses(&cloud, &ids).await, [Running, Cancelled, Running, Queued, Queued], "the next, and no other");
    ends_early(&cloud, ids[3], "queued").await;
    cloud.pass(Duration::from_secs(60)).await;
    assert_eq!(statuses(&cloud, &ids).await, [Running, Cancelled, Running, Cancelled, Queued]);
    let kept = cloud.get(ids[3]).await;
    assert_eq!((kept.vm_state, kept.task_state, kept.host.as_ref()), (VmState::Active, None, Some(&host)));
    cloud.hosts[&host].release(Operation::LiveMigrate);
    cloud.settle().await;
    assert_eq!(statuses(&cloud, &ids).await, [Completed, Cancelled, Completed, Cancelled, Completed]);
    for id in ids {
        cloud.check_still(id).await;
    }
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn with_no_limit_nobody_waits() {
    let (cloud, ids, host) = on_one_host(4, 0).await;
    cloud.hosts[&host].hang(Operation::LiveMigrate);
    for id in &ids {
        assert_eq!(cloud.live_migrate(*id).await.0, 202);
    }
    cloud.pass(A_MOMENT).await;
    assert_eq!(statuses(&cloud, &ids).await, [MigrationStatus::Running; 4]);
    cloud.hosts[&host].release(Operation::LiveMigrate);
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_made_ready_is_ended_from_2_65_on() {
    let (cloud, ids, host) = on_one_host(1, 1).await;
    let (id, there) = (ids[0], &cloud.hosts[&HostName::new("host01")]);
    there.hang(Operation::PrepareIncoming);
    assert_eq!(cloud.live_migrate(id).await.0, 202);
    cloud.pass(A_MOMENT).await;
    assert_eq!(statuses(&cloud, &ids).await, [MigrationStatus::Preparing]);
    ends_early(&cloud, id, "preparing").await;
    there.release(Operation::PrepareIncoming);
    cloud.settle().await;
    assert_eq!(statuses(&cloud, &ids).await, [MigrationStatus::Cancelled]);
    let kept = cloud.get(id).await;
    assert_eq!((kept.vm_state, kept.task_state, kept.host), (VmState::Active, None, Some(host.clone())));
    assert_eq!(cloud.world.running_on(id), [host.to_string()]);
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check_still(id).await;
    // What is over can't be ended.
    assert_eq!(abort(&cloud, 65, id).await.0, 409);
    cloud.stop().await;
}
