//! The table of hosts: kept current change by change, read by every decision.

mod allocations;
mod changes;
mod cold;
mod counts;
mod layout;
mod loads;
mod names;
mod rows;
mod snapshot;
mod stock;
mod summary;
mod topology;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use allocations::{Applied, Holding};
pub(crate) use cold::{Cold, Recent};
pub(crate) use layout::{BLOCK, Block, Row, Tags, Zone, bit_of, bits, block_of, row_at};
pub(crate) use loads::{LoadIndexRef, merit};
pub use snapshot::{AllocationSnapshot, HostSnapshot, TableSnapshot};
pub(crate) use summary::{NOTHING, Summary};
pub use topology::TopologyClaim;

use crate::attributes::{Aggregate, Aggregates, HostAttributes, Kinds};
use crate::classes::ClassCache;
use crate::dimensions::{Dimensions, ResourceVector};
use crate::hash::Map;
use crate::host::{HostInventory, HostStats, HostView};
use crate::{LoadSource, SchedulerError};
use allocations::{Holdings, Sizes};
use changes::ChangeLog;
use counts::Counts;
use layout::SizeClass;
use loads::LoadIndex;
use names::Names;
use rows::hash_of_name;
use stock::Stocks;

/// No capacity or sum of allocations is counted beyond this, so that differences never overflow.
pub(crate) const MOST: u64 = 1 << 62;

/// All hosts, what they have, what is handed out, and the indexes that make a choice cheap.
///
/// Every change is applied in place and leaves all indexes right. The table has no clock, no lock and no I/O: its owner
/// feeds it (from a database, heartbeats, messages) and decides who may read it when.
///
/// [`HostTable::allocate`] never hands out more than `(total - reserved) * ratio` of any dimension.
///
/// ```
/// use nova_sched::{Dimensions, HostInventory, HostTable};
///
/// # fn main() -> Result<(), nova_sched::SchedulerError> {
/// let mut table = HostTable::new(Dimensions::new(["gigabytes"])?);
/// table.upsert_host(HostInventory::new("store-1", "east", [100].into()))?;
/// table.allocate("store-1", 1, &[60].into())?;
/// assert!(table.allocate("store-1", 2, &[60].into()).is_err());
/// assert_eq!(table.host("store-1").map(|host| host.free(0)), Some(40));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HostTable {
    pub(crate) dimensions: Dimensions,
    pub(crate) zones: Vec<Zone>,
    pub(crate) blocks: Vec<Block>,
    /// Per dimension, then block: what is left. Negative when a host shrank below what it had handed out.
    pub(crate) free: Vec<Vec<[i64; BLOCK]>>,
    /// What hosts have, by number.
    pub(crate) stocks: Stocks,
    /// What hosts are, by number.
    pub(crate) kinds: Kinds,
    pub(crate) aggregates: Aggregates,
    pub(crate) counts: Counts,
    pub(crate) architectures: Tags,
    pub(crate) traits: Tags,
    pub(crate) loads: Vec<LoadIndex>,
    cold: Vec<Option<Cold>>,
    pub(crate) recent: Recent,
    names: Names,
    zone_ids: Map<Arc<str>, u32>,
    /// Blocks with a free place, by zone and size.
    open_blocks: Map<(u32, SizeClass), Vec<u32>>,
    allocations: Map<u128, Holdings>,
    sizes: Sizes,
    /// The image properties of consumers, for the weigher that reads them.
    images: Map<u128, Arc<BTreeMap<String, String>>>,
    /// Hosts that may have become better.
    pub(crate) changes: ChangeLog,
    /// What decisions have learned of the table.
    pub(crate) classes: ClassCache,
}

impl HostTable {
    /// A table without hosts that counts these resources.
    #[must_use]
    pub fn new(dimensions: Dimensions) -> Self {
        let count = dimensions.len();
        Self {
            dimensions,
            zones: Vec::new(),
            blocks: Vec::new(),
            free: vec![Vec::new(); count],
            stocks: Stocks::default(),
            kinds: Kinds::default(),
            aggregates: Aggregates::default(),
            counts: Counts::default(),
            architectures: Tags::default(),
            traits: Tags::default(),
            loads: Vec::new(),
            cold: Vec::new(),
            recent: Recent::default(),
            names: Names::default(),
            zone_ids: Map::default(),
            open_blocks: Map::default(),
            allocations: Map::default(),
            sizes: Sizes::default(),
            images: Map::default(),
            changes: ChangeLog::default(),
            classes: ClassCache::default(),
        }
    }

    /// The resources that the table counts.
    #[must_use]
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// How many hosts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    /// The zones that have hosts, with how many, by name.
    #[must_use]
    pub fn zones(&self) -> Vec<(String, usize)> {
        let mut zones: Vec<_> = (self.zones.iter().filter(|zone| zone.hosts > 0))
            .map(|zone| (zone.name.as_ref().to_owned(), zone.hosts))
            .collect();
        zones.sort_unstable();
        zones
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<HostView<'_>> {
        self.view(self.row(name)?, ResourceVector::default())
    }

    /// All hosts, in the order in which the table keeps them.
    pub fn hosts(&self) -> impl Iterator<Item = HostView<'_>> {
        (0..self.cold.len()).filter_map(|row| self.view(row as Row, ResourceVector::default()))
    }

    /// Adds a host, or replaces the description of one; what is allocated on it stays. Repeating it changes nothing.
    ///
    /// A host may be of a type of the caller's own that becomes an inventory.
    ///
    /// A host may come back smaller than what is handed out on it: then nothing more fits until enough is released.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::InvalidInventory`] names the field; the table is as it was.
    pub fn upsert_host(&mut self, host: impl Into<HostInventory>) -> Result<(), SchedulerError> {
        let inventory = host.into();
        check(&inventory)?;
        let zone = self.intern_zone(&inventory.zone);
        let size = self.size_class(&inventory);
        match self.row(&inventory.name) {
            Some(row) => {
                let row = self.move_row(row, zone, size);
                self.describe_row(row, inventory);
            }
            None => self.add_row(zone, size, inventory),
        }
        Ok(())
    }

    /// Takes a host out, with all that is allocated on it. Returns whether it was there.
    pub fn remove_host(&mut self, name: &str) -> bool {
        let Some(row) = self.row(name) else { return false };
        self.names.remove(hash_of_name(name), row);
        self.forget_holdings(row);
        self.free_row(row);
        true
    }

    /// Lets instances be placed on the host, or says why not.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`].
    pub fn set_enabled(&mut self, name: &str, enabled: bool, reason: Option<&str>) -> Result<(), SchedulerError> {
        let row = self.known_row(name)?;
        if let Some(cold) = self.cold_mut(row) {
            cold.change_rare(|rare| rare.disabled_reason = reason.filter(|_| !enabled).map(Box::from));
        }
        self.set_bit(row, enabled, |block| &mut block.enabled);
        Ok(())
    }

    /// Says whether the host's service is alive.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`].
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), SchedulerError> {
        let row = self.known_row(name)?;
        self.set_bit(row, up, |block| &mut block.up);
        Ok(())
    }

    /// Notes a sign of life at `now_ms` (the caller's clock, milliseconds); the host is up.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`].
    pub fn heartbeat(&mut self, name: &str, now_ms: u64) -> Result<(), SchedulerError> {
        let row = self.known_row(name)?;
        if let Some(cold) = self.cold_mut(row) {
            cold.set_last_heartbeat_ms(cold.last_heartbeat_ms().max(Some(now_ms)));
        }
        self.set_bit(row, true, |block| &mut block.up);
        Ok(())
    }

    /// Marks as down every host that has given a heartbeat once, but none for more than `silent_ms` before `now_ms`
    /// (Nova's `service_down_time`). Returns the names of those that went down now.
    pub fn expire_heartbeats(&mut self, now_ms: u64, silent_ms: u64) -> Vec<String> {
        let silent = |cold: &Cold| cold.last_heartbeat_ms().is_some_and(|last| now_ms.saturating_sub(last) > silent_ms);
        let mut lost = Vec::new();
        for block in 0..self.blocks.len() {
            for bit in bits(self.blocks[block].occupied & self.blocks[block].up) {
                let row = row_at(block, bit);
                let Some(name) = self.cold(row).filter(|cold| silent(cold)).map(|cold| cold.name.to_string()) else {
                    continue;
                };
                self.set_bit(row, false, |block| &mut block.up);
                lost.push(name);
            }
        }
        lost
    }

    /// Replaces the load figure that comes from outside.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`].
    pub fn set_reported_load(&mut self, name: &str, load: u64) -> Result<(), SchedulerError> {
        let row = self.known_row(name)?;
        if let Some(cold) = self.cold_mut(row) {
            cold.reported_load = load;
        }
        if self.refresh_loads(row) {
            self.changes.push(row);
        }
        Ok(())
    }

    /// Replaces what the host reports of its present state.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`].
    pub fn set_stats(&mut self, name: &str, stats: HostStats) -> Result<(), SchedulerError> {
        let row = self.known_row(name)?;
        self.put_stats(row, stats);
        if self.refresh_loads(row) {
            self.changes.push(row);
        }
        Ok(())
    }

    /// Replaces all aggregates. A host that comes to the table later is in those that name it.
    pub fn set_aggregates(&mut self, aggregates: impl IntoIterator<Item = Aggregate>) {
        let mut all: Vec<Aggregate> = aggregates.into_iter().collect();
        all.sort_by_key(|aggregate| aggregate.id);
        if all == self.aggregates.all {
            return;
        }
        self.aggregates = Aggregates::new(all);
        for row in 0..self.cold.len() {
            self.find_aggregates(row as Row);
        }
    }

    /// Notes the image properties of a consumer that holds something, for
    /// [`ImagePropertiesWeigher`](crate::weighers::ImagePropertiesWeigher). Forgotten when it holds nothing any more.
    pub fn set_image_properties(&mut self, consumer: u128, properties: Arc<BTreeMap<String, String>>) {
        if self.rows_of(consumer).next().is_some() {
            self.images.insert(consumer, properties);
        }
    }

    pub(crate) fn image_properties(&self, consumer: u128) -> Option<&BTreeMap<String, String>> {
        self.images.get(&consumer).map(AsRef::as_ref)
    }

    /// The aggregates, by number.
    #[must_use]
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates.all
    }

    /// Keeps hosts in order of this load from now on, so that the least loaded is found without asking each. Sources of
    /// one name share an index. The source is asked anew whenever the host changes, and only then.
    pub fn register_load(&mut self, source: Arc<dyn LoadSource>) {
        if self.load_index_ref(source.name()).is_none() {
            self.add_load_index(source);
        }
    }

    /// Whether any host reports operations under way.
    #[must_use]
    pub fn has_io_ops(&self) -> bool {
        self.counts.busy > 0
    }

    /// Whether any host reports failed builds.
    #[must_use]
    pub fn has_failed_builds(&self) -> bool {
        self.counts.failing > 0
    }

    /// The kinds of hosts that there are.
    pub fn kinds(&self) -> impl Iterator<Item = &HostAttributes> {
        self.kinds.iter()
    }

    /// What all hosts together may hand out, by dimension.
    pub(crate) fn capacities(&self) -> Vec<f64> {
        (0..self.dimensions.len()).map(|index| self.stocks.capacity(index)).collect()
    }

    pub(crate) fn zone_id(&self, name: &str) -> Option<u32> {
        self.zone_ids.get(name).copied()
    }

    fn known_row(&self, name: &str) -> Result<Row, SchedulerError> {
        self.row(name).ok_or_else(|| SchedulerError::UnknownHost { host: name.to_owned() })
    }
}

impl fmt::Debug for HostTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTable")
            .field("dimensions", &self.dimensions.names().collect::<Vec<_>>())
            .field("hosts", &self.len())
            .field("zones", &self.zones())
            .field("consumers", &self.allocations.len())
            .finish_non_exhaustive()
    }
}

/// Refuses what would make the arithmetic meaningless.
fn check(inventory: &HostInventory) -> Result<(), SchedulerError> {
    let refuse = |field, reason: &str| {
        let host = inventory.name.clone();
        Err(SchedulerError::InvalidInventory { host, field, reason: reason.to_owned() })
    };
    if inventory.name.is_empty() {
        return refuse("name", "is empty");
    }
    if inventory.zone.is_empty() {
        return refuse("zone", "is empty");
    }
    if inventory.ratio.0.iter().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
        return refuse("ratio", "must be a number above 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
