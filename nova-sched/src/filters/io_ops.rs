use super::{Filter, least_of};
use crate::{HostBlock, HostView, Request};

/// Passes hosts with fewer builds, resizes and the like under way than `max_io_ops_per_host`, which aggregates may set
/// for their hosts.
#[derive(Debug, Clone, Copy)]
pub struct IoOpsFilter {
    most: u32,
    per_aggregate: bool,
}

impl IoOpsFilter {
    /// The same bound for all.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, per_aggregate: false }
    }

    /// With the metadata `max_io_ops_per_host` of aggregates before the bound for all.
    #[must_use]
    pub fn per_aggregate(most: u32) -> Self {
        Self { most, per_aggregate: true }
    }
}

impl Filter for IoOpsFilter {
    fn name(&self) -> &str {
        if self.per_aggregate { "AggregateIoOpsFilter" } else { "IoOpsFilter" }
    }

    fn host_passes(&self, host: &HostView<'_>, _request: &Request) -> bool {
        let most = f64::from(self.most);
        let most = if self.per_aggregate { least_of(host, "max_io_ops_per_host", most) } else { most };
        f64::from(host.io_ops()) < most
    }

    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        if self.per_aggregate && block.any_in_aggregates() {
            return block.keep(candidates, |host| self.host_passes(host, request));
        }
        candidates & block.below(block.io_ops(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;
    use crate::HostStats;

    #[test]
    fn busy_hosts_are_left_out() {
        let mut table = three();
        for (number, io_ops) in [7, 8, 9].into_iter().enumerate() {
            table.set_stats(&format!("host-{number}"), HostStats { io_ops, ..HostStats::default() }).unwrap();
        }
        assert_eq!(passing(&IoOpsFilter::new(8), &table, &request()), [0]);
        assert_eq!(passing(&IoOpsFilter::per_aggregate(9), &table, &request()), [0, 1]);
        aggregate_of_first(&mut table, &[("max_io_ops_per_host", "7")]);
        assert_eq!(passing(&IoOpsFilter::per_aggregate(9), &table, &request()), [1]);
        assert_eq!(passing(&IoOpsFilter::new(9), &table, &request()), [0, 1]);
        aggregate_of_first(&mut table, &[("max_io_ops_per_host", "many")]);
        assert_eq!(passing(&IoOpsFilter::per_aggregate(9), &table, &request()), [0, 1]);
    }
}
