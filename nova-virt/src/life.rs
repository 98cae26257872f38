//! What operations on a guest that lives are asked for, and what they tell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nova_core::ids::InstanceId;
pub use nova_core::migration::Progress as MigrationProgress;
pub use nova_core::rpc::compute::{
    Diagnostics, DiskDiagnostics as DiskCounters, InterfaceDiagnostics as InterfaceCounters,
};
use serde::{Deserialize, Serialize};

use crate::{ConfigDrive, DiskAttachment, DiskFormat, DiskRole, DiskSource};

/// How to rescue a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueSpec {
    /// What the rescue disk is made from: always an image.
    pub image: DiskSource,
    /// Stable device rescue (nova 2.87): the rescue disk comes after the guest's own disks, whose names stay, and is booted
    /// first. `None`: it takes the root disk's place.
    pub stable: Option<StableRescue>,
    /// What the rescued guest finds on its config drive instead; `None`: as before.
    pub config_drive: Option<ConfigDrive>,
}

/// How the disk of a stable device rescue is plugged in, as the rescue image asks (nova/virt/libvirt/blockinfo.py,
/// `get_rescue_device`, `get_rescue_bus`). A driver refuses what it can't do, by the property's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StableRescue {
    /// `hw_rescue_device`: `disk`, `cdrom`. `None`: a disk.
    pub device: Option<String>,
    /// `hw_rescue_bus`, or else the image's `hw_disk_bus`: `virtio`, `scsi`, `usb`, … `None`: as the driver likes it.
    pub bus: Option<String>,
}

impl StableRescue {
    /// What a rescue image with these properties asks for; `None`: no stable rescue. One of the two properties is enough
    /// (nova/virt/hardware.py, `check_hw_rescue_props`).
    pub fn asked_by(properties: &BTreeMap<String, String>) -> Option<Self> {
        let property = |name: &str| properties.get(name).cloned();
        let (device, bus) = (property("hw_rescue_device"), property("hw_rescue_bus"));
        if device.is_none() && bus.is_none() {
            return None;
        }
        let of_disks = if device.as_deref() == Some("cdrom") { "hw_cdrom_bus" } else { "hw_disk_bus" };
        Some(Self { bus: bus.or_else(|| property(of_disks)), device })
    }
}

/// A copy of a disk, for another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// Which of the guest's disks.
    pub role: DiskRole,
    /// Its place among those of that role, from 0.
    pub index: u32,
    /// The file to write; it must not exist.
    pub destination: PathBuf,
    /// The format to write it in.
    pub format: DiskFormat,
}

/// A guest that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StashInfo {
    /// The instance.
    pub instance: InstanceId,
    /// The epoch of the order that set it aside.
    pub epoch: u64,
}

/// Where a live migration is sent. What is in it is the drivers' business: source and destination are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingAddress {
    /// The driver, `libvirt`.
    pub driver: String,
    /// Address of the other hypervisor, as a URI.
    pub uri: String,
    /// Do both hosts see the same disk files? Then only memory is sent.
    pub shared_disks: bool,
    /// The host's name, as its driver knows it.
    #[serde(default)]
    pub host: String,
    /// The guest's volumes as the other host reaches them, without passwords: it has those itself.
    #[serde(default)]
    pub volumes: Vec<DiskAttachment>,
}

/// How to migrate a running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMigration {
    /// Where.
    pub to: IncomingAddress,
    /// Send the disks, too.
    pub block: bool,
    /// Bytes per second at most; `None`: as fast as it goes.
    pub bandwidth: Option<u64>,
    /// The longest pause at the end.
    pub max_downtime: Duration,
    /// Slow a guest down that changes its memory faster than it is sent.
    pub auto_converge: bool,
    /// When it is to end soon, let the guest go on there with memory that is still here, instead of halting it.
    #[serde(default)]
    pub post_copy: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_property_asks_for_a_stable_rescue() {
        let asked = |properties: &[(&str, &str)]| {
            let all = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            StableRescue::asked_by(&all).map(|asked| (asked.device, asked.bus))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(asked(&[("hw_disk_bus", "scsi")]), None);
        assert_eq!(asked(&[("hw_rescue_bus", "usb"), ("hw_disk_bus", "scsi")]), Some((None, some("usb"))));
        assert_eq!(asked(&[("hw_rescue_device", "disk"), ("hw_disk_bus", "scsi")]), Some((some("disk"), some("scsi"))));
        let disc = [("hw_rescue_device", "cdrom"), ("hw_disk_bus", "virtio"), ("hw_cdrom_bus", "sata")];
        assert_eq!(asked(&disc), Some((some("cdrom"), some("sata"))));
        assert_eq!(asked(&disc[..2]), Some((some("cdrom"), None)));
    }
}
