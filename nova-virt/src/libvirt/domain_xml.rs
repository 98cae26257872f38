//! The XML that defines a guest.
//!
//! Everything that is a user's goes through the writer's escaping, and characters that XML can't carry are replaced.

use std::io;
use std::path::{Path, PathBuf};

use quick_xml::Writer;
use quick_xml::events::BytesText;

use super::options::{LibvirtOptions, SpiceOptions};
use crate::{DiskFormat, GuestSpec, InterfaceSpec};

mod hardware;
mod placement;
mod processor;
mod tuning;
mod volume;

pub(super) use hardware::Shape;
pub(super) use volume::{VolumePlace, is_name, next_free, secret, source_alone, volume_alone};

/// Domains with an element of this namespace in their metadata are ours.
pub(super) const NAMESPACE: &str = "urn:nova-cloud:libvirt:guest:1";
/// The prefix of that namespace.
pub(super) const PREFIX: &str = "nova";

/// Where a guest's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestFiles {
    /// One per disk of the spec, in its order.
    pub(super) disks: Vec<DiskFile>,
    /// The config drive's ISO 9660 image.
    pub(super) config_drive: Option<PathBuf>,
    /// What the guest writes to its serial port.
    pub(super) console_log: PathBuf,
    /// What UEFI firmware remembers.
    pub(super) nvram: PathBuf,
}

/// A disk, and what it is: QEMU never guesses (OSSA-2026-002).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskFile {
    pub(super) path: PathBuf,
    pub(super) format: DiskFormat,
}

type W = Writer<Vec<u8>>;

/// The definition of a guest.
pub(super) fn domain(
    guest: &GuestSpec,
    shape: &Shape,
    files: &GuestFiles,
    options: &LibvirtOptions,
) -> io::Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.create_element("domain").with_attribute(("type", options.virt_type.as_str())).write_inner_content(|w| {
        text(w, "uuid", &guest.instance.to_string())?;
        text(w, "name", &guest.name)?;
        w.create_element("memory")
            .with_attribute(("unit", "MiB"))
            .write_text_content(BytesText::new(&guest.memory_mb.to_string()))?;
        text(w, "vcpu", &guest.vcpus.to_string())?;
        placement::tune(w, guest.placement.as_ref(), &shape.cpu)?;
        w.create_element("metadata").write_inner_content(|w| write_metadata(w, guest, shape))?;
        machine(w, guest, shape, files, options)?;
        w.create_element("devices").write_inner_content(|w| devices(w, guest, shape, files, options))?;
        Ok(())
    })?;
    into_string(writer)
}

/// One interface, as `virDomainAttachDeviceFlags` wants it.
pub(super) fn interface_alone(nic: &InterfaceSpec) -> io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    interface(&mut writer, nic, None)?;
    into_string(writer)
}

/// The interface of that hardware address, as `virDomainDetachDeviceFlags` wants it.
pub(super) fn interface_of(mac_address: &str) -> io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    let element = writer.create_element("interface").with_attribute(("type", "ethernet"));
    element.write_inner_content(|w| empty(w, "mac", &[("address", mac_address)]))?;
    into_string(writer)
}

/// Our element of a domain's metadata, as `virDomainSetMetadata` wants it: libvirt adds the namespace.
pub(super) fn metadata(guest: &GuestSpec, shape: &Shape) -> io::Result<String> {
    let mut writer = Writer::new(Vec::new());
    writer.create_element("instance").write_inner_content(|w| write_facts(w, guest, shape, ""))?;
    into_string(writer)
}

fn write_metadata(w: &mut W, guest: &GuestSpec, shape: &Shape) -> io::Result<()> {
    w.create_element(format!("{PREFIX}:instance"))
        .with_attribute((format!("xmlns:{PREFIX}").as_str(), NAMESPACE))
        .write_inner_content(|w| write_facts(w, guest, shape, &format!("{PREFIX}:")))?;
    Ok(())
}

fn write_facts(w: &mut W, guest: &GuestSpec, shape: &Shape, prefix: &str) -> io::Result<()> {
    let name = |local: &str| format!("{prefix}{local}");
    text(w, &name("epoch"), &guest.epoch.to_string())?;
    text(w, &name("name"), &guest.display_name)?;
    text(w, &name("project"), &guest.project_id)?;
    text(w, &name("user"), &guest.user_id)?;
    text(w, &name("flavor"), &guest.flavor_name)?;
    if shape.administrator != "root" {
        text(w, &name("administrator"), &shape.administrator)?;
    }
    match &guest.image_id {
        Some(image) => text(w, &name("image"), image),
        None => Ok(()),
    }
}

fn machine(
    w: &mut W,
    guest: &GuestSpec,
    shape: &Shape,
    files: &GuestFiles,
    options: &LibvirtOptions,
) -> io::Result<()> {
    w.create_element("os").write_inner_content(|w| {
        w.create_element("type")
            .with_attributes([("arch", "x86_64"), ("machine", shape.machine.as_str())])
            .write_text_content(BytesText::new("hvm"))?;
        tuning::firmware(w, shape, files)?;
        empty(w, "boot", &[("dev", "hd")])?;
        if shape.boot_menu {
            empty(w, "bootmenu", &[("enable", "yes")])?;
        }
        empty(w, "smbios", &[("mode", "sysinfo")])
    })?;
    // cloud-init and its like recognise the platform by this.
    w.create_element("sysinfo").with_attribute(("type", "smbios")).write_inner_content(|w| {
        w.create_element("system").write_inner_content(|w| {
            entry(w, "manufacturer", "OpenStack Foundation")?;
            entry(w, "product", "OpenStack Nova")?;
            entry(w, "uuid", &guest.instance.to_string())
        })?;
        Ok(())
    })?;
    w.create_element("features").write_inner_content(|w| {
        if options.virt_type == "qemu" {
            w.create_element("tcg").write_inner_content(|w| {
                w.create_element("tb-cache")
                    .with_attribute(("unit", "MiB"))
                    .write_text_content(BytesText::new(&options.tb_cache_mib.to_string()))?;
                Ok(())
            })?;
        }
        empty(w, "acpi", &[])?;
        empty(w, "apic", &[])?;
        processor::features(w, shape)?;
        let secure = shape.firmware.as_ref().is_some_and(|firmware| firmware.secure);
        if secure { empty(w, "smm", &[("state", "on")]) } else { Ok(()) }
    })?;
    processor::write(w, guest, shape, options)?;
    w.create_element("clock").with_attribute(("offset", "utc")).write_inner_content(|w| {
        empty(w, "timer", &[("name", "pit"), ("tickpolicy", "delay")])?;
        empty(w, "timer", &[("name", "rtc"), ("tickpolicy", "catchup")])?;
        empty(w, "timer", &[("name", "hpet"), ("present", if shape.hpet { "yes" } else { "no" })])
    })?;
    text(w, "on_poweroff", "destroy")?;
    text(w, "on_reboot", "restart")?;
    text(w, "on_crash", "destroy")
}

fn devices(
    w: &mut W,
    guest: &GuestSpec,
    shape: &Shape,
    files: &GuestFiles,
    options: &LibvirtOptions,
) -> io::Result<()> {
    let names = volume::DiskNames::new(shape, files.disks.len(), &guest.volumes);
    let volumes = || guest.volumes.iter().zip(&names.volumes);
    // A guest boots from the first disk of its definition.
    for (volume, place) in volumes().filter(|(volume, _)| volume.boot) {
        volume::write(w, volume, place, Some(shape), options)?;
    }
    for (file, name) in files.disks.iter().zip(&names.disks) {
        disk(w, file, name, shape)?;
    }
    for (volume, place) in volumes().filter(|(volume, _)| !volume.boot) {
        volume::write(w, volume, place, Some(shape), options)?;
    }
    if let Some(path) = &files.config_drive {
        config_drive(w, path, shape)?;
    }
    if let Some(model) = &shape.scsi_model {
        empty(w, "controller", &[("type", "scsi"), ("index", "0"), ("model", model.as_str())])?;
    }
    for nic in &guest.interfaces {
        interface(w, nic, Some(shape))?;
    }
    // A terminal for interactive use, and a log of all that is written to it, on one port.
    w.create_element("serial").with_attribute(("type", "pty")).write_inner_content(|w| {
        let log = path_text(&files.console_log)?;
        empty(w, "log", &[("file", log), ("append", "on")])?;
        empty(w, "target", &[("port", "0")])
    })?;
    if shape.agent {
        let target = [("type", "virtio"), ("name", "org.qemu.guest_agent.0")];
        w.create_element("channel")
            .with_attribute(("type", "unix"))
            .write_inner_content(|w| empty(w, "target", &target))?;
    }
    if shape.tablet {
        empty(w, "input", &[("type", "tablet"), ("bus", shape.input_bus)])?;
    }
    let listen = options.vnc_listen.as_str();
    let graphics = [("type", "vnc"), ("port", "-1"), ("autoport", "yes"), ("listen", listen)];
    empty(w, "graphics", &graphics)?;
    if let Some(spice) = &options.spice {
        self::spice(w, spice)?;
    }
    tuning::screen(w, shape)?;
    tuning::watchdog_and_rng(w, shape)?;
    w.create_element("memballoon")
        .with_attribute(("model", "virtio"))
        .write_inner_content(|w| empty(w, "stats", &[("period", "10")]))?;
    Ok(())
}

/// A second screen, over SPICE. Its images are compressed for clients that keep no dictionary: those in browsers keep none.
fn spice(w: &mut W, spice: &SpiceOptions) -> io::Result<()> {
    let mut graphics = vec![("type", "spice"), ("port", "-1"), ("autoport", "yes"), ("listen", spice.listen.as_str())];
    if spice.require_secure {
        graphics.push(("defaultMode", "secure"));
    }
    w.create_element("graphics")
        .with_attributes(graphics)
        .write_inner_content(|w| empty(w, "image", &[("compression", "auto_lz")]))?;
    if spice.agent {
        let target = [("type", "virtio"), ("name", "com.redhat.spice.0")];
        w.create_element("channel")
            .with_attribute(("type", "spicevmc"))
            .write_inner_content(|w| empty(w, "target", &target))?;
    }
    Ok(())
}

fn disk(w: &mut W, file: &DiskFile, target: &str, shape: &Shape) -> io::Result<()> {
    w.create_element("disk").with_attributes([("type", "file"), ("device", "disk")]).write_inner_content(|w| {
        let format = file.format.as_str();
        let driver = [("name", "qemu"), ("type", format), ("cache", "writeback"), ("discard", "unmap")];
        empty(w, "driver", &driver)?;
        empty(w, "source", &[("file", path_text(&file.path)?)])?;
        empty(w, "target", &[("dev", target), ("bus", shape.disk_bus.as_str())])?;
        tuning::numbers(w, "iotune", &shape.disk)
    })?;
    Ok(())
}

fn config_drive(w: &mut W, path: &Path, shape: &Shape) -> io::Result<()> {
    w.create_element("disk").with_attributes([("type", "file"), ("device", "cdrom")]).write_inner_content(|w| {
        empty(w, "driver", &[("name", "qemu"), ("type", "raw")])?;
        empty(w, "source", &[("file", path_text(path)?)])?;
        empty(w, "target", &[("dev", shape.cdrom_name().as_str()), ("bus", shape.cdrom_bus.as_str())])?;
        empty(w, "readonly", &[])
    })?;
    Ok(())
}

fn interface(w: &mut W, nic: &InterfaceSpec, shape: Option<&Shape>) -> io::Result<()> {
    // Of type ethernet: a tap that is on no bridge.
    let kind = if nic.bridge.is_some() { "bridge" } else { "ethernet" };
    let model = shape.map_or("virtio", |shape| shape.vif_model.as_str());
    w.create_element("interface").with_attribute(("type", kind)).write_inner_content(|w| {
        empty(w, "mac", &[("address", nic.mac_address.as_str())])?;
        if let Some(bridge) = &nic.bridge {
            empty(w, "source", &[("bridge", bridge.as_str())])?;
        }
        empty(w, "target", &[("dev", nic.tap_name.as_str())])?;
        empty(w, "model", &[("type", model)])?;
        if let Some(queues) = shape.filter(|_| model == "virtio").and_then(|shape| shape.queues) {
            empty(w, "driver", &[("name", "qemu"), ("queues", queues.to_string().as_str())])?;
        }
        if let Some(shape) = shape {
            tuning::bandwidth(w, shape)?;
        }
        if let Some(mtu) = nic.mtu {
            empty(w, "mtu", &[("size", mtu.to_string().as_str())])?;
        }
        empty(w, "rom", &[("enabled", "no")])
    })?;
    Ok(())
}

fn entry(w: &mut W, name: &str, value: &str) -> io::Result<()> {
    w.create_element("entry").with_attribute(("name", name)).write_text_content(BytesText::new(value))?;
    Ok(())
}

fn text(w: &mut W, name: &str, value: &str) -> io::Result<()> {
    w.create_element(name).write_text_content(BytesText::new(&clean(value)))?;
    Ok(())
}

fn empty(w: &mut W, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    w.create_element(name).with_attributes(attributes.iter().copied()).write_empty()?;
    Ok(())
}

/// Replaces what XML 1.0 can't carry, escaped or not; libvirt would refuse the whole document.
fn clean(value: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    value.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn path_text(path: &Path) -> io::Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    text.ok_or_else(|| io::Error::other(format!("{} can't be written as XML", path.display())))
}

fn into_string(writer: W) -> io::Result<String> {
    String::from_utf8(writer.into_inner()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
