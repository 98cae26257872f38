//! The precondition table: what each action demands of a server, and where it leads.

use super::{Action, TaskState, VmState};

/// Which `task_state` a server must have. Also what the first write compares with, in the same statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedTask {
    /// Whatever it is.
    Any,
    /// None.
    Idle,
    /// None, or one of these.
    IdleOr(&'static [TaskState]),
    /// One of these.
    Only(&'static [TaskState]),
    /// None, or anything but these.
    NoneOf(&'static [TaskState]),
}

impl ExpectedTask {
    /// Whether a server with that task is as expected.
    #[must_use]
    pub fn accepts(self, task: Option<TaskState>) -> bool {
        match (self, task) {
            (Self::Any, _) | (Self::Idle | Self::IdleOr(_) | Self::NoneOf(_), None) => true,
            (Self::Idle, Some(_)) | (Self::Only(_), None) => false,
            (Self::IdleOr(tasks) | Self::Only(tasks), Some(task)) => tasks.contains(&task),
            (Self::NoneOf(tasks), Some(task)) => !tasks.contains(&task),
        }
    }
}

/// What an action demands of the server's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRule {
    /// Nothing.
    None,
    /// It has one.
    Assigned,
    /// It has one whose compute service is up.
    Up,
    /// The same, unless the server is on no host by nature (`shelved_offloaded`).
    UpUnlessOffloaded,
    /// It has one whose compute service is down.
    Down,
}

/// One row of the precondition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Allowed `vm_state`s; `None` is any.
    pub vm_states: Option<&'static [VmState]>,
    /// Allowed `task_state`s.
    pub task: ExpectedTask,
    /// Refused while the server is locked, unless the caller is an administrator.
    pub lock_checked: bool,
    /// The server must have run at least once (`launched_at`).
    pub must_have_launched: bool,
    /// What is demanded of the host.
    pub host: HostRule,
    /// The host is looked at before the states (the order of Nova's decorators), so its text is the one that is seen.
    pub host_first: bool,
    /// The `task_state` that the API writes; `None` leaves the field alone.
    pub first: Option<TaskState>,
}

use TaskState as T;
use VmState as V;

const RUNNING_OR_OFF: &[V] = &[V::Active, V::Stopped];
const OFF_OR_BROKEN: &[V] = &[V::Active, V::Stopped, V::Error];
const SNAPSHOTTABLE: &[V] = &[V::Active, V::Stopped, V::Paused, V::Suspended];
const VOLUMES: &[V] = &[V::Active, V::Paused, V::Stopped, V::Resized, V::SoftDelete, V::Shelved, V::ShelvedOffloaded];

/// `task_states.ALLOW_REBOOT`: what a hard reboot may interrupt.
const REBOOT_OVER: &[T] = &[
    T::Rebooting,
    T::RebootPending,
    T::RebootStarted,
    T::RebootingHard,
    T::Resuming,
    T::Unpausing,
    T::Pausing,
    T::Suspending,
];

/// A row with the decorators' defaults: idle, launched, lock checked, no demand of the host; the API writes no task.
const fn quiet(vm_states: &'static [V]) -> Rule {
    Rule {
        vm_states: Some(vm_states),
        task: ExpectedTask::Idle,
        lock_checked: true,
        must_have_launched: true,
        host: HostRule::None,
        host_first: false,
        first: None,
    }
}

/// The same for an action whose first write is a task.
const fn row(vm_states: &'static [V], first: T) -> Rule {
    Rule { first: Some(first), ..quiet(vm_states) }
}

impl Rule {
    const fn any_vm(self) -> Self {
        Self { vm_states: None, ..self }
    }
    const fn task(self, task: ExpectedTask) -> Self {
        Self { task, ..self }
    }
    const fn unlocked(self) -> Self {
        Self { lock_checked: false, ..self }
    }
    const fn unlaunched(self) -> Self {
        Self { must_have_launched: false, ..self }
    }
    const fn host(self, host: HostRule) -> Self {
        Self { host, ..self }
    }
    const fn host_first(self, host: HostRule) -> Self {
        Self { host, host_first: true, ..self }
    }
    /// Looks at a server whatever its states; changes none.
    const fn bystander() -> Self {
        quiet(&[]).any_vm().unlocked().unlaunched().task(ExpectedTask::Any)
    }

    /// Whether the row admits a server in these states.
    #[must_use]
    pub fn admits(&self, vm_state: V, task: Option<T>) -> bool {
        self.admits_vm(vm_state) && self.task.accepts(task)
    }

    pub(super) fn admits_vm(&self, vm_state: V) -> bool {
        self.vm_states.is_none_or(|allowed| allowed.contains(&vm_state))
    }
}

/// The row of an action (`nova/compute/api.py`, the decorators of each method).
#[must_use]
pub const fn rule(action: Action) -> Rule {
    use ExpectedTask::{Any, IdleOr, NoneOf, Only};
    match action {
        Action::Create => row(&[V::Building], T::Scheduling).unlocked().unlaunched(),
        Action::Delete | Action::ForceDelete => row(&[], T::Deleting).any_vm().task(Any).unlaunched(),
        Action::SoftDelete => row(&[], T::SoftDeleting).any_vm().task(Any).unlaunched(),
        Action::Restore => row(&[V::SoftDelete], T::Restoring),
        Action::Start => row(&[V::Stopped], T::PoweringOn).host_first(HostRule::Assigned),
        Action::Stop => row(&[V::Active, V::Error], T::PoweringOff).host_first(HostRule::Assigned),
        Action::RebootSoft => row(&[V::Active], T::Rebooting),
        Action::RebootHard => {
            row(&[V::Active, V::Stopped, V::Paused, V::Suspended, V::Error], T::RebootingHard).task(IdleOr(REBOOT_OVER))
        }
        Action::Pause => row(&[V::Active], T::Pausing),
        Action::Unpause => row(&[V::Paused], T::Unpausing),
        Action::Suspend => row(&[V::Active], T::Suspending),
        Action::Resume => row(&[V::Suspended], T::Resuming),
        Action::Rescue => row(OFF_OR_BROKEN, T::Rescuing),
        Action::Unrescue => row(&[V::Rescued], T::Unrescuing),
        Action::Rebuild => row(OFF_OR_BROKEN, T::Rebuilding),
        Action::Evacuate => row(OFF_OR_BROKEN, T::Rebuilding).task(Any).unlocked().host(HostRule::Down),
        Action::Resize | Action::Migrate => row(RUNNING_OR_OFF, T::ResizePrep).host(HostRule::Up),
        Action::ConfirmResize => quiet(&[V::Resized]),
        Action::RevertResize => row(&[V::Resized], T::ResizeReverting),
        Action::LiveMigrate => row(&[V::Active, V::Paused], T::Migrating),
        Action::ForceCompleteLiveMigration => quiet(&[V::Active]).task(Only(&[T::Migrating])),
        Action::AbortLiveMigration => quiet(&[]).any_vm().task(Only(&[T::Migrating])),
        Action::Shelve => row(SNAPSHOTTABLE, T::Shelving),
        Action::ShelveOffload => row(&[V::Shelved], T::ShelvingOffloading),
        Action::Unshelve => row(&[V::Shelved, V::ShelvedOffloaded], T::Unshelving),
        Action::CreateImage => row(SNAPSHOTTABLE, T::ImageSnapshotPending).unlocked(),
        Action::CreateBackup => row(SNAPSHOTTABLE, T::ImageBackup).unlocked(),
        Action::ChangePassword => row(&[V::Active], T::UpdatingPassword),
        Action::TriggerCrashDump => {
            quiet(&[V::Active, V::Paused, V::Rescued, V::Resized, V::Error]).host_first(HostRule::Assigned)
        }
        Action::AttachVolume => quiet(VOLUMES),
        Action::DetachVolume => quiet(VOLUMES).host(HostRule::UpUnlessOffloaded),
        Action::SwapVolume => quiet(&[V::Active, V::Paused, V::Resized]),
        Action::AttachInterface | Action::DetachInterface => quiet(&[V::Active, V::Paused, V::Stopped]),
        Action::UpdateMetadata | Action::DeleteMetadata => quiet(SNAPSHOTTABLE).task(Any),
        Action::GetConsole => {
            Rule::bystander().task(NoneOf(&[T::Deleting, T::Migrating])).host_first(HostRule::Assigned)
        }
        Action::GetConsoleOutput | Action::GetDiagnostics => Rule::bystander().host_first(HostRule::Assigned),
        Action::Lock | Action::Unlock | Action::ResetState { .. } => Rule::bystander(),
        Action::InjectNetworkInfo => Rule { lock_checked: true, ..Rule::bystander() },
        Action::UpdateTags => quiet(SNAPSHOTTABLE).task(Any).unlocked().unlaunched(),
    }
}
