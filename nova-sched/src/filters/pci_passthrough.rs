use super::{Filter, Reads};
use crate::{HostView, Request};

/// Passes hosts with free devices of the sorts asked for. What guests hold is counted by
/// [`HostTable::claim_topology`](crate::HostTable::claim_topology).
#[derive(Debug, Clone, Copy, Default)]
pub struct PciPassthroughFilter;

impl Filter for PciPassthroughFilter {
    fn name(&self) -> &str {
        "PciPassthroughFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        request.pci.is_empty() || host.topology_fits(&[], &request.pci)
    }

    fn reads(&self, request: &Request) -> Reads {
        if request.pci.is_empty() { Reads::Nothing } else { Reads::Host }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::{HostAttributes, PciPool, PciRequest, fixtures};

    #[test]
    fn devices_must_be_there() {
        let mut table = three();
        let pool = |product_id: &str, count| PciPool {
            vendor_id: "8086".to_owned(),
            product_id: product_id.to_owned(),
            count,
            ..PciPool::default()
        };
        for (number, pci) in [vec![pool("10ca", 2)], vec![pool("10ca", 1), pool("1520", 4)]].into_iter().enumerate() {
            let mut host = fixtures::host(number, 1);
            host.attributes = HostAttributes { pci, ..HostAttributes::default() }.into();
            table.upsert_host(host).unwrap();
        }
        let ask = |count, products: &[&str]| PciRequest {
            count,
            specs: products.iter().map(|id| vec![("product_id".to_owned(), (*id).to_owned())]).collect(),
        };
        for (asked, expected) in [
            (vec![], vec![0, 1, 2]),
            (vec![ask(1, &["10ca"])], vec![0, 1]),
            (vec![ask(2, &["10ca"])], vec![0]),
            (vec![ask(1, &["10ca"]), ask(1, &["1520"])], vec![1]),
            (vec![ask(1, &["10ca"]), ask(1, &["10ca"])], vec![0]),
            (vec![ask(5, &["10ca", "1520"])], vec![1]),
            (vec![ask(6, &["10ca", "1520"])], vec![]),
        ] {
            let mut request = request();
            request.pci = asked;
            assert_eq!(passing(&PciPassthroughFilter, &table, &request), expected, "{:?}", request.pci);
        }
    }
}
