//! Options about what compute hosts tell of themselves. Most hosts need none of them.

use super::{Config, Opt, OptionDecl};
use crate::host_facts::{is_custom_trait, is_trait_name};

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
    FAKE_TRAITS.decl(),
    FAKE_CPU_PERCENT.decl(),
];

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
        let registry = Registry::new().with(OPTIONS).check(names_fit);
        let load = |text: &str| Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text)]);
        let good = "[DEFAULT]\ncompute_monitors = cpu.virt_driver\n[compute]\ntraits = CUSTOM_A, CUSTOM_B\n";
        assert_eq!(load(good).unwrap().get(&COMPUTE_TRAITS), ["CUSTOM_A", "CUSTOM_B"]);
        for (wrong, option) in [
            ("[DEFAULT]\ncompute_monitors = cpu", "DEFAULT.compute_monitors"),
            ("[compute]\ntraits = HW_CPU_X86_AVX2", "compute.traits"),
            ("[compute]\ntraits = CUSTOM_a", "compute.traits"),
            ("[fake]\ntraits = fast", "fake.traits"),
        ] {
            let errors = load(wrong).unwrap_err();
            assert_eq!((errors.len(), errors[0].option.as_deref()), (1, Some(option)), "{wrong}");
        }
    }
}
