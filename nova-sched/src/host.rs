//! What is known of a host: the description given by the caller, and the view that algorithms read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
use crate::table::{Cold, HostTable, Row};

/// How often each dimension may be handed out, in the order of [`Dimensions`](crate::Dimensions); 1.0 where not said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios(pub(crate) [f64; MAX_DIMENSIONS]);

impl Default for Ratios {
    fn default() -> Self {
        Self([1.0; MAX_DIMENSIONS])
    }
}

impl Ratios {
    /// The ratio of the dimension at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(1.0)
    }

    /// Sets the ratio of the dimension at `index`; beyond [`MAX_DIMENSIONS`] nothing happens.
    pub fn set(&mut self, index: usize, ratio: f64) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = ratio;
        }
    }
}

impl<const N: usize> From<[f64; N]> for Ratios {
    fn from(given: [f64; N]) -> Self {
        const { assert!(N <= MAX_DIMENSIONS, "too many dimensions") };
        let mut ratios = Self::default();
        ratios.0[..N].copy_from_slice(&given);
        ratios
    }
}

/// What a host reports of its present state, apart from what is allocated on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostStats {
    /// Builds, resizes, snapshots, migrations and rescues that are under way.
    pub io_ops: u32,
    /// Builds that have failed since one succeeded.
    pub failed_builds: u32,
    /// Figures by name, such as `cpu.percent`.
    pub metrics: BTreeMap<String, f64>,
}

/// A host as the caller describes it. What is allocated on it is not part of this; the table counts that itself.
///
/// What may be handed out of a dimension is `(total - reserved) * ratio`, rounded down, and never less than nothing:
/// Placement's formula (`nova/api/openstack/placement`, now the project of that name).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HostInventory {
    /// The host's name: its key in the table.
    pub name: String,
    /// The hypervisor on it; the same as the name unless said otherwise.
    pub node: String,
    /// The availability zone that it is in.
    pub zone: String,
    /// What the machine has, in the table's dimensions.
    pub total: ResourceVector,
    /// What is kept from instances.
    pub reserved: ResourceVector,
    /// How often the rest may be handed out.
    pub ratio: Ratios,
    /// Whether an operator lets instances be placed here.
    pub enabled: bool,
    /// Why not, for operators.
    pub disabled_reason: Option<String>,
    /// Whether the host's service is alive.
    pub up: bool,
    /// The architectures of guests that it can run (`x86_64`, `aarch64`).
    pub architectures: Vec<String>,
    /// What else it can do, as names that requests may require or forbid.
    pub traits: Vec<String>,
    /// A load figure from outside (CPU utilisation, a load balancer's), in a unit of the caller's; less is better.
    pub reported_load: u64,
    /// What it reports of its present state; kept current by [`HostTable::set_stats`](crate::HostTable::set_stats).
    pub stats: HostStats,
}

impl HostInventory {
    /// A host that is up and enabled, with nothing reserved and ratios of 1.
    #[must_use]
    pub fn new(name: impl Into<String>, zone: impl Into<String>, total: ResourceVector) -> Self {
        let name = name.into();
        Self {
            node: name.clone(),
            name,
            zone: zone.into(),
            total,
            reserved: ResourceVector::default(),
            ratio: Ratios::default(),
            enabled: true,
            disabled_reason: None,
            up: true,
            architectures: Vec::new(),
            traits: Vec::new(),
            reported_load: 0,
            stats: HostStats::default(),
        }
    }

    /// What may be handed out of the dimension at `index`.
    #[must_use]
    pub fn capacity(&self, index: usize) -> u64 {
        capacity(self.total.get(index), self.reserved.get(index), self.ratio.get(index))
    }
}

/// `(total - reserved) * ratio`, rounded down; nothing when more is reserved than there is.
pub(crate) fn capacity(total: u64, reserved: u64, ratio: f64) -> u64 {
    let usable = total.saturating_sub(reserved);
    // A ratio of exactly 1 stays exact beyond 2^53, where a float would round.
    if ratio == 1.0 { usable } else { (usable as f64 * ratio) as u64 }
}

/// A host as an algorithm sees it: the table's row, and what the request at hand has already placed on it.
#[derive(Clone, Copy)]
pub struct HostView<'a> {
    table: &'a HostTable,
    cold: &'a Cold,
    row: Row,
    pending: ResourceVector,
}

impl<'a> HostView<'a> {
    pub(crate) fn new(table: &'a HostTable, row: Row, pending: ResourceVector) -> Option<Self> {
        table.cold(row).map(|cold| Self { table, cold, row, pending })
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.cold.name
    }

    /// The hypervisor on it.
    #[must_use]
    pub fn node(&self) -> &'a str {
        &self.cold.node
    }

    /// Its availability zone.
    #[must_use]
    pub fn zone(&self) -> &'a str {
        self.table.zone_of(self.row)
    }

    /// Whether its service is alive.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.table.bit(self.row, |block| block.up)
    }

    /// Whether instances may be placed on it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.table.bit(self.row, |block| block.enabled)
    }

    /// What may be handed out of the dimension at `index`.
    #[must_use]
    pub fn capacity(&self, index: usize) -> u64 {
        self.table.capacity_at(self.row, index)
    }

    /// What is handed out of the dimension at `index`, earlier instances of the same request included.
    #[must_use]
    pub fn used(&self, index: usize) -> u64 {
        self.table.used_at(self.row, index).saturating_add(self.pending.get(index))
    }

    /// [`HostView::used`] by the dimension's name; `None` when the table doesn't count it.
    #[must_use]
    pub fn used_of(&self, dimension: &str) -> Option<u64> {
        self.table.dimensions().index(dimension).map(|index| self.used(index))
    }

    /// What is left of the dimension at `index`.
    #[must_use]
    pub fn free(&self, index: usize) -> u64 {
        self.capacity(index).saturating_sub(self.used(index))
    }

    /// How many consumers hold something here.
    #[must_use]
    pub fn consumers(&self) -> usize {
        self.cold.consumers.len()
    }

    /// Operations under way that load disks and network.
    #[must_use]
    pub fn io_ops(&self) -> u32 {
        self.table.counts.io_ops_at(self.row)
    }

    /// Builds that have failed since one succeeded.
    #[must_use]
    pub fn failed_builds(&self) -> u32 {
        self.table.counts.failed_builds_at(self.row)
    }

    /// The figure of that name, if the host reports it.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.cold.metrics.get(name).copied()
    }

    /// The load figure from outside.
    #[must_use]
    pub fn reported_load(&self) -> u64 {
        self.cold.reported_load
    }

    /// When the last heartbeat came, in the caller's milliseconds.
    #[must_use]
    pub fn last_heartbeat_ms(&self) -> Option<u64> {
        self.cold.last_heartbeat_ms
    }

    /// The description, as last given and changed since.
    #[must_use]
    pub fn inventory(&self) -> HostInventory {
        self.table.inventory_of(self.row, self.cold)
    }

    pub(crate) fn name_arc(&self) -> Arc<str> {
        Arc::clone(&self.cold.name)
    }

    pub(crate) fn node_arc(&self) -> Arc<str> {
        Arc::clone(&self.cold.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_placements_formula() {
        assert_eq!(capacity(16, 0, 4.0), 64);
        assert_eq!(capacity(1000, 512, 1.5), 732);
        assert_eq!(capacity(7, 0, 1.1), 7);
        assert_eq!(capacity(100, 512, 1.0), 0);
        assert_eq!(capacity((1 << 60) + 1, 0, 1.0), (1 << 60) + 1);
    }
}
