//! How hosts lie in memory.
//!
//! Hosts live in blocks of 64, so that a set of hosts of one block is one machine word. A block belongs to one zone and
//! holds hosts of about the same size: then the largest free amount in a block says much about each host in it, and a
//! search that skips by those maxima skips well. Rows stay where they are until a host changes zone or size.

use std::sync::Arc;

use super::summary::Summary;
use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
use crate::hash::Map;

/// Hosts in a block; the bits of a word.
pub(crate) const BLOCK: usize = 64;

/// A host's place: block × 64 + bit.
pub(crate) type Row = u32;

#[inline]
pub(crate) fn block_of(row: Row) -> usize {
    row as usize / BLOCK
}

#[inline]
pub(crate) fn bit_of(row: Row) -> usize {
    row as usize % BLOCK
}

#[inline]
pub(crate) fn row_at(block: usize, bit: usize) -> Row {
    (block * BLOCK + bit) as Row
}

/// The set bits of a word, lowest first.
pub(crate) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let bit = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            bit
        })
    })
}

/// About how large a host is: two steps per doubling, in each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SizeClass([u8; MAX_DIMENSIONS]);

impl SizeClass {
    pub(crate) fn of(capacity: &ResourceVector) -> Self {
        let mut class = [0; MAX_DIMENSIONS];
        for (index, amount) in capacity.non_zero() {
            let power = amount.ilog2();
            let upper_half = power > 0 && amount & (1 << (power - 1)) != 0;
            class[index] = (1 + 2 * power + u32::from(upper_half)) as u8;
        }
        Self(class)
    }
}

/// 64 places for hosts of one zone and size.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) zone: u32,
    /// Its place in the zone's list of blocks.
    pub(crate) position: u32,
    pub(crate) size: SizeClass,
    pub(crate) occupied: u64,
    pub(crate) up: u64,
    pub(crate) enabled: u64,
}

impl Block {
    /// The hosts that may be chosen at all.
    #[inline]
    pub(crate) fn eligible(&self) -> u64 {
        self.occupied & self.up & self.enabled
    }
}

/// A zone, and what is known of its blocks.
#[derive(Clone)]
pub(crate) struct Zone {
    pub(crate) name: Arc<str>,
    pub(crate) hosts: usize,
    pub(crate) blocks: Vec<u32>,
    /// The most free of each dimension, per block, eligible hosts only.
    pub(crate) most_free: Vec<Summary>,
    /// The best merit per load index, per block, eligible hosts only.
    pub(crate) best_merit: Vec<Summary>,
}

impl Zone {
    pub(crate) fn new(name: Arc<str>, dimensions: usize, loads: usize) -> Self {
        Self {
            name,
            hosts: 0,
            blocks: Vec::new(),
            most_free: vec![Summary::default(); dimensions],
            best_merit: vec![Summary::default(); loads],
        }
    }
}

/// Sets of hosts by a name that they carry: a trait, an architecture.
#[derive(Clone, Default)]
pub(crate) struct Tags {
    ids: Map<Arc<str>, usize>,
    names: Vec<Arc<str>>,
    /// Per name, the word of each block.
    words: Vec<Vec<u64>>,
}

impl Tags {
    pub(crate) fn id(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }

    /// The hosts of the block that carry the name.
    #[inline]
    pub(crate) fn word(&self, id: usize, block: usize) -> u64 {
        self.words.get(id).and_then(|words| words.get(block)).copied().unwrap_or(0)
    }

    /// Makes the host carry these names and no others.
    pub(crate) fn replace(&mut self, row: Row, names: &[String]) {
        let (block, bit) = (block_of(row), 1 << bit_of(row));
        for words in &mut self.words {
            if let Some(word) = words.get_mut(block) {
                *word &= !bit;
            }
        }
        for name in names {
            let id = self.intern(name);
            let words = &mut self.words[id];
            if words.len() <= block {
                words.resize(block + 1, 0);
            }
            words[block] |= bit;
        }
    }

    /// The names that the host carries, in alphabetical order.
    pub(crate) fn of(&self, row: Row) -> Vec<String> {
        let (block, bit) = (block_of(row), bit_of(row));
        let mut carried: Vec<String> = (0..self.names.len())
            .filter(|id| self.word(*id, block) >> bit & 1 == 1)
            .map(|id| self.names[id].as_ref().to_owned())
            .collect();
        carried.sort_unstable();
        carried
    }

    fn intern(&mut self, name: &str) -> usize {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let name: Arc<str> = Arc::from(name);
        let id = self.names.len();
        self.names.push(Arc::clone(&name));
        self.words.push(Vec::new());
        self.ids.insert(name, id);
        id
    }
}

/// Appends to a column, whose place grows by an eighth: a table grows seldom and is there for long.
pub(super) fn push_slim<T>(column: &mut Vec<T>, value: T) {
    if column.len() == column.capacity() {
        column.reserve_exact(column.len() / 8 + 1);
    }
    column.push(value);
}
