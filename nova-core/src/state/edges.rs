//! Which changes of a server's states are legal: the audit of every write.

use super::outcome::History;
use super::{Action, PowerState, ResetTarget, States, TaskState, VmState, rule, succeeded};

/// What a legal change of states was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Nothing, or only the power reading, changed.
    Power,
    /// An action began.
    Begin(Action),
    /// The running operation went on to its next task.
    Advance(Action),
    /// The operation ended well.
    Finish(Action),
    /// The operation ended, or was given up, without a change of `vm_state`.
    Clear,
    /// A build will be tried on another host.
    Reschedule,
    /// The server broke.
    Fail,
    /// The control plane stopped it, as the hypervisor says that it doesn't run as it should.
    ForceStop,
    /// A server that was on no host was removed in one step.
    LocalDelete,
    /// An administrator set the state by hand (`os-resetState`).
    Reset,
}

/// The tasks of an operation in order; any may be skipped.
const fn chain(action: Action) -> &'static [TaskState] {
    use TaskState as T;
    match action {
        Action::Create => &[T::Scheduling, T::Networking, T::BlockDeviceMapping, T::Spawning],
        Action::Delete | Action::ForceDelete => &[T::Deleting],
        Action::SoftDelete => &[T::SoftDeleting],
        Action::Restore => &[T::Restoring],
        Action::Start => &[T::PoweringOn],
        Action::Stop => &[T::PoweringOff],
        Action::RebootSoft => &[T::Rebooting, T::RebootPending, T::RebootStarted],
        Action::RebootHard => &[T::RebootingHard, T::RebootPendingHard, T::RebootStartedHard],
        Action::Pause => &[T::Pausing],
        Action::Unpause => &[T::Unpausing],
        Action::Suspend => &[T::Suspending],
        Action::Resume => &[T::Resuming],
        Action::Rescue => &[T::Rescuing],
        Action::Unrescue => &[T::Unrescuing],
        Action::Rebuild | Action::Evacuate => &[T::Rebuilding, T::RebuildBlockDeviceMapping, T::RebuildSpawning],
        Action::Resize | Action::Migrate => &[T::ResizePrep, T::ResizeMigrating, T::ResizeMigrated, T::ResizeFinish],
        Action::ConfirmResize => &[T::ResizeConfirming],
        Action::RevertResize => &[T::ResizeReverting],
        Action::LiveMigrate => &[T::Migrating],
        Action::Shelve => {
            &[T::Shelving, T::ShelvingImagePendingUpload, T::ShelvingImageUploading, T::ShelvingOffloading]
        }
        Action::ShelveOffload => &[T::ShelvingOffloading],
        Action::Unshelve => &[T::Unshelving, T::Spawning],
        Action::CreateImage => &[T::ImageSnapshotPending, T::ImageSnapshot, T::ImagePendingUpload, T::ImageUploading],
        Action::CreateBackup => &[T::ImageBackup, T::ImagePendingUpload, T::ImageUploading],
        Action::ChangePassword => &[T::UpdatingPassword],
        Action::ForceCompleteLiveMigration
        | Action::AbortLiveMigration
        | Action::TriggerCrashDump
        | Action::AttachVolume
        | Action::DetachVolume
        | Action::SwapVolume
        | Action::AttachInterface
        | Action::DetachInterface
        | Action::UpdateMetadata
        | Action::DeleteMetadata
        | Action::GetConsole
        | Action::GetConsoleOutput
        | Action::GetDiagnostics
        | Action::Lock
        | Action::Unlock
        | Action::ResetState { .. }
        | Action::InjectNetworkInfo
        | Action::UpdateTags => &[],
    }
}

/// What the change was, `None` if no rule allows it. `from` and `to` are the row before and after one write.
///
/// Where a change has several readings the first of the enum's order that fits is given, so [`Edge::Reset`] means that
/// only an administrator's hand explains it; an auditor looks for the action record.
#[must_use]
pub fn edge_of(from: &States, to: &States) -> Option<Edge> {
    if (from.vm_state, from.task_state) == (to.vm_state, to.task_state) {
        return Some(Edge::Power);
    }
    if from.vm_state == VmState::Deleted {
        return None;
    }
    begin(from, to)
        .or_else(|| advance(from, to))
        .or_else(|| finish(from, to))
        .or_else(|| abandon(from, to))
        .or_else(|| reset(to))
}

/// Whether one write may turn `from` into `to`: invariant "every transition is a legal edge".
#[must_use]
pub fn is_legal_edge(from: &States, to: &States) -> bool {
    edge_of(from, to).is_some()
}

fn begin(from: &States, to: &States) -> Option<Edge> {
    let first = to.task_state?;
    if from.vm_state != to.vm_state {
        return None;
    }
    let by_action = Action::ALL.iter().copied().find(|&action| {
        let starts = chain(action).first() == Some(&first) || starts_offloading(action, first);
        starts && rule(action).admits(from.vm_state, from.task_state)
    });
    let force_stop = from.task_state.is_none()
        && first == TaskState::PoweringOff
        && matches!(from.vm_state, VmState::Stopped | VmState::Paused);
    by_action.map(Edge::Begin).or(force_stop.then_some(Edge::ForceStop))
}

/// Shelving a volume-backed server starts with its offload.
fn starts_offloading(action: Action, first: TaskState) -> bool {
    action == Action::Shelve && first == TaskState::ShelvingOffloading
}

fn advance(from: &States, to: &States) -> Option<Edge> {
    let next = to.task_state?;
    let shelved_on_the_way =
        to.vm_state == VmState::Shelved && next == TaskState::ShelvingOffloading && from.vm_state != VmState::Shelved;
    if from.vm_state != to.vm_state && !shelved_on_the_way {
        return None;
    }
    if upgraded_reboot(from.task_state, next) {
        return Some(Edge::Advance(Action::RebootHard));
    }
    if from.vm_state == VmState::Building && next == TaskState::Scheduling {
        return Some(Edge::Reschedule);
    }
    Action::ALL.iter().copied().find(|&action| goes_on(action, from, next)).map(Edge::Advance)
}

fn goes_on(action: Action, from: &States, next: TaskState) -> bool {
    if !rule(action).admits_vm(from.vm_state) {
        return false;
    }
    let Some(to) = chain(action).iter().position(|task| *task == next) else { return false };
    match from.task_state {
        Some(task) => chain(action).iter().position(|known| *known == task).is_some_and(|at| at < to),
        // A build has no task between the scheduler and the host.
        None => action == Action::Create,
    }
}

/// A soft reboot that turned the guest off and was cut off goes on as a hard one.
fn upgraded_reboot(from: Option<TaskState>, next: TaskState) -> bool {
    matches!(from, Some(TaskState::Rebooting | TaskState::RebootPending | TaskState::RebootStarted))
        && matches!(next, TaskState::RebootPendingHard | TaskState::RebootStartedHard)
}

fn finish(from: &States, to: &States) -> Option<Edge> {
    if to.task_state.is_some() {
        return None;
    }
    let done = Action::ALL.iter().copied().find(|&action| ends_there(action, from, to));
    done.map(Edge::Finish)
}

fn ends_there(action: Action, from: &States, to: &States) -> bool {
    let in_hand = match from.task_state {
        Some(task) => chain(action).contains(&task),
        None => matches!(action, Action::ConfirmResize | Action::Create),
    };
    let forced_off = action == Action::Stop && matches!(from.vm_state, VmState::Paused | VmState::Stopped);
    // An administrator may have set the state while it ran.
    let reset = from.vm_state == VmState::Error && from.task_state.is_some();
    if !in_hand || !(rule(action).admits_vm(from.vm_state) || forced_off || reset) {
        return false;
    }
    histories().any(|history| succeeded(action, from, &history).vm_state == to.vm_state)
}

fn histories() -> impl Iterator<Item = History> {
    [None, Some(VmState::Stopped)].into_iter().flat_map(|old_vm_state| {
        [false, true].into_iter().map(move |choice| History {
            old_vm_state,
            volume_backed: choice,
            evacuated_stays_off: choice,
        })
    })
}

fn abandon(from: &States, to: &States) -> Option<Edge> {
    match (to.vm_state, to.task_state) {
        (vm, None) if vm == from.vm_state => Some(Edge::Clear),
        // After an interrupted pause, unpause or reboot the guest is found running.
        (VmState::Active, None) if interrupted_but_running(from) => Some(Edge::Finish(Action::Unpause)),
        (VmState::Error, None) => Some(Edge::Fail),
        (VmState::Deleted, None) if may_be_without_host(from) => Some(Edge::LocalDelete),
        _ => None,
    }
}

fn interrupted_but_running(from: &States) -> bool {
    matches!(from.task_state, Some(TaskState::Pausing | TaskState::Unpausing))
        && matches!(from.vm_state, VmState::Active | VmState::Paused)
}

fn may_be_without_host(from: &States) -> bool {
    matches!(from.vm_state, VmState::Building | VmState::Error | VmState::ShelvedOffloaded)
}

fn reset(to: &States) -> Option<Edge> {
    let targets = [ResetTarget::Active, ResetTarget::Error];
    let by_hand = to.task_state.is_none() && targets.iter().any(|target| target.vm_state() == to.vm_state);
    by_hand.then_some(Edge::Reset)
}

impl States {
    /// Whether the three fields can stand in one row: a task that some action can run in this `vm_state`, and, for an idle
    /// server, nothing else. The power state is a reading and may be anything.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let Some(task) = self.task_state else { return true };
        let here = |action: &Action| chain(*action).contains(&task) && rule(*action).admits_vm(self.vm_state);
        let forced_off = task == TaskState::PoweringOff && matches!(self.vm_state, VmState::Stopped | VmState::Paused);
        self.vm_state != VmState::Deleted && (forced_off || Action::ALL.iter().any(here))
            || (self.vm_state, task) == (VmState::Shelved, TaskState::ShelvingOffloading)
    }

    /// The same with another power reading.
    #[must_use]
    pub const fn with_power(self, power_state: PowerState) -> Self {
        Self { power_state, ..self }
    }
}
