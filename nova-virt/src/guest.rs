//! What a guest is made of, and what a hypervisor tells about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nova_core::ids::InstanceId;
use nova_core::metadata::{self, DevicePlace};
use nova_core::network::MacAddress;
use nova_core::state::PowerState;
use nova_core::topology::{HostCell, Placement};
use serde::{Deserialize, Serialize};

use crate::{DiskAttachment, HypervisorError};

/// Everything that a hypervisor needs to bring up one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// The instance; also the guest's hardware UUID.
    pub instance: InstanceId,
    /// Fencing token, kept with the guest: of two orders for one instance the one with the lower epoch is refused.
    pub epoch: u64,
    /// The hypervisor's name for the guest, `instance-00000001`.
    pub name: String,
    /// The name that the user gave. Any text.
    pub display_name: String,
    /// The owner's project.
    pub project_id: String,
    /// The owner.
    pub user_id: String,
    /// The flavor's name at boot.
    pub flavor_name: String,
    /// The image that the root disk was made from, if any.
    pub image_id: Option<String>,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Memory in MiB, at least 1.
    pub memory_mb: u64,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<DiskSpec>,
    /// What the guest finds on its config drive; `None`: no drive.
    pub config_drive: Option<ConfigDrive>,
    /// Network interfaces, in the order in which the guest sees them.
    pub interfaces: Vec<InterfaceSpec>,
    /// Whether to start the guest once it is made.
    pub running: bool,
    /// With `running`: it stands still from its first instruction on, until `unpause`.
    #[serde(default)]
    pub held: bool,
    /// Which cells, CPUs and pages of the host it has; none: it floats.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// What flavor and image ask of the virtual machine beyond its size.
    #[serde(default)]
    pub hardware: Hardware,
    /// Volumes that it has from the beginning, and keeps from start to start. At most one is the disk that it boots from; then
    /// there is no root disk.
    #[serde(default)]
    pub volumes: Vec<DiskAttachment>,
    /// What it wrote to its console on the host that it comes from: its log begins with that, where there is none of it yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub earlier_console: String,
}

/// Extra specs of the flavor and properties of the image, as given: each driver takes what it knows (`hw:*` and `quota:*` of
/// the one, `hw_*` and `os_*` of the other), by Nova's rules for who wins, and refuses in `spawn` what it knows and can't do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// `quota:disk_read_iops_sec`, `hw:watchdog_action`, …
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// `hw_firmware_type`, `hw_disk_bus`, `hw_rng_model`, …
    #[serde(default)]
    pub image_properties: BTreeMap<String, String>,
}

/// What a disk is for. There is at most one root and one swap disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// The disk that the guest boots from.
    Root,
    /// Empty extra space that lives and dies with the guest.
    Ephemeral,
    /// Swap space.
    Swap,
}

/// How the bytes of a disk image are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// The bytes as the guest sees them.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// The name by which `qemu-img` and libvirt know the format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What is on a disk at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSource {
    /// A copy-on-write overlay over a cached image, which is never written to.
    Image {
        /// Absolute path of the cached image.
        base: PathBuf,
        /// Its format, as inspected: it is never guessed from the bytes, which the user controls.
        format: DiskFormat,
    },
    /// Nothing.
    Blank,
    /// The bytes of this file, which stands on no other one and becomes the disk: it is moved, not copied. So disks come from
    /// another host.
    File {
        /// Absolute path, on the file system of the guests' disks.
        path: PathBuf,
        /// Its format, as inspected.
        format: DiskFormat,
    },
}

/// One disk of a guest, made by `spawn` and removed by `destroy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// What it is for.
    pub role: DiskRole,
    /// What is on it at first.
    pub source: DiskSource,
    /// Size in GiB; 0, or less than the base image's size: as large as the base. A blank disk needs at least 1.
    pub size_gb: u64,
}

/// The files of a config drive: a small read-only disk labelled `config-2`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDrive {
    /// Path on the drive (`openstack/latest/meta_data.json`) to content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl ConfigDrive {
    /// The drive of a guest that has its devices there. `None`: it tells of none, and is whole as it is.
    pub fn with_places(&self, places: &[DevicePlace]) -> Option<Self> {
        let mut drive = self.tells_of_devices().then(|| self.clone())?;
        metadata::put_places(&mut drive.files, places);
        Some(drive)
    }

    /// Does it tell of devices, so that it is whole only with their places?
    pub fn tells_of_devices(&self) -> bool {
        metadata::tells_of_devices(&self.files)
    }
}

/// One network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSpec {
    /// Hardware address, `fa:16:3e:…`.
    pub mac_address: String,
    /// The host's bridge that the interface is plugged into; `None`: the interface leads nowhere.
    pub bridge: Option<String>,
    /// The name of the host's end of the interface, at most 15 bytes.
    pub tap_name: String,
    /// Largest packet in bytes; `None`: the bridge's own.
    pub mtu: Option<u32>,
}

/// A copy of a guest's root disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The file to write; it must not exist.
    pub destination: PathBuf,
    /// The format to write it in.
    pub format: DiskFormat,
    /// What is asked of the guest's file systems.
    #[serde(default)]
    pub quiesce: Quiesce,
}

/// Whether a running guest's agent makes its file systems still for a copy of its disk, so that the copy is one of a guest
/// that has written all it had to write (nova/virt/libvirt/driver.py, `_live_snapshot`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiesce {
    /// If it has an agent that does it.
    #[default]
    IfPossible,
    /// Or there is no copy (`os_require_quiesce`). Of a guest that does not run nothing is asked.
    Required,
}

/// What a hypervisor knows about one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    /// The instance.
    pub instance: InstanceId,
    /// The hypervisor's name for it. Empty when only files remain.
    pub name: String,
    /// Whether it runs. [`PowerState::NoState`] when only files remain.
    pub power_state: PowerState,
    /// The epoch of the order that made it. 0 when only files remain.
    pub epoch: u64,
}

/// What a driver can do. What it can't answers [`Unsupported`](HypervisorError::Unsupported).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The driver's name in the configuration: `fake`, `libvirt`.
    pub driver: String,
    /// The hypervisor's type as the API shows it: `QEMU`, `fake`.
    pub hypervisor_type: String,
    /// The hypervisor's version as the API shows it: major × 1,000,000 + minor × 1,000 + patch; 0 while it is not known.
    pub hypervisor_version: i64,
    /// Processor architectures of its guests, `x86_64`.
    pub architectures: Vec<String>,
    /// Whether `spawn` reads [`DiskSource::Image`] from the disk of this host. The fake does not.
    pub needs_images: bool,
    /// `convert_image`.
    pub convert_image: bool,
    /// `pause`, `unpause`.
    pub pause: bool,
    /// `suspend`, `resume`.
    pub suspend: bool,
    /// `snapshot`.
    pub snapshot: bool,
    /// `quiesce`, `unquiesce`; `snapshot` of a running guest can be one of file systems that stand still.
    pub quiesce: bool,
    /// `vnc_endpoint`.
    pub vnc: bool,
    /// `spice_endpoint`: guests that are made from now on have a screen over SPICE, too.
    #[serde(default)]
    pub spice: bool,
    /// `open_serial`.
    pub serial: bool,
    /// `attach_disk`, `detach_disk`, `attached_disks`, `extend_disk`, `swap_disk`, `abort_swap`, `settle_swap`, and volumes in a
    /// guest's order.
    pub attach_disk: bool,
    /// `interfaces`, `attach_interface`, `detach_interface`.
    pub attach_interface: bool,
    /// `rescue`, `unrescue`.
    pub rescue: bool,
    /// `rebuild`.
    pub rebuild: bool,
    /// `set_admin_password`.
    pub set_admin_password: bool,
    /// `inject_nmi`.
    pub inject_nmi: bool,
    /// `diagnostics`.
    pub diagnostics: bool,
    /// `export_disk`, `stash`, `unstash`, `drop_stash`, `list_stashes`.
    pub migrate: bool,
    /// `prepare_incoming`, `live_migrate` and what belongs to them.
    pub live_migrate: bool,
}

/// What a hypervisor has to give, guests not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResources {
    /// The name under which the hypervisor is a compute node.
    pub hypervisor_hostname: String,
    /// The hypervisor's type: `QEMU`, `fake`.
    pub hypervisor_type: String,
    /// Its version, as in [`Capabilities`].
    pub hypervisor_version: i64,
    /// Logical processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Size in GiB of the file system that holds the guests' disks.
    pub disk_gb: u64,
    /// GiB that are free there now, whoever uses the rest.
    pub disk_free_gb: u64,
    /// Processor description, in the shape of Nova's `cpu_info`: `arch`, `model`, `vendor`, `topology`, `features`.
    pub cpu_info: serde_json::Value,
    /// The host's address.
    pub host_ip: String,
    /// How long the host is up and how busy, as `uptime` prints it. For people.
    pub uptime: String,
    /// What the host and this driver can do, by the names of `os-traits`.
    pub traits: BTreeSet<String>,
    /// NUMA cells, all CPUs as shared ones; none when they are not known.
    pub cells: Vec<HostCell>,
    /// Guests see the host's own processor, not a model that hosts have in common: one that runs can go on only on a host whose
    /// processor can do as much.
    pub guests_see_cpu: bool,
}

/// How to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebootKind {
    /// Ask the guest; when it does not react in time, as [`Hard`](Self::Hard).
    Soft,
    /// Power off and on.
    Hard,
}

/// Where a guest's screen is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VncEndpoint {
    /// Address on this host, usually loopback.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where a guest's screen is served over SPICE. It has one of both ports at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpiceEndpoint {
    /// Address on this host, usually loopback.
    pub host: String,
    /// TCP port; `None`: only over TLS.
    pub port: Option<u16>,
    /// TCP port for TLS, where QEMU has a certificate for it.
    pub tls_port: Option<u16>,
}

/// Something happened to a guest, by our order or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestEvent {
    /// The guest.
    pub instance: InstanceId,
    /// What happened.
    pub kind: GuestEventKind,
}

/// What can happen to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuestEventKind {
    /// It runs, after it did not.
    Started,
    /// It runs no more: shut down, powered off or destroyed.
    Stopped,
    /// It stands still in memory.
    Paused,
    /// It runs again after a pause.
    Resumed,
    /// It stands still on disk.
    Suspended,
    /// It broke, or did not come up.
    Crashed,
}

impl GuestSpec {
    /// Refuses what no driver could turn into a guest, naming the field. Every driver's `spawn` calls it first.
    pub fn validate(&self) -> Result<(), HypervisorError> {
        if !is_plain_name(&self.name) {
            return Err(HypervisorError::invalid(
                "name",
                "must be 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit",
            ));
        }
        if self.vcpus == 0 {
            return Err(HypervisorError::invalid("vcpus", "must be at least 1"));
        }
        if self.memory_mb == 0 || self.memory_mb > MAX_MEMORY_MB {
            return Err(HypervisorError::invalid("memory_mb", format!("must be between 1 and {MAX_MEMORY_MB}")));
        }
        self.validate_placement()?;
        validate_disks(&self.disks)?;
        self.validate_volumes()?;
        self.interfaces.iter().try_for_each(InterfaceSpec::validate)?;
        self.config_drive.as_ref().map_or(Ok(()), ConfigDrive::validate)
    }
}

impl GuestSpec {
    fn validate_volumes(&self) -> Result<(), HypervisorError> {
        self.volumes.iter().try_for_each(DiskAttachment::validate)?;
        let known: BTreeSet<_> = self.volumes.iter().map(DiskAttachment::volume).collect();
        if known.len() != self.volumes.len() {
            return Err(HypervisorError::invalid("volumes", "one of them is there twice"));
        }
        if self.disks.len() + self.volumes.len() > MAX_DISKS {
            return Err(HypervisorError::invalid("volumes", format!("at most {MAX_DISKS} disks and volumes")));
        }
        let boot = self.volumes.iter().filter(|volume| volume.boot).count();
        let root = self.disks.iter().filter(|disk| disk.role == DiskRole::Root).count();
        if boot + root > 1 {
            return Err(HypervisorError::invalid("volumes", "more than one disk to boot from"));
        }
        Ok(())
    }

    /// Every CPU of the guest is in one cell, with a CPU of the host or some that it shares; the memory adds up.
    fn validate_placement(&self) -> Result<(), HypervisorError> {
        let Some(placement) = &self.placement else { return Ok(()) };
        let wrong = |problem: &str| Err(HypervisorError::invalid("placement", problem));
        let cpus: Vec<u32> = placement.cells.iter().flat_map(|cell| cell.cpus.iter().copied()).collect();
        let all: BTreeSet<u32> = cpus.iter().copied().collect();
        if cpus.len() != all.len() || all != (0..self.vcpus).collect() {
            return wrong("must have each of the guest's CPUs in one cell");
        }
        if placement.cells.iter().map(|cell| cell.memory_mb).sum::<u64>() != self.memory_mb {
            return wrong("must have all of the guest's memory in its cells");
        }
        for cell in &placement.cells {
            let pinned: BTreeSet<u32> = cell.pins.keys().copied().collect();
            if (pinned.is_empty() && cell.floats.is_empty()) || (!pinned.is_empty() && pinned != cell.cpus) {
                return wrong("must have a CPU of the host for each of the guest's, or some to share");
            }
        }
        Ok(())
    }
}

/// 1 PiB: what fits, in bytes, into what the drivers count with.
const MAX_MEMORY_MB: u64 = 1 << 30;
/// 1 EiB.
const MAX_DISK_GB: u64 = 1 << 30;
/// A guest has letters for its disks: vda to vdz.
const MAX_DISKS: usize = 26;
/// A config drive is made in memory and on disk; user data itself is at most 64 KiB.
const MAX_CONFIG_DRIVE_BYTES: usize = 64 << 20;

fn is_plain_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn validate_disks(disks: &[DiskSpec]) -> Result<(), HypervisorError> {
    if disks.len() > MAX_DISKS {
        return Err(HypervisorError::invalid("disks", format!("at most {MAX_DISKS}")));
    }
    for role in [DiskRole::Root, DiskRole::Swap] {
        if disks.iter().filter(|disk| disk.role == role).count() > 1 {
            return Err(HypervisorError::invalid("disks", format!("more than one {role:?} disk")));
        }
    }
    for (index, disk) in disks.iter().enumerate() {
        if disk.size_gb > MAX_DISK_GB {
            return Err(HypervisorError::invalid(format!("disks[{index}].size_gb"), format!("at most {MAX_DISK_GB}")));
        }
        match &disk.source {
            DiskSource::Image { base: path, .. } | DiskSource::File { path, .. } if !path.is_absolute() => {
                return Err(HypervisorError::invalid(
                    format!("disks[{index}].source"),
                    "the image's path must be absolute",
                ));
            }
            DiskSource::Blank if disk.size_gb == 0 => {
                return Err(HypervisorError::invalid(format!("disks[{index}].size_gb"), "a blank disk needs a size"));
            }
            DiskSource::Image { .. } | DiskSource::File { .. } | DiskSource::Blank => {}
        }
    }
    Ok(())
}

/// The kernel's limit for the name of a device.
const MAX_DEVICE_NAME: usize = 15;

impl InterfaceSpec {
    /// Refuses what no interface can be, naming the field. Drivers call it before they make or attach one.
    pub fn validate(&self) -> Result<(), HypervisorError> {
        if !self.mac_address.parse::<MacAddress>().is_ok_and(|mac| mac.is_unicast()) {
            return Err(HypervisorError::invalid("interface.mac_address", "is no address of an interface"));
        }
        let device = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
            (1..=MAX_DEVICE_NAME).contains(&name.len()) && name.chars().all(plain) && !name.chars().all(|c| c == '.')
        };
        if !device(&self.tap_name) || !self.bridge.as_deref().is_none_or(device) {
            return Err(HypervisorError::invalid("interface", "has a device whose name the kernel would not take"));
        }
        Ok(())
    }
}

impl ConfigDrive {
    fn validate(&self) -> Result<(), HypervisorError> {
        for path in self.files.keys() {
            let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
            if path.len() > 255 || !path.split('/').all(plain) {
                return Err(HypervisorError::invalid(
                    "config_drive.files",
                    format!("{path:?} is not a relative path without '..'"),
                ));
            }
        }
        if self.files.values().map(Vec::len).sum::<usize>() > MAX_CONFIG_DRIVE_BYTES {
            return Err(HypervisorError::invalid("config_drive.files", "together larger than 64 MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
