//! The least loaded host that fits.

use std::sync::Arc;

use crate::load_source::{LoadSource, ReportedLoad, UsedLoad};
use crate::place::place;
use crate::query::{Limit, Overlay, Query, Search, at_least};
use crate::table::{LoadIndexRef, Row, Zone, bits, merit, row_at};
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerError, SchedulerRng, Selection};

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
        Self { source, max_cores: None, tie_break: TieBreak::default() }
    }

    pub(crate) fn from_source_name(name: Option<&str>) -> Result<Self, SchedulerError> {
        let source: Arc<dyn LoadSource> = match name {
            None | Some("cores") => Arc::new(UsedLoad::cores()),
            Some("memory") => Arc::new(UsedLoad::of("memory_mb")),
            Some("disk") => Arc::new(UsedLoad::of("disk_gb")),
            Some("reported") => Arc::new(ReportedLoad),
            Some("") => {
                let reason = "is empty; one of cores, memory, disk, reported, or a dimension".to_owned();
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
        let index = table.load_index_ref(self.options.source.name());
        place(&query, |overlay| {
            let start = match self.options.tie_break {
                TieBreak::Random => rng.next_u64(),
                TieBreak::Name => 0,
            };
            let mut best = Best { options: &self.options, query: &query, overlay, index, start, found: None };
            best.ask_placed();
            query.walk(overlay, start, &mut best);
            best.found.map(|found| found.row)
        })
    }
}

#[derive(Clone, Copy)]
struct Found {
    merit: i64,
    row: Row,
}

/// The best host so far, on a walk through the blocks.
struct Best<'a> {
    options: &'a LeastLoadOptions,
    query: &'a Query<'a>,
    overlay: &'a Overlay,
    index: Option<LoadIndexRef<'a>>,
    start: u64,
    found: Option<Found>,
}

impl Best<'_> {
    /// Hosts that already have an instance of this request have another load than the index says.
    fn ask_placed(&mut self) {
        for row in self.overlay.placed.keys() {
            if self.query.verdict(*row, self.overlay).is_ok() && !self.overlay.excluded.contains(row) {
                self.offer(*row, self.ask(*row));
            }
        }
    }

    fn ask(&self, row: Row) -> i64 {
        self.query.view(row, self.overlay).map_or(i64::MIN, |host| merit(self.options.source.load(host)))
    }

    fn offer(&mut self, row: Row, merit: i64) {
        let better = match self.found {
            None => true,
            Some(found) if found.merit == merit => self.wins_tie(row, found.row),
            Some(found) => merit > found.merit,
        };
        if better {
            self.found = Some(Found { merit, row });
        }
    }

    fn wins_tie(&self, row: Row, other: Row) -> bool {
        let name = |row| self.query.table.cold(row).map(|cold| &cold.name);
        self.options.tie_break == TieBreak::Name && name(row) < name(other)
    }

    /// Whether a host of that merit would be taken.
    fn improves(&self, merit: i64) -> bool {
        match (self.found, self.options.tie_break) {
            (None, _) => true,
            (Some(found), TieBreak::Random) => merit > found.merit,
            (Some(found), TieBreak::Name) => merit >= found.merit,
        }
    }
}

impl Search for Best<'_> {
    fn wants_group(&self, zone: &Zone, group: usize) -> bool {
        self.index.is_none_or(|index| self.improves(zone.best_merit[index.number].group(group)))
    }

    fn wants_block(&self, zone: &Zone, position: usize) -> bool {
        self.index.is_none_or(|index| self.improves(zone.best_merit[index.number].block(position)))
    }

    fn narrow(&self, block: usize) -> u64 {
        match (self.index, self.found) {
            (Some(index), Some(found)) => {
                let least = found.merit + i64::from(self.options.tie_break == TieBreak::Random);
                at_least(&index.merits[block], least)
            }
            _ => u64::MAX,
        }
    }

    fn visit(&mut self, block: usize, mut candidates: u64) {
        let first = row_at(block, 0);
        for (row, _) in self.overlay.placed.range(first..=row_at(block, 63)) {
            candidates &= !(1 << (row - first));
        }
        // Begins at a bit of the seed, so that equals within a block share the choice.
        let turn = (self.start & 63) as u32;
        for bit in bits(candidates.rotate_right(turn)) {
            let bit = (bit + turn as usize) & 63;
            let row = row_at(block, bit);
            let merit = match self.index {
                Some(index) => index.merits[block][bit],
                None => self.ask(row),
            };
            self.offer(row, merit);
        }
    }
}

#[cfg(test)]
mod tests;
