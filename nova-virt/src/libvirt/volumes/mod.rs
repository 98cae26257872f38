//! Volumes that come and go while their guest exists (nova/virt/libvirt/driver.py, `attach_volume`, `detach_volume`,
//! `extend_volume`, `swap_volume`).
//!
//! As with interfaces, a guest has them twice: in its definition, from which it is started, and in its process. Both are
//! changed, each only where it is not yet as it shall be. A volume is found by its serial number, which is its id; after a swap
//! the process still shows the old one's, so there the device name decides.

mod identity;
pub(super) mod mend;
pub(super) mod record;
mod secrets;
pub(super) mod swap;

use std::collections::BTreeSet;
use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::PowerState;
use nova_core::volume::connection::ConnectionTarget;
use tokio::time::{Instant, MissedTickBehavior};
use virt::sys;

use super::domain_xml::{self, VolumePlace};
use super::domains::Guest;
use super::errors;
use super::operations::Inner;
use super::xml_tree::Element;
use crate::{AttachedDisk, DiskAttachment, HypervisorError, Operation};

type Result<T> = std::result::Result<T, HypervisorError>;

/// How often a guest that shall let go of a volume is looked at, and asked again: it may not have listened yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_secs(10);

impl Inner {
    /// Makes sure of volumes before any guest sees them: each is what it is said to be, and libvirt has the passwords.
    pub(super) async fn admit_volumes(&self, volumes: &[DiskAttachment]) -> Result<()> {
        for volume in volumes {
            identity::check(volume, &self.options).await?;
        }
        self.keep_secrets(volumes).await
    }

    pub(super) async fn attach_disk(&self, instance: InstanceId, disk: DiskAttachment) -> Result<String> {
        disk.validate()?;
        let _lock = self.locks.lock(instance).await;
        let wished = disk.clone();
        let found = self.with(instance, move |guest| guest.place_for(&wished)).await?;
        if let Place::There(device) = found {
            return Ok(device);
        }
        self.admit_volumes(std::slice::from_ref(&disk)).await?;
        self.record_volume(instance, &disk).await?;
        let (options, attached) = (self.options.clone(), disk.clone());
        let plugged = self.with(instance, move |guest| guest.attach_disk(&attached, &options)).await;
        if plugged.is_err() && matches!(found, Place::New) {
            self.unrecord_volume(instance, disk.volume()).await?;
            self.drop_secret(disk.volume()).await;
        }
        plugged
    }

    pub(super) async fn detach_disk(&self, instance: InstanceId, volume: VolumeId) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let wait = self.options.detach_wait;
        let deadline = Instant::now() + wait;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ask_at, mut device) = (Instant::now(), None);
        loop {
            look.tick().await;
            let ask = Instant::now() >= ask_at;
            if ask {
                ask_at = Instant::now() + ASK_EVERY;
            }
            let known = device.clone();
            let (gone, found) = self.with(instance, move |guest| guest.detach_disk(volume, known, ask)).await?;
            device = found;
            if gone {
                break;
            }
            if Instant::now() >= deadline {
                return Err(HypervisorError::TimedOut { during: "detaching the volume", after: wait });
            }
        }
        self.unrecord_volume(instance, volume).await?;
        self.drop_secret(volume).await;
        Ok(())
    }

    pub(super) async fn extend_disk(&self, instance: InstanceId, volume: VolumeId, bytes: u64) -> Result<()> {
        self.locked_with(instance, move |guest| guest.extend_disk(volume, bytes)).await
    }
}

/// What is known of a volume in a guest before it is attached.
enum Place {
    /// In its definition, and in its process if there is one.
    There(String),
    /// In one of both.
    Half,
    New,
}

/// One disk of a definition.
struct Known {
    serial: Option<VolumeId>,
    device: String,
    bus: String,
    network: bool,
    element: Element,
}

fn disks(domain: &Element) -> Vec<Known> {
    let devices = domain.child("devices");
    let all = devices.iter().flat_map(|devices| devices.elements()).filter(|element| element.name == "disk");
    all.filter_map(|element| {
        let target = element.child("target")?;
        Some(Known {
            serial: element.child("serial").and_then(|serial| serial.text().trim().parse().ok()),
            device: target.attribute("dev")?.to_owned(),
            bus: target.attribute("bus").unwrap_or("virtio").to_owned(),
            network: element.attribute("type") == Some("network"),
            element: element.clone(),
        })
    })
    .collect()
}

/// The disk of a process that is this volume: the one at the place that the definition gives it, or else the one with its
/// serial number whose place the definition does not give to another.
fn live_disk<'a>(live: &'a [Known], defined: &[Known], volume: VolumeId, device: Option<&str>) -> Option<&'a Known> {
    let by_name = |name: &str| live.iter().find(|disk| disk.device == name);
    if let Some(disk) = defined.iter().find(|disk| disk.serial == Some(volume)) {
        return by_name(&disk.device);
    }
    if let Some(name) = device {
        return by_name(name);
    }
    let others = |name: &str| defined.iter().any(|disk| disk.device == name);
    live.iter().find(|disk| disk.serial == Some(volume) && !others(&disk.device))
}

impl Guest {
    fn refuse_saved(&self, operation: Operation) -> Result<()> {
        // Its memory is on disk, with the disks that it had.
        if self.power_state == PowerState::Suspended { Err(self.wrong_state(operation)) } else { Ok(()) }
    }

    /// Disks of its definition and of its process.
    fn both(&self) -> Result<(Vec<Known>, Vec<Known>)> {
        let defined = disks(&self.definition()?);
        let live = if self.active { disks(&self.live_definition()?) } else { Vec::new() };
        Ok((defined, live))
    }

    pub(super) fn attached_disks(&self) -> Result<Vec<AttachedDisk>> {
        let (defined, live) = self.both()?;
        let name_of = |disk: &Known| {
            let serial = defined.iter().find(|known| known.device == disk.device).and_then(|known| known.serial);
            serial.or(disk.serial)
        };
        let shown = if self.active { &live } else { &defined };
        let attached = |disk: &Known| Some(AttachedDisk { volume: name_of(disk)?, device: disk.device.clone() });
        Ok(shown.iter().filter_map(attached).collect())
    }

    fn place_for(&self, disk: &DiskAttachment) -> Result<Place> {
        self.refuse_saved(Operation::AttachDisk)?;
        let (defined, live) = self.both()?;
        let in_definition = defined.iter().find(|known| known.serial == Some(disk.volume()));
        let in_process = live_disk(&live, &defined, disk.volume(), None);
        Ok(match (in_definition, in_process) {
            (Some(known), _) if !self.active => Place::There(known.device.clone()),
            (Some(known), Some(_)) => Place::There(known.device.clone()),
            (None, None) => Place::New,
            _ => Place::Half,
        })
    }

    fn attach_disk(&self, disk: &DiskAttachment, options: &super::LibvirtOptions) -> Result<String> {
        const DURING: &str = "attaching the volume";
        let (defined, live) = self.both()?;
        let known = defined.iter().find(|known| known.serial == Some(disk.volume()));
        let plugged = live_disk(&live, &defined, disk.volume(), None);
        let place = match known.or(plugged) {
            Some(known) => VolumePlace { device: known.device.clone(), bus: known.bus.clone() },
            None => free_place(disk, &defined, &live),
        };
        let mut flags = 0;
        if self.active && plugged.is_none() {
            flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
        }
        if known.is_none() {
            flags |= sys::VIR_DOMAIN_AFFECT_CONFIG;
        }
        if flags != 0 {
            let xml = domain_xml::volume_alone(disk, &place, options).map_err(|error| errors::file(DURING, error))?;
            self.domain.attach_device_flags(&xml, flags).map_err(|error| errors::failed(DURING, error))?;
        }
        Ok(place.device)
    }

    /// Takes it out of the definition, asks the guest to let it go if `ask` says so, and tells whether it has, and its name.
    fn detach_disk(&self, volume: VolumeId, device: Option<String>, ask: bool) -> Result<(bool, Option<String>)> {
        const DURING: &str = "detaching the volume";
        self.refuse_saved(Operation::DetachDisk)?;
        let (defined, live) = self.both()?;
        let plugged = live_disk(&live, &defined, volume, device.as_deref());
        if let Some(known) = defined.iter().find(|known| known.serial == Some(volume)) {
            self.unplug(known, sys::VIR_DOMAIN_AFFECT_CONFIG).map_err(|error| errors::failed(DURING, error))?;
        }
        let Some(known) = plugged else { return Ok((true, device)) };
        if ask {
            match self.unplug(known, sys::VIR_DOMAIN_AFFECT_LIVE) {
                // It stopped meanwhile: the next look will tell.
                Err(error) if errors::is_wrong_state(&error) || errors::is_being_unplugged(&error) => {}
                asked => asked.map_err(|error| errors::failed(DURING, error))?,
            }
        }
        Ok((false, Some(known.device.clone())))
    }

    /// Libvirt finds a disk by its device name.
    fn unplug(&self, disk: &Known, flags: u32) -> std::result::Result<(), virt::error::Error> {
        let Ok(xml) = disk.element.write() else { return Ok(()) };
        match self.domain.detach_device_flags(&xml, flags) {
            Err(error) if errors::is_no_device(&error) || errors::is_no_domain(&error) => Ok(()),
            detached => detached,
        }
    }

    fn extend_disk(&self, volume: VolumeId, bytes: u64) -> Result<()> {
        let (defined, live) = self.both()?;
        let plugged = live_disk(&live, &defined, volume, None);
        let Some(disk) = plugged else {
            if defined.iter().any(|known| known.serial == Some(volume)) {
                // It sees the new size when it starts.
                return Ok(());
            }
            return Err(HypervisorError::invalid("volume", "is not in this guest"));
        };
        let protocol = disk.element.child("source").and_then(|source| source.attribute("protocol"));
        if disk.network && protocol == Some("nbd") {
            // QEMU can't: "Cannot grow NBD nodes".
            return Err(HypervisorError::Unsupported { operation: Operation::ExtendDisk });
        }
        let resized = self.domain.block_resize(&disk.device, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES);
        resized.map_err(|error| errors::failed("telling the guest of a volume's new size", error))
    }
}

/// On the bus of the guest's disks, if volumes can be plugged into that, by the name that is wished for or the next one.
fn free_place(disk: &DiskAttachment, defined: &[Known], live: &[Known]) -> VolumePlace {
    let taken: BTreeSet<String> = defined.iter().chain(live).map(|known| known.device.clone()).collect();
    let of_disks = |known: &&Known| known.element.attribute("device") != Some("cdrom");
    let scsi = defined.iter().find(of_disks).is_some_and(|known| known.bus == "scsi");
    let (bus, prefix) = if scsi { ("scsi", "sd") } else { ("virtio", "vd") };
    let wished = disk.wished_name().filter(|name| domain_xml::is_name(name, prefix) && !taken.contains(*name));
    let device = wished.map_or_else(|| domain_xml::next_free(prefix, &taken), str::to_owned);
    VolumePlace { device, bus: bus.to_owned() }
}

/// Files that are volumes belong to no guest, whatever is done with a guest's own.
pub(super) fn has_password(volume: &DiskAttachment) -> bool {
    matches!(&volume.connection.target, ConnectionTarget::Iscsi(iscsi) if iscsi.auth.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml_tree;

    fn id(number: u32) -> VolumeId {
        format!("00000000-0000-4000-8000-{number:012x}").parse().unwrap()
    }

    fn guest(volumes: &[(&str, u32)]) -> Vec<Known> {
        let disks: String = volumes
            .iter()
            .map(|(dev, number)| {
                let serial = id(*number);
                format!("<disk type='network'><target dev='{dev}' bus='virtio'/><serial>{serial}</serial></disk>")
            })
            .collect();
        let own = "<disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>";
        super::disks(&xml_tree::parse(&format!("<domain><devices>{own}{disks}</devices></domain>")).unwrap())
    }

    #[test]
    fn a_volume_is_found_where_it_is() {
        let found = |live: &[(&str, u32)], defined: &[(&str, u32)], number, device: Option<&str>| {
            live_disk(&guest(live), &guest(defined), id(number), device).map(|disk| disk.device.clone())
        };
        assert_eq!(found(&[("vdb", 1)], &[("vdb", 1)], 1, None).as_deref(), Some("vdb"));
        // Out of the definition, and the guest has not let it go.
        assert_eq!(found(&[("vdb", 1)], &[], 1, None).as_deref(), Some("vdb"));
        // Swapped: the process still shows the old volume's serial.
        assert_eq!(found(&[("vdb", 1)], &[("vdb", 2)], 2, None).as_deref(), Some("vdb"));
        assert_eq!(found(&[("vdb", 1)], &[("vdb", 2)], 1, None), None, "the old volume would be taken for the new one");
        // And then taken out of the definition.
        assert_eq!(found(&[("vdb", 1)], &[], 2, Some("vdb")).as_deref(), Some("vdb"));
        assert_eq!(found(&[], &[("vdb", 1)], 1, None), None);
    }
}
