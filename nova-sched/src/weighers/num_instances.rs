use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostView, Request};

/// More instances are better; off by default, and a negative multiplier spreads.
#[derive(Debug, Clone)]
pub struct NumInstancesWeigher {
    multiplier: f64,
}

impl NumInstancesWeigher {
    /// With `num_instances_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.num_instances_weight_multiplier }
    }
}

impl Weigher for NumInstancesWeigher {
    fn name(&self) -> &str {
        "NumInstancesWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("num_instances_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        f64::from(host.instances())
    }

    fn least(&self) -> Option<f64> {
        Some(0.0)
    }

    fn weigh_block(&self, block: &HostBlock<'_>, _request: &Request, _places: u64, weights: &mut [f64; BLOCK]) {
        weights.iter_mut().zip(block.instances()).for_each(|(weight, number)| *weight = f64::from(*number));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn instances_count() {
        let mut table = fixtures::table(2, 1);
        table.allocate("host-1", 1, &[1, 0, 0].into()).unwrap();
        table.allocate("host-1", 2, &[1, 0, 0].into()).unwrap();
        let weigher = NumInstancesWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&weigher, &table, &Request::new([1].into())), [0.0, 2.0]);
    }
}
