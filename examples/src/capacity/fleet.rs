//! The fleet that a trace is replayed over.

mod description;

use std::collections::BTreeMap;

use nova_sched::{Dimensions, HostInventory, HostTable, ResourceVector, SchedulerError};

use super::DIMENSIONS;
pub use description::parse;

/// The zone of hosts for which none is given: Nova's `default_availability_zone`.
pub const DEFAULT_ZONE: &str = "nova";

/// The hosts, before anything is placed on them by the replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// Where the description comes from.
    pub source: String,
    /// The hosts.
    pub hosts: Vec<FleetHost>,
    /// What of the description could not be taken over.
    pub notes: Vec<String>,
}

/// A host, and what is in use on it from the start.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetHost {
    /// The host's description.
    pub inventory: HostInventory,
    /// What is in use for the whole replay.
    pub in_use: ResourceVector,
}

impl Fleet {
    /// The table that schedulers read. What is in use is booked for consumers numbered downwards from the largest number.
    ///
    /// # Errors
    /// A host's description can't be used.
    pub fn table(&self) -> Result<HostTable, SchedulerError> {
        let mut table = HostTable::new(Dimensions::new(DIMENSIONS)?);
        for (number, host) in (0_u128..).zip(&self.hosts) {
            table.upsert_host(host.inventory.clone())?;
            if !host.in_use.is_zero() {
                table.record_allocation(&host.inventory.name, u128::MAX - number, &host.in_use)?;
            }
        }
        Ok(table)
    }

    /// What may be handed out of all hosts together, by dimension.
    pub fn capacity(&self) -> [u64; 3] {
        std::array::from_fn(|index| {
            self.hosts.iter().fold(0, |sum: u64, host| sum.saturating_add(host.inventory.capacity(index)))
        })
    }

    /// The zones, by name, with how many hosts they have.
    pub fn zones(&self) -> BTreeMap<&str, usize> {
        let mut zones = BTreeMap::new();
        for host in &self.hosts {
            *zones.entry(host.inventory.zone.as_str()).or_insert(0) += 1;
        }
        zones
    }
}

/// What a host with this aggregate metadata offers, as a trait that requests can ask for.
pub fn aggregate_trait(key: &str, value: &str) -> String {
    format!("aggregate:{key}={value}")
}
