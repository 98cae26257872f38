use super::{Filter, Reads};
use crate::{HostView, Request};

/// Hosts of aggregates with the metadata `filter_tenant_id` (or any key that begins so) are for the projects named
/// there; others are for all.
#[derive(Debug, Clone, Copy, Default)]
pub struct AggregateMultiTenancyIsolation;

impl Filter for AggregateMultiTenancyIsolation {
    fn name(&self) -> &str {
        "AggregateMultiTenancyIsolation"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let metadata = host.aggregate_metadata();
        let mut lists = (metadata.range("filter_tenant_id".to_owned()..))
            .take_while(|(key, _)| key.starts_with("filter_tenant_id"))
            .peekable();
        lists.peek().is_none()
            || request.project_id.as_ref().is_some_and(|project| lists.any(|(_, names)| names.contains(project)))
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
    fn hosts_are_kept_for_their_projects() {
        let mut table = three();
        let filter = AggregateMultiTenancyIsolation;
        let mut request = request();
        request.project_id = Some("mine".to_owned());
        assert_eq!(passing(&filter, &table, &request), [0, 1, 2]);
        aggregate_of_first(&mut table, &[("filter_tenant_id", "yours, theirs"), ("filter_tenant_id2", "mine")]);
        assert_eq!(passing(&filter, &table, &request), [0, 1, 2]);
        request.project_id = Some("other".to_owned());
        assert_eq!(passing(&filter, &table, &request), [1, 2]);
        request.project_id = None;
        assert_eq!(passing(&filter, &table, &request), [1, 2]);
    }
}
