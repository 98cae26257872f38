//! The least loaded host that fits.

use std::sync::Arc;

use crate::explain::{HostExplanation, explain};
use crate::load_source::{CpuLoad, IoLoad, LoadSource, PackLoad, ReportedLoad, UsedLoad};
use crate::place::place;
use crate::query::{Limit, Overlay, Query};
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerError, SchedulerRng, Selection, ZoneDistances};
use choose::Chooser;

mod choose;

/// The dimension that `max_cores` bounds.
const CORES: &str = "vcpus";

/// How to choose among equally loaded hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TieBreak {
    /// By chance, from the seed: schedulers that decide at the same time seldom take the same host.
    #[default]
    Random,
    /// The first name in alphabetical order, for answers that can be foretold.
    Name,
}

/// Options of [`LeastLoadScheduler`].
#[derive(Clone)]
#[non_exhaustive]
pub struct LeastLoadOptions {
    /// What load is.
    pub source: Arc<dyn LoadSource>,
    /// A host may not have more `vcpus` than this handed out; Nova's `max_cores`, which was 16.
    pub max_cores: Option<u64>,
    /// How to choose among equals.
    pub tie_break: TieBreak,
    /// Of equally loaded hosts, those nearest to [`Request::near_zones`] come first.
    pub zone_distances: Option<Arc<ZoneDistances>>,
}

impl Default for LeastLoadOptions {
    fn default() -> Self {
        Self::from_source(Arc::new(UsedLoad::cores()))
    }
}

impl LeastLoadOptions {
    /// With that load, no bound, ties by chance.
    #[must_use]
    pub fn from_source(source: Arc<dyn LoadSource>) -> Self {
        Self { source, max_cores: None, tie_break: TieBreak::default(), zone_distances: None }
    }

    pub(crate) fn from_source_name(name: Option<&str>) -> Result<Self, SchedulerError> {
        let source: Arc<dyn LoadSource> = match name {
            None | Some("cores") => Arc::new(UsedLoad::cores()),
            Some("memory") => Arc::new(UsedLoad::of("memory_mb")),
            Some("disk") => Arc::new(UsedLoad::of("disk_gb")),
            Some("pack") => Arc::new(PackLoad),
            Some("io") => Arc::new(IoLoad),
            Some("cpu") => Arc::new(CpuLoad),
            Some("reported") => Arc::new(ReportedLoad),
            Some("") => {
                let reason = "is empty; one of cores, memory, disk, pack, io, cpu, reported, or a dimension".to_owned();
                return Err(SchedulerError::InvalidOption { option: "load_source", reason });
            }
            Some(dimension) => Arc::new(UsedLoad::of(dimension)),
        };
        Ok(Self::from_source(source))
    }
}

/// The least loaded host that fits: Nova's "simple" scheduler (removed there in 2012).
///
/// Load is what a [`LoadSource`] says, by default the cores handed out. [`Scheduler::register`] makes the table keep an
/// index of it; without one every host is asked.
#[derive(Clone, Default)]
pub struct LeastLoadScheduler {
    options: LeastLoadOptions,
}

impl LeastLoadScheduler {
    /// Its name in a configuration.
    pub const NAME: &'static str = "least_load";

    /// With these options.
    #[must_use]
    pub fn new(options: LeastLoadOptions) -> Self {
        Self { options }
    }

    /// The bound on cores; an operator who forces a host is above it.
    fn limit(&self, table: &HostTable, request: &Request) -> Option<Limit> {
        if request.forced().is_some() {
            return None;
        }
        let dimension = table.dimensions().index(CORES)?;
        self.options.max_cores.map(|most| Limit { name: "max_cores", dimension, most })
    }
}

impl Scheduler for LeastLoadScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn register(&self, table: &mut HostTable) -> Result<(), SchedulerError> {
        self.options.source.check(table.dimensions())?;
        if self.options.max_cores.is_some() && table.dimensions().index(CORES).is_none() {
            return Err(SchedulerError::UnknownDimension { name: CORES.to_owned() });
        }
        table.register_load(Arc::clone(&self.options.source));
        Ok(())
    }

    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let query = Query::new(table, request, self.limit(table, request));
        let mut chooser = Chooser::new(&self.options, &query, rng.next_u64());
        place(&query, &query, |overlay| chooser.choose(overlay))
    }

    fn explain(&self, table: &HostTable, request: &Request) -> Vec<HostExplanation> {
        let query = Query::new(table, request, self.limit(table, request));
        let load = |row| query.view(row, &Overlay::default()).map(|host| self.options.source.load(host));
        explain(&query, &query, &|row| load(row).map(|load| 0.0 - load as f64))
    }
}

#[cfg(test)]
mod tests;
