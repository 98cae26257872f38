//! What hosts have, each different description kept once: a fleet has few kinds of machines.

use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
use crate::hash::Map;
use crate::host::{HostInventory, Ratios, capacity};

use super::MOST;

/// What a host has, in every dimension.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Stock {
    pub(crate) total: ResourceVector,
    pub(crate) reserved: ResourceVector,
    pub(crate) ratio: Ratios,
    /// What follows from these: how much may be handed out.
    pub(crate) capacity: ResourceVector,
}

type Key = (ResourceVector, ResourceVector, [u64; MAX_DIMENSIONS]);

impl Stock {
    pub(super) fn of(inventory: &HostInventory, dimensions: usize) -> Self {
        let mut stock = Self {
            total: ResourceVector::default(),
            reserved: ResourceVector::default(),
            ratio: Ratios::default(),
            capacity: ResourceVector::default(),
        };
        for index in 0..dimensions {
            let (total, reserved) = (inventory.total.get(index), inventory.reserved.get(index));
            let ratio = inventory.ratio.get(index);
            stock.total.set(index, total);
            stock.reserved.set(index, reserved);
            stock.ratio.set(index, ratio);
            stock.capacity.set(index, capacity(total, reserved, ratio).min(MOST));
        }
        stock
    }

    /// What instances may use if ratios are left aside.
    #[inline]
    pub(crate) fn usable(&self, index: usize) -> i64 {
        self.total.get(index).saturating_sub(self.reserved.get(index)).min(MOST) as i64
    }

    fn key(&self) -> Key {
        (self.total, self.reserved, self.ratio.0.map(f64::to_bits))
    }
}

/// The stocks in use, by number. Number 0 is that of a place without a host.
#[derive(Clone)]
pub(crate) struct Stocks {
    ids: Map<Key, u32>,
    kept: Vec<(Stock, u32)>,
    unused: Vec<u32>,
}

impl Default for Stocks {
    fn default() -> Self {
        let nothing = ResourceVector::default();
        let empty = Stock { total: nothing, reserved: nothing, ratio: Ratios::default(), capacity: nothing };
        Self { ids: Map::default(), kept: vec![(empty, 0)], unused: Vec::new() }
    }
}

impl Stocks {
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Stock {
        &self.kept[id as usize].0
    }

    /// What all hosts together may hand out of the dimension at `index`.
    pub(super) fn capacity(&self, index: usize) -> f64 {
        self.kept.iter().map(|(stock, hosts)| stock.capacity.get(index) as f64 * f64::from(*hosts)).sum()
    }

    pub(super) fn keep(&mut self, stock: Stock) -> u32 {
        let key = stock.key();
        if let Some(id) = self.ids.get(&key) {
            self.kept[*id as usize].1 += 1;
            return *id;
        }
        let id = match self.unused.pop() {
            Some(id) => {
                self.kept[id as usize] = (stock, 1);
                id
            }
            None => {
                self.kept.push((stock, 1));
                (self.kept.len() - 1) as u32
            }
        };
        self.ids.insert(key, id);
        id
    }

    pub(super) fn drop_one(&mut self, id: u32) {
        if id == 0 {
            return;
        }
        let (stock, hosts) = &mut self.kept[id as usize];
        *hosts -= 1;
        if *hosts == 0 {
            let key = stock.key();
            self.ids.remove(&key);
            self.unused.push(id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
