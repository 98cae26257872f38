use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{HostTable, HostView, Request};

/// Newer hypervisors are better.
#[derive(Debug, Clone)]
pub struct HypervisorVersionWeigher {
    multiplier: f64,
}

impl HypervisorVersionWeigher {
    /// With `hypervisor_version_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.hypervisor_version_weight_multiplier }
    }
}

impl Weigher for HypervisorVersionWeigher {
    fn name(&self) -> &str {
        "HypervisorVersionWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("hypervisor_version_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        host.attributes().hypervisor_version as f64
    }

    fn is_level(&self, table: &HostTable, _request: &Request) -> bool {
        let mut versions = table.kinds().map(|kind| kind.hypervisor_version);
        versions.next().is_none_or(|first| versions.all(|version| version == first))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn newer_is_better() {
        let mut table = fixtures::table(2, 1);
        let request = Request::new([1].into());
        let weigher = HypervisorVersionWeigher::new(&FilterOptions::default());
        assert!(weigher.is_level(&table, &request));
        let mut host = fixtures::host(1, 1);
        host.attributes = crate::HostAttributes { hypervisor_version: 7_002_022, ..Default::default() }.into();
        table.upsert_host(host).unwrap();
        assert_eq!(weights(&weigher, &table, &request), [0.0, 7_002_022.0]);
        table.remove_host("host-0");
        assert!(weigher.is_level(&table, &request));
    }
}
