use super::{Filter, Reads, least_of};
use crate::{HostView, Request};

/// Bounds how often a resource is handed out on the hosts of an aggregate: `cpu_allocation_ratio`,
/// `ram_allocation_ratio`, `disk_allocation_ratio` in its metadata. The host's own ratio holds beside it: the table never
/// books beyond that.
#[derive(Debug, Clone, Copy)]
pub struct ResourceFilter {
    name: &'static str,
    dimension: &'static str,
    key: &'static str,
}

impl ResourceFilter {
    /// `AggregateCoreFilter`, for the dimension `vcpus`.
    #[must_use]
    pub fn cores() -> Self {
        Self { name: "AggregateCoreFilter", dimension: "vcpus", key: "cpu_allocation_ratio" }
    }

    /// `AggregateRamFilter`, for the dimension `memory_mb`.
    #[must_use]
    pub fn ram() -> Self {
        Self { name: "AggregateRamFilter", dimension: "memory_mb", key: "ram_allocation_ratio" }
    }

    /// `AggregateDiskFilter`, for the dimension `disk_gb`.
    #[must_use]
    pub fn disk() -> Self {
        Self { name: "AggregateDiskFilter", dimension: "disk_gb", key: "disk_allocation_ratio" }
    }
}

impl Filter for ResourceFilter {
    fn name(&self) -> &str {
        self.name
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let Some(index) = host.table().dimensions().index(self.dimension) else { return true };
        let ratio = least_of(host, self.key, f64::INFINITY);
        if ratio == f64::INFINITY || request.resources.get(index) == 0 {
            return true;
        }
        let wanted = host.used(index).saturating_add(request.resources.get(index));
        wanted as f64 <= host.total(index) as f64 * ratio
    }

    fn reads(&self, _request: &Request) -> Reads {
        Reads::Host
    }

    fn block_passes(&self, block: &crate::HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        if !block.any_in_aggregates() {
            return candidates;
        }
        block.keep(candidates, |host| self.host_passes(host, request))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;
    use crate::{Ratios, fixtures};

    #[test]
    fn an_aggregate_bounds_the_ratio() {
        let mut table = three();
        for number in 0..2 {
            let mut host = fixtures::host(number, 1);
            host.ratio = Ratios::from([4.0, 1.5, 1.0]);
            table.upsert_host(host).unwrap();
            table.allocate(&format!("host-{number}"), number as u128, &[31, 65_000, 990].into()).unwrap();
        }
        assert_eq!(passing(&ResourceFilter::cores(), &table, &request()), [0, 1, 2]);
        aggregate_of_first(&mut table, &[("cpu_allocation_ratio", "2"), ("ram_allocation_ratio", "1.0")]);
        assert_eq!(passing(&ResourceFilter::cores(), &table, &request()), [0, 1, 2]);
        assert_eq!(passing(&ResourceFilter::cores(), &table, &Request::new([2, 0, 0].into())), [1, 2]);
        assert_eq!(passing(&ResourceFilter::ram(), &table, &request()), [1, 2]);
        assert_eq!(passing(&ResourceFilter::disk(), &table, &request()), [0, 1, 2]);
    }
}
