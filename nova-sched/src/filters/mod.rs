//! Filters: which hosts take a request. Named, ordered and switched on as in Nova (`filter_scheduler.enabled_filters`).
//!
//! Before any filter, hosts must be up, enabled, in the zone asked for, not ignored, of the architecture and traits asked
//! for, and have room: what Nova leaves to Placement.

mod affinity;
mod aggregate_image_properties;
mod aggregate_instance_extra_specs;
mod aggregate_multitenancy;
mod aggregate_type_affinity;
mod all_hosts;
mod cidr_affinity;
mod compute;
mod compute_capabilities;
mod extra_specs_ops;
mod image_properties;
mod io_ops;
mod isolated_hosts;
mod json;
mod metrics;
mod num_instances;
mod numa_topology;
mod pci_passthrough;
mod resources;
mod server_group;
mod version;

pub use affinity::{DifferentHostFilter, SameHostFilter};
pub use aggregate_image_properties::AggregateImagePropertiesIsolation;
pub use aggregate_instance_extra_specs::AggregateInstanceExtraSpecsFilter;
pub use aggregate_multitenancy::AggregateMultiTenancyIsolation;
pub use aggregate_type_affinity::AggregateTypeAffinityFilter;
pub use all_hosts::AllHostsFilter;
pub use cidr_affinity::SimpleCIDRAffinityFilter;
pub use compute::ComputeFilter;
pub use compute_capabilities::ComputeCapabilitiesFilter;
pub use image_properties::ImagePropertiesFilter;
pub use io_ops::IoOpsFilter;
pub use isolated_hosts::IsolatedHostsFilter;
pub use json::JsonFilter;
pub use metrics::MetricsFilter;
pub use num_instances::NumInstancesFilter;
pub use numa_topology::NUMATopologyFilter;
pub use pci_passthrough::PciPassthroughFilter;
pub use resources::ResourceFilter;
pub use server_group::{ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter};

use crate::filter_scheduler::FilterOptions;
use crate::{HostBlock, HostView, Request, SchedulerError};

/// What a filter's verdict on a host follows from, for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// The filter has nothing to say to this request: all hosts pass.
    Nothing,
    /// [`HostView::attributes`] alone: the filter is asked once for all hosts of a kind.
    Attributes,
    /// What the host's aggregates say, alone: the filter is asked once for all hosts in the same aggregates.
    Aggregates,
    /// The host as it is now.
    Host,
}

/// Turns hosts away.
///
/// A filter of one's own needs a name and [`Filter::host_passes`]; see `examples/own_filter.rs`. The other methods make
/// it faster: [`Filter::reads`] says when hosts need not be asked one by one, [`Filter::block_passes`] judges 64 hosts at
/// once.
pub trait Filter: Send + Sync {
    /// Its name in a configuration and in [`NoValidHost::reasons`](crate::NoValidHost::reasons).
    fn name(&self) -> &str;

    /// Whether the host takes the request.
    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool;

    /// What the verdict follows from.
    fn reads(&self, _request: &Request) -> Reads {
        Reads::Host
    }

    /// Those of the `candidates` of a block that pass, as bits; asked only when the filter [reads](Reads::Host) the host.
    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        block.keep(candidates, |host| self.host_passes(host, request))
    }

    /// Whether it is asked when an instance gets another image on its host.
    fn runs_on_rebuild(&self) -> bool {
        false
    }
}

/// The filters that are on unless a configuration says otherwise.
pub const DEFAULT_FILTERS: [&str; 5] = [
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
];

/// The names that [`by_name`] knows.
pub const FILTERS: [&str; 25] = [
    "AggregateCoreFilter",
    "AggregateDiskFilter",
    "AggregateImagePropertiesIsolation",
    "AggregateInstanceExtraSpecsFilter",
    "AggregateIoOpsFilter",
    "AggregateMultiTenancyIsolation",
    "AggregateNumInstancesFilter",
    "AggregateRamFilter",
    "AggregateTypeAffinityFilter",
    "AllHostsFilter",
    "ComputeCapabilitiesFilter",
    "ComputeFilter",
    "DifferentHostFilter",
    "ImagePropertiesFilter",
    "IoOpsFilter",
    "IsolatedHostsFilter",
    "JsonFilter",
    "MetricsFilter",
    "NUMATopologyFilter",
    "NumInstancesFilter",
    "PciPassthroughFilter",
    "SameHostFilter",
    "ServerGroupAffinityFilter",
    "ServerGroupAntiAffinityFilter",
    "SimpleCIDRAffinityFilter",
];

/// Makes the filter of that name. A module path before the name, as Nova's configurations have it, is left aside.
///
/// # Errors
///
/// [`SchedulerError::UnknownName`] lists the names there are.
pub fn by_name(name: &str, options: &FilterOptions) -> Result<Box<dyn Filter>, SchedulerError> {
    Ok(match name.rsplit('.').next().unwrap_or(name) {
        "AggregateCoreFilter" => Box::new(ResourceFilter::cores()),
        "AggregateDiskFilter" => Box::new(ResourceFilter::disk()),
        "AggregateImagePropertiesIsolation" => Box::new(AggregateImagePropertiesIsolation::new(options)),
        "AggregateInstanceExtraSpecsFilter" => Box::new(AggregateInstanceExtraSpecsFilter),
        "AggregateIoOpsFilter" => Box::new(IoOpsFilter::per_aggregate(options.max_io_ops_per_host)),
        "AggregateMultiTenancyIsolation" => Box::new(AggregateMultiTenancyIsolation),
        "AggregateNumInstancesFilter" => Box::new(NumInstancesFilter::per_aggregate(options.max_instances_per_host)),
        "AggregateRamFilter" => Box::new(ResourceFilter::ram()),
        "AggregateTypeAffinityFilter" => Box::new(AggregateTypeAffinityFilter),
        "AllHostsFilter" => Box::new(AllHostsFilter),
        "ComputeCapabilitiesFilter" => Box::new(ComputeCapabilitiesFilter),
        "ComputeFilter" => Box::new(ComputeFilter),
        "DifferentHostFilter" => Box::new(DifferentHostFilter),
        "ImagePropertiesFilter" => Box::new(ImagePropertiesFilter::new(options)),
        "IoOpsFilter" => Box::new(IoOpsFilter::new(options.max_io_ops_per_host)),
        "IsolatedHostsFilter" => Box::new(IsolatedHostsFilter::new(options)),
        "JsonFilter" => Box::new(JsonFilter),
        "MetricsFilter" => Box::new(MetricsFilter::new(options)),
        "NUMATopologyFilter" => Box::new(NUMATopologyFilter),
        "NumInstancesFilter" => Box::new(NumInstancesFilter::new(options.max_instances_per_host)),
        "PciPassthroughFilter" => Box::new(PciPassthroughFilter),
        "SameHostFilter" => Box::new(SameHostFilter),
        "ServerGroupAffinityFilter" => Box::new(ServerGroupAffinityFilter),
        "ServerGroupAntiAffinityFilter" => Box::new(ServerGroupAntiAffinityFilter),
        "SimpleCIDRAffinityFilter" => Box::new(SimpleCIDRAffinityFilter),
        _ => {
            return Err(SchedulerError::UnknownName {
                option: "enabled_filters",
                name: name.to_owned(),
                known: FILTERS.join(", "),
            });
        }
    })
}

/// The number that a host's aggregates give under a key: the least of several, `otherwise` when there is none or one is
/// no number (`nova/scheduler/filters/utils.py`, `validate_num_values`).
pub(crate) fn least_of(host: &HostView<'_>, key: &str, otherwise: f64) -> f64 {
    let Some(values) = host.aggregate_values(key) else { return otherwise };
    let numbers: Option<Vec<f64>> =
        values.iter().map(|value| value.trim().parse().ok().filter(|number: &f64| number.is_finite())).collect();
    numbers.and_then(|numbers| numbers.into_iter().reduce(f64::min)).unwrap_or(otherwise)
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of filters share.

    use super::*;
    use crate::filter_scheduler::{Company, FilterOptions};
    use crate::query::{Overlay, Query};
    use crate::{HostTable, fixtures};

    /// The hosts that pass, by number, judged one by one and by block; both must agree.
    pub(crate) fn passing(filter: &dyn Filter, table: &HostTable, request: &Request) -> Vec<usize> {
        let query = Query::new(table, request, None);
        let overlay = Overlay::default();
        let company = Company::new(&query, &overlay);
        let mut passed = Vec::new();
        for index in 0..table.blocks.len() {
            let block = HostBlock::new(&company, index);
            let all = table.blocks[index].occupied;
            let single = block.keep(all, |host| filter.host_passes(host, request));
            match filter.reads(request) {
                Reads::Nothing => assert_eq!(single, all, "a filter that says nothing turns hosts away"),
                _ => assert_eq!(filter.block_passes(&block, request, all), single),
            }
            passed.extend(block.hosts(single).map(|host| host.name()["host-".len()..].parse::<usize>().unwrap()));
        }
        passed.sort_unstable();
        passed
    }

    pub(crate) fn request() -> Request {
        Request::new([1, 1_024, 10].into())
    }

    /// Three hosts in one zone.
    pub(crate) fn three() -> HostTable {
        fixtures::table(3, 1)
    }

    /// Puts host 0 into an aggregate with that metadata.
    pub(crate) fn aggregate_of_first(table: &mut HostTable, metadata: &[(&str, &str)]) {
        table.set_aggregates([crate::Aggregate {
            id: 1,
            name: "first".to_owned(),
            metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            hosts: ["host-0".to_owned()].into(),
        }]);
    }

    #[test]
    fn every_name_makes_a_filter() {
        for name in FILTERS {
            let filter = by_name(name, &FilterOptions::default()).unwrap();
            // The same code serves with and without aggregates, under both names.
            assert_eq!(filter.name(), name);
            assert!(by_name(&format!("nova.scheduler.filters.some_module.{name}"), &FilterOptions::default()).is_ok());
        }
        let error = by_name("RamFilter", &FilterOptions::default()).err().unwrap().to_string();
        assert!(error.contains("RamFilter") && error.contains("ComputeFilter"), "{error}");
    }
}
