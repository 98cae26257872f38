//! The hold on a server's consumption: stopping it lets what is in hand end.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running consumer. Dropping it stops the consumption without waiting for what is in hand.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    /// A consumer whose loops end on `stop` and whose work runs under `tasks`.
    pub fn new(stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self { stop, tasks }
    }

    /// Takes no more messages and waits until those in hand are done. The caller bounds the wait.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
