//! nova-scheduler: the service around a [`nova_sched::Scheduler`]: it keeps the host table current and answers
//! `select_destinations`.
//!
//! The table is built from the store and read anew at intervals, and always once more before a request is refused: a
//! "no" is never stale. Between readings it follows the news of the conductors, and its own answers: a place that was
//! just promised counts as taken until the store shows it or [`TENTATIVE`] has passed.
//!
//! Whatever the algorithm, hosts are in the zones that aggregates make, and server groups hold: their policy is put to
//! the algorithm as hosts to avoid or to take. The booking in the store checks both once more.

mod aggregates;
mod groups;
mod images;
mod inventory;
mod manager;
mod options;
mod promises;
mod request;
mod table;
mod topology;

pub use manager::{Parts, SchedulerService, ServiceOptions};
pub use options::{SCHEDULER_OPTIONS, algorithm_options};
pub use table::{Hosts, Stored, TENTATIVE};
