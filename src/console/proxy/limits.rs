//! How much one client may ask of a proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a message costs besides its bytes.
const PER_MESSAGE: u64 = 64;
/// Addresses whose failures are remembered.
const MOST_ADDRESSES: usize = 10_000;
/// Failures are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// A client's allowance: it fills at a steady rate up to a second's worth.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: u64,
    left: f64,
    as_of: Instant,
}

impl Allowance {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), left: rate.max(1) as f64, as_of: now }
    }

    /// Takes a message's cost out of it, and says how long whoever takes it has to wait.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let rate = self.rate as f64;
        let filled = now.saturating_duration_since(self.as_of).as_secs_f64() * rate;
        self.left = (self.left + filled).min(rate) - (bytes as u64).saturating_add(PER_MESSAGE) as f64;
        self.as_of = now;
        if self.left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((-self.left / rate).min(3600.0)) }
    }
}

/// How often addresses have failed lately.
#[derive(Debug)]
pub(super) struct Failures {
    most: u32,
    counts: Mutex<BTreeMap<IpAddr, (u32, Instant)>>,
}

impl Failures {
    pub(super) fn new(most: u32) -> Self {
        Self { most, counts: Mutex::default() }
    }

    /// May that address try?
    pub(super) fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&address).is_none_or(|(count, since)| *count < self.most || now.duration_since(*since) >= WINDOW)
    }

    /// It showed what is worth nothing.
    pub(super) fn add(&self, address: IpAddr, now: Instant) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST_ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
            // Still too many: whoever has failed longest ago is forgotten.
            while counts.len() >= MOST_ADDRESSES {
                let Some(oldest) = counts.iter().min_by_key(|(_, (_, since))| *since).map(|(one, _)| *one) else {
                    break;
                };
                counts.remove(&oldest);
            }
        }
        let entry = counts.entry(address).or_insert((0, now));
        if now.duration_since(entry.1) >= WINDOW {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_second_of_its_rate_and_fills_again() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1000, start);
        assert_eq!(allowance.take(936, start), Duration::ZERO);
        assert_eq!(allowance.take(436, start), Duration::from_millis(500));
        assert_eq!(allowance.take(0, start + Duration::from_secs(60)), Duration::ZERO);
        assert_eq!(allowance.take(usize::MAX, start + Duration::from_secs(60)), Duration::from_secs(3600));
    }

    #[test]
    fn who_fails_too_often_waits_a_minute() {
        let (failures, start) = (Failures::new(2), Instant::now());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        failures.add(one, start);
        assert!(failures.may_try(one, start));
        failures.add(one, start);
        assert!(!failures.may_try(one, start) && failures.may_try(other, start));
        assert!(failures.may_try(one, start + WINDOW));
        failures.add(one, start + WINDOW);
        assert!(failures.may_try(one, start + WINDOW));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (failures, start) = (Failures::new(1), Instant::now());
        for n in 0..u32::try_from(MOST_ADDRESSES).unwrap() + 50 {
            failures.add(IpAddr::from(n.to_be_bytes()), start + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(failures.counts.lock().unwrap().len(), MOST_ADDRESSES);
    }
}
