//! Tasks whose lease has run out: their message was lost, their host is slow, or their conductor died.

use nova_core::task::Task;
use nova_db::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{DriveError, earlier, later};
use super::manager::Conductor;
use super::steps::chain;

/// Tasks taken up in one sweep; the rest waits for the next.
const BATCH: usize = 100;

impl Conductor {
    pub(super) async fn sweep_until(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.sweep().await {
                tracing::warn!("looking for tasks failed: {}", chain(&error));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.services.options.get().sweep_interval) => {}
            }
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
            drives.spawn(async move { conductor.take_up(task).await });
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
