//! Where a guest finds its devices, as it is told and as it finds them.

use std::collections::BTreeMap;
use std::path::Path;

use nova_core::metadata::{DeviceBus, DevicePlace, GuestDevice};
use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, GuestSpec, Hypervisor, InterfaceSpec};
use serde_json::{Value, json};

use super::boot::console;
use super::volumes::Server;
use super::{open, run};

const MAC: &str = "fa:16:3e:05:40:01";

/// What is on the drive that `nova-compute` makes before it knows where anything will be.
fn drive(devices: &Value, user_data: &str) -> ConfigDrive {
    let meta_data = json!({"uuid": guest_spec(0x540).instance, "hostname": "v540.example", "devices": devices});
    let files = [
        ("openstack/latest/meta_data.json".to_owned(), meta_data.to_string().into_bytes()),
        ("openstack/latest/user_data".to_owned(), user_data.as_bytes().to_vec()),
    ];
    ConfigDrive { files: files.into() }
}

/// `devices` on a guest's drive.
fn read(folder: &Path, guest: &GuestSpec) -> Value {
    let out = folder.join("meta_data.json");
    let _ = std::fs::remove_file(&out);
    let iso = folder.join(guest.instance.to_string()).join("disk.config");
    let args = ["-osirrox", "on", "-indev", iso.to_str().unwrap(), "-extract", "/openstack/latest/meta_data.json"];
    run("xorriso", &[&args[..], &[out.to_str().unwrap()]].concat());
    serde_json::from_slice::<Value>(&std::fs::read(&out).unwrap()).unwrap()["devices"].clone()
}

/// The drive says where the guest's devices are, as libvirt knows it, and there the guest finds them; also those that are plugged
/// in while it runs, as its metadata will say.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_guest_finds_its_devices_where_its_drive_says() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let (hypervisor, (folder, _room)) = open().await;
    let [first, second] = [0x5401, 0x5402].map(|number| Server::new(folder.path(), number));
    let (one, two) = (first.attachment(), second.attachment());
    // A virtio device's parent is its PCI device.
    let script = "#!/bin/sh\n(pci() { basename $(dirname $(readlink -f $1/device)); }; \
        echo nic=$(pci /sys/class/net/eth0). disk=$(pci /sys/block/vdb).; \
        while ! [ -b /dev/vdc ]; do sleep 0.2; done; echo later=$(pci /sys/block/vdc). ) >/dev/console 2>&1 &\n";
    let none = |kind: &str, key: &str, value: String| json!({"type": kind, key: value, "bus": "none", "address": "none", "tags": ["mine"]});
    let devices = json!([none("disk", "serial", one.volume().to_string()), none("nic", "mac", MAC.to_owned())]);
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let nic = InterfaceSpec { mac_address: MAC.into(), bridge: None, tap_name: "tapvirt540-1".into(), mtu: None };
    let guest = GuestSpec {
        memory_mb: 192,
        disks: vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }],
        interfaces: vec![nic],
        volumes: vec![one.clone()],
        config_drive: Some(drive(&devices, script)),
        ..guest_spec(0x540)
    };
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let places: BTreeMap<GuestDevice, DevicePlace> =
        hypervisor.devices(id).await.unwrap().into_iter().map(|place| (place.device, place)).collect();
    let address = |places: &BTreeMap<GuestDevice, DevicePlace>, device| {
        let place = &places[&device];
        assert_eq!(place.bus, Some(DeviceBus::Pci));
        place.address.clone().unwrap()
    };
    let nic = address(&places, GuestDevice::Interface(MAC.parse().unwrap()));
    let disk = address(&places, GuestDevice::Volume(one.volume()));
    let told = read(folder.path(), &guest);
    assert_eq!((told[0]["bus"].as_str(), told[0]["address"].as_str()), (Some("pci"), Some(&*disk)), "{told}");
    assert_eq!((told[1]["bus"].as_str(), told[1]["address"].as_str()), (Some("pci"), Some(&*nic)), "{told}");
    console(&hypervisor, id, &format!("nic={nic}. disk={disk}."), 1).await;

    assert_eq!(hypervisor.attach_disk(id, &two).await.unwrap(), "vdc");
    let places = hypervisor.devices(id).await.unwrap().into_iter().map(|place| (place.device, place)).collect();
    let later = address(&places, GuestDevice::Volume(two.volume()));
    console(&hypervisor, id, &format!("later={later}."), 1).await;

    // Made anew, it is told anew.
    let rebuilt = GuestSpec { epoch: 2, running: false, interfaces: Vec::new(), ..guest.clone() };
    hypervisor.rebuild(&rebuilt, false).await.unwrap();
    assert_eq!(hypervisor.info(id).await.unwrap().power_state, PowerState::Shutdown);
    let told = read(folder.path(), &rebuilt);
    assert_eq!((&told[0]["bus"], &told[1]["bus"]), (&json!("pci"), &json!("none")), "{told}");
    hypervisor.destroy(id).await.unwrap();
}
