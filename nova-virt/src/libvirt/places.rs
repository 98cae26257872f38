//! Where a guest finds its devices (nova/virt/libvirt/driver.py, `_build_device_metadata`, `_prepare_device_bus`).
//!
//! Libvirt gives addresses when a guest is defined, before it is started. So the config drive, on which they are written, is
//! finished between the two, as Nova's is.

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::metadata::{DeviceBus, DevicePlace, GuestDevice};

use super::domains::Guest;
use super::folder::{self, Made};
use super::operations::Inner;
use super::xml_tree::Element;
use crate::{ConfigDrive, GuestSpec, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

impl Inner {
    /// Writes onto a defined guest's config drive where it will find its devices. A drive that tells of none stays as it is.
    pub(super) async fn put_places(&self, guest: &GuestSpec) -> Result<()> {
        self.put_places_onto(guest.instance, guest.config_drive.as_ref(), folder::CONFIG_DRIVE).await
    }

    /// The same, for the drive of that file name.
    pub(super) async fn put_places_onto(
        &self,
        instance: InstanceId,
        drive: Option<&ConfigDrive>,
        name: &str,
    ) -> Result<()> {
        let Some(drive) = drive.filter(|drive| drive.tells_of_devices()) else { return Ok(()) };
        let places = self.with(instance, |guest| Ok(read(&guest.definition()?, None))).await?;
        let Some(whole) = drive.with_places(&places) else { return Ok(()) };
        let path = folder::folder_of(&self.options, instance).join(name);
        // A file that replaces another: whoever has that one open keeps it.
        folder::make_config_drive(&self.options, &whole, &path, &mut Made::default()).await
    }
}

impl Guest {
    /// In its process, or else in its definition.
    pub(super) fn places(&self) -> Result<Vec<DevicePlace>> {
        let defined = self.definition()?;
        if self.active { Ok(read(&self.live_definition()?, Some(&defined))) } else { Ok(read(&defined, None)) }
    }
}

/// The places in a definition. After a swap the process shows the old volume's serial number: then `defined` knows better.
fn read(domain: &Element, defined: Option<&Element>) -> Vec<DevicePlace> {
    let known = |element: &Element| {
        let device = match element.name.as_str() {
            "interface" => GuestDevice::Interface(element.child("mac")?.attribute("address")?.parse().ok()?),
            "disk" => {
                let name = target(element)?;
                let same = defined.and_then(|domain| devices(domain).find(|disk| target(disk) == Some(name)));
                GuestDevice::Volume(same.and_then(serial).or_else(|| serial(element))?)
            }
            _ => return None,
        };
        let (bus, address) = place(element);
        Some(DevicePlace { device, bus, address })
    };
    devices(domain).filter_map(known).collect()
}

fn devices(domain: &Element) -> impl Iterator<Item = &Element> {
    domain.child("devices").into_iter().flat_map(Element::elements)
}

fn target(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("dev")
}

fn serial(disk: &Element) -> Option<VolumeId> {
    disk.child("serial")?.text().trim().parse().ok()
}

/// A device on PCI is there, whatever it is; a drive is on the bus of its target.
fn place(device: &Element) -> (Option<DeviceBus>, Option<String>) {
    let address = device.child("address");
    match address.and_then(|address| address.attribute("type")) {
        Some("pci") => (Some(DeviceBus::Pci), address.and_then(pci)),
        Some("drive") => (drive_bus(device), address.and_then(drive)),
        _ => (drive_bus(device), None),
    }
}

fn drive_bus(device: &Element) -> Option<DeviceBus> {
    match device.child("target")?.attribute("bus")? {
        "scsi" => Some(DeviceBus::Scsi),
        "ide" => Some(DeviceBus::Ide),
        "usb" => Some(DeviceBus::Usb),
        // Nova has no word for the others.
        _ => None,
    }
}

/// `0000:00:03.0`, as Linux names it.
fn pci(address: &Element) -> Option<String> {
    let number = |name: &str| {
        let text = address.attribute(name)?;
        u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (domain, bus, slot, function) = (number("domain")?, number("bus")?, number("slot")?, number("function")?);
    Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
}

fn drive(address: &Element) -> Option<String> {
    let part = |name: &str| address.attribute(name);
    Some([part("controller")?, part("bus")?, part("target")?, part("unit")?].join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml_tree;

    const ONE: &str = "00000000-0000-4000-8000-00000000000a";
    const TWO: &str = "00000000-0000-4000-8000-00000000000b";

    fn guest(devices: &str) -> Element {
        xml_tree::parse(&format!("<domain><devices>{devices}</devices></domain>")).unwrap()
    }

    fn disk(device: &str, bus: &str, serial: &str, address: &str) -> String {
        format!("<disk type='network'><target dev='{device}' bus='{bus}'/><serial>{serial}</serial>{address}</disk>")
    }

    fn shown(places: Vec<DevicePlace>) -> Vec<(GuestDevice, &'static str, String)> {
        let shown = |place: DevicePlace| {
            (place.device, place.bus.map_or("none", DeviceBus::as_str), place.address.unwrap_or_default())
        };
        places.into_iter().map(shown).collect()
    }

    #[test]
    fn places_are_written_as_guests_know_them() {
        let pci = "<address type='pci' domain='0x0000' bus='0x0a' slot='0x1f' function='0x7'/>";
        let drive = "<address type='drive' controller='0' bus='1' target='0' unit='3'/>";
        let nic = format!("<interface type='bridge'><mac address='FA:16:3E:00:00:01'/>{pci}</interface>");
        let own = "<disk type='file'><target dev='vda' bus='virtio'/></disk>";
        let all =
            [own, &disk("vdb", "virtio", ONE, pci), &disk("sda", "scsi", TWO, drive), &nic, "<controller/>"].concat();
        let (one, two) = (GuestDevice::Volume(ONE.parse().unwrap()), GuestDevice::Volume(TWO.parse().unwrap()));
        let mac = GuestDevice::Interface("fa:16:3e:00:00:01".parse().unwrap());
        let expected = [
            (one, "pci", "0000:0a:1f.7".to_owned()),
            (two, "scsi", "0:1:0:3".to_owned()),
            (mac, "pci", "0000:0a:1f.7".to_owned()),
        ];
        assert_eq!(shown(read(&guest(&all), None)), expected);
        let others =
            [disk("hdb", "ide", ONE, drive), disk("sdb", "usb", TWO, "<address type='usb' bus='0'/>")].concat();
        let expected = [(one, "ide", "0:1:0:3".to_owned()), (two, "usb", String::new())];
        assert_eq!(shown(read(&guest(&others), None)), expected);
        assert_eq!(shown(read(&guest(&disk("sda", "sata", ONE, drive)), None))[0].1, "none");
    }

    #[test]
    fn a_swapped_volume_is_where_the_old_one_was() {
        let (live, defined) = (guest(&disk("vdb", "virtio", ONE, "")), guest(&disk("vdb", "virtio", TWO, "")));
        assert_eq!(read(&live, Some(&defined))[0].device, GuestDevice::Volume(TWO.parse().unwrap()));
    }
}
