//! Scheduler of virtual machines: picks a host, or says why none fits.
//!
//! The crate is a table of hosts and some algorithms that read it. It counts whatever resources the caller names, on
//! hosts that the caller describes, and knows nothing of flavors, images, databases or networks. It has no clock, no
//! randomness of its own, no I/O and no async runtime: time and seeds are passed in, so the same calls give the same
//! answers.
//!
//! ```
//! use nova_sched::{Dimensions, HostInventory, HostTable, LeastLoadScheduler, Request, Scheduler, SchedulerRng};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb"])?);
//! table.upsert_host(HostInventory::new("rack1-a", "east", [16, 65_536].into()))?;
//! table.upsert_host(HostInventory::new("rack2-a", "west", [16, 65_536].into()))?;
//! table.allocate("rack1-a", 1, &[4, 8_192].into())?;
//!
//! let scheduler = LeastLoadScheduler::default();
//! scheduler.register(&mut table)?;
//! let mut rng = SchedulerRng::from_seed(42);
//!
//! let request = Request::new([2, 4_096].into());
//! let chosen = scheduler.select_destinations(&table, &request, &mut rng)?;
//! assert_eq!(&*chosen[0].host, "rack2-a");
//! table.allocate(&chosen[0].host, 2, &request.resources)?;
//!
//! let refused = scheduler.select_destinations(&table, &Request::new([15, 4_096].into()), &mut rng).unwrap_err();
//! assert_eq!(refused.reasons, [("vcpus".to_owned(), 2)]);
//! println!("{refused}"); // ... closest was rack2-a, which lacked vcpus=1; there vcpus=14, memory_mb=4096 would fit
//! # Ok(())
//! # }
//! ```
//!
//! | algorithm | picks |
//! |---|---|
//! | [`RandomScheduler`] | any host that fits, in any zone |
//! | [`AvailabilityZoneScheduler`] | any host that fits in the asked zone, or a host named as `zone:host` |
//! | [`LeastLoadScheduler`] | the least loaded host that fits; a [`LoadSource`] says what load is |
//! | [`FilterScheduler`] | the host that passes all [`filters`] and that [`weighers`] find best: Nova's own |
//!
//! An algorithm of one's own implements [`Scheduler`] over the public view of the table, and is held to the suite in
//! `conformance` (a feature).

mod attributes;
mod availability_zone;
mod batch;
mod classes;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod dimensions;
mod error;
mod explain;
mod filter_scheduler;
pub mod filters;
#[cfg(any(test, feature = "conformance"))]
mod fixtures;
mod group;
mod hash;
mod host;
mod least_load;
mod load_source;
mod no_valid_host;
mod place;
mod query;
mod random;
mod rebalance;
mod request;
mod rng;
mod scheduler;
mod table;
mod topology;
pub mod weighers;
mod zone_distance;

pub use attributes::{Aggregate, HostAttributes, SupportedInstance};
pub use availability_zone::AvailabilityZoneScheduler;
pub use batch::{BatchItem, BatchRefusal, place_batch};
pub use dimensions::{Dimensions, MAX_DIMENSIONS, ResourceVector};
pub use error::SchedulerError;
pub use explain::{HostExplanation, Objection};
pub use filter_scheduler::{FilterOptions, FilterScheduler, HostBlock, MetricsOptions};
pub use filters::Filter;
pub use host::{HostInventory, HostStats, HostView, Ratios, Variable};
pub use least_load::{LeastLoadOptions, LeastLoadScheduler, TieBreak};
pub use load_source::{CpuLoad, IoLoad, LoadSource, PackLoad, ReportedLoad, UsedLoad};
pub use no_valid_host::{NearestMiss, NoValidHost};
pub use random::RandomScheduler;
pub use rebalance::{Move, moves_to_consolidate, moves_to_free};
pub use request::{Destination, GroupPolicy, Hints, ImageRef, Purpose, Request, Selection, ServerGroup, ZoneTarget};
pub use rng::SchedulerRng;
pub use scheduler::{SCHEDULERS, Scheduler, SchedulerOptions, by_name};
pub use table::{AllocationSnapshot, Applied, Holding, HostSnapshot, HostTable, TableSnapshot, TopologyClaim};
pub use topology::{CpuPolicy, GuestCell, NumaCell, PciPool, PciRequest};
pub use weighers::Weigher;
pub use zone_distance::ZoneDistances;
