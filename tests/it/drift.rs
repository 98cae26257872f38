//! What is on a host and what should be: compared when its agent starts, at intervals, and when its hypervisor tells.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::{Action, PowerState, VmState};

use crate::support::{Cloud, CloudOptions};

/// A host with a server that runs, one that is stopped and one that is paused.
async fn three(options: CloudOptions) -> (Cloud, [InstanceId; 3]) {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..options }).await;
    let ids = cloud.boot(3, cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    assert!(cloud.act(ids[1], Action::Stop).await && cloud.act(ids[2], Action::Pause).await);
    cloud.settle().await;
    (cloud, [ids[0], ids[1], ids[2]])
}

async fn states(cloud: &Cloud, ids: [InstanceId; 3]) -> [(VmState, PowerState); 3] {
    let mut found = Vec::new();
    for id in ids {
        let server = cloud.get(id).await;
        assert_eq!(server.task_state, None, "{server:?}");
        found.push((server.vm_state, server.power_state));
    }
    found.try_into().unwrap()
}

/// The machine goes down and comes up again, and its agent with it.
async fn power_cut(cloud: &mut Cloud) {
    let host = cloud.hosts.keys().next().unwrap().clone();
    cloud.hosts[&host].lose_power();
    cloud.start_agent(&host, None).await;
    cloud.settle().await;
    cloud.pass(Duration::from_secs(300)).await;
    cloud.settle().await;
}

const OFF: (VmState, PowerState) = (VmState::Stopped, PowerState::Shutdown);

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_servers_are_off_and_say_so() {
    let (mut cloud, ids) = three(CloudOptions::default()).await;
    power_cut(&mut cloud).await;
    assert_eq!(states(&cloud, ids).await, [OFF; 3]);
    cloud.check().await;
    cloud.stop().await;
}

/// What a stop leaves that failed after its guest was off, and said so.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_known_to_be_off_and_called_active_is_stopped() {
    let (cloud, ids) = three(CloudOptions::default()).await;
    let stopped = cloud.get(ids[1]).await;
    let said = nova_core::instance::Instance { vm_state: VmState::Active, ..stopped };
    cloud.store.update_instance(said).await.unwrap();
    cloud.pass(Duration::from_secs(300)).await;
    cloud.settle().await;
    assert_eq!(states(&cloud, ids).await[1], OFF);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_what_ran_runs_again_where_the_operator_wants_it() {
    let dress = |_: &str, _: &mut _, settings: &mut nova_compute::ComputeOptions| {
        settings.resume_guests_state_on_host_boot = true;
    };
    let (mut cloud, ids) = three(CloudOptions { dress, ..CloudOptions::default() }).await;
    power_cut(&mut cloud).await;
    assert_eq!(states(&cloud, ids).await, [(VmState::Active, PowerState::Running), OFF, OFF]);
    cloud.check().await;
    cloud.stop().await;
}

/// Whoever made them is gone, and makes them anew; nothing else is in that folder.
#[tokio::test(start_paused = true)]
async fn copies_of_disks_that_a_crash_has_left_go_when_the_agent_starts() {
    let (mut cloud, ids) = three(CloudOptions::default()).await;
    let host = cloud.hosts.keys().next().unwrap().clone();
    assert!(cloud.act(ids[0], Action::CreateImage).await);
    cloud.settle().await;
    let folder = cloud.snapshots_of(&host);
    std::fs::write(folder.join("left"), "a copy").unwrap();
    assert_eq!(cloud.copies().len(), 1);
    cloud.start_agent(&host, None).await;
    assert!(cloud.copies().is_empty());
    cloud.check().await;
    cloud.stop().await;
}

/// Somebody else's hand: a server that is stopped does not run.
#[tokio::test(start_paused = true)]
async fn a_stopped_server_that_was_started_behind_our_back_is_stopped_again() {
    use nova_virt::Hypervisor;
    let (cloud, ids) = three(CloudOptions::default()).await;
    let host = cloud.hosts.values().next().unwrap();
    host.power_on(ids[1]).await.unwrap();
    cloud.pass(Duration::from_secs(5)).await;
    cloud.settle().await;
    assert_eq!(states(&cloud, ids).await[1], OFF);
    assert_eq!(host.info(ids[1]).await.unwrap().power_state, PowerState::Shutdown);
    cloud.check().await;
    cloud.stop().await;
}
