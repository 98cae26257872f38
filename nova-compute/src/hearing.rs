//! Is this host heard of? One that was not for long enough may have been given up, and its servers made elsewhere: what it
//! was told before it came back is asked about again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

/// Heartbeats that nobody heard after which this host may have been given up.
const MISSED_BEATS: i32 = 3;

/// When a conductor last heard of this host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hearing {
    /// Longer than that nobody may be told that the host lives.
    limit: SignedDuration,
    times: Arc<Mutex<Times>>,
    came_back: Arc<Notify>,
}

struct Times {
    heard: Timestamp,
    /// What was ordered before may have been taken back.
    back: Timestamp,
}

impl Times {
    fn away(&self, limit: SignedDuration, now: Timestamp) -> bool {
        now.duration_since(self.heard) > limit
    }
}

impl Hearing {
    /// A host that begins now.
    pub(crate) fn new(report_interval: Duration, now: Timestamp) -> Self {
        let interval = SignedDuration::try_from(report_interval).unwrap_or(SignedDuration::MAX);
        let limit = interval.checked_mul(MISSED_BEATS).unwrap_or(SignedDuration::MAX);
        let times = Arc::new(Mutex::new(Times { heard: now, back: now }));
        Self { limit, times, came_back: Arc::default() }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A conductor has heard of this host.
    pub(crate) fn heard(&self, now: Timestamp) {
        let mut times = self.times();
        if times.away(self.limit, now) {
            tracing::warn!("nobody has heard of this host since {}: its servers may be elsewhere", times.heard);
            times.back = now;
            self.came_back.notify_one();
        }
        times.heard = now;
    }

    /// May what was ordered then have been taken back since?
    pub(crate) fn doubts(&self, given: Timestamp, now: Timestamp) -> bool {
        let times = self.times();
        given < times.back || times.away(self.limit, now)
    }

    /// Waits until the host is heard of again after it was not for too long.
    pub(crate) async fn come_back(&self) {
        self.came_back.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[tokio::test]
    async fn orders_from_before_an_absence_are_doubted_also_after_it() {
        let hearing = Hearing::new(Duration::from_secs(10), at(0));
        assert!(hearing.doubts(at(-1), at(1)), "from before its start");
        hearing.heard(at(10));
        assert!(!hearing.doubts(at(5), at(40)));
        assert!(hearing.doubts(at(40), at(41)), "whatever comes while it is away");
        hearing.heard(at(100));
        hearing.come_back().await;
        assert!(hearing.doubts(at(99), at(101)), "it lay in the queue meanwhile");
        assert!(!hearing.doubts(at(100), at(101)));
    }
}
