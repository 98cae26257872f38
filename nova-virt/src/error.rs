//! What can go wrong when a hypervisor is asked for something.

use std::fmt;
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use serde::{Deserialize, Serialize};

/// A boxed cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The operations of [`Hypervisor`](crate::Hypervisor), as errors, journals and fault injection name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the method of the same name")]
pub enum Operation {
    Resources,
    CpuTimes,
    List,
    Info,
    Spawn,
    Destroy,
    PowerOn,
    PowerOff,
    Reboot,
    Pause,
    Unpause,
    Suspend,
    Resume,
    ConsoleLog,
    VncEndpoint,
    SpiceEndpoint,
    OpenSerial,
    AttachDisk,
    DetachDisk,
    AttachedDisks,
    ExtendDisk,
    SwapDisk,
    Devices,
    AbortSwap,
    SettleSwap,
    Interfaces,
    AttachInterface,
    DetachInterface,
    Snapshot,
    Quiesce,
    Unquiesce,
    Rescue,
    Unrescue,
    Rebuild,
    SetAdminPassword,
    InjectNmi,
    Diagnostics,
    ExportDisk,
    Stash,
    Unstash,
    DropStash,
    ListStashes,
    PrepareIncoming,
    LiveMigrate,
    MigrationProgress,
    AbortMigration,
    ForceMigration,
    AdoptIncoming,
    ConvertImage,
    ImagesInUse,
    Ping,
}

impl Operation {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::CpuTimes => "cpu_times",
            Self::List => "list",
            Self::Info => "info",
            Self::Spawn => "spawn",
            Self::Destroy => "destroy",
            Self::PowerOn => "power_on",
            Self::PowerOff => "power_off",
            Self::Reboot => "reboot",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::ConsoleLog => "console_log",
            Self::VncEndpoint => "vnc_endpoint",
            Self::SpiceEndpoint => "spice_endpoint",
            Self::OpenSerial => "open_serial",
            Self::AttachDisk => "attach_disk",
            Self::DetachDisk => "detach_disk",
            Self::AttachedDisks => "attached_disks",
            Self::ExtendDisk => "extend_disk",
            Self::SwapDisk => "swap_disk",
            Self::Devices => "devices",
            Self::AbortSwap => "abort_swap",
            Self::SettleSwap => "settle_swap",
            Self::Interfaces => "interfaces",
            Self::AttachInterface => "attach_interface",
            Self::DetachInterface => "detach_interface",
            Self::Snapshot => "snapshot",
            Self::Quiesce => "quiesce",
            Self::Unquiesce => "unquiesce",
            Self::Rescue => "rescue",
            Self::Unrescue => "unrescue",
            Self::Rebuild => "rebuild",
            Self::SetAdminPassword => "set_admin_password",
            Self::InjectNmi => "inject_nmi",
            Self::Diagnostics => "diagnostics",
            Self::ExportDisk => "export_disk",
            Self::Stash => "stash",
            Self::Unstash => "unstash",
            Self::DropStash => "drop_stash",
            Self::ListStashes => "list_stashes",
            Self::PrepareIncoming => "prepare_incoming",
            Self::LiveMigrate => "live_migrate",
            Self::MigrationProgress => "migration_progress",
            Self::AbortMigration => "abort_migration",
            Self::ForceMigration => "force_migration",
            Self::AdoptIncoming => "adopt_incoming",
            Self::ConvertImage => "convert_image",
            Self::ImagesInUse => "images_in_use",
            Self::Ping => "ping",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a hypervisor did not do what it was asked.
///
/// A failed operation leaves nothing half made behind and may be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HypervisorError {
    /// This hypervisor has no such guest.
    #[error("there is no guest {instance} on this hypervisor")]
    NotFound {
        /// The guest that was asked for.
        instance: InstanceId,
    },
    /// The caller acts on an old order: the guest belongs to a later one.
    #[error("guest {instance} is at epoch {current}; an order of epoch {asked} comes too late")]
    Stale {
        /// The guest.
        instance: InstanceId,
        /// The epoch of the order.
        asked: u64,
        /// The guest's epoch.
        current: u64,
    },
    /// The driver has no such operation; [`Capabilities`](crate::Capabilities) says so as well.
    #[error("this hypervisor driver has no {operation}")]
    Unsupported {
        /// What was asked.
        operation: Operation,
    },
    /// The hypervisor does not answer now. Worth another try.
    #[error("the {driver} hypervisor is unavailable")]
    Unavailable {
        /// The driver, for example `libvirt`.
        driver: &'static str,
        /// What the attempt met.
        #[source]
        source: BoxError,
    },
    /// No room for disks on this host. Another host may have some.
    #[error("no space left on this host while {during}")]
    NoSpace {
        /// What was being done, as a gerund: `creating the root disk`.
        during: &'static str,
        /// What the attempt met.
        #[source]
        source: BoxError,
    },
    /// The guest's power state does not allow the operation.
    #[error("guest {instance} is {state:?}, which does not allow {operation}")]
    InvalidState {
        /// The guest.
        instance: InstanceId,
        /// What was asked.
        operation: Operation,
        /// The state that forbids it.
        state: PowerState,
    },
    /// A field of the request can't be used.
    #[error("{field}: {problem}")]
    InvalidInput {
        /// The field's path in the request, for example `disks[0].size_gb`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer in time. The effect may still come about; ask again to learn it.
    #[error("{during} took longer than {after:?}")]
    TimedOut {
        /// What was being done.
        during: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The hypervisor refused or failed.
    #[error("the hypervisor failed while {during}")]
    Failed {
        /// What was being done, as a gerund: `starting the guest`.
        during: &'static str,
        /// What the attempt met.
        #[source]
        source: BoxError,
    },
}

/// The variant of a [`HypervisorError`] without what it carries: for journals and for failures on command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the error of the same name")]
pub enum ErrorKind {
    NotFound,
    Stale,
    Unsupported,
    Unavailable,
    NoSpace,
    InvalidState,
    InvalidInput,
    TimedOut,
    Failed,
}

impl HypervisorError {
    /// Which error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::InvalidState { .. } => ErrorKind::InvalidState,
            Self::InvalidInput { .. } => ErrorKind::InvalidInput,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Failed { .. } => ErrorKind::Failed,
        }
    }

    /// True when the same order, given again to the same host a little later, may well succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut { .. } => true,
            Self::NotFound { .. }
            | Self::Stale { .. }
            | Self::Unsupported { .. }
            | Self::NoSpace { .. }
            | Self::InvalidState { .. }
            | Self::InvalidInput { .. }
            | Self::Failed { .. } => false,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidInput { field: field.into(), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_retryable() {
        let down = HypervisorError::Unavailable { driver: "libvirt", source: "connection refused".into() };
        let slow = HypervisorError::TimedOut { during: "listing guests", after: Duration::from_secs(1) };
        let full = HypervisorError::NoSpace { during: "creating the root disk", source: "ENOSPC".into() };
        assert!(down.is_retryable() && slow.is_retryable() && !full.is_retryable());
    }

    #[test]
    fn the_text_leaves_out_its_source() {
        let error = HypervisorError::Failed { during: "starting the guest", source: "secret detail".into() };
        assert_eq!(error.to_string(), "the hypervisor failed while starting the guest");
    }
}
