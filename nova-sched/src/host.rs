//! What is known of a host: the description given by the caller, and the view that algorithms read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::attributes::HostAttributes;
use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
use crate::table::{Cold, HostTable, Row};
use crate::topology::{GuestCell, PciRequest};

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
    /// Its address in the network of the hosts.
    pub ip: Option<IpAddr>,
    /// What it is and can do.
    pub attributes: Arc<HostAttributes>,
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
            ip: None,
            attributes: Arc::default(),
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
