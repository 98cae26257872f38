//! The trait that every algorithm implements, and their names in a configuration.

use std::sync::Arc;

use crate::explain::{HostExplanation, explain_checks};
use crate::filter_scheduler::{FilterOptions, FilterScheduler};
use crate::least_load::{LeastLoadOptions, LeastLoadScheduler, TieBreak};
use crate::{
    AvailabilityZoneScheduler, HostTable, NoValidHost, RandomScheduler, Request, SchedulerError, SchedulerRng,
    Selection, ZoneDistances,
};

/// Picks hosts.
///
/// An algorithm is a pure function of the table, the request and the generator: the same three give the same answer.
/// It changes nothing; whoever acts on the answer books it with [`HostTable::allocate`]. The suite in
/// `nova_sched::conformance` (feature `conformance`) checks what is promised here.
pub trait Scheduler: Send + Sync {
    /// The name in a configuration.
    fn name(&self) -> &'static str;

    /// Gives the table the indexes that the algorithm reads. Call it once per table; without it the answers are the
    /// same, but slower.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownDimension`] when the table doesn't count what the algorithm reads.
    fn register(&self, _table: &mut HostTable) -> Result<(), SchedulerError> {
        Ok(())
    }

    /// A host for every instance of the request, in order; all of them, or none.
    ///
    /// A host chosen is up, enabled, in the zone asked for, of the architecture and traits asked for, not ignored, and
    /// has room for all instances of this request that are put on it. A forced host only needs to be up and have room.
    ///
    /// # Errors
    ///
    /// [`NoValidHost`] when one of the instances finds no host.
    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost>;

    /// What the algorithm thinks of every host for this request, the best first, then those that it turns away, by name.
    /// For an operator's question, not for decisions. By default only the checks that all algorithms make are told.
    fn explain(&self, table: &HostTable, request: &Request) -> Vec<HostExplanation> {
        explain_checks(table, request)
    }
}

/// Options of the algorithms, as a configuration gives them. What an algorithm doesn't know, it doesn't read.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// `availability_zone`: where to go when no zone is asked for; all zones when absent.
    pub default_zone: Option<String>,
    /// `least_load`: `cores` (when absent), `memory`, `disk`, `pack` (the fullest first), `io`, `cpu`, `reported`, or the name of a dimension.
    pub load_source: Option<String>,
    /// `least_load`: a host may not have more cores than this handed out (Nova's `max_cores`).
    pub max_cores: Option<u64>,
    /// `least_load`: how to choose among equally loaded hosts.
    pub tie_break: TieBreak,
    /// `least_load`: of equally loaded hosts, the nearest to the zones that a request wants to be near to.
    pub zone_distances: Option<Arc<ZoneDistances>>,
    /// `filter`: its filters, weighers and their options.
    pub filter: FilterOptions,
}

/// The names that [`by_name`] knows.
pub const SCHEDULERS: [&str; 4] =
    [RandomScheduler::NAME, AvailabilityZoneScheduler::NAME, LeastLoadScheduler::NAME, FilterScheduler::NAME];

/// Makes the algorithm of that name.
///
/// # Errors
///
/// [`SchedulerError::UnknownScheduler`] lists the names there are; [`SchedulerError::InvalidOption`].
pub fn by_name(name: &str, options: &SchedulerOptions) -> Result<Box<dyn Scheduler>, SchedulerError> {
    match name {
        RandomScheduler::NAME => Ok(Box::new(RandomScheduler::new())),
        AvailabilityZoneScheduler::NAME => Ok(Box::new(AvailabilityZoneScheduler::new(options.default_zone.clone()))),
        LeastLoadScheduler::NAME => {
            let options = LeastLoadOptions {
                max_cores: options.max_cores,
                tie_break: options.tie_break,
                zone_distances: options.zone_distances.clone(),
                ..LeastLoadOptions::from_source_name(options.load_source.as_deref())?
            };
            Ok(Box::new(LeastLoadScheduler::new(options)))
        }
        FilterScheduler::NAME => Ok(Box::new(FilterScheduler::new(&options.filter)?)),
        _ => Err(SchedulerError::UnknownScheduler { name: name.to_owned(), known: SCHEDULERS.join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_makes_the_algorithm_of_that_name() {
        for name in SCHEDULERS {
            assert_eq!(by_name(name, &SchedulerOptions::default()).unwrap().name(), name);
        }
        let error = by_name("chance", &SchedulerOptions::default()).err().unwrap();
        assert!(error.to_string().contains("random, availability_zone, least_load, filter"), "{error}");
        let options = SchedulerOptions { load_source: Some(String::new()), ..SchedulerOptions::default() };
        assert!(by_name("least_load", &options).is_err());
    }
}
