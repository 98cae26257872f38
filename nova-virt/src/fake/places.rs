//! Where a fake guest finds its devices: in the slots of one PCI bus, each in the first one that was free when it came.

use nova_core::metadata::{DeviceBus, DevicePlace, GuestDevice};

use super::guests::Guest;
use crate::GuestSpec;

/// Below are QEMU's own: the bridge, the ISA bridge, the screen.
const FIRST_SLOT: u8 = 3;

/// The devices that guests are told of.
fn devices(spec: &GuestSpec) -> impl Iterator<Item = GuestDevice> {
    let nics = spec.interfaces.iter().filter_map(|nic| nic.mac_address.parse().ok().map(GuestDevice::Interface));
    nics.chain(spec.volumes.iter().map(|volume| GuestDevice::Volume(volume.volume())))
}

/// Gives each device a slot, which it keeps, and writes them onto the config drive. To be called whenever what the guest is made
/// of has changed.
pub(super) fn settle(guest: &mut Guest) {
    let Some(spec) = &mut guest.spec else { return };
    let devices: Vec<GuestDevice> = devices(spec).collect();
    guest.slots.retain(|(device, _)| devices.contains(device));
    for device in devices {
        if guest.slots.iter().any(|(known, _)| *known == device) {
            continue;
        }
        let taken = |slot: &u8| guest.slots.iter().any(|(_, taken)| taken == slot);
        if let Some(slot) = (FIRST_SLOT..=u8::MAX).find(|slot| !taken(slot)) {
            guest.slots.push((device, slot));
        }
    }
    let whole = spec.config_drive.as_ref().and_then(|drive| drive.with_places(&listed(&guest.slots)));
    if whole.is_some() {
        spec.config_drive = whole;
    }
}

/// Where they are.
pub(super) fn places(guest: &Guest) -> Vec<DevicePlace> {
    listed(&guest.slots)
}

fn listed(slots: &[(GuestDevice, u8)]) -> Vec<DevicePlace> {
    let place = |(device, slot): &(GuestDevice, u8)| DevicePlace {
        device: *device,
        bus: Some(DeviceBus::Pci),
        address: Some(format!("0000:00:{slot:02x}.0")),
    };
    slots.iter().map(place).collect()
}
