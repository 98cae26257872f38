//! What operations on a guest that lives are asked for, and what they tell.

use std::path::PathBuf;
use std::time::Duration;

use nova_core::ids::InstanceId;
pub use nova_core::migration::Progress as MigrationProgress;
pub use nova_core::rpc::compute::{
    Diagnostics, DiskDiagnostics as DiskCounters, InterfaceDiagnostics as InterfaceCounters,
};
use serde::{Deserialize, Serialize};

use crate::{ConfigDrive, DiskAttachment, DiskFormat, DiskRole, DiskSource};

/// How to rescue a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueSpec {
    /// What the rescue disk is made from: always an image.
    pub image: DiskSource,
    /// Stable device rescue (`hw_rescue_device`, `hw_rescue_bus` of the rescue image; nova 2.87): the rescue disk comes after
    /// the guest's own disks, whose names stay, and is booted first. Otherwise it takes the root disk's place.
    pub stable: bool,
    /// What the rescued guest finds on its config drive instead; `None`: as before.
    pub config_drive: Option<ConfigDrive>,
}

/// A copy of a disk, for another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// Which of the guest's disks.
    pub role: DiskRole,
    /// Its place among those of that role, from 0.
    pub index: u32,
    /// The file to write; it must not exist.
    pub destination: PathBuf,
    /// The format to write it in.
    pub format: DiskFormat,
}

/// A guest that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StashInfo {
    /// The instance.
    pub instance: InstanceId,
    /// The epoch of the order that set it aside.
    pub epoch: u64,
}

/// Where a live migration is sent. What is in it is the drivers' business: source and destination are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingAddress {
    /// The driver, `libvirt`.
    pub driver: String,
    /// Address of the other hypervisor, as a URI.
    pub uri: String,
    /// Do both hosts see the same disk files? Then only memory is sent.
    pub shared_disks: bool,
    /// The host's name, as its driver knows it.
    #[serde(default)]
    pub host: String,
    /// The guest's volumes as the other host reaches them, without passwords: it has those itself.
    #[serde(default)]
    pub volumes: Vec<DiskAttachment>,
}

/// How to migrate a running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMigration {
    /// Where.
    pub to: IncomingAddress,
    /// Send the disks, too.
    pub block: bool,
    /// Bytes per second at most; `None`: as fast as it goes.
    pub bandwidth: Option<u64>,
    /// The longest pause at the end.
    pub max_downtime: Duration,
    /// Slow a guest down that changes its memory faster than it is sent.
    pub auto_converge: bool,
    /// When it is to end soon, let the guest go on there with memory that is still here, instead of halting it.
    #[serde(default)]
    pub post_copy: bool,
}
