//! The words of the state machine, spelled exactly as they are stored and sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word that is not one of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not a {kind}")]
pub struct UnknownWord {
    /// Which list was asked: `vm_state`, `task_state`, …
    pub kind: &'static str,
    /// The word as it came.
    pub value: String,
}

/// Declares an enum whose variants have one exact spelling, in the database, on the wire and in texts.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The exact spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::state::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::state::UnknownWord { kind: $kind, value: text.to_owned() }),
                }
            }
        }
    };
}

words! {
    /// The stable state of a server (`nova/compute/vm_states.py`).
    VmState, "vm_state" {
        /// The guest runs.
        Active = "active",
        /// Not yet built.
        Building = "building",
        /// Stopped in memory.
        Paused = "paused",
        /// Memory saved to disk.
        Suspended = "suspended",
        /// Powered off, disks on the host.
        Stopped = "stopped",
        /// Booted from a rescue image.
        Rescued = "rescued",
        /// Moved or resized, waiting for confirm or revert.
        Resized = "resized",
        /// Deleted, still restorable for a while.
        SoftDelete = "soft-delete",
        /// Gone.
        Deleted = "deleted",
        /// An operation failed; the fault says why.
        Error = "error",
        /// Powered off, its disk kept as an image, still on its host.
        Shelved = "shelved",
        /// Kept as an image only, on no host.
        ShelvedOffloaded = "shelved_offloaded",
    }
}

words! {
    /// What runs on a server now (`nova/compute/task_states.py`). Idle is `None`.
    TaskState, "task_state" {
        /// create: a host is being chosen.
        Scheduling = "scheduling",
        /// create: addresses.
        Networking = "networking",
        /// create: disks.
        BlockDeviceMapping = "block_device_mapping",
        /// create, unshelve: the hypervisor starts the guest.
        Spawning = "spawning",
        /// createImage: accepted.
        ImageSnapshotPending = "image_snapshot_pending",
        /// createImage: the disk is being frozen.
        ImageSnapshot = "image_snapshot",
        /// createImage, createBackup: ready to upload.
        ImagePendingUpload = "image_pending_upload",
        /// createImage, createBackup: uploading.
        ImageUploading = "image_uploading",
        /// createBackup: accepted.
        ImageBackup = "image_backup",
        /// changePassword.
        UpdatingPassword = "updating_password",
        /// resize, migrate: the target is being prepared.
        ResizePrep = "resize_prep",
        /// resize, migrate: the source gives the disks away.
        ResizeMigrating = "resize_migrating",
        /// resize, migrate: the disks have moved.
        ResizeMigrated = "resize_migrated",
        /// resize, migrate: the target starts the guest.
        ResizeFinish = "resize_finish",
        /// revertResize.
        ResizeReverting = "resize_reverting",
        /// confirmResize; declared, not set by current Nova.
        ResizeConfirming = "resize_confirming",
        /// reboot SOFT: accepted.
        Rebooting = "rebooting",
        /// reboot SOFT: at the host.
        RebootPending = "reboot_pending",
        /// reboot SOFT: under way.
        RebootStarted = "reboot_started",
        /// reboot HARD: accepted.
        RebootingHard = "rebooting_hard",
        /// reboot HARD: at the host.
        RebootPendingHard = "reboot_pending_hard",
        /// reboot HARD: under way.
        RebootStartedHard = "reboot_started_hard",
        /// pause.
        Pausing = "pausing",
        /// unpause.
        Unpausing = "unpausing",
        /// suspend.
        Suspending = "suspending",
        /// resume.
        Resuming = "resuming",
        /// os-stop (hyphen).
        PoweringOff = "powering-off",
        /// os-start (hyphen).
        PoweringOn = "powering-on",
        /// rescue.
        Rescuing = "rescuing",
        /// unrescue.
        Unrescuing = "unrescuing",
        /// rebuild, evacuate: accepted.
        Rebuilding = "rebuilding",
        /// rebuild, evacuate: disks.
        RebuildBlockDeviceMapping = "rebuild_block_device_mapping",
        /// rebuild, evacuate: the hypervisor starts the guest.
        RebuildSpawning = "rebuild_spawning",
        /// os-migrateLive.
        Migrating = "migrating",
        /// delete, forceDelete.
        Deleting = "deleting",
        /// delete with deferred reclaim (hyphen).
        SoftDeleting = "soft-deleting",
        /// restore.
        Restoring = "restoring",
        /// shelve: accepted.
        Shelving = "shelving",
        /// shelve: the image is ready to upload.
        ShelvingImagePendingUpload = "shelving_image_pending_upload",
        /// shelve: uploading.
        ShelvingImageUploading = "shelving_image_uploading",
        /// shelveOffload, or the end of shelve.
        ShelvingOffloading = "shelving_offloading",
        /// unshelve.
        Unshelving = "unshelving",
    }
}

words! {
    /// Who locked a server (`instances.locked_by`).
    LockedBy, "locked_by" {
        /// A user of the server's project.
        Owner = "owner",
        /// An administrator; the owner can't undo it.
        Admin = "admin",
    }
}

/// The hypervisor's last reading (`nova/compute/power_state.py`). An integer on the wire and in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PowerState {
    /// 0: not known, or no such guest.
    #[default]
    NoState,
    /// 1: running.
    Running,
    /// 3: paused.
    Paused,
    /// 4: powered off.
    Shutdown,
    /// 6: crashed.
    Crashed,
    /// 7: suspended.
    Suspended,
}

impl PowerState {
    /// Every value, by rising integer.
    pub const ALL: &'static [Self] =
        &[Self::NoState, Self::Running, Self::Paused, Self::Shutdown, Self::Crashed, Self::Suspended];

    /// The integer on the wire (`OS-EXT-STS:power_state`).
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        match self {
            Self::NoState => 0,
            Self::Running => 1,
            Self::Paused => 3,
            Self::Shutdown => 4,
            Self::Crashed => 6,
            Self::Suspended => 7,
        }
    }

    /// The value of an integer, `None` for the unused ones (2, 5) and strangers.
    #[must_use]
    pub const fn from_i64(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::NoState),
            1 => Some(Self::Running),
            3 => Some(Self::Paused),
            4 => Some(Self::Shutdown),
            6 => Some(Self::Crashed),
            7 => Some(Self::Suspended),
            _ => None,
        }
    }

    /// Nova's name, as `nova show` and notifications print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoState => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Crashed => "crashed",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<i64> for PowerState {
    type Error = UnknownWord;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        Self::from_i64(number).ok_or_else(|| UnknownWord { kind: "power_state", value: number.to_string() })
    }
}

impl FromStr for PowerState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord { kind: "power_state", value: text.to_owned() })
    }
}

impl Serialize for PowerState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.as_i64())
    }
}

impl<'de> Deserialize<'de> for PowerState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The three fields together, as they stand in an instance's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct States {
    /// The stable state.
    pub vm_state: VmState,
    /// What runs now; `None` is idle.
    pub task_state: Option<TaskState>,
    /// The hypervisor's last reading.
    pub power_state: PowerState,
}

impl States {
    /// The states of a row that has just been written for a create request: `building`, `scheduling`, no power reading.
    #[must_use]
    pub const fn created() -> Self {
        Self { vm_state: VmState::Building, task_state: Some(TaskState::Scheduling), power_state: PowerState::NoState }
    }

    /// An idle server of that `vm_state`, with the power reading that belongs to it.
    #[must_use]
    pub fn idle(vm_state: VmState) -> Self {
        let power_state = super::expected_power(vm_state).unwrap_or_default();
        Self { vm_state, task_state: None, power_state }
    }

    /// The same with another task.
    #[must_use]
    pub const fn with_task(self, task_state: Option<TaskState>) -> Self {
        Self { task_state, ..self }
    }

    /// What users see as `status`.
    #[must_use]
    pub fn status(&self) -> super::ServerStatus {
        super::status(self.vm_state, self.task_state)
    }
}

pub(super) use words;
