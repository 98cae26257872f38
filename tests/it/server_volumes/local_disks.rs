//! Blank disks on the host, as a request asks for them.

use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;
use nova_core::state::VmState;
use nova_virt::{DiskRole, DiskSource};
use serde_json::{Value, json};

use super::images::id_of;
use super::{end_with_volumes, options};
use crate::support::{Cloud, CloudOptions};

/// A flavor with 5 GiB of ephemeral space and 2 GiB of swap.
async fn cloud() -> Cloud {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..options() }).await;
    let flavor =
        Flavor { id: FlavorId::new("e"), name: "e".into(), ephemeral_gb: 5, swap_mb: 2048, ..cloud.flavor(1, 256) };
    cloud.store.create_flavor(flavor).await.unwrap();
    cloud
}

async fn boot(cloud: &Cloud, key: &str, disks: Value) -> (u16, Value) {
    let image = nova_core::ids::ImageId::generate(&*cloud.entropy);
    let mut server = json!({"name": "s", "flavorRef": "e", "imageRef": image, "networks": "none"});
    server[key] = disks;
    if key == "block_device_mapping_v2" {
        let base = json!({"uuid": image, "source_type": "image", "destination_type": "local", "boot_index": 0});
        server[key].as_array_mut().unwrap().push(base);
    }
    cloud.call("POST", "/compute/v2.1/servers", Some(json!({ "server": server }))).await
}

fn blank(size: Option<u64>, format: &str) -> Value {
    let mut disk =
        json!({"source_type": "blank", "destination_type": "local", "guest_format": format, "boot_index": -1});
    if let Some(size) = size {
        disk["volume_size"] = json!(size);
    }
    disk
}

/// Roles and sizes of its blank disks.
async fn disks(cloud: &Cloud, id: nova_core::ids::InstanceId) -> Vec<(DiskRole, u64)> {
    let host = cloud.get(id).await.host.unwrap();
    let spec = cloud.hosts[&host].spec_of(id).unwrap();
    let blank = spec.disks.iter().filter(|disk| disk.role != DiskRole::Root);
    blank.inspect(|disk| assert_eq!(disk.source, DiskSource::Blank)).map(|disk| (disk.role, disk.size_gb)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_has_the_disks_that_were_asked_for() {
    use DiskRole::{Ephemeral, Swap};
    let cloud = cloud().await;
    let data = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": -1,
        "delete_on_termination": true});
    let current = "block_device_mapping_v2";
    for (key, wanted, expected) in [
        (current, json!([]), vec![(Ephemeral, 5), (Swap, 2)]),
        (current, json!([blank(None, "ext4")]), vec![(Ephemeral, 5), (Swap, 2)]),
        (current, json!([blank(Some(2), ""), blank(Some(1024), "swap")]), vec![(Ephemeral, 2), (Swap, 1)]),
        (
            "block_device_mapping",
            json!([{"virtual_name": "ephemeral0", "device_name": "vdb", "volume_size": 4}]),
            vec![(Ephemeral, 4), (Swap, 2)],
        ),
        (
            current,
            json!([blank(Some(2), "ext4"), blank(Some(3), "ext4"), data]),
            vec![(Ephemeral, 2), (Ephemeral, 3), (Swap, 2)],
        ),
    ] {
        let (status, answer) = boot(&cloud, key, wanted.clone()).await;
        assert_eq!(status, 202, "{wanted}: {answer}");
        let id = id_of(&answer);
        cloud.settle().await;
        let server = cloud.get(id).await;
        assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
        assert_eq!(disks(&cloud, id).await, expected, "{wanted}");
        // Names of volumes come after those of the disks on the host.
        let letter = char::from(b'b' + u8::try_from(expected.len()).unwrap());
        assert!(server.volumes.iter().all(|one| one.device == Some(format!("/dev/vd{letter}"))), "{server:?}");
        // The host is booked for what the flavor has, as in Nova.
        assert_eq!(server.booked_resources().disk_gb, 1 + 5 + 2);
        let path = format!("/compute/v2.1/servers/{id}/action");
        for body in [json!({"migrate": null}), json!({"confirmResize": null})] {
            let (status, answer) = cloud.call_as_admin("POST", &path, Some(body)).await;
            assert!((200..300).contains(&status), "{answer}");
            cloud.settle().await;
        }
        assert_eq!(disks(&cloud, id).await, expected, "after a move: {wanted}");
        cloud.check().await;
        assert!(cloud.act(id, nova_core::state::Action::Delete).await);
        cloud.settle().await;
    }
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_flavor_has_no_room_for_is_refused() {
    let cloud = cloud().await;
    let mut first = blank(Some(1), "ext4");
    first["boot_index"] = json!(1);
    for (wanted, text) in [
        (json!([blank(Some(6), "ext4")]), "Ephemeral disks requested are larger"),
        (json!([blank(Some(3), "ext4"), blank(Some(3), "ext4")]), "Ephemeral disks requested are larger"),
        (json!([blank(Some(2049), "swap")]), "Swap drive requested is larger"),
        (json!([blank(Some(1), "swap"), blank(Some(1), "swap")]), "More than one swap"),
        (json!([blank(Some(1), ""), blank(Some(1), ""), blank(Some(1), "swap")]), "more local devices"),
        (json!([first]), "Boot sequence"),
    ] {
        let (status, answer) = boot(&cloud, "block_device_mapping_v2", wanted.clone()).await;
        assert!(status == 400 && answer.to_string().contains(text), "{wanted}: {status} {answer}");
    }
    cloud.check().await;
    cloud.stop().await;
}

/// An image of a server that boots from a volume asks for the same disks.
#[tokio::test(start_paused = true)]
async fn an_image_of_volumes_has_them_too() {
    let cloud = cloud().await;
    let root = cloud.add_bootable_volume().await;
    let boot = json!({"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0,
        "delete_on_termination": true});
    let server = json!({"name": "s", "flavorRef": "e", "imageRef": "", "networks": "none",
        "block_device_mapping_v2": [boot, blank(Some(2), "ext4"), blank(Some(1024), "swap")]});
    let (status, answer) = cloud.call("POST", "/compute/v2.1/servers", Some(json!({ "server": server }))).await;
    assert_eq!(status, 202, "{answer}");
    let id = id_of(&answer);
    cloud.settle().await;
    let path = format!("/compute/v2.1/servers/{id}/action");
    let (status, answer) = cloud.call("POST", &path, Some(json!({"createImage": {"name": "kept"}}))).await;
    assert_eq!(status, 202, "{answer}");
    let server = json!({"name": "copy", "flavorRef": "e", "imageRef": answer["image_id"], "networks": "none"});
    let (status, answer) = cloud.call("POST", "/compute/v2.1/servers", Some(json!({ "server": server }))).await;
    assert_eq!(status, 202, "{answer}");
    let copy = id_of(&answer);
    cloud.settle().await;
    assert_eq!(disks(&cloud, copy).await, [(DiskRole::Ephemeral, 2), (DiskRole::Swap, 1)]);
    assert!(cloud.act(copy, nova_core::state::Action::Delete).await);
    cloud.settle().await;
    for snapshot in cloud.store.list_volume_snapshots(&nova_db::ListQuery::default()).await.unwrap() {
        cloud.volumes.as_ref().unwrap().manager.delete_snapshot(&cloud.demo(), snapshot.id, false).await.unwrap();
    }
    cloud.pass(std::time::Duration::from_secs(30)).await;
    end_with_volumes(cloud, id).await;
}
