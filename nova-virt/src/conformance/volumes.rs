//! Volumes that come and go.

use std::fs::File;
use std::path::PathBuf;

use nova_core::ids::VolumeId;
use nova_core::metadata::{DevicePlace, GuestDevice};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, ConnectionTarget, FileFormat, FileTarget};

use super::*;
use crate::{AttachedDisk, DiskRole};

/// A volume in a file, which goes with this.
struct Volume {
    path: PathBuf,
    attachment: DiskAttachment,
}

fn id_of(number: u32) -> VolumeId {
    format!("00000000-0000-4000-8000-1000{number:08x}").parse().unwrap()
}

impl Volume {
    fn new(number: u32) -> Self {
        let id = id_of(number);
        // Every hypervisor on this machine sees it, whatever folders of its own it has.
        let folder = std::env::temp_dir().join("nova-conformance");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("volume-{id}"));
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let target = ConnectionTarget::File(FileTarget { path: path.clone(), format: FileFormat::Raw });
        let connection = ConnectionInfo { volume_id: id, access_mode: AccessMode::ReadWrite, target };
        Self { path, attachment: DiskAttachment::new(connection) }
    }

    fn id(&self) -> VolumeId {
        self.attachment.volume()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A file that stays is replaced by the next run.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is(volume: &Volume, device: &str) -> AttachedDisk {
    AttachedDisk { volume: volume.id(), device: device.to_owned() }
}

/// A volume that is plugged in stays, with its name, through stops and starts, until it is taken out; twice is once.
pub async fn volumes_come_and_go(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_disk {
        return;
    }
    let [first, second, third, none] = [0x1160, 0x1161, 0x1162, 0x1163].map(Volume::new);
    let guest = GuestSpec { volumes: vec![first.attachment.clone()], ..fresh(hypervisor, 0x116).await };
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap(), [is(&first, "vdb")]);
    for _ in 0..2 {
        assert_eq!(hypervisor.attach_disk(id, &second.attachment).await.unwrap(), "vdc");
        assert_eq!(hypervisor.attached_disks(id).await.unwrap(), [is(&first, "vdb"), is(&second, "vdc")]);
    }
    hypervisor.detach_disk(id, none.id()).await.unwrap();
    hypervisor.power_off(id, None).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap(), [is(&first, "vdb"), is(&second, "vdc")]);
    let wished = DiskAttachment { device_name: Some("/dev/vdb".into()), ..third.attachment.clone() };
    for _ in 0..2 {
        hypervisor.detach_disk(id, first.id()).await.unwrap();
        assert_eq!(hypervisor.attach_disk(id, &wished).await.unwrap(), "vdb");
        let mut found = hypervisor.attached_disks(id).await.unwrap();
        found.sort_by(|one, other| one.device.cmp(&other.device));
        assert_eq!(found, [is(&third, "vdb"), is(&second, "vdc")]);
    }
    hypervisor.power_on(id).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap().len(), 2);
    let error = hypervisor.extend_disk(id, none.id(), 2 << 30).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    if hypervisor.capabilities().suspend {
        hypervisor.suspend(id).await.unwrap();
        let attached = hypervisor.attach_disk(id, &first.attachment).await.map(drop);
        for result in [attached, hypervisor.detach_disk(id, second.id()).await] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidState);
        }
    }
    hypervisor.destroy(id).await.unwrap();
    for volume in [&first, &second, &third] {
        assert!(volume.path.exists(), "a volume went with its guest");
    }
    assert_eq!(hypervisor.attached_disks(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = hypervisor.attach_disk(id, &first.attachment).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// A guest that boots from a volume has it as its first disk, before its other ones.
pub async fn a_guest_boots_from_a_volume(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_disk {
        return;
    }
    let [root, other] = [0x1170, 0x1171].map(Volume::new);
    let boot = DiskAttachment { boot: true, ..root.attachment.clone() };
    let spec = fresh(hypervisor, 0x117).await;
    let both = GuestSpec { volumes: vec![boot.clone()], ..spec.clone() };
    let refused = hypervisor.spawn(&both).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "two disks to boot from");
    let mut disks = spec.disks.clone();
    disks[0].role = DiskRole::Ephemeral;
    let guest = GuestSpec { disks, volumes: vec![other.attachment.clone(), boot], ..spec };
    hypervisor.spawn(&guest).await.unwrap();
    let mut found = hypervisor.attached_disks(guest.instance).await.unwrap();
    found.sort_by(|one, other| one.device.cmp(&other.device));
    assert_eq!(found, [is(&root, "vda"), is(&other, "vdc")]);
    hypervisor.reboot(guest.instance, RebootKind::Hard).await.unwrap();
    assert_eq!(hypervisor.attached_disks(guest.instance).await.unwrap().len(), 2);
    hypervisor.destroy(guest.instance).await.unwrap();
    assert!(root.path.exists() && other.path.exists());
}

/// A volume grows and changes under a running guest.
pub async fn volumes_grow_and_are_swapped(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_disk {
        return;
    }
    let [old, new] = [0x1180, 0x1181].map(Volume::new);
    let guest = GuestSpec { volumes: vec![old.attachment.clone()], ..fresh(hypervisor, 0x118).await };
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    for _ in 0..2 {
        hypervisor.extend_disk(id, old.id(), 1 << 30).await.unwrap();
    }
    assert!(!hypervisor.settle_swap(id, old.id(), new.id()).await.unwrap(), "none was begun");
    for _ in 0..2 {
        hypervisor.abort_swap(id).await.unwrap();
        hypervisor.swap_disk(id, old.id(), &new.attachment).await.unwrap();
        assert_eq!(hypervisor.attached_disks(id).await.unwrap(), [is(&new, "vdb")]);
        assert!(hypervisor.settle_swap(id, old.id(), new.id()).await.unwrap());
    }
    let error = hypervisor.swap_disk(id, id_of(0x1189), &old.attachment).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    hypervisor.reboot(id, RebootKind::Hard).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap(), [is(&new, "vdb")]);
    hypervisor.power_off(id, None).await.unwrap();
    let error = hypervisor.swap_disk(id, new.id(), &old.attachment).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    hypervisor.destroy(id).await.unwrap();
}

/// What could mean another place never reaches the hypervisor, and a guest is not made with it.
pub async fn bad_volumes_are_refused(hypervisor: &dyn Hypervisor) {
    if !hypervisor.capabilities().attach_disk {
        return;
    }
    let volume = Volume::new(0x1190);
    let guest = fresh(hypervisor, 0x119).await;
    hypervisor.spawn(&GuestSpec { running: false, ..guest.clone() }).await.unwrap();
    let mut elsewhere = volume.attachment.clone();
    elsewhere.connection.target =
        ConnectionTarget::File(FileTarget { path: "/tmp/../etc/passwd".into(), format: FileFormat::Raw });
    let unnamed = DiskAttachment { device_name: Some("../vdb".into()), ..volume.attachment.clone() };
    for bad in [&elsewhere, &unnamed] {
        let refused = hypervisor.attach_disk(guest.instance, bad).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
    assert!(hypervisor.attached_disks(guest.instance).await.unwrap().is_empty());
    hypervisor.destroy(guest.instance).await.unwrap();
    let twice = GuestSpec { volumes: vec![volume.attachment.clone(), volume.attachment.clone()], ..guest };
    assert_eq!(hypervisor.spawn(&twice).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(listed(hypervisor, twice.instance).await, None);
}

/// Where a guest has its devices is known of each, differs, and stays, whatever comes and goes beside it, across starts.
pub async fn devices_keep_their_places(hypervisor: &dyn Hypervisor) {
    let can = hypervisor.capabilities();
    if !can.attach_disk || !can.attach_interface {
        return;
    }
    let [first, second] = [0x11c0, 0x11c1].map(Volume::new);
    let nic = |last: u8| InterfaceSpec {
        mac_address: format!("fa:16:3e:01:1c:{last:02x}"),
        bridge: None,
        tap_name: format!("tapconf11c-{last:02x}"),
        mtu: None,
    };
    let volumes = vec![first.attachment.clone()];
    let guest = GuestSpec { interfaces: vec![nic(1)], volumes, ..fresh(hypervisor, 0x11c).await };
    let id = guest.instance;
    hypervisor.spawn(&guest).await.unwrap();
    let of_nic = |last: u8| GuestDevice::Interface(nic(last).mac_address.parse().unwrap());
    let place = |all: &[DevicePlace], device: GuestDevice| {
        let mut found = all.iter().filter(|place| place.device == device);
        let place = found.next().unwrap_or_else(|| panic!("{device:?} is not in {all:?}")).clone();
        assert!(found.next().is_none() && place.bus.is_some() && place.address.is_some(), "{all:?}");
        place
    };
    let made = hypervisor.devices(id).await.unwrap();
    let kept = [of_nic(1), GuestDevice::Volume(first.id())].map(|device| place(&made, device));
    assert_eq!(made.len(), 2);
    hypervisor.attach_interface(id, &nic(2)).await.unwrap();
    hypervisor.attach_disk(id, &second.attachment).await.unwrap();
    let more = hypervisor.devices(id).await.unwrap();
    let new = [of_nic(2), GuestDevice::Volume(second.id())].map(|device| place(&more, device));
    let all: Vec<&DevicePlace> = kept.iter().chain(&new).collect();
    for (number, one) in all.iter().enumerate() {
        assert!(more.contains(one), "{one:?} has moved");
        assert!(all[..number].iter().all(|other| (other.bus, &other.address) != (one.bus, &one.address)), "{all:?}");
    }
    hypervisor.power_off(id, None).await.unwrap();
    hypervisor.detach_interface(id, &nic(1).mac_address).await.unwrap();
    for running in [false, true] {
        let left = hypervisor.devices(id).await.unwrap();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(new.iter().chain(&kept[1..]).all(|one| left.contains(one)), "running: {running}: {left:?}");
        hypervisor.power_on(id).await.unwrap();
    }
    hypervisor.destroy(id).await.unwrap();
    assert_eq!(hypervisor.devices(id).await.unwrap_err().kind(), ErrorKind::NotFound);
}
