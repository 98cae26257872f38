//! Devices that users gave tags, and where their guest finds them (nova/virt/libvirt/driver.py, `_build_device_metadata`;
//! nova/api/metadata/base.py, `_get_device_metadata`).
//!
//! Only the driver knows the places, and only once the guest is defined. So they come on two ways: the host reports them, for
//! the metadata service; and the driver puts them onto the config drive, which was written before ([`put_places`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::InstanceMetadata;
use crate::ids::VolumeId;
use crate::network::MacAddress;

/// A device of a guest, by what both sides know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestDevice {
    /// A network interface, by its hardware address.
    Interface(MacAddress),
    /// A volume, by its id, which is its serial number in the guest.
    Volume(VolumeId),
}

/// A bus of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceBus {
    /// PCI, virtio's devices among them.
    Pci,
    /// SCSI.
    Scsi,
    /// IDE.
    Ide,
    /// USB.
    Usb,
}

impl DeviceBus {
    /// The word that guests read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pci => "pci",
            Self::Scsi => "scsi",
            Self::Ide => "ide",
            Self::Usb => "usb",
        }
    }
}

/// Where a guest finds a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlace {
    /// Which.
    pub device: GuestDevice,
    /// On which bus; `None`: one that guests are not told of.
    #[serde(default)]
    pub bus: Option<DeviceBus>,
    /// Where on it: `0000:00:03.0` on PCI, `controller:bus:target:unit` of a drive.
    #[serde(default)]
    pub address: Option<String>,
}

/// A volume that its user gave a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedVolume {
    /// Which.
    pub volume_id: VolumeId,
    /// The user's word for it.
    pub tag: String,
}

/// `devices` of `meta_data.json`: those with a tag, volumes first. What is not known is `none`, as in Nova.
pub(super) fn devices(about: &InstanceMetadata) -> Value {
    let disk = |volume: &TaggedVolume| {
        let mut disk = json!({"type": "disk", "serial": volume.volume_id, "tags": [volume.tag]});
        put(&mut disk, &about.places);
        disk
    };
    let nics = about.vifs.iter().filter_map(|vif| {
        let mut nic = json!({"type": "nic", "mac": vif.mac_address, "tags": [vif.tag.as_ref()?]});
        put(&mut nic, &about.places);
        Some(nic)
    });
    about.tagged_volumes.iter().map(disk).chain(nics).collect()
}

/// Which device it is that the document speaks of.
fn device_of(entry: &Value) -> Option<GuestDevice> {
    match (entry["mac"].as_str(), entry["serial"].as_str()) {
        (Some(mac), _) => mac.parse().ok().map(GuestDevice::Interface),
        (None, Some(serial)) => serial.parse().ok().map(GuestDevice::Volume),
        (None, None) => None,
    }
}

/// Writes into one device of the document where it is.
fn put(entry: &mut Value, places: &[DevicePlace]) {
    let place = device_of(entry).and_then(|device| places.iter().find(|place| place.device == device));
    let bus = place.and_then(|place| place.bus);
    // An address says nothing without its bus.
    let address = place.filter(|_| bus.is_some()).and_then(|place| place.address.as_deref());
    entry["bus"] = json!(bus.map_or("none", DeviceBus::as_str));
    entry["address"] = json!(address.unwrap_or("none"));
}

fn is_meta_data(path: &str) -> bool {
    path.starts_with("openstack/") && path.ends_with("/meta_data.json")
}

/// The devices that a file of a config drive tells of, if it is such a file.
fn parsed(path: &str, content: &[u8]) -> Option<Value> {
    let document: Value = is_meta_data(path).then(|| serde_json::from_slice(content).ok())??;
    document["devices"].as_array().is_some_and(|devices| !devices.is_empty()).then_some(document)
}

/// Do the files of a config drive tell of devices, so that their places are wanted?
pub fn tells_of_devices(files: &BTreeMap<String, Vec<u8>>) -> bool {
    files.iter().any(|(path, content)| parsed(path, content).is_some())
}

/// Writes into the files of a config drive where its guest has its devices. Nothing else of them changes.
pub fn put_places(files: &mut BTreeMap<String, Vec<u8>>, places: &[DevicePlace]) {
    for (path, content) in files {
        let Some(mut document) = parsed(path, content) else { continue };
        for entry in document["devices"].as_array_mut().into_iter().flatten() {
            put(entry, places);
        }
        *content = document.to_string().into_bytes();
    }
}
