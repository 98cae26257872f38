//! Weighers: which of the hosts that take a request is best. Named and set as in Nova (`filter_scheduler.weight_classes`
//! and the multipliers).
//!
//! A host's score is the sum over weighers of multiplier × (weight − least) / (most − least), least and most being those
//! of the hosts that passed the filters (`nova/weights.py`). A weigher that finds all hosts alike adds nothing.

mod build_failure;
mod cpu;
mod cross_cell;
mod disk;
mod hypervisor_version;
mod image_properties;
mod io_ops;
mod metrics;
mod num_instances;
mod pci;
mod ram;
mod soft_affinity;
mod zone_distance;

pub use build_failure::BuildFailureWeigher;
pub use cpu::CPUWeigher;
pub use cross_cell::CrossCellWeigher;
pub use disk::DiskWeigher;
pub use hypervisor_version::HypervisorVersionWeigher;
pub use image_properties::ImagePropertiesWeigher;
pub use io_ops::IoOpsWeigher;
pub use metrics::MetricsWeigher;
pub use num_instances::NumInstancesWeigher;
pub use pci::PCIWeigher;
pub use ram::RAMWeigher;
pub use soft_affinity::{ServerGroupSoftAffinityWeigher, ServerGroupSoftAntiAffinityWeigher};
pub use zone_distance::ZoneDistanceWeigher;

use crate::filter_scheduler::FilterOptions;
use crate::table::BLOCK;
use crate::{HostBlock, HostTable, HostView, Request, SchedulerError};

/// Orders hosts.
pub trait Weigher: Send + Sync {
    /// Its name in a configuration.
    fn name(&self) -> &str;

    /// How much it counts; below 0 its order is turned round, with 0 it isn't asked.
    fn multiplier(&self) -> f64;

    /// The key under which an aggregate's metadata may set another multiplier for its hosts.
    fn multiplier_key(&self) -> Option<&str> {
        None
    }

    /// What an aggregate's multiplier is multiplied by: -1 where the option counts against a host.
    fn aggregate_sign(&self) -> f64 {
        1.0
    }

    /// What the host is worth; more is better. Minus infinity says that it can't be told: the host comes after all others,
    /// whose weights are put on their scale without it.
    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64;

    /// The least that a host can be worth: lower weights are raised to it, and it is the least that the scale begins
    /// with.
    fn least(&self) -> Option<f64> {
        None
    }

    /// Whether all hosts are worth the same to this request, so that they need not be weighed.
    fn is_level(&self, _table: &HostTable, _request: &Request) -> bool {
        false
    }

    /// What the hosts at these `places` of a block are worth. What is written for other places is not read.
    fn weigh_block(&self, block: &HostBlock<'_>, request: &Request, places: u64, weights: &mut [f64; BLOCK]) {
        for place in crate::table::bits(places) {
            weights[place] = block.host(place).map_or(0.0, |host| self.weigh(&host, request));
        }
    }
}

/// The names that [`by_name`] knows.
pub const WEIGHERS: [&str; 14] = [
    "BuildFailureWeigher",
    "CPUWeigher",
    "CrossCellWeigher",
    "DiskWeigher",
    "HypervisorVersionWeigher",
    "ImagePropertiesWeigher",
    "IoOpsWeigher",
    "MetricsWeigher",
    "NumInstancesWeigher",
    "PCIWeigher",
    "RAMWeigher",
    "ServerGroupSoftAffinityWeigher",
    "ServerGroupSoftAntiAffinityWeigher",
    "ZoneDistanceWeigher",
];

/// Makes the weighers of a list of names; `all_weighers` stands for all. Module paths before names are left aside.
///
/// # Errors
///
/// [`SchedulerError::UnknownName`] lists the names there are.
pub fn by_names(names: &[String], options: &FilterOptions) -> Result<Vec<Box<dyn Weigher>>, SchedulerError> {
    let mut weighers = Vec::new();
    for name in names {
        match name.rsplit('.').next().unwrap_or(name) {
            "all_weighers" => {
                for name in WEIGHERS {
                    weighers.push(by_name(name, options)?);
                }
            }
            name => weighers.push(by_name(name, options)?),
        }
    }
    Ok(weighers)
}

/// Makes the weigher of that name.
///
/// # Errors
///
/// [`SchedulerError::UnknownName`] lists the names there are.
pub fn by_name(name: &str, options: &FilterOptions) -> Result<Box<dyn Weigher>, SchedulerError> {
    Ok(match name {
        "BuildFailureWeigher" => Box::new(BuildFailureWeigher::new(options)),
        "CPUWeigher" => Box::new(CPUWeigher::new(options)),
        "CrossCellWeigher" => Box::new(CrossCellWeigher::new(options)),
        "DiskWeigher" => Box::new(DiskWeigher::new(options)),
        "HypervisorVersionWeigher" => Box::new(HypervisorVersionWeigher::new(options)),
        "ImagePropertiesWeigher" => Box::new(ImagePropertiesWeigher::new(options)),
        "IoOpsWeigher" => Box::new(IoOpsWeigher::new(options)),
        "MetricsWeigher" => Box::new(MetricsWeigher::new(options)),
        "NumInstancesWeigher" => Box::new(NumInstancesWeigher::new(options)),
        "PCIWeigher" => Box::new(PCIWeigher::new(options)),
        "RAMWeigher" => Box::new(RAMWeigher::new(options)),
        "ServerGroupSoftAffinityWeigher" => Box::new(ServerGroupSoftAffinityWeigher::new(options)),
        "ServerGroupSoftAntiAffinityWeigher" => Box::new(ServerGroupSoftAntiAffinityWeigher::new(options)),
        "ZoneDistanceWeigher" => Box::new(ZoneDistanceWeigher::new(options)),
        _ => {
            return Err(SchedulerError::UnknownName {
                option: "weight_classes",
                name: name.to_owned(),
                known: WEIGHERS.join(", "),
            });
        }
    })
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of weighers share.

    use super::*;
    use crate::filter_scheduler::Company;
    use crate::query::{Overlay, Query};

    /// The weights of all hosts, by number, one by one and by block; both must agree.
    pub(crate) fn weights(weigher: &dyn Weigher, table: &HostTable, request: &Request) -> Vec<f64> {
        let query = Query::new(table, request, None);
        let overlay = Overlay::default();
        let company = Company::new(&query, &overlay);
        let mut found = Vec::new();
        for index in 0..table.blocks.len() {
            let block = HostBlock::new(&company, index);
            let mut weights = [0.0; BLOCK];
            weigher.weigh_block(&block, request, table.blocks[index].occupied, &mut weights);
            for host in block.hosts(table.blocks[index].occupied) {
                let number: usize = host.name()["host-".len()..].parse().unwrap();
                let place =
                    (0..BLOCK).find(|place| block.host(*place).is_some_and(|at| at.name() == host.name())).unwrap();
                assert_eq!(weights[place], weigher.weigh(&host, request));
                found.push((number, weights[place]));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        let found: Vec<f64> = found.into_iter().map(|(_, weight)| weight).collect();
        if weigher.is_level(table, request) {
            assert!(found.iter().all(|weight| *weight == found[0]), "level, but {found:?}");
        }
        found
    }

    #[test]
    fn every_name_makes_the_weigher_of_that_name() {
        let options = FilterOptions::default();
        let all = by_names(&options.weight_classes, &options).unwrap();
        assert_eq!(all.iter().map(|weigher| weigher.name()).collect::<Vec<_>>(), WEIGHERS);
        let one = by_names(&["nova.scheduler.weights.ram.RAMWeigher".to_owned()], &options).unwrap();
        assert_eq!(one[0].name(), "RAMWeigher");
        let error = by_names(&["LuckWeigher".to_owned()], &options).err().unwrap().to_string();
        assert!(error.contains("LuckWeigher") && error.contains("RAMWeigher"), "{error}");
    }
}
