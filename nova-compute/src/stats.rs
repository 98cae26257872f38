//! How busy this host is and how its builds go: what heartbeats tell besides that the host lives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nova_core::error::chain;
use nova_core::host_facts::{CpuTimes, HostStats};
use nova_virt::Hypervisor;

/// Which figures of the machine are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Monitors {
    /// Where processor time goes: Nova's metrics `cpu.…`.
    pub cpu: bool,
    /// The load average.
    pub load: bool,
}

impl Monitors {
    /// Those of `compute_monitors`; names that nothing has are left out: the configuration is checked elsewhere.
    pub fn named(names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|given| given == name);
        Self { cpu: has("cpu.virt_driver"), load: has("load.virt_driver") }
    }

    fn any(self) -> bool {
        self.cpu || self.load
    }
}

#[derive(Default)]
struct State {
    now: HostStats,
    /// What the conductor has, as far as is known here.
    told: Option<HostStats>,
    spent: CpuTimes,
    /// Why the host asks to be taken out of scheduling.
    disable: Option<String>,
}

/// The host's own count. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Stats {
    state: Arc<Mutex<State>>,
}

/// A build in hand: counted until it is dropped.
pub(crate) struct Busy(Stats);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.now.io_ops = state.now.io_ops.saturating_sub(1);
    }
}

impl Stats {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work begins that loads disk and network.
    pub(crate) fn begin(&self) -> Busy {
        self.state().now.io_ops += 1;
        Busy(self.clone())
    }

    /// A build went well: those that failed before it were bad luck.
    pub(crate) fn build_succeeded(&self) {
        self.state().now.failed_builds = 0;
    }

    /// A build failed by the host's fault. At the threshold the host asks to be taken out, and counts anew for the day
    /// when an operator puts it back. With 0 nothing is counted.
    pub(crate) fn build_failed(&self, threshold: u32) {
        let mut state = self.state();
        if threshold == 0 {
            return;
        }
        state.now.failed_builds += 1;
        if state.now.failed_builds >= threshold {
            state.now.failed_builds = 0;
            state.disable = Some(format!("Auto-disabled due to {threshold} build failures"));
        }
    }

    /// Reads the machine's figures. One that cannot be read now keeps its last value.
    pub(crate) async fn measure(&self, hypervisor: &dyn Hypervisor, monitors: Monitors, cpus: u32) {
        if !monitors.any() {
            return;
        }
        let spent = match hypervisor.cpu_times().await {
            Ok(spent) => spent,
            Err(error) => return tracing::warn!("the host's load was not read: {}", chain(&error)),
        };
        let mut state = self.state();
        if monitors.cpu {
            state.now.metrics = spent.metrics(&state.spent);
        }
        if monitors.load {
            state.now.load = spent.load_average_milli / u64::from(cpus.max(1));
        }
        state.spent = spent;
    }

    /// What there is to tell: with `whole`, all of it; else what the conductor does not have.
    pub(crate) fn news(&self, whole: bool) -> (Option<HostStats>, Option<String>) {
        let state = self.state();
        let changed = whole || state.told.as_ref() != Some(&state.now);
        (changed.then(|| state.now.clone()), state.disable.clone())
    }

    /// The conductor has it.
    pub(crate) fn told(&self, stats: Option<&HostStats>, disable: Option<&String>) {
        let mut state = self.state();
        if let Some(stats) = stats {
            state.told = Some(stats.clone());
        }
        if disable.is_some() && state.disable.as_ref() == disable {
            state.disable = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_virt::{FakeHypervisor, FakeLoad, FakeOptions};

    use super::*;

    #[test]
    fn only_news_is_told() {
        let stats = Stats::default();
        let (first, _) = stats.news(false);
        assert_eq!(first, Some(HostStats::default()), "nothing was told yet");
        stats.told(first.as_ref(), None);
        assert_eq!(stats.news(false).0, None);
        assert!(stats.news(true).0.is_some());
        let busy = stats.begin();
        assert_eq!(stats.news(false).0.unwrap().io_ops, 1);
        drop(busy);
        assert_eq!(stats.news(false).0, None, "as it was told");
    }

    #[test]
    fn failed_builds_in_a_row_take_the_host_out() {
        let stats = Stats::default();
        stats.build_failed(3);
        stats.build_failed(3);
        stats.build_succeeded();
        stats.build_failed(3);
        stats.build_failed(3);
        assert_eq!((stats.news(true).0.unwrap().failed_builds, stats.news(true).1), (2, None));
        stats.build_failed(3);
        let (after, reason) = stats.news(true);
        assert_eq!(reason.as_deref(), Some("Auto-disabled due to 3 build failures"));
        assert_eq!(after.unwrap().failed_builds, 0);
        stats.told(None, reason.as_ref());
        assert_eq!(stats.news(true).1, None);
        (0..9).for_each(|_| stats.build_failed(0));
        assert_eq!(stats.news(true), (Some(HostStats::default()), None), "0 is off");
    }

    #[tokio::test]
    async fn monitors_read_what_they_are_asked_for() {
        let load = FakeLoad { cpu_percent: 70, iowait_percent: 10, load_average_milli: 3000 };
        let fake = FakeHypervisor::new(FakeOptions { load, ..FakeOptions::default() });
        let stats = Stats::default();
        stats.measure(&fake, Monitors::default(), 2).await;
        assert!(fake.journal().is_empty(), "without monitors the driver is not asked");
        stats.measure(&fake, Monitors { cpu: true, load: true }, 2).await;
        let told = stats.news(true).0.unwrap();
        assert_eq!((told.metrics["cpu.percent"], told.metrics["cpu.iowait.percent"], told.load), (80.0, 10.0, 1500));
        fake.set_load(FakeLoad::default());
        stats.measure(&fake, Monitors::named(&["cpu.virt_driver".into()]), 2).await;
        let told = stats.news(true).0.unwrap();
        assert_eq!((told.metrics["cpu.percent"], told.load), (0.0, 1500), "only since the last reading");
    }
}
