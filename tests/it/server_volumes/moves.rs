//! Servers that move between hosts with their volumes.

use std::time::Duration;

use nova_core::ids::{HostName, InstanceId, VolumeId};
use nova_core::state::VmState;
use nova_core::volume::VolumeStatus;
use nova_virt::{ErrorKind, Operation};
use serde_json::{Value, json};

use super::{attach, cloud_with_server, end, options};
use crate::support::Cloud;

async fn cloud() -> (Cloud, InstanceId, VolumeId) {
    let (cloud, server) = cloud_with_server(options()).await;
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    (cloud, server, volume)
}

async fn act(cloud: &Cloud, id: InstanceId, body: Value) {
    let (status, answer) = cloud.call_as_admin("POST", &format!("/compute/v2.1/servers/{id}/action"), Some(body)).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.fault, None, "{server:?}");
}

/// Only that host comes to the volume.
async fn only_there(cloud: &Cloud, volume: VolumeId, host: &HostName) {
    let volume = cloud.volume(volume).await;
    let hosts: Vec<_> = volume.attachments.values().map(|one| one.host()).collect();
    assert_eq!(hosts, [Some(host.as_str())]);
    assert_eq!(volume.status, VolumeStatus::InUse);
}

async fn host_of(cloud: &Cloud, id: InstanceId) -> HostName {
    cloud.get(id).await.host.unwrap()
}

#[tokio::test(start_paused = true)]
async fn cold_and_back_or_confirmed() {
    let (cloud, id, volume) = cloud().await;
    let first = host_of(&cloud, id).await;
    act(&cloud, id, json!({"migrate": null})).await;
    assert_eq!(cloud.volume(volume).await.attachments.len(), 2, "it may go back");
    act(&cloud, id, json!({"revertResize": null})).await;
    only_there(&cloud, volume, &first).await;
    cloud.check().await;
    act(&cloud, id, json!({"migrate": null})).await;
    act(&cloud, id, json!({"confirmResize": null})).await;
    let second = host_of(&cloud, id).await;
    assert_ne!(first, second);
    only_there(&cloud, volume, &second).await;
    cloud.check().await;
    end(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_runs() {
    let (cloud, id, volume) = cloud().await;
    let first = host_of(&cloud, id).await;
    act(&cloud, id, json!({"os-migrateLive": {"host": null, "block_migration": "auto"}})).await;
    let second = host_of(&cloud, id).await;
    assert_ne!(first, second);
    only_there(&cloud, volume, &second).await;
    cloud.check().await;
    end(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn off_its_host_and_on_one_again() {
    let (cloud, id, volume) = cloud().await;
    act(&cloud, id, json!({"shelve": null})).await;
    if cloud.get(id).await.vm_state == VmState::Shelved {
        act(&cloud, id, json!({"shelveOffload": null})).await;
    }
    assert_eq!(cloud.get(id).await.vm_state, VmState::ShelvedOffloaded);
    let now = cloud.volume(volume).await;
    assert_eq!(now.status, VolumeStatus::Reserved);
    assert!(now.attachments.values().all(|one| one.host().is_none()), "no host comes to it: {now:?}");
    // One more while it is on no host, which is only promised.
    let more = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, id, more).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.volume(more).await.status, VolumeStatus::Reserved);
    act(&cloud, id, json!({"unshelve": null})).await;
    let host = host_of(&cloud, id).await;
    only_there(&cloud, volume, &host).await;
    only_there(&cloud, more, &host).await;
    cloud.check().await;
    end(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn away_from_a_host_that_is_dead() {
    let (cloud, id, volume) = cloud().await;
    let first = host_of(&cloud, id).await;
    cloud.hosts[&first].set_available(false);
    cloud.hosts[&first].lose_power();
    cloud.force_down(&first, true).await;
    act(&cloud, id, json!({"evacuate": {}})).await;
    let second = host_of(&cloud, id).await;
    assert_ne!(first, second);
    only_there(&cloud, volume, &second).await;
    cloud.hosts[&first].set_available(true);
    cloud.force_down(&first, false).await;
    cloud.pass(Duration::from_secs(120)).await;
    cloud.check().await;
    end(cloud, id).await;
}

/// Nobody took it over: its host, which was shut out first, comes to its volumes again when it is back.
#[tokio::test(start_paused = true)]
async fn an_evacuation_that_fails_leaves_them_where_they_were() {
    let (cloud, id, volume) = cloud().await;
    let first = host_of(&cloud, id).await;
    cloud.hosts[&first].set_available(false);
    cloud.hosts[&first].lose_power();
    cloud.force_down(&first, true).await;
    for host in cloud.hosts.iter().filter(|(name, _)| **name != first).map(|(_, host)| host) {
        host.fail_next(Operation::Spawn, 9, ErrorKind::Failed);
    }
    let (status, text) = cloud.action(id, json!({"evacuate": {}})).await;
    assert_eq!(status, 200, "{text}");
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.host.as_ref()), (VmState::Error, Some(&first)), "{:?}", server.fault);
    only_there(&cloud, volume, &first).await;
    cloud.hosts[&first].set_available(true);
    cloud.force_down(&first, false).await;
    cloud.pass(Duration::from_secs(400)).await;
    cloud.check_volumes().await;
    assert!(cloud.act(id, nova_core::state::Action::RebootHard).await);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    only_there(&cloud, volume, &first).await;
    cloud.check().await;
    end(cloud, id).await;
}
