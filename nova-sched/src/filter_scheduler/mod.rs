//! Filters and weighers: Nova's scheduler.

mod company;
mod options;
mod pipeline;
mod scores;

pub use company::HostBlock;
pub(crate) use company::{Company, floats};
pub use options::{FilterOptions, MetricsOptions};
use pipeline::Pipeline;

use crate::explain::{HostExplanation, explain};
use crate::filters::{self, Filter};
use crate::place::place;
use crate::query::Query;
use crate::weighers::{self, Weigher};
use crate::{GroupPolicy, HostTable, NoValidHost, Request, Scheduler, SchedulerError, SchedulerRng, Selection};

/// Looks at every host: filters turn away, weighers order the rest, and the best is taken (`nova/scheduler/manager.py`).
///
/// Filters and weighers are those of a configuration, in its order, and others added with [`FilterScheduler::with_filter`]
/// and [`FilterScheduler::with_weigher`]. Equally good hosts are chosen from by chance.
pub struct FilterScheduler {
    filters: Vec<Box<dyn Filter>>,
    weighers: Vec<Box<dyn Weigher>>,
    host_subset_size: u32,
}

impl FilterScheduler {
    /// Its name in a configuration.
    pub const NAME: &'static str = "filter";

    /// With the filters and weighers that the options name.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownName`] for a filter or weigher; [`SchedulerError::InvalidOption`] for a multiplier that is
    /// no number.
    pub fn new(options: &FilterOptions) -> Result<Self, SchedulerError> {
        let filters = options.enabled_filters.iter().map(|name| filters::by_name(name, options));
        let scheduler = Self {
            filters: filters.collect::<Result<_, _>>()?,
            weighers: weighers::by_names(&options.weight_classes, options)?,
            host_subset_size: options.host_subset_size.max(1),
        };
        match scheduler.weighers.iter().find(|weigher| !weigher.multiplier().is_finite()) {
            Some(weigher) => {
                let reason = format!("the multiplier of {} is not a number", weigher.name());
                Err(SchedulerError::InvalidOption { option: "weight_multiplier", reason })
            }
            None => Ok(scheduler),
        }
    }

    /// Without filters and weighers: any host that is up, enabled and has room.
    #[must_use]
    pub fn empty() -> Self {
        Self { filters: Vec::new(), weighers: Vec::new(), host_subset_size: 1 }
    }

    /// The same with one more filter, asked after the others.
    #[must_use]
    pub fn with_filter(mut self, filter: impl Filter + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// The same with one more weigher.
    #[must_use]
    pub fn with_weigher(mut self, weigher: impl Weigher + 'static) -> Self {
        self.weighers.push(Box::new(weigher));
        self
    }

    /// Weighers see to a group's wishes. Its rule is its filter's; where that is not enabled it is kept all the same,
    /// since the booking would refuse what breaks it.
    fn query<'a>(&self, table: &'a HostTable, request: &'a Request) -> Query<'a> {
        let query = Query::new(table, request, None);
        let filter = match request.group.as_ref().map(|group| group.policy) {
            Some(GroupPolicy::AntiAffinity) => "ServerGroupAntiAffinityFilter",
            Some(GroupPolicy::Affinity) => "ServerGroupAffinityFilter",
            _ => return query.without_groups(),
        };
        let enabled = self.filters.iter().any(|other| other.name() == filter);
        if enabled { query.without_groups() } else { query }
    }
}

impl Scheduler for FilterScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let query = self.query(table, request);
        let pipeline = Pipeline::new(self, &query, rng.next_u64());
        let mut alternates = Vec::new();
        place(&query, &pipeline, |overlay| {
            if overlay.excluded.is_empty() {
                return pipeline.best(overlay, self.host_subset_size, rng);
            }
            // Alternates are the next in the order in which hosts were when the last instance was placed.
            if overlay.excluded.iter().any(|row| alternates.contains(row)) {
                alternates.retain(|row| !overlay.excluded.contains(row));
            } else {
                alternates = pipeline.ranked(overlay, request.num_alternates as usize);
            }
            alternates.first().copied()
        })
    }

    fn explain(&self, table: &HostTable, request: &Request) -> Vec<HostExplanation> {
        let query = self.query(table, request);
        let pipeline = Pipeline::new(self, &query, 0);
        let parts = pipeline.parts();
        let score = |row| parts.get(&row).map(|parts| parts.iter().map(|(_, part)| part).sum());
        let mut told = explain(&query, &pipeline, &score);
        for host in &mut told {
            host.parts = table.row(&host.host).and_then(|row| parts.get(&row).cloned()).unwrap_or_default();
        }
        told
    }
}

#[cfg(test)]
mod tests;
