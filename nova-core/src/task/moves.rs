//! Tasks that move a server between hosts, or take it off its host and put it on one again (nova/conductor/tasks/).
//!
//! A move books its destination while the source keeps its allocation; its [migration](crate::migration) names both. It
//! changes nothing that cannot be taken back before the last step at the destination is done, and takes back newest first:
//! what was made at the destination goes before the guest at the source is started again.

use serde::{Deserialize, Serialize};

use super::Plan;
use crate::ids::{ImageId, MigrationId};
use crate::request::RequestSpec;
use crate::state::Action;

/// A move.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "move")]
pub enum Move {
    /// To another host while the guest is off, with another flavor or the same (cold migration).
    Resize {
        /// Its record.
        migration: MigrationId,
        /// What is asked of the scheduler.
        spec: Box<RequestSpec>,
    },
    /// It stays where it was moved to: what is left at the source goes.
    ConfirmResize {
        /// The record of the move.
        migration: MigrationId,
    },
    /// It goes back.
    RevertResize {
        /// The record of the move.
        migration: MigrationId,
    },
    /// It is made anew elsewhere, as its host is down.
    Evacuate {
        /// Its record.
        migration: MigrationId,
        /// What is asked of the scheduler.
        spec: Box<RequestSpec>,
        /// It is not started there (2.95).
        stays_off: bool,
        /// First administrator password of the new guest.
        #[serde(default)]
        admin_password: Option<String>,
    },
    /// To another host while it runs.
    LiveMigrate {
        /// Its record.
        migration: MigrationId,
        /// What is asked of the scheduler.
        spec: Box<RequestSpec>,
        /// Send the disks, too; `None`: if the hosts share none.
        #[serde(default)]
        block: Option<bool>,
    },
    /// Its guest is stopped and kept as an image.
    Shelve {
        /// The image, described already (`queued`).
        image_id: ImageId,
        /// It leaves its host at once.
        offload: bool,
    },
    /// Its guest is stopped and leaves its host: it is kept as its root volume.
    ShelveVolume,
    /// A shelved server leaves its host.
    ShelveOffload,
    /// It runs again: on its host, if it has not left it.
    Unshelve {
        /// What is asked of the scheduler, of one that is on no host.
        #[serde(default)]
        spec: Option<Box<RequestSpec>>,
        /// The image that it was kept as, which goes.
        #[serde(default)]
        image_id: Option<ImageId>,
    },
}

impl Move {
    /// A short name, for logs and metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Resize { .. } => "resize",
            Self::ConfirmResize { .. } => "confirm_resize",
            Self::RevertResize { .. } => "revert_resize",
            Self::Evacuate { .. } => "evacuate",
            Self::LiveMigrate { .. } => "live_migrate",
            Self::Shelve { .. } | Self::ShelveVolume => "shelve",
            Self::ShelveOffload => "shelve_offload",
            Self::Unshelve { .. } => "unshelve",
        }
    }

    /// The user's action that it carries out.
    pub const fn action(&self) -> Action {
        match self {
            Self::Resize { .. } => Action::Resize,
            Self::ConfirmResize { .. } => Action::ConfirmResize,
            Self::RevertResize { .. } => Action::RevertResize,
            Self::Evacuate { .. } => Action::Evacuate,
            Self::LiveMigrate { .. } => Action::LiveMigrate,
            Self::Shelve { .. } | Self::ShelveVolume => Action::Shelve,
            Self::ShelveOffload => Action::ShelveOffload,
            Self::Unshelve { .. } => Action::Unshelve,
        }
    }

    /// The steps that it takes. Until a guest is touched, another host may be tried.
    pub const fn plan(&self) -> Plan {
        match self {
            Self::Resize { .. } => Plan {
                steps: &["select_host", "book_host", "prepare_move", "stash_source", "finish_move", "settle_volumes"],
                retry_from: Some(1),
            },
            Self::ConfirmResize { .. } => Plan { steps: &["drop_source", "leave_volumes"], retry_from: None },
            Self::RevertResize { .. } => {
                Plan { steps: &["leave_destination", "return_to_source", "leave_volumes"], retry_from: None }
            }
            Self::Evacuate { .. } => {
                Plan { steps: &["select_host", "book_host", "rebuild_there", "settle_volumes"], retry_from: Some(1) }
            }
            Self::LiveMigrate { .. } => Plan {
                steps: &[
                    "queue",
                    "select_host",
                    "book_host",
                    "prepare_incoming",
                    "live_migrate",
                    "adopt_incoming",
                    "leave_volumes",
                ],
                retry_from: Some(2),
            },
            Self::Shelve { offload: false, .. } => Plan { steps: &["shelve_stop", "snapshot"], retry_from: None },
            Self::Shelve { offload: true, .. } => Plan {
                steps: &["shelve_stop", "snapshot", "offload", "unbind_ports", "unbind_volumes"],
                retry_from: None,
            },
            Self::ShelveVolume => {
                Plan { steps: &["shelve_stop", "offload", "unbind_ports", "unbind_volumes"], retry_from: None }
            }
            Self::ShelveOffload => Plan { steps: &["offload", "unbind_ports", "unbind_volumes"], retry_from: None },
            Self::Unshelve { spec: None, .. } => Plan { steps: &["power_on", "drop_shelved_image"], retry_from: None },
            Self::Unshelve { spec: Some(_), .. } => Plan {
                steps: &[
                    "leave_doubtful",
                    "select_host",
                    "book_host",
                    "unshelve_there",
                    "settle_volumes",
                    "drop_shelved_image",
                ],
                retry_from: Some(2),
            },
        }
    }

    /// The record that it writes.
    pub const fn migration(&self) -> Option<MigrationId> {
        match self {
            Self::Resize { migration, .. }
            | Self::ConfirmResize { migration }
            | Self::RevertResize { migration }
            | Self::Evacuate { migration, .. }
            | Self::LiveMigrate { migration, .. } => Some(*migration),
            Self::Shelve { .. } | Self::ShelveVolume | Self::ShelveOffload | Self::Unshelve { .. } => None,
        }
    }

    /// What it asks of the scheduler.
    pub const fn spec(&self) -> Option<&RequestSpec> {
        match self {
            Self::Resize { spec, .. } | Self::Evacuate { spec, .. } | Self::LiveMigrate { spec, .. } => Some(&**spec),
            Self::Unshelve { spec: Some(spec), .. } => Some(&**spec),
            _ => None,
        }
    }
}
