//! Servers that boot from volumes, rebuilt: the image's data takes the place of what is on the root volume (2.93).

use std::time::Duration;

use nova::volume::driver::{VolumeErrorKind, VolumeFault};
use nova_core::ids::{ImageId, InstanceId, VolumeId};
use nova_core::state::{Action, PowerState, VmState};
use nova_core::volume::VolumeStatus;
use nova_virt::{ErrorKind, Operation};
use serde_json::{Value, json};

use super::images::id_of;
use super::{boot_with, end_with_volumes, options};
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

/// A server that boots from a volume, and that volume.
pub(super) async fn with_server(options: CloudOptions) -> (Cloud, InstanceId, VolumeId) {
    let cloud = Cloud::start(options).await;
    let root = cloud.add_bootable_volume().await;
    let boot = json!([{"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0,
        "delete_on_termination": true}]);
    let (status, answer) = boot_with(&cloud, boot).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    (cloud, id_of(&answer), root)
}

pub(super) async fn rebuild(cloud: &Cloud, minor: u16, server: InstanceId, image: ImageId) -> (u16, Value) {
    let path = format!("/compute/v2.1/servers/{server}/action");
    cloud.call_at(minor, "POST", &path, Some(json!({"rebuild": {"imageRef": image}}))).await
}

/// Whoever died at that moment is back: the server runs from that image, and its end leaves nothing.
async fn came_through(cloud: Cloud, (server, root): (InstanceId, VolumeId), image: ImageId, moment: u32) {
    cloud.settle().await;
    cloud.pass(Duration::from_secs(250)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active, "{moment}: {:?}", cloud.get(server).await);
    is_of(&cloud, server, root, image).await;
    end_with_volumes(cloud, server).await;
}

/// The server has its volume, with that image on it.
pub(super) async fn is_of(cloud: &Cloud, server: InstanceId, root: VolumeId, image: ImageId) {
    let (row, volume) = (cloud.get(server).await, cloud.volume(root).await);
    assert_eq!((volume.image_id, volume.status, volume.bootable), (Some(image), VolumeStatus::InUse, true));
    assert_eq!(volume.image_metadata["image_id"], image.to_string());
    assert_eq!(row.volume_image["image_id"], image.to_string());
    assert_eq!((row.volumes.len(), row.volumes[0].volume_id, row.volumes[0].holds.len()), (1, root, 1));
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn another_image_takes_the_place_of_what_was_there() {
    let (cloud, server, root) = with_server(options()).await;
    let image = ImageId::generate(&*cloud.entropy);
    for action in [None, Some(Action::Stop)] {
        if let Some(action) = action {
            assert!(cloud.act(server, action).await);
            cloud.settle().await;
        }
        let before = cloud.get(server).await;
        let (status, answer) = rebuild(&cloud, 93, server, image).await;
        assert_eq!(status, 202, "{answer}");
        cloud.settle().await;
        let row = cloud.get(server).await;
        assert_eq!((row.vm_state, row.task_state, &row.fault), (before.vm_state, None, &None));
        assert_eq!(row.power_state, before.power_state);
        is_of(&cloud, server, root, image).await;
    }
    assert_eq!(cloud.get(server).await.power_state, PowerState::Shutdown);
    end_with_volumes(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn before_2_93_it_keeps_what_is_on_it() {
    let (cloud, server, root) = with_server(options()).await;
    let own = cloud.volume(root).await.image_id.unwrap();
    let (status, answer) = rebuild(&cloud, 92, server, ImageId::generate(&*cloud.entropy)).await;
    assert!(status == 400 && answer.to_string().contains("different image"), "{status} {answer}");
    let (status, answer) = rebuild(&cloud, 92, server, own).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    is_of(&cloud, server, root, own).await;
    end_with_volumes(cloud, server).await;
}

/// What could not be written leaves the volume as it was, and the server in ERROR, which a hard reboot ends.
#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_written() {
    let (cloud, server, root) = with_server(CloudOptions { hosts: 1, ..options() }).await;
    let own = cloud.volume(root).await.image_id.unwrap();
    let disks = &cloud.volumes.as_ref().unwrap().disks;
    disks.fail_next("write_image", VolumeFault::Before(VolumeErrorKind::InvalidImage));
    assert_eq!(rebuild(&cloud, 104, server, ImageId::generate(&*cloud.entropy)).await.0, 202);
    cloud.settle().await;
    let row = cloud.get(server).await;
    assert_eq!(row.vm_state, VmState::Error, "{row:?}");
    assert!(row.fault.unwrap().message.contains("Failed to rebuild volume backed instance"));
    is_of(&cloud, server, root, own).await;
    assert!(cloud.act(server, Action::RebootHard).await);
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    is_of(&cloud, server, root, own).await;
    end_with_volumes(cloud, server).await;
}

/// What is wrong with its volume keeps the server from starting, and not from ending what was begun.
#[tokio::test(start_paused = true)]
async fn a_volume_that_nobody_is_let_to_again() {
    let (cloud, server, _) = with_server(CloudOptions { hosts: 1, ..options() }).await;
    let disks = &cloud.volumes.as_ref().unwrap().disks;
    disks.fail_next("write_image", VolumeFault::Before(VolumeErrorKind::InvalidImage));
    for _ in 0..200 {
        disks.fail_next("connect_host", VolumeFault::Before(VolumeErrorKind::Failed));
    }
    assert_eq!(rebuild(&cloud, 104, server, ImageId::generate(&*cloud.entropy)).await.0, 202);
    cloud.pass(Duration::from_secs(600)).await;
    let row = cloud.get(server).await;
    assert_eq!((row.vm_state, row.task_state), (VmState::Error, None), "{row:?}");
    assert_eq!((row.volumes.len(), row.volumes[0].holds.len()), (1, 1), "it stays promised to it");
    end_with_volumes(cloud, server).await;
}

/// The guest's host fails when it is to be made anew: it is in ERROR, with the new image on its volume.
#[tokio::test(start_paused = true)]
async fn a_host_that_fails_at_the_end() {
    let (cloud, server, root) = with_server(CloudOptions { hosts: 1, ..options() }).await;
    cloud.hosts.values().next().unwrap().fail_next(Operation::Rebuild, 9, ErrorKind::Failed);
    let image = ImageId::generate(&*cloud.entropy);
    assert_eq!(rebuild(&cloud, 104, server, image).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Error);
    is_of(&cloud, server, root, image).await;
    assert!(cloud.act(server, Action::RebootHard).await);
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    end_with_volumes(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_rebuild() {
    for moment in 1..80 {
        let (mut cloud, server, root) = with_server(CloudOptions { hosts: 1, ..options() }).await;
        let life = Life::of(moment);
        cloud.replace_conductor("mortal", Some(life.clone())).await;
        let image = ImageId::generate(&*cloud.entropy);
        assert_eq!(rebuild(&cloud, 104, server, image).await.0, 202);
        cloud.pass(Duration::from_secs(3)).await;
        let died = life.is_over();
        cloud.replace_conductor("next", None).await;
        came_through(cloud, (server, root), image, moment).await;
        if !died {
            return;
        }
    }
    panic!("more moments than were tried");
}

#[tokio::test(start_paused = true)]
async fn hosts_die_while_they_rebuild() {
    for moment in 1..60 {
        let (mut cloud, server, root) = with_server(CloudOptions { hosts: 1, ..options() }).await;
        let host = cloud.get(server).await.host.unwrap();
        let life = Life::long();
        cloud.start_agent(&host, Some(life.clone())).await;
        cloud.settle().await;
        life.end_after(moment);
        let image = ImageId::generate(&*cloud.entropy);
        assert_eq!(rebuild(&cloud, 104, server, image).await.0, 202);
        cloud.pass(Duration::from_secs(3)).await;
        let died = life.is_over();
        cloud.start_agent(&host, None).await;
        came_through(cloud, (server, root), image, moment).await;
        if !died {
            return;
        }
    }
    panic!("more moments than were tried");
}

#[tokio::test(start_paused = true)]
async fn servers_are_deleted_while_they_are_rebuilt() {
    for wait in [0, 1, 3, 5, 8, 12, 20, 50, 80, 150] {
        let (cloud, server, _) = with_server(CloudOptions { hosts: 1, ..options() }).await;
        let deletion = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            assert!(cloud.act(server, Action::Delete).await);
        };
        tokio::join!(rebuild(&cloud, 104, server, ImageId::generate(&*cloud.entropy)), deletion);
        cloud.settle().await;
        cloud.pass(Duration::from_secs(60)).await;
        assert!(cloud.get(server).await.is_deleted(), "{wait}");
        assert!(cloud.all_volumes().await.is_empty(), "{wait}: {:?}", cloud.all_volumes().await);
        cloud.check().await;
        cloud.stop().await;
    }
}
