//! The host agent's interface. Every order carries all that the host needs, the task that it belongs to and the
//! instance's fencing token; each may be delivered more than once.

mod console;
mod life;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::flavor::Resources;
use crate::ids::{InstanceId, PortId, TaskId, VolumeId};
use crate::image::{ImageGrant, ImageMeta};
use crate::network::{MacAddress, Vif};
use crate::rpc_method;
use crate::topology::Placement;
use crate::volume::connection::ConnectionInfo;

pub use console::*;
pub use life::*;

rpc_method! {
    /// Make this guest and start it.
    BuildAndRunInstance = "compute"."build_and_run_instance": Cast from [Conductor], Order<BuildOrder> => ()
}
rpc_method! {
    /// Remove this guest and all that belongs to it.
    TerminateInstance = "compute"."terminate_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Start it.
    StartInstance = "compute"."start_instance": Cast from [Conductor], Order<()> => ()
}
rpc_method! {
    /// Stop it.
    StopInstance = "compute"."stop_instance": Cast from [Conductor], Order<StopOrder> => ()
}
rpc_method! {
    /// Restart it.
    RebootInstance = "compute"."reboot_instance": Cast from [Conductor], Order<RebootOrder> => ()
}
rpc_method! {
    /// Plug one more interface into it, which may run or not.
    AttachInterface = "compute"."attach_interface": Cast from [Conductor], Order<AttachInterfaceOrder> => ()
}
rpc_method! {
    /// Unplug an interface.
    DetachInterface = "compute"."detach_interface": Cast from [Conductor], Order<DetachInterfaceOrder> => ()
}
rpc_method! {
    /// Plug one more volume into it, which may run or not.
    AttachVolume = "compute"."attach_volume": Cast from [Conductor], Order<VolumeOrder> => ()
}
rpc_method! {
    /// Unplug a volume.
    DetachVolume = "compute"."detach_volume": Cast from [Conductor], Order<DetachVolumeOrder> => ()
}
rpc_method! {
    /// Put another volume in the place of one that a running guest has, with what is on it.
    SwapVolume = "compute"."swap_volume": Cast from [Conductor], Order<SwapVolumeOrder> => ()
}
rpc_method! {
    /// A volume of it is larger: the guest is to see it. One that is not told sees it when it starts anew.
    ExtendVolume = "compute"."extend_volume": Cast from [Api, Conductor, Volume], ExtendVolumeRequest => ()
}
rpc_method! {
    /// Abort a live migration from here, or have it end soon.
    SteerLiveMigration = "compute"."steer_live_migration": Call from [Api, Conductor], SteerLiveMigrationRequest => ()
}
rpc_method! {
    /// Do a host's part of a move.
    MoveInstance = "compute"."move_instance": Cast from [Conductor], Order<MoveOrder> => ()
}
rpc_method! {
    /// What the guest wrote to its serial console.
    GetConsoleOutput = "compute"."get_console_output": Call from [Api, Conductor], ConsoleOutputRequest => ConsoleOutput
}
rpc_method! {
    /// Fetch this image ahead of its first use.
    CacheImage = "compute"."cache_image": Call from [Conductor], CacheImageRequest => CacheImageReply
}
rpc_method! {
    /// The host's network is to be otherwise: it asks how. Only shortens the wait.
    NetworkChanged = "compute"."network_changed": Cast from [Network], () => ()
}
rpc_method! {
    /// Are you there?
    Ping = "compute"."ping": Call from [Api, Conductor], () => ()
}

/// An order of the conductor to a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order<T> {
    /// Whose step it is: repeated in the report.
    pub task_id: TaskId,
    /// About which instance.
    pub instance_id: InstanceId,
    /// The fencing token: lower than one seen before means that the order is late.
    pub epoch: u64,
    /// When the conductor gave it. A host that has started since may not know how the order ended.
    pub given: Timestamp,
    /// What to do.
    pub body: T,
}

/// An image to fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheImageRequest {
    /// Which, and what it must be once it is there.
    pub image: ImageMeta,
    /// Leave to fetch it.
    pub grant: ImageGrant,
}

/// The image is in the host's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheImageReply {
    /// It was there before.
    pub existed: bool,
}

/// All that a host needs to make a guest.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildOrder {
    /// The hypervisor's name for it, `instance-00000001`.
    pub name: String,
    /// The user's name for it.
    pub display_name: String,
    /// The name that it should give itself.
    pub hostname: String,
    /// Whose it is.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// The flavor's name.
    pub flavor_name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Root disk in GiB; 0 means as large as the image.
    pub root_gb: u64,
    /// Ephemeral disk in GiB.
    #[serde(default)]
    pub ephemeral_gb: u64,
    /// Sizes of ephemeral disks in GiB; none: one of `ephemeral_gb`.
    #[serde(default)]
    pub ephemerals_gb: Vec<u64>,
    /// Swap disk in MiB.
    #[serde(default)]
    pub swap_mb: u64,
    /// What is booked for it, where extra specs say something else than the flavor.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// What it boots from.
    pub image: Option<ImageMeta>,
    /// What its root volume remembers of an image, where it boots from that.
    #[serde(default)]
    pub image_properties: BTreeMap<String, String>,
    /// Leave to fetch that image, and no other, until the task's deadline.
    #[serde(default)]
    pub image_grant: Option<ImageGrant>,
    /// Make a config drive.
    pub config_drive: bool,
    /// Key name and public key.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// Base64.
    #[serde(default)]
    pub user_data: Option<String>,
    /// The user's labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// First administrator password, for the config drive only.
    #[serde(default)]
    pub admin_password: Option<String>,
    /// The zone.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// Place among the servers of one request.
    #[serde(default)]
    pub launch_index: u32,
    /// The request that made it.
    #[serde(default)]
    pub reservation_id: String,
    /// The server's number, for its id on EC2's paths.
    #[serde(default)]
    pub number: i64,
    /// The domain of its name; empty: none.
    #[serde(default)]
    pub domain: String,
    /// Names of its security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// What the operator tells every guest.
    #[serde(default)]
    pub vendor_data: Map<String, Value>,
    /// What the flavor says of the virtual machine (`hw:*`, `quota:*`) and of its place; the image's properties are in `image`.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// Which cells, CPUs and pages of the host it has, where it asked for some.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// Its interfaces, in order.
    #[serde(default)]
    pub vifs: Vec<Vif>,
    /// The guest stands still from its first instruction on, until it is let go.
    #[serde(default)]
    pub held: bool,
    /// Its volumes, in order, with the way to each from this host.
    #[serde(default)]
    pub volumes: Vec<VolumeOrder>,
    /// The end of what it wrote to its console on the host that it comes from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub earlier_console: String,
}

/// A volume of a guest, and how its host comes to it. The host makes sure that it is this one before the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOrder {
    /// Which, and how.
    pub connection: ConnectionInfo,
    /// The device name that it shall have.
    #[serde(default)]
    pub device: Option<String>,
    /// The guest boots from it.
    #[serde(default)]
    pub boot: bool,
    /// Other guests have it too.
    #[serde(default)]
    pub shareable: bool,
    /// The user's word for it.
    #[serde(default)]
    pub tag: Option<String>,
}

/// Which volume to unplug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachVolumeOrder {
    /// The volume.
    pub volume_id: VolumeId,
}

/// Which volume takes the place of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapVolumeOrder {
    /// The one that the guest has.
    pub old: VolumeId,
    /// The one that it gets.
    pub new: VolumeId,
    /// The way to that. `None`: it shall not get it any more; the answer is `came` where it was too late for that.
    #[serde(default)]
    pub to: Option<VolumeOrder>,
}

/// Which volume has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendVolumeRequest {
    /// Whose.
    pub instance_id: InstanceId,
    /// The volume.
    pub volume_id: VolumeId,
    /// How large it is by now.
    pub bytes: u64,
}

impl BuildOrder {
    /// Has a device of it a tag, so that its guest is told where it is?
    pub fn has_tags(&self) -> bool {
        self.vifs.iter().any(|vif| vif.tag.is_some()) || self.volumes.iter().any(|volume| volume.tag.is_some())
    }

    /// Sizes of its ephemeral disks, GiB.
    pub fn ephemerals(&self) -> Vec<u64> {
        let of_flavor = Some(self.ephemeral_gb).filter(|size| *size > 0 && self.ephemerals_gb.is_empty());
        self.ephemerals_gb.iter().copied().chain(of_flavor).collect()
    }
}

impl std::fmt::Debug for BuildOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildOrder").field("name", &self.name).field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}

/// How to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// How long the guest may take to shut down by itself; `None`: pull the plug.
    pub graceful: Option<Duration>,
}

/// How to restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootOrder {
    /// Pull the plug and start anew; otherwise ask the guest.
    pub hard: bool,
}

/// Which interface to plug in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachInterfaceOrder {
    /// The interface.
    pub vif: Vif,
}

/// Which interface to unplug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachInterfaceOrder {
    /// Its port.
    pub port_id: PortId,
    /// Its MAC address, by which hypervisors know it.
    pub mac_address: MacAddress,
}

/// A host's part of a move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "part")]
pub enum MoveOrder {
    /// To the destination: hold what the guest will take, and say whether it can be taken.
    Prepare(Box<BuildOrder>),
    /// To the source: stop the guest and set it aside; serve its disks to whoever has the grant.
    Stash {
        /// How long the guest may take to shut down by itself.
        graceful: Duration,
        /// Lets the destination fetch its disks.
        grant: DiskGrant,
        /// The destination is this host: nobody fetches them.
        #[serde(default)]
        stays: bool,
    },
    /// To the destination: make the guest there.
    Finish {
        /// What it is.
        guest: Box<BuildOrder>,
        /// What the source said of its disks; none: they are made from the image.
        #[serde(default)]
        disks: Option<Value>,
        /// Lets them be fetched.
        #[serde(default)]
        grant: Option<DiskGrant>,
        /// Start it.
        running: bool,
        /// The source is this host: its disks are those that were set aside.
        #[serde(default)]
        stays: bool,
    },
    /// To the destination: remove the guest that was made there, and only that.
    Leave,
    /// To the destination of a live migration whose source does not answer: remove what is there, unless the guest has come.
    LeaveUnlessCome,
    /// To the source: take the guest back that was set aside.
    Return {
        /// What it was.
        guest: Box<BuildOrder>,
        /// Start it.
        running: bool,
    },
    /// To the host of a server in ERROR: start its guest anew; one that is still set aside, since the host was away when it was
    /// to be taken back, is taken back first.
    Recover(Box<BuildOrder>),
    /// To the source: remove what was set aside.
    DropStash {
        /// What the guest holds here from now on, if it stayed.
        #[serde(default)]
        holds: Option<Resources>,
    },
    /// To the destination of a live migration: get ready, and answer where the guest is to be sent.
    PrepareIncoming(Box<BuildOrder>),
    /// To the source: send the running guest there.
    LiveMigrate {
        /// What the destination answered.
        to: Value,
        /// Send its disks, too; `None`: unless the hosts share them.
        #[serde(default)]
        block: Option<bool>,
        /// What becomes of one that takes too long.
        limits: LiveMigrationLimits,
    },
    /// To the source: the guest stays, if it is still there.
    StopLiveMigration,
    /// To the destination: the guest has come.
    Adopt(Box<BuildOrder>),
}

/// Leave to fetch the disks of one guest that was set aside, while one task lasts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskGrant {
    /// The secret.
    pub secret: String,
    /// Until when it is worth something.
    pub until: Timestamp,
}

impl std::fmt::Debug for DiskGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskGrant").field("until", &self.until).finish_non_exhaustive()
    }
}

/// How long a live migration may take, and what follows then (`libvirt.live_migration_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMigrationLimits {
    /// All of it, at most; `None`: until the task's deadline.
    pub completion_timeout: Option<Duration>,
    /// After that, have it end soon at the price of a pause (`force_complete`); otherwise it is aborted.
    pub force_complete: bool,
    /// The longest pause at the end.
    pub max_downtime: Duration,
    /// Slow a guest down that changes its memory faster than it is sent.
    pub auto_converge: bool,
    /// When it is to end soon, let the guest go on there with memory that is still on its old host.
    #[serde(default)]
    pub post_copy: bool,
    /// Bytes per second at most.
    pub bandwidth: Option<u64>,
}

/// What to do about a live migration that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteerLiveMigrationRequest {
    /// Of which instance.
    pub instance_id: InstanceId,
    /// Have it end soon; otherwise it is aborted.
    pub force: bool,
}

/// Whose console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleOutputRequest {
    /// Which.
    pub instance_id: InstanceId,
    /// Only that many last lines; `None`: all.
    #[serde(default)]
    pub length: Option<u32>,
}

/// Console text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleOutput {
    /// As UTF-8; what is not is replaced.
    pub output: String,
}
