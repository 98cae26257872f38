//! What a replay measured. Everything here is serialized as it stands.

use std::collections::BTreeMap;

use serde::Serialize;

/// The figures of one scheduler. Figures over time cover the measured time, from the beginning to the last request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The scheduler, as it was asked for.
    pub scheduler: String,
    /// Requests that were placed, at once or after a wait.
    pub placed_requests: u64,
    /// Their instances.
    pub placed_instances: u64,
    /// The most instances alive at once.
    pub peak_live: u64,
    /// What was turned away for good.
    pub rejections: Rejections,
    /// How long requests waited; absent when requests that don't fit are turned away at once.
    pub wait: Option<Wait>,
    /// How much of each resource was handed out.
    pub utilisation: Vec<Utilisation>,
    /// How much of what was free could not be used.
    pub fragmentation: Vec<Fragmentation>,
    /// How many hosts were in use.
    pub hosts: HostsUsed,
    /// How often the scheduler was asked.
    pub decisions: u64,
    /// The course of it, at even distances over the measured time.
    pub series: Vec<Sample>,
}

/// Requests that were turned away for good.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Rejections {
    /// How many.
    pub requests: u64,
    /// Their instances.
    pub instances: u64,
    /// Of all requests, 0 to 1.
    pub rate: f64,
    /// Requests by what was lacking: the resources that the closest host lacked (`vcpus+memory_mb`), or else the check that
    /// turned most hosts away.
    pub by_reason: BTreeMap<String, u64>,
    /// Requests by flavor.
    pub by_flavor: BTreeMap<String, u64>,
    /// The first that found no place, whether it was turned away or began to wait.
    pub first: Option<FirstRefusal>,
}

/// When the fleet was full for the first time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstRefusal {
    /// The time, in seconds.
    pub at_s: f64,
    /// What was asked for.
    pub flavor: String,
    /// How much of each resource was handed out then, 0 to 1.
    pub used: [f64; 3],
    /// The scheduler's explanation.
    pub explanation: String,
}

/// How long requests waited that found no place at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Wait {
    /// How many found no place at once.
    pub waited: u64,
    /// How many of them were placed later.
    pub placed: u64,
    /// How many gave up (they are among the rejections).
    pub gave_up: u64,
    /// How many still wait after the last departure.
    pub still_waiting: u64,
    /// Mean wait of those placed later, in seconds.
    pub mean_s: f64,
    /// Median of the same.
    pub p50_s: f64,
    /// 99th percentile of the same.
    pub p99_s: f64,
    /// The longest of the same.
    pub max_s: f64,
}

impl Wait {
    /// The figures of these waits.
    pub fn of(mut waits_ms: Vec<u64>, gave_up: u64, still_waiting: u64) -> Self {
        waits_ms.sort_unstable();
        let placed = waits_ms.len() as u64;
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        // The smallest wait that covers that share of them.
        let percentile = |percent: u64| {
            let rank = (placed * percent).div_ceil(100).max(1) - 1;
            seconds(waits_ms.get(rank as usize).copied().unwrap_or(0))
        };
        let sum: u128 = waits_ms.iter().map(|wait| u128::from(*wait)).sum();
        Self {
            waited: placed + gave_up + still_waiting,
            placed,
            gave_up,
            still_waiting,
            mean_s: if placed == 0 { 0.0 } else { sum as f64 / placed as f64 / 1_000.0 },
            p50_s: percentile(50),
            p99_s: percentile(99),
            max_s: seconds(waits_ms.last().copied().unwrap_or(0)),
        }
    }
}

/// How much of a resource was handed out, 0 to 1 of what may be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Utilisation {
    /// The resource.
    pub resource: &'static str,
    /// Over the measured time.
    pub mean: f64,
    /// The most.
    pub peak: f64,
    /// At the end.
    pub end: f64,
}

/// How much of what was free of a resource could not be used by the commonest flavor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fragmentation {
    /// The resource.
    pub resource: &'static str,
    /// Share of what was free, 0 to 1, over the samples.
    pub mean: f64,
    /// The largest such share of a sample.
    pub peak: f64,
    /// The share at the end.
    pub end: f64,
    /// At the end: how much was free on hosts that could not take one more of the flavor.
    pub stranded_at_end: u64,
}

/// How many hosts had at least one instance, beside the fewest that could have held the same instances.
///
/// The bound adds up what is handed out and fills the largest hosts with it, per resource; zones that were asked for count
/// on their own. No placement can use fewer, but it isn't certain that one of that many exists.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HostsUsed {
    /// All hosts of the fleet.
    pub all: u64,
    /// Over the measured time.
    pub mean: f64,
    /// The bound over the measured time.
    pub bound_mean: f64,
    /// The most.
    pub peak: u64,
    /// The highest that the bound got.
    pub bound_peak: u64,
    /// At the end.
    pub end: u64,
    /// The bound at the end.
    pub bound_end: u64,
}

impl HostsUsed {
    /// By how much the mean is above the mean of the bound: 0.02 is 2 % more hosts than the bound.
    pub fn over_bound(&self) -> f64 {
        if self.bound_mean > 0.0 { self.mean / self.bound_mean - 1.0 } else { 0.0 }
    }
}

/// The state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The moment, in seconds.
    pub time_s: f64,
    /// Instances alive.
    pub live: u64,
    /// Share of each resource that was handed out, 0 to 1.
    pub used: [f64; 3],
    /// Share of what was free of each resource that the commonest flavor couldn't use, 0 to 1.
    pub unusable: [f64; 3],
    /// What was free of each resource on hosts that could not take one more of the commonest flavor.
    pub stranded: [u64; 3],
    /// How many more of the commonest flavor would fit.
    pub room: u64,
    /// Hosts with at least one instance.
    pub hosts_used: u64,
    /// The fewest that could have held the same.
    pub hosts_bound: u64,
    /// Requests turned away so far.
    pub rejected: u64,
    /// Requests that wait.
    pub waiting: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_happened() {
        let wait = Wait::of((1..=200).rev().map(|seconds| seconds * 1_000).collect(), 2, 3);
        assert_eq!((wait.waited, wait.placed, wait.gave_up, wait.still_waiting), (205, 200, 2, 3));
        assert_eq!((wait.mean_s, wait.p50_s, wait.p99_s, wait.max_s), (100.5, 100.0, 198.0, 200.0));
        assert_eq!(Wait::of(Vec::new(), 0, 1), Wait { waited: 1, still_waiting: 1, ..Wait::default() });
        assert_eq!(Wait::of(vec![7_000], 0, 0).p99_s, 7.0);
    }
}
