//! Long operations as data: what a task is, what was done of it, and what comes next.
//!
//! A [`Task`] is a row that is written in the same transaction as the intent that it carries out. It has an owner, a
//! lease and a deadline: when its conductor dies, another takes it up, and nothing stays half done for ever. Its log
//! says which steps were begun, done, failed and undone; [`next`] reads nothing else. The steps themselves, with
//! their effects, are the conductor's.

mod held_up;
mod moves;
mod plan;
mod waiting;

pub use held_up::HeldUp;
pub use moves::Move;
pub use plan::{Entry, Event, Failure, Next, Plan, next, outcome_of};
pub use waiting::Waiting;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::RequestContext;
use crate::ids::{BlockDeviceId, HostName, ImageId, InstanceId, MigrationId, PortId, TaskId, VolumeId};
use crate::image::ImageMeta;
use crate::network::{RequestedInterface, RequestedNetworks};
use crate::request::{Destination, RequestSpec, Selection};
use crate::state::Action;

/// One long operation on one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The id.
    pub id: TaskId,
    /// On what.
    pub instance_id: InstanceId,
    /// What is to be done.
    pub work: Work,
    /// Who asked for it.
    pub context: RequestContext,
    /// The instance's fencing token for all orders of this task.
    pub epoch: u64,
    /// What was done so far.
    #[serde(default)]
    pub log: Vec<Entry>,
    /// Where it is being done, once that is known.
    #[serde(default)]
    pub destination: Option<Destination>,
    /// Where it may be tried next, best first.
    #[serde(default)]
    pub alternates: Vec<Destination>,
    /// Interfaces that its guest waits for, standing still, once it is made so.
    #[serde(default)]
    pub awaited: Option<AwaitedVifs>,
    /// What keeps it from being taken back.
    #[serde(default)]
    pub held_up: Option<HeldUp>,
    /// Who works on it: a conductor's name, unique to its process.
    #[serde(default)]
    pub owner: Option<String>,
    /// Until when nobody else touches it; in the past it is anyone's.
    pub lease_until: Timestamp,
    /// By when it ends, if need be in failure.
    pub deadline: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

/// What a task does.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[allow(clippy::large_enum_variant, reason = "nearly every task is a build, and few are in memory at once")]
pub enum Work {
    /// Find a host and make the guest.
    Build {
        /// What the scheduler reads; `instances` lists all servers of the request.
        spec: RequestSpec,
        /// Choice made earlier for this instance, together with its siblings.
        #[serde(default)]
        selection: Option<Selection>,
        /// First administrator password, until the guest has it.
        #[serde(default)]
        admin_password: Option<String>,
        /// Key name and public key.
        #[serde(default)]
        keys: BTreeMap<String, String>,
        /// Its interfaces.
        #[serde(default)]
        networks: BuildNetworks,
    },
    /// Remove it.
    Delete,
    /// Start a stopped guest.
    Start,
    /// Stop a running guest.
    Stop,
    /// Restart it.
    Reboot {
        /// Pull the plug.
        hard: bool,
    },
    /// Halt a running guest in memory.
    Pause,
    /// Let a paused guest go on.
    Unpause,
    /// Write a running guest's memory to disk and stop it.
    Suspend,
    /// Let a suspended guest go on.
    Resume,
    /// Stop the guest; it is deleted after `reclaim_instance_interval`, unless it is restored before.
    SoftDelete,
    /// Take a soft deletion back.
    Restore,
    /// Start it from another image, its own root disk beside it.
    Rescue {
        /// What it boots from.
        image: ImageMeta,
        /// Password of the rescued guest.
        #[serde(default)]
        admin_password: Option<String>,
    },
    /// Start it from its own disk again.
    Unrescue,
    /// Make its disks anew from the image that its row names by now, on the same host.
    Rebuild {
        /// The image that it had before.
        #[serde(default)]
        previous_image: Option<ImageMeta>,
        /// Keep the ephemeral disks, where the driver can.
        #[serde(default)]
        preserve_ephemeral: bool,
        /// Administrator password of the new guest.
        #[serde(default)]
        admin_password: Option<String>,
        /// Was it stopped before, so that it is to be stopped again?
        #[serde(default)]
        stopped: bool,
        /// Its root disk is a volume: this image takes the place of what is on that (2.93).
        #[serde(default)]
        reimage: Option<ImageId>,
        /// What that volume remembered of an image before.
        #[serde(default)]
        previous_volume_image: Option<BTreeMap<String, String>>,
    },
    /// Make an image of its root disk.
    CreateImage {
        /// The image, described already (`queued`).
        image_id: ImageId,
    },
    /// Make an image of a server that boots from a volume: snapshots of its volumes.
    SnapshotVolumes {
        /// The image, described already (`queued`).
        image_id: ImageId,
    },
    /// Make an image of its root disk and delete the oldest ones of that kind.
    CreateBackup {
        /// The image, described already (`queued`).
        image_id: ImageId,
        /// `daily`, `weekly`, or any other word.
        backup_type: String,
        /// How many of that kind are kept.
        rotation: u32,
    },
    /// Set a password in the running guest.
    ChangePassword {
        /// The password.
        password: String,
    },
    /// Send the guest a non-maskable interrupt.
    TriggerCrashDump,
    /// Plug one more interface in.
    AttachInterface {
        /// Which.
        interface: RequestedInterface,
    },
    /// Unplug an interface.
    DetachInterface {
        /// Its port.
        port_id: PortId,
    },
    /// Plug a volume in that its row has by now.
    AttachVolume {
        /// Which of its mappings.
        device: BlockDeviceId,
    },
    /// Unplug a volume.
    DetachVolume {
        /// Which.
        volume_id: VolumeId,
    },
    /// Put another volume in the place of one, which its row says by now.
    SwapVolume {
        /// Which of its mappings.
        device: BlockDeviceId,
    },
    /// Move it between hosts.
    Move(Move),
}

/// Interfaces that somebody else plugs in, and tells of (Nova's event `network-vif-plugged`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedVifs {
    /// Those that are still waited for.
    pub ports: BTreeSet<PortId>,
    /// Since when; `None`: the guest is still being made.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// What a build asks of the network service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildNetworks {
    /// The interfaces.
    #[serde(default)]
    pub requested: RequestedNetworks,
    /// Names or ids of the security groups of interfaces that are made for it; none: the project's default group.
    #[serde(default)]
    pub security_groups: Vec<String>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Work {
    /// A short name, for logs and metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Build { .. } => "build",
            Self::Delete => "delete",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot { .. } => "reboot",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::SoftDelete => "soft_delete",
            Self::Restore => "restore",
            Self::Rescue { .. } => "rescue",
            Self::Unrescue => "unrescue",
            Self::Rebuild { .. } => "rebuild",
            Self::CreateImage { .. } => "create_image",
            Self::SnapshotVolumes { .. } => "snapshot_volumes",
            Self::CreateBackup { .. } => "create_backup",
            Self::ChangePassword { .. } => "change_password",
            Self::TriggerCrashDump => "trigger_crash_dump",
            Self::AttachInterface { .. } => "attach_interface",
            Self::DetachInterface { .. } => "detach_interface",
            Self::AttachVolume { .. } => "attach_volume",
            Self::DetachVolume { .. } => "detach_volume",
            Self::SwapVolume { .. } => "swap_volume",
            Self::Move(one) => one.kind(),
        }
    }

    /// The user's action that it carries out.
    pub const fn action(&self) -> Action {
        match self {
            Self::Build { .. } => Action::Create,
            Self::Delete => Action::Delete,
            Self::Start => Action::Start,
            Self::Stop => Action::Stop,
            Self::Reboot { hard: false } => Action::RebootSoft,
            Self::Reboot { hard: true } => Action::RebootHard,
            Self::Pause => Action::Pause,
            Self::Unpause => Action::Unpause,
            Self::Suspend => Action::Suspend,
            Self::Resume => Action::Resume,
            Self::SoftDelete => Action::SoftDelete,
            Self::Restore => Action::Restore,
            Self::Rescue { .. } => Action::Rescue,
            Self::Unrescue => Action::Unrescue,
            Self::Rebuild { .. } => Action::Rebuild,
            Self::CreateImage { .. } | Self::SnapshotVolumes { .. } => Action::CreateImage,
            Self::CreateBackup { .. } => Action::CreateBackup,
            Self::ChangePassword { .. } => Action::ChangePassword,
            Self::TriggerCrashDump => Action::TriggerCrashDump,
            Self::AttachInterface { .. } => Action::AttachInterface,
            Self::DetachInterface { .. } => Action::DetachInterface,
            Self::AttachVolume { .. } => Action::AttachVolume,
            Self::DetachVolume { .. } => Action::DetachVolume,
            Self::SwapVolume { .. } => Action::SwapVolume,
            Self::Move(one) => one.action(),
        }
    }

    /// The image that it makes, described already.
    pub const fn image_in_making(&self) -> Option<ImageId> {
        match self {
            Self::CreateImage { image_id }
            | Self::SnapshotVolumes { image_id }
            | Self::CreateBackup { image_id, .. }
            | Self::Move(Move::Shelve { image_id, .. }) => Some(*image_id),
            _ => None,
        }
    }

    /// The steps that it takes.
    pub const fn plan(&self) -> Plan {
        match self {
            // A build that fails on a host goes back to the claim and takes the next one; its interfaces go with it.
            Self::Build { .. } => {
                let steps = &[
                    "schedule",
                    "network",
                    "make_volumes",
                    "claim",
                    "spawn",
                    "await_network",
                    "let_go",
                    "settle_volumes",
                ];
                Plan { steps, retry_from: Some(3) }
            }
            Self::Delete => Plan { steps: &["terminate", "release_network", "release_volumes"], retry_from: None },
            Self::Start => Plan { steps: &["power_on"], retry_from: None },
            Self::Stop => Plan { steps: &["power_off"], retry_from: None },
            Self::Reboot { .. } => Plan { steps: &["reboot"], retry_from: None },
            Self::Pause => Plan { steps: &["pause"], retry_from: None },
            Self::Unpause => Plan { steps: &["unpause"], retry_from: None },
            Self::Suspend => Plan { steps: &["suspend"], retry_from: None },
            Self::Resume => Plan { steps: &["resume"], retry_from: None },
            Self::SoftDelete => Plan { steps: &["soft_delete"], retry_from: None },
            Self::Restore => Plan { steps: &["restore"], retry_from: None },
            Self::Rescue { .. } => Plan { steps: &["rescue"], retry_from: None },
            Self::Unrescue => Plan { steps: &["unrescue"], retry_from: None },
            Self::Rebuild { reimage: Some(_), .. } => Plan {
                steps: &[
                    "check_host",
                    "stop_to_reimage",
                    "leave_root_volume",
                    "reimage",
                    "await_reimage",
                    "rebuild",
                    "settle_volumes",
                ],
                retry_from: None,
            },
            Self::Rebuild { .. } => Plan { steps: &["check_host", "rebuild"], retry_from: None },
            Self::CreateImage { .. } => Plan { steps: &["snapshot"], retry_from: None },
            Self::SnapshotVolumes { .. } => {
                // What fails lets the guest go on before it removes what was taken.
                let steps = &["snapshot_volumes", "quiesce", "take_snapshots", "unquiesce", "complete_image"];
                Plan { steps, retry_from: None }
            }
            Self::CreateBackup { .. } => Plan { steps: &["snapshot", "rotate_backups"], retry_from: None },
            Self::ChangePassword { .. } => Plan { steps: &["set_password"], retry_from: None },
            Self::TriggerCrashDump => Plan { steps: &["crash_dump"], retry_from: None },
            Self::AttachInterface { .. } => {
                Plan { steps: &["allocate_interface", "attach_interface"], retry_from: None }
            }
            Self::DetachInterface { .. } => {
                Plan { steps: &["detach_interface", "release_interface"], retry_from: None }
            }
            Self::AttachVolume { .. } => {
                Plan { steps: &["reserve_volume", "attach_volume", "complete_volume"], retry_from: None }
            }
            Self::DetachVolume { .. } => {
                Plan { steps: &["begin_detaching", "detach_volume", "release_volume"], retry_from: None }
            }
            Self::SwapVolume { .. } => Plan { steps: &["begin_swap", "swap_volume", "end_swap"], retry_from: None },
            Self::Move(one) => one.plan(),
        }
    }

    /// Is it about one interface or one volume? Such go on beside what else is done to the server, and in turns among
    /// themselves; only a deletion ends them.
    pub const fn plugs(&self) -> bool {
        matches!(
            self,
            Self::AttachInterface { .. }
                | Self::DetachInterface { .. }
                | Self::AttachVolume { .. }
                | Self::DetachVolume { .. }
                | Self::SwapVolume { .. }
        )
    }

    /// The move that it makes.
    pub const fn as_move(&self) -> Option<&Move> {
        match self {
            Self::Move(one) => Some(one),
            _ => None,
        }
    }

    /// The record of a move that it writes.
    pub const fn migration(&self) -> Option<MigrationId> {
        match self {
            Self::Move(one) => one.migration(),
            _ => None,
        }
    }
}

impl Task {
    /// The host that its current step runs on.
    pub fn host(&self) -> Option<&HostName> {
        self.destination.as_ref().map(|d| &d.host)
    }

    /// The port of the interface that it attaches or detaches, known before it is made: one that a task makes has the
    /// task's own id, so that the same step again makes no second one.
    pub fn port_id(&self) -> Option<PortId> {
        match &self.work {
            Work::AttachInterface { interface } => {
                Some(interface.port_id.or(interface.new_port_id).unwrap_or(PortId::from_uuid(*self.id.as_uuid())))
            }
            Work::DetachInterface { port_id } => Some(*port_id),
            _ => None,
        }
    }

    /// What comes next.
    pub fn next(&self) -> Next {
        next(&self.work.plan(), &self.log, !self.alternates.is_empty())
    }

    /// Writes down that something happened to a step of the current attempt.
    pub fn record(&mut self, step: &str, event: Event) {
        self.log.push(Entry { step: step.to_owned(), event });
    }

    /// May this conductor work on it now?
    pub fn free_for(&self, owner: &str, now: Timestamp) -> bool {
        self.owner.as_deref().is_none_or(|o| o == owner) || self.lease_until <= now
    }
}
