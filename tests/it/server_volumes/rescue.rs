//! Rescue of servers that boot from volumes (2.87).

use nova_core::state::{Action, VmState};
use nova_virt::Hypervisor;
use serde_json::{Value, json};

use super::images::id_of;
use super::{attach, boot_with, end, options};
use crate::support::{Cloud, CloudOptions};

/// An image that says where its disk belongs, and one that does not.
const STABLE: &str = "4e5c0e00-31e7-49b7-b260-868f441e862b";
const PLAIN: &str = "70a599e0-31e7-49b7-b260-868f441e862b";

async fn server(cloud: &Cloud) -> nova_core::ids::InstanceId {
    let root = cloud.add_bootable_volume().await;
    let boot = json!({"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0});
    let (status, answer) = boot_with(cloud, json!([boot])).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    id_of(&answer)
}

async fn rescue(cloud: &Cloud, minor: u16, id: nova_core::ids::InstanceId, image: Option<&str>) -> (u16, Value) {
    let body = image.map_or_else(|| json!({}), |image| json!({"rescue_image_ref": image}));
    let path = format!("/compute/v2.1/servers/{id}/action");
    let (status, answer) = cloud.call_at(minor, "POST", &path, Some(json!({ "rescue": body }))).await;
    (status, answer["badRequest"]["message"].clone())
}

#[tokio::test(start_paused = true)]
async fn it_runs_from_the_rescue_image_with_its_volumes_as_they_were() {
    let cloud = Cloud::start(options()).await;
    let id = server(&cloud).await;
    let data = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, id, data).await.0, 202);
    cloud.settle().await;
    let host = &cloud.hosts[cloud.get(id).await.host.as_ref().unwrap()];
    let before = host.attached_disks(id).await.unwrap();
    assert_eq!(before.len(), 2);
    let cannot = |why: &str| (400, json!(format!("Instance {id} cannot be rescued: {why}")));
    let old = cannot("Cannot rescue a volume-backed instance");
    assert_eq!(rescue(&cloud, 86, id, Some(STABLE)).await, old);
    assert_eq!(rescue(&cloud, 86, id, None).await, old);
    let plain = cannot("The rescue image of a volume-backed instance needs hw_rescue_device or hw_rescue_bus");
    assert_eq!(rescue(&cloud, 87, id, Some(PLAIN)).await, plain);
    assert_eq!(rescue(&cloud, 87, id, None).await, (400, json!("Requested rescue image 'None' is not supported")));
    assert!(host.rescue_of(id).is_none() && cloud.get(id).await.vm_state == VmState::Active);

    assert_eq!(rescue(&cloud, 87, id, Some(STABLE)).await.0, 200);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Rescued, "{:?}", cloud.get(id).await.fault);
    assert!(host.rescue_of(id).unwrap().stable.is_some());
    assert_eq!(host.attached_disks(id).await.unwrap(), before);
    cloud.check().await;
    assert!(cloud.act(id, Action::Unrescue).await);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    assert_eq!(host.attached_disks(id).await.unwrap(), before);
    end(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_must_be_able_to() {
    let dress = |_: &str, machine: &mut nova_virt::FakeOptions, _: &mut nova_compute::ComputeOptions| {
        machine.traits.clear();
    };
    let cloud = Cloud::start(CloudOptions { dress, ..options() }).await;
    let id = server(&cloud).await;
    let (status, message) = rescue(&cloud, 87, id, Some(STABLE)).await;
    let why = format!("Instance {id} cannot be rescued: Host unable to rescue a volume-backed instance");
    assert_eq!((status, message), (400, json!(why)));
    end(cloud, id).await;
}

/// `os-assisted-volume-snapshots`: a host assists with none of the volumes that servers have here.
#[tokio::test(start_paused = true)]
async fn nobody_assists_with_snapshots() {
    let cloud = Cloud::start(options()).await;
    let [one, other] = [cloud.boot(1, cloud.flavor(1, 256)).await, cloud.boot(1, cloud.flavor(1, 256)).await];
    let [one, other] = [one.unwrap()[0], other.unwrap()[0]];
    cloud.settle().await;
    let shared = nova::volume::CreateVolume { size_gb: Some(1), multiattach: true, ..Default::default() };
    let (volume, shared) = (cloud.add_volume(1).await, cloud.make_volume(shared).await);
    const PATH: &str = "/compute/v2.1/os-assisted-volume-snapshots";
    let ask = async |volume| {
        let info = json!({"snapshot_id": "s", "type": "qcow2", "new_file": "f"});
        let body = json!({"snapshot": {"volume_id": volume, "create_info": info}});
        let made = cloud.call_as_admin("POST", PATH, Some(body)).await;
        let info = format!("%7B%22volume_id%22%3A%22{volume}%22%7D");
        let deleted = cloud.call_as_admin("DELETE", &format!("{PATH}/s?delete_info={info}"), None).await;
        assert_eq!(made, deleted);
        let (status, answer) = made;
        let fault = answer.as_object().unwrap().values().next().unwrap();
        (status, fault["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(ask(volume).await, (400, format!("No volume Block Device Mapping with id {volume}.")));
    assert_eq!(attach(&cloud, one, volume).await.0, 202);
    for server in [one, other] {
        assert_eq!(attach(&cloud, server, shared).await.0, 202);
        cloud.settle().await;
    }
    let text =
        format!("Volume {volume} of instance {one} is snapshotted by its own service; its host does not assist.");
    assert_eq!(ask(volume).await, (501, text));
    let (status, text) = ask(shared).await;
    assert!(status == 400 && text.contains("is a multi-attach volume"), "{status} {text}");
    assert!(cloud.act(other, Action::Delete).await);
    end(cloud, one).await;
}
