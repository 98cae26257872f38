//! Schedulers by name, with options: `least_load,load_source=memory`, `filter,enabled_filters=ComputeFilter+IoOpsFilter`.

use nova_sched::{FilterOptions, SCHEDULERS, Scheduler, SchedulerOptions, TieBreak, by_name};

/// A scheduler as it was asked for.
pub struct Named {
    /// What was asked: the name with its options. It stands above the results.
    pub label: String,
    /// The algorithm.
    pub scheduler: Box<dyn Scheduler>,
}

/// The options that a scheduler may be given, those of `filter` aside.
const OPTIONS: [&str; 4] = ["default_zone", "load_source", "max_cores", "tie_break"];

/// The options of `filter`, under Nova's names; those aside that nothing in a replay says anything to.
const FILTER_OPTIONS: [&str; 17] = [
    "enabled_filters",
    "weight_classes",
    "host_subset_size",
    "max_io_ops_per_host",
    "max_instances_per_host",
    "ram_weight_multiplier",
    "cpu_weight_multiplier",
    "disk_weight_multiplier",
    "io_ops_weight_multiplier",
    "pci_weight_multiplier",
    "soft_affinity_weight_multiplier",
    "soft_anti_affinity_weight_multiplier",
    "build_failure_weight_multiplier",
    "cross_cell_move_weight_multiplier",
    "hypervisor_version_weight_multiplier",
    "num_instances_weight_multiplier",
    "image_props_weight_multiplier",
];

/// Makes the schedulers asked for; all there are when none is.
///
/// # Errors
/// A name or option that isn't known, or one given twice.
pub fn parse(asked: &[String]) -> Result<Vec<Named>, String> {
    let all: Vec<String> = SCHEDULERS.iter().map(|name| (*name).to_owned()).collect();
    let asked = if asked.is_empty() { &all } else { asked };
    let mut made: Vec<Named> = Vec::new();
    for label in asked {
        if made.iter().any(|other| other.label == *label) {
            return Err(format!("--scheduler {label}: is given twice"));
        }
        let scheduler = make(label).map_err(|reason| format!("--scheduler {label}: {reason}"))?;
        made.push(Named { label: label.clone(), scheduler });
    }
    Ok(made)
}

fn make(label: &str) -> Result<Box<dyn Scheduler>, String> {
    let mut parts = label.split(',');
    let name = parts.next().unwrap_or_default();
    let mut options = SchedulerOptions::default();
    let mut seen = Vec::new();
    for part in parts {
        let (option, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is not OPTION=VALUE"))?;
        if seen.contains(&option) {
            return Err(format!("{option}: is given twice"));
        }
        seen.push(option);
        match option {
            "default_zone" => options.default_zone = Some(value.to_owned()),
            "load_source" => options.load_source = Some(value.to_owned()),
            "max_cores" => options.max_cores = Some(whole(option, value)?),
            "tie_break" => options.tie_break = tie_break(value)?,
            _ if FILTER_OPTIONS.contains(&option) && name != "filter" => {
                return Err(format!("{option}: is an option of the scheduler filter only"));
            }
            _ if FILTER_OPTIONS.contains(&option) => set_filter(&mut options.filter, option, value)?,
            _ => {
                let known = OPTIONS.into_iter().chain(FILTER_OPTIONS).collect::<Vec<_>>().join(", ");
                return Err(format!("there is no option '{option}' (known: {known})"));
            }
        }
    }
    by_name(name, &options).map_err(|error| error.to_string())
}

/// Sets one of [`FILTER_OPTIONS`].
fn set_filter(options: &mut FilterOptions, option: &str, value: &str) -> Result<(), String> {
    let multiplier = match option {
        "enabled_filters" => return names_in(option, value).map(|names| options.enabled_filters = names),
        "weight_classes" => return names_in(option, value).map(|names| options.weight_classes = names),
        "host_subset_size" => return positive(option, value).map(|number| options.host_subset_size = number),
        "max_io_ops_per_host" => return whole(option, value).map(|number| options.max_io_ops_per_host = number),
        "max_instances_per_host" => {
            return positive(option, value).map(|number| options.max_instances_per_host = number);
        }
        "ram_weight_multiplier" => &mut options.ram_weight_multiplier,
        "cpu_weight_multiplier" => &mut options.cpu_weight_multiplier,
        "disk_weight_multiplier" => &mut options.disk_weight_multiplier,
        "io_ops_weight_multiplier" => &mut options.io_ops_weight_multiplier,
        "pci_weight_multiplier" => &mut options.pci_weight_multiplier,
        "soft_affinity_weight_multiplier" => &mut options.soft_affinity_weight_multiplier,
        "soft_anti_affinity_weight_multiplier" => &mut options.soft_anti_affinity_weight_multiplier,
        "build_failure_weight_multiplier" => &mut options.build_failure_weight_multiplier,
        "cross_cell_move_weight_multiplier" => &mut options.cross_cell_move_weight_multiplier,
        "hypervisor_version_weight_multiplier" => &mut options.hypervisor_version_weight_multiplier,
        "num_instances_weight_multiplier" => &mut options.num_instances_weight_multiplier,
        "image_props_weight_multiplier" => &mut options.image_props_weight_multiplier,
        _ => return Err(format!("{option}: is no option of filter")),
    };
    let number = value.parse().ok().filter(|number: &f64| number.is_finite());
    *multiplier = number.ok_or_else(|| format!("{option}: '{value}' is not a number"))?;
    Ok(())
}

/// Names with `+` between them, the comma being taken; none when nothing is given.
fn names_in(option: &str, value: &str) -> Result<Vec<String>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = value.split('+').map(str::to_owned).collect();
    match names.iter().any(String::is_empty) {
        true => Err(format!("{option}: '{value}' has an empty name; names have a + between them")),
        false => Ok(names),
    }
}

fn whole<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{option}: '{value}' is not a whole number"))
}

fn positive(option: &str, value: &str) -> Result<u32, String> {
    match whole(option, value)? {
        0 => Err(format!("{option}: must be at least 1")),
        number => Ok(number),
    }
}

fn tie_break(value: &str) -> Result<TieBreak, String> {
    match value {
        "random" => Ok(TieBreak::Random),
        "name" => Ok(TieBreak::Name),
        _ => Err(format!("tie_break: '{value}' is neither random nor name")),
    }
}

#[cfg(test)]
mod tests {
    use nova_sched::{Dimensions, HostInventory, HostTable, Request, SchedulerRng};

    use super::*;
    use crate::capacity::DIMENSIONS;

    fn names(asked: &[&str]) -> Result<Vec<(String, &'static str)>, String> {
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
        Ok(parse(&asked)?.into_iter().map(|named| (named.label, named.scheduler.name())).collect())
    }

    #[test]
    fn every_scheduler_there_is_can_be_asked_for() {
        let all: Vec<&str> = names(&[]).unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(all, SCHEDULERS);
        let two = names(&["least_load", "least_load,load_source=memory,tie_break=name,max_cores=8"]).unwrap();
        assert_eq!(two[1], ("least_load,load_source=memory,tie_break=name,max_cores=8".to_owned(), "least_load"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |label: &str| names(&[label]).unwrap_err();
        assert!(error("chance").starts_with("--scheduler chance: there is no scheduler `chance` (known: random"));
        assert_eq!(error("random,x"), "--scheduler random,x: 'x' is not OPTION=VALUE");
        assert!(error("random,x=1").contains("there is no option 'x' (known: default_zone"));
        assert!(error("least_load,max_cores=x").ends_with("max_cores: 'x' is not a whole number"));
        assert!(error("least_load,tie_break=x").ends_with("tie_break: 'x' is neither random nor name"));
        assert_eq!(names(&["random", "random"]).unwrap_err(), "--scheduler random: is given twice");
        assert!(error("least_load,max_cores=1,max_cores=2").ends_with("max_cores: is given twice"));
        assert!(error("random,enabled_filters=ComputeFilter").ends_with("is an option of the scheduler filter only"));
        assert!(error("filter,enabled_filters=RamFilter").contains("`enabled_filters`: there is no `RamFilter`"));
        assert!(
            error("filter,enabled_filters=ComputeFilter+").contains("enabled_filters: 'ComputeFilter+' has an empty")
        );
        assert!(error("filter,weight_classes=LuckWeigher").contains("`weight_classes`: there is no `LuckWeigher`"));
        assert!(error("filter,host_subset_size=0").ends_with("host_subset_size: must be at least 1"));
        assert!(error("filter,max_io_ops_per_host=-1").ends_with("max_io_ops_per_host: '-1' is not a whole number"));
        assert!(error("filter,ram_weight_multiplier=NaN").ends_with("ram_weight_multiplier: 'NaN' is not a number"));
        assert!(error("filter,x=1").contains("image_props_weight_multiplier"));
    }

    #[test]
    fn every_option_of_filter_is_set() {
        for option in FILTER_OPTIONS {
            let value = if option == "enabled_filters" || option == "weight_classes" { "" } else { "7" };
            let mut options = FilterOptions::default();
            set_filter(&mut options, option, value).unwrap();
            assert_ne!(options, FilterOptions::default(), "{option}");
        }
    }

    /// With the memory that is free weighed the other way round, and nothing else weighed, the fuller host is taken; with a
    /// bound on instances the other one.
    #[test]
    fn filters_weighers_and_multipliers_decide() {
        let taken = |label: &str| {
            let named = parse(&[label.to_owned()]).unwrap().remove(0);
            let mut table = HostTable::new(Dimensions::new(DIMENSIONS).unwrap());
            for host in ["full", "free"] {
                table.upsert_host(HostInventory::new(host, "here", [16, 16_384, 100].into())).unwrap();
            }
            table.allocate("full", 1, &[2, 4_096, 10].into()).unwrap();
            let request = Request::new([1, 1_024, 10].into());
            let chosen =
                named.scheduler.select_destinations(&table, &request, &mut SchedulerRng::from_seed(1)).unwrap();
            chosen[0].host.to_string()
        };
        assert_eq!(taken("filter"), "free");
        let packing = "filter,weight_classes=RAMWeigher,ram_weight_multiplier=-1";
        assert_eq!(taken(packing), "full");
        assert_eq!(taken(&format!("{packing},enabled_filters=NumInstancesFilter,max_instances_per_host=1")), "free");
    }
}
