//! A host as algorithms see it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::HostInventory;
use crate::attributes::HostAttributes;
use crate::dimensions::ResourceVector;
use crate::table::{Cold, HostTable, Row};
use crate::topology::{GuestCell, PciRequest};

/// What is known of a host under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Variable<'a> {
    /// A number.
    Number(f64),
    /// Anything else.
    Text(Cow<'a, str>),
}

impl fmt::Display for Variable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A host as an algorithm sees it: the table's row, and what the request at hand has already placed on it.
#[derive(Clone, Copy)]
pub struct HostView<'a> {
    table: &'a HostTable,
    cold: &'a Cold,
    row: Row,
    pending: ResourceVector,
    placed: u32,
    members: u32,
    group_placed: bool,
}

impl<'a> HostView<'a> {
    pub(crate) fn new(table: &'a HostTable, row: Row, pending: ResourceVector) -> Option<Self> {
        table.cold(row).map(|cold| Self { table, cold, row, pending, placed: 0, members: 0, group_placed: false })
    }

    /// The same, with how many instances of the request, and how many members of its group, are there.
    pub(crate) fn with_company(mut self, placed: u32, members: u32, group_placed: bool) -> Self {
        (self.placed, self.members, self.group_placed) = (placed, members, group_placed);
        self
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.cold.name
    }

    /// The hypervisor on it.
    #[must_use]
    pub fn node(&self) -> &'a str {
        self.cold.node()
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

    /// How many instances are there: consumers, and those that the request at hand has already placed.
    #[must_use]
    pub fn instances(&self) -> u32 {
        (self.cold.consumers.len() as u32).saturating_add(self.placed)
    }

    /// How many members of the request's group are there, those that the request has already placed included. Known to
    /// filters and weighers; otherwise 0.
    #[must_use]
    pub fn group_members(&self) -> u32 {
        self.members
    }

    /// Whether the consumer holds something here.
    #[must_use]
    pub fn holds(&self, consumer: u128) -> bool {
        self.table.holds_on(consumer, self.row)
    }

    /// What the machine has of the dimension at `index`.
    #[must_use]
    pub fn total(&self, index: usize) -> u64 {
        self.table.stock_of(self.row).total.get(index)
    }

    /// What is neither reserved nor handed out of the dimension at `index`, ratios aside: Nova's `free_ram_mb`. Below
    /// 0 when more is handed out than there is.
    #[must_use]
    pub fn unused(&self, index: usize) -> i64 {
        let stock = self.table.stock_of(self.row);
        stock.usable(index) - self.used(index) as i64
    }

    /// Whether some member of the request's group is placed anywhere.
    pub(crate) fn group_is_placed(&self) -> bool {
        self.group_placed
    }

    /// Whether NUMA cells and devices are left for one more instance, those that the request has already placed here
    /// counted.
    #[must_use]
    pub fn topology_fits(&self, cells: &[GuestCell], pci: &[PciRequest]) -> bool {
        self.table.topology_fits(self.row, cells, pci, self.placed.saturating_add(1))
    }

    /// Free devices of all sorts.
    #[must_use]
    pub fn free_devices(&self) -> u32 {
        self.table.free_devices(self.row)
    }

    /// The image properties of the instances here, as far as they are noted.
    pub fn image_properties(&self) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
        let table = self.table;
        self.cold.consumers.iter().filter_map(move |consumer| table.image_properties(*consumer))
    }

    /// What Nova's filters know of a host, by name: `host`, `nodename`, `host_ip`, `free_ram_mb`, `free_disk_mb`,
    /// `total_usable_ram_mb`, `total_usable_disk_gb`, `disk_mb_used`, `vcpus_total`, `vcpus_used`, `num_instances`,
    /// `num_io_ops`, `failed_builds`, `hypervisor_type`, `hypervisor_version`, the three `*_allocation_ratio`, and
    /// whatever the host tells among its capabilities.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<Variable<'a>> {
        let index = |dimension| self.table.dimensions().index(dimension);
        let attributes = self.attributes();
        let number = |number: f64| Some(Variable::Number(number));
        match name {
            "host" => Some(Variable::Text(Cow::Borrowed(self.name()))),
            "nodename" | "hypervisor_hostname" => Some(Variable::Text(Cow::Borrowed(self.node()))),
            "host_ip" => self.ip().map(|ip| Variable::Text(Cow::Owned(ip.to_string()))),
            "free_ram_mb" => number(self.unused(index("memory_mb")?) as f64),
            "free_disk_mb" => number(self.unused(index("disk_gb")?) as f64 * 1_024.0),
            "total_usable_ram_mb" => number(self.total(index("memory_mb")?) as f64),
            "total_usable_disk_gb" => number(self.total(index("disk_gb")?) as f64),
            "disk_mb_used" => number(self.used(index("disk_gb")?) as f64 * 1_024.0),
            "vcpus_total" => number(self.total(index("vcpus")?) as f64),
            "vcpus_used" => number(self.used(index("vcpus")?) as f64),
            "cpu_allocation_ratio" => number(self.ratio(index("vcpus")?)),
            "ram_allocation_ratio" => number(self.ratio(index("memory_mb")?)),
            "disk_allocation_ratio" => number(self.ratio(index("disk_gb")?)),
            "num_instances" => number(f64::from(self.instances())),
            "num_io_ops" => number(f64::from(self.io_ops())),
            "failed_builds" => number(f64::from(self.failed_builds())),
            "hypervisor_type" => Some(attributes.hypervisor_type.as_str())
                .filter(|text| !text.is_empty())
                .map(|text| Variable::Text(Cow::Borrowed(text))),
            "hypervisor_version" => Some(attributes.hypervisor_version)
                .filter(|version| *version > 0)
                .map(|version| Variable::Number(version as f64)),
            _ => attributes.capabilities.get(name).map(|text| Variable::Text(Cow::Borrowed(text))),
        }
    }

    /// Whether the variable follows from the host's attributes alone.
    #[must_use]
    pub fn is_attribute(name: &str) -> bool {
        const OTHERS: [&str; 17] = [
            "host",
            "nodename",
            "hypervisor_hostname",
            "host_ip",
            "free_ram_mb",
            "free_disk_mb",
            "total_usable_ram_mb",
            "total_usable_disk_gb",
            "disk_mb_used",
            "vcpus_total",
            "vcpus_used",
            "cpu_allocation_ratio",
            "ram_allocation_ratio",
            "disk_allocation_ratio",
            "num_instances",
            "num_io_ops",
            "failed_builds",
        ];
        !OTHERS.contains(&name)
    }

    /// How many dimensions the table counts.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.table.dimensions().len()
    }

    /// The place of the dimension `name`.
    #[must_use]
    pub fn dimension(&self, name: &str) -> Option<usize> {
        self.table.dimensions().index(name)
    }

    fn ratio(&self, index: usize) -> f64 {
        self.table.stock_of(self.row).ratio.get(index)
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.cold.rare()?.ip
    }

    /// What it is and can do.
    #[must_use]
    pub fn attributes(&self) -> &'a HostAttributes {
        self.table.kinds.get(self.table.counts.kind_at(self.row))
    }

    /// The aggregates that it is in, by number.
    #[must_use]
    pub fn aggregate_ids(&self) -> &'a [u64] {
        &self.together().ids
    }

    /// What its aggregates say under the key, each value as it was written.
    #[must_use]
    pub fn aggregate_values(&self, key: &str) -> Option<&'a BTreeSet<String>> {
        self.together().raw.get(key)
    }

    /// All that its aggregates say, lists with commas taken apart.
    #[must_use]
    pub fn aggregate_metadata(&self) -> &'a BTreeMap<String, BTreeSet<String>> {
        &self.together().parted
    }

    fn together(&self) -> &'a crate::attributes::Together {
        self.table.aggregates.get(self.table.counts.aggregates_at(self.row))
    }

    pub(crate) fn table(&self) -> &'a HostTable {
        self.table
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
        self.cold.rare()?.metrics.get(name).copied()
    }

    /// The load figure from outside.
    #[must_use]
    pub fn reported_load(&self) -> u64 {
        self.cold.reported_load
    }

    /// When the last heartbeat came, in the caller's milliseconds.
    #[must_use]
    pub fn last_heartbeat_ms(&self) -> Option<u64> {
        self.cold.last_heartbeat_ms()
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
        Arc::clone(self.cold.node())
    }
}
