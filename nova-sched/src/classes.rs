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

mod key;
mod reach;
mod turn;

use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::query::Query;
use crate::table::{BLOCK, LoadIndexRef, NOTHING, Row};
use key::Key;
pub(crate) use reach::Reach;
pub(crate) use turn::Turn;

/// So many classes are kept; the one not used for longest makes way.
const MOST_CLASSES: usize = 256;

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
        let hash = Key::hash_of(query, load, reach);
        let began = self.began;
        let list = &mut self.classes.list;
        let number = match list.iter().position(|class| class.hash == hash && class.key.is_of(query, load, reach)) {
            Some(number) => number,
            None => {
                let key = Key::of(query, load, reach);
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
