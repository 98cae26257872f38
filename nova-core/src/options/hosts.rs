//! Options about what compute hosts tell of themselves. Most hosts need none of them.

use std::collections::BTreeSet;

use super::{Config, Opt, OptionDecl};
use crate::host_facts::{is_custom_trait, is_trait_name};
use crate::topology::{format_cpu_set, parse_cpu_set};

const COMPUTE: &[&str] = &["nova-compute"];

/// The monitors that there are: Nova's, and one for the source `reported` of `least_load.source`.
pub const MONITORS: [&str; 2] = ["cpu.virt_driver", "load.virt_driver"];

/// `DEFAULT.compute_monitors`
pub const COMPUTE_MONITORS: Opt<Vec<String>> = Opt::list("DEFAULT", "compute_monitors").roles(COMPUTE).help(
    "What hosts measure for schedulers: cpu.virt_driver (metrics cpu.percent, cpu.user.percent, ...), \
         load.virt_driver (load average per CPU). Each figure costs a database write per host and minute.",
);
/// `compute.traits`
pub const COMPUTE_TRAITS: Opt<Vec<String>> = Opt::list("compute", "traits").roles(COMPUTE).help(
    "Traits of this host besides those that its driver reports: CUSTOM_ and upper case letters, digits, underscores.",
);
/// `compute.consecutive_build_service_disable_threshold`
pub const BUILD_FAILURE_THRESHOLD: Opt<i64> = Opt::integer(
    "compute",
    "consecutive_build_service_disable_threshold",
    0,
    1 << 31,
)
.default("10")
.unit("builds")
.roles(COMPUTE)
.help(
    "After so many failed builds in a row a host takes itself out of scheduling; below, they only count against \
             it. 0: they do not count.",
);
/// `compute.cpu_shared_set`
pub const CPU_SHARED_SET: Opt<Option<String>> = Opt::string("compute", "cpu_shared_set")
    .roles(COMPUTE)
    .help("CPUs that guests share, as 0-3,^2. Not set: all, or none where cpu_dedicated_set is.")
    .optional();
/// `compute.cpu_dedicated_set`
pub const CPU_DEDICATED_SET: Opt<Option<String>> = Opt::string("compute", "cpu_dedicated_set")
    .roles(COMPUTE)
    .help("CPUs for guests with hw:cpu_policy=dedicated, one for each of theirs. Not set: none.")
    .optional();
/// `fake.numa_nodes`
pub const FAKE_NUMA_NODES: Opt<i64> = Opt::integer("fake", "numa_nodes", 1, 1024)
    .default("1")
    .unit("cells")
    .roles(COMPUTE)
    .help("NUMA cells of a fake host; its CPUs and memory are spread over them.");
/// `fake.huge_pages_mb`
pub const FAKE_HUGE_PAGES_MB: Opt<i64> = Opt::integer("fake", "huge_pages_mb", 0, 1 << 40)
    .default("0")
    .unit("MiB")
    .roles(COMPUTE)
    .help("Memory of each cell of a fake host that is set aside as huge pages of 2 MiB.");
/// `fake.traits`
pub const FAKE_TRAITS: Opt<Vec<String>> =
    Opt::list("fake", "traits").roles(COMPUTE).help("Traits that the driver of a fake host reports.");
/// `fake.cpu_percent`
pub const FAKE_CPU_PERCENT: Opt<i64> = Opt::integer("fake", "cpu_percent", 0, 100)
    .default("0")
    .unit("per cent")
    .roles(COMPUTE)
    .help("How busy the CPUs of a fake host are, for compute_monitors.");

/// Every option of this module.
pub const OPTIONS: &[OptionDecl] = &[
    COMPUTE_MONITORS.decl(),
    COMPUTE_TRAITS.decl(),
    BUILD_FAILURE_THRESHOLD.decl(),
    CPU_SHARED_SET.decl(),
    CPU_DEDICATED_SET.decl(),
    FAKE_TRAITS.decl(),
    FAKE_CPU_PERCENT.decl(),
    FAKE_NUMA_NODES.decl(),
    FAKE_HUGE_PAGES_MB.decl(),
];

/// A set of CPUs that was checked when the configuration was.
pub fn cpu_set(config: &Config, option: &Opt<Option<String>>) -> Option<BTreeSet<u32>> {
    config.get(option).and_then(|text| parse_cpu_set(&text).ok())
}

/// Sets of CPUs that cannot be read, or that share some.
pub fn cpu_sets_fit(config: &Config) -> Result<(), (&'static str, String)> {
    let read = |option: &Opt<Option<String>>, key| match config.get(option) {
        None => Ok(None),
        Some(text) => match parse_cpu_set(&text) {
            Ok(set) if set.is_empty() => Err((key, format!("'{text}' names no CPU"))),
            Ok(set) => Ok(Some(set)),
            Err(error) => Err((key, error.to_string())),
        },
    };
    let shared = read(&CPU_SHARED_SET, "compute.cpu_shared_set")?.unwrap_or_default();
    let dedicated = read(&CPU_DEDICATED_SET, "compute.cpu_dedicated_set")?.unwrap_or_default();
    let both: BTreeSet<u32> = shared.intersection(&dedicated).copied().collect();
    if both.is_empty() {
        return Ok(());
    }
    Err(("compute.cpu_dedicated_set", format!("CPUs {} are in compute.cpu_shared_set as well", format_cpu_set(&both))))
}

/// Names in these lists that nothing has.
pub fn names_fit(config: &Config) -> Result<(), (&'static str, String)> {
    if let Some(wrong) = config.get(&COMPUTE_MONITORS).iter().find(|name| !MONITORS.contains(&name.as_str())) {
        return Err((
            "DEFAULT.compute_monitors",
            format!("no monitor is called '{wrong}'; there are {}", MONITORS.join(", ")),
        ));
    }
    if let Some(wrong) = config.get(&COMPUTE_TRAITS).iter().find(|name| !is_custom_trait(name)) {
        let form = "must be CUSTOM_ and upper case letters, digits and underscores";
        return Err(("compute.traits", format!("'{wrong}' {form}")));
    }
    match config.get(&FAKE_TRAITS).iter().find(|name| !is_trait_name(name)) {
        Some(wrong) => Err(("fake.traits", format!("'{wrong}' must be upper case letters, digits and underscores"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Registry, Source};

    #[test]
    fn unknown_names_are_told_with_their_option() {
        let registry = Registry::new().with(OPTIONS).check(names_fit).check(cpu_sets_fit);
        let load = |text: &str| Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text)]);
        let good = "[DEFAULT]\ncompute_monitors = cpu.virt_driver\n[compute]\ntraits = CUSTOM_A, CUSTOM_B\n";
        assert_eq!(load(good).unwrap().get(&COMPUTE_TRAITS), ["CUSTOM_A", "CUSTOM_B"]);
        for (wrong, option) in [
            ("[DEFAULT]\ncompute_monitors = cpu", "DEFAULT.compute_monitors"),
            ("[compute]\ntraits = HW_CPU_X86_AVX2", "compute.traits"),
            ("[compute]\ntraits = CUSTOM_a", "compute.traits"),
            ("[fake]\ntraits = fast", "fake.traits"),
            ("[compute]\ncpu_shared_set = 0-x", "compute.cpu_shared_set"),
            ("[compute]\ncpu_dedicated_set = 1,^1", "compute.cpu_dedicated_set"),
            ("[compute]\ncpu_shared_set = 0-3\ncpu_dedicated_set = 3-5", "compute.cpu_dedicated_set"),
        ] {
            let errors = load(wrong).unwrap_err();
            assert_eq!((errors.len(), errors[0].option.as_deref()), (1, Some(option)), "{wrong}");
        }
    }
}
