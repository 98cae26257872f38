use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{HostTable, HostView, Request};

/// Beyond this many it doesn't matter how many more there are.
const MAX_DEVS: u32 = 100;

/// Hosts with few free devices come first, so that those with many stay for who needs them.
#[derive(Debug, Clone)]
pub struct PCIWeigher {
    multiplier: f64,
}

impl PCIWeigher {
    /// With `pci_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.pci_weight_multiplier }
    }
}

impl Weigher for PCIWeigher {
    fn name(&self) -> &str {
        "PCIWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("pci_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        f64::from(MAX_DEVS - host.free_devices().min(MAX_DEVS - 1))
    }

    fn is_level(&self, table: &HostTable, _request: &Request) -> bool {
        table.kinds().all(|kind| kind.pci.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn hosts_with_devices_are_spared() {
        let mut table = fixtures::table(3, 1);
        let request = Request::new([1].into());
        let weigher = PCIWeigher::new(&FilterOptions::default());
        assert!(weigher.is_level(&table, &request));
        for (number, count) in [(0, 4), (2, 200)] {
            let mut host = fixtures::host(number, 1);
            let pci = vec![crate::PciPool { count, ..Default::default() }];
            host.attributes = crate::HostAttributes { pci, ..Default::default() }.into();
            table.upsert_host(host).unwrap();
        }
        assert_eq!(weights(&weigher, &table, &request), [96.0, 100.0, 1.0]);
    }
}
