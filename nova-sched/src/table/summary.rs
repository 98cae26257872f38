//! The largest value of each block: what lets a search skip most of a zone.

use super::layout::BLOCK;

/// The value of a block in which no host may be chosen.
pub(crate) const NOTHING: i64 = i64::MIN;

/// Maxima of one column over a zone's blocks.
#[derive(Clone, Default)]
pub(crate) struct Summary {
    blocks: Vec<i64>,
}

impl Summary {
    /// Makes room for one more block, in which nothing may be chosen yet.
    pub(crate) fn push_block(&mut self) {
        self.blocks.push(NOTHING);
    }

    #[inline]
    pub(crate) fn block(&self, position: usize) -> i64 {
        self.blocks.get(position).copied().unwrap_or(NOTHING)
    }

    /// Follows one eligible host's value from `old` to `new`, the column already holding `new`.
    #[inline]
    pub(crate) fn changed(&mut self, position: usize, old: i64, new: i64, column: &[i64; BLOCK], eligible: u64) {
        let most = self.block(position);
        if new >= most {
            self.set(position, new);
        } else if old == most {
            self.recount(position, column, eligible);
        }
    }

    /// Finds a block's maximum anew.
    pub(crate) fn recount(&mut self, position: usize, column: &[i64; BLOCK], eligible: u64) {
        self.set(position, most_of(column, eligible));
    }

    fn set(&mut self, position: usize, value: i64) {
        if let Some(slot) = self.blocks.get_mut(position) {
            *slot = value;
        }
    }
}

/// The largest of the values whose bit is set.
pub(crate) fn most_of(column: &[i64; BLOCK], mask: u64) -> i64 {
    if mask == u64::MAX {
        return column.iter().copied().max().unwrap_or(NOTHING);
    }
    let mut most = NOTHING;
    let mut rest = mask;
    while rest != 0 {
        most = most.max(column[rest.trailing_zeros() as usize]);
        rest &= rest - 1;
    }
    most
}
