//! Volumes of servers: from the API through conductor and host to the volume host and back.

mod compare;
mod image_properties;
mod images;
mod local_disks;
mod moves;
mod outages;
mod quiesce;
mod rebuild;
mod refusals;
mod rescue;
mod silence;
mod swap;
mod sweep;
mod volume_host;
mod waits;

use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::{Action, VmState};
use nova_core::volume::VolumeStatus;
use nova_virt::{ErrorKind, Hypervisor, Operation};
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

pub(crate) fn options() -> CloudOptions {
    CloudOptions { volumes: true, ..CloudOptions::default() }
}

pub(crate) async fn cloud_with_server(options: CloudOptions) -> (Cloud, InstanceId) {
    let cloud = Cloud::start(options).await;
    let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    (cloud, id)
}

pub(crate) async fn attach(cloud: &Cloud, server: InstanceId, volume: VolumeId) -> (u16, Value) {
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
    cloud.call("POST", &path, Some(json!({"volumeAttachment": {"volumeId": volume}}))).await
}

pub(crate) async fn detach(cloud: &Cloud, server: InstanceId, volume: VolumeId) -> u16 {
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments/{volume}");
    cloud.call("DELETE", &path, None).await.0
}

/// Deletes the server; nothing of it holds a volume then.
pub(crate) async fn end(cloud: Cloud, server: InstanceId) {
    assert!(cloud.act(server, Action::Delete).await);
    cloud.settle().await;
    assert!(cloud.get(server).await.is_deleted());
    assert!(cloud.all_volumes().await.iter().all(|volume| volume.attachments.is_empty()));
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_plugged_in_and_out() {
    let (cloud, server) = cloud_with_server(options()).await;
    let [one, two] = [cloud.add_volume(1).await, cloud.add_volume(2).await];
    let (status, answer) = attach(&cloud, server, one).await;
    assert_eq!((status, &answer), (202, &Value::Null));
    assert_ne!(cloud.volume(one).await.status, VolumeStatus::Available, "it is promised by the answer");
    let (status, answer) = attach(&cloud, server, one).await;
    assert_eq!(status, 400, "{answer}");
    cloud.settle().await;
    assert_eq!(attach(&cloud, server, two).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.volume(one).await.status, VolumeStatus::InUse);
    cloud.check().await;
    let path = format!("/compute/v2.1/servers/{server}");
    let (_, list) = cloud.call("GET", &format!("{path}/os-volume_attachments"), None).await;
    let list = list["volumeAttachments"].as_array().unwrap();
    let devices: Vec<&str> = list.iter().map(|one| one["device"].as_str().unwrap()).collect();
    assert_eq!((list[0]["volumeId"].as_str(), devices), (Some(&*one.to_string()), vec!["/dev/vdb", "/dev/vdc"]));
    assert!(list[0].get("id").is_none() && list[0]["attachment_id"].is_string() && list[0]["bdm_uuid"].is_string());
    let (_, shown) = cloud.call("GET", &path, None).await;
    let attached = json!([{"id": one, "delete_on_termination": false}, {"id": two, "delete_on_termination": false}]);
    assert_eq!(shown["server"]["os-extended-volumes:volumes_attached"], attached);
    assert_eq!(detach(&cloud, server, one).await, 202);
    cloud.settle().await;
    assert_eq!(cloud.volume(one).await.status, VolumeStatus::Available);
    assert_eq!(detach(&cloud, server, one).await, 404);
    cloud.check().await;
    let change = json!({"volumeAttachment": {"volumeId": two, "delete_on_termination": true}});
    let one_path = format!("{path}/os-volume_attachments/{two}");
    assert_eq!(cloud.call("PUT", &one_path, Some(change)).await.0, 202);
    assert!(cloud.act(server, Action::Delete).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(30)).await;
    let left: Vec<VolumeId> = cloud.all_volumes().await.iter().map(|volume| volume.id).collect();
    assert_eq!(left, [one], "the other was deleted with its server");
    cloud.check().await;
    cloud.stop().await;
}

/// Nothing is begun with a volume that another server has, or that is not there.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_attached_is_refused() {
    let (cloud, server) = cloud_with_server(options()).await;
    let other = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    assert_eq!(attach(&cloud, other, volume).await.0, 400);
    assert_eq!(attach(&cloud, other, VolumeId::generate(&*cloud.entropy)).await.0, 404);
    let path = format!("/compute/v2.1/servers/{other}/os-volume_attachments");
    for wrong in [json!({}), json!({"volumeId": "x"}), json!({"volumeId": volume, "device": "vdb"})] {
        assert_eq!(cloud.call("POST", &path, Some(json!({"volumeAttachment": wrong}))).await.0, 400);
    }
    assert_eq!(detach(&cloud, other, volume).await, 404);
    cloud.check().await;
    end(cloud, server).await;
}

/// OSSA-2023-003 (row 8): a volume that a guest has not let go of is nobody else's, and is not deleted.
#[tokio::test(start_paused = true)]
async fn a_volume_that_its_guest_keeps_is_nobody_elses() {
    let (cloud, server) = cloud_with_server(options()).await;
    let other = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    let host = &cloud.hosts[cloud.get(server).await.host.as_ref().unwrap()];
    let has = async || host.attached_disks(server).await.unwrap().iter().any(|disk| disk.volume == volume);
    // As often as its host asks the guest.
    host.fail_next(Operation::DetachDisk, 4, ErrorKind::TimedOut);
    assert_eq!(detach(&cloud, server, volume).await, 202);
    cloud.settle().await;
    assert!(has().await);
    assert_eq!(cloud.volume(volume).await.status, VolumeStatus::InUse);
    assert_eq!(attach(&cloud, other, volume).await.0, 400);
    cloud.volumes.as_ref().unwrap().for_api.delete(&cloud.demo(), volume).await.unwrap_err();
    cloud.check().await;
    assert_eq!(detach(&cloud, server, volume).await, 202);
    cloud.settle().await;
    assert!(!has().await);
    assert_eq!(cloud.volume(volume).await.status, VolumeStatus::Available);
    end(cloud, server).await;
}

/// One that its host cannot plug in is its server's no more.
#[tokio::test(start_paused = true)]
async fn a_volume_that_is_not_plugged_in_is_free_again() {
    let (cloud, server) = cloud_with_server(CloudOptions { hosts: 1, ..options() }).await;
    let volume = cloud.add_volume(1).await;
    let host = cloud.hosts.values().next().unwrap();
    host.fail_next(Operation::AttachDisk, 1, ErrorKind::Failed);
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.volume(volume).await.status, VolumeStatus::Available);
    assert_eq!(cloud.get(server).await.volumes, []);
    cloud.check().await;
    end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_server_has_its_volumes_when_it_starts() {
    let (cloud, server) = cloud_with_server(options()).await;
    let volume = cloud.add_volume(1).await;
    assert!(cloud.act(server, Action::Stop).await);
    cloud.settle().await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    for action in [Action::Start, Action::RebootHard, Action::Rebuild, Action::Pause, Action::Unpause] {
        assert!(cloud.act(server, action).await, "{action:?}");
        cloud.settle().await;
        cloud.check().await;
        assert_eq!(cloud.volume(volume).await.status, VolumeStatus::InUse, "{action:?}");
    }
    end(cloud, server).await;
}

pub(crate) async fn boot_with(cloud: &Cloud, mappings: Value) -> (u16, Value) {
    boot_of(cloud, "", mappings).await
}

pub(crate) async fn boot_of(cloud: &Cloud, image: &str, mappings: Value) -> (u16, Value) {
    let flavor = cloud.flavor(1, 256);
    let made = cloud.store.create_flavor(flavor).await;
    assert!(made.is_ok() || matches!(made, Err(nova_db::StoreError::Duplicate { .. })));
    let server = json!({"name": "s", "flavorRef": "1", "imageRef": image, "networks": "none",
        "block_device_mapping_v2": mappings});
    cloud.call("POST", "/compute/v2.1/servers", Some(json!({ "server": server }))).await
}

#[tokio::test(start_paused = true)]
async fn a_server_boots_from_a_volume() {
    let cloud = Cloud::start(options()).await;
    let root = cloud.add_bootable_volume().await;
    let extra = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 3,
        "delete_on_termination": true, "tag": "data"});
    let boot = json!({"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0});
    let (status, answer) = boot_with(&cloud, json!([boot, extra])).await;
    assert_eq!(status, 202, "{answer}");
    let id: InstanceId = answer["server"]["id"].as_str().unwrap().parse().unwrap();
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    cloud.check().await;
    assert_eq!(cloud.volume(root).await.status, VolumeStatus::InUse);
    let host = &cloud.hosts[server.host.as_ref().unwrap()];
    let disks = host.attached_disks(id).await.unwrap();
    let names: Vec<(VolumeId, &str)> = disks.iter().map(|disk| (disk.volume, &*disk.device)).collect();
    assert_eq!(names, [(root, "vda"), (server.volumes[1].volume_id, "vdb")]);
    assert_eq!(host.spec_of(id).unwrap().disks, [], "its root disk is a volume");
    let (_, shown) = cloud.call("GET", &format!("/compute/v2.1/servers/{id}"), None).await;
    assert_eq!(shown["server"]["image"], "");
    assert_eq!(detach(&cloud, id, root).await, 400, "it is the root disk");
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(30)).await;
    let left = cloud.all_volumes().await;
    assert_eq!((left.len(), left[0].id, left[0].status), (1, root, VolumeStatus::Available));
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_boots_from_a_volume_that_is_made_of_an_image() {
    let cloud = Cloud::start(options()).await;
    let image = nova_core::ids::ImageId::generate(&*cloud.entropy);
    let boot = json!({"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
        "volume_size": 2, "delete_on_termination": true});
    let (status, answer) = boot_with(&cloud, json!([boot])).await;
    assert_eq!(status, 202, "{answer}");
    let id: InstanceId = answer["server"]["id"].as_str().unwrap().parse().unwrap();
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    let volume = cloud.volume(server.volumes[0].volume_id).await;
    assert_eq!((volume.image_id, volume.size_gb, volume.status), (Some(image), 2, VolumeStatus::InUse));
    cloud.check().await;
    end_with_volumes(cloud, id).await;
}

pub(crate) async fn end_with_volumes(cloud: Cloud, id: InstanceId) {
    assert!(cloud.act(id, Action::Delete).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(30)).await;
    assert!(cloud.all_volumes().await.is_empty(), "{:?}", cloud.all_volumes().await);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn mappings_that_cannot_be_are_refused() {
    let cloud = Cloud::start(options()).await;
    let (root, empty) = (cloud.add_bootable_volume().await, cloud.add_volume(1).await);
    let volume = |id: VolumeId, boot: i64| json!({"source_type": "volume", "destination_type": "volume", "uuid": id, "boot_index": boot});
    let blank = json!({"source_type": "blank", "destination_type": "volume", "boot_index": -1});
    let image = json!({"source_type": "image", "destination_type": "volume", "uuid": root, "boot_index": 0});
    let type_ = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 1, "volume_type": "none"});
    for (mappings, text) in [
        (json!([]), "imageRef"),
        (json!([volume(root, 1)]), "Boot sequence"),
        (json!([volume(root, -1)]), "Boot sequence"),
        (json!([volume(root, 0), volume(empty, 0)]), "Boot sequence"),
        (json!([volume(empty, 0)]), "is not bootable"),
        (json!([volume(VolumeId::generate(&*cloud.entropy), 0)]), "failed to get volume"),
        (json!([volume(root, 0), blank]), "non-zero size"),
        (json!([image]), "non-zero size"),
        (json!([volume(root, 0), type_]), "could not be found"),
    ] {
        let (status, answer) = boot_with(&cloud, mappings.clone()).await;
        let message = answer["badRequest"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(status == 400 && message.contains(text), "{mappings}: {status} {answer}");
    }
    cloud.check().await;
    cloud.stop().await;
}

/// A volume that grows while a guest has it: the guest is told.
#[tokio::test(start_paused = true)]
async fn a_guest_is_told_that_its_volume_has_grown() {
    let (cloud, server) = cloud_with_server(options()).await;
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    let manager = cloud.volumes.as_ref().unwrap().manager.clone();
    manager.extend(&cloud.demo(), volume, 3, true).await.unwrap();
    cloud.pass(Duration::from_secs(10)).await;
    assert_eq!((cloud.volume(volume).await.size_gb, cloud.volume(volume).await.status), (3, VolumeStatus::InUse));
    let host = &cloud.hosts[cloud.get(server).await.host.as_ref().unwrap()];
    let told = host.journal().iter().filter(|entry| entry.operation == Operation::ExtendDisk).count();
    assert_eq!(told, 1);
    cloud.check().await;
    end(cloud, server).await;
}

/// What `nova-manage check` says where a server's row and the books of volumes differ.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_together_is_found() {
    let (cloud, server) = cloud_with_server(options()).await;
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    assert_eq!(crate::check::violations(&cloud).await, []);
    let whole = cloud.get(server).await;
    let forgot = nova_core::instance::Instance { volumes: Vec::new(), ..whole.clone() };
    let forgot = cloud.store.update_instance(forgot).await.unwrap();
    let found = crate::check::violations(&cloud).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].invariant == "I7" && found[0].text.contains("does not know of it"), "{found:?}");
    let knows = nova_core::instance::Instance { volumes: whole.volumes, ..forgot };
    cloud.store.update_instance(knows).await.unwrap();
    let mut free = cloud.volume(volume).await;
    free.attachments.clear();
    free.status = VolumeStatus::Available;
    let volumes = vec![nova_db::Write::Update(free)];
    cloud.store.commit_volumes(nova_db::VolumeCommit { volumes, ..Default::default() }).await.unwrap();
    let found = crate::check::violations(&cloud).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].invariant == "I7" && found[0].text.contains("not attached to it"), "{found:?}");
    cloud.stop().await;
}
