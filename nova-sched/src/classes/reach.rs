//! Where a class looks, and what a request finds there.

use super::Turn;
use crate::query::Query;
use crate::table::{BLOCK, NOTHING, Row, Zone, bit_of, block_of};

/// Where a class looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// In all blocks.
    Everywhere,
    /// In the blocks of one zone.
    Zone(u32),
}

impl Query<'_> {
    pub(crate) fn reach_len(&self, reach: Reach) -> usize {
        match reach {
            Reach::Everywhere => self.table.blocks.len(),
            Reach::Zone(zone) => self.zone(zone).map_or(0, |zone| zone.blocks.len()),
        }
    }

    #[inline]
    pub(crate) fn block_at(&self, reach: Reach, position: usize) -> usize {
        match reach {
            Reach::Everywhere => position,
            Reach::Zone(zone) => self.table.zones[zone as usize].blocks[position] as usize,
        }
    }

    /// The row's place among the blocks of the reach.
    #[inline]
    pub(crate) fn position_of(&self, reach: Reach, row: Row) -> Option<usize> {
        match reach {
            Reach::Everywhere => Some(block_of(row)),
            Reach::Zone(zone) => {
                let block = self.table.blocks.get(block_of(row))?;
                (block.zone == zone).then_some(block.position as usize)
            }
        }
    }

    fn zone(&self, zone: u32) -> Option<&Zone> {
        self.table.zones.get(zone as usize)
    }

    /// The best merit of any host of the block that may be chosen at all.
    pub(super) fn general_bound(&self, load: Option<usize>, reach: Reach, position: usize) -> i64 {
        let block = &self.table.blocks[self.block_at(reach, position)];
        if block.eligible() == 0 {
            return NOTHING;
        }
        let zone = &self.table.zones[block.zone as usize];
        load.map_or(0, |load| zone.best_merit[load].block(block.position as usize))
    }

    /// Whether the host takes one instance, whatever the request says of single hosts.
    #[inline]
    pub(super) fn takes_at_all(&self, row: Row) -> bool {
        self.takers(block_of(row), 1 << bit_of(row)) != 0
    }

    /// The best host of a block that takes the request, of those `within`; the first by rank of equals. None is better
    /// than `bound`.
    pub(super) fn best_of_block(
        &self,
        block: usize,
        merits: &[i64; BLOCK],
        bound: i64,
        turn: Turn,
        within: u64,
    ) -> Option<(i64, usize)> {
        let at_bound = within & equal_to(merits, bound) & self.eligible_and_marked(block);
        if let Some(bit) = turn.bits(at_bound).find(|bit| self.has_room(block, *bit)) {
            return Some((bound, bit));
        }
        let mut best: Option<(i64, usize)> = None;
        for bit in turn.bits(self.takers(block, within & !at_bound)) {
            if best.is_none_or(|(merit, _)| merits[bit] > merit) {
                best = Some((merits[bit], bit));
            }
        }
        best
    }
}

/// The bits of the values that are equal to `value`.
#[inline]
fn equal_to(column: &[i64; BLOCK], value: i64) -> u64 {
    let mut mask = 0;
    for (bit, other) in column.iter().enumerate() {
        mask |= u64::from(*other == value) << bit;
    }
    mask
}
