//! What is known of a host beside its columns.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::Row;
use super::topology::Held;

/// A host, in one line of the processor's cache: what an answer and a booking read. The rest is elsewhere.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Cold {
    pub(crate) name: Arc<str>,
    pub(crate) consumers: Vec<u128>,
    pub(crate) reported_load: u64,
    /// The time of the last heartbeat, and 1.
    heartbeat: Option<NonZeroU64>,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Option<Cold>>() == 64, "a host takes more than a line");

/// What few hosts have, or few decisions ask for.
#[derive(Clone, Default)]
pub(crate) struct Rare {
    /// If it isn't called as the host is.
    pub(crate) node: Option<Arc<str>>,
    pub(crate) disabled_reason: Option<Box<str>>,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) ip: Option<IpAddr>,
    /// What guests hold of its cells and devices.
    pub(crate) topology: Option<Box<Held>>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        let Self { node, disabled_reason, metrics, ip, topology } = self;
        node.is_none() && disabled_reason.is_none() && metrics.is_empty() && ip.is_none() && topology.is_none()
    }
}

impl Cold {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, consumers: Vec::new(), reported_load: 0, heartbeat: None, rare: None }
    }

    pub(crate) fn node(&self) -> &Arc<str> {
        self.rare().and_then(|rare| rare.node.as_ref()).unwrap_or(&self.name)
    }

    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(super) fn topology(&self) -> Option<&Held> {
        self.rare()?.topology.as_deref()
    }

    /// Changes what is rare; it takes no place when nothing is left of it.
    pub(super) fn change_rare<T>(&mut self, change: impl FnOnce(&mut Rare) -> T) -> T {
        let rare = self.rare.get_or_insert_default();
        let answer = change(rare);
        if rare.is_empty() {
            self.rare = None;
        }
        answer
    }

    pub(crate) fn last_heartbeat_ms(&self) -> Option<u64> {
        self.heartbeat.map(|heartbeat| heartbeat.get() - 1)
    }

    pub(super) fn set_last_heartbeat_ms(&mut self, time: Option<u64>) {
        self.heartbeat = time.and_then(|time| NonZeroU64::new(time.saturating_add(1)));
    }
}

/// The host of the last answer, which most often is the next to be booked: under the very name in the answer, so that it
/// need not be looked up.
#[derive(Default)]
pub(crate) struct Recent(AtomicU32);

impl Recent {
    #[inline]
    pub(crate) fn set(&self, row: Row) {
        self.0.store(row, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> Row {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Recent {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_comes_and_goes() {
        let mut cold = Cold::new("a".into());
        assert_eq!((&**cold.node(), cold.last_heartbeat_ms()), ("a", None));
        cold.change_rare(|rare| rare.node = Some("b".into()));
        assert_eq!(&**cold.node(), "b");
        cold.change_rare(|rare| rare.node = None);
        assert!(cold.rare().is_none());
        for time in [0, 7, u64::MAX - 1] {
            cold.set_last_heartbeat_ms(Some(time));
            assert_eq!(cold.last_heartbeat_ms(), Some(time));
        }
    }
}
