//! Changes that hosts are not told of yet: all of a short while is one question to the store and one word to each host.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::rpc::network::BooksChangedRequest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::network::changes::Changes;

/// So much waits at most, as when the store does not answer; hosts find the rest by themselves.
const MOST: usize = 100_000;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: Mutex<Changes>,
    some: Notify,
}

impl Hints {
    /// Will be told with what else changes soon.
    pub(super) fn add(&self, change: BooksChangedRequest) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            tracing::debug!("too much is to be told to hosts: they will ask");
            return;
        }
        waiting.add(change);
        drop(waiting);
        self.some.notify_one();
    }

    /// Waits for a change and then for those that follow within the window; `None`: it is to stop.
    pub(super) async fn next(&self, window: Duration, stop: &CancellationToken) -> Option<BooksChangedRequest> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = async { self.some.notified().await; tokio::time::sleep(window).await } => {}
        }
        Some(std::mem::take(&mut *self.waiting()).into_news())
    }

    fn waiting(&self) -> MutexGuard<'_, Changes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
