//! The hold on a server's consumption: stopping it lets what is in hand end.

use std::future::Future;

use tokio_util::sync::{CancellationToken, DropGuard};
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

/// A service at work: what it receives, and what it does by itself. Dropping it ends both.
#[derive(Debug)]
pub struct RunningService {
    serving: Serving,
    stop: CancellationToken,
    loops: TaskTracker,
    /// One that is dropped ends, whatever it has in hand.
    _ends: DropGuard,
}

impl RunningService {
    /// A service that receives and, so far, does nothing by itself. Its loops also end when `stop` does.
    pub fn new(serving: Serving, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        let ends = stop.clone().drop_guard();
        Self { serving, stop, loops: TaskTracker::new(), _ends: ends }
    }

    /// Adds something that it does until it is told to stop.
    #[must_use]
    pub fn with<F: Future<Output = ()> + Send + 'static>(self, work: impl FnOnce(CancellationToken) -> F) -> Self {
        self.loops.spawn(work(self.stop.clone()));
        self
    }

    /// Takes no more messages and waits for what is in hand. The caller bounds the wait.
    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.stop().await;
        self.loops.close();
        self.loops.wait().await;
    }
}
