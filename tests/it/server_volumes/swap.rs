//! A volume takes another one's place under a running guest.

use std::time::Duration;

use nova::volume::CreateVolume;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::{Action, VmState};
use nova_core::volume::VolumeStatus;
use nova_virt::{AttachedDisk, ErrorKind, Hypervisor, JournalEntry, Operation};
use serde_json::{Value, json};

use super::{attach, cloud_with_server, detach, end, options};
use crate::support::{Cloud, CloudOptions};

/// Longer than a task may take, and than a host has for taking something back.
const TOO_LONG: Duration = Duration::from_secs(3600 + 1200);

pub(super) async fn swap(cloud: &Cloud, server: InstanceId, old: VolumeId, new: VolumeId) -> (u16, Value) {
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments/{old}");
    cloud.call_as_admin("PUT", &path, Some(json!({"volumeAttachment": {"volumeId": new}}))).await
}

/// A server with a volume, and another volume.
async fn with_both() -> (Cloud, InstanceId, VolumeId, VolumeId) {
    on_hosts(1).await
}

async fn on_hosts(hosts: usize) -> (Cloud, InstanceId, VolumeId, VolumeId) {
    let (cloud, server) = cloud_with_server(CloudOptions { hosts, ..options() }).await;
    let [old, new] = [cloud.add_volume(1).await, cloud.add_volume(2).await];
    assert_eq!(attach(&cloud, server, old).await.0, 202);
    cloud.settle().await;
    (cloud, server, old, new)
}

/// The server has that volume, and the other one is free.
async fn has(cloud: &Cloud, server: InstanceId, volume: VolumeId, free: VolumeId) {
    cloud.settle().await;
    let row = cloud.get(server).await;
    let known: Vec<VolumeId> = row.volumes.iter().map(|one| one.volume_id).collect();
    assert_eq!((known, &row.volumes[0].swap), (vec![volume], &None), "{row:?}");
    let host = &cloud.hosts[row.host.as_ref().unwrap()];
    assert_eq!(host.attached_disks(server).await.unwrap(), [AttachedDisk { volume, device: "vdb".into() }]);
    let (one, other) = (cloud.volume(volume).await, cloud.volume(free).await);
    assert_eq!((one.status, other.status), (VolumeStatus::InUse, VolumeStatus::Available), "{one:?} {other:?}");
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_takes_anothers_place() {
    let (cloud, server, old, new) = with_both().await;
    let before = cloud.get(server).await.volumes[0].clone();
    let (status, answer) = swap(&cloud, server, old, new).await;
    assert_eq!((status, answer), (202, Value::Null));
    has(&cloud, server, new, old).await;
    let row = cloud.get(server).await;
    assert_eq!((row.volumes[0].id, &row.volumes[0].device), (before.id, &before.device));
    assert_eq!((row.vm_state, row.task_state, &row.fault), (VmState::Active, None, &None));
    let actions = cloud.store.list_actions(server).await.unwrap();
    let swapped = actions.iter().find(|action| action.action == "swap_volume").unwrap();
    assert!(swapped.finished.is_some() && swapped.events.iter().any(|event| event.event == "compute_swap_volume"));
    // And back, which only a larger one can.
    let (status, answer) = swap(&cloud, server, new, old).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(detach(&cloud, server, new).await, 202);
    cloud.settle().await;
    assert_eq!(cloud.volume(new).await.status, VolumeStatus::Available);
    end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_swapped_is_refused() {
    let (cloud, server, old, new) = with_both().await;
    let other = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    let taken = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, other, taken).await.0, 202);
    cloud.settle().await;
    let nothing = VolumeId::generate(&*cloud.entropy);
    for (from, to, expected, text) in [
        (nothing, new, 404, "No volume Block Device Mapping"),
        (new, old, 404, "No volume Block Device Mapping"),
        (old, nothing, 400, "could not be found"),
        (old, taken, 400, "must be detached"),
    ] {
        let (status, answer) = swap(&cloud, server, from, to).await;
        assert!(status == expected && answer.to_string().contains(text), "{from} {to}: {status} {answer}");
    }
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments/{old}");
    let body = json!({"volumeAttachment": {"volumeId": new}});
    assert_eq!(cloud.call("PUT", &path, Some(body)).await.0, 403, "a member may not");
    assert!(cloud.act(server, Action::Stop).await);
    cloud.settle().await;
    let (status, answer) = swap(&cloud, server, old, new).await;
    assert!(status == 409 && answer.to_string().contains("swap_volume"), "{status} {answer}");
    has(&cloud, server, old, new).await;
    assert!(cloud.act(other, Action::Delete).await);
    end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn what_several_servers_have_is_not_swapped() {
    let (cloud, server) = cloud_with_server(options()).await;
    let other = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    let shared = CreateVolume { size_gb: Some(1), multiattach: true, ..CreateVolume::default() };
    let (shared, new) = (cloud.make_volume(shared).await, cloud.add_volume(1).await);
    cloud.settle().await;
    for one in [server, other] {
        assert_eq!(attach(&cloud, one, shared).await.0, 202);
        cloud.settle().await;
    }
    let (status, answer) = swap(&cloud, server, shared, new).await;
    assert!(status == 400 && answer.to_string().contains("multi-attach"), "{status} {answer}");
    assert_eq!(detach(&cloud, other, shared).await, 202);
    cloud.settle().await;
    assert_eq!(swap(&cloud, server, shared, new).await.0, 202);
    has(&cloud, server, new, shared).await;
    assert!(cloud.act(other, Action::Delete).await);
    end(cloud, server).await;
}

/// While nobody could say which of both the guest has, nothing is begun that would tell a host.
#[tokio::test(start_paused = true)]
async fn what_brings_volumes_waits_for_it() {
    let (cloud, server, old, new) = with_both().await;
    let host = cloud.hosts.values().next().unwrap();
    host.hang(Operation::SwapDisk);
    assert_eq!(swap(&cloud, server, old, new).await.0, 202);
    cloud.pass(Duration::from_secs(1)).await;
    assert_eq!(cloud.volume(old).await.status, VolumeStatus::Detaching);
    assert!(!cloud.act(server, Action::Rebuild).await);
    assert!(!cloud.act(server, Action::CreateImage).await);
    assert_ne!(detach(&cloud, server, old).await, 202);
    assert_ne!(attach(&cloud, server, new).await.0, 202);
    assert_ne!(swap(&cloud, server, old, new).await.0, 202);
    host.release(Operation::SwapDisk);
    has(&cloud, server, new, old).await;
    end(cloud, server).await;
}

/// What stops the guest does not wait for the copy: that ends, and the server keeps what it had.
#[tokio::test(start_paused = true)]
async fn what_stops_the_guest_ends_it() {
    for action in [Action::RebootHard, Action::Stop, Action::Delete] {
        let (cloud, server, old, new) = with_both().await;
        let host = cloud.hosts.values().next().unwrap();
        host.hang(Operation::SwapDisk);
        assert_eq!(swap(&cloud, server, old, new).await.0, 202);
        cloud.pass(Duration::from_secs(1)).await;
        assert!(cloud.act(server, action).await, "{action:?}");
        cloud.pass(Duration::from_secs(5)).await;
        let row = cloud.get(server).await;
        let ended = match action {
            Action::RebootHard => row.vm_state == VmState::Active && host.journal().iter().any(rebooted),
            Action::Stop => row.vm_state == VmState::Stopped,
            _ => row.is_deleted(),
        };
        assert!(ended && row.task_state.is_none(), "{action:?}: {row:?}");
        // Nobody begins it again.
        host.release(Operation::SwapDisk);
        cloud.pass(Duration::from_secs(250)).await;
        if action == Action::Delete {
            assert!(cloud.all_volumes().await.iter().all(|volume| volume.status == VolumeStatus::Available));
            cloud.check().await;
            cloud.stop().await;
        } else {
            has(&cloud, server, old, new).await;
            end(cloud, server).await;
        }
    }
}

fn rebooted(entry: &JournalEntry) -> bool {
    entry.operation == Operation::Reboot
}

/// A copy that outlasts the task's deadline is ended, and takes no volume's place later.
#[tokio::test(start_paused = true)]
async fn a_copy_that_takes_too_long_is_ended() {
    let (cloud, server, old, new) = with_both().await;
    let host = cloud.hosts.values().next().unwrap();
    host.hang(Operation::SwapDisk);
    assert_eq!(swap(&cloud, server, old, new).await.0, 202);
    cloud.pass(TOO_LONG).await;
    assert!(cloud.get(server).await.fault.is_some());
    host.release(Operation::SwapDisk);
    cloud.pass(Duration::from_secs(1)).await;
    has(&cloud, server, old, new).await;
    end(cloud, server).await;
}

/// Neither volume is given back while the host cannot say which of both the guest has, however long that is.
#[tokio::test(start_paused = true)]
async fn a_host_is_asked_until_it_says_which() {
    let (cloud, server, old, new) = with_both().await;
    let host = cloud.hosts.values().next().unwrap();
    host.fail_next_after_effect(Operation::SwapDisk, 1, ErrorKind::Unavailable);
    host.hang(Operation::SettleSwap);
    assert_eq!(swap(&cloud, server, old, new).await.0, 202);
    cloud.pass(TOO_LONG).await;
    for volume in [old, new] {
        assert_ne!(cloud.volume(volume).await.status, VolumeStatus::Available);
    }
    host.release(Operation::SettleSwap);
    has(&cloud, server, new, old).await;
    end(cloud, server).await;
}

/// Of a host that is down its operator says that nothing runs there; then the server may go elsewhere, with what it had.
#[tokio::test(start_paused = true)]
async fn a_dead_host_is_not_asked() {
    let (cloud, server, old, new) = on_hosts(2).await;
    let name = cloud.get(server).await.host.unwrap();
    let host = &cloud.hosts[&name];
    host.hang(Operation::SwapDisk);
    assert_eq!(swap(&cloud, server, old, new).await.0, 202);
    cloud.pass(Duration::from_secs(1)).await;
    host.set_available(false);
    host.lose_power();
    cloud.pass(TOO_LONG).await;
    assert_ne!(cloud.volume(new).await.status, VolumeStatus::Available);
    cloud.force_down(&name, true).await;
    cloud.settle().await;
    assert_eq!(cloud.volume(new).await.status, VolumeStatus::Available);
    let (status, text) = cloud.action(server, json!({"evacuate": {}})).await;
    assert_eq!(status, 200, "{text}");
    cloud.settle().await;
    host.set_available(true);
    host.release(Operation::SwapDisk);
    cloud.force_down(&name, false).await;
    cloud.pass(Duration::from_secs(120)).await;
    has(&cloud, server, old, new).await;
    assert_ne!(cloud.get(server).await.host.as_ref(), Some(&name));
    end(cloud, server).await;
}

/// The host does not know at first which of both the guest has, and is asked until it does.
#[tokio::test(start_paused = true)]
async fn nothing_is_given_back_before_the_host_knows() {
    for done in [false, true] {
        let (cloud, server, old, new) = with_both().await;
        let host = cloud.hosts.values().next().unwrap();
        if done {
            host.fail_next_after_effect(Operation::SwapDisk, 1, ErrorKind::TimedOut);
        } else {
            host.fail_next(Operation::SwapDisk, 1, ErrorKind::TimedOut);
        }
        host.fail_next(Operation::SettleSwap, 2, ErrorKind::Unavailable);
        assert_eq!(swap(&cloud, server, old, new).await.0, 202);
        cloud.settle().await;
        let told = host.journal().iter().filter(|entry| entry.operation == Operation::SettleSwap).count();
        assert_eq!(told, 3, "done: {done}");
        let (expected, free) = if done { (new, old) } else { (old, new) };
        has(&cloud, server, expected, free).await;
        assert_eq!(cloud.get(server).await.fault.is_some(), !done);
        end(cloud, server).await;
    }
}

/// Swapped while a resize waits to be confirmed, it is the new one that goes back.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_back_has_the_new_one() {
    let (cloud, server) = cloud_with_server(CloudOptions { hosts: 2, ..options() }).await;
    let [old, new] = [cloud.add_volume(1).await, cloud.add_volume(1).await];
    assert_eq!(attach(&cloud, server, old).await.0, 202);
    cloud.settle().await;
    let act = async |body: Value| {
        let path = format!("/compute/v2.1/servers/{server}/action");
        let (status, answer) = cloud.call_as_admin("POST", &path, Some(body)).await;
        assert_eq!(status, 202, "{answer}");
        cloud.settle().await;
    };
    act(json!({"migrate": null})).await;
    assert_eq!(swap(&cloud, server, old, new).await.0, 202);
    cloud.settle().await;
    act(json!({"revertResize": null})).await;
    has(&cloud, server, new, old).await;
    end(cloud, server).await;
}
