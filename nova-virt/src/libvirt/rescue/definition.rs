//! The definition of a rescued guest, from that of the guest.

use std::path::Path;

use super::Result;
use crate::libvirt::xml_tree::{Child, Element};
use crate::{BoxError, HypervisorError, StableRescue};

/// How the disk of a stable rescue is plugged in beside the guest's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beside {
    device: &'static str,
    /// `None`: the bus of the guest's own disks, or of its CD-ROMs.
    bus: Option<&'static str>,
}

impl Beside {
    /// What can be done here of what Nova has (nova/virt/libvirt/blockinfo.py, `SUPPORTED_DEVICE_TYPES`,
    /// `SUPPORTED_DEVICE_BUSES`): a system fits on no floppy, and a file is no LUN.
    pub(super) fn of(asked: &StableRescue) -> Result<Self> {
        const BUSES: [&str; 5] = ["virtio", "scsi", "sata", "ide", "usb"];
        let device = match asked.device.as_deref() {
            None | Some("disk") => "disk",
            Some("cdrom") => "cdrom",
            Some(other) => {
                let problem = format!("is {other}, and can be disk or cdrom");
                return Err(HypervisorError::invalid("hw_rescue_device", problem));
            }
        };
        let bus = match asked.bus.as_deref() {
            None => None,
            Some("virtio") if device == "cdrom" => {
                return Err(HypervisorError::invalid("hw_rescue_bus", "is virtio, which has no CD-ROMs"));
            }
            Some(bus) => Some(BUSES.into_iter().find(|known| *known == bus).ok_or_else(|| {
                HypervisorError::invalid("hw_rescue_bus", format!("is {bus}, and can be one of {}", BUSES.join(", ")))
            })?),
        };
        Ok(Self { device, bus })
    }
}

/// How the names of a bus' devices begin.
fn prefix_of(bus: &str) -> &'static str {
    match bus {
        "virtio" => "vd",
        "ide" => "hd",
        _ => "sd",
    }
}

/// Names of all drives.
fn names(devices: &Element) -> Vec<String> {
    let disks = devices.elements().filter(|device| device.name == "disk");
    disks.filter_map(|disk| Some(disk.child("target")?.attribute("dev")?.to_owned())).collect()
}

fn free_name(prefix: &str, taken: &[String]) -> std::result::Result<String, BoxError> {
    let all = (b'a'..=b'z').map(|letter| format!("{prefix}{}", char::from(letter)));
    all.into_iter().find(|name| !taken.contains(name)).ok_or_else(|| "there is no device name left".into())
}

fn bus_of(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("bus")
}

/// The rescue disk.
fn rescue_disk(path: &str, format: &str, device: &str, target: &str, bus: &str) -> Element {
    let mut driver = Element::new("driver", &[("name", "qemu"), ("type", format)]);
    if device == "disk" {
        driver.set("discard", "unmap");
    }
    let disk = Element::new("disk", &[("type", "file"), ("device", device)])
        .with(driver)
        .with(Element::new("source", &[("file", path)]))
        .with(Element::new("target", &[("dev", target), ("bus", bus)]))
        .with(Element::new("boot", &[("order", "1")]));
    if device == "disk" { disk } else { disk.with(Element::new("readonly", &[])) }
}

/// The definition of a rescued guest, from that of the guest.
pub(super) fn rescued(
    original: &Element,
    path: &Path,
    format: &str,
    stable: Option<Beside>,
    drive: Option<&Path>,
) -> std::result::Result<Element, BoxError> {
    let mut domain = original.clone();
    let mut q35 = false;
    if let Some(os) = domain.child_mut("os") {
        // Each device tells its place in the order instead.
        os.take("boot");
        q35 = os.child("type").and_then(|kind| kind.attribute("machine")).is_some_and(|name| name.contains("q35"));
    }
    let devices = domain.child_mut("devices").ok_or("the definition has no devices")?;
    if let Some(drive) = drive {
        put_drive(devices, drive)?;
    }
    let path = path.to_str().ok_or("the rescue disk's path is no text")?;
    let own = devices.children.iter().any(is_disk);
    match stable {
        None if own => put_first(devices, path, format)?,
        stable => put_beside(devices, path, format, stable.unwrap_or(Beside { device: "disk", bus: None }), q35)?,
    }
    Ok(domain)
}

/// The guest's own disks keep their names and places.
fn put_beside(
    devices: &mut Element,
    path: &str,
    format: &str,
    beside: Beside,
    q35: bool,
) -> std::result::Result<(), BoxError> {
    let like = devices.elements().find(|disk| disk.name == "disk" && disk.attribute("device") == Some(beside.device));
    let default = match (beside.device, q35) {
        ("disk", _) => "virtio",
        (_, true) => "sata",
        (_, false) => "ide",
    };
    let bus = beside.bus.or_else(|| like.and_then(bus_of)).unwrap_or(default).to_owned();
    if bus == "ide" && q35 {
        return Err("a machine of the kind q35 has no IDE (hw_rescue_bus)".into());
    }
    let disk = rescue_disk(path, format, beside.device, &free_name(prefix_of(&bus), &names(devices))?, &bus);
    let is_scsi = |device: &Element| device.name == "controller" && device.attribute("type") == Some("scsi");
    if bus == "scsi" && !devices.elements().any(is_scsi) {
        let controller = Element::new("controller", &[("type", "scsi"), ("index", "0"), ("model", "virtio-scsi")]);
        devices.children.push(Child::Element(controller));
    }
    let at = devices.children.iter().rposition(is_disk).map_or(0, |last| last + 1);
    devices.children.insert(at, Child::Element(disk));
    Ok(())
}

/// The guest numbers its disks by their slots: the rescue disk has the name and the slot of the first, and each of the guest's own
/// those of the next.
fn put_first(devices: &mut Element, path: &str, format: &str) -> std::result::Result<(), BoxError> {
    let places: Vec<usize> = (0..devices.children.len()).filter(|place| is_disk(&devices.children[*place])).collect();
    let disks = || places.iter().filter_map(|place| element(&devices.children[*place]));
    let targets: Vec<String> =
        disks().filter_map(|disk| Some(disk.child("target")?.attribute("dev")?.into())).collect();
    let first = targets.first().ok_or("a disk of the guest has no name")?;
    let bus = disks().next().and_then(bus_of).unwrap_or("virtio").to_owned();
    let free = free_name(&first[..2.min(first.len())], &names(devices))?;
    let slots: Vec<Option<Element>> = disks().map(|disk| disk.child("address").cloned()).collect();
    let new = targets.iter().skip(1).chain([&free]);
    for ((number, place), name) in places.iter().enumerate().zip(new) {
        let Some(Child::Element(own)) = devices.children.get_mut(*place) else { continue };
        own.take("address");
        own.children.extend(slots.get(number + 1).cloned().flatten().map(Child::Element));
        if let Some(target) = own.child_mut("target") {
            target.set("dev", name);
        }
    }
    let mut rescue = rescue_disk(path, format, "disk", first, &bus);
    rescue.children.extend(slots.first().cloned().flatten().map(Child::Element));
    devices.children.insert(places.first().copied().unwrap_or(0), Child::Element(rescue));
    Ok(())
}

fn element(child: &Child) -> Option<&Element> {
    match child {
        Child::Element(element) => Some(element),
        Child::Text(_) => None,
    }
}

fn is_disk(child: &Child) -> bool {
    element(child).is_some_and(|disk| disk.name == "disk" && disk.attribute("device") == Some("disk"))
}

/// The rescued guest's own config drive, in the place of the guest's, or in the drive that it has not had.
fn put_drive(devices: &mut Element, drive: &Path) -> std::result::Result<(), BoxError> {
    let path = drive.to_str().ok_or("the config drive's path is no text")?;
    let known = devices.elements_mut().find(|disk| disk.name == "disk" && disk.attribute("device") == Some("cdrom"));
    match known.and_then(|disk| disk.child_mut("source")) {
        Some(source) => source.set("file", path),
        None => {
            let ide = !devices
                .elements()
                .any(|device| device.name == "controller" && device.attribute("type") == Some("sata"));
            let bus = if ide { "ide" } else { "sata" };
            let name = free_name(prefix_of(bus), &names(devices))?;
            let cdrom = Element::new("disk", &[("type", "file"), ("device", "cdrom")])
                .with(Element::new("driver", &[("name", "qemu"), ("type", "raw")]))
                .with(Element::new("source", &[("file", path)]))
                .with(Element::new("target", &[("dev", &name), ("bus", bus)]))
                .with(Element::new("readonly", &[]));
            devices.children.insert(0, Child::Element(cdrom));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml_tree;

    const GUEST: &str = "<domain><os><type>hvm</type><boot dev='hd'/></os><devices>\
        <disk type='file' device='disk'><source file='/i/disk'/><target dev='vda' bus='virtio'/><address slot='4'/></disk>\
        <disk type='file' device='disk'><source file='/i/disk.eph0'/><target dev='vdb' bus='virtio'/><address slot='5'/></disk>\
        <disk type='file' device='cdrom'><source file='/i/disk.config'/><target dev='hda' bus='ide'/></disk>\
        </devices></domain>";

    const STABLE: Option<Beside> = Some(Beside { device: "disk", bus: None });

    fn disks(stable: Option<Beside>, drive: Option<&str>) -> Vec<[String; 3]> {
        let original = xml_tree::parse(GUEST).unwrap();
        let path = Path::new("/i/disk.rescue");
        let domain = rescued(&original, path, "qcow2", stable, drive.map(Path::new)).unwrap();
        assert!(domain.child("os").unwrap().child("boot").is_none(), "one order, not two");
        let all = domain.child("devices").unwrap().elements().filter(|device| device.name == "disk");
        let disks = all.map(|disk| {
            let of = |name: &str, attribute: &str| {
                disk.child(name).and_then(|element| element.attribute(attribute)).unwrap_or("-").to_owned()
            };
            [of("source", "file"), of("target", "dev"), of("address", "slot")]
        });
        disks.collect()
    }

    fn rows(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
        rows.iter().map(|row| row.map(str::to_owned)).collect()
    }

    #[test]
    fn the_rescue_disk_takes_the_root_disks_place() {
        let expected = [
            ["/i/disk.rescue", "vda", "4"],
            ["/i/disk", "vdb", "5"],
            ["/i/disk.eph0", "vdc", "-"],
            ["/i/disk.config", "hda", "-"],
        ];
        assert_eq!(disks(None, None), rows(&expected));
    }

    #[test]
    fn a_stable_rescue_leaves_the_guests_disks_where_they_are() {
        let expected = [
            ["/i/disk", "vda", "4"],
            ["/i/disk.eph0", "vdb", "5"],
            ["/i/disk.rescue", "vdc", "-"],
            ["/i/disk.config.rescue", "hda", "-"],
        ];
        assert_eq!(disks(STABLE, Some("/i/disk.config.rescue")), rows(&expected));
    }

    /// A server that boots from a volume, with another one and an ephemeral disk: each stays attached, where it was.
    #[test]
    fn a_stable_rescue_leaves_volumes_where_they_are() {
        let source = "<source protocol='nbd' name='v'><host name='h' port='1'/></source>";
        let volumes = format!(
            "<disk type='network' device='disk'>{source}<target dev='vda' bus='virtio'/><serial>root</serial></disk>\
             <disk type='file' device='disk'><source file='/i/disk.eph0'/><target dev='vdb' bus='virtio'/></disk>\
             <disk type='block' device='disk'><source dev='/dev/x'/><target dev='vdc' bus='virtio'/><serial>data</serial></disk>"
        );
        let guest = format!("<domain><os><type>hvm</type><boot dev='hd'/></os><devices>{volumes}</devices></domain>");
        let original = xml_tree::parse(&guest).unwrap();
        let path = Path::new("/i/disk.rescue");
        for stable in
            [STABLE, Beside::of(&StableRescue { device: Some("cdrom".into()), bus: Some("sata".into()) }).ok()]
        {
            let domain = rescued(&original, path, "raw", stable, None).unwrap();
            let own = |domain: &Element| {
                let disks = domain.child("devices").unwrap().elements().filter(|disk| disk.name == "disk");
                disks.filter(|disk| disk.child("boot").is_none()).cloned().collect::<Vec<_>>()
            };
            let texts = |disks: Vec<Element>| disks.iter().map(|disk| disk.write().unwrap()).collect::<Vec<_>>();
            assert_eq!(texts(own(&domain)), texts(own(&original)), "first and as it was");
            let devices = domain.child("devices").unwrap();
            let rescue: Vec<&Element> = devices.elements().filter(|disk| disk.child("boot").is_some()).collect();
            assert_eq!(rescue.len(), 1);
            assert_eq!(rescue[0].child("source").unwrap().attribute("file"), Some("/i/disk.rescue"));
            assert_eq!(devices.elements().last().unwrap().child("boot"), rescue[0].child("boot"), "after them");
        }
    }

    /// `hw_rescue_device` and `hw_rescue_bus` of the rescue image.
    #[test]
    fn a_stable_rescue_disk_is_plugged_in_as_its_image_asks() {
        let asked = |device: &str, bus: &str| {
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Beside::of(&StableRescue { device: text(device), bus: text(bus) })
        };
        let plugged = |device: &str, bus: &str| {
            let original = xml_tree::parse(GUEST).unwrap();
            let beside = asked(device, bus).unwrap();
            let domain = rescued(&original, Path::new("/i/disk.rescue"), "qcow2", Some(beside), None).unwrap();
            let devices = domain.child("devices").unwrap().clone();
            let mine = devices.elements().find(|disk| disk.child("boot").is_some()).unwrap().clone();
            let scsi = devices.elements().any(|device| device.attribute("model") == Some("virtio-scsi"));
            let target = mine.child("target").unwrap();
            let of = |name: &str| target.attribute(name).unwrap().to_owned();
            let read_only = mine.child("readonly").is_some();
            (mine.attribute("device").unwrap().to_owned(), of("dev"), of("bus"), scsi, read_only)
        };
        let is = |device: &str, name: &str, bus: &str, scsi: bool| {
            (device.to_owned(), name.to_owned(), bus.to_owned(), scsi, device == "cdrom")
        };
        assert_eq!(plugged("", "virtio"), is("disk", "vdc", "virtio", false));
        assert_eq!(plugged("disk", ""), is("disk", "vdc", "virtio", false));
        assert_eq!(plugged("disk", "scsi"), is("disk", "sda", "scsi", true));
        assert_eq!(plugged("", "usb"), is("disk", "sda", "usb", false));
        assert_eq!(plugged("cdrom", ""), is("cdrom", "hdb", "ide", false));
        assert_eq!(plugged("cdrom", "sata"), is("cdrom", "sda", "sata", false));
        for (device, bus, field) in [
            ("floppy", "", "hw_rescue_device"),
            ("lun", "scsi", "hw_rescue_device"),
            ("disk", "xen", "hw_rescue_bus"),
            ("cdrom", "virtio", "hw_rescue_bus"),
        ] {
            let refused = asked(device, bus).unwrap_err();
            assert!(refused.to_string().starts_with(field), "{refused}");
        }
        let q35 = GUEST.replace("<type>", "<type machine='pc-q35-7.2'>");
        let ide = asked("", "ide").unwrap();
        let q35 = xml_tree::parse(&q35).unwrap();
        rescued(&q35, Path::new("/i/disk.rescue"), "qcow2", Some(ide), None).unwrap_err();
    }
}
