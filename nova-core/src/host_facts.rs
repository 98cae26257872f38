//! What a host can do, and how busy it is: what schedulers choose by besides room.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::topology::HostCell;

/// What seldom changes of a host. Part of its node's report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What it can do, under the names of `os-traits`, and `CUSTOM_…` where an operator says so.
    #[serde(default)]
    pub traits: BTreeSet<String>,
    /// Its NUMA cells; none when the driver does not tell.
    #[serde(default)]
    pub cells: Vec<HostCell>,
    /// Its guests see its own processor, so that those that run can go on only where the processor can do as much.
    #[serde(default)]
    pub guests_see_cpu: bool,
}

/// What often changes of a host. It comes with heartbeats, when it has changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStats {
    /// Builds and other work on the host that load its disk and network (nova/compute/stats.py, `io_workload`).
    #[serde(default)]
    pub io_ops: u32,
    /// Builds that have failed since one succeeded.
    #[serde(default)]
    pub failed_builds: u32,
    /// What the monitors say, by Nova's names (`cpu.percent`); percentages are from 0 to 100.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Processes that run or wait for the disk, in thousandths per processor; 0 where no monitor tells.
    #[serde(default)]
    pub load: u64,
}

/// The longest name of a trait that Placement takes.
const LONGEST_TRAIT: usize = 255;

/// Can that be the name of a trait? Upper case letters, digits and underscores.
pub fn is_trait_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= LONGEST_TRAIT && name.chars().all(allowed)
}

/// Can that be the name of a trait that an operator makes up?
pub fn is_custom_trait(name: &str) -> bool {
    name.strip_prefix("CUSTOM_").is_some_and(|rest| !rest.is_empty()) && is_trait_name(name)
}

/// Time that the processors of a host spent since it started, in nanoseconds summed over all of them, and what else says
/// how busy it is. What drivers read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// In programs.
    pub user_ns: u64,
    /// In the kernel.
    pub kernel_ns: u64,
    /// Doing nothing.
    pub idle_ns: u64,
    /// Doing nothing, with a disk to wait for.
    pub iowait_ns: u64,
    /// How fast they run now.
    pub frequency_mhz: u64,
    /// Processes that run or wait for the disk, the mean of a minute, in thousandths.
    pub load_average_milli: u64,
}

impl CpuTimes {
    /// The metrics of Nova's monitor `cpu.virt_driver`: times since the start, and shares of the time since `before`.
    pub fn metrics(&self, before: &Self) -> BTreeMap<String, f64> {
        let since = |of: fn(&Self) -> u64| of(self).saturating_sub(of(before));
        let [user, kernel] = [since(|t| t.user_ns), since(|t| t.kernel_ns)];
        let [idle, iowait] = [since(|t| t.idle_ns), since(|t| t.iowait_ns)];
        let total = user + kernel + idle + iowait;
        // Whole numbers, as Nova's: a figure that moves in the last digit is no news.
        let percent = |part: u64| (u128::from(part) * 100).checked_div(u128::from(total)).unwrap_or(0) as f64;
        let figures = [
            ("cpu.frequency", self.frequency_mhz as f64),
            ("cpu.user.time", self.user_ns as f64),
            ("cpu.kernel.time", self.kernel_ns as f64),
            ("cpu.idle.time", self.idle_ns as f64),
            ("cpu.iowait.time", self.iowait_ns as f64),
            ("cpu.user.percent", percent(user)),
            ("cpu.kernel.percent", percent(kernel)),
            ("cpu.idle.percent", percent(idle)),
            ("cpu.iowait.percent", percent(iowait)),
            ("cpu.percent", percent(user + kernel + iowait)),
        ];
        figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traits_are_checked() {
        for (name, known, custom) in [
            ("HW_CPU_X86_AVX2", true, false),
            ("CUSTOM_FAST", true, true),
            ("CUSTOM_", true, false),
            ("custom_fast", false, false),
            ("CUSTOM-FAST", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_trait_name(name), is_custom_trait(name)), (known, custom), "{name}");
        }
        assert!(!is_trait_name(&"A".repeat(256)));
    }

    #[test]
    fn percentages_are_of_the_time_between_two_readings() {
        let before = CpuTimes { user_ns: 1_000, idle_ns: 9_000, ..CpuTimes::default() };
        let now = CpuTimes { user_ns: 1_300, kernel_ns: 100, idle_ns: 9_500, iowait_ns: 100, ..before };
        let metrics = now.metrics(&before);
        let of = |name: &str| metrics[name];
        assert_eq!((of("cpu.user.percent"), of("cpu.kernel.percent"), of("cpu.idle.percent")), (30.0, 10.0, 50.0));
        assert_eq!((of("cpu.iowait.percent"), of("cpu.percent"), of("cpu.user.time")), (10.0, 50.0, 1_300.0));
        assert_eq!(before.metrics(&before)["cpu.percent"], 0.0, "no time has passed");
        assert_eq!(before.metrics(&CpuTimes::default())["cpu.percent"], 10.0, "since the start");
    }
}
