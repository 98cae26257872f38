//! Records of servers' moves.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::ids::{HostName, InstanceId, MigrationId, ProjectId, UserId};
use nova_core::migration::{Migration, MigrationStatus, MigrationType};

use crate::StoreError;

/// Which moves. Every condition that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct MigrationQuery {
    /// Of this server.
    pub instance: Option<InstanceId>,
    /// From or to this host.
    pub host: Option<HostName>,
    /// From this host.
    pub source_compute: Option<HostName>,
    /// Of one of these statuses.
    pub statuses: Option<Vec<MigrationStatus>>,
    /// Of this kind.
    pub migration_type: Option<MigrationType>,
    /// Of servers of this project.
    pub project_id: Option<ProjectId>,
    /// Asked for by this user.
    pub user_id: Option<UserId>,
    /// Changed at or after.
    pub changed_since: Option<Timestamp>,
    /// Changed at or before.
    pub changed_before: Option<Timestamp>,
    /// Newest first, and only what comes after this one in that order; unknown: [`StoreError::NotFound`].
    pub after: Option<MigrationId>,
    /// At most that many.
    pub limit: Option<usize>,
}

impl MigrationQuery {
    /// Moves that go on, or wait for their confirmation.
    pub fn open() -> Self {
        Self { statuses: Some(MigrationStatus::open()), ..Self::default() }
    }
}

/// Records of moves. They are written with the tasks that make them ([`crate::TaskStart`], [`crate::TaskCommit`]).
#[async_trait]
pub trait MigrationStore: Send + Sync {
    /// One move.
    async fn get_migration(&self, uuid: MigrationId) -> Result<Migration, StoreError>;

    /// The move of that number.
    async fn migration_of_number(&self, id: i64) -> Result<Migration, StoreError>;

    /// Moves that fit, newest first.
    async fn list_migrations(&self, query: &MigrationQuery) -> Result<Vec<Migration>, StoreError>;

    /// Writes a move if its generation still stands, and the record of the action that changed it, in one transaction.
    /// Only what no task writes: progress, what users ask of a live migration that goes on, what follows a task's end.
    async fn update_migration(
        &self,
        migration: Migration,
        action: Option<ActionRecord>,
    ) -> Result<Migration, StoreError>;
}
