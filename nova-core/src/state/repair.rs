//! What a compute host does about a server at its own start, and when the power state is not what it should be.

use super::{PowerState, States, TaskState, VmState};

/// What to do about a server when its compute host starts (`nova/compute/manager.py`, `_init_instance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    None,
    /// `vm_state` error, no task: it was half built or half rebuilt.
    Error,
    /// No task: the operation had changed nothing yet, or can't be resumed.
    ClearTask,
    /// Delete it now; on failure `error`.
    ResumeDelete,
    /// The row says deleted: remove what is left of it on the host.
    FinishDelete,
    /// Reboot it again.
    ReissueReboot {
        /// The hard way: the guest is off, or that was the request.
        hard: bool,
    },
    /// Power it off again.
    RetryPowerOff,
    /// Power it on again.
    RetryPowerOn,
    /// It runs: `active`, no task.
    SetActive,
    /// Unpause it again.
    RetryUnpause,
    /// Bring the guest back on this source host, then no task.
    RevertResize,
    /// Abort a live migration that may still run, no task, its migration record to `error`.
    AbortLiveMigration,
}

/// What a compute host does about one of its servers at start. `observed` is the hypervisor's reading now, `None` if it
/// knows no such guest.
///
/// Nova returns early for `error` and `soft-delete`, which leaves some tasks there for ever; here such a task is cleared.
/// Tasks that are not named in the table (suspending, rescuing, shelving, …) are left to the task's owner, whose lease or
/// deadline ends them.
#[must_use]
pub fn repair_at_start(states: &States, observed: Option<PowerState>) -> Repair {
    let power = observed.unwrap_or(PowerState::NoState);
    match (states.vm_state, states.task_state) {
        (VmState::Deleted, _) => Repair::FinishDelete,
        (VmState::Building, Some(TaskState::Deleting)) => Repair::ResumeDelete,
        (VmState::Building, _) => Repair::Error,
        (_, None) => Repair::None,
        (VmState::SoftDelete | VmState::Error, Some(task)) => match task {
            TaskState::Deleting => Repair::ResumeDelete,
            TaskState::ResizeMigrating if states.vm_state == VmState::Error => Repair::RevertResize,
            _ => Repair::ClearTask,
        },
        (vm_state, Some(task)) => interrupted(vm_state, task, power),
    }
}

/// A healthy server whose task was cut off.
fn interrupted(vm_state: VmState, task: TaskState, power: PowerState) -> Repair {
    use TaskState as T;
    let running = power == PowerState::Running;
    match task {
        T::Scheduling | T::Networking | T::BlockDeviceMapping | T::Spawning => Repair::Error,
        T::Rebuilding | T::RebuildBlockDeviceMapping | T::RebuildSpawning => Repair::Error,
        T::ImageSnapshotPending | T::ImageSnapshot | T::ImagePendingUpload | T::ImageUploading | T::ImageBackup => {
            Repair::ClearTask
        }
        T::ResizePrep => Repair::ClearTask,
        T::Deleting => Repair::ResumeDelete,
        T::RebootPending if vm_state == VmState::Active => Repair::ReissueReboot { hard: !running },
        T::RebootPending => Repair::ClearTask,
        T::RebootPendingHard => Repair::ReissueReboot { hard: true },
        T::Rebooting | T::RebootStarted | T::RebootingHard | T::RebootStartedHard => {
            if running {
                Repair::SetActive
            } else {
                Repair::ReissueReboot { hard: true }
            }
        }
        T::Pausing | T::Unpausing if running => Repair::SetActive,
        T::Unpausing if power == PowerState::Paused => Repair::RetryUnpause,
        T::PoweringOff => Repair::RetryPowerOff,
        T::PoweringOn => Repair::RetryPowerOn,
        T::ResizeMigrating => Repair::RevertResize,
        T::Migrating => Repair::AbortLiveMigration,
        T::UpdatingPassword
        | T::ResizeMigrated
        | T::ResizeFinish
        | T::ResizeReverting
        | T::ResizeConfirming
        | T::Pausing
        | T::Unpausing
        | T::Suspending
        | T::Resuming
        | T::Rescuing
        | T::Unrescuing
        | T::SoftDeleting
        | T::Restoring
        | T::Shelving
        | T::ShelvingImagePendingUpload
        | T::ShelvingImageUploading
        | T::ShelvingOffloading
        | T::Unshelving => Repair::None,
    }
}

/// What follows from a power reading, besides recording it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Nothing.
    None,
    /// Stop it through the API's own path: the user must see `SHUTOFF`.
    Stop,
    /// The same, though the API would not allow a stop in this state.
    ForceStop,
    /// Log it; what to do is not clear, or is another job's.
    Log(&'static str),
}

/// What a power reading means for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerSync {
    /// The reading to write, where it differs from the row.
    pub record: Option<PowerState>,
    /// What to do about it.
    pub action: PowerAction,
}

/// Reconciles a reading of the hypervisor with the row (`_sync_instance_power_state`), from the periodic task and from
/// lifecycle events alike. A server with a running task is skipped: that task will tell.
#[must_use]
pub fn sync_power_state(states: &States, observed: PowerState) -> PowerSync {
    if states.task_state.is_some() {
        return PowerSync { record: None, action: PowerAction::None };
    }
    let record = (observed != states.power_state).then_some(observed);
    PowerSync { record, action: power_action(states.vm_state, observed) }
}

fn power_action(vm_state: VmState, observed: PowerState) -> PowerAction {
    use PowerState as P;
    match vm_state {
        VmState::Active => match observed {
            P::Running => PowerAction::None,
            P::Shutdown | P::Crashed | P::Suspended => PowerAction::Stop,
            P::Paused => PowerAction::Log("the guest is paused though it should run"),
            P::NoState => PowerAction::Log("the hypervisor does not know the guest"),
        },
        VmState::Stopped => match observed {
            P::NoState | P::Shutdown | P::Crashed => PowerAction::None,
            P::Running | P::Paused | P::Suspended => PowerAction::ForceStop,
        },
        VmState::Paused => match observed {
            P::Shutdown | P::Crashed => PowerAction::ForceStop,
            P::NoState | P::Running | P::Paused | P::Suspended => PowerAction::None,
        },
        VmState::SoftDelete | VmState::Deleted => match observed {
            P::NoState | P::Shutdown => PowerAction::None,
            P::Running | P::Paused | P::Crashed | P::Suspended => {
                PowerAction::Log("the guest lives though it was deleted")
            }
        },
        VmState::Building
        | VmState::Rescued
        | VmState::Resized
        | VmState::Suspended
        | VmState::Error
        | VmState::Shelved
        | VmState::ShelvedOffloaded => PowerAction::None,
    }
}
