//! The conductor's interface: where users' intents become tasks, and the only way from a host to the store.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flavor::Resources;
use crate::host::Inventory;
use crate::host_facts::{HostFacts, HostStats};
use crate::ids::{HostName, InstanceId, PortId, TaskId, VolumeId, ZoneName};
use crate::image::ImageMeta;
use crate::metadata::{DevicePlace, InstanceMetadata};
use crate::migration::Progress;
use crate::network::Vif;
use crate::rpc::compute::VolumeOrder;
use crate::rpc_method;
use crate::state::PowerState;

rpc_method! {
    /// There is a new task in the store. Only shortens the wait: a conductor finds it anyway.
    StartTask = "conductor"."start_task": Cast from [Api, Conductor, Volume], StartTaskRequest => ()
}

rpc_method! {
    /// A host did its part of a task, or could not.
    ReportStep = "conductor"."report_step": Call from [Compute], ReportStepRequest => Verdict
}

rpc_method! {
    /// A host lives, has this much, and works on these tasks.
    Heartbeat = "conductor"."heartbeat": Call from [Compute], HeartbeatRequest => HeartbeatReply
}

rpc_method! {
    /// What should be on this host? Asked at start and now and then, to close the gap between intended and actual.
    ListAssigned = "conductor"."list_assigned": Call from [Compute], ListAssignedRequest => Vec<AssignedInstance>
}

rpc_method! {
    /// These guests are here and not assigned: which of them are known to be deleted or elsewhere, and must go?
    ConfirmStrays = "conductor"."confirm_strays": Call from [Compute], ConfirmStraysRequest => Vec<InstanceId>
}

rpc_method! {
    /// How far a live migration is.
    ReportProgress = "conductor"."report_progress": Cast from [Compute], ReportProgressRequest => ()
}

rpc_method! {
    /// How far the making of a server's image is: what users see as its task.
    ReportUpload = "conductor"."report_upload": Cast from [Compute], ReportUploadRequest => ()
}

rpc_method! {
    /// Which interfaces should these guests of the host have? Asked at start and now and then, to close the gap between
    /// intended and actual.
    ListInterfaces = "conductor"."list_interfaces": Call from [Compute], ListInterfacesRequest => Vec<AssignedInterfaces>
}

rpc_method! {
    /// Which volumes should these guests of the host have? Asked at start and now and then, to close the gap between intended
    /// and actual.
    ListVolumes = "conductor"."list_volumes": Call from [Compute], ListVolumesRequest => Vec<AssignedVolumes>
}

rpc_method! {
    /// Guests whose power state is another than the store's.
    ReportPowerStates = "conductor"."report_power_states": Cast from [Compute], ReportPowerStatesRequest => ()
}

rpc_method! {
    /// These hosts should fetch an image ahead of its first use. One that can't is logged, and fetches it when it builds.
    CacheImage = "conductor"."cache_image": Cast from [Api, Conductor], CacheImageRequest => ()
}

rpc_method! {
    /// What may this guest of the host learn about itself? Asked when the guest asks.
    GetMetadata = "conductor"."get_metadata": Call from [Compute], GetMetadataRequest => InstanceMetadata
}

rpc_method! {
    /// A guest of the host leaves a password for its owner. `Conflict`: it has left another one; `NotFound`: as for
    /// [`GetMetadata`].
    SetPassword = "conductor"."set_password": Call from [Compute], SetPasswordRequest => ()
}

rpc_method! {
    /// Are you there?
    Ping = "conductor"."ping": Call from [Compute, Api, Scheduler, Conductor], () => ()
}

/// How far an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportUploadRequest {
    /// The task that makes it.
    pub task_id: TaskId,
    /// Of which server.
    pub instance_id: InstanceId,
    /// The order's token.
    pub epoch: u64,
    /// It is being brought; before, the copy is made and waits for that.
    pub uploading: bool,
}

/// Whose metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetMetadataRequest {
    /// The server; it must be on the sender.
    pub instance_id: InstanceId,
    /// The port that it asks from, which must be its own; older hosts do not say it.
    #[serde(default)]
    pub port_id: Option<PortId>,
}

/// A password that a guest encrypted for its owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPasswordRequest {
    /// The server; it must be on the sender.
    pub instance_id: InstanceId,
    /// The port that it comes from, which must be its own.
    pub port_id: PortId,
    /// What it left, at most [`LONGEST_PASSWORD`](crate::metadata::LONGEST_PASSWORD) bytes.
    pub password: String,
}

impl std::fmt::Debug for SetPasswordRequest {
    /// Without what is nobody's but the owner's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPasswordRequest").field("instance_id", &self.instance_id).finish_non_exhaustive()
    }
}

/// An image, and who should have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheImageRequest {
    /// The image.
    pub image: ImageMeta,
    /// The hosts.
    pub hosts: Vec<HostName>,
}

/// Tasks to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTaskRequest {
    /// Which.
    pub tasks: Vec<TaskId>,
    /// Interfaces of which an outside network service told that they work, or failed to.
    #[serde(default)]
    pub plugged: BTreeMap<PortId, bool>,
}

/// How a host's part of a task went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportStepRequest {
    /// The task.
    pub task_id: TaskId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The fencing token that the order carried.
    pub epoch: u64,
    /// How it went.
    pub outcome: StepOutcome,
    /// The zone of the host, as configured, if this is to be a sign of life as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<ZoneName>,
}

/// How a host's part went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum StepOutcome {
    /// Done; the guest's power state after it.
    Done {
        /// Read from the hypervisor; `None` where there is no guest any more.
        power_state: Option<PowerState>,
        /// Interfaces that work since then. Empty where the host's own network agent says so.
        #[serde(default)]
        plugged: Vec<PortId>,
        /// Where the guest has its devices from now on; said where one of them has a tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        devices: Option<Vec<DevicePlace>>,
    },
    /// Done, with an answer that another host is told.
    Answered {
        /// Read from the hypervisor; `None` where there is no guest any more.
        power_state: Option<PowerState>,
        /// Known to drivers and agents alone.
        answer: serde_json::Value,
    },
    /// Not done, and nothing of it is left on the host.
    Failed {
        /// One line without secrets or paths; tenants may read it.
        message: String,
        /// The whole chain, for administrators.
        details: String,
        /// Another host may do better.
        retryable: bool,
    },
}

impl StepOutcome {
    /// Done, and nothing else to say.
    pub const fn done(power_state: Option<PowerState>) -> Self {
        Self::Done { power_state, plugged: Vec::new(), devices: None }
    }
}

/// How far a live migration from the sender is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportProgressRequest {
    /// The task.
    pub task_id: TaskId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The fencing token that the order carried.
    pub epoch: u64,
    /// How far.
    pub progress: Progress,
}

/// What the conductor makes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is in the store.
    Recorded,
    /// The same, and so will be that the host lives. Only for reports that are to be a sign of life.
    RecordedAlive,
    /// The task is over or is someone else's: a guest that this order made must go.
    Stale,
}

/// A host's sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Its zone, as configured.
    pub zone: ZoneName,
    /// What it has; sent at start and when it changed.
    #[serde(default)]
    pub node: Option<NodeReport>,
    /// Orders that it is working on.
    #[serde(default)]
    pub working_on: Vec<TaskId>,
    /// How busy it is; sent with what it has, and when it changed.
    #[serde(default)]
    pub stats: Option<HostStats>,
    /// It asks to be taken out of scheduling, for that reason.
    #[serde(default)]
    pub disable: Option<String>,
    /// Its hypervisor answers: what it was taken out for by itself while it lasts is over.
    #[serde(default)]
    pub well: bool,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The hypervisor's own name.
    pub hypervisor_hostname: String,
    /// `QEMU`, `fake`.
    pub hypervisor_type: String,
    /// As libvirt counts.
    pub hypervisor_version: i64,
    /// The host's address.
    pub host_ip: String,
    /// Guest architectures.
    pub architectures: Vec<String>,
    /// Totals, reserves and ratios.
    pub inventory: Inventory,
    /// About the processor.
    #[serde(default)]
    pub cpu_info: serde_json::Value,
    /// As `uptime` prints it.
    #[serde(default)]
    pub uptime: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub facts: HostFacts,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The conductor's time.
    pub now: Timestamp,
    /// The store has no inventory of this host, or an older one: send it with the next.
    #[serde(default)]
    pub send_node: bool,
}

/// Which host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAssignedRequest {
    /// The host; must be the sender.
    pub host: HostName,
}

/// Guests that nobody seems to own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmStraysRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Which.
    pub instances: Vec<InstanceId>,
}

/// An instance that the store has on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedInstance {
    /// Which.
    pub instance_id: InstanceId,
    /// Its newest fencing token.
    pub epoch: u64,
    /// The power state that the store has.
    pub power_state: PowerState,
    /// What it takes of the host.
    pub resources: Resources,
    /// A task is at work on it: hands off.
    pub busy: bool,
    /// It moves, and this is one of its two hosts: whether it is here now, the task knows.
    #[serde(default)]
    pub moving: bool,
    /// As far as its owner knows, it runs.
    #[serde(default)]
    pub runs: bool,
    /// Its state and the power state that the store has do not go together: it is to be told even if it is as the store has it.
    #[serde(default)]
    pub amiss: bool,
}

/// Guests whose interfaces are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInterfacesRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Which; those that are elsewhere are left out of the answer.
    pub instances: Vec<InstanceId>,
    /// Those at work are left out as well: what is said of the others stood still.
    pub idle: bool,
}

/// The interfaces that a guest should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedInterfaces {
    /// Which.
    pub instance_id: InstanceId,
    /// Its newest fencing token.
    pub epoch: u64,
    /// In order.
    pub vifs: Vec<Vif>,
}

/// Guests whose volumes are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListVolumesRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Which; those that are elsewhere are left out of the answer.
    pub instances: Vec<InstanceId>,
    /// Those at work are left out as well: what is said of the others stood still.
    pub idle: bool,
    /// The ways to these are asked for, where the guest should have them on the host.
    #[serde(default)]
    pub missing: Vec<VolumeId>,
}

/// The volumes that a guest should have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignedVolumes {
    /// Which.
    pub instance_id: InstanceId,
    /// Its newest fencing token.
    pub epoch: u64,
    /// Those that the host may come to.
    pub here: BTreeSet<VolumeId>,
    /// Those that are the server's, and to which the host may not come (yet, or any more): not its to bring or take away.
    pub elsewhere: BTreeSet<VolumeId>,
    /// How it comes to those that were said to be missing.
    #[serde(default)]
    pub ways: Vec<VolumeOrder>,
}

/// Guests whose power state is not what the store has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPowerStatesRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// What was seen.
    pub states: Vec<ObservedPower>,
}

/// One guest as the hypervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPower {
    /// Which.
    pub instance_id: InstanceId,
    /// The newest fencing token that the host knew: of an older one, the reading is worth nothing any more.
    pub epoch: u64,
    /// What the hypervisor says.
    pub power_state: PowerState,
}
