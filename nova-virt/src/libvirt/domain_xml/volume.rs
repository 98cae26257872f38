//! Volumes in a guest's definition (nova/virt/libvirt/volume/*.py, `get_config`).

use std::collections::BTreeSet;
use std::io;

use nova_core::volume::connection::ConnectionTarget;
use quick_xml::Writer;

use super::hardware::Bus;
use super::{Shape, W, empty, into_string, path_text, tuning};
use crate::DiskAttachment;
use crate::libvirt::options::LibvirtOptions;
use crate::volume::iscsi_portal;

/// The bus and the name in the guest of each of its disks: those of its own, then its volumes, in the order of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) struct DiskNames {
    pub(super) disks: Vec<String>,
    pub(in crate::libvirt) volumes: Vec<VolumePlace>,
}

/// Where a volume is in its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) struct VolumePlace {
    pub(in crate::libvirt) device: String,
    pub(in crate::libvirt) bus: String,
}

impl DiskNames {
    /// The volume that the guest boots from comes before its own disks. Volumes go on the disks' bus, or on virtio where nothing
    /// can be plugged into that.
    pub(super) fn new(shape: &Shape, disks: usize, volumes: &[DiskAttachment]) -> Self {
        let boots = usize::from(volumes.iter().any(|volume| volume.boot));
        let own: Vec<String> = (0..disks).map(|index| shape.disk_name(index + boots)).collect();
        let bus = match shape.disk_bus {
            bus @ (Bus::Virtio | Bus::Scsi) => bus,
            Bus::Sata | Bus::Ide | Bus::Usb => Bus::Virtio,
        };
        let mut taken: BTreeSet<String> = own.iter().cloned().collect();
        taken.insert(shape.cdrom_name());
        let root = VolumePlace { device: shape.disk_name(0), bus: shape.disk_bus.as_str().to_owned() };
        if boots > 0 {
            taken.insert(root.device.clone());
        }
        // Those that have a name already keep it: what they wish for is theirs before the others choose.
        let mut wishes: Vec<Option<String>> = Vec::new();
        for volume in volumes {
            let wished = volume.wished_name().filter(|name| !volume.boot && is_name(name, bus.prefix()));
            let wished = wished.map(str::to_owned).filter(|name| taken.insert(name.clone()));
            wishes.push(wished);
        }
        let place = |(volume, wish): (&DiskAttachment, Option<String>)| {
            if volume.boot {
                return root.clone();
            }
            let device = wish.unwrap_or_else(|| next_free(bus.prefix(), &taken));
            taken.insert(device.clone());
            VolumePlace { device, bus: bus.as_str().to_owned() }
        };
        Self { disks: own, volumes: volumes.iter().zip(wishes).map(place).collect() }
    }
}

/// `vda` to `vdz`.
pub(in crate::libvirt) fn is_name(name: &str, prefix: &str) -> bool {
    let letter = name.strip_prefix(prefix).map(str::as_bytes);
    matches!(letter, Some([letter]) if letter.is_ascii_lowercase())
}

/// The first name of that kind that nothing has; the last one when all are taken, which libvirt refuses.
pub(in crate::libvirt) fn next_free(prefix: &str, taken: &BTreeSet<String>) -> String {
    let all = (b'a'..=b'z').map(|letter| format!("{prefix}{}", char::from(letter)));
    all.clone().find(|name| !taken.contains(name)).unwrap_or_else(|| format!("{prefix}z"))
}

/// A volume alone, as libvirt wants it for plugging in. `secret`: the id under which libvirt knows the password.
pub(in crate::libvirt) fn volume_alone(
    volume: &DiskAttachment,
    place: &VolumePlace,
    options: &LibvirtOptions,
) -> io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    write(&mut writer, volume, place, None, options)?;
    into_string(writer)
}

/// Only where a volume is, and whether that is a file, a device or a server.
pub(in crate::libvirt) fn source_alone(volume: &DiskAttachment) -> io::Result<(&'static str, String)> {
    let mut writer = Writer::new(Vec::new());
    source(&mut writer, volume)?;
    Ok((kind(volume)?, into_string(writer)?))
}

fn kind(volume: &DiskAttachment) -> io::Result<&'static str> {
    match &volume.connection.target {
        ConnectionTarget::Nbd(_) | ConnectionTarget::Iscsi(_) => Ok("network"),
        ConnectionTarget::File(_) => Ok("file"),
        ConnectionTarget::Local(_) => Ok("block"),
        _ => Err(io::Error::other("a kind of volume that is not known here")),
    }
}

/// The id under which libvirt knows the password of a volume: the volume's own.
pub(in crate::libvirt) fn secret_id(volume: &DiskAttachment) -> String {
    volume.volume().to_string()
}

/// How libvirt is told of a password: nobody reads it back through libvirt.
pub(in crate::libvirt) fn secret(volume: &DiskAttachment) -> io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    let element = writer.create_element("secret").with_attributes([("ephemeral", "no"), ("private", "yes")]);
    element.write_inner_content(|w| {
        super::text(w, "uuid", &secret_id(volume))?;
        super::text(w, "description", "password of a volume")?;
        w.create_element("usage")
            .with_attribute(("type", "iscsi"))
            .write_inner_content(|w| super::text(w, "target", &format!("nova-volume-{}", volume.volume())))?;
        Ok(())
    })?;
    into_string(writer)
}

pub(super) fn write(
    w: &mut W,
    volume: &DiskAttachment,
    place: &VolumePlace,
    shape: Option<&Shape>,
    options: &LibvirtOptions,
) -> io::Result<()> {
    let target = &volume.connection.target;
    let kind = kind(volume)?;
    w.create_element("disk").with_attributes([("type", kind), ("device", "disk")]).write_inner_content(|w| {
        // The format is never guessed (OSSA-2026-002): what is behind a network or a device is the disk itself.
        let format = match target {
            ConnectionTarget::File(file) => file.format.as_str(),
            _ => "raw",
        };
        // What several guests write is read from where it is.
        let cache = if volume.shareable { "none" } else { options.volume_cache_mode.as_str() };
        let policy = options.volume_error_policy.as_str();
        let driver =
            [("name", "qemu"), ("type", format), ("cache", cache), ("discard", "unmap"), ("error_policy", policy)];
        empty(w, "driver", &driver)?;
        source(w, volume)?;
        empty(w, "target", &[("dev", place.device.as_str()), ("bus", place.bus.as_str())])?;
        if let Some(shape) = shape {
            tuning::numbers(w, "iotune", &shape.disk)?;
        }
        if volume.read_only() {
            empty(w, "readonly", &[])?;
        }
        if volume.shareable {
            empty(w, "shareable", &[])?;
        }
        super::text(w, "serial", &volume.volume().to_string())
    })?;
    Ok(())
}

fn source(w: &mut W, volume: &DiskAttachment) -> io::Result<()> {
    match &volume.connection.target {
        ConnectionTarget::Nbd(nbd) => {
            let mut attributes = vec![("protocol", "nbd"), ("name", nbd.export.as_str())];
            if let Some(tls) = &nbd.tls {
                attributes.extend([("tls", "yes"), ("tlsHostname", tls.server_name.as_str())]);
            }
            let port = nbd.port.to_string();
            let host = [("name", nbd.host.as_str()), ("port", port.as_str())];
            w.create_element("source").with_attributes(attributes).write_inner_content(|w| empty(w, "host", &host))?;
        }
        ConnectionTarget::Iscsi(iscsi) => {
            let (host, port) = iscsi_portal(&iscsi.target_portal)
                .ok_or_else(|| io::Error::other("an iSCSI portal that is no address"))?;
            let name = format!("{}/{}", iscsi.target_iqn, iscsi.target_lun);
            let (port, attributes) = (port.to_string(), [("protocol", "iscsi"), ("name", name.as_str())]);
            w.create_element("source").with_attributes(attributes).write_inner_content(|w| {
                empty(w, "host", &[("name", host), ("port", port.as_str())])?;
                let Some(auth) = &iscsi.auth else { return Ok(()) };
                let auth = w.create_element("auth").with_attribute(("username", auth.auth_username.as_str()));
                let id = secret_id(volume);
                auth.write_inner_content(|w| empty(w, "secret", &[("type", "iscsi"), ("uuid", id.as_str())]))?;
                Ok(())
            })?;
        }
        ConnectionTarget::File(file) => empty(w, "source", &[("file", path_text(&file.path)?)])?,
        ConnectionTarget::Local(device) => empty(w, "source", &[("dev", path_text(&device.device_path)?)])?,
        _ => return Err(io::Error::other("a kind of volume that is not known here")),
    }
    Ok(())
}
