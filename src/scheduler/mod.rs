//! nova-scheduler: the service around a [`nova_sched::Scheduler`]: it keeps the host table current and answers
//! `select_destinations`.
//!
//! The table is built from the store and read anew at intervals, and always once more before a request is refused: a
//! "no" is never stale. Decisions go on while the store is read. Between readings the table follows the news of
//! conductors and APIs, and its own answers: a place that was just promised counts as taken until the store shows it or
//! [`TENTATIVE`] has passed. What is told says how new it is, so that nothing older undoes it.
//!
//! Whatever the algorithm, hosts are in the zones that aggregates make, and server groups hold: algorithms read the rule
//! and where members are, or were promised to be. The booking in the store checks both once more.

mod aggregates;
mod groups;
mod images;
mod inventory;
mod manager;
mod news;
mod options;
mod promises;
mod reading;
mod request;
mod table;
#[cfg(test)]
mod testing;
mod topology;

pub use manager::{Parts, SchedulerService, ServiceOptions};
pub use options::{SCHEDULER_OPTIONS, algorithm_options};
pub use reading::Stored;
pub use table::{Hosts, TENTATIVE};
