//! A server's move from one host to another, as a record (nova/objects/migration.py).
//!
//! It is written in the transactions of the task that makes the move, and outlives that task: a resize waits for its
//! confirmation as a record, and what became of older moves can be looked up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::flavor::{Flavor, Resources};
use crate::ids::{HostName, InstanceId, MigrationId, ProjectId, UserId, ZoneName};
use crate::instance::Instance;
use crate::state::VmState;

/// What is kept with the answers of hosts if a move must go back.
const MUST_GO_BACK: &str = "must_go_back";

/// One move of one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// The id (2.59).
    pub uuid: MigrationId,
    /// A number of its own, by which paths know it. The store gives it.
    #[serde(default)]
    pub id: i64,
    /// Of which server.
    pub instance_id: InstanceId,
    /// Whose that is (2.80).
    pub project_id: ProjectId,
    /// Who asked for the move (2.80).
    pub user_id: UserId,
    /// What kind of move.
    pub migration_type: MigrationType,
    /// How far it is.
    pub status: MigrationStatus,
    /// The host that it leaves.
    pub source_compute: HostName,
    /// The hypervisor there.
    #[serde(default)]
    pub source_node: Option<String>,
    /// The zone of that host.
    #[serde(default)]
    pub source_zone: Option<ZoneName>,
    /// The host that it goes to, once one is booked.
    #[serde(default)]
    pub dest_compute: Option<HostName>,
    /// The hypervisor there.
    #[serde(default)]
    pub dest_node: Option<String>,
    /// Its address.
    #[serde(default)]
    pub dest_host: Option<String>,
    /// The flavor before.
    pub old_flavor: Flavor,
    /// The flavor after it: another one for a resize.
    pub new_flavor: Flavor,
    /// The stable state before, to which confirmation and revert lead back.
    pub old_vm_state: VmState,
    /// The host whose report the task waits for, where it is not the one that the server is on.
    #[serde(default)]
    pub ordered_of: Option<HostName>,
    /// Somebody has asked that it end.
    #[serde(default)]
    pub aborted: bool,
    /// What hosts answered, by step: what another host is told.
    #[serde(default)]
    pub answers: BTreeMap<String, Value>,
    /// How far the data is (2.23), of a live migration.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

/// Bytes of a live migration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the API names them: all, sent, still to be sent")]
pub struct Progress {
    pub memory_total: u64,
    pub memory_processed: u64,
    pub memory_remaining: u64,
    pub disk_total: u64,
    pub disk_processed: u64,
    pub disk_remaining: u64,
}

impl Migration {
    /// The record of a move that begins now. `None`: the server is on no host.
    pub fn begun(
        uuid: MigrationId,
        kind: MigrationType,
        instance: &Instance,
        flavor: &Flavor,
        now: Timestamp,
    ) -> Option<Self> {
        let status = match kind {
            MigrationType::Resize | MigrationType::Migration => MigrationStatus::PreMigrating,
            MigrationType::LiveMigration | MigrationType::Evacuation => MigrationStatus::Accepted,
        };
        Some(Self {
            uuid,
            id: 0,
            instance_id: instance.id,
            project_id: instance.project_id.clone(),
            user_id: instance.user_id.clone(),
            migration_type: kind,
            status,
            source_compute: instance.host.clone()?,
            source_node: instance.node.clone(),
            source_zone: instance.availability_zone.clone(),
            dest_compute: None,
            dest_node: None,
            dest_host: None,
            old_flavor: instance.flavor.clone(),
            new_flavor: flavor.clone(),
            old_vm_state: instance.vm_state,
            ordered_of: None,
            aborted: false,
            answers: BTreeMap::new(),
            progress: None,
            created_at: now,
            updated_at: Some(now),
            generation: 0,
        })
    }

    /// Does the move go on, or wait for its confirmation? Then both hosts have something of the server.
    pub const fn is_open(&self) -> bool {
        self.status.is_open()
    }

    /// Does this host have, or get, something of the server by it?
    pub fn concerns(&self, host: &HostName) -> bool {
        self.source_compute == *host || self.dest_compute.as_ref() == Some(host)
    }

    /// Its way back was begun, and nobody knows whether the guest is still at its destination: it can only be tried again, and
    /// not be confirmed.
    pub fn must_go_back(&self) -> bool {
        self.answers.get(MUST_GO_BACK) == Some(&Value::Bool(true))
    }

    /// Says so.
    pub fn set_must_go_back(&mut self) {
        self.answers.insert(MUST_GO_BACK.to_owned(), Value::Bool(true));
    }

    /// Does it stay on its host?
    pub fn same_host(&self) -> bool {
        self.dest_compute.as_ref() == Some(&self.source_compute)
    }

    /// What the instance holds on that host of the two: of one that is both, the larger of each.
    pub fn held_on(&self, instance: &Instance, host: &HostName) -> Resources {
        let with = |flavor: &Flavor| Instance { flavor: flavor.clone(), ..instance.clone() }.booked_resources();
        let mut held = Resources::default();
        if self.source_compute == *host {
            held = held.larger(with(&self.old_flavor));
        }
        if self.dest_compute.as_ref() == Some(host) {
            held = held.larger(with(&self.new_flavor));
        }
        held
    }

    /// The host of the two that is not this one.
    pub fn other(&self, host: Option<&HostName>) -> Option<&HostName> {
        if Some(&self.source_compute) == host { self.dest_compute.as_ref() } else { Some(&self.source_compute) }
            .filter(|other| Some(*other) != host)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that the API uses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.as_str()) }
        }
    };
}

words! {
    /// Kinds of move.
    MigrationType {
        /// To another host, with the same flavor, while the guest is off.
        Migration = "migration",
        /// To another flavor.
        Resize = "resize",
        /// While the guest runs.
        LiveMigration = "live-migration",
        /// Away from a host that is down.
        Evacuation = "evacuation",
    }
}

words! {
    /// How far a move is.
    MigrationStatus {
        /// Asked for (live migration, evacuation).
        Accepted = "accepted",
        /// It waits until others that leave the same host are done.
        Queued = "queued",
        /// The destination gets ready.
        Preparing = "preparing",
        /// Memory, and perhaps disks, are sent.
        Running = "running",
        /// The guest runs at its destination.
        Completed = "completed",
        /// It was ended by request.
        Cancelled = "cancelled",
        /// It could not be begun.
        Failed = "failed",
        /// A destination is looked for and made ready.
        PreMigrating = "pre-migrating",
        /// The guest leaves its host.
        Migrating = "migrating",
        /// It has left, and is made at its destination.
        PostMigrating = "post-migrating",
        /// It is there, and waits for its confirmation.
        Finished = "finished",
        /// What is left at the source is removed.
        Confirming = "confirming",
        /// It stays there.
        Confirmed = "confirmed",
        /// It goes back.
        Reverting = "reverting",
        /// It is back.
        Reverted = "reverted",
        /// An evacuated server is made elsewhere; its old host has not cleaned up yet.
        Done = "done",
        /// It broke.
        Error = "error",
    }
}

impl MigrationStatus {
    /// The move goes on, or waits for its confirmation.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Accepted
            | Self::Queued
            | Self::Preparing
            | Self::Running
            | Self::PreMigrating
            | Self::Migrating
            | Self::PostMigrating
            | Self::Finished
            | Self::Confirming
            | Self::Reverting => true,
            Self::Completed
            | Self::Cancelled
            | Self::Failed
            | Self::Confirmed
            | Self::Reverted
            | Self::Done
            | Self::Error => false,
        }
    }

    /// All that [are open](Self::is_open).
    pub fn open() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|status| status.is_open()).collect()
    }

    /// `GET /servers/{id}/migrations` lists it (nova/db/main/api.py, `migration_get_in_progress_by_instance`).
    pub const fn is_in_progress(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Preparing | Self::Running | Self::PostMigrating | Self::PreMigrating | Self::Migrating
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_api() {
        for status in MigrationStatus::ALL {
            let json = serde_json::to_value(status).unwrap();
            assert_eq!(json, status.as_str());
            assert_eq!(serde_json::from_value::<MigrationStatus>(json).unwrap(), *status);
        }
        assert_eq!(MigrationType::LiveMigration.to_string(), "live-migration");
    }

    #[test]
    fn what_is_in_progress_is_open() {
        assert!(MigrationStatus::ALL.iter().all(|status| !status.is_in_progress() || status.is_open()));
        assert!(!MigrationStatus::Finished.is_in_progress() && MigrationStatus::Finished.is_open());
    }
}
