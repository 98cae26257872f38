//! Placing rows in blocks, moving them, and keeping the summaries right.

use std::hash::Hasher;
use std::sync::Arc;

use super::HostTable;
use super::cold::Cold;
use super::counts::{at, put};
use super::layout::{BLOCK, Block, Row, SizeClass, Zone, bit_of, block_of, push_slim, row_at};
use super::stock::Stock;
use crate::dimensions::ResourceVector;
use crate::hash::Mixer;
use crate::host::{HostInventory, HostStats, HostView};

impl HostTable {
    pub(crate) fn row(&self, name: &str) -> Option<Row> {
        let recent = self.recent.get();
        // The same letters in the same place: nobody else has them.
        if self.cold(recent).is_some_and(|cold| std::ptr::eq(&*cold.name, name)) {
            return Some(recent);
        }
        self.names.find(hash_of_name(name), |row| self.cold(row).is_some_and(|cold| *cold.name == *name))
    }

    pub(crate) fn cold(&self, row: Row) -> Option<&Cold> {
        self.cold.get(row as usize).and_then(Option::as_ref)
    }

    pub(super) fn cold_mut(&mut self, row: Row) -> Option<&mut Cold> {
        self.cold.get_mut(row as usize).and_then(Option::as_mut)
    }

    pub(crate) fn view(&self, row: Row, pending: ResourceVector) -> Option<HostView<'_>> {
        HostView::new(self, row, pending)
    }

    pub(crate) fn zone_of(&self, row: Row) -> &str {
        let zone = self.blocks.get(block_of(row)).map_or(0, |block| block.zone);
        self.zones.get(zone as usize).map_or("", |zone| &zone.name)
    }

    pub(crate) fn bit(&self, row: Row, word: impl Fn(&Block) -> u64) -> bool {
        self.blocks.get(block_of(row)).is_some_and(|block| word(block) >> bit_of(row) & 1 == 1)
    }

    pub(crate) fn used_at(&self, row: Row, dimension: usize) -> u64 {
        (self.stock_of(row).capacity.get(dimension) as i64 - self.free_at(row, dimension)) as u64
    }

    pub(crate) fn free_at(&self, row: Row, dimension: usize) -> i64 {
        self.free.get(dimension).map_or(0, |column| column[block_of(row)][bit_of(row)])
    }

    pub(crate) fn capacity_at(&self, row: Row, dimension: usize) -> u64 {
        self.stock_of(row).capacity.get(dimension)
    }

    #[inline]
    pub(crate) fn stock_of(&self, row: Row) -> &Stock {
        self.stocks.get(at(&self.counts.stock, row))
    }

    pub(crate) fn inventory_of(&self, row: Row, cold: &Cold) -> HostInventory {
        let Stock { total, reserved, ratio, .. } = *self.stock_of(row);
        HostInventory {
            name: cold.name.to_string(),
            node: cold.node().to_string(),
            zone: self.zone_of(row).to_owned(),
            total,
            reserved,
            ratio,
            enabled: self.bit(row, |block| block.enabled),
            disabled_reason: cold.rare().and_then(|rare| rare.disabled_reason.as_deref()).map(str::to_owned),
            up: self.bit(row, |block| block.up),
            architectures: self.architectures.of(row),
            traits: self.traits.of(row),
            reported_load: cold.reported_load,
            ip: cold.rare().and_then(|rare| rare.ip),
            attributes: Arc::clone(self.kinds.get(self.counts.kind_at(row))),
            stats: HostStats {
                io_ops: self.counts.io_ops_at(row),
                failed_builds: self.counts.failed_builds_at(row),
                metrics: cold.rare().map(|rare| rare.metrics.clone()).unwrap_or_default(),
            },
        }
    }

    pub(super) fn intern_zone(&mut self, name: &str) -> u32 {
        if let Some(id) = self.zone_ids.get(name) {
            return *id;
        }
        let name: Arc<str> = Arc::from(name);
        let id = self.zones.len() as u32;
        self.zones.push(Zone::new(Arc::clone(&name), self.dimensions.len(), self.loads.len()));
        self.zone_ids.insert(name, id);
        id
    }

    pub(super) fn size_class(&self, inventory: &HostInventory) -> SizeClass {
        let mut sizes = ResourceVector::default();
        for index in 0..self.dimensions.len() {
            sizes.set(index, inventory.capacity(index));
        }
        SizeClass::of(&sizes)
    }

    pub(super) fn add_row(&mut self, zone: u32, size: SizeClass, inventory: HostInventory) {
        let row = self.take_row(zone, size);
        let name: Arc<str> = Arc::from(inventory.name.as_str());
        self.names.insert(hash_of_name(&name), row);
        self.cold[row as usize] = Some(Cold::new(name));
        self.describe_row(row, inventory);
    }

    /// Writes a description over a row that is already in the right block.
    pub(super) fn describe_row(&mut self, row: Row, inventory: HostInventory) {
        let (index, bit) = (block_of(row), bit_of(row));
        let stock = Stock::of(&inventory, self.dimensions.len());
        for dimension in 0..self.dimensions.len() {
            let used = self.used_at(row, dimension) as i64;
            self.free[dimension][index][bit] = stock.capacity.get(dimension) as i64 - used;
        }
        let kind = self.kinds.keep(inventory.attributes);
        self.kinds.drop_one(self.counts.kind_at(row));
        put(&mut self.counts.kind, row, kind);
        self.find_aggregates(row);
        let stock = self.stocks.keep(stock);
        self.stocks.drop_one(at(&self.counts.stock, row));
        put(&mut self.counts.stock, row, stock);
        if let Some(cold) = self.cold_mut(row) {
            let node = (inventory.node != inventory.name).then(|| inventory.node.into());
            cold.change_rare(|rare| {
                rare.node = node;
                rare.ip = inventory.ip;
                rare.disabled_reason = inventory.disabled_reason.map(Into::into);
            });
            cold.reported_load = inventory.reported_load;
        }
        self.recount_topology(row, |_| ());
        self.put_stats(row, inventory.stats);
        let block = &mut self.blocks[index];
        put_bit(&mut block.up, bit, inventory.up);
        put_bit(&mut block.enabled, bit, inventory.enabled);
        self.architectures.replace(row, &inventory.architectures);
        self.traits.replace(row, &inventory.traits);
        self.recount(row);
    }

    /// Notes which aggregates the host of the row is in.
    pub(super) fn find_aggregates(&mut self, row: Row) {
        if let Some(set) = self.cold(row).map(|cold| self.aggregates.set_of(&cold.name)) {
            put(&mut self.counts.aggregates, row, set);
        }
    }

    pub(super) fn put_stats(&mut self, row: Row, stats: HostStats) {
        self.counts.report(row, stats.io_ops, stats.failed_builds);
        if let Some(cold) = self.cold_mut(row) {
            cold.change_rare(|rare| rare.metrics = stats.metrics);
        }
    }

    /// Brings a host into a block of that zone and size, with all that is allocated on it.
    pub(super) fn move_row(&mut self, row: Row, zone: u32, size: SizeClass) -> Row {
        let block = &self.blocks[block_of(row)];
        if block.zone == zone && block.size == size {
            return row;
        }
        let used: Vec<u64> = (0..self.dimensions.len()).map(|dimension| self.used_at(row, dimension)).collect();
        let cold = self.cold[row as usize].take();
        self.free_row(row);
        let moved = self.take_row(zone, size);
        for (dimension, used) in used.into_iter().enumerate() {
            // The place has no capacity until the host is described.
            self.free[dimension][block_of(moved)][bit_of(moved)] = -(used as i64);
        }
        if let Some(cold) = cold {
            let hash = hash_of_name(&cold.name);
            self.names.remove(hash, row);
            self.names.insert(hash, moved);
            self.move_holdings(&cold.consumers, row, moved);
            put(&mut self.counts.instances, moved, cold.consumers.len() as u32);
            self.cold[moved as usize] = Some(cold);
        }
        moved
    }

    /// A free place in a block of that zone and size.
    fn take_row(&mut self, zone: u32, size: SizeClass) -> Row {
        let open = self.open_blocks.get(&(zone, size)).and_then(|open| open.last().copied());
        let index = open.unwrap_or_else(|| self.add_block(zone, size)) as usize;
        let block = &mut self.blocks[index];
        let bit = (!block.occupied).trailing_zeros() as usize;
        block.occupied |= 1 << bit;
        if block.occupied == u64::MAX
            && let Some(open) = self.open_blocks.get_mut(&(zone, size))
        {
            open.retain(|other| *other as usize != index);
        }
        self.zones[zone as usize].hosts += 1;
        row_at(index, bit)
    }

    fn add_block(&mut self, zone: u32, size: SizeClass) -> u32 {
        let index = self.blocks.len() as u32;
        let home = &mut self.zones[zone as usize];
        let position = home.blocks.len() as u32;
        home.blocks.push(index);
        home.most_free.iter_mut().chain(&mut home.best_merit).for_each(super::summary::Summary::push_block);
        push_slim(&mut self.blocks, Block { zone, position, size, occupied: 0, up: 0, enabled: 0 });
        self.free.iter_mut().for_each(|column| push_slim(column, [0; BLOCK]));
        self.counts.push_block();
        self.loads.iter_mut().for_each(super::loads::LoadIndex::push_block);
        (0..BLOCK).for_each(|_| push_slim(&mut self.cold, None));
        self.open_blocks.entry((zone, size)).or_default().push(index);
        index
    }

    /// Empties a place. What pointed to it is the caller's to mend.
    pub(super) fn free_row(&mut self, row: Row) {
        let (index, bit) = (block_of(row), bit_of(row));
        self.cold[row as usize] = None;
        for dimension in 0..self.dimensions.len() {
            self.free[dimension][index][bit] = 0;
        }
        self.stocks.drop_one(at(&self.counts.stock, row));
        self.kinds.drop_one(self.counts.kind_at(row));
        self.counts.clear(row);
        self.architectures.replace(row, &[]);
        self.traits.replace(row, &[]);
        let block = &mut self.blocks[index];
        let was_full = block.occupied == u64::MAX;
        for word in [&mut block.occupied, &mut block.up, &mut block.enabled] {
            put_bit(word, bit, false);
        }
        let (zone, size) = (block.zone, block.size);
        if was_full {
            self.open_blocks.entry((zone, size)).or_default().push(index as u32);
        }
        self.zones[zone as usize].hosts -= 1;
        self.recount(row);
    }

    pub(super) fn set_bit(&mut self, row: Row, on: bool, word: impl Fn(&mut Block) -> &mut u64) {
        let block = &mut self.blocks[block_of(row)];
        let before = block.eligible();
        put_bit(word(block), bit_of(row), on);
        if block.eligible() != before {
            self.recount(row);
        }
    }

    /// Changes what is left of one dimension; what is handed out, and its complement, stay within [`MOST`](super::MOST).
    pub(super) fn change_free(&mut self, row: Row, dimension: usize, by: i64) {
        let (index, bit) = (block_of(row), bit_of(row));
        let column = &mut self.free[dimension][index];
        let old = column[bit];
        let new = old + by;
        column[bit] = new;
        let block = &self.blocks[index];
        let eligible = block.eligible();
        if eligible >> bit & 1 == 1 {
            let summary = &mut self.zones[block.zone as usize].most_free[dimension];
            summary.changed(block.position as usize, old, new, column, eligible);
        }
    }

    /// Finds all summaries of the row's block anew, after a change of who is eligible.
    fn recount(&mut self, row: Row) {
        let index = block_of(row);
        let block = &self.blocks[index];
        let (position, eligible) = (block.position as usize, block.eligible());
        let zone = &mut self.zones[block.zone as usize];
        for (summary, column) in zone.most_free.iter_mut().zip(&self.free) {
            summary.recount(position, &column[index], eligible);
        }
        self.refresh_loads(row);
        self.recount_loads(index);
        self.changes.push(row);
    }
}

pub(super) fn hash_of_name(name: &str) -> u32 {
    let mut mixer = Mixer::default();
    mixer.write(name.as_bytes());
    mixer.finish() as u32
}

fn put_bit(word: &mut u64, bit: usize, on: bool) {
    *word = *word & !(1 << bit) | u64::from(on) << bit;
}
