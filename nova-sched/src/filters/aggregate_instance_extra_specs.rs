use super::extra_specs_ops::matches;
use super::{Filter, Reads};
use crate::{HostView, Request};

/// Holds the flavor's extra specs, those with the scope `aggregate_instance_extra_specs:` or none, against the metadata
/// of the host's aggregates.
#[derive(Debug, Clone, Copy, Default)]
pub struct AggregateInstanceExtraSpecsFilter;

fn asked(request: &Request) -> impl Iterator<Item = (&str, &str)> {
    request.extra_specs.iter().filter_map(|(key, requirement)| match key.split_once(':') {
        Some(("aggregate_instance_extra_specs", rest)) => Some((rest, requirement.as_str())),
        Some(_) => None,
        None => Some((key.as_str(), requirement.as_str())),
    })
}

impl Filter for AggregateInstanceExtraSpecsFilter {
    fn name(&self) -> &str {
        "AggregateInstanceExtraSpecsFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let metadata = host.aggregate_metadata();
        asked(request).all(|(key, requirement)| {
            metadata.get(key).is_some_and(|values| values.iter().any(|value| matches(value, requirement)))
        })
    }

    fn reads(&self, request: &Request) -> Reads {
        if asked(request).next().is_none() { Reads::Nothing } else { Reads::Aggregates }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;

    #[test]
    fn metadata_of_aggregates_must_match() {
        let mut table = three();
        aggregate_of_first(&mut table, &[("disk", "ssd, nvme"), ("speed", "10")]);
        for (key, value, expected) in [
            ("aggregate_instance_extra_specs:disk", "nvme", vec![0]),
            ("disk", "<or> hdd <or> ssd", vec![0]),
            ("disk", "hdd", vec![]),
            ("aggregate_instance_extra_specs:speed", ">= 5", vec![0]),
            ("hw:cpu_policy", "dedicated", vec![0, 1, 2]),
        ] {
            let mut request = request();
            request.extra_specs.insert(key.to_owned(), value.to_owned());
            assert_eq!(passing(&AggregateInstanceExtraSpecsFilter, &table, &request), expected, "{key} {value}");
        }
    }
}
