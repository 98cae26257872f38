//! What the libvirt driver is told at start.

use std::path::PathBuf;
use std::time::Duration;

use crate::HypervisorError;

/// How to reach libvirt and how to make guests. Nova's options of the group `libvirt` have the same names and meanings.
#[derive(Debug, Clone)]
pub struct LibvirtOptions {
    /// libvirt's URI, on this machine: `qemu:///system`, `qemu+unix:///system?socket=PATH`.
    pub connection_uri: String,
    /// `qemu` (processor emulated) or `kvm`. Never chosen by itself: libvirt lists `kvm` where it does not work.
    pub virt_type: String,
    /// The folder that has one folder per guest. Hosts may share it.
    pub instances_path: PathBuf,
    /// This host's name (`DEFAULT.host`), by which it knows its guests' folders.
    pub host: String,
    /// Permissions of a guest's folder. Whoever QEMU runs as must be able to enter it.
    pub folder_mode: u32,
    /// MiB of translated code that an emulated processor keeps. QEMU's own choice takes most of a GiB per guest.
    pub tb_cache_mib: u32,
    /// The processor that guests see: `custom`, `host-model`, `host-passthrough`, `maximum`.
    pub cpu_mode: String,
    /// The processor's model, for the mode `custom`.
    pub cpu_model: String,
    /// The machine type that guests see.
    pub machine_type: String,
    /// Where a guest's screen listens.
    pub vnc_listen: String,
    /// Whether guests have a screen over SPICE, too, and how (group `spice`).
    pub spice: Option<SpiceOptions>,
    /// The host's address, as other hosts know it.
    pub host_ip: String,
    /// Root disks are qcow2 files over their image; false: copies of it, and every disk is raw (`use_cow_images`).
    pub use_cow_images: bool,
    /// Whether the space of disks is booked when they are made (`preallocate_images`).
    pub preallocate_images: Preallocate,
    /// The address at which this host takes guests that are migrated live (`libvirt.live_migration_inbound_addr`).
    pub live_migration_inbound_addr: String,
    /// How the other host's libvirt is spoken to: `tcp`, `tls`, `ssh` (`libvirt.live_migration_scheme`).
    pub live_migration_scheme: String,
    /// How volumes are cached (`libvirt.volume_cache_mode`): `none`, `writeback`, `writethrough`, `directsync`.
    pub volume_cache_mode: String,
    /// How long a guest that stands still since its volume failed is let go on by itself, once the volume is there again
    /// (`libvirt.volume_reconnect_delay`).
    pub volume_reconnect_delay: Duration,
    /// What happens to a guest whose volume fails (`libvirt.volume_error_policy`): `stop`, `report`, `enospace`.
    pub volume_error_policy: String,
    /// This host's certificate for volumes over NBD, where libvirt looks for it too.
    pub volume_tls_path: PathBuf,
    /// Firmware for guests whose image asks for UEFI, and the folder that has it.
    pub firmware_path: PathBuf,
    /// How long a soft reboot waits for the guest before it becomes a hard one.
    pub soft_reboot_wait: Duration,
    /// How long a running guest may take to let go of a device.
    pub detach_wait: Duration,
    /// How long a call waits for a connection while there is none.
    pub connect_wait: Duration,
    /// How long an operation may take before its caller is told `TimedOut`. It goes on behind.
    pub operation_limit: Duration,
    /// How much longer an operation may take that copies disks or sends a guest to another host.
    pub copy_limit: Duration,
    /// How long a tool (`qemu-img`, `xorriso`) may take.
    pub tool_limit: Duration,
    /// Threads for calls to libvirt.
    pub threads: usize,
    /// Calls that may wait for a thread.
    pub queue_limit: usize,
    /// A call that takes so long counts as hanging; when all threads hang, new calls are refused at once.
    pub hung_after: Duration,
}

/// How guests' screens are served over SPICE. Nova's options of the group `spice` have the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiceOptions {
    /// Where they listen (`server_listen`).
    pub listen: String,
    /// Whether guests have a channel for SPICE's agent inside of them (`agent_enabled`).
    pub agent: bool,
    /// Whether they are served over TLS alone (`require_secure`).
    pub require_secure: bool,
}

/// Nova's `preallocate_images`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preallocate {
    /// A disk takes space as it is written to.
    #[default]
    None,
    /// A disk has its space from the beginning.
    Space,
}

impl LibvirtOptions {
    /// The defaults for guests under that folder.
    pub fn new(connection_uri: impl Into<String>, instances_path: impl Into<PathBuf>) -> Self {
        Self {
            connection_uri: connection_uri.into(),
            virt_type: "qemu".into(),
            instances_path: instances_path.into(),
            host: "localhost".into(),
            folder_mode: 0o700,
            tb_cache_mib: 128,
            cpu_mode: "custom".into(),
            cpu_model: "qemu64".into(),
            machine_type: "pc".into(),
            vnc_listen: "127.0.0.1".into(),
            spice: None,
            host_ip: "127.0.0.1".into(),
            use_cow_images: true,
            preallocate_images: Preallocate::None,
            live_migration_inbound_addr: "127.0.0.1".into(),
            live_migration_scheme: "tcp".into(),
            volume_cache_mode: "none".into(),
            volume_reconnect_delay: Duration::from_secs(300),
            volume_error_policy: "stop".into(),
            volume_tls_path: "/etc/pki/libvirt-nbd".into(),
            firmware_path: "/usr/share/OVMF".into(),
            soft_reboot_wait: Duration::from_secs(120),
            detach_wait: Duration::from_secs(60),
            connect_wait: Duration::from_secs(5),
            operation_limit: Duration::from_secs(300),
            copy_limit: Duration::from_secs(8 * 3600),
            tool_limit: Duration::from_secs(120),
            threads: 8,
            queue_limit: 256,
            hung_after: Duration::from_secs(30),
        }
    }

    pub(super) fn validate(&self) -> Result<(), HypervisorError> {
        if !is_local(&self.connection_uri) {
            let problem = "must be a libvirt on this machine, as qemu:///system: guests' files are made here";
            return Err(HypervisorError::invalid("libvirt.connection_uri", problem));
        }
        if !["qemu", "kvm"].contains(&self.virt_type.as_str()) {
            return Err(HypervisorError::invalid("libvirt.virt_type", "must be 'qemu' or 'kvm'"));
        }
        if !["custom", "host-model", "host-passthrough", "maximum"].contains(&self.cpu_mode.as_str()) {
            let problem = "must be 'custom', 'host-model', 'host-passthrough' or 'maximum'";
            return Err(HypervisorError::invalid("libvirt.cpu_mode", problem));
        }
        if self.virt_type == "qemu" && self.cpu_mode == "host-passthrough" {
            let problem = "'host-passthrough' needs virt_type 'kvm'";
            return Err(HypervisorError::invalid("libvirt.cpu_mode", problem));
        }
        if !["tcp", "tls", "ssh"].contains(&self.live_migration_scheme.as_str()) {
            let problem = "must be 'tcp', 'tls' or 'ssh'";
            return Err(HypervisorError::invalid("libvirt.live_migration_scheme", problem));
        }
        if !self.instances_path.is_absolute() {
            return Err(HypervisorError::invalid("DEFAULT.instances_path", "must be absolute"));
        }
        if self.threads == 0 {
            return Err(HypervisorError::invalid("threads", "must be at least 1"));
        }
        Ok(())
    }
}

/// Whether a libvirt URI names no host: `qemu:///system`, `qemu+unix:///system?…`, `test:///default`.
fn is_local(uri: &str) -> bool {
    uri.split_once(":///").is_some_and(|(scheme, _)| {
        let transport = scheme.split_once('+').map_or("unix", |(_, transport)| transport);
        transport == "unix" && !scheme.contains('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_field(options: LibvirtOptions) -> String {
        match options.validate() {
            Err(HypervisorError::InvalidInput { field, .. }) => field,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn only_a_libvirt_of_this_machine_will_do() {
        for uri in ["qemu:///system", "qemu+unix:///system?socket=/run/x", "qemu:///embed?root=/x"] {
            LibvirtOptions::new(uri, "/instances").validate().unwrap();
        }
        for uri in ["qemu+ssh://host/system", "qemu+tcp://10.0.0.1/system", "qemu+ssh:///system", "", "qemu"] {
            assert_eq!(refused_field(LibvirtOptions::new(uri, "/instances")), "libvirt.connection_uri", "{uri}");
        }
    }

    #[test]
    fn what_cant_work_is_refused_at_start() {
        let options = || LibvirtOptions::new("qemu:///system", "/instances");
        assert_eq!(refused_field(LibvirtOptions { virt_type: "xen".into(), ..options() }), "libvirt.virt_type");
        let cpu_mode = "host-passthrough".into();
        assert_eq!(refused_field(LibvirtOptions { cpu_mode, ..options() }), "libvirt.cpu_mode");
        let relative = LibvirtOptions { instances_path: "instances".into(), ..options() };
        assert_eq!(refused_field(relative), "DEFAULT.instances_path");
    }
}
