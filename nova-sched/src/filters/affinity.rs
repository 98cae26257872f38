use super::{Filter, Reads};
use crate::{HostView, Request};

fn holds_any(host: &HostView<'_>, instances: &[u128]) -> bool {
    instances.iter().any(|instance| host.holds(*instance))
}

fn unless_empty(instances: &[u128]) -> Reads {
    if instances.is_empty() { Reads::Nothing } else { Reads::Host }
}

/// The hint `same_host`: passes hosts that have one of the instances.
#[derive(Debug, Clone, Copy, Default)]
pub struct SameHostFilter;

impl Filter for SameHostFilter {
    fn name(&self) -> &str {
        "SameHostFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        request.hints.same_host.is_empty() || holds_any(host, &request.hints.same_host)
    }

    fn reads(&self, request: &Request) -> Reads {
        unless_empty(&request.hints.same_host)
    }
}

/// The hint `different_host`: passes hosts that have none of the instances.
#[derive(Debug, Clone, Copy, Default)]
pub struct DifferentHostFilter;

impl Filter for DifferentHostFilter {
    fn name(&self) -> &str {
        "DifferentHostFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        !holds_any(host, &request.hints.different_host)
    }

    fn reads(&self, request: &Request) -> Reads {
        unless_empty(&request.hints.different_host)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;

    #[test]
    fn near_to_some_and_away_from_others() {
        let mut table = three();
        for (number, instance) in [1, 2, 3].into_iter().enumerate() {
            table.allocate(&format!("host-{number}"), instance, &[1, 0, 0].into()).unwrap();
        }
        let mut request = request();
        assert_eq!(passing(&SameHostFilter, &table, &request), [0, 1, 2]);
        assert_eq!(passing(&DifferentHostFilter, &table, &request), [0, 1, 2]);
        request.hints.same_host = vec![1, 3, 99];
        request.hints.different_host = vec![3, 99];
        assert_eq!(passing(&SameHostFilter, &table, &request), [0, 2]);
        assert_eq!(passing(&DifferentHostFilter, &table, &request), [0, 1]);
        request.hints.same_host = vec![99];
        assert!(passing(&SameHostFilter, &table, &request).is_empty());
    }
}
