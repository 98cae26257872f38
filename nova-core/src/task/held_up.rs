//! A task that is to be taken back, and cannot be for now: somebody whom it asks does not answer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Until it is asked again for the first time; after each time in vain it is twice that, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(5);
/// Also what passes at most from the moment at which they answer again until it goes on.
const LONGEST: Duration = Duration::from_secs(300);
/// Characters of a reason that are kept.
const MAX_WHY: usize = 400;

/// Since when, how often it was asked in vain, and what came of it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUp {
    /// When it was asked in vain for the first time.
    pub since: Timestamp,
    /// How often so far.
    pub times: u32,
    /// What came of it last, for administrators: one line.
    pub why: String,
}

impl HeldUp {
    /// It was asked in vain, perhaps not for the first time.
    #[must_use]
    pub fn once_more(before: Option<Self>, why: &str, now: Timestamp) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        // A header carries it.
        let why = why.chars().map(|c| if c.is_ascii() { plain(c) } else { '?' }).take(MAX_WHY).collect();
        match before {
            Some(before) => Self { times: before.times.saturating_add(1), why, ..before },
            None => Self { since: now, times: 1, why },
        }
    }

    /// How long nobody asks now.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.times.saturating_sub(1));
        FIRST.saturating_mul(doubled).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_less_and_less_often_and_never_stops() {
        let now = Timestamp::UNIX_EPOCH;
        let (mut held, mut pauses) = (None, Vec::new());
        for _ in 0..100 {
            let next = HeldUp::once_more(held, "nobody\nanswers", now);
            pauses.push(next.pause().as_secs());
            held = Some(next);
        }
        assert_eq!(pauses[..8], [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pauses.last(), Some(&300));
        let held = held.unwrap();
        assert_eq!((held.since, held.times, &*held.why), (now, 100, "nobody answers"));
        assert_eq!(HeldUp::once_more(None, &"ü".repeat(9000), now).why.chars().count(), MAX_WHY);
    }
}
