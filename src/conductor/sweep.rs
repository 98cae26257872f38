//! Tasks whose lease has run out: their message was lost, their host is slow, or their conductor died.

use std::time::Duration;

use nova_core::task::Task;
use nova_db::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::engine::{DriveError, earlier, later, signed};
use super::manager::Conductor;
use nova_core::error::chain;

/// Tasks taken up in one sweep; the rest waits for the next.
const BATCH: usize = 100;
/// How often it is looked for deleted instances that are old enough to go.
const ARCHIVE_INTERVAL: Duration = Duration::from_secs(3600);
/// How long deleted instances and their actions can still be looked at.
const KEEP_DELETED: Duration = Duration::from_secs(30 * 86_400);
/// Instances archived at once.
const ARCHIVE_BATCH: usize = 1000;

impl Conductor {
    pub(super) async fn sweep_until(&self, stop: CancellationToken) {
        let mut archived_at = None;
        loop {
            match self.sweep().await {
                // There are more: on with them.
                Ok(BATCH) if !stop.is_cancelled() => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!("looking for tasks failed: {}", chain(&error)),
            }
            let now = self.clock.now();
            if archived_at.is_none_or(|at| now.duration_since(at) >= signed(ARCHIVE_INTERVAL)) {
                archived_at = Some(now);
                self.archive().await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.services.options.get().sweep_interval) => {}
            }
        }
    }

    /// Removes for good what was deleted long ago, so that the store does not grow for ever.
    async fn archive(&self) {
        match self.store.archive_deleted(earlier(self.clock.now(), KEEP_DELETED), ARCHIVE_BATCH).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "archived instances that were deleted long ago"),
            Err(error) => tracing::warn!("nothing was archived: {}", chain(&error)),
        }
    }

    /// Takes up every task that is due; returns how many.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let due_before = earlier(self.clock.now(), self.services.options.get().start_grace);
        let due = self.store.list_due_tasks(due_before, BATCH).await?;
        let count = due.len();
        let mut drives = JoinSet::new();
        for task in due {
            let conductor = self.clone();
            let span = tracing::info_span!("sweep", task = %task.id, request_id = %task.context.request_id);
            drives.spawn(async move { conductor.take_up(task).await }.instrument(span));
        }
        while let Some(done) = drives.join_next().await {
            if let Err(error) = done {
                tracing::error!("a task's drive died: {error}");
            }
        }
        Ok(count)
    }

    async fn take_up(&self, task: Task) {
        let (now, options) = (self.clock.now(), self.services.options.get());
        let lease_until = later(now, options.task_lease);
        let driven = match self.store.acquire_task(task.id, &options.name, now, lease_until).await {
            Ok(leased) => match self.open(leased).await {
                Ok(cx) => self.drive(cx).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error.into()),
        };
        match driven {
            Ok(()) | Err(DriveError::Overtaken) => {}
            Err(DriveError::Later(why)) => tracing::warn!(task = %task.id, "will be taken up again: {why}"),
        }
    }
}
