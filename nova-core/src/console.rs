//! Consoles: which kinds there are, the leave to open one, and when an open one has to be closed.
//!
//! A [`ConsoleGrant`] is made by the API for one user, one server, one place where its screen is served, and one epoch of
//! the server (nova/objects/console_auth_token.py keeps the like). Only the hash of its token is kept.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{ConsoleGrantId, ConsoleSessionId, HostName, InstanceId, ProjectId, UserId};
use crate::instance::Instance;
use crate::state::{PowerState, TaskState, VmState};

/// What a console is shown by (nova/console/type.py).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleType {
    /// The screen, over RFB.
    Novnc,
    /// The screen, over SPICE, in a browser.
    SpiceHtml5,
    /// The screen, over SPICE, by a viewer of its own (2.99).
    SpiceDirect,
    /// The serial port.
    Serial,
    /// The screen, as VMware serves it (2.8).
    Webmks,
}

impl ConsoleType {
    /// Whether one session of it is several connections, one for each of its channels. What lets a client go on with such a
    /// session lets in its further channels, too, and is good for all of them.
    pub const fn has_channels(self) -> bool {
        match self {
            Self::SpiceHtml5 | Self::SpiceDirect => true,
            Self::Novnc | Self::Serial | Self::Webmks => false,
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] = [Self::Novnc, Self::SpiceHtml5, Self::SpiceDirect, Self::Serial, Self::Webmks];

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Novnc => "novnc",
            Self::SpiceHtml5 => "spice-html5",
            Self::SpiceDirect => "spice-direct",
            Self::Serial => "serial",
            Self::Webmks => "webmks",
        }
    }

    /// The protocol behind it, as `remote_console.protocol` names it.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Novnc => "vnc",
            Self::SpiceHtml5 | Self::SpiceDirect => "spice",
            Self::Serial => "serial",
            Self::Webmks => "mks",
        }
    }
}

impl fmt::Display for ConsoleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ConsoleType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(())
    }
}

/// Where a host serves a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleTarget {
    /// The host's address, as proxies reach it.
    pub host: String,
    /// The port there; 0 where it is served over TLS alone.
    pub port: u16,
    /// The port there for TLS from its first byte on, as SPICE has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
}

/// Leave to open a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleGrant {
    /// Names it without giving it away.
    pub id: ConsoleGrantId,
    /// [`token_hash`] of its token.
    pub token_hash: String,
    /// By what.
    pub console_type: ConsoleType,
    /// Whose console.
    pub instance_id: InstanceId,
    /// The host that the server was on.
    pub host: HostName,
    /// The server's fencing token then.
    pub epoch: u64,
    /// Who asked.
    pub user_id: UserId,
    /// In which project: the role that allowed it was held there.
    pub project_id: ProjectId,
    /// Where the console was served then.
    pub target: ConsoleTarget,
    /// The address that the user was sent to, without the token.
    pub access_url_base: String,
    /// The session that it goes on with, when the proxy that had it is gone; a new grant has none.
    #[serde(default)]
    pub resumes: Option<ResumedSession>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// A session that may be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedSession {
    /// Which.
    pub id: ConsoleSessionId,
    /// When it has to end.
    pub until: Timestamp,
}

/// An open console, as its proxy knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSession {
    /// Names it.
    pub id: ConsoleSessionId,
    /// By what.
    pub console_type: ConsoleType,
    /// Whose console.
    pub instance_id: InstanceId,
    /// The host that the server must be on.
    pub host: HostName,
    /// Who looks.
    pub user_id: UserId,
    /// In which project.
    pub project_id: ProjectId,
    /// Where the console is served.
    pub target: ConsoleTarget,
    /// The address that the user was sent to.
    pub access_url_base: String,
    /// When it has to end, whatever happens.
    pub until: Timestamp,
}

/// Why a console is not opened, or is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The server is gone or going.
    Deleted,
    /// It is not on that host any more, or leaves it.
    Moved,
    /// It does not run any more.
    Stopped,
    /// The user may not see it any more.
    Revoked,
    /// Something was done to the server since the address was asked for.
    Changed,
    /// It has lasted as long as any may.
    TooLong,
}

impl SessionEnd {
    /// One line for the user.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Deleted => "The server is gone.",
            Self::Moved => "The server has moved to another host.",
            Self::Stopped => "The server has stopped.",
            Self::Revoked => "You may not see this console any more.",
            Self::Changed => "The server has changed since this address was made: ask for a new one.",
            Self::TooLong => "The session has lasted as long as it may.",
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// Under this hash a grant is kept: SHA-256, in hexadecimal.
pub fn token_hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Must a console of this server that was opened on that host be closed? The server's paused, rebooted, copied or
/// rebuilt guest keeps its screen as far as it is still served.
pub fn session_end(instance: &Instance, host: &HostName) -> Option<SessionEnd> {
    if instance.is_deleted() {
        return Some(SessionEnd::Deleted);
    }
    if let Some(end) = instance.task_state.and_then(task_end) {
        return Some(end);
    }
    if instance.host.as_ref() != Some(host) {
        return Some(SessionEnd::Moved);
    }
    let by_state = match instance.vm_state {
        VmState::Deleted | VmState::SoftDelete => Some(SessionEnd::Deleted),
        VmState::Stopped | VmState::Suspended | VmState::Shelved | VmState::ShelvedOffloaded => {
            Some(SessionEnd::Stopped)
        }
        VmState::Active
        | VmState::Building
        | VmState::Paused
        | VmState::Rescued
        | VmState::Resized
        | VmState::Error => None,
    };
    let off = matches!(instance.power_state, PowerState::Shutdown | PowerState::Crashed | PowerState::Suspended);
    // What is being started shows its last reading until it is up.
    by_state
        .filter(|end| *end != SessionEnd::Stopped || !starts(instance.task_state))
        .or_else(|| (off && instance.task_state.is_none()).then_some(SessionEnd::Stopped))
}

/// Is the guest being started?
fn starts(task: Option<TaskState>) -> bool {
    use TaskState as T;
    matches!(task, Some(T::PoweringOn | T::Resuming | T::Unshelving | T::Spawning | T::Restoring | T::Unrescuing))
}

fn task_end(task: TaskState) -> Option<SessionEnd> {
    use TaskState as T;
    match task {
        T::Deleting | T::SoftDeleting => Some(SessionEnd::Deleted),
        T::Migrating
        | T::ResizePrep
        | T::ResizeMigrating
        | T::ResizeMigrated
        | T::ResizeFinish
        | T::ResizeReverting
        | T::ShelvingOffloading => Some(SessionEnd::Moved),
        T::PoweringOff | T::Suspending | T::Shelving | T::ShelvingImagePendingUpload | T::ShelvingImageUploading => {
            Some(SessionEnd::Stopped)
        }
        T::Scheduling
        | T::Networking
        | T::BlockDeviceMapping
        | T::Spawning
        | T::ImageSnapshotPending
        | T::ImageSnapshot
        | T::ImagePendingUpload
        | T::ImageUploading
        | T::ImageBackup
        | T::UpdatingPassword
        | T::ResizeConfirming
        | T::Rebooting
        | T::RebootPending
        | T::RebootStarted
        | T::RebootingHard
        | T::RebootPendingHard
        | T::RebootStartedHard
        | T::Pausing
        | T::Unpausing
        | T::Resuming
        | T::PoweringOn
        | T::Rescuing
        | T::Unrescuing
        | T::Rebuilding
        | T::RebuildBlockDeviceMapping
        | T::RebuildSpawning
        | T::Restoring
        | T::Unshelving => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for one in ConsoleType::ALL {
            assert_eq!(one.as_str().parse(), Ok(one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        assert_eq!("rdp-html5".parse::<ConsoleType>(), Err(()));
    }

    #[test]
    fn only_the_hash_is_kept() {
        assert_eq!(token_hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_ends_a_session_by_the_task_that_runs() {
        let end = |task| task_end(task);
        assert_eq!(end(TaskState::Deleting), Some(SessionEnd::Deleted));
        assert_eq!(end(TaskState::Migrating), Some(SessionEnd::Moved));
        assert_eq!(end(TaskState::PoweringOff), Some(SessionEnd::Stopped));
        for stays in [TaskState::Rebooting, TaskState::ImageSnapshot, TaskState::Pausing, TaskState::PoweringOn] {
            assert_eq!(end(stays), None, "{stays}");
        }
    }
}
