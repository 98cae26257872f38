use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostView, Request};

/// More free disk is better: what is neither reserved nor handed out, ratios aside.
#[derive(Debug, Clone)]
pub struct DiskWeigher {
    multiplier: f64,
}

impl DiskWeigher {
    /// With `disk_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.disk_weight_multiplier }
    }
}

impl Weigher for DiskWeigher {
    fn name(&self) -> &str {
        "DiskWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("disk_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        host.dimension("disk_gb").map_or(0.0, |index| host.unused(index) as f64)
    }

    fn least(&self) -> Option<f64> {
        Some(0.0)
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        match block.dimension("disk_gb") {
            Some(index) => block.unused(index, weights),
            None => weights.fill(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn free_disk_counts() {
        let mut table = fixtures::table(2, 1);
        table.allocate("host-0", 1, &[0, 0, 300].into()).unwrap();
        let weigher = DiskWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&weigher, &table, &Request::new([1].into())), [700.0, 1_000.0]);
    }
}
