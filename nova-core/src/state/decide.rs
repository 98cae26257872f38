//! May this action start on that server, and what is written first?

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, ExpectedTask, HostRule, LockedBy, PowerState, Rule, States, TaskState, VmState, rule};

/// Everything the decision looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// The stable state.
    pub vm_state: VmState,
    /// What runs now.
    pub task_state: Option<TaskState>,
    /// The last power reading. No row of the table reads it; it is here so that a caller can hand over a whole row.
    pub power_state: PowerState,
    /// Who locked the server.
    pub locked: Option<LockedBy>,
    /// It has run at least once (`launched_at` is set).
    pub launched: bool,
    /// It is placed on a host.
    pub has_host: bool,
    /// That host's compute service is up.
    pub host_up: bool,
    /// The caller passes locks (an administrator).
    pub caller_is_admin: bool,
    /// The minor of the microversion of the request (`2.79` is 79).
    pub microversion: u16,
    /// Its root disk is a volume.
    pub volume_backed: bool,
    /// One of its volumes is taking another one's place.
    pub swaps_volume: bool,
}

impl Situation {
    /// A healthy, idle, running server on a live host, asked by its owner at microversion 2.1.
    #[must_use]
    pub const fn active() -> Self {
        Self {
            vm_state: VmState::Active,
            task_state: None,
            power_state: PowerState::Running,
            locked: None,
            launched: true,
            has_host: true,
            host_up: true,
            caller_is_admin: false,
            microversion: 1,
            volume_backed: false,
            swaps_volume: false,
        }
    }

    /// The three stored fields.
    #[must_use]
    pub const fn states(&self) -> States {
        States { vm_state: self.vm_state, task_state: self.task_state, power_state: self.power_state }
    }
}

/// What happens to `task_state` when the action is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskChange {
    /// It stays.
    Keep,
    /// It becomes NULL.
    Clear,
    /// It becomes this.
    Set(TaskState),
}

/// What happens to the lock when the action is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockChange {
    /// It stays.
    Keep,
    /// Locked by the caller: `admin` if the caller is not of the server's project, else `owner`.
    Lock,
    /// Unlocked.
    Unlock,
}

/// What the API writes when it accepts an action, in one compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// A `vm_state` that is set at once (create, resetState); `None` leaves it.
    pub vm_state: Option<VmState>,
    /// The change of `task_state`.
    pub task: TaskChange,
    /// The change of the lock.
    pub lock: LockChange,
    /// Which `task_state` the write must find: a lost race is a conflict, not an overwrite.
    pub expected: ExpectedTask,
}

impl Transition {
    /// The task that is written first, if one is.
    #[must_use]
    pub const fn first_task_state(&self) -> Option<TaskState> {
        match self.task {
            TaskChange::Set(task) => Some(task),
            TaskChange::Keep | TaskChange::Clear => None,
        }
    }

    /// The states after the write.
    #[must_use]
    pub fn apply(&self, states: &States) -> States {
        States {
            vm_state: self.vm_state.unwrap_or(states.vm_state),
            task_state: match self.task {
                TaskChange::Keep => states.task_state,
                TaskChange::Clear => None,
                TaskChange::Set(task) => Some(task),
            },
            power_state: states.power_state,
        }
    }
}

/// The field that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// The stable state.
    VmState,
    /// The running task.
    TaskState,
    /// It never ran.
    LaunchedAt,
}

impl Attribute {
    /// The field's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VmState => "vm_state",
            Self::TaskState => "task_state",
            Self::LaunchedAt => "launched_at",
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an action may not start. Where nothing else is said, the API answers 409 `conflictingRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A state is not among those that the action allows.
    #[error("{} is not possible in {attribute} {}", action.name(), value.unwrap_or("NULL"))]
    InvalidState {
        /// What was asked.
        action: Action,
        /// The field.
        attribute: Attribute,
        /// Its value; `None` is NULL.
        value: Option<&'static str>,
    },
    /// The server is locked and the caller doesn't pass locks.
    #[error("the server is locked")]
    Locked,
    /// Only an administrator may undo an administrator's lock. Answer 403.
    #[error("the server was locked by an administrator")]
    UnlockNeedsOverride,
    /// The server is on no host.
    #[error("the server is on no host")]
    NoHost,
    /// The compute service of the server's host is down.
    #[error("the compute service of the server's host is down")]
    HostDown,
    /// Evacuation needs a dead host, and this one lives. Answer 400.
    #[error("the compute service of the server's host is still in use")]
    HostUp,
    /// It is being deleted already: answered as success, nothing is done.
    #[error("the server is being deleted already")]
    AlreadyDeleting,
    /// It is gone. Answer 404.
    #[error("the server is gone")]
    Gone,
    /// Which of two volumes the guest has will be known only when the swap is over.
    #[error("{} is not possible while a volume of the server is being swapped", action.name())]
    SwapsVolume {
        /// What was asked.
        action: Action,
    },
    /// Not offered for a server whose root disk is a volume. Answer 400.
    #[error("{} is not possible for a volume-backed server", action.name())]
    VolumeBacked {
        /// What was asked.
        action: Action,
    },
}

impl Refusal {
    /// Nova's text for users, with the server's id filled in.
    #[must_use]
    pub fn message(&self, id: impl fmt::Display) -> String {
        match self {
            Self::InvalidState { action, .. } => self.message_as(action.name(), id),
            _ => self.message_as("", id),
        }
    }

    /// The same with another word for the action, where one row serves several (`delete tag`, `create tag`).
    #[must_use]
    pub fn message_as(&self, word: &str, id: impl fmt::Display) -> String {
        match self {
            Self::InvalidState { attribute, value: Some(value), .. } => {
                format!("Cannot '{word}' instance {id} while it is in {attribute} {value}")
            }
            Self::InvalidState { value: None, .. } => format!("Instance {id} is in an invalid state for '{word}'"),
            Self::Locked => format!("Instance {id} is locked"),
            Self::UnlockNeedsOverride => {
                "Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.".to_owned()
            }
            Self::NoHost => format!("Instance {id} is not ready"),
            Self::HostDown => "Service is unavailable at this time.".to_owned(),
            Self::HostUp => format!("Compute service of the host of instance {id} is still in use."),
            Self::AlreadyDeleting => format!("Instance {id} is being deleted already"),
            Self::Gone => format!("Instance {id} could not be found."),
            Self::SwapsVolume { action } => {
                format!("Cannot '{}' instance {id} while a volume of it is being swapped", action.name())
            }
            Self::VolumeBacked { action: Action::Rescue } => {
                format!("Instance {id} cannot be rescued: Cannot rescue a volume-backed instance")
            }
            Self::VolumeBacked { .. } => "Backup is not supported for volume-backed instances.".to_owned(),
        }
    }
}

/// Decides whether `action` may start in that situation, and what is written first.
///
/// Policy, quota and the request's own content are checked elsewhere. A server in `vm_state` `deleted` is refused with
/// [`Refusal::Gone`] whatever is asked: the API doesn't find such a row.
///
/// # Errors
///
/// The [`Refusal`] that Nova would give: where several apply, the one that its decorators reach first.
pub fn decide(action: Action, situation: &Situation) -> Result<Transition, Refusal> {
    let rule = rule(action);
    if situation.vm_state == VmState::Deleted {
        return Err(Refusal::Gone);
    }
    check_lock(action, &rule, situation)?;
    if is_repeated_delete(action, situation.task_state) {
        return Err(Refusal::AlreadyDeleting);
    }
    if rule.host_first {
        check_host(rule.host, situation)?;
    }
    check_states(action, &rule, situation)?;
    if !rule.host_first {
        check_host(rule.host, situation)?;
    }
    check_root_disk(action, situation)?;
    if situation.swaps_volume && brings_volumes(action) {
        return Err(Refusal::SwapsVolume { action });
    }
    Ok(transition(action, &rule, situation))
}

fn check_lock(action: Action, rule: &Rule, situation: &Situation) -> Result<(), Refusal> {
    if situation.caller_is_admin {
        return Ok(());
    }
    match situation.locked {
        Some(LockedBy::Admin) if action == Action::Unlock => Err(Refusal::UnlockNeedsOverride),
        Some(_) if rule.lock_checked => Err(Refusal::Locked),
        Some(_) | None => Ok(()),
    }
}

/// DELETE of a server that is on its way out changes nothing; forceDelete starts over.
fn is_repeated_delete(action: Action, task: Option<TaskState>) -> bool {
    match action {
        Action::Delete => task == Some(TaskState::Deleting),
        Action::SoftDelete => matches!(task, Some(TaskState::Deleting | TaskState::SoftDeleting)),
        _ => false,
    }
}

fn check_states(action: Action, rule: &Rule, situation: &Situation) -> Result<(), Refusal> {
    let refuse = |attribute, value| Err(Refusal::InvalidState { action, attribute, value });
    if !rule.admits_vm(situation.vm_state) || shelved_before_2_20(action, situation) {
        return refuse(Attribute::VmState, Some(situation.vm_state.as_str()));
    }
    if !rule.task.accepts(situation.task_state) {
        return refuse(Attribute::TaskState, situation.task_state.map(TaskState::as_str));
    }
    if rule.must_have_launched && !situation.launched {
        return refuse(Attribute::LaunchedAt, None);
    }
    Ok(())
}

/// Volumes of shelved servers came with 2.20 (`volume_attachments.py`).
fn shelved_before_2_20(action: Action, situation: &Situation) -> bool {
    matches!(action, Action::AttachVolume | Action::DetachVolume)
        && matches!(situation.vm_state, VmState::Shelved | VmState::ShelvedOffloaded)
        && situation.microversion < 20
}

fn check_host(host: HostRule, situation: &Situation) -> Result<(), Refusal> {
    let must_be_up = match host {
        HostRule::None => return Ok(()),
        HostRule::UpUnlessOffloaded if situation.vm_state == VmState::ShelvedOffloaded => return Ok(()),
        HostRule::Assigned => None,
        HostRule::Up | HostRule::UpUnlessOffloaded => Some(true),
        HostRule::Down => Some(false),
    };
    match must_be_up {
        _ if !situation.has_host => Err(Refusal::NoHost),
        Some(true) if !situation.host_up => Err(Refusal::HostDown),
        Some(false) if situation.host_up => Err(Refusal::HostUp),
        Some(_) | None => Ok(()),
    }
}

fn check_root_disk(action: Action, situation: &Situation) -> Result<(), Refusal> {
    let refused = match action {
        Action::CreateBackup => situation.volume_backed,
        Action::Rescue => situation.volume_backed && situation.microversion < 87,
        _ => false,
    };
    if refused { Err(Refusal::VolumeBacked { action }) } else { Ok(()) }
}

/// Does it tell a host which volumes the guest has, or read or leave them? With a copy under way, nobody could say which. Nova
/// has no such rule, and starts such a guest with the volume that it had before.
fn brings_volumes(action: Action) -> bool {
    matches!(
        action,
        Action::Rescue
            | Action::Rebuild
            | Action::Evacuate
            | Action::Resize
            | Action::Migrate
            | Action::RevertResize
            | Action::LiveMigrate
            | Action::Shelve
            | Action::ShelveOffload
            | Action::Unshelve
            | Action::CreateImage
    )
}

fn transition(action: Action, rule: &Rule, situation: &Situation) -> Transition {
    let first = match action {
        Action::SoftDelete if !situation.launched => Some(TaskState::Deleting),
        Action::Shelve if situation.volume_backed => Some(TaskState::ShelvingOffloading),
        _ => rule.first,
    };
    let (vm_state, task) = match action {
        Action::ResetState { to } => (Some(to.vm_state()), TaskChange::Clear),
        Action::Create => (Some(VmState::Building), TaskChange::Set(TaskState::Scheduling)),
        _ => (None, first.map_or(TaskChange::Keep, TaskChange::Set)),
    };
    let lock = match action {
        Action::Lock => LockChange::Lock,
        Action::Unlock => LockChange::Unlock,
        _ => LockChange::Keep,
    };
    Transition { vm_state, task, lock, expected: rule.task }
}
