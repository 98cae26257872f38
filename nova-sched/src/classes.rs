//! What decisions have learned of the table, kept for the next request of the same kind.
//!
//! A *class* is all requests that ask for the same: size, zone, architecture, traits. For each class and block of hosts
//! there is a *bound*: no host of the block that takes the request is better than that. A search takes the block of the
//! best bound, looks at its hosts, and either finds one as good as the bound, which is then the best of all, or lowers
//! the bound and goes on. Allocations leave bounds right, since they make hosts worse; what makes a host better is in the
//! table's log of changes, which a class reads before it is used. So a search looks at few blocks however many there
//! are, and its answer is that of a search through all hosts.
//!
//! Bounds are a cache and no part of the table's state: whoever finds them in use by another thread does without.

use std::hash::Hasher;
use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::dimensions::ResourceVector;
use crate::hash::Mixer;
use crate::query::Query;
use crate::table::{BLOCK, LoadIndexRef, NOTHING, Row, Zone, bit_of, block_of};

/// So many classes are kept; the one not used for longest makes way.
const MOST_CLASSES: usize = 256;

/// Where a class looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// In all blocks.
    Everywhere,
    /// In the blocks of one zone.
    Zone(u32),
}

/// What the requests of a class have in common.
#[derive(PartialEq, Eq)]
struct Key {
    /// The load index that merits come from; none when all hosts are worth the same.
    load: Option<usize>,
    reach: Reach,
    resources: ResourceVector,
    limit: Option<(usize, u64)>,
    architecture: Vec<usize>,
    required: Vec<usize>,
    forbidden: Vec<usize>,
}

struct Class {
    hash: u64,
    key: Key,
    /// The first change of the table that it has not seen.
    seen: u64,
    used: u64,
    /// Per block of its reach.
    bounds: Vec<i64>,
    /// Per 64 of them, the largest.
    groups: Vec<i64>,
}

#[derive(Default)]
pub(crate) struct Classes {
    list: Vec<Class>,
    uses: u64,
}

/// The classes of a table. A copy of the table learns for itself.
#[derive(Default)]
pub(crate) struct ClassCache(Mutex<Classes>);

impl Clone for ClassCache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

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

    fn first_group(self, groups: usize) -> usize {
        ((self.group * groups as u64) >> 20) as usize
    }

    fn first_block(self, blocks: usize) -> usize {
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

impl Class {
    #[inline]
    fn raise(&mut self, position: usize, merit: i64) {
        if let Some(bound) = self.bounds.get_mut(position)
            && *bound < merit
        {
            *bound = merit;
            let group = &mut self.groups[position / BLOCK];
            *group = (*group).max(merit);
        }
    }

    #[inline]
    fn lower(&mut self, position: usize, merit: i64) -> i64 {
        let old = std::mem::replace(&mut self.bounds[position], merit);
        let group = position / BLOCK;
        if old == self.groups[group] {
            let last = self.bounds.len().min((group + 1) * BLOCK);
            self.groups[group] = self.bounds[group * BLOCK..last].iter().copied().max().unwrap_or(NOTHING);
        }
        old
    }

    /// The first block, by rank, of those with the best bound.
    fn top(&self, turn: Turn) -> Option<(usize, i64)> {
        let first = turn.first_group(self.groups.len());
        let mut best = (NOTHING, 0);
        for part in [first..self.groups.len(), 0..first] {
            for group in part {
                if self.groups[group] > best.0 {
                    best = (self.groups[group], group);
                }
            }
        }
        let (bound, group) = best;
        if bound == NOTHING {
            return None;
        }
        let bounds = &self.bounds[group * BLOCK..self.bounds.len().min((group + 1) * BLOCK)];
        let turned = turn.first_block(bounds.len());
        let place = (bounds[turned..].iter().position(|other| *other == bound).map(|place| place + turned))
            .or_else(|| bounds[..turned].iter().position(|other| *other == bound))?;
        Some((group * BLOCK + place, bound))
    }

    /// Forgets all: what is known of blocks in general is a bound for every class.
    fn reset(&mut self, query: &Query<'_>) {
        let blocks = query.reach_len(self.key.reach);
        self.bounds.clear();
        self.bounds.extend((0..blocks).map(|position| query.general_bound(self.key.load, self.key.reach, position)));
        let groups = self.bounds.chunks(BLOCK).map(|group| group.iter().copied().max().unwrap_or(NOTHING));
        self.groups.clear();
        self.groups.extend(groups);
        self.seen = query.table.changes.next();
    }

    /// Brings the bounds up to date.
    fn catch_up(&mut self, query: &Query<'_>) {
        let Some(changes) = query.table.changes.since(self.seen) else { return self.reset(query) };
        let blocks = query.reach_len(self.key.reach);
        if self.bounds.len() < blocks {
            self.bounds.resize(blocks, NOTHING);
            self.groups.resize(blocks.div_ceil(BLOCK), NOTHING);
        }
        for row in changes {
            let Some(position) = query.position_of(self.key.reach, row) else { continue };
            let merit = query.table.merit_at(self.key.load, row);
            if merit > self.bounds[position] && query.takes_at_all(row) {
                self.raise(position, merit);
            }
        }
        self.seen = query.table.changes.next();
    }
}

/// The classes, held for the time of one request.
pub(crate) struct Held<'a> {
    classes: MutexGuard<'a, Classes>,
    /// Bounds that were lowered only for this request: class, position, bound before.
    undo: Vec<(usize, usize, i64)>,
    /// Classes that this request uses are not thrown out for another.
    began: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.restore();
    }
}

impl Held<'_> {
    /// Raises the bounds again that were lowered only because hosts were barred.
    pub(crate) fn restore(&mut self) {
        for (class, position, bound) in self.undo.drain(..).rev() {
            if let Some(class) = self.classes.list.get_mut(class) {
                class.raise(position, bound);
            }
        }
    }
}

impl ClassCache {
    /// The classes, unless another thread has them.
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut classes = match self.0.try_lock() {
            Ok(classes) => classes,
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Poisoned(error)) => {
                // Whoever held it may have left bounds that are too low.
                self.0.clear_poison();
                let mut classes = error.into_inner();
                classes.list.clear();
                classes
            }
        };
        classes.uses += 1;
        let began = classes.uses;
        Some(Held { classes, undo: Vec::new(), began })
    }
}

/// What a search found best.
#[derive(Clone, Copy)]
pub(crate) struct Best {
    pub(crate) merit: i64,
    pub(crate) position: usize,
    pub(crate) row: Row,
}

impl Held<'_> {
    /// The class of the request, up to date. `None` when there is no room for another.
    pub(crate) fn class(&mut self, query: &Query<'_>, load: Option<usize>, reach: Reach) -> Option<usize> {
        let hash = hash_of(query, load, reach);
        let began = self.began;
        let list = &mut self.classes.list;
        let number = match list.iter().position(|class| class.hash == hash && is_of(&class.key, query, load, reach)) {
            Some(number) => number,
            None => {
                let key = key_of(query, load, reach);
                let mut class = Class { hash, key, seen: 0, used: began, bounds: Vec::new(), groups: Vec::new() };
                class.reset(query);
                if list.len() < MOST_CLASSES {
                    list.push(class);
                    list.len() - 1
                } else {
                    let (oldest, _) = list.iter().enumerate().min_by_key(|(_, class)| class.used)?;
                    if list[oldest].used == began {
                        return None;
                    }
                    list[oldest] = class;
                    oldest
                }
            }
        };
        let class = &mut list[number];
        class.used = began;
        class.catch_up(query);
        Some(number)
    }

    /// The best host that takes the request, the first by rank of equals, `but` for those of the mask per block.
    pub(crate) fn best(
        &mut self,
        number: usize,
        query: &Query<'_>,
        index: LoadIndexRef<'_>,
        turn: Turn,
        but: impl Fn(usize) -> u64,
    ) -> Option<Best> {
        let class = &mut self.classes.list[number];
        loop {
            let (position, bound) = class.top(turn)?;
            let block = query.block_at(class.key.reach, position);
            let merits = &index.merits[block];
            let but = but(block);
            let found = query.best_of_block(block, merits, bound, turn, !but);
            match found {
                Some((merit, bit)) if merit == bound => {
                    return Some(Best { merit, position, row: crate::table::row_at(block, bit) });
                }
                found => {
                    let old = class.lower(position, found.map_or(NOTHING, |(merit, _)| merit));
                    if but != 0 {
                        self.undo.push((number, position, old));
                    }
                }
            }
        }
    }

    /// Shows every host that takes the request, block by block in order.
    pub(crate) fn each_block(&mut self, number: usize, query: &Query<'_>, mut show: impl FnMut(usize, u64)) {
        let class = &mut self.classes.list[number];
        for group in 0..class.groups.len() {
            if class.groups[group] == NOTHING {
                continue;
            }
            for position in group * BLOCK..class.bounds.len().min((group + 1) * BLOCK) {
                if class.bounds[position] == NOTHING {
                    continue;
                }
                let block = query.block_at(class.key.reach, position);
                match query.takers(block, u64::MAX) {
                    0 => drop(class.lower(position, NOTHING)),
                    takers => show(block, takers),
                }
            }
        }
    }

    /// Shows every block with a bound of at least `least`, in order.
    pub(crate) fn each_bound(&self, number: usize, query: &Query<'_>, least: i64, mut show: impl FnMut(usize)) {
        let class = &self.classes.list[number];
        for (position, bound) in class.bounds.iter().enumerate() {
            if *bound >= least {
                show(query.block_at(class.key.reach, position));
            }
        }
    }
}

fn hash_of(query: &Query<'_>, load: Option<usize>, reach: Reach) -> u64 {
    let mut mixer = Mixer::default();
    mixer.write_usize(load.map_or(0, |load| load + 1));
    mixer.write_u64(match reach {
        Reach::Everywhere => 0,
        Reach::Zone(zone) => u64::from(zone) + 1,
    });
    for (index, amount) in query.request.resources.non_zero() {
        mixer.write_u64((index as u64) << 60 ^ amount);
    }
    if let Some(limit) = query.limit {
        mixer.write_u64(limit.most);
    }
    let (architecture, required, forbidden) = query.marks();
    for (kind, ids) in [architecture, required, forbidden].into_iter().enumerate() {
        ids.iter().for_each(|id| mixer.write_u64((kind as u64) << 60 ^ *id as u64));
    }
    mixer.finish()
}

fn is_of(key: &Key, query: &Query<'_>, load: Option<usize>, reach: Reach) -> bool {
    let (architecture, required, forbidden) = query.marks();
    key.load == load
        && key.reach == reach
        && key.resources == query.request.resources
        && key.limit == query.limit.map(|limit| (limit.dimension, limit.most))
        && key.architecture == architecture
        && key.required == required
        && key.forbidden == forbidden
}

fn key_of(query: &Query<'_>, load: Option<usize>, reach: Reach) -> Key {
    let (architecture, required, forbidden) = query.marks();
    Key {
        load,
        reach,
        resources: query.request.resources,
        limit: query.limit.map(|limit| (limit.dimension, limit.most)),
        architecture: architecture.to_vec(),
        required: required.to_vec(),
        forbidden: forbidden.to_vec(),
    }
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
    fn general_bound(&self, load: Option<usize>, reach: Reach, position: usize) -> i64 {
        let block = &self.table.blocks[self.block_at(reach, position)];
        if block.eligible() == 0 {
            return NOTHING;
        }
        let zone = &self.table.zones[block.zone as usize];
        load.map_or(0, |load| zone.best_merit[load].block(block.position as usize))
    }

    /// Whether the host takes one instance, whatever the request says of single hosts.
    #[inline]
    fn takes_at_all(&self, row: Row) -> bool {
        self.takers(block_of(row), 1 << bit_of(row)) != 0
    }

    /// The best host of a block that takes the request, of those `within`; the first by rank of equals. None is better
    /// than `bound`.
    fn best_of_block(
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
