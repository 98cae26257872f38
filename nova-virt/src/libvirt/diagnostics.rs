//! Counters of a guest (nova/virt/libvirt/driver.py, `get_instance_diagnostics`).

use std::collections::BTreeMap;
use std::path::Path;

use super::domains::Guest;
use super::xml_tree::Element;
use super::{errors, ffi, host};
use crate::{Diagnostics, DiskCounters, HypervisorError, InterfaceCounters};

const DURING: &str = "reading the guest's counters";

impl Guest {
    /// Blocks.
    pub(super) fn diagnostics(&self, virt_type: &str) -> Result<Diagnostics, HypervisorError> {
        let definition = if self.active { self.live_definition()? } else { self.definition()? };
        let numbers = match self.active {
            true => ffi::numbers(&self.domain).map_err(|error| errors::failed(DURING, error))?,
            false => BTreeMap::new(),
        };
        let mut told = read(&definition, &numbers);
        told.hypervisor = virt_type.to_owned();
        told.hypervisor_os = "linux".to_owned();
        told.driver = errors::DRIVER.to_owned();
        if self.active {
            told.uptime = process_uptime(&self.instance.to_string()).unwrap_or(0);
        }
        Ok(told)
    }
}

/// What the definition and libvirt's numbers tell.
fn read(definition: &Element, numbers: &BTreeMap<String, u64>) -> Diagnostics {
    let number = |name: String| numbers.get(&name).copied().unwrap_or(0);
    let text = |name: &str| definition.child(name).map(Element::text).unwrap_or_default();
    let vcpus: u32 = text("vcpu").trim().parse().unwrap_or(0);
    let devices: Vec<&Element> = definition.child("devices").iter().flat_map(|devices| devices.elements()).collect();
    let disks = devices.iter().filter(|device| device.name == "disk");
    let disk = |(place, disk): (usize, &&Element)| {
        let counter = |what: &str| number(format!("block.{place}.{what}"));
        let counters = DiskCounters {
            device: disk.child("target").and_then(|target| target.attribute("dev")).unwrap_or_default().to_owned(),
            read_bytes: counter("rd.bytes"),
            read_requests: counter("rd.reqs"),
            write_bytes: counter("wr.bytes"),
            write_requests: counter("wr.reqs"),
            errors: counter("errors"),
        };
        (disk.attribute("device") != Some("cdrom")).then_some(counters)
    };
    let nic = |(place, nic): (usize, &&Element)| {
        let counter = |what: &str| number(format!("net.{place}.{what}"));
        InterfaceCounters {
            mac_address: nic.child("mac").and_then(|mac| mac.attribute("address")).unwrap_or_default().to_lowercase(),
            rx_octets: counter("rx.bytes"),
            rx_packets: counter("rx.pkts"),
            rx_drop: counter("rx.drop"),
            rx_errors: counter("rx.errs"),
            tx_octets: counter("tx.bytes"),
            tx_packets: counter("tx.pkts"),
            tx_drop: counter("tx.drop"),
            tx_errors: counter("tx.errs"),
        }
    };
    let kib = |name: &str| numbers.get(name).copied();
    let used = kib("balloon.available").zip(kib("balloon.unused")).map(|(all, unused)| all.saturating_sub(unused));
    let is_drive = |disk: &&&Element| {
        let source = disk.child("source").and_then(|source| source.attribute("file")).unwrap_or_default();
        disk.name == "disk" && disk.attribute("device") == Some("cdrom") && source.contains("disk.config")
    };
    Diagnostics {
        cpu_time_ns: match numbers.is_empty() {
            true => Vec::new(),
            false => (0..vcpus).map(|cpu| number(format!("vcpu.{cpu}.time"))).collect(),
        },
        vcpus,
        disks: disks.enumerate().filter_map(disk).collect(),
        interfaces: devices.iter().filter(|device| device.name == "interface").enumerate().map(nic).collect(),
        memory_mb: text("memory").trim().parse::<u64>().unwrap_or(0) / 1024,
        memory_used_mb: used.map(|kib| kib / 1024),
        config_drive: devices.iter().any(|device| is_drive(&device)),
        ..Diagnostics::default()
    }
}

/// Seconds since the process of that guest was started: libvirt does not tell.
fn process_uptime(instance: &str) -> Option<u64> {
    let since_boot: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let started = processes.filter(|path| is_guest(path, instance)).find_map(|path| start_ticks(&path))?;
    Some((since_boot as u64).saturating_sub(started / host::TICKS_PER_SECOND))
}

fn is_guest(process: &Path, instance: &str) -> bool {
    let number = process.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
    let arguments = || std::fs::read(process.join("cmdline")).unwrap_or_default();
    number
        && arguments()
            .split(|byte| *byte == 0)
            .collect::<Vec<_>>()
            .windows(2)
            .any(|pair| pair[0] == b"-uuid" && pair[1] == instance.as_bytes())
}

/// When a process was started, in ticks since the machine was: field 22 of its `stat`.
fn start_ticks(process: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // Its name may have spaces and parentheses of its own.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::xml_tree;
    use super::*;

    #[test]
    fn counters_go_to_their_devices() {
        let xml = "<domain><memory unit='KiB'>131072</memory><vcpu>2</vcpu><devices>\
            <disk type='file' device='cdrom'><source file='/i/disk.config'/><target dev='hda'/></disk>\
            <disk type='file' device='disk'><target dev='vda'/></disk>\
            <interface type='ethernet'><mac address='FA:16:3E:00:00:01'/></interface></devices></domain>";
        let numbers = [
            ("vcpu.0.time", 7),
            ("vcpu.1.time", 8),
            ("block.1.rd.bytes", 512),
            ("block.1.wr.reqs", 3),
            ("net.0.rx.pkts", 9),
            ("balloon.available", 65_536),
            ("balloon.unused", 32_768),
        ];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number)).into();
        let told = read(&xml_tree::parse(xml).unwrap(), &numbers);
        assert_eq!((told.vcpus, told.memory_mb, told.memory_used_mb), (2, 128, Some(32)));
        assert_eq!((told.cpu_time_ns, told.config_drive), (vec![7, 8], true));
        let disk = DiskCounters { device: "vda".into(), read_bytes: 512, write_requests: 3, ..Default::default() };
        assert_eq!(told.disks, [disk]);
        let nic = InterfaceCounters { mac_address: "fa:16:3e:00:00:01".into(), rx_packets: 9, ..Default::default() };
        assert_eq!(told.interfaces, [nic]);
    }

    #[test]
    fn a_process_tells_when_it_was_started() {
        assert!(start_ticks(Path::new("/proc/self")).unwrap() > 0);
        assert!(!is_guest(Path::new("/proc/self"), "none"));
    }
}
