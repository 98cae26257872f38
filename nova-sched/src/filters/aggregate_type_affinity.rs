use super::{Filter, Reads};
use crate::{HostView, Request};

/// Hosts of aggregates with the metadata `instance_type` are for the flavors named there; others are for all.
#[derive(Debug, Clone, Copy, Default)]
pub struct AggregateTypeAffinityFilter;

impl Filter for AggregateTypeAffinityFilter {
    fn name(&self) -> &str {
        "AggregateTypeAffinityFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        host.aggregate_metadata()
            .get("instance_type")
            .is_none_or(|flavors| request.flavor.as_ref().is_some_and(|flavor| flavors.contains(flavor)))
    }

    fn reads(&self, _request: &Request) -> Reads {
        Reads::Aggregates
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;

    #[test]
    fn hosts_are_kept_for_their_flavors() {
        let mut table = three();
        aggregate_of_first(&mut table, &[("instance_type", "m1.large, m1.huge")]);
        let mut request = request();
        assert_eq!(passing(&AggregateTypeAffinityFilter, &table, &request), [1, 2]);
        request.flavor = Some("m1.huge".to_owned());
        assert_eq!(passing(&AggregateTypeAffinityFilter, &table, &request), [0, 1, 2]);
        request.flavor = Some("m1.tiny".to_owned());
        assert_eq!(passing(&AggregateTypeAffinityFilter, &table, &request), [1, 2]);
    }
}
