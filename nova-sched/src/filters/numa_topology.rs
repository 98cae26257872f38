use super::{Filter, Reads};
use crate::{HostBlock, HostView, Request};

/// Passes hosts whose NUMA cells take those of the guest: CPUs, pinned ones, memory, huge pages. What guests hold is
/// counted by [`HostTable::claim_topology`](crate::HostTable::claim_topology).
#[derive(Debug, Clone, Copy, Default)]
pub struct NUMATopologyFilter;

impl Filter for NUMATopologyFilter {
    fn name(&self) -> &str {
        "NUMATopologyFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        request.numa.is_empty() || host.topology_fits(&request.numa, &[])
    }

    fn reads(&self, request: &Request) -> Reads {
        if request.numa.is_empty() { Reads::Nothing } else { Reads::Host }
    }

    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        block.keep(block.with_cells(candidates), |host| self.host_passes(host, request))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::{CpuPolicy, GuestCell, HostAttributes, NumaCell, fixtures};

    #[test]
    fn cells_must_take_the_guests() {
        let mut table = three();
        let cell = |id, dedicated_cpus| NumaCell {
            id,
            dedicated_cpus,
            threads_per_core: 2,
            memory_mb: 8_192,
            huge_pages: vec![(2_048, 1_024)],
            ..NumaCell::default()
        };
        for (number, cells) in [vec![cell(0, 8)], vec![cell(0, 4), cell(1, 4)]].into_iter().enumerate() {
            let mut host = fixtures::host(number, 1);
            host.attributes = HostAttributes { numa: cells, ..HostAttributes::default() }.into();
            table.upsert_host(host).unwrap();
        }
        let guest = |cpus, memory_mb, page_kb| GuestCell { cpus, memory_mb, cpu_policy: CpuPolicy::Dedicated, page_kb };
        for (cells, expected) in [
            (vec![], vec![0, 1, 2]),
            (vec![guest(6, 1_024, None)], vec![0]),
            (vec![guest(4, 1_024, None)], vec![0, 1]),
            (vec![guest(4, 1_024, None), guest(4, 1_024, None)], vec![1]),
            (vec![guest(2, 2_048, Some(2_048))], vec![0, 1]),
            (vec![guest(2, 2_050, Some(2_048))], vec![]),
            (vec![guest(2, 64, Some(1_048_576))], vec![]),
            (vec![GuestCell { cpu_policy: CpuPolicy::Isolate, ..guest(3, 64, None) }], vec![0]),
        ] {
            let mut request = request();
            request.numa = cells;
            assert_eq!(passing(&NUMATopologyFilter, &table, &request), expected, "{:?}", request.numa);
        }
    }
}
