//! What a guest finds on its config drive (nova/virt/configdrive.py): what the metadata service would tell it, as files.

use nova_core::entropy::Entropy;
use nova_core::ids::{InstanceId, ProjectId};
use nova_core::metadata::{self, GuestDisk, GuestKey, InstanceMetadata, TaggedVolume};
use nova_core::rpc::compute::{BuildOrder, VolumeOrder};
use nova_virt::ConfigDrive;

/// The files of a guest's config drive.
pub(crate) fn contents(instance: InstanceId, order: &BuildOrder, entropy: &dyn Entropy) -> ConfigDrive {
    ConfigDrive { files: metadata::config_drive(&about(instance, order), entropy) }
}

/// What an order says about its guest.
fn about(instance: InstanceId, order: &BuildOrder) -> InstanceMetadata {
    let keys = order.keys.iter().map(|(name, data)| GuestKey { name: name.clone(), data: data.clone() });
    let hostname = match order.domain.as_str() {
        "" => order.hostname.clone(),
        domain => format!("{}.{domain}", order.hostname),
    };
    InstanceMetadata {
        instance_id: instance,
        number: order.number,
        project_id: ProjectId::new(&order.project_id),
        name: order.display_name.clone(),
        hostname,
        reservation_id: order.reservation_id.clone(),
        launch_index: order.launch_index,
        availability_zone: order.availability_zone.clone(),
        keys: keys.collect(),
        user_data: order.user_data.clone(),
        metadata: order.metadata.clone(),
        flavor_name: order.flavor_name.clone(),
        image_id: order.image.as_ref().map(|image| image.id.to_string()),
        security_groups: order.security_groups.clone(),
        disks: GuestDisk::all(order.image.is_some() || order.root_gb > 0, order.ephemerals().len(), order.swap_mb > 0),
        dedicated_cpus: order.placement.as_ref().map(|placement| placement.dedicated_cpus()).unwrap_or_default(),
        vifs: order.vifs.clone(),
        tagged_volumes: order.volumes.iter().filter_map(tagged).collect(),
        // The driver puts them in.
        places: Vec::new(),
        vendor_data: order.vendor_data.clone(),
        admin_password: order.admin_password.clone(),
        password: String::new(),
    }
}

fn tagged(volume: &VolumeOrder) -> Option<TaggedVolume> {
    Some(TaggedVolume { volume_id: volume.connection.volume_id, tag: volume.tag.clone()? })
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_order_tells_all_that_is_on_the_drive() {
        let order: BuildOrder = serde_json::from_value(json!({
            "name": "instance-00000007", "display_name": "Web 1", "hostname": "web-1", "domain": "novalocal",
            "project_id": "p", "user_id": "u", "flavor_name": "m1", "vcpus": 1, "memory_mb": 512, "root_gb": 1,
            "swap_mb": 64, "image": null, "config_drive": true, "number": 7, "keys": {"mine": "ssh-ed25519 AAAA"},
            "user_data": "I2Nsb3VkLWNvbmZpZwo=", "admin_password": "s3cret", "security_groups": ["web"],
            "vifs": [{
                "port_id": "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6", "mac_address": "fa:16:3e:00:00:01", "mtu": 1500,
                "network_id": "7e700000-0000-4000-8000-000000000001", "label": "flat", "status": "DOWN", "host": null,
                "delete_with_instance": true,
                "addresses": [{
                    "address": "192.0.2.5", "cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "dns": [], "routes": [],
                    "subnet_id": "5b1e0000-0000-4000-8000-000000000001", "dhcp": false, "floating": [],
                }],
            }],
        }))
        .unwrap();
        let instance: InstanceId = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        let drive = contents(instance, &order, &SeededEntropy::new(1));
        let file = |path: &str| serde_json::from_slice::<Value>(&drive.files[path]).unwrap();
        let meta = file("openstack/latest/meta_data.json");
        assert_eq!((&meta["hostname"], &meta["admin_pass"]), (&json!("web-1.novalocal"), &json!("s3cret")));
        assert_eq!(meta["public_keys"], json!({"mine": "ssh-ed25519 AAAA"}));
        assert_eq!(drive.files["openstack/latest/user_data"], b"#cloud-config\n");
        // Without DHCP the guest is told its address: this is how it gets it.
        let network = &file("openstack/latest/network_data.json")["networks"][0];
        assert_eq!((&network["type"], &network["ip_address"]), (&json!("ipv4"), &json!("192.0.2.5")));
        let ec2 = file("ec2/latest/meta-data.json");
        assert_eq!((&ec2["instance-id"], &ec2["security-groups"]), (&json!("i-00000007"), &json!(["web"])));
        assert_eq!(ec2["block-device-mapping"], json!({"ami": "vda", "root": "/dev/vda", "swap": "/dev/vdb"}));
    }
}
