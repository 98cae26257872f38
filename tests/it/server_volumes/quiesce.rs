//! The file systems of a guest stand still while snapshots of its volumes are taken, and go on whatever comes of it.

use std::time::Duration;

use nova::volume::driver::{VolumeErrorKind, VolumeFault};
use nova_core::ids::InstanceId;
use nova_core::image::ImageStatus;
use nova_core::state::VmState;
use nova_db::ListQuery;
use nova_queue::Chances;
use nova_virt::{ErrorKind, FakeHypervisor, Operation};
use serde_json::Value;

use super::image_properties::{remembering, root};
use super::images::{create_image, id_of};
use super::{boot_with, end_with_volumes, options};
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

const MUST: (&str, &str) = ("os_require_quiesce", "yes");
const AGENT: (&str, &str) = ("hw_qemu_guest_agent", "yes");

/// More moments than it has.
const MOMENTS: u32 = 60;

/// A server whose only disk is a volume that remembers that of its image.
async fn with_server(words: &[(&str, &str)]) -> (Cloud, InstanceId) {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
    let volume = remembering(&cloud, words).await;
    let (status, answer) = boot_with(&cloud, root(volume)).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    (cloud, id_of(&answer))
}

fn host(cloud: &Cloud) -> &FakeHypervisor {
    cloud.hosts.values().next().unwrap()
}

/// Snapshots, and images with the state of each.
async fn made(cloud: &Cloud) -> (usize, Vec<ImageStatus>) {
    let snapshots = cloud.store.list_volume_snapshots(&ListQuery::default()).await.unwrap();
    let images = cloud.store.list_images().await.unwrap();
    (snapshots.len(), images.into_iter().map(|image| image.status).collect())
}

/// All is over: the server is as it was, and its file systems go on. Is there an image?
async fn is_made(cloud: &Cloud, server: InstanceId, how: &str) -> bool {
    cloud.settle().await;
    let row = cloud.get(server).await;
    assert_eq!((row.vm_state, row.task_state), (VmState::Active, None), "{how}");
    assert!(!host(cloud).is_frozen(server), "{how}: it stands still");
    cloud.check().await;
    match made(cloud).await {
        (1, images) if images == [ImageStatus::Active] => true,
        (0, images) if images.is_empty() => false,
        other => panic!("{how}: {other:?}"),
    }
}

/// Deletes the image and its snapshot, then the server with its volume.
async fn end(cloud: Cloud, server: InstanceId) {
    for image in cloud.store.list_images().await.unwrap() {
        cloud.store.delete_image(image.id).await.unwrap();
    }
    for snapshot in cloud.store.list_volume_snapshots(&ListQuery::default()).await.unwrap() {
        let manager = &cloud.volumes.as_ref().unwrap().manager;
        manager.delete_snapshot(&cloud.demo(), snapshot.id, false).await.unwrap();
    }
    cloud.pass(Duration::from_secs(30)).await;
    end_with_volumes(cloud, server).await;
}

/// What is answered, and what the server says of it: of what is not the user's fault the API says no more.
async fn said(cloud: &Cloud, server: InstanceId, answer: &Value) -> String {
    let fault = cloud.get(server).await.fault.map(|fault| fault.message);
    format!("{answer} {}", fault.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn they_stand_still_until_the_last_snapshot_is_taken() {
    let (cloud, server) = with_server(&[MUST, AGENT]).await;
    let host = host(&cloud);
    host.hang(Operation::Quiesce);
    host.hang(Operation::Unquiesce);
    let look = async {
        cloud.pass(Duration::from_secs(1)).await;
        assert_eq!(made(&cloud).await, (0, vec![ImageStatus::Queued]), "none before they stand still");
        host.release(Operation::Quiesce);
        cloud.pass(Duration::from_secs(1)).await;
        assert!(host.is_frozen(server));
        assert_eq!(made(&cloud).await, (1, vec![ImageStatus::Queued]), "it is not known yet what they are worth");
        host.release(Operation::Unquiesce);
    };
    let ((status, answer), ()) = tokio::join!(create_image(&cloud, server), look);
    assert_eq!(status, 202, "{answer}");
    assert!(is_made(&cloud, server, "").await);
    assert_eq!(host.freezes_of(server), 1);
    end(cloud, server).await;
}

/// Whether there is an image, and what is answered.
#[tokio::test(start_paused = true)]
async fn whether_they_can() {
    type Faults = &'static [(Operation, u32, ErrorKind)];
    const CAN: Faults = &[];
    const FREEZE: Faults = &[(Operation::Quiesce, 1, ErrorKind::Failed)];
    const THAW: Faults = &[(Operation::Unquiesce, 2, ErrorKind::Failed)];
    const THAW_OFTEN: Faults = &[(Operation::Unquiesce, 5, ErrorKind::Failed)];
    type Case = (&'static [(&'static str, &'static str)], Faults, u16, &'static str, u32);
    let cases: [Case; 8] = [
        (&[MUST], CAN, 400, "QEMU guest agent is not enabled", 0),
        (&[MUST, ("hw_qemu_guest_agent", "no")], CAN, 400, "QEMU guest agent is not enabled", 0),
        (&[], CAN, 202, "", 0),
        (&[AGENT], CAN, 202, "", 1),
        (&[AGENT], FREEZE, 202, "", 0),
        (&[MUST, AGENT], FREEZE, 500, "did not stand still", 0),
        (&[MUST, AGENT], THAW, 202, "", 1),
        (&[MUST, AGENT], THAW_OFTEN, 500, "stand still", 1),
    ];
    for (words, faults, expected, text, freezes) in cases {
        let (cloud, server) = with_server(words).await;
        for (operation, times, kind) in faults {
            host(&cloud).fail_next(*operation, *times, *kind);
        }
        let how = format!("{words:?} {faults:?}");
        let (status, answer) = create_image(&cloud, server).await;
        assert_eq!(status, expected, "{how}: {answer}");
        assert!(said(&cloud, server, &answer).await.contains(text), "{how}: {answer}");
        assert_eq!(is_made(&cloud, server, &how).await, expected == 202, "{how}");
        assert_eq!(host(&cloud).freezes_of(server), freezes, "{how}");
        end(cloud, server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn they_go_on_when_no_snapshot_is_taken() {
    let (cloud, server) = with_server(&[MUST, AGENT]).await;
    let disks = &cloud.volumes.as_ref().unwrap().disks;
    disks.fail_next("create_snapshot", VolumeFault::Before(VolumeErrorKind::Failed));
    let (status, answer) = create_image(&cloud, server).await;
    assert_eq!(status, 500);
    assert!(said(&cloud, server, &answer).await.contains("was not taken"));
    cloud.pass(Duration::from_secs(30)).await;
    assert!(!is_made(&cloud, server, "").await);
    let asked = |operation| host(&cloud).journal().iter().position(|entry| entry.operation == operation);
    assert!(asked(Operation::Quiesce).unwrap() < asked(Operation::Unquiesce).unwrap());
    assert_eq!(host(&cloud).freezes_of(server), 1);
    end(cloud, server).await;
}

/// A guest does not stand still for as long as nobody takes a snapshot. If it had to, there is no image.
#[tokio::test(start_paused = true)]
async fn they_go_on_in_time() {
    for must in [false, true] {
        let (mut cloud, server) = with_server(if must { &[MUST, AGENT] } else { &[AGENT] }).await;
        cloud.mortal_volume_host(0, false).await;
        let asked = tokio::time::timeout(Duration::from_secs(5), create_image(&cloud, server));
        assert!(asked.await.is_err(), "who takes it is dead");
        assert!(host(&cloud).is_frozen(server));
        cloud.pass(Duration::from_secs(300)).await;
        assert!(!host(&cloud).is_frozen(server));
        cloud.replace_volume_host(None).await;
        cloud.settle().await;
        cloud.pass(Duration::from_secs(60)).await;
        assert_eq!(is_made(&cloud, server, "").await, !must);
        let fault = cloud.get(server).await.fault.map(|fault| fault.message);
        assert_eq!(fault.is_some_and(|fault| fault.contains("did not stand still")), must);
        end(cloud, server).await;
    }
}

/// What the API answers is not the question: who died may keep it waiting.
async fn ask(cloud: &Cloud, server: InstanceId) -> Option<(u16, Value)> {
    tokio::time::timeout(Duration::from_secs(3), create_image(cloud, server)).await.ok()
}

#[tokio::test(start_paused = true)]
async fn conductors_die() {
    for moment in 1..MOMENTS {
        let (mut cloud, server) = with_server(&[MUST, AGENT]).await;
        let life = Life::of(moment);
        cloud.replace_conductor("mortal", Some(life.clone())).await;
        ask(&cloud, server).await;
        cloud.pass(Duration::from_secs(3)).await;
        let died = life.is_over();
        cloud.replace_conductor("next", None).await;
        assert!(is_made(&cloud, server, &format!("the conductor died at {moment}")).await);
        end(cloud, server).await;
        if !died {
            assert!(moment > 4);
            return;
        }
    }
    panic!("more moments than were tried");
}

#[tokio::test(start_paused = true)]
async fn hosts_die() {
    let mut unknown = 0;
    for moment in 1..MOMENTS {
        let (mut cloud, server) = with_server(&[MUST, AGENT]).await;
        let name = cloud.hosts.keys().next().unwrap().clone();
        let life = Life::long();
        cloud.start_agent(&name, Some(life.clone())).await;
        cloud.settle().await;
        life.end_after(moment);
        ask(&cloud, server).await;
        cloud.pass(Duration::from_secs(3)).await;
        let died = life.is_over();
        cloud.start_agent(&name, None).await;
        let made = is_made(&cloud, server, &format!("the host died at {moment}")).await;
        // One that had let them go on, and could not say so, does not know since when.
        let fault = cloud.get(server).await.fault.map(|fault| fault.message).unwrap_or_default();
        assert!(made || fault.contains("did not stand still"), "{moment}: {fault}");
        unknown += u32::from(!made);
        end(cloud, server).await;
        if !died {
            assert!(moment > 2 && unknown <= 2, "{unknown} of {moment}");
            return;
        }
    }
    panic!("more moments than were tried");
}

#[tokio::test(start_paused = true)]
async fn orders_come_twice() {
    let (cloud, server) = with_server(&[MUST, AGENT]).await;
    cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
    assert_eq!(create_image(&cloud, server).await.0, 202);
    assert!(is_made(&cloud, server, "twice").await);
    assert_eq!(host(&cloud).freezes_of(server), 1);
    end(cloud, server).await;
}

/// Nobody can have the guest of a host that is down stand still: where they must, there is no image.
#[tokio::test(start_paused = true)]
async fn hosts_that_are_down() {
    for (words, expected) in [(&[AGENT][..], 202), (&[MUST, AGENT], 500)] {
        let (mut cloud, server) = with_server(words).await;
        let name = cloud.hosts.keys().next().unwrap().clone();
        cloud.kill_agent(&name);
        cloud.pass(Duration::from_secs(200)).await;
        let (status, answer) = create_image(&cloud, server).await;
        assert_eq!(status, expected, "{words:?}: {answer}");
        assert!(expected == 202 || said(&cloud, server, &answer).await.contains("could not be made to stand still"));
        assert_eq!(is_made(&cloud, server, &format!("{words:?}")).await, expected == 202);
        assert_eq!(host(&cloud).freezes_of(server), 0);
        cloud.start_agent(&name, None).await;
        cloud.pass(Duration::from_secs(30)).await;
        end(cloud, server).await;
    }
}
