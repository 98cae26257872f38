//! Where a finished or failed operation leaves a server.

use serde::{Deserialize, Serialize};

use super::{Action, PowerState, States, TaskState, VmState};

/// What an operation must remember from its start to know where the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The `vm_state` from before (Nova's `old_vm_state`): a resized server that was stopped is stopped again on confirm
    /// and revert; a resumed one goes where it was when suspended. `None` is `active`.
    pub old_vm_state: Option<VmState>,
    /// The root disk is a volume: shelving offloads at once.
    pub volume_backed: bool,
    /// An evacuated server stays off (microversion 2.95 and later).
    pub evacuated_stays_off: bool,
}

/// How far a failed operation had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePhase {
    /// No host was asked, or none accepted: the guest is as it was.
    BeforeHost,
    /// This host failed, and another will be tried (build only).
    Rescheduled,
    /// A host had begun, but the guest and its disks are still what they were.
    BeforeDiskMove,
    /// The guest or its disks were changed, moved or destroyed: nobody knows what runs.
    AfterDiskMove,
}

/// The power reading that belongs to an idle server in that state; `None` where there is no single one.
#[must_use]
pub const fn expected_power(vm_state: VmState) -> Option<PowerState> {
    match vm_state {
        VmState::Active | VmState::Rescued => Some(PowerState::Running),
        VmState::Paused => Some(PowerState::Paused),
        VmState::Suspended => Some(PowerState::Suspended),
        VmState::Stopped | VmState::Shelved => Some(PowerState::Shutdown),
        VmState::Building | VmState::Deleted | VmState::ShelvedOffloaded => Some(PowerState::NoState),
        VmState::Resized | VmState::SoftDelete | VmState::Error => None,
    }
}

/// The `vm_state` in which a finished operation ends, given the one it ran in.
fn end_state(action: Action, from: VmState, history: &History) -> VmState {
    let before = history.old_vm_state.unwrap_or(VmState::Active);
    match action {
        Action::Create
        | Action::Restore
        | Action::Start
        | Action::RebootSoft
        | Action::RebootHard
        | Action::Unpause
        | Action::Unrescue
        | Action::Unshelve => VmState::Active,
        Action::Delete | Action::ForceDelete => VmState::Deleted,
        Action::SoftDelete => VmState::SoftDelete,
        Action::Stop => VmState::Stopped,
        Action::Pause => VmState::Paused,
        Action::Suspend => VmState::Suspended,
        Action::Rescue => VmState::Rescued,
        Action::Resume => before,
        Action::ConfirmResize | Action::RevertResize => {
            if before == VmState::Stopped {
                VmState::Stopped
            } else {
                VmState::Active
            }
        }
        Action::Rebuild => rebuilt(from),
        Action::Evacuate => {
            if history.evacuated_stays_off {
                VmState::Stopped
            } else {
                rebuilt(from)
            }
        }
        Action::Resize | Action::Migrate => VmState::Resized,
        Action::Shelve if history.volume_backed => VmState::ShelvedOffloaded,
        Action::Shelve => VmState::Shelved,
        Action::ShelveOffload => VmState::ShelvedOffloaded,
        Action::ResetState { to } => to.vm_state(),
        Action::LiveMigrate
        | Action::ForceCompleteLiveMigration
        | Action::AbortLiveMigration
        | Action::CreateImage
        | Action::CreateBackup
        | Action::ChangePassword
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
        | Action::InjectNetworkInfo
        | Action::UpdateTags => from,
    }
}

/// A rebuilt server is what it was; a broken one runs again.
const fn rebuilt(from: VmState) -> VmState {
    match from {
        VmState::Error => VmState::Active,
        other => other,
    }
}

/// Whether the action owns the task of the server, so that its end clears it.
const fn owns_task(action: Action) -> bool {
    match action {
        Action::ForceCompleteLiveMigration
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
        | Action::InjectNetworkInfo
        | Action::UpdateTags => false,
        Action::Create
        | Action::Delete
        | Action::SoftDelete
        | Action::Restore
        | Action::ForceDelete
        | Action::Start
        | Action::Stop
        | Action::RebootSoft
        | Action::RebootHard
        | Action::Pause
        | Action::Unpause
        | Action::Suspend
        | Action::Resume
        | Action::Rescue
        | Action::Unrescue
        | Action::Rebuild
        | Action::Evacuate
        | Action::Resize
        | Action::Migrate
        | Action::ConfirmResize
        | Action::RevertResize
        | Action::LiveMigrate
        | Action::AbortLiveMigration
        | Action::Shelve
        | Action::ShelveOffload
        | Action::Unshelve
        | Action::CreateImage
        | Action::CreateBackup
        | Action::ChangePassword
        | Action::ResetState { .. } => true,
    }
}

/// The states after the operation is done. The power state is the one that belongs to the new `vm_state`, and stays where
/// nothing changed; a reading of the hypervisor overrides it.
///
/// Actions that run beside a task (volumes, metadata, consoles, …) change nothing.
#[must_use]
pub fn succeeded(action: Action, states: &States, history: &History) -> States {
    if !owns_task(action) {
        return *states;
    }
    let vm_state = end_state(action, states.vm_state, history);
    let moved = vm_state != states.vm_state || action == Action::RebootHard;
    let expected = if moved { expected_power(vm_state) } else { None };
    States { vm_state, task_state: None, power_state: expected.unwrap_or(states.power_state) }
}

/// The states after the operation failed at that phase.
///
/// * A build with another host to try is `scheduling` again; without, `error`.
/// * A delete that fails is `error`, never `deleting` for ever.
/// * What can leave a guest half changed (resize, rebuild, shelve, …) is `error` once its disks were touched; before, the
///   server is what it was. An evacuation that fails is always `error` (`conductor/manager.py`).
/// * Everything else (power, pause, snapshots, live migration's rollback, …) leaves `vm_state` alone.
#[must_use]
pub fn failed(action: Action, phase: FailurePhase, states: &States) -> States {
    if !owns_task(action) {
        return *states;
    }
    let error = States { vm_state: VmState::Error, task_state: None, ..*states };
    let back = States { task_state: None, ..*states };
    match (severity(action), phase) {
        (Severity::Build, FailurePhase::Rescheduled) => States {
            vm_state: VmState::Building,
            task_state: Some(TaskState::Scheduling),
            power_state: PowerState::NoState,
        },
        (Severity::Build | Severity::Fatal, _) => error,
        (Severity::ChangesGuest, FailurePhase::AfterDiskMove) => error,
        (Severity::ChangesGuest | Severity::Harmless, _) => back,
    }
}

enum Severity {
    /// A build: may be tried elsewhere.
    Build,
    /// Any failure is an error.
    Fatal,
    /// An error once the guest was touched.
    ChangesGuest,
    /// The server is what it was.
    Harmless,
}

const fn severity(action: Action) -> Severity {
    match action {
        Action::Create => Severity::Build,
        Action::Delete | Action::ForceDelete | Action::Evacuate => Severity::Fatal,
        Action::RebootSoft
        | Action::RebootHard
        | Action::Rescue
        | Action::Unrescue
        | Action::Rebuild
        | Action::Resize
        | Action::Migrate
        | Action::ConfirmResize
        | Action::RevertResize
        | Action::Shelve
        | Action::ShelveOffload
        | Action::Unshelve => Severity::ChangesGuest,
        Action::SoftDelete
        | Action::Restore
        | Action::Start
        | Action::Stop
        | Action::Pause
        | Action::Unpause
        | Action::Suspend
        | Action::Resume
        | Action::LiveMigrate
        | Action::ForceCompleteLiveMigration
        | Action::AbortLiveMigration
        | Action::CreateImage
        | Action::CreateBackup
        | Action::ChangePassword
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
        | Action::UpdateTags => Severity::Harmless,
    }
}
