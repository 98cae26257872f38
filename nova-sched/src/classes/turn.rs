//! The order among equals.

use crate::table::BLOCK;

/// The order among equals: follows from a random number, and then every host has its rank.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// Where to begin among groups, as a fraction of 2^20.
    group: u64,
    /// Where to begin among the blocks of a group, as a fraction of 2^20.
    block: u64,
    /// Bits come in the order first, first + step, first + 2 * step, ...; the step is odd, so that each has its turn.
    first: u32,
    step: u32,
}

impl Turn {
    pub(crate) fn new(random: u64) -> Self {
        Self {
            group: random & 0xF_FFFF,
            block: random >> 20 & 0xF_FFFF,
            first: (random >> 40) as u32 & 63,
            step: (random >> 46) as u32 & 63 | 1,
        }
    }

    pub(super) fn first_group(self, groups: usize) -> usize {
        ((self.group * groups as u64) >> 20) as usize
    }

    pub(super) fn first_block(self, blocks: usize) -> usize {
        ((self.block * blocks as u64) >> 20) as usize
    }

    /// The rank of a host at that place among `blocks`: the lower comes first.
    pub(crate) fn rank(self, position: usize, bit: usize, blocks: usize) -> u64 {
        let groups = blocks.div_ceil(BLOCK);
        let group = position / BLOCK;
        let len = BLOCK.min(blocks - group * BLOCK);
        let group = (group + groups - self.first_group(groups)) % groups;
        let block = (position % BLOCK + len - self.first_block(len)) % len;
        // Newton's iteration for the inverse of an odd number, modulo a power of two.
        let inverse = (0..3)
            .fold(self.step, |inverse, _| inverse.wrapping_mul(2_u32.wrapping_sub(self.step.wrapping_mul(inverse))));
        let bit = (bit as u32).wrapping_sub(self.first).wrapping_mul(inverse) & 63;
        (group as u64) << 12 | (block as u64) << 6 | u64::from(bit)
    }

    /// The set bits of a block's mask, first rank first.
    #[inline]
    pub(crate) fn bits(self, mask: u64) -> impl Iterator<Item = usize> {
        let (mut bit, mut left) = (self.first, mask);
        std::iter::from_fn(move || {
            while left != 0 {
                let this = bit;
                bit = (bit + self.step) & 63;
                if left >> this & 1 == 1 {
                    left &= !(1 << this);
                    return Some(this as usize);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_order_of_bits() {
        let mut rng = crate::SchedulerRng::from_seed(4);
        for _ in 0..200 {
            let turn = Turn::new(rng.next_u64());
            let mask = rng.next_u64() & rng.next_u64();
            let listed: Vec<usize> = turn.bits(mask).collect();
            let mut sorted: Vec<usize> = crate::table::bits(mask).collect();
            sorted.sort_by_key(|bit| turn.rank(70, *bit, 100));
            assert_eq!(listed, sorted);
        }
    }

    #[test]
    fn every_place_has_its_own_rank() {
        let turn = Turn::new(0x1234_5678_9ABC_DEF0);
        let ranks: std::collections::BTreeSet<u64> =
            (0..130).flat_map(|position| (0..64).map(move |bit| turn.rank(position, bit, 130))).collect();
        assert_eq!(ranks.len(), 130 * 64);
    }
}
