use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostTable, HostView, Request};

/// More operations under way are better; by default they count against a host.
#[derive(Debug, Clone)]
pub struct IoOpsWeigher {
    multiplier: f64,
}

impl IoOpsWeigher {
    /// With `io_ops_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.io_ops_weight_multiplier }
    }
}

impl Weigher for IoOpsWeigher {
    fn name(&self) -> &str {
        "IoOpsWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("io_ops_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        f64::from(host.io_ops())
    }

    fn least(&self) -> Option<f64> {
        Some(0.0)
    }

    fn is_level(&self, table: &HostTable, _request: &Request) -> bool {
        !table.has_io_ops()
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        weights.iter_mut().zip(block.io_ops()).for_each(|(weight, number)| *weight = f64::from(*number));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn operations_count() {
        let mut table = fixtures::table(2, 1);
        let weigher = IoOpsWeigher::new(&FilterOptions::default());
        let request = Request::new([1].into());
        assert!(weigher.is_level(&table, &request));
        assert_eq!(weights(&weigher, &table, &request), [0.0, 0.0]);
        table.set_stats("host-1", crate::HostStats { io_ops: 4, ..Default::default() }).unwrap();
        assert!(!weigher.is_level(&table, &request));
        assert_eq!(weights(&weigher, &table, &request), [0.0, 4.0]);
        table.remove_host("host-1");
        assert!(weigher.is_level(&table, &request));
    }
}
