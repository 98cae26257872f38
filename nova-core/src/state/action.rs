//! What can be asked of a server.

use serde::{Deserialize, Serialize};

use super::VmState;

/// The two states that `os-resetState` can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetTarget {
    /// `{"state": "active"}`
    Active,
    /// `{"state": "error"}`
    Error,
}

impl ResetTarget {
    /// The `vm_state` that is set.
    #[must_use]
    pub const fn vm_state(self) -> VmState {
        match self {
            Self::Active => VmState::Active,
            Self::Error => VmState::Error,
        }
    }
}

/// An action on a server: one per row of the precondition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is named after its action; `name` and `action_record` spell it")]
pub enum Action {
    Create,
    Delete,
    /// DELETE where `reclaim_instance_interval` is set.
    SoftDelete,
    Restore,
    ForceDelete,
    Start,
    Stop,
    RebootSoft,
    RebootHard,
    Pause,
    Unpause,
    Suspend,
    Resume,
    Rescue,
    Unrescue,
    Rebuild,
    Evacuate,
    Resize,
    /// Cold migration.
    Migrate,
    ConfirmResize,
    RevertResize,
    LiveMigrate,
    ForceCompleteLiveMigration,
    AbortLiveMigration,
    Shelve,
    ShelveOffload,
    Unshelve,
    CreateImage,
    CreateBackup,
    ChangePassword,
    TriggerCrashDump,
    AttachVolume,
    DetachVolume,
    SwapVolume,
    AttachInterface,
    DetachInterface,
    UpdateMetadata,
    DeleteMetadata,
    /// Any graphical or serial console (vnc, spice, serial, mks).
    GetConsole,
    GetConsoleOutput,
    GetDiagnostics,
    Lock,
    Unlock,
    /// `os-resetState`.
    ResetState {
        to: ResetTarget,
    },
    InjectNetworkInfo,
    UpdateTags,
}

impl Action {
    /// Every action (`ResetState` with both targets).
    pub const ALL: &'static [Self] = &[
        Self::Create,
        Self::Delete,
        Self::SoftDelete,
        Self::Restore,
        Self::ForceDelete,
        Self::Start,
        Self::Stop,
        Self::RebootSoft,
        Self::RebootHard,
        Self::Pause,
        Self::Unpause,
        Self::Suspend,
        Self::Resume,
        Self::Rescue,
        Self::Unrescue,
        Self::Rebuild,
        Self::Evacuate,
        Self::Resize,
        Self::Migrate,
        Self::ConfirmResize,
        Self::RevertResize,
        Self::LiveMigrate,
        Self::ForceCompleteLiveMigration,
        Self::AbortLiveMigration,
        Self::Shelve,
        Self::ShelveOffload,
        Self::Unshelve,
        Self::CreateImage,
        Self::CreateBackup,
        Self::ChangePassword,
        Self::TriggerCrashDump,
        Self::AttachVolume,
        Self::DetachVolume,
        Self::SwapVolume,
        Self::AttachInterface,
        Self::DetachInterface,
        Self::UpdateMetadata,
        Self::DeleteMetadata,
        Self::GetConsole,
        Self::GetConsoleOutput,
        Self::GetDiagnostics,
        Self::Lock,
        Self::Unlock,
        Self::ResetState { to: ResetTarget::Active },
        Self::ResetState { to: ResetTarget::Error },
        Self::InjectNetworkInfo,
        Self::UpdateTags,
    ];

    /// The word in error texts: `Cannot 'stop' instance … while it is in vm_state stopped`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete | Self::SoftDelete => "delete",
            Self::Restore => "restore",
            Self::ForceDelete => "forceDelete",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::RebootSoft | Self::RebootHard => "reboot",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Rescue => "rescue",
            Self::Unrescue => "unrescue",
            Self::Rebuild => "rebuild",
            Self::Evacuate => "evacuate",
            Self::Resize => "resize",
            Self::Migrate => "migrate",
            Self::ConfirmResize => "confirmResize",
            Self::RevertResize => "revertResize",
            Self::LiveMigrate => "os-migrateLive",
            Self::ForceCompleteLiveMigration => "force_complete",
            Self::AbortLiveMigration => "abort live migration",
            Self::Shelve => "shelve",
            Self::ShelveOffload => "shelveOffload",
            Self::Unshelve => "unshelve",
            Self::CreateImage => "createImage",
            Self::CreateBackup => "createBackup",
            Self::ChangePassword => "changePassword",
            Self::TriggerCrashDump => "trigger_crash_dump",
            Self::AttachVolume => "attach_volume",
            Self::DetachVolume => "detach_volume",
            Self::SwapVolume => "swap_volume",
            Self::AttachInterface => "attach_interface",
            Self::DetachInterface => "detach_interface",
            Self::UpdateMetadata => "update metadata",
            Self::DeleteMetadata => "delete metadata",
            Self::GetConsole => "get_vnc_console",
            Self::GetConsoleOutput => "get_console_output",
            Self::GetDiagnostics => "get_diagnostics",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::ResetState { .. } => "resetState",
            Self::InjectNetworkInfo => "injectNetworkInfo",
            Self::UpdateTags => "update tags",
        }
    }

    /// The name in the list of instance actions (`nova/compute/instance_actions.py`); `None` for what Nova doesn't record.
    #[must_use]
    pub const fn action_record(self) -> Option<&'static str> {
        match self {
            Self::LiveMigrate => Some("live-migration"),
            Self::ForceCompleteLiveMigration => Some("live_migration_force_complete"),
            Self::AbortLiveMigration => Some("live_migration_cancel"),
            Self::Delete | Self::SoftDelete | Self::ForceDelete => Some("delete"),
            Self::Create
            | Self::Restore
            | Self::Start
            | Self::Stop
            | Self::RebootSoft
            | Self::RebootHard
            | Self::Pause
            | Self::Unpause
            | Self::Suspend
            | Self::Resume
            | Self::Rescue
            | Self::Unrescue
            | Self::Rebuild
            | Self::Evacuate
            | Self::Resize
            | Self::Migrate
            | Self::ConfirmResize
            | Self::RevertResize
            | Self::Shelve
            | Self::ShelveOffload
            | Self::Unshelve
            | Self::CreateImage
            | Self::CreateBackup
            | Self::ChangePassword
            | Self::TriggerCrashDump
            | Self::AttachVolume
            | Self::DetachVolume
            | Self::SwapVolume
            | Self::AttachInterface
            | Self::DetachInterface
            | Self::Lock
            | Self::Unlock
            | Self::ResetState { .. } => Some(self.name()),
            Self::UpdateMetadata
            | Self::DeleteMetadata
            | Self::GetConsole
            | Self::GetConsoleOutput
            | Self::GetDiagnostics
            | Self::InjectNetworkInfo
            | Self::UpdateTags => None,
        }
    }
}
