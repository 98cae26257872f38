use super::{Filter, Reads};
use crate::{HostView, Request};

/// Passes all hosts.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllHostsFilter;

impl Filter for AllHostsFilter {
    fn name(&self) -> &str {
        "AllHostsFilter"
    }

    fn host_passes(&self, _host: &HostView<'_>, _request: &Request) -> bool {
        true
    }

    fn reads(&self, _request: &Request) -> Reads {
        Reads::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;

    #[test]
    fn all_pass() {
        assert_eq!(passing(&AllHostsFilter, &three(), &request()), [0, 1, 2]);
    }
}
