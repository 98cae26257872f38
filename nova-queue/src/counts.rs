//! Counters that several tasks add to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Counters;

/// What [`Counters`] shows, while it is counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) messages: AtomicU64,
    pub(crate) replies: AtomicU64,
    pub(crate) fanouts: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

/// One more.
pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn read(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            messages: read(&self.messages),
            replies: read(&self.replies),
            fanouts: read(&self.fanouts),
            redelivered: read(&self.redelivered),
            expired: read(&self.expired),
            dead_letters: read(&self.dead_letters),
        }
    }
}
