//! Images of servers that boot from volumes, and servers of such images.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_core::ids::{ImageId, InstanceId};
use nova_core::image::{Image, ImageStatus};
use nova_core::state::{Action, VmState};
use nova_core::volume::{Snapshot, SnapshotStatus, VolumeStatus};
use nova_db::{ListQuery, StoreError};
use nova_virt::Hypervisor;
use serde_json::{Value, json};

use super::{boot_of, boot_with, options};
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

pub(super) fn id_of(answer: &Value) -> InstanceId {
    answer["server"]["id"].as_str().unwrap().parse().unwrap()
}

/// A server with a root volume and one for data.
pub(super) async fn server_of_volumes(cloud: &Cloud) -> InstanceId {
    let root = cloud.add_bootable_volume().await;
    let data = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 3,
        "delete_on_termination": true});
    let boot = json!({"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0});
    let (status, answer) = boot_with(cloud, json!([boot, data])).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    id_of(&answer)
}

pub(super) async fn create_image(cloud: &Cloud, server: InstanceId) -> (u16, Value) {
    let path = format!("/compute/v2.1/servers/{server}/action");
    cloud.call("POST", &path, Some(json!({"createImage": {"name": "kept", "metadata": {"a": "b"}}}))).await
}

async fn snapshots(cloud: &Cloud) -> Vec<Snapshot> {
    cloud.store.list_volume_snapshots(&ListQuery::default()).await.unwrap()
}

async fn images(cloud: &Cloud) -> Vec<Image> {
    cloud.store.list_images().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_image_says_of_which_snapshots_it_is() {
    let cloud = Cloud::start(options()).await;
    let server = server_of_volumes(&cloud).await;
    let (status, answer) = create_image(&cloud, server).await;
    assert_eq!(status, 202, "{answer}");
    let id: ImageId = answer["image_id"].as_str().unwrap().parse().unwrap();
    let image = cloud.store.get_image(id).await.unwrap();
    assert_eq!((image.status, image.size, image.min_disk), (ImageStatus::Active, Some(0), 0));
    let property = |key: &str| image.properties.get(key).map(String::as_str);
    assert_eq!((property("bdm_v2"), property("root_device_name")), (Some("True"), Some("/dev/vda")));
    assert_eq!((property("image_type"), property("a")), (Some("snapshot"), Some("b")));
    let mappings: Value = serde_json::from_str(property("block_device_mapping").unwrap()).unwrap();
    let taken = snapshots(&cloud).await;
    assert!(taken.iter().all(|one| one.status == SnapshotStatus::Available && one.name == "snapshot for kept"));
    let row = cloud.get(server).await;
    for (mapping, volume) in mappings.as_array().unwrap().iter().zip(&row.volumes) {
        let snapshot = taken.iter().find(|one| one.volume_id == volume.volume_id).unwrap();
        assert_eq!(mapping["snapshot_id"], json!(snapshot.id));
        assert_eq!((&mapping["source_type"], &mapping["destination_type"]), (&json!("snapshot"), &json!("volume")));
        assert_eq!(
            (&mapping["boot_index"], &mapping["device_name"]),
            (&json!(volume.boot_index), &json!(volume.device))
        );
        assert_eq!(mapping["delete_on_termination"], json!(volume.delete_on_termination));
        assert_eq!(mapping["volume_size"], json!(snapshot.size_gb));
    }
    assert_eq!((mappings.as_array().unwrap().len(), taken.len()), (2, 2));
    assert_eq!((row.task_state, row.vm_state), (None, VmState::Active));
    cloud.settle().await;
    cloud.check().await;

    // A server of it has volumes of its own. The CLI names the image's own disk, which is none.
    let base = json!({"uuid": id, "source_type": "image", "destination_type": "local", "boot_index": 0,
        "delete_on_termination": true});
    let (status, answer) = boot_of(&cloud, &id.to_string(), json!([base])).await;
    assert_eq!(status, 202, "{answer}");
    let copy = id_of(&answer);
    cloud.settle().await;
    let row = cloud.get(copy).await;
    assert_eq!((row.vm_state, row.volumes.len()), (VmState::Active, 2), "{:?}", row.fault);
    let host = &cloud.hosts[row.host.as_ref().unwrap()];
    let devices: Vec<String> = host.attached_disks(copy).await.unwrap().into_iter().map(|disk| disk.device).collect();
    assert_eq!(devices, ["vda", "vdb"]);
    assert_eq!(host.spec_of(copy).unwrap().disks, [], "its root disk is a volume");
    for (volume, mapping) in row.volumes.iter().zip(mappings.as_array().unwrap()) {
        let volume = cloud.volume(volume.volume_id).await;
        assert_eq!((json!(volume.snapshot_id), volume.status), (mapping["snapshot_id"].clone(), VolumeStatus::InUse));
    }
    cloud.check().await;
    // It makes no disk by itself, and no backups are made of such servers.
    let rescue = json!({"rescue": {"rescue_image_ref": id}});
    let path = format!("/compute/v2.1/servers/{copy}/action");
    assert_eq!(cloud.call("POST", &path, Some(rescue)).await.0, 400);
    let backup = json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}});
    assert_eq!(cloud.call("POST", &path, Some(backup)).await.0, 400);
    for one in [copy, server] {
        assert!(cloud.act(one, Action::Delete).await);
    }
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}

/// What the volume service refuses is answered at once, and leaves neither an image nor a snapshot.
#[tokio::test(start_paused = true)]
async fn over_quota_nothing_is_left() {
    let cloud = Cloud::start(options()).await;
    let server = server_of_volumes(&cloud).await;
    let own = cloud.add_volume(1).await;
    let manager = cloud.volumes.as_ref().unwrap().manager.clone();
    // One more can be taken, and two are needed.
    for _ in 0..9 {
        manager.take_snapshot(&cloud.demo(), own, "mine", "", &Default::default(), false).await.unwrap();
        cloud.pass(Duration::from_secs(1)).await;
    }
    let (status, answer) = create_image(&cloud, server).await;
    assert_eq!(status, 403, "{answer}");
    cloud.settle().await;
    cloud.pass(Duration::from_secs(60)).await;
    assert!(images(&cloud).await.is_empty());
    assert_eq!(snapshots(&cloud).await.len(), 9);
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

/// A shelved server is kept as its volumes: no image is made of it.
#[tokio::test(start_paused = true)]
async fn a_shelved_one_has_no_image() {
    let cloud = Cloud::start(options()).await;
    let server = server_of_volumes(&cloud).await;
    let act = async |body: Value| {
        let path = format!("/compute/v2.1/servers/{server}/action");
        let (status, answer) = cloud.call("POST", &path, Some(body)).await;
        assert_eq!(status, 202, "{answer}");
        cloud.settle().await;
    };
    act(json!({"shelve": null})).await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::ShelvedOffloaded);
    assert!(images(&cloud).await.is_empty() && snapshots(&cloud).await.is_empty());
    act(json!({"unshelve": null})).await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

/// Whatever becomes of it: an image with its snapshots, or nothing.
pub(super) async fn judge(cloud: &Cloud, how: &str) -> bool {
    cloud.settle().await;
    cloud.pass(Duration::from_secs(700)).await;
    cloud.settle().await;
    let (images, taken) = (images(cloud).await, snapshots(cloud).await);
    assert!(images.iter().all(|image| image.status == ImageStatus::Active), "{how}: {images:?}");
    let named: BTreeSet<String> = taken.iter().map(|snapshot| snapshot.id.to_string()).collect();
    assert_eq!(named.len(), images.len() * 2, "{how}: {images:?} {taken:?}");
    for image in &images {
        assert!(named.iter().all(|id| image.properties["block_device_mapping"].contains(id)), "{how}: {image:?}");
    }
    cloud.check().await;
    !images.is_empty()
}

#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_take_snapshots() {
    for moment in 1..60 {
        let mut cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
        let server = server_of_volumes(&cloud).await;
        let life = Life::of(moment);
        cloud.replace_conductor("mortal", Some(life.clone())).await;
        let asked = tokio::time::timeout(Duration::from_secs(3), create_image(&cloud, server)).await;
        cloud.pass(Duration::from_secs(3)).await;
        let died = life.is_over();
        cloud.replace_conductor("next", None).await;
        assert!(judge(&cloud, &format!("died at {moment}: {asked:?}")).await, "it was made at last");
        cloud.stop().await;
        if !died {
            return;
        }
    }
    panic!("more moments than were tried");
}

#[tokio::test(start_paused = true)]
async fn servers_are_deleted_while_snapshots_are_taken() {
    for wait in [0, 1, 2, 4, 7, 12, 20, 50] {
        let cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
        let server = server_of_volumes(&cloud).await;
        let deletion = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            assert!(cloud.act(server, Action::Delete).await);
        };
        tokio::join!(create_image(&cloud, server), deletion);
        judge(&cloud, &format!("deleted after {wait} ms")).await;
        assert!(cloud.get(server).await.is_deleted());
        cloud.stop().await;
    }
}

/// An image that is deleted while it is made: its snapshots go with it.
#[tokio::test(start_paused = true)]
async fn images_are_deleted_while_they_are_made() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
    let server = server_of_volumes(&cloud).await;
    let deletion = async {
        loop {
            let there = images(&cloud).await;
            if let Some(image) = there.first() {
                let gone = cloud.store.delete_image(image.id).await;
                return assert!(matches!(gone, Ok(()) | Err(StoreError::NotFound { .. })));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (answer, ()) = tokio::join!(create_image(&cloud, server), deletion);
    let made = judge(&cloud, "the image was deleted").await;
    assert!(!made && answer.0 == 404, "{answer:?}");
    cloud.stop().await;
}
