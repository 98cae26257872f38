//! What users see as `status` (`nova/api/openstack/common.py`, `_STATE_MAP`).

use super::words::words;
use super::{TaskState, VmState};

words! {
    /// The `status` of a server in the API, derived from `vm_state` and `task_state` alone.
    ServerStatus, "status" {
        /// Running.
        Active = "ACTIVE",
        /// Being built.
        Build = "BUILD",
        /// Gone.
        Deleted = "DELETED",
        /// Failed; the fault says why.
        Error = "ERROR",
        /// Rebooting, the hard way.
        HardReboot = "HARD_REBOOT",
        /// Moving to another host while it runs.
        Migrating = "MIGRATING",
        /// The password is being set.
        Password = "PASSWORD",
        /// Paused.
        Paused = "PAUSED",
        /// Rebooting.
        Reboot = "REBOOT",
        /// Being rebuilt or evacuated.
        Rebuild = "REBUILD",
        /// Runs a rescue image.
        Rescue = "RESCUE",
        /// Being resized or moved.
        Resize = "RESIZE",
        /// A resize is being undone.
        RevertResize = "REVERT_RESIZE",
        /// Shelved.
        Shelved = "SHELVED",
        /// Shelved and off its host.
        ShelvedOffloaded = "SHELVED_OFFLOADED",
        /// Powered off.
        Shutoff = "SHUTOFF",
        /// Deleted, restorable.
        SoftDeleted = "SOFT_DELETED",
        /// Suspended.
        Suspended = "SUSPENDED",
        /// Not known.
        Unknown = "UNKNOWN",
        /// Resized, waiting for confirm or revert.
        VerifyResize = "VERIFY_RESIZE",
    }
}

impl ServerStatus {
    /// The status of that name, in any case (`?status=active` works); `None` for names that don't exist.
    #[must_use]
    pub fn parse_filter(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }
}

/// The status of a server.
#[must_use]
pub fn status(vm_state: VmState, task_state: Option<TaskState>) -> ServerStatus {
    task_state.and_then(|task| exception(vm_state, task)).unwrap_or(default_status(vm_state))
}

/// The status without a task that has its own.
const fn default_status(vm_state: VmState) -> ServerStatus {
    match vm_state {
        VmState::Active => ServerStatus::Active,
        VmState::Building => ServerStatus::Build,
        VmState::Paused => ServerStatus::Paused,
        VmState::Suspended => ServerStatus::Suspended,
        VmState::Stopped => ServerStatus::Shutoff,
        VmState::Rescued => ServerStatus::Rescue,
        VmState::Resized => ServerStatus::VerifyResize,
        VmState::SoftDelete => ServerStatus::SoftDeleted,
        VmState::Deleted => ServerStatus::Deleted,
        VmState::Error => ServerStatus::Error,
        VmState::Shelved => ServerStatus::Shelved,
        VmState::ShelvedOffloaded => ServerStatus::ShelvedOffloaded,
    }
}

/// The tasks that show through, by `vm_state`.
fn exception(vm_state: VmState, task: TaskState) -> Option<ServerStatus> {
    use TaskState as T;
    match vm_state {
        VmState::Active => match task {
            T::Rebooting | T::RebootPending | T::RebootStarted => Some(ServerStatus::Reboot),
            T::RebootingHard | T::RebootPendingHard | T::RebootStartedHard => Some(ServerStatus::HardReboot),
            T::UpdatingPassword => Some(ServerStatus::Password),
            T::Migrating => Some(ServerStatus::Migrating),
            _ => rebuild(task).or(resize(task)),
        },
        VmState::Stopped => resize(task).or(rebuild(task)),
        VmState::Resized => (task == T::ResizeReverting).then_some(ServerStatus::RevertResize),
        VmState::Paused => (task == T::Migrating).then_some(ServerStatus::Migrating),
        VmState::Error => rebuild(task),
        VmState::Building
        | VmState::Suspended
        | VmState::Rescued
        | VmState::SoftDelete
        | VmState::Deleted
        | VmState::Shelved
        | VmState::ShelvedOffloaded => None,
    }
}

fn rebuild(task: TaskState) -> Option<ServerStatus> {
    matches!(task, TaskState::Rebuilding | TaskState::RebuildBlockDeviceMapping | TaskState::RebuildSpawning)
        .then_some(ServerStatus::Rebuild)
}

fn resize(task: TaskState) -> Option<ServerStatus> {
    matches!(
        task,
        TaskState::ResizePrep | TaskState::ResizeMigrating | TaskState::ResizeMigrated | TaskState::ResizeFinish
    )
    .then_some(ServerStatus::Resize)
}

/// Which tasks a `?status=` filter means, within one `vm_state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFilter {
    /// Any, and none.
    Any,
    /// One of these.
    Only(Vec<TaskState>),
    /// None, or anything but these.
    Except(Vec<TaskState>),
}

impl TaskFilter {
    /// Whether a server with that task is meant.
    #[must_use]
    pub fn accepts(&self, task: Option<TaskState>) -> bool {
        match (self, task) {
            (Self::Any, _) | (Self::Except(_), None) => true,
            (Self::Only(_), None) => false,
            (Self::Only(tasks), Some(task)) => tasks.contains(&task),
            (Self::Except(tasks), Some(task)) => !tasks.contains(&task),
        }
    }
}

/// The rows that show that status: the exact inverse of [`status`], for `?status=` filters. Empty for `UNKNOWN`, which no
/// stored row has.
///
/// Nova's own inverse drops the task where the status is a default, so that `status=ACTIVE` also lists servers shown as
/// `REBOOT`; here a filter lists exactly the servers that show what was asked for.
#[must_use]
pub fn matching(wanted: ServerStatus) -> Vec<(VmState, TaskFilter)> {
    VmState::ALL.iter().filter_map(|&vm| tasks_showing(vm, wanted).map(|filter| (vm, filter))).collect()
}

fn tasks_showing(vm_state: VmState, wanted: ServerStatus) -> Option<TaskFilter> {
    let shows = |task: &TaskState| status(vm_state, Some(*task)) == wanted;
    if default_status(vm_state) != wanted {
        let tasks: Vec<_> = TaskState::ALL.iter().copied().filter(shows).collect();
        return (!tasks.is_empty()).then_some(TaskFilter::Only(tasks));
    }
    let others: Vec<_> = TaskState::ALL.iter().copied().filter(|task| !shows(task)).collect();
    Some(if others.is_empty() { TaskFilter::Any } else { TaskFilter::Except(others) })
}

/// Whether the API shows the `fault` of a server in that status.
#[must_use]
pub const fn shows_fault(status: ServerStatus) -> bool {
    matches!(status, ServerStatus::Error | ServerStatus::Deleted)
}

/// Whether the API shows `progress` for a server in that status.
#[must_use]
pub const fn shows_progress(status: ServerStatus) -> bool {
    matches!(
        status,
        ServerStatus::Active
            | ServerStatus::Build
            | ServerStatus::Rebuild
            | ServerStatus::Resize
            | ServerStatus::VerifyResize
            | ServerStatus::Migrating
    )
}
