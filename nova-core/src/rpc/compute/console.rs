//! What a host is asked about the consoles of its guests.

use serde::{Deserialize, Serialize};

use crate::console::{ConsoleTarget, ConsoleType};
use crate::ids::InstanceId;
use crate::rpc_method;

rpc_method! {
    /// Where is this console served? A guest that does not run has none: Conflict. A kind that is not served here:
    /// Unsupported.
    GetConsole = "compute"."get_console": Call from [Api], GetConsoleRequest => ConsoleTarget
}
rpc_method! {
    /// Is this console served there now (nova/compute/manager.py, `validate_console_port`)? If not: NotFound.
    ConfirmConsole = "compute"."confirm_console": Call from [Consoleauth], ConfirmConsoleRequest => ConfirmedConsole
}

/// Which console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetConsoleRequest {
    /// Of which guest.
    pub instance_id: InstanceId,
    /// By what.
    pub console_type: ConsoleType,
}

/// Which console, and where it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmConsoleRequest {
    /// Of which guest.
    pub instance_id: InstanceId,
    /// By what.
    pub console_type: ConsoleType,
    /// Where it was served when the grant was made.
    pub target: ConsoleTarget,
}

/// It is served there.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedConsole {
    /// What to say first at the host's own door, once and soon; none where the hypervisor itself listens.
    #[serde(default)]
    pub ticket: Option<String>,
}

impl std::fmt::Debug for ConfirmedConsole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmedConsole").field("has_ticket", &self.ticket.is_some()).finish()
    }
}
