use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostView, Request};

/// More free memory is better: what is neither reserved nor handed out, ratios aside.
#[derive(Debug, Clone)]
pub struct RAMWeigher {
    multiplier: f64,
}

impl RAMWeigher {
    /// With `ram_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.ram_weight_multiplier }
    }
}

impl Weigher for RAMWeigher {
    fn name(&self) -> &str {
        "RAMWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("ram_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        host.dimension("memory_mb").map_or(0.0, |index| host.unused(index) as f64)
    }

    fn least(&self) -> Option<f64> {
        Some(0.0)
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        match block.dimension("memory_mb") {
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
    fn free_memory_counts_without_the_ratio() {
        let mut table = fixtures::table(3, 1);
        let mut host = fixtures::host(1, 1);
        host.ratio = crate::Ratios::from([1.0, 2.0]);
        host.reserved = [0, 1_000, 0].into();
        table.upsert_host(host).unwrap();
        table.allocate("host-0", 1, &[0, 10_000, 0].into()).unwrap();
        table.allocate("host-1", 2, &[0, 70_000, 0].into()).unwrap();
        let weigher = RAMWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&weigher, &table, &Request::new([1].into())), [55_536.0, -5_464.0, 65_536.0]);
    }
}
