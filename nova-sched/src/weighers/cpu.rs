use super::Weigher;
use crate::filter_scheduler::{FilterOptions, floats};
use crate::table::BLOCK;
use crate::{HostBlock, HostView, Request};

/// More free cores are better, by the ratio by which they may be handed out.
#[derive(Debug, Clone)]
pub struct CPUWeigher {
    multiplier: f64,
}

impl CPUWeigher {
    /// With `cpu_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.cpu_weight_multiplier }
    }
}

impl Weigher for CPUWeigher {
    fn name(&self) -> &str {
        "CPUWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("cpu_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        host.dimension("vcpus").map_or(0.0, |index| host.capacity(index) as f64 - host.used(index) as f64)
    }

    fn least(&self) -> Option<f64> {
        Some(0.0)
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        match block.dimension("vcpus").and_then(|index| block.free(index)) {
            Some(free) => floats(free, 0, weights),
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
    fn free_cores_count_with_the_ratio() {
        let mut table = fixtures::table(2, 1);
        let mut host = fixtures::host(1, 1);
        host.ratio = crate::Ratios::from([4.0]);
        table.upsert_host(host).unwrap();
        table.allocate("host-0", 1, &[10, 0, 0].into()).unwrap();
        table.allocate("host-1", 2, &[10, 0, 0].into()).unwrap();
        let weigher = CPUWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&weigher, &table, &Request::new([1].into())), [6.0, 54.0]);
    }
}
