//! Indexes by load.
//!
//! A load is kept negated, as a *merit*: then the best host has the largest value, as it has the most free memory, and
//! one kind of summary serves both.

use std::sync::Arc;

use super::HostTable;
use super::layout::{BLOCK, Row, bit_of, bits, block_of, push_slim, row_at};
use super::summary::{NOTHING, Summary};
use crate::LoadSource;
use crate::dimensions::ResourceVector;

/// What a load is worth: the less of it, the more.
#[inline]
pub(crate) fn merit(load: u64) -> i64 {
    // Never NOTHING, which says that there is no host.
    -(load.min(i64::MAX as u64) as i64)
}

/// One load figure, kept for every host.
#[derive(Clone)]
pub(crate) struct LoadIndex {
    pub(crate) source: Arc<dyn LoadSource>,
    pub(crate) merits: Vec<[i64; BLOCK]>,
}

/// A load index, as a search reads it.
#[derive(Clone, Copy)]
pub(crate) struct LoadIndexRef<'a> {
    pub(crate) number: usize,
    pub(crate) merits: &'a [[i64; BLOCK]],
}

impl LoadIndex {
    pub(super) fn push_block(&mut self) {
        push_slim(&mut self.merits, [NOTHING; BLOCK]);
    }
}

impl HostTable {
    /// The load index of that name.
    pub(crate) fn load_index_ref(&self, name: &str) -> Option<LoadIndexRef<'_>> {
        let number = self.loads.iter().position(|index| index.source.name() == name)?;
        Some(LoadIndexRef { number, merits: &self.loads[number].merits })
    }

    /// The best merit of any host of the block that may be chosen.
    pub(crate) fn best_merit_of(&self, load: usize, block: usize) -> i64 {
        let block = &self.blocks[block];
        self.zones[block.zone as usize].best_merit[load].block(block.position as usize)
    }

    /// What the host is worth by the index of that number; the same for all when there is none.
    #[inline]
    pub(crate) fn merit_at(&self, load: Option<usize>, row: Row) -> i64 {
        match load {
            Some(load) => self.loads[load].merits[block_of(row)][bit_of(row)],
            None => 0,
        }
    }

    pub(super) fn add_load_index(&mut self, source: Arc<dyn LoadSource>) {
        self.loads.push(LoadIndex { source, merits: vec![[NOTHING; BLOCK]; self.blocks.len()] });
        for zone in &mut self.zones {
            let mut summary = Summary::default();
            zone.blocks.iter().for_each(|_| summary.push_block());
            zone.best_merit.push(summary);
        }
        for block in 0..self.blocks.len() {
            for bit in bits(self.blocks[block].occupied) {
                self.refresh_loads(row_at(block, bit));
            }
        }
    }

    /// Asks every load source about one host again. Returns whether one of them finds it better than before.
    pub(super) fn refresh_loads(&mut self, row: Row) -> bool {
        let (index, bit) = (block_of(row), bit_of(row));
        let mut better = false;
        for which in 0..self.loads.len() {
            let Some(host) = self.view(row, ResourceVector::default()) else { return better };
            let new = merit(self.loads[which].source.load(host));
            let column = &mut self.loads[which].merits[index];
            let old = std::mem::replace(&mut column[bit], new);
            better |= new > old;
            let block = &self.blocks[index];
            let eligible = block.eligible();
            if old != new && eligible >> bit & 1 == 1 {
                let summary = &mut self.zones[block.zone as usize].best_merit[which];
                summary.changed(block.position as usize, old, new, column, eligible);
            }
        }
        better
    }

    /// Finds a block's best merits anew.
    pub(super) fn recount_loads(&mut self, index: usize) {
        let block = &self.blocks[index];
        let zone = &mut self.zones[block.zone as usize];
        for (summary, load) in zone.best_merit.iter_mut().zip(&self.loads) {
            summary.recount(block.position as usize, &load.merits[index], block.eligible());
        }
    }
}
