//! What flavor and image ask of the machine, by Nova's names and rules (nova/virt/libvirt/config.py, driver.py, vif.py;
//! nova/virt/hardware.py for what is asked by both).
//!
//! A value that is no value is refused with its name; so is what is known and can't be done here. Names that are not known
//! are others' business.

use std::path::PathBuf;
use std::str::FromStr;

use super::processor::Processor;
use crate::libvirt::options::LibvirtOptions;
use crate::{Hardware, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

/// Where a disk is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::libvirt) enum Bus {
    Virtio,
    Scsi,
    Sata,
    Ide,
    Usb,
}

impl Bus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
            Self::Ide => "ide",
            Self::Usb => "usb",
        }
    }

    /// How the names of its devices begin.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Virtio => "vd",
            Self::Scsi | Self::Sata | Self::Usb => "sd",
            Self::Ide => "hd",
        }
    }
}

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Firmware {
    pub(super) secure: bool,
    pub(super) code: PathBuf,
    pub(super) variables: PathBuf,
}

/// What is tuned: name of libvirt's element and its value.
pub(super) type Tuning = Vec<(String, u64)>;

/// Everything about a guest's machine that flavor and image may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::libvirt) struct Shape {
    pub(super) machine: String,
    pub(super) disk_bus: Bus,
    pub(super) cdrom_bus: Bus,
    pub(super) scsi_model: Option<String>,
    pub(super) vif_model: String,
    pub(super) video: String,
    pub(super) video_kib: Option<u64>,
    pub(super) watchdog: Option<String>,
    pub(super) tablet: bool,
    pub(super) boot_menu: bool,
    pub(super) agent: bool,
    /// Who sets passwords in there.
    pub(super) administrator: String,
    pub(super) rng: bool,
    pub(super) rng_rate: Option<(u64, u64)>,
    pub(super) firmware: Option<Firmware>,
    pub(super) processor: Processor,
    /// Receives and sends with as many queues as the guest has CPUs.
    pub(super) queues: Option<u32>,
    /// What keyboard and tablet are on.
    pub(super) input_bus: &'static str,
    pub(super) hpet: bool,
    pub(super) cpu: Tuning,
    pub(super) disk: Tuning,
    /// Of `average`, `peak`, `burst`.
    pub(super) inbound: Tuning,
    pub(super) outbound: Tuning,
}

impl Shape {
    pub(in crate::libvirt) fn of(hardware: &Hardware, vcpus: u32, options: &LibvirtOptions) -> Result<Self> {
        let asked = Asked(hardware);
        asked.refuse_what_is_not_there()?;
        let machine = asked.machine(options)?;
        let q35 = machine.contains("q35");
        let firmware = asked.firmware(options, q35)?;
        let disk_bus = asked.bus("hw_disk_bus", q35)?.unwrap_or(Bus::Virtio);
        let default_cdrom = if q35 { Bus::Sata } else { Bus::Ide };
        let rng_allowed = asked.flavor_flag("hw_rng:allowed")?.unwrap_or(true);
        asked.one_of("hw_rng_model", &["virtio"])?;
        Ok(Self {
            disk_bus,
            cdrom_bus: asked.bus("hw_cdrom_bus", q35)?.unwrap_or(default_cdrom),
            scsi_model: asked.scsi_model(disk_bus)?,
            vif_model: asked.one_of("hw_vif_model", VIF_MODELS)?.unwrap_or_else(|| "virtio".into()),
            video: asked.one_of("hw_video_model", VIDEO_MODELS)?.unwrap_or_else(|| "vga".into()),
            video_kib: asked.video_kib()?,
            watchdog: asked.watchdog()?,
            tablet: asked.one_of("hw_pointer_model", &["usbtablet"])?.is_some(),
            boot_menu: match asked.flavor_flag("hw:boot_menu")? {
                Some(asked) => asked,
                None => asked.image_flag("hw_boot_menu")?.unwrap_or(false),
            },
            agent: asked.image_flag("hw_qemu_guest_agent")?.unwrap_or(false),
            administrator: asked.administrator(),
            rng: rng_allowed,
            rng_rate: asked.rng_rate()?,
            firmware,
            processor: asked.processor(vcpus)?,
            queues: asked.queues(vcpus)?,
            input_bus: match asked.one_of("hw_input_bus", &["usb", "virtio"])?.as_deref() {
                Some("virtio") => "virtio",
                _ => "usb",
            },
            hpet: asked.image_flag("hw_time_hpet")?.unwrap_or(false),
            cpu: asked.cpu()?,
            disk: asked.disk()?,
            inbound: asked.traffic("inbound")?,
            outbound: asked.traffic("outbound")?,
            machine,
        })
    }

    /// The name in the guest of its disk number `index`, from 0.
    pub(super) fn disk_name(&self, index: usize) -> String {
        let letter = u8::try_from(index).unwrap_or(25).min(25);
        // A drive of its kind has the first letter already.
        let shift = u8::from(self.cdrom_bus.prefix() == self.disk_bus.prefix());
        format!("{}{}", self.disk_bus.prefix(), char::from(b'a' + (letter + shift).min(25)))
    }

    pub(super) fn cdrom_name(&self) -> String {
        format!("{}a", self.cdrom_bus.prefix())
    }

    /// Of drives on one bus there are only so many.
    pub(in crate::libvirt) fn check_disks(&self, count: usize) -> Result<()> {
        let most = if self.disk_bus == Bus::Ide { 3 } else { 25 };
        if count > most {
            let problem = format!("at most {most} disks go on the bus {}", self.disk_bus.as_str());
            return Err(HypervisorError::invalid("hw_disk_bus", problem));
        }
        Ok(())
    }
}

const VIF_MODELS: &[&str] = &["virtio", "e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139", "vmxnet3"];
const VIDEO_MODELS: &[&str] = &["vga", "cirrus", "vmvga", "qxl", "virtio", "bochs", "none"];
const SCSI_MODELS: &[&str] = &["auto", "virtio-scsi", "lsilogic", "lsisas1068", "lsisas1078"];
const WATCHDOG_ACTIONS: &[&str] = &["none", "pause", "poweroff", "reset", "disabled"];

/// What is known, and can't be done here: better said than silently left out.
const NOT_THERE: &[&str] = &[
    "hw_mem_encryption",
    "hw:mem_encryption",
    "hw_firmware_stateless",
    "hw_viommu_model",
    "hw:viommu_model",
    "hw_tpm_version",
    "hw:tpm_version",
];

pub(super) struct Asked<'a>(pub(super) &'a Hardware);

impl Asked<'_> {
    fn flavor(&self, name: &str) -> Option<&str> {
        self.0.extra_specs.get(name).map(|value| value.trim())
    }

    fn image(&self, name: &str) -> Option<&str> {
        self.0.image_properties.get(name).map(|value| value.trim())
    }

    fn refuse_what_is_not_there(&self) -> Result<()> {
        for name in NOT_THERE {
            let value = if name.contains(':') { self.flavor(name) } else { self.image(name) };
            if value.is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "0" | "")) {
                return Err(HypervisorError::invalid(*name, "is not supported by this hypervisor"));
            }
        }
        Ok(())
    }

    fn flag(name: &str, value: Option<&str>) -> Result<Option<bool>> {
        let Some(value) = value else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(Some(true)),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(Some(false)),
            _ => Err(HypervisorError::invalid(name, "must be true or false")),
        }
    }

    pub(super) fn flavor_flag(&self, name: &str) -> Result<Option<bool>> {
        Self::flag(name, self.flavor(name))
    }

    pub(super) fn image_flag(&self, name: &str) -> Result<Option<bool>> {
        Self::flag(name, self.image(name))
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>> {
        let number = self.flavor(name).map(str::parse::<N>).transpose();
        number.map_err(|_| HypervisorError::invalid(name, "must be a whole number"))
    }

    fn in_range(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>> {
        match self.number::<u64>(name)? {
            Some(number) if !(least..=most).contains(&number) => {
                Err(HypervisorError::invalid(name, format!("must be between {least} and {most}")))
            }
            number => Ok(number),
        }
    }

    fn one_of(&self, name: &str, allowed: &[&str]) -> Result<Option<String>> {
        let Some(value) = self.image(name) else { return Ok(None) };
        if allowed.contains(&value) {
            Ok(Some(value.to_owned()))
        } else {
            Err(HypervisorError::invalid(name, format!("must be one of {}", allowed.join(", "))))
        }
    }

    fn machine(&self, options: &LibvirtOptions) -> Result<String> {
        let Some(machine) = self.image("hw_machine_type") else { return Ok(options.machine_type.clone()) };
        let known = matches!(machine, "pc" | "q35")
            || ["pc-i440fx-", "pc-q35-"].iter().any(|family| machine.starts_with(family));
        let plain = machine.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if known && plain && machine.len() <= 64 {
            Ok(machine.to_owned())
        } else {
            Err(HypervisorError::invalid("hw_machine_type", "must be pc, q35 or a version of them"))
        }
    }

    fn bus(&self, name: &str, q35: bool) -> Result<Option<Bus>> {
        let bus = match self.one_of(name, &["virtio", "scsi", "sata", "ide", "usb"])?.as_deref() {
            None => return Ok(None),
            Some("virtio") => Bus::Virtio,
            Some("scsi") => Bus::Scsi,
            Some("sata") => Bus::Sata,
            Some("ide") => Bus::Ide,
            Some(_) => Bus::Usb,
        };
        if bus == Bus::Ide && q35 {
            return Err(HypervisorError::invalid(name, "a machine of type q35 has no ide"));
        }
        if bus == Bus::Virtio && name == "hw_cdrom_bus" {
            return Err(HypervisorError::invalid(name, "there is no such drive; scsi, sata, ide and usb have one"));
        }
        Ok(Some(bus))
    }

    fn scsi_model(&self, disk_bus: Bus) -> Result<Option<String>> {
        let asked = self.one_of("hw_scsi_model", SCSI_MODELS)?;
        let used = disk_bus == Bus::Scsi || self.image("hw_cdrom_bus") == Some("scsi");
        Ok(match asked.as_deref() {
            Some("auto") | None => used.then(|| "virtio-scsi".to_owned()),
            Some(_) => asked,
        })
    }

    fn video_kib(&self) -> Result<Option<u64>> {
        let Some(value) = self.image("hw_video_ram") else { return Ok(None) };
        let asked: u64 =
            value.parse().map_err(|_| HypervisorError::invalid("hw_video_ram", "must be a whole number of MiB"))?;
        let most = self.in_range("hw_video:ram_max_mb", 0, 1 << 20)?.unwrap_or(0);
        if asked > most {
            let problem = format!("the flavor allows {most} MiB (hw_video:ram_max_mb)");
            return Err(HypervisorError::invalid("hw_video_ram", problem));
        }
        Ok((asked > 0).then_some(asked << 10))
    }

    /// The image's wish wins over the flavor's (nova/virt/libvirt/driver.py, `_set_guest_for_watchdog`).
    fn watchdog(&self) -> Result<Option<String>> {
        let of_image = self.one_of("hw_watchdog_action", WATCHDOG_ACTIONS)?;
        let of_flavor = self.flavor("hw:watchdog_action").map(str::to_owned);
        if let Some(action) = &of_flavor
            && !WATCHDOG_ACTIONS.contains(&action.as_str())
        {
            let problem = format!("must be one of {}", WATCHDOG_ACTIONS.join(", "));
            return Err(HypervisorError::invalid("hw:watchdog_action", problem));
        }
        Ok(of_image.or(of_flavor).filter(|action| action != "disabled"))
    }

    fn administrator(&self) -> String {
        let windows = self.image("os_type").is_some_and(|kind| kind.eq_ignore_ascii_case("windows"));
        let default = if windows { "Administrator" } else { "root" };
        self.image("os_admin_user").filter(|user| !user.is_empty()).unwrap_or(default).to_owned()
    }

    fn rng_rate(&self) -> Result<Option<(u64, u64)>> {
        let most = u64::from(u32::MAX);
        let period = self.in_range("hw_rng:rate_period", 1, most)?;
        Ok(self.in_range("hw_rng:rate_bytes", 1, most)?.map(|bytes| (bytes, period.unwrap_or(1000))))
    }

    fn firmware(&self, options: &LibvirtOptions, q35: bool) -> Result<Option<Firmware>> {
        let uefi = self.one_of("hw_firmware_type", &["bios", "uefi"])?.as_deref() == Some("uefi");
        let secure = self.secure_boot()?;
        if secure == Secure::Required && !uefi {
            return Err(HypervisorError::invalid("os_secure_boot", "needs hw_firmware_type uefi"));
        }
        if secure == Secure::Required && !q35 {
            return Err(HypervisorError::invalid("os_secure_boot", "needs hw_machine_type q35"));
        }
        let secure = secure != Secure::Disabled && q35;
        let file = |name: &str| options.firmware_path.join(name);
        Ok(uefi.then(|| match secure {
            true => Firmware { secure, code: file("OVMF_CODE_4M.secboot.fd"), variables: file("OVMF_VARS_4M.ms.fd") },
            false => Firmware { secure, code: file("OVMF_CODE_4M.fd"), variables: file("OVMF_VARS_4M.fd") },
        }))
    }

    /// Flavor and image must not say the opposite (nova/virt/hardware.py, `get_secure_boot_constraint`).
    fn secure_boot(&self) -> Result<Secure> {
        let parse = |name: &str, value: Option<&str>| match value {
            None => Ok(None),
            Some("required") => Ok(Some(Secure::Required)),
            Some("optional") => Ok(Some(Secure::Optional)),
            Some("disabled") => Ok(Some(Secure::Disabled)),
            Some(_) => Err(HypervisorError::invalid(name, "must be required, optional or disabled")),
        };
        let flavor = parse("os:secure_boot", self.flavor("os:secure_boot"))?;
        let image = parse("os_secure_boot", self.image("os_secure_boot"))?;
        match (flavor, image) {
            (Some(Secure::Required), Some(Secure::Disabled)) | (Some(Secure::Disabled), Some(Secure::Required)) => {
                Err(HypervisorError::invalid("os:secure_boot", "flavor and image want the opposite"))
            }
            (Some(Secure::Required), _) | (_, Some(Secure::Required)) => Ok(Secure::Required),
            (flavor, image) => Ok(flavor.or(image).unwrap_or(Secure::Disabled)),
        }
    }

    fn cpu(&self) -> Result<Tuning> {
        // libvirt's own bounds; -1 for the quota means none.
        let mut tuning = Tuning::new();
        tuning.extend(self.in_range("quota:cpu_shares", 2, 262_144)?.map(|n| ("shares".to_owned(), n)));
        tuning.extend(self.in_range("quota:cpu_period", 1_000, 1_000_000)?.map(|n| ("period".to_owned(), n)));
        if self.flavor("quota:cpu_quota") != Some("-1") {
            let quota = self.in_range("quota:cpu_quota", 1_000, 17_592_186_044_415)?;
            tuning.extend(quota.map(|n| ("quota".to_owned(), n)));
        }
        Ok(tuning)
    }

    fn disk(&self) -> Result<Tuning> {
        let mut tuning = Tuning::new();
        for unit in ["bytes", "iops"] {
            for what in ["total", "read", "write"] {
                for suffix in ["", "_max", "_max_length"] {
                    let name = format!("quota:disk_{what}_{unit}_sec{suffix}");
                    let number = self.in_range(&name, 0, 1_000_000_000_000_000)?;
                    tuning.extend(number.filter(|n| *n > 0).map(|n| (format!("{what}_{unit}_sec{suffix}"), n)));
                }
            }
            let set = |what: &str| tuning.iter().any(|(name, _)| *name == format!("{what}_{unit}_sec"));
            if set("total") && (set("read") || set("write")) {
                let name = format!("quota:disk_total_{unit}_sec");
                return Err(HypervisorError::invalid(name, "can't be combined with a limit for reads or writes alone"));
            }
        }
        let size = self.in_range("quota:disk_size_iops_sec", 1, 1_000_000_000_000_000)?;
        tuning.extend(size.map(|n| ("size_iops_sec".to_owned(), n)));
        Ok(tuning)
    }

    fn traffic(&self, way: &str) -> Result<Tuning> {
        let mut tuning = Tuning::new();
        for what in ["average", "peak", "burst"] {
            let number = self.in_range(&format!("quota:vif_{way}_{what}"), 1, u64::from(u32::MAX))?;
            tuning.extend(number.map(|n| (what.to_owned(), n)));
        }
        if tuning.first().is_some_and(|(what, _)| what != "average") {
            return Err(HypervisorError::invalid(
                format!("quota:vif_{way}_average"),
                "must be there with peak or burst",
            ));
        }
        Ok(tuning)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secure {
    Required,
    Optional,
    Disabled,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(specs: &[(&str, &str)]) -> Result<Shape> {
        let mut hardware = Hardware::default();
        for (name, value) in specs {
            let into = if name.contains(':') { &mut hardware.extra_specs } else { &mut hardware.image_properties };
            into.insert((*name).to_owned(), (*value).to_owned());
        }
        Shape::of(&hardware, 4, &LibvirtOptions::new("qemu:///system", "/instances"))
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (name, value) in [
            ("quota:cpu_shares", "1"),
            ("quota:cpu_shares", "many"),
            ("quota:cpu_period", "10"),
            ("quota:cpu_quota", "-2"),
            ("quota:disk_read_iops_sec", "-1"),
            ("quota:disk_total_bytes_sec", "1.5"),
            ("quota:vif_inbound_average", "0"),
            ("hw:watchdog_action", "explode"),
            ("hw_watchdog_action", "RESET"),
            ("hw_rng_model", "egd"),
            ("hw_rng:allowed", "perhaps"),
            ("hw_rng:rate_bytes", "0"),
            ("hw_disk_bus", "xen"),
            ("hw_cdrom_bus", "virtio"),
            ("hw_vif_model", "<x/>"),
            ("hw_machine_type", "virt"),
            ("hw_machine_type", "pc-i440fx-\"/>"),
            ("hw_firmware_type", "openfirmware"),
            ("os_secure_boot", "required"),
            ("os_secure_boot", "yes"),
            ("hw_boot_menu", "2"),
            ("hw_pointer_model", "ps2mouse"),
            ("hw_video_model", "gop"),
            ("hw_video_ram", "16"),
            ("hw_scsi_model", "buslogic"),
            ("hw_qemu_guest_agent", "maybe"),
            ("hw_mem_encryption", "true"),
            ("hw:tpm_version", "2.0"),
        ] {
            match shape(&[(name, value)]) {
                Err(HypervisorError::InvalidInput { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}={value}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for specs in [
            &[("quota:disk_total_iops_sec", "1"), ("quota:disk_read_iops_sec", "1")][..],
            &[("quota:vif_outbound_peak", "5")],
            &[("hw_machine_type", "q35"), ("hw_disk_bus", "ide")],
            &[("os:secure_boot", "required"), ("os_secure_boot", "disabled")],
            &[("hw_firmware_type", "uefi"), ("os_secure_boot", "required")],
        ] {
            assert!(matches!(shape(specs), Err(HypervisorError::InvalidInput { .. })), "{specs:?}");
        }
    }

    #[test]
    fn the_images_watchdog_wins_and_what_others_know_is_left_alone() {
        let both = shape(&[("hw:watchdog_action", "reset"), ("hw_watchdog_action", "pause")]).unwrap();
        assert_eq!(both.watchdog.as_deref(), Some("pause"));
        assert_eq!(shape(&[("hw:watchdog_action", "disabled")]).unwrap().watchdog, None);
        assert_eq!(shape(&[("hw:cpu_policy", "dedicated"), ("hw_something", "else")]).unwrap(), shape(&[]).unwrap());
    }

    #[test]
    fn secure_boot_is_taken_where_it_can_be() {
        let uefi = |more: &[(&str, &str)]| {
            let firmware = shape(&[&[("hw_firmware_type", "uefi")], more].concat()).unwrap().firmware.unwrap();
            (firmware.secure, firmware.code.file_name().unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(uefi(&[]), (false, "OVMF_CODE_4M.fd".into()));
        assert_eq!(uefi(&[("os_secure_boot", "optional")]), (false, "OVMF_CODE_4M.fd".into()));
        let secure = [("os_secure_boot", "required"), ("hw_machine_type", "q35")];
        assert_eq!(uefi(&secure), (true, "OVMF_CODE_4M.secboot.fd".into()));
    }

    #[test]
    fn names_of_disks_leave_room_for_the_drive() {
        let names = |specs: &[(&str, &str)]| {
            let shape = shape(specs).unwrap();
            (shape.disk_name(0), shape.disk_name(1), shape.cdrom_name())
        };
        assert_eq!(names(&[]), ("vda".into(), "vdb".into(), "hda".into()));
        assert_eq!(names(&[("hw_disk_bus", "ide")]), ("hdb".into(), "hdc".into(), "hda".into()));
        assert_eq!(names(&[("hw_disk_bus", "scsi"), ("hw_machine_type", "q35")]).0, "sdb");
        assert!(shape(&[("hw_disk_bus", "ide")]).unwrap().check_disks(4).is_err());
    }
}
