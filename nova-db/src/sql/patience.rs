//! How long to go on after a failure that may pass.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Spreads callers that failed together. Real servers are behind this, so nothing depends on which number is drawn.
static DRAWN: AtomicU64 = AtomicU64::new(0);

const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(250);

/// Between half of the time and the whole of it.
fn jittered(time: Duration) -> Duration {
    let n = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The multiplication leaves its best mixed bits on top.
    let share = u32::try_from(n >> 48).unwrap_or(u32::MAX);
    time / 2 + time / 2 * share / (1 << 16)
}

/// Waits of growing length, until a time is over.
#[derive(Debug)]
pub(super) struct Patience {
    ends: Instant,
    next: Duration,
}

impl Patience {
    /// From now on.
    pub(super) fn new(whole: Duration) -> Self {
        Self { ends: Instant::now() + whole, next: SHORTEST }
    }

    /// Waits before another try. False: that was the last.
    pub(super) async fn wait(&mut self) -> bool {
        if Instant::now() >= self.ends {
            return false;
        }
        sleep(jittered(self.next)).await;
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}

/// Lets those through who were in each other's way, after a deadlock or a lost race.
pub(super) async fn step_aside(tries: usize) {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    sleep(jittered(SHORTEST * (1 << doublings))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let begun = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(5));
        let mut waits = 0;
        while patience.wait().await {
            waits += 1;
        }
        let taken = begun.elapsed();
        assert!(taken >= Duration::from_secs(5) && taken <= Duration::from_secs(5) + LONGEST, "{taken:?}");
        assert!((20..100).contains(&waits), "{waits}");
        assert!(!Patience::new(Duration::ZERO).wait().await);
    }

    #[test]
    fn jitter_spreads_and_stays_in_bounds() {
        let time = Duration::from_millis(100);
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| jittered(time)).collect();
        assert!(drawn.len() > 50);
        assert!(drawn.iter().all(|drawn| (time / 2..=time).contains(drawn)), "{drawn:?}");
    }
}
