//! Reads, judges, reads again, mends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::ids::HostName;
use nova_db::{Store, StoreError};

use super::mend::mend;
use super::{Bounds, Facts, HostFacts, Hosts, Repair, Violation, examine, read_store, standing};

/// How to check.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// How the rules measure.
    pub bounds: Bounds,
    /// How long to wait between two readings.
    pub pause: Duration,
    /// How often to read at most, while what is found keeps changing; at least 2.
    pub readings: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { bounds: Bounds::default(), pause: Duration::from_secs(1), readings: 4 }
    }
}

/// Checks a cloud.
#[derive(Clone)]
pub struct Checker {
    /// The records.
    pub store: Arc<dyn Store>,
    /// The hosts.
    pub hosts: Arc<dyn Hosts>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How.
    pub options: CheckOptions,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What stands, by invariant.
    pub violations: Vec<Violation>,
    /// Hosts that did not answer, and why: nothing is known of their guests.
    pub unreached: Vec<(HostName, String)>,
    /// How many instances, deleted ones included, were looked at.
    pub instances: usize,
    /// How many guests were.
    pub guests: usize,
}

impl Report {
    /// Everything that can be mended, each once, in order.
    pub fn repairs(&self) -> BTreeSet<Repair> {
        self.violations.iter().filter_map(|violation| violation.repair.clone()).collect()
    }
}

/// A repair that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What was to be done.
    pub repair: Repair,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; what was changed, where there is more to tell.
    Done(Vec<String>),
    /// Not done: things have moved on, and may be well now.
    Overtaken,
    /// Not done.
    Failed(String),
}

/// Repairs that make others possible (a failed instance can be counted) need another round.
const ROUNDS: usize = 4;

impl Checker {
    /// Finds what is wrong; changes nothing.
    ///
    /// # Errors
    /// The store does not answer, or a row can't be read.
    pub async fn check(&self) -> Result<Report, StoreError> {
        let mut facts = self.read().await?;
        let mut before = examine(&facts);
        let mut stands: Vec<Violation> = Vec::new();
        for _ in 1..self.options.readings.max(2) {
            // What was there twice is known; only what moves is worth another reading.
            if before.iter().all(|violation| stands.contains(violation)) {
                break;
            }
            tokio::time::sleep(self.options.pause).await;
            facts = self.read().await?;
            let now = examine(&facts);
            // What stood earlier and is gone now was mended meanwhile.
            stands = standing(&before, &now);
            before = now;
        }
        Ok(report(&facts, stands))
    }

    /// Finds what is wrong and mends what has one right answer, until nothing more can be mended. Returns what was
    /// tried, and what is wrong afterwards.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub async fn repair(&self) -> Result<(Vec<Mended>, Report), StoreError> {
        let mut tried = Vec::new();
        let mut report = self.check().await?;
        for _ in 0..ROUNDS {
            let repairs = report.repairs();
            if repairs.is_empty() {
                break;
            }
            let mut done = 0;
            for repair in repairs {
                let outcome = mend(self, &repair).await;
                done += usize::from(matches!(outcome, Outcome::Done(_)));
                tried.push(Mended { repair, outcome });
            }
            report = self.check().await?;
            if done == 0 {
                break;
            }
        }
        Ok((tried, report))
    }

    /// One reading of everything.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub async fn read(&self) -> Result<Facts, StoreError> {
        let store = read_store(&*self.store).await?;
        let hosts = self.hosts.read().await;
        Ok(Facts { now: self.clock.now(), bounds: self.options.bounds, store, hosts })
    }
}

fn report(facts: &Facts, violations: Vec<Violation>) -> Report {
    let problem = |host: &HostFacts| Some((host.host.clone(), host.problem.clone()?));
    let mut unreached: Vec<_> = facts.hosts.iter().filter_map(problem).collect();
    let tried: BTreeSet<_> = facts.hosts.iter().map(|host| &host.host).collect();
    let elsewhere: BTreeSet<_> = facts.store.nodes.iter().map(|node| &node.host).collect();
    unreached.extend(elsewhere.difference(&tried).map(|host| ((*host).clone(), "it is another machine".to_owned())));
    Report {
        violations,
        unreached,
        instances: facts.store.instances.len(),
        guests: facts.hosts.iter().map(|host| host.guests.len()).sum(),
    }
}
