//! Long operations as data: what a task is, what was done of it, and what comes next.
//!
//! A [`Task`] is a row that is written in the same transaction as the intent that it carries out. It has an owner, a
//! lease and a deadline: when its conductor dies, another takes it up, and nothing stays half done for ever. Its log
//! says which steps were begun, done, failed and undone; [`next`] reads nothing else. The steps themselves, with
//! their effects, are the conductor's.

mod plan;

pub use plan::{Entry, Event, Failure, Next, Plan, next, outcome_of};

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::RequestContext;
use crate::ids::{HostName, InstanceId, PortId, TaskId};
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
            Self::AttachInterface { .. } => "attach_interface",
            Self::DetachInterface { .. } => "detach_interface",
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
            Self::AttachInterface { .. } => Action::AttachInterface,
            Self::DetachInterface { .. } => Action::DetachInterface,
        }
    }

    /// The steps that it takes.
    pub const fn plan(&self) -> Plan {
        match self {
            // A build that fails on a host goes back to the claim and takes the next one; its interfaces go with it.
            Self::Build { .. } => Plan { steps: &["schedule", "network", "claim", "spawn"], retry_from: Some(2) },
            Self::Delete => Plan { steps: &["terminate", "release_network"], retry_from: None },
            Self::Start => Plan { steps: &["power_on"], retry_from: None },
            Self::Stop => Plan { steps: &["power_off"], retry_from: None },
            Self::Reboot { .. } => Plan { steps: &["reboot"], retry_from: None },
            Self::AttachInterface { .. } => {
                Plan { steps: &["allocate_interface", "attach_interface"], retry_from: None }
            }
            Self::DetachInterface { .. } => {
                Plan { steps: &["detach_interface", "release_interface"], retry_from: None }
            }
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
            Work::Build { .. } | Work::Delete | Work::Start | Work::Stop | Work::Reboot { .. } => None,
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
