//! Options, under Nova's names.

use std::sync::Arc;

use crate::ZoneDistances;
use crate::filters::DEFAULT_FILTERS;

/// Options of [`FilterScheduler`](super::FilterScheduler), its filters and weighers: Nova's group `[filter_scheduler]`, with
/// its names and defaults. All `*_weight_multiplier` may be overridden for the hosts of an aggregate by metadata of that
/// name.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterOptions {
    /// The filters, in order.
    pub enabled_filters: Vec<String>,
    /// The weighers; `nova.scheduler.weights.all_weighers` stands for all.
    pub weight_classes: Vec<String>,
    /// The host is drawn from so many of the best. More than 1 keeps schedulers that decide at once apart.
    pub host_subset_size: u32,
    /// `IoOpsFilter`.
    pub max_io_ops_per_host: u32,
    /// `NumInstancesFilter`.
    pub max_instances_per_host: u32,
    /// `IsolatedHostsFilter`: ids of images.
    pub isolated_images: Vec<String>,
    /// `IsolatedHostsFilter`: names of hosts.
    pub isolated_hosts: Vec<String>,
    /// `IsolatedHostsFilter`: whether those hosts take those images only.
    pub restrict_isolated_hosts_to_isolated_images: bool,
    /// `AggregateImagePropertiesIsolation`: only keys of this namespace count.
    pub aggregate_image_properties_isolation_namespace: Option<String>,
    /// What stands between namespace and key.
    pub aggregate_image_properties_isolation_separator: String,
    /// `ImagePropertiesFilter`: the architecture of images that name none.
    pub image_properties_default_architecture: Option<String>,
    /// More free memory is better; a negative number packs.
    pub ram_weight_multiplier: f64,
    /// More free cores are better.
    pub cpu_weight_multiplier: f64,
    /// More free disk is better.
    pub disk_weight_multiplier: f64,
    /// Fewer operations under way are better.
    pub io_ops_weight_multiplier: f64,
    /// Hosts with few devices first.
    pub pci_weight_multiplier: f64,
    /// More members of the group are better, where it asks for that.
    pub soft_affinity_weight_multiplier: f64,
    /// Fewer members of the group are better, where it asks for that.
    pub soft_anti_affinity_weight_multiplier: f64,
    /// Hosts whose last builds failed come last; the sign is turned round, as in Nova.
    pub build_failure_weight_multiplier: f64,
    /// The cell that the instance comes from first.
    pub cross_cell_move_weight_multiplier: f64,
    /// Newer hypervisors first.
    pub hypervisor_version_weight_multiplier: f64,
    /// More instances are better.
    pub num_instances_weight_multiplier: f64,
    /// More instances with the same image properties are better.
    pub image_props_weight_multiplier: f64,
    /// Nearer to [`Request::near_zones`](crate::Request::near_zones) is better. Not in Nova.
    pub zone_distance_weight_multiplier: f64,
    /// The distances for that.
    pub zone_distances: Option<Arc<ZoneDistances>>,
    /// Nova's group `[metrics]`.
    pub metrics: MetricsOptions,
}

impl Default for FilterOptions {
    fn default() -> Self {
        Self {
            enabled_filters: DEFAULT_FILTERS.map(str::to_owned).to_vec(),
            weight_classes: vec!["nova.scheduler.weights.all_weighers".to_owned()],
            host_subset_size: 1,
            max_io_ops_per_host: 8,
            max_instances_per_host: 50,
            isolated_images: Vec::new(),
            isolated_hosts: Vec::new(),
            restrict_isolated_hosts_to_isolated_images: true,
            aggregate_image_properties_isolation_namespace: None,
            aggregate_image_properties_isolation_separator: ".".to_owned(),
            image_properties_default_architecture: None,
            ram_weight_multiplier: 1.0,
            cpu_weight_multiplier: 1.0,
            disk_weight_multiplier: 1.0,
            io_ops_weight_multiplier: -1.0,
            pci_weight_multiplier: 1.0,
            soft_affinity_weight_multiplier: 1.0,
            soft_anti_affinity_weight_multiplier: 1.0,
            build_failure_weight_multiplier: 1_000_000.0,
            cross_cell_move_weight_multiplier: 1_000_000.0,
            hypervisor_version_weight_multiplier: 1.0,
            num_instances_weight_multiplier: 0.0,
            image_props_weight_multiplier: 0.0,
            zone_distance_weight_multiplier: 1.0,
            zone_distances: None,
            metrics: MetricsOptions::default(),
        }
    }
}

/// Options of the metrics weigher and filter.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsOptions {
    /// How much the weigher counts.
    pub weight_multiplier: f64,
    /// Names of metrics, and by what each is multiplied.
    pub weight_setting: Vec<(String, f64)>,
    /// Whether hosts that lack a metric come last of all. Nova fails the request instead and advises the filter.
    pub required: bool,
    /// What a host that lacks a metric is worth, when it is not required.
    pub weight_of_unavailable: f64,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { weight_multiplier: 1.0, weight_setting: Vec::new(), required: true, weight_of_unavailable: -10_000.0 }
    }
}
