use super::{Filter, least_of};
use crate::{HostBlock, HostView, Request};

/// Passes hosts with fewer instances than `max_instances_per_host`, which aggregates may set for their hosts.
#[derive(Debug, Clone, Copy)]
pub struct NumInstancesFilter {
    most: u32,
    per_aggregate: bool,
}

impl NumInstancesFilter {
    /// The same bound for all.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, per_aggregate: false }
    }

    /// With the metadata `max_instances_per_host` of aggregates before the bound for all.
    #[must_use]
    pub fn per_aggregate(most: u32) -> Self {
        Self { most, per_aggregate: true }
    }
}

impl Filter for NumInstancesFilter {
    fn name(&self) -> &str {
        if self.per_aggregate { "AggregateNumInstancesFilter" } else { "NumInstancesFilter" }
    }

    fn host_passes(&self, host: &HostView<'_>, _request: &Request) -> bool {
        let most = f64::from(self.most);
        let most = if self.per_aggregate { least_of(host, "max_instances_per_host", most) } else { most };
        f64::from(host.instances()) < most
    }

    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        if self.per_aggregate && block.any_in_aggregates() || block.any_placed() {
            return block.keep(candidates, |host| self.host_passes(host, request));
        }
        candidates & block.below(block.instances(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;

    #[test]
    fn crowded_hosts_are_left_out() {
        let mut table = three();
        for consumer in 0..5 {
            table.allocate(["host-0", "host-1", "host-1"][consumer % 3], consumer as u128, &[1, 0, 0].into()).unwrap();
        }
        assert_eq!(passing(&NumInstancesFilter::new(3), &table, &request()), [0, 2]);
        aggregate_of_first(&mut table, &[("max_instances_per_host", "2")]);
        assert_eq!(passing(&NumInstancesFilter::per_aggregate(4), &table, &request()), [1, 2]);
        assert_eq!(passing(&NumInstancesFilter::new(4), &table, &request()), [0, 1, 2]);
    }
}
