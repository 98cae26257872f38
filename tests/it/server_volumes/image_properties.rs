//! Servers that boot from volumes are what the image of their root volume says.

use nova::volume::VolumeEdit;
use nova_core::ids::{ImageId, VolumeId};
use nova_core::image::{Image, ImageStatus, Visibility};
use nova_core::state::VmState;
use serde_json::{Value, json};

use super::images::id_of;
use super::{boot_of, boot_with, end_with_volumes, options};
use crate::support::Cloud;

/// A bootable volume that remembers that of its image.
pub(super) async fn remembering(cloud: &Cloud, words: &[(&str, &str)]) -> VolumeId {
    let volume = cloud.add_bootable_volume().await;
    let add_image_metadata = words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let manager = cloud.volumes.as_ref().unwrap().manager.clone();
    let edit = VolumeEdit { add_image_metadata, ..VolumeEdit::default() };
    manager.edit(&cloud.demo(), volume, edit).await.unwrap();
    volume
}

pub(super) fn root(volume: VolumeId) -> Value {
    json!([{"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": 0,
        "delete_on_termination": true}])
}

async fn image(cloud: &Cloud, min_disk: u64, properties: &[(&str, &str)]) -> ImageId {
    let now = cloud.clock.now();
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let image = Image {
        id: ImageId::generate(&*cloud.entropy),
        name: Some("made".into()),
        status: ImageStatus::Active,
        visibility: Visibility::Public,
        owner: cloud.demo().project_id,
        disk_format: Some("raw".into()),
        container_format: Some("bare".into()),
        size: Some(512),
        virtual_size: Some(512),
        checksum: None,
        os_hash_value: None,
        min_ram: 0,
        min_disk,
        protected: false,
        os_hidden: false,
        tags: Default::default(),
        properties,
        members: Default::default(),
        created_at: now,
        updated_at: now,
        generation: 0,
    };
    cloud.store.create_image(image).await.unwrap().id
}

#[tokio::test(start_paused = true)]
async fn what_the_root_volume_remembers_is_heeded() {
    let cloud = Cloud::start(options()).await;
    let words = [("hw_disk_bus", "scsi"), ("os_distro", "debian"), ("min_ram", "256"), ("os_require_quiesce", "yes")];
    let volume = remembering(&cloud, &words).await;
    let (status, answer) = boot_with(&cloud, root(volume)).await;
    assert_eq!(status, 202, "{answer}");
    let id = id_of(&answer);
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.vm_state, VmState::Active, "{:?}", server.fault);
    assert_eq!((&server.image, server.volumes[0].device.as_deref()), (&None, Some("/dev/sda")));
    let spec = cloud.hosts[server.host.as_ref().unwrap()].spec_of(id).unwrap();
    let of_guest = |key: &str| spec.hardware.image_properties.get(key).map(String::as_str);
    assert_eq!((of_guest("hw_disk_bus"), of_guest("os_distro")), (Some("scsi"), Some("debian")));
    // It says that no image is one that its file systems did not stand still for.
    let path = format!("/compute/v2.1/servers/{id}/action");
    let (status, answer) = cloud.call("POST", &path, Some(json!({"createImage": {"name": "kept"}}))).await;
    assert!(status == 400 && answer.to_string().contains("QEMU guest agent is not enabled"), "{status} {answer}");
    assert!(cloud.store.list_images().await.unwrap().is_empty());
    end_with_volumes(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused() {
    let cloud = Cloud::start(options()).await;
    let thirsty = remembering(&cloud, &[("min_ram", "257")]).await;
    let (status, answer) = boot_with(&cloud, root(thirsty)).await;
    assert!(status == 400 && answer.to_string().contains("memory is too small"), "{status} {answer}");
    let wrong = remembering(&cloud, &[("hw_cpu_policy", "nonsense")]).await;
    assert_eq!(boot_with(&cloud, root(wrong)).await.0, 400);
    let large = image(&cloud, 3, &[("os_distro", "debian")]).await;
    let of_image = |gb: u64| {
        json!([{"source_type": "image", "destination_type": "volume", "uuid": large, "boot_index": 0,
            "volume_size": gb, "delete_on_termination": true}])
    };
    let (status, answer) = boot_with(&cloud, of_image(2)).await;
    assert!(status == 400 && answer.to_string().contains("Volume is smaller than"), "{status} {answer}");
    let (status, answer) = boot_with(&cloud, of_image(3)).await;
    assert_eq!(status, 202, "{answer}");
    let id = id_of(&answer);
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!(server.volume_image.get("os_distro").map(String::as_str), Some("debian"));
    for volume in [thirsty, wrong] {
        cloud.volumes.as_ref().unwrap().manager.delete(&cloud.demo(), volume, false, false).await.unwrap();
    }
    end_with_volumes(cloud, id).await;
}

/// An image that says of which volumes it is says the rest, too.
#[tokio::test(start_paused = true)]
async fn the_named_image_says_it() {
    let cloud = Cloud::start(options()).await;
    let volume = cloud.add_bootable_volume().await;
    let mapping = json!([{"source_type": "volume", "destination_type": "volume", "volume_id": volume,
        "boot_index": 0, "delete_on_termination": true}]);
    let words = [("bdm_v2", "True"), ("block_device_mapping", &*mapping.to_string()), ("hw_disk_bus", "scsi")];
    let bucket = image(&cloud, 0, &words).await;
    let (status, answer) = boot_of(&cloud, &bucket.to_string(), json!([])).await;
    assert_eq!(status, 202, "{answer}");
    let id = id_of(&answer);
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.volumes[0].volume_id), (VmState::Active, volume));
    assert_eq!(server.volume_image.get("hw_disk_bus").map(String::as_str), Some("scsi"));
    assert!(!server.volume_image.contains_key("block_device_mapping"));
    end_with_volumes(cloud, id).await;
}
