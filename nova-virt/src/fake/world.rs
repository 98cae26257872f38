//! What several fakes together must never do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nova_core::ids::InstanceId;
use serde::{Deserialize, Serialize};

use super::Host;

/// One instance ran on two hypervisors at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldViolation {
    /// The instance.
    pub instance: InstanceId,
    /// Where it already ran.
    pub running_on: Vec<String>,
    /// Where it was started as well.
    pub started_on: String,
}

/// A CPU of a host that two guests were promised for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuViolation {
    /// The host.
    pub host: String,
    /// The CPU.
    pub cpu: u32,
    /// The guests.
    pub instances: Vec<InstanceId>,
}

#[derive(Debug, Default)]
struct State {
    shared_cpus: Vec<CpuViolation>,
    running: BTreeMap<InstanceId, BTreeSet<String>>,
    violations: Vec<WorldViolation>,
    hosts: BTreeMap<String, Weak<Host>>,
}

/// The fakes that share a world watch each other: no instance may run on two of them at once. A handle, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FakeWorld {
    state: Arc<Mutex<State>>,
}

impl FakeWorld {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every violation so far, in the order in which they came about.
    pub fn violations(&self) -> Vec<WorldViolation> {
        self.lock().violations.clone()
    }

    /// Every dedicated CPU that two guests got, in the order in which they were made.
    pub fn cpu_violations(&self) -> Vec<CpuViolation> {
        self.lock().shared_cpus.clone()
    }

    /// From now on, guests can be sent to that host.
    pub(super) fn join(&self, name: &str, host: &Arc<Host>) {
        self.lock().hosts.insert(name.to_owned(), Arc::downgrade(host));
    }

    /// The host of that name, if its process runs.
    pub(super) fn host(&self, name: &str) -> Option<Arc<Host>> {
        self.lock().hosts.get(name).and_then(Weak::upgrade)
    }

    pub(super) fn cpu_shared(&self, violation: CpuViolation) {
        self.lock().shared_cpus.push(violation);
    }

    /// Where an instance runs now.
    pub fn running_on(&self, instance: InstanceId) -> Vec<String> {
        self.lock().running.get(&instance).map(|hosts| hosts.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn started(&self, host: &str, instance: InstanceId) {
        let mut state = self.lock();
        let hosts = state.running.entry(instance).or_default();
        let others: Vec<String> = hosts.iter().filter(|other| *other != host).cloned().collect();
        hosts.insert(host.to_owned());
        if !others.is_empty() {
            state.violations.push(WorldViolation { instance, running_on: others, started_on: host.to_owned() });
        }
    }

    pub(super) fn stopped(&self, host: &str, instance: InstanceId) {
        let mut state = self.lock();
        if let Some(hosts) = state.running.get_mut(&instance) {
            hosts.remove(host);
            if hosts.is_empty() {
                state.running.remove(&instance);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
