use super::Filter;
use crate::{HostBlock, HostView, Request};

/// Passes hosts whose service is enabled and alive.
#[derive(Debug, Clone, Copy, Default)]
pub struct ComputeFilter;

impl Filter for ComputeFilter {
    fn name(&self) -> &str {
        "ComputeFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, _request: &Request) -> bool {
        host.is_up() && host.is_enabled()
    }

    fn block_passes(&self, block: &HostBlock<'_>, _request: &Request, candidates: u64) -> u64 {
        candidates & block.up() & block.enabled()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;

    #[test]
    fn down_and_disabled_hosts_are_left_out() {
        let mut table = three();
        table.set_up("host-0", false).unwrap();
        table.set_enabled("host-2", false, None).unwrap();
        assert_eq!(passing(&ComputeFilter, &table, &request()), [1]);
    }
}
