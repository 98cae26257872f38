use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostTable, HostView, Request};

/// Hosts whose last builds failed come last.
#[derive(Debug, Clone)]
pub struct BuildFailureWeigher {
    multiplier: f64,
}

impl BuildFailureWeigher {
    /// With `build_failure_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: -options.build_failure_weight_multiplier }
    }
}

impl Weigher for BuildFailureWeigher {
    fn name(&self) -> &str {
        "BuildFailureWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("build_failure_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        f64::from(host.failed_builds())
    }

    fn aggregate_sign(&self) -> f64 {
        -1.0
    }

    fn is_level(&self, table: &HostTable, _request: &Request) -> bool {
        !table.has_failed_builds()
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        weights.iter_mut().zip(block.failed_builds()).for_each(|(weight, number)| *weight = f64::from(*number));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn failures_count_against_a_host() {
        let mut table = fixtures::table(2, 1);
        table.set_stats("host-1", crate::HostStats { failed_builds: 2, ..Default::default() }).unwrap();
        let weigher = BuildFailureWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&weigher, &table, &Request::new([1].into())), [0.0, 2.0]);
        assert_eq!(weigher.multiplier(), -1_000_000.0);
    }
}
