//! The table as plain data: to look at, to compare, to build another from.

use std::sync::Arc;

use super::HostTable;
use crate::dimensions::{Dimensions, ResourceVector};
use crate::{HostInventory, LoadSource, SchedulerError};

/// A host, and how full it is.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSnapshot {
    /// Its description.
    pub inventory: HostInventory,
    /// What may be handed out.
    pub capacity: ResourceVector,
    /// What is handed out.
    pub used: ResourceVector,
    /// How many consumers hold something here.
    pub consumers: usize,
    /// When the last heartbeat came, in the caller's milliseconds.
    pub last_heartbeat_ms: Option<u64>,
}

/// What one consumer holds on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationSnapshot {
    /// The consumer's number.
    pub consumer: u128,
    /// The host's name.
    pub host: String,
    /// How much.
    pub resources: ResourceVector,
}

/// All that a table knows, in an order that doesn't depend on how it came to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSnapshot {
    /// What is counted.
    pub dimensions: Dimensions,
    /// The hosts, by name.
    pub hosts: Vec<HostSnapshot>,
    /// The allocations, by consumer, then host.
    pub allocations: Vec<AllocationSnapshot>,
}

impl HostTable {
    /// Copies what the table knows.
    #[must_use]
    pub fn snapshot(&self) -> TableSnapshot {
        let mut hosts: Vec<HostSnapshot> = self.hosts().map(|host| self.snapshot_host(&host)).collect();
        hosts.sort_by(|a, b| a.inventory.name.cmp(&b.inventory.name));
        let mut consumers: Vec<u128> = self.consumers().collect();
        consumers.sort_unstable();
        let allocations = consumers.into_iter().flat_map(|consumer| {
            self.holdings(consumer).into_iter().map(move |holding| AllocationSnapshot {
                consumer,
                host: holding.host,
                resources: holding.resources,
            })
        });
        TableSnapshot { dimensions: self.dimensions.clone(), allocations: allocations.collect(), hosts }
    }

    /// Builds a table that knows the same, with these load indexes.
    ///
    /// # Errors
    ///
    /// As [`HostTable::upsert_host`] and [`HostTable::record_allocation`].
    pub fn from_snapshot(
        snapshot: &TableSnapshot,
        loads: impl IntoIterator<Item = Arc<dyn LoadSource>>,
    ) -> Result<Self, SchedulerError> {
        let mut table = Self::new(snapshot.dimensions.clone());
        loads.into_iter().for_each(|source| table.register_load(source));
        for host in &snapshot.hosts {
            table.upsert_host(host.inventory.clone())?;
            if let Some(row) = table.row(&host.inventory.name)
                && let Some(cold) = table.cold_mut(row)
            {
                cold.set_last_heartbeat_ms(host.last_heartbeat_ms);
            }
        }
        for allocation in &snapshot.allocations {
            table.record_allocation(&allocation.host, allocation.consumer, &allocation.resources)?;
        }
        Ok(table)
    }

    fn snapshot_host(&self, host: &crate::HostView<'_>) -> HostSnapshot {
        let (mut capacity, mut used) = (ResourceVector::default(), ResourceVector::default());
        for index in 0..self.dimensions.len() {
            capacity.set(index, host.capacity(index));
            used.set(index, host.used(index));
        }
        HostSnapshot {
            inventory: host.inventory(),
            capacity,
            used,
            consumers: host.consumers(),
            last_heartbeat_ms: host.last_heartbeat_ms(),
        }
    }
}
