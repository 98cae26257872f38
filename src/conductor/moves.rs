//! Moves around the tasks: their records, what hosts are told of them, what is confirmed without its owner.

use std::time::Duration;

use nova_core::flavor::Resources;
use nova_core::ids::{HostName, InstanceId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::rpc::conductor::ReportProgressRequest;
use nova_core::state::VmState;
use nova_core::task::{Move, Task, Work};
use nova_db::{MigrationQuery, StoreError};
use nova_queue::{HandlerError, Incoming};

use super::engine::earlier;
use super::manager::Conductor;
use super::power::Begin;
use super::report::unavailable;

impl Conductor {
    /// The record that the task writes: its own move's, or, of a server that is deleted, that of the move that it was in.
    pub(super) async fn migration_of(&self, task: &Task) -> Result<Option<Migration>, StoreError> {
        if let Some(uuid) = task.work.migration() {
            return self.store.get_migration(uuid).await.map(Some);
        }
        if !matches!(task.work, Work::Delete) {
            return Ok(None);
        }
        let query = MigrationQuery { instance: Some(task.instance_id), limit: Some(1), ..MigrationQuery::default() };
        let newest = self.store.list_migrations(&query).await?.pop();
        // One whose task was ended by the deletion has an error by now.
        let left = newest.filter(|one| one.is_open() || one.status == MigrationStatus::Error);
        Ok(left.map(|one| Migration { ordered_of: None, ..one }))
    }

    /// Servers that have something on a host by a move that goes on, or waits for its confirmation; and what they hold there.
    pub(super) async fn moving(&self, host: &HostName) -> Result<Vec<(Instance, Resources)>, StoreError> {
        let query = MigrationQuery { host: Some(host.clone()), ..MigrationQuery::open() };
        let mut all = Vec::new();
        for migration in self.store.list_migrations(&query).await? {
            let instance = match self.store.get_instance(migration.instance_id).await {
                Ok(instance) => instance,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            if !instance.is_deleted() {
                let holds = migration.held_on(&instance, host);
                all.push((instance, holds));
            }
        }
        Ok(all)
    }

    /// Did the last move of a server that is in ERROR begin and end on that host? Then what is set aside there is the server,
    /// and what may be beside it is nothing.
    pub(super) async fn was_lost_where_it_is(&self, id: InstanceId, host: &HostName) -> Result<bool, StoreError> {
        let query = MigrationQuery { instance: Some(id), limit: Some(1), ..MigrationQuery::default() };
        let last = self.store.list_migrations(&query).await?.pop();
        let lost = |one: Migration| one.status == MigrationStatus::Error && one.same_host() && one.concerns(host);
        Ok(last.is_some_and(lost))
    }

    /// A host removes what it has of a server that was evacuated from it.
    pub(super) async fn has_left(&self, instance: InstanceId, host: &HostName) -> Result<(), StoreError> {
        let query = MigrationQuery {
            instance: Some(instance),
            source_compute: Some(host.clone()),
            statuses: Some(vec![MigrationStatus::Done]),
            migration_type: Some(MigrationType::Evacuation),
            ..MigrationQuery::default()
        };
        for done in self.store.list_migrations(&query).await? {
            let completed =
                Migration { status: MigrationStatus::Completed, updated_at: Some(self.clock.now()), ..done };
            match self.store.update_migration(completed, None).await {
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How far a live migration is: only told by its source, and only while it runs.
    pub(super) async fn report_progress(
        &self,
        incoming: Incoming,
        request: ReportProgressRequest,
    ) -> Result<(), HandlerError> {
        let task = match self.store.get_task(request.task_id).await {
            Ok(task) if task.instance_id == request.instance_id && task.epoch == request.epoch => task,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(unavailable(&error)),
        };
        let Some(uuid) = task.work.migration() else { return Ok(()) };
        let migration = self.store.get_migration(uuid).await.map_err(|error| unavailable(&error))?;
        let runs = migration.status == MigrationStatus::Running && migration.source_compute == incoming.sender.host;
        if !runs {
            return Ok(());
        }
        let told = Migration { progress: Some(request.progress), updated_at: Some(self.clock.now()), ..migration };
        match self.store.update_migration(told, None).await {
            // Whoever was faster knows more.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// How long a confirmation that nobody asked for may take.
const TIME_TO_CONFIRM: Duration = Duration::from_secs(3600);
/// Resizes that are confirmed together.
const BATCH: usize = 500;

impl Conductor {
    /// Confirms resizes that wait for longer than `resize_confirm_window` (nova/compute/manager.py, `_poll_unconfirmed_resizes`).
    pub(super) async fn confirm_what_is_due(&self) -> Result<usize, StoreError> {
        let Some(window) = self.services.options.get().moves.resize_confirm_window else { return Ok(0) };
        let now = self.clock.now();
        let query = MigrationQuery {
            statuses: Some(vec![MigrationStatus::Finished]),
            changed_before: Some(earlier(now, window)),
            limit: Some(BATCH),
            ..MigrationQuery::default()
        };
        let mut begun = 0;
        let finished = self.store.list_migrations(&query).await?.into_iter();
        for finished in finished.filter(|migration| !migration.must_go_back()) {
            let instance = match self.store.get_instance(finished.instance_id).await {
                Ok(instance) if instance.vm_state == VmState::Resized && instance.task_state.is_none() => instance,
                Ok(_) | Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            tracing::info!(instance = %instance.id, "its resize waits for long enough; it is confirmed");
            begun += usize::from(self.confirm(instance, finished).await?);
        }
        Ok(begun)
    }

    /// Begins the confirmation of a move; false: somebody else was faster.
    pub(super) async fn confirm(&self, instance: Instance, finished: Migration) -> Result<bool, StoreError> {
        let work = Work::Move(Move::ConfirmResize { migration: finished.uuid });
        let updated_at = Some(self.clock.now());
        let confirming = Migration { status: MigrationStatus::Confirming, updated_at, ..finished };
        let begin = Begin { allowed: TIME_TO_CONFIRM, migration: Some(confirming), ..Begin::default() };
        match self.begin(instance, None, work, begin).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
