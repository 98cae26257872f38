//! The state machine of an instance, as pure functions.
//!
//! Three independent fields describe a server: [`VmState`] (stable, owned by the control plane), [`TaskState`] (what runs
//! now; `None` is idle) and [`PowerState`] (the hypervisor's last reading). What users see as `status` is derived from the
//! first two alone.
//!
//! | question | function |
//! |---|---|
//! | may this action start, and what is written first? | [`decide`] |
//! | where does a finished or failed operation leave the server? | [`succeeded`], [`failed`] |
//! | which `status` is shown, and which rows does `?status=` mean? | [`status`], [`matching`] |
//! | what does a compute host do at start, or when the power state differs? | [`repair_at_start`], [`sync_power_state`] |
//! | was that change of a row allowed at all? | [`is_legal_edge`], [`edge_of`] |
//!
//! The behaviour is that of Nova 34.0.0: `nova/compute/api.py` (decorators), `nova/compute/manager.py`,
//! `nova/api/openstack/common.py` (`_STATE_MAP`). Where Nova would leave a server stuck, the doc of the function says what
//! is done instead.
//!
//! ```
//! use nova_core::state::{Action, Situation, TaskState, VmState, decide};
//!
//! let running = Situation::active();
//! let stop = decide(Action::Stop, &running)?;
//! assert_eq!(stop.first_task_state(), Some(TaskState::PoweringOff));
//!
//! let stopped = Situation { vm_state: VmState::Stopped, ..running };
//! let refusal = decide(Action::Pause, &stopped).unwrap_err();
//! assert_eq!(refusal.message("42"), "Cannot 'pause' instance 42 while it is in vm_state stopped");
//! # Ok::<(), nova_core::state::Refusal>(())
//! ```

mod action;
mod decide;
mod edges;
mod outcome;
mod repair;
mod rules;
mod status;
#[cfg(test)]
mod tests;
mod words;

pub use action::{Action, ResetTarget};
pub use decide::{Attribute, LockChange, Refusal, Situation, TaskChange, Transition, decide};
pub use edges::{Edge, edge_of, is_legal_edge};
pub use outcome::{FailurePhase, History, expected_power, failed, succeeded};
pub use repair::{PowerAction, PowerSync, Repair, repair_at_start, sync_power_state};
pub use rules::{ExpectedTask, HostRule, Rule, rule};
pub use status::{ServerStatus, TaskFilter, matching, shows_fault, shows_progress, status};
pub use words::{LockedBy, PowerState, States, TaskState, UnknownWord, VmState};
