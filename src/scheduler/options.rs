//! What an operator may set about the choice of hosts, under Nova's names where Nova has the option
//! (nova/conf/scheduler.py).

use std::sync::Arc;
use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl, common};
use nova_sched::{FilterOptions, MetricsOptions, SchedulerError, SchedulerOptions, TieBreak, ZoneDistances};

use super::ServiceOptions;
use super::request::DIMENSIONS;

const SCHEDULER: &[&str] = &["nova-scheduler"];
const FILTER: &str = "filter_scheduler";

const fn multiplier(name: &'static str, default: &'static str, help: &'static str) -> Opt<f64> {
    Opt::float(FILTER, name, -1e9, 1e9).default(default).roles(SCHEDULER).help(help)
}

const fn count(name: &'static str, default: &'static str, unit: &'static str, help: &'static str) -> Opt<i64> {
    Opt::integer(FILTER, name, 1, 1 << 31).default(default).unit(unit).roles(SCHEDULER).help(help)
}

/// `scheduler.zone_distances`
pub const ZONE_DISTANCES: Opt<Vec<String>> = Opt::list("scheduler", "zone_distances").roles(SCHEDULER).help(
    "How far availability zones are from each other, as zone:zone=distance in any unit; a zone is at 0 from itself, zones \
     that are not named are furthest. Breaks ties of least_load and weighs for filter, where a request has a zone to be near to.",
);
/// `scheduler.refresh_interval`
pub const REFRESH_INTERVAL: Opt<Duration> = Opt::seconds("scheduler", "refresh_interval", 1, 3600)
    .default("10")
    .roles(SCHEDULER)
    .help("How often the table of hosts is compared with the database. In between it follows what services tell.");
/// `scheduler.default_zone`
pub const DEFAULT_ZONE: Opt<Option<String>> = Opt::string("scheduler", "default_zone")
    .roles(SCHEDULER)
    .help("availability_zone: where servers go that ask for no zone. Not set: to all zones.")
    .optional();
/// `least_load.tie_break`
pub const TIE_BREAK: Opt<String> = Opt::choice("least_load", "tie_break", &["random", "name"])
    .default("random")
    .roles(SCHEDULER)
    .help(
        "How to choose among equally loaded hosts: by chance, which keeps schedulers that decide at once apart, or the first \
         name.",
    );
/// `least_load.load_source`
pub const LOAD_SOURCE: Opt<String> = Opt::string("least_load", "load_source").default("cores").roles(SCHEDULER).help(
    "What load is: cores handed out, memory, disk, io (operations under way), cpu (utilisation that the host reports), \
     reported (a load balancer's figure), or pack for the fullest host first.",
);
/// `least_load.max_cores`
pub const MAX_CORES: Opt<i64> = Opt::integer("least_load", "max_cores", 0, 1 << 31)
    .default("0")
    .unit("cores")
    .roles(SCHEDULER)
    .help("No host has more cores than that handed out, whatever its ratio allows; 0 is any number.");
/// `filter_scheduler.enabled_filters`
pub const ENABLED_FILTERS: Opt<Vec<String>> = Opt::list(FILTER, "enabled_filters")
    .default(
        "ComputeFilter, ComputeCapabilitiesFilter, ImagePropertiesFilter, ServerGroupAntiAffinityFilter, \
         ServerGroupAffinityFilter",
    )
    .roles(SCHEDULER)
    .help("The filters that a host must pass, in order. Resources, zone and forced hosts are always looked at.");
/// `filter_scheduler.weight_classes`
pub const WEIGHT_CLASSES: Opt<Vec<String>> = Opt::list(FILTER, "weight_classes")
    .default("nova.scheduler.weights.all_weighers")
    .roles(SCHEDULER)
    .help("The weighers that order the hosts that pass.");
/// `filter_scheduler.host_subset_size`
pub const HOST_SUBSET_SIZE: Opt<i64> = count(
    "host_subset_size",
    "1",
    "hosts",
    "The host is drawn from so many of the best; more than 1 keeps schedulers that decide at once apart.",
);
/// `filter_scheduler.max_io_ops_per_host`
pub const MAX_IO_OPS: Opt<i64> =
    count("max_io_ops_per_host", "8", "operations", "IoOpsFilter: a host with so many builds and moves takes no more.");
/// `filter_scheduler.max_instances_per_host`
pub const MAX_INSTANCES: Opt<i64> =
    count("max_instances_per_host", "50", "servers", "NumInstancesFilter: a host with so many takes no more.");
/// `filter_scheduler.isolated_images`
pub const ISOLATED_IMAGES: Opt<Vec<String>> = Opt::list(FILTER, "isolated_images")
    .roles(SCHEDULER)
    .help("IsolatedHostsFilter: ids of images that go to isolated_hosts only.");
/// `filter_scheduler.isolated_hosts`
pub const ISOLATED_HOSTS: Opt<Vec<String>> =
    Opt::list(FILTER, "isolated_hosts").roles(SCHEDULER).help("IsolatedHostsFilter: the hosts of isolated_images.");
/// `filter_scheduler.restrict_isolated_hosts_to_isolated_images`
pub const RESTRICT_ISOLATED: Opt<bool> = Opt::boolean(FILTER, "restrict_isolated_hosts_to_isolated_images")
    .default("true")
    .roles(SCHEDULER)
    .help("IsolatedHostsFilter: whether isolated_hosts take no other images.");
/// `filter_scheduler.aggregate_image_properties_isolation_namespace`
pub const ISOLATION_NAMESPACE: Opt<Option<String>> =
    Opt::string(FILTER, "aggregate_image_properties_isolation_namespace")
        .roles(SCHEDULER)
        .help("AggregateImagePropertiesIsolation: only metadata whose keys begin so counts. Not set: all.")
        .optional();
/// `filter_scheduler.aggregate_image_properties_isolation_separator`
pub const ISOLATION_SEPARATOR: Opt<String> = Opt::string(FILTER, "aggregate_image_properties_isolation_separator")
    .default(".")
    .roles(SCHEDULER)
    .help("What stands between that namespace and the property's name.");
/// `filter_scheduler.image_properties_default_architecture`
pub const DEFAULT_ARCHITECTURE: Opt<Option<String>> = Opt::string(FILTER, "image_properties_default_architecture")
    .roles(SCHEDULER)
    .help("ImagePropertiesFilter: the architecture of images that name none. Not set: any host does.")
    .optional();
/// `filter_scheduler.ram_weight_multiplier`
pub const RAM_WEIGHT: Opt<f64> =
    multiplier("ram_weight_multiplier", "1", "How much free memory counts; a negative number packs.");
/// `filter_scheduler.cpu_weight_multiplier`
pub const CPU_WEIGHT: Opt<f64> =
    multiplier("cpu_weight_multiplier", "1", "How much free cores count; a negative number packs.");
/// `filter_scheduler.disk_weight_multiplier`
pub const DISK_WEIGHT: Opt<f64> =
    multiplier("disk_weight_multiplier", "1", "How much free disk counts; a negative number packs.");
/// `filter_scheduler.io_ops_weight_multiplier`
pub const IO_OPS_WEIGHT: Opt<f64> = multiplier(
    "io_ops_weight_multiplier",
    "-1",
    "How much builds and moves under way count; negative: against the host.",
);
/// `filter_scheduler.pci_weight_multiplier`
pub const PCI_WEIGHT: Opt<f64> =
    multiplier("pci_weight_multiplier", "1", "How much it counts to leave hosts with devices to those who need them.");
/// `filter_scheduler.soft_affinity_weight_multiplier`
pub const SOFT_AFFINITY_WEIGHT: Opt<f64> =
    multiplier("soft_affinity_weight_multiplier", "1", "How much members of the group on the host count.");
/// `filter_scheduler.soft_anti_affinity_weight_multiplier`
pub const SOFT_ANTI_AFFINITY_WEIGHT: Opt<f64> =
    multiplier("soft_anti_affinity_weight_multiplier", "1", "How much the lack of members of the group counts.");
/// `filter_scheduler.build_failure_weight_multiplier`
pub const BUILD_FAILURE_WEIGHT: Opt<f64> = multiplier(
    "build_failure_weight_multiplier",
    "1000000",
    "How much builds that failed lately count against a host.",
);
/// `filter_scheduler.cross_cell_move_weight_multiplier`
pub const CROSS_CELL_WEIGHT: Opt<f64> = multiplier(
    "cross_cell_move_weight_multiplier",
    "1000000",
    "How much it counts for an instance that moves to stay in its cell.",
);
/// `filter_scheduler.hypervisor_version_weight_multiplier`
pub const HYPERVISOR_VERSION_WEIGHT: Opt<f64> =
    multiplier("hypervisor_version_weight_multiplier", "1", "How much a newer hypervisor counts.");
/// `filter_scheduler.num_instances_weight_multiplier`
pub const NUM_INSTANCES_WEIGHT: Opt<f64> =
    multiplier("num_instances_weight_multiplier", "0", "How much servers on the host count.");
/// `filter_scheduler.image_props_weight_multiplier`
pub const IMAGE_PROPS_WEIGHT: Opt<f64> = multiplier(
    "image_props_weight_multiplier",
    "0",
    "How much servers with the same image properties on the host count.",
);
/// `filter_scheduler.zone_distance_weight_multiplier`
pub const ZONE_DISTANCE_WEIGHT: Opt<f64> =
    multiplier("zone_distance_weight_multiplier", "1", "How much nearness by scheduler.zone_distances counts.");
/// `metrics.weight_multiplier`
pub const METRICS_WEIGHT: Opt<f64> = Opt::float("metrics", "weight_multiplier", -1e9, 1e9)
    .default("1")
    .roles(SCHEDULER)
    .help("How much the metrics of weight_setting count.");
/// `metrics.weight_setting`
pub const METRICS_SETTING: Opt<Vec<String>> = Opt::list("metrics", "weight_setting")
    .roles(SCHEDULER)
    .help("Metrics that hosts report and by what each is multiplied: name=ratio, such as cpu.percent=-1.0.");
/// `metrics.required`
pub const METRICS_REQUIRED: Opt<bool> = Opt::boolean("metrics", "required")
    .default("true")
    .roles(SCHEDULER)
    .help("Whether a host that lacks one of these metrics comes after all others.");
/// `metrics.weight_of_unavailable`
pub const METRICS_UNAVAILABLE: Opt<f64> = Opt::float("metrics", "weight_of_unavailable", -1e9, 1e9)
    .default("-10000")
    .roles(SCHEDULER)
    .help("What such a host weighs where they are not required.");

/// Every option of this module.
pub const SCHEDULER_OPTIONS: &[OptionDecl] = &[
    ZONE_DISTANCES.decl(),
    REFRESH_INTERVAL.decl(),
    DEFAULT_ZONE.decl(),
    TIE_BREAK.decl(),
    LOAD_SOURCE.decl(),
    MAX_CORES.decl(),
    ENABLED_FILTERS.decl(),
    WEIGHT_CLASSES.decl(),
    HOST_SUBSET_SIZE.decl(),
    MAX_IO_OPS.decl(),
    MAX_INSTANCES.decl(),
    ISOLATED_IMAGES.decl(),
    ISOLATED_HOSTS.decl(),
    RESTRICT_ISOLATED.decl(),
    ISOLATION_NAMESPACE.decl(),
    ISOLATION_SEPARATOR.decl(),
    DEFAULT_ARCHITECTURE.decl(),
    RAM_WEIGHT.decl(),
    CPU_WEIGHT.decl(),
    DISK_WEIGHT.decl(),
    IO_OPS_WEIGHT.decl(),
    PCI_WEIGHT.decl(),
    SOFT_AFFINITY_WEIGHT.decl(),
    SOFT_ANTI_AFFINITY_WEIGHT.decl(),
    BUILD_FAILURE_WEIGHT.decl(),
    CROSS_CELL_WEIGHT.decl(),
    HYPERVISOR_VERSION_WEIGHT.decl(),
    NUM_INSTANCES_WEIGHT.decl(),
    IMAGE_PROPS_WEIGHT.decl(),
    ZONE_DISTANCE_WEIGHT.decl(),
    METRICS_WEIGHT.decl(),
    METRICS_SETTING.decl(),
    METRICS_REQUIRED.decl(),
    METRICS_UNAVAILABLE.decl(),
];

impl ServiceOptions {
    /// What the configuration says. The registry must know [`SCHEDULER_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        Self {
            refresh_interval: config.get(&REFRESH_INTERVAL),
            service_down_time: config.get(&common::SERVICE_DOWN_TIME),
            weighs_images: config.get(&IMAGE_PROPS_WEIGHT) != 0.0,
        }
    }
}

/// The options of all algorithms.
///
/// # Errors
/// A list whose entries are not of the form that it must have; the error names the option.
pub fn algorithm_options(config: &Config) -> Result<SchedulerOptions, SchedulerError> {
    let entries = config.get(&ZONE_DISTANCES);
    let zone_distances = match entries.is_empty() {
        true => None,
        false => Some(Arc::new(ZoneDistances::parse(entries)?)),
    };
    let mut options = SchedulerOptions::default();
    options.default_zone = default_zone(config)?;
    options.tie_break = if config.get(&TIE_BREAK) == "name" { TieBreak::Name } else { TieBreak::Random };
    options.load_source = Some(load_source(config)?);
    options.max_cores = u64::try_from(config.get(&MAX_CORES)).ok().filter(|cores| *cores > 0);
    options.filter = filter_options(config, zone_distances.clone())?;
    options.zone_distances = zone_distances;
    Ok(options)
}

/// One of nova-sched's sources, or something that hosts report an amount of.
fn load_source(config: &Config) -> Result<String, SchedulerError> {
    const KNOWN: [&str; 7] = ["cores", "memory", "disk", "io", "cpu", "reported", "pack"];
    let source = config.get(&LOAD_SOURCE);
    match KNOWN.iter().chain(&DIMENSIONS).any(|known| *known == source) {
        true => Ok(source),
        false => Err(SchedulerError::InvalidOption {
            option: "least_load.load_source",
            reason: format!("`{source}` is none of {}", KNOWN.join(", ")),
        }),
    }
}

/// A zone alone: a host is named by a request, not by a configuration.
fn default_zone(config: &Config) -> Result<Option<String>, SchedulerError> {
    let zone = config.get(&DEFAULT_ZONE).map(|zone| zone.trim().to_owned());
    match zone {
        Some(zone) if zone.is_empty() || zone.contains(':') => Err(SchedulerError::InvalidOption {
            option: "scheduler.default_zone",
            reason: format!("`{zone}` is not the name of a zone"),
        }),
        zone => Ok(zone),
    }
}

fn filter_options(
    config: &Config,
    zone_distances: Option<Arc<ZoneDistances>>,
) -> Result<FilterOptions, SchedulerError> {
    let count = |option: &Opt<i64>| u32::try_from(config.get(option)).unwrap_or(u32::MAX);
    Ok(FilterOptions {
        enabled_filters: config.get(&ENABLED_FILTERS),
        weight_classes: config.get(&WEIGHT_CLASSES),
        host_subset_size: count(&HOST_SUBSET_SIZE),
        max_io_ops_per_host: count(&MAX_IO_OPS),
        max_instances_per_host: count(&MAX_INSTANCES),
        isolated_images: config.get(&ISOLATED_IMAGES),
        isolated_hosts: config.get(&ISOLATED_HOSTS),
        restrict_isolated_hosts_to_isolated_images: config.get(&RESTRICT_ISOLATED),
        aggregate_image_properties_isolation_namespace: config.get(&ISOLATION_NAMESPACE),
        aggregate_image_properties_isolation_separator: config.get(&ISOLATION_SEPARATOR),
        image_properties_default_architecture: config.get(&DEFAULT_ARCHITECTURE),
        ram_weight_multiplier: config.get(&RAM_WEIGHT),
        cpu_weight_multiplier: config.get(&CPU_WEIGHT),
        disk_weight_multiplier: config.get(&DISK_WEIGHT),
        io_ops_weight_multiplier: config.get(&IO_OPS_WEIGHT),
        pci_weight_multiplier: config.get(&PCI_WEIGHT),
        soft_affinity_weight_multiplier: config.get(&SOFT_AFFINITY_WEIGHT),
        soft_anti_affinity_weight_multiplier: config.get(&SOFT_ANTI_AFFINITY_WEIGHT),
        build_failure_weight_multiplier: config.get(&BUILD_FAILURE_WEIGHT),
        cross_cell_move_weight_multiplier: config.get(&CROSS_CELL_WEIGHT),
        hypervisor_version_weight_multiplier: config.get(&HYPERVISOR_VERSION_WEIGHT),
        num_instances_weight_multiplier: config.get(&NUM_INSTANCES_WEIGHT),
        image_props_weight_multiplier: config.get(&IMAGE_PROPS_WEIGHT),
        zone_distance_weight_multiplier: config.get(&ZONE_DISTANCE_WEIGHT),
        zone_distances,
        metrics: MetricsOptions {
            weight_multiplier: config.get(&METRICS_WEIGHT),
            weight_setting: metrics(&config.get(&METRICS_SETTING))?,
            required: config.get(&METRICS_REQUIRED),
            weight_of_unavailable: config.get(&METRICS_UNAVAILABLE),
        },
    })
}

/// `name=ratio` each.
fn metrics(entries: &[String]) -> Result<Vec<(String, f64)>, SchedulerError> {
    let parse = |entry: &String| {
        let (name, ratio) = entry.split_once('=')?;
        let ratio: f64 = ratio.trim().parse().ok()?;
        (!name.trim().is_empty() && ratio.is_finite()).then(|| (name.trim().to_owned(), ratio))
    };
    let wrong = |entry: &String| SchedulerError::InvalidOption {
        option: "metrics.weight_setting",
        reason: format!("`{entry}` is not of the form name=number"),
    };
    entries.iter().map(|entry| parse(entry).ok_or_else(|| wrong(entry))).collect()
}

#[cfg(test)]
mod tests {
    use nova_core::options::Source;

    use super::*;

    fn config(text: &str) -> Config {
        let registry = common::registry().with(SCHEDULER_OPTIONS);
        let text = format!("[DEFAULT]\nstate_path = /s\n{text}");
        Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text)]).unwrap()
    }

    #[test]
    fn without_a_word_the_defaults_of_the_algorithms_hold() {
        let options = algorithm_options(&config("")).unwrap();
        assert_eq!(options.filter, FilterOptions::default());
        assert_eq!(options.load_source.as_deref(), Some("cores"));
        assert_eq!((options.max_cores, options.zone_distances), (None, None));
        for name in nova_sched::SCHEDULERS {
            nova_sched::by_name(name, &algorithm_options(&config("")).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_load_that_nobody_measures_is_named() {
        let options = |source: &str| algorithm_options(&config(&format!("[least_load]\nload_source = {source}\n")));
        assert_eq!(options("memory_mb").unwrap().load_source.as_deref(), Some("memory_mb"));
        let wrong = options("moon").unwrap_err().to_string();
        assert!(wrong.contains("least_load.load_source") && wrong.contains("`moon`"), "{wrong}");
    }

    /// Whatever the algorithms have an option for can be set, and does what it says.
    #[test]
    fn every_option_reaches_its_algorithm() {
        use nova_sched::{Dimensions, HostInventory, HostTable, Request, SchedulerRng};
        let chosen = |name: &str, text: &str| {
            let algorithm = nova_sched::by_name(name, &algorithm_options(&config(text)).unwrap()).unwrap();
            let mut table = HostTable::new(Dimensions::new(["vcpus"]).unwrap());
            for host in ["c", "a", "b"] {
                table.upsert_host(HostInventory::new(host, format!("zone-{host}"), [8].into())).unwrap();
            }
            algorithm.register(&mut table).unwrap();
            let ask = |seed| {
                let mut rng = SchedulerRng::from_seed(seed);
                let chosen = algorithm.select_destinations(&table, &Request::new([1].into()), &mut rng).unwrap();
                chosen[0].host.to_string()
            };
            (0..64).map(ask).collect::<std::collections::BTreeSet<_>>()
        };
        let all = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(chosen("availability_zone", ""), all);
        assert_eq!(chosen("availability_zone", "[scheduler]\ndefault_zone = zone-b\n"), ["b".to_owned()].into());
        assert_eq!(chosen("least_load", ""), all);
        assert_eq!(chosen("least_load", "[least_load]\ntie_break = name\n"), ["a".to_owned()].into());
        assert_eq!(chosen("filter", "[filter_scheduler]\nhost_subset_size = 2\n"), all);
        let text = "[filter_scheduler]\ncross_cell_move_weight_multiplier = 2\nhost_subset_size = 7\n";
        let options = algorithm_options(&config(text)).unwrap().filter;
        assert_eq!((options.cross_cell_move_weight_multiplier, options.host_subset_size), (2.0, 7));
    }

    #[test]
    fn lists_are_read_and_mistakes_in_them_named() {
        let text = "[scheduler]\nzone_distances = a:b=3, b:c=9\n[metrics]\nweight_setting = cpu.percent=-1.0, x = 2\n";
        let options = algorithm_options(&config(text)).unwrap();
        assert_eq!(options.zone_distances.unwrap().between("c", "b"), 9);
        assert_eq!(options.filter.metrics.weight_setting, [("cpu.percent".to_owned(), -1.0), ("x".to_owned(), 2.0)]);
        for wrong in
            ["[metrics]\nweight_setting = cpu", "[metrics]\nweight_setting = =1", "[scheduler]\nzone_distances = a=1"]
        {
            let error = algorithm_options(&config(wrong)).unwrap_err().to_string();
            assert!(error.contains("weight_setting") || error.contains("zone_distances"), "{error}");
        }
        for wrong in ["a:b", " "] {
            let error = algorithm_options(&config(&format!("[scheduler]\ndefault_zone = '{wrong}'\n")));
            assert!(error.unwrap_err().to_string().contains("default_zone"), "{wrong}");
        }
        let error = algorithm_options(&config("[filter_scheduler]\nenabled_filters = NoSuchFilter\n"));
        assert!(nova_sched::by_name("filter", &error.unwrap()).is_err());
    }
}
