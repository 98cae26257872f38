//! Orders to a host about a guest that is there: what is done to a server after its boot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BuildOrder, Order};
use crate::ids::{ImageId, InstanceId};
use crate::image::{ImageGrant, ImageMeta};
use crate::rpc_method;

rpc_method! {
    /// Halt it in memory.
    PauseInstance = "compute"."pause_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Let a paused one go on.
    UnpauseInstance = "compute"."unpause_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Write its memory to disk and stop it.
    SuspendInstance = "compute"."suspend_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Let a suspended one go on.
    ResumeInstance = "compute"."resume_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Stop it, and keep all that it has: it may be restored.
    SoftDeleteInstance = "compute"."soft_delete_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Start a soft-deleted one.
    RestoreInstance = "compute"."restore_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Send it a non-maskable interrupt.
    TriggerCrashDump = "compute"."trigger_crash_dump": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Start it from another image.
    RescueInstance = "compute"."rescue_instance": Cast from [Conductor], Order<RescueOrder> => ()
}
rpc_method! {
    /// Start it from its own disk again.
    UnrescueInstance = "compute"."unrescue_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Make its root disk anew.
    RebuildInstance = "compute"."rebuild_instance": Cast from [Conductor], Order<RebuildOrder> => ()
}
rpc_method! {
    /// Write a copy of its root disk into an image.
    SnapshotInstance = "compute"."snapshot_instance": Cast from [Conductor], Order<SnapshotOrder> => ()
}
rpc_method! {
    /// Have its file systems stand still while snapshots of its volumes are taken.
    QuiesceInstance = "compute"."quiesce_instance": Cast from [Conductor], Order<QuiesceOrder> => ()
}
rpc_method! {
    /// Let them go on.
    UnquiesceInstance = "compute"."unquiesce_instance": Cast from [Conductor], Order<QuiesceOrder> => ()
}
rpc_method! {
    /// Set a password in it.
    SetAdminPassword = "compute"."set_admin_password": Cast from [Conductor], Order<PasswordOrder> => ()
}
rpc_method! {
    /// Its counters.
    GetDiagnostics = "compute"."get_diagnostics": Call from [Api, Conductor], DiagnosticsRequest => Diagnostics
}

/// How to rescue.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RescueOrder {
    /// What the rescue disk is made from; its properties say how it is plugged in (2.87).
    pub image: ImageMeta,
    /// Leave to fetch that image.
    pub image_grant: Option<ImageGrant>,
    /// How long the guest may take to shut down by itself before.
    pub graceful: Option<Duration>,
    /// What the guest is made of otherwise: of this its config drive is made anew, with another password.
    pub guest: BuildOrder,
}

/// How to rebuild.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RebuildOrder {
    /// The guest as it shall be.
    pub guest: BuildOrder,
    /// Keep its ephemeral and swap disks.
    pub preserve_ephemeral: bool,
    /// Start it.
    pub running: bool,
}

/// Where a copy of the root disk goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOrder {
    /// The image, described already.
    pub image_id: ImageId,
    /// Its format: `qcow2` or `raw`.
    pub disk_format: String,
    /// The file systems of a running guest must stand still for it (`os_require_quiesce`).
    #[serde(default)]
    pub quiesce: bool,
    /// Leave to write its data, up to a size.
    pub grant: ImageGrant,
}

/// How still its file systems must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuiesceOrder {
    /// Nothing is done if they do not (`os_require_quiesce`), or did not for all of it.
    pub required: bool,
}

/// Which password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordOrder {
    /// Whose; `None`: the administrator of the guest's system.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

macro_rules! silent {
    ($($order:ident),+) => { $(
        impl std::fmt::Debug for $order {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($order))
            }
        }
    )+ };
}

// They carry grants and passwords.
silent!(RescueOrder, RebuildOrder, SnapshotOrder, PasswordOrder);

/// Whose counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticsRequest {
    /// Which.
    pub instance_id: InstanceId,
}

/// Counters of a guest (nova/objects/diagnostics.py).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// `qemu`, `kvm`, `fake`.
    pub hypervisor: String,
    /// The operating system of the host.
    pub hypervisor_os: String,
    /// The driver.
    pub driver: String,
    /// Seconds since the guest was started.
    pub uptime: u64,
    /// Nanoseconds that each of its processors has run.
    pub cpu_time_ns: Vec<u64>,
    /// Processors.
    pub vcpus: u32,
    /// Its disks.
    pub disks: Vec<DiskDiagnostics>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceDiagnostics>,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Memory that the guest uses in MiB, where it tells.
    pub memory_used_mb: Option<u64>,
    /// Has it a config drive?
    pub config_drive: bool,
}

/// Counters of one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDiagnostics {
    /// Its device name in the guest.
    pub device: String,
    /// Bytes read.
    pub read_bytes: u64,
    /// Requests to read.
    pub read_requests: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Requests to write.
    pub write_requests: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Counters of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceDiagnostics {
    /// Its hardware address.
    pub mac_address: String,
    /// Bytes that the guest received.
    pub rx_octets: u64,
    /// Packets.
    pub rx_packets: u64,
    /// Packets that were dropped.
    pub rx_drop: u64,
    /// Packets that failed.
    pub rx_errors: u64,
    /// Bytes that the guest sent.
    pub tx_octets: u64,
    /// Packets.
    pub tx_packets: u64,
    /// Packets that were dropped.
    pub tx_drop: u64,
    /// Packets that failed.
    pub tx_errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let order = PasswordOrder { user: None, password: "hunter2".into() };
        assert!(!format!("{order:?}").contains("hunter2"));
        assert!(serde_json::to_string(&order).unwrap().contains("hunter2"), "but sent");
    }
}
