//! A request, made ready to be held against the table.
//!
//! Names are looked up once; after that a host is judged by [`Query::verdict`], 64 hosts at once by
//! [`Query::candidates`], and whole blocks are passed over by [`Query::walk`]. The three agree (see the tests). What is
//! learned from one request serves the next of its kind: see [`crate::classes`].

use std::collections::BTreeMap;

use crate::dimensions::{MAX_DIMENSIONS, ResourceVector};
use crate::group::{Tier, members};
use crate::host::HostView;
use crate::request::{Purpose, Request};
use crate::table::{BLOCK, HostTable, MOST, NOTHING, Row, Summary, bit_of, bits, block_of, row_at};

/// Why a host was turned away. Each host counts under the first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    Zone,
    Ignored,
    Down,
    Disabled,
    Architecture,
    Traits,
    /// The rule of the request's server group.
    Group,
    /// No room in the dimension at that index.
    Room(usize),
    /// An algorithm's own bound, such as `max_cores`.
    Limit,
    /// The filter of that number.
    Filter(usize),
}

/// Says which hosts take a request, one by one, and why others don't.
pub(crate) trait Judge {
    /// Whether the host takes one more instance.
    fn judge(&self, row: Row, overlay: &Overlay) -> Result<(), Reason>;

    /// The name of the filter of that number.
    fn filter_name(&self, number: usize) -> String {
        format!("filter {number}")
    }

    /// Every reason that speaks against the host.
    fn objections(&self, row: Row, overlay: &Overlay) -> Vec<Reason>;
}

impl Judge for Query<'_> {
    fn judge(&self, row: Row, overlay: &Overlay) -> Result<(), Reason> {
        self.verdict(row, overlay)
    }

    fn objections(&self, row: Row, overlay: &Overlay) -> Vec<Reason> {
        self.all_verdicts(row, overlay)
    }
}

/// Up to so many hosts of a block are judged one by one, more all at once.
const FEW: u32 = 8;

/// An algorithm's bound on what a host may have handed out of a dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) dimension: usize,
    pub(crate) most: u64,
}

/// What the request at hand has already decided; the table itself stays as it is.
#[derive(Default)]
pub(crate) struct Overlay {
    /// How many of the request's instances were put on which hosts.
    pub(crate) placed: BTreeMap<Row, u64>,
    /// Hosts not to be named again.
    pub(crate) excluded: Vec<Row>,
    /// What the group would like in this attempt; see [`crate::group`].
    pub(crate) wish: Tier,
}

impl Overlay {
    pub(crate) fn on(&self, row: Row) -> u64 {
        if self.placed.is_empty() { 0 } else { self.placed.get(&row).copied().unwrap_or(0) }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Scope {
    Everywhere,
    Zone(u32),
    /// A zone that doesn't exist.
    Nowhere,
}

/// The amounts that are asked for, without the zeros.
struct Wants {
    items: [(usize, i64); MAX_DIMENSIONS],
    len: usize,
}

impl Wants {
    fn new(resources: &ResourceVector) -> Self {
        let mut wants = Self { items: [(0, 0); MAX_DIMENSIONS], len: 0 };
        for (index, amount) in resources.non_zero() {
            wants.items[wants.len] = (index, i64::try_from(amount).unwrap_or(i64::MAX));
            wants.len += 1;
        }
        wants
    }

    #[inline]
    fn iter(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.items[..self.len].iter().copied()
    }
}

/// Names that hosts must or mustn't carry, as numbers.
#[derive(Default)]
struct Marks {
    required: Vec<usize>,
    forbidden: Vec<usize>,
    /// One that no host carries is required.
    impossible: bool,
}

/// A search through the blocks of a request's zones.
pub(crate) trait Search {
    /// Looks at the candidates of a block; there is at least one.
    fn visit(&mut self, block: usize, candidates: u64);
}

pub(crate) struct Query<'a> {
    pub(crate) table: &'a HostTable,
    pub(crate) request: &'a Request,
    pub(crate) scope: Scope,
    wants: Wants,
    /// In the order of rows: there may be as many as there are hosts.
    ignored: Vec<Row>,
    architecture: Marks,
    traits: Marks,
    pub(crate) limit: Option<Limit>,
    /// Members of the request's group per host, what the request itself places aside.
    pub(crate) members: BTreeMap<Row, u32>,
    /// Whether groups are this query's business, and not that of filters and weighers.
    pub(crate) keeps_groups: bool,
}

impl<'a> Query<'a> {
    pub(crate) fn new(table: &'a HostTable, request: &'a Request, limit: Option<Limit>) -> Self {
        let scope = match request.zone.as_deref() {
            None => Scope::Everywhere,
            Some(name) => table.zone_id(name).map_or(Scope::Nowhere, Scope::Zone),
        };
        let mut architecture = Marks::default();
        if let Some(name) = &request.architecture {
            match table.architectures.id(name) {
                Some(id) => architecture.required.push(id),
                None => architecture.impossible = true,
            }
        }
        let required: Vec<_> = request.required_traits.iter().map(|name| table.traits.id(name)).collect();
        let traits = Marks {
            impossible: required.contains(&None),
            required: required.into_iter().flatten().collect(),
            forbidden: request.forbidden_traits.iter().filter_map(|name| table.traits.id(name)).collect(),
        };
        let mut ignored: Vec<Row> = request.ignore_hosts.iter().filter_map(|name| table.row(name)).collect();
        ignored.sort_unstable();
        Self {
            table,
            request,
            scope,
            wants: Wants::new(&request.resources),
            ignored,
            architecture,
            traits,
            limit,
            members: members(table, request),
            keeps_groups: true,
        }
    }

    /// The same, but filters and weighers see to groups.
    pub(crate) fn without_groups(mut self) -> Self {
        self.keeps_groups = false;
        self
    }

    /// The host, with what this request has placed on it so far.
    pub(crate) fn view(&self, row: Row, overlay: &Overlay) -> Option<HostView<'a>> {
        let mut pending = ResourceVector::default();
        for (index, amount) in self.request.resources.non_zero() {
            pending.set(index, amount.saturating_mul(overlay.on(row)));
        }
        self.table.view(row, pending)
    }

    /// Judges one host. A host that was decided on for this request counts with what that takes.
    pub(crate) fn verdict(&self, row: Row, overlay: &Overlay) -> Result<(), Reason> {
        if self.request.purpose == Purpose::Rebuild {
            return if self.runs_it(row) { Ok(()) } else { Err(Reason::Architecture) };
        }
        self.state(row, &mut |_| true).map_or(Ok(()), Err)?;
        if !self.group_admits(row, overlay) {
            return Err(Reason::Group);
        }
        self.room(row, overlay)
    }

    /// Whether the host has the architecture, which is all that is asked of it for another image.
    fn runs_it(&self, row: Row) -> bool {
        self.marked(&self.architecture, &self.table.architectures, block_of(row)) >> bit_of(row) & 1 == 1
    }

    /// All that speaks against a host.
    fn all_verdicts(&self, row: Row, overlay: &Overlay) -> Vec<Reason> {
        if self.request.purpose == Purpose::Rebuild {
            return if self.runs_it(row) { Vec::new() } else { vec![Reason::Architecture] };
        }
        let mut all = Vec::new();
        self.state(row, &mut |reason| {
            all.push(reason);
            false
        });
        if !self.group_admits(row, overlay) {
            all.push(Reason::Group);
        }
        let times = overlay.on(row) as i64 + 1;
        for (index, amount) in self.wants.iter() {
            if self.free_of(row, index) < amount.saturating_mul(times) {
                all.push(Reason::Room(index));
            }
        }
        if self.exceeds_limit(row, times) {
            all.push(Reason::Limit);
        }
        all
    }

    /// Goes through what speaks against a host, room aside; returns the first reason for which `stop` says so.
    #[inline]
    fn state(&self, row: Row, stop: &mut impl FnMut(Reason) -> bool) -> Option<Reason> {
        let (index, bit) = (block_of(row), bit_of(row));
        let Some(block) = self.table.blocks.get(index) else { return Some(Reason::Zone) };
        let lacks = |word: u64| word >> bit & 1 == 0;
        let outside = match self.scope {
            Scope::Everywhere => false,
            Scope::Zone(zone) => block.zone != zone,
            Scope::Nowhere => true,
        };
        if outside && stop(Reason::Zone) {
            return Some(Reason::Zone);
        }
        if self.ignored.binary_search(&row).is_ok() && stop(Reason::Ignored) {
            return Some(Reason::Ignored);
        }
        if lacks(block.up) && stop(Reason::Down) {
            return Some(Reason::Down);
        }
        if lacks(block.enabled) && stop(Reason::Disabled) {
            return Some(Reason::Disabled);
        }
        if lacks(self.marked(&self.architecture, &self.table.architectures, index)) && stop(Reason::Architecture) {
            return Some(Reason::Architecture);
        }
        if lacks(self.marked(&self.traits, &self.table.traits, index)) && stop(Reason::Traits) {
            return Some(Reason::Traits);
        }
        None
    }

    fn free_of(&self, row: Row, index: usize) -> i64 {
        self.table.free.get(index).map_or(0, |column| column[block_of(row)][bit_of(row)])
    }

    fn exceeds_limit(&self, row: Row, times: i64) -> bool {
        self.limit.is_some_and(|limit| {
            let asked = self.request.resources.get(limit.dimension).saturating_mul(times as u64);
            self.table.used_at(row, limit.dimension).saturating_add(asked) > limit.most
        })
    }

    /// Judges only whether the host has room.
    pub(crate) fn room(&self, row: Row, overlay: &Overlay) -> Result<(), Reason> {
        let times = overlay.on(row) as i64 + 1;
        for (index, amount) in self.wants.iter() {
            if self.free_of(row, index) < amount.saturating_mul(times) {
                return Err(Reason::Room(index));
            }
        }
        if self.exceeds_limit(row, times) { Err(Reason::Limit) } else { Ok(()) }
    }

    /// The hosts of a block that the request names as not to be chosen, as bits.
    fn ignored_in(&self, index: usize) -> u64 {
        if self.ignored.is_empty() {
            return 0;
        }
        let from = self.ignored.partition_point(|row| block_of(*row) < index);
        let here = self.ignored[from..].iter().take_while(|row| block_of(**row) == index);
        here.fold(0, |mask, row| mask | 1 << bit_of(*row))
    }

    /// Those of the hosts `within` a block that may be chosen, those excluded left out.
    pub(crate) fn candidates(&self, index: usize, within: u64, overlay: &Overlay) -> u64 {
        let Some(block) = self.table.blocks.get(index) else { return 0 };
        let mut mask = within & block.eligible() & self.marked_both(index) & !self.not_admitted(index, overlay);
        mask &= !self.ignored_in(index);
        for row in &overlay.excluded {
            if block_of(*row) == index {
                mask &= !(1 << bit_of(*row));
            }
        }
        if mask.count_ones() > FEW {
            mask &= self.with_room(index);
            if self.limit.is_none() && overlay.placed.is_empty() {
                return mask;
            }
        }
        bits(mask).filter(|bit| self.room(row_at(index, *bit), overlay).is_ok()).fold(0, |mask, bit| mask | 1 << bit)
    }

    /// The hosts `within` a block that take one instance, whatever the request says of single hosts, and whatever it
    /// has placed so far.
    pub(crate) fn takers(&self, index: usize, within: u64) -> u64 {
        let mut mask = within & self.eligible_and_marked(index);
        if mask.count_ones() > FEW {
            mask &= self.with_room(index);
            if self.limit.is_none() {
                return mask;
            }
        }
        bits(mask).filter(|bit| self.has_room(index, *bit)).fold(0, |mask, bit| mask | 1 << bit)
    }

    /// The hosts of a block that have room for one instance, all at once: those where no amount is more than what is left.
    #[inline]
    fn with_room(&self, index: usize) -> u64 {
        let column = |dimension: usize| self.table.free.get(dimension).map(|column| &column[index]);
        // Nothing is counted beyond MOST, so that differences never overflow.
        let most = |amount: i64| amount.min(MOST as i64 + 1);
        let mut short = [0; BLOCK];
        // So many are common: cores, memory and disk.
        if let [(a, p), (b, q), (c, r)] = self.wants.items[..self.wants.len] {
            let (p, q, r) = (most(p), most(q), most(r));
            let (Some(a), Some(b), Some(c)) = (column(a), column(b), column(c)) else { return 0 };
            for place in 0..BLOCK {
                short[place] = (a[place] - p) | (b[place] - q) | (c[place] - r);
            }
            return !negative(&short);
        }
        for (dimension, amount) in self.wants.iter() {
            let (Some(column), amount) = (column(dimension), most(amount)) else { return 0 };
            short.iter_mut().zip(column).for_each(|(short, free)| *short |= free - amount);
        }
        !negative(&short)
    }

    #[inline]
    pub(crate) fn eligible_and_marked(&self, index: usize) -> u64 {
        self.table.blocks.get(index).map_or(0, |block| block.eligible() & self.marked_both(index))
    }

    /// Whether one instance has room on the host.
    #[inline]
    pub(crate) fn has_room(&self, index: usize, bit: usize) -> bool {
        let fits = |(dimension, amount): (usize, i64)| {
            self.table.free.get(dimension).is_some_and(|column| column[index][bit] >= amount)
        };
        self.wants.iter().all(fits)
            && self.limit.is_none_or(|limit| {
                let asked = self.request.resources.get(limit.dimension);
                self.table.used_at(row_at(index, bit), limit.dimension).saturating_add(asked) <= limit.most
            })
    }

    /// The architectures, traits required and traits forbidden, by number.
    pub(crate) fn marks(&self) -> (&[usize], &[usize], &[usize]) {
        (&self.architecture.required, &self.traits.required, &self.traits.forbidden)
    }

    /// Whether no host can pass: the zone doesn't exist, or a trait that no host ever had is required.
    pub(crate) fn is_hopeless(&self) -> bool {
        matches!(self.scope, Scope::Nowhere) || self.architecture.impossible || self.traits.impossible
    }

    /// The hosts of a block that the request must not go to, whatever room they have.
    pub(crate) fn barred(&self, index: usize, overlay: &Overlay) -> u64 {
        let named = overlay.excluded.iter().copied();
        let first = row_at(index, 0);
        let placed = overlay.placed.range(first..first + BLOCK as Row).map(|(row, _)| *row);
        let barred = named.chain(placed).filter(|row| block_of(*row) == index);
        barred.fold(self.not_admitted(index, overlay) | self.ignored_in(index), |mask, row| mask | 1 << bit_of(row))
    }

    /// The zones to look in, by number.
    pub(crate) fn zones(&self) -> std::ops::Range<usize> {
        match self.scope {
            Scope::Everywhere => 0..self.table.zones.len(),
            Scope::Zone(zone) => zone as usize..zone as usize + 1,
            Scope::Nowhere => 0..0,
        }
    }

    /// How many places for hosts there are where the request may look.
    pub(crate) fn places(&self) -> usize {
        match self.scope {
            Scope::Everywhere => self.table.blocks.len() * BLOCK,
            Scope::Zone(zone) => self.table.zones[zone as usize].blocks.len() * BLOCK,
            Scope::Nowhere => 0,
        }
    }

    /// The place of that number, below [`Query::places`].
    pub(crate) fn place(&self, number: usize) -> Row {
        match self.scope {
            Scope::Zone(zone) => {
                let block = self.table.zones[zone as usize].blocks[number / BLOCK];
                row_at(block as usize, number % BLOCK)
            }
            Scope::Everywhere | Scope::Nowhere => number as Row,
        }
    }

    /// Shows every block that has a candidate to `search`, in order.
    pub(crate) fn walk(&self, overlay: &Overlay, search: &mut impl Search) {
        let blocks = match self.scope {
            Scope::Everywhere => self.table.blocks.len(),
            Scope::Zone(zone) => self.table.zones[zone as usize].blocks.len(),
            Scope::Nowhere => 0,
        };
        for position in 0..blocks {
            let index = match self.scope {
                Scope::Zone(zone) => self.table.zones[zone as usize].blocks[position] as usize,
                Scope::Everywhere | Scope::Nowhere => position,
            };
            if self.block_has_room(index) {
                let candidates = self.candidates(index, u64::MAX, overlay);
                if candidates != 0 {
                    search.visit(index, candidates);
                }
            }
        }
    }

    /// Whether a host of the block may have room, by its summaries.
    #[inline]
    fn block_has_room(&self, index: usize) -> bool {
        let block = &self.table.blocks[index];
        let zone = &self.table.zones[block.zone as usize];
        let position = block.position as usize;
        let most = |index| zone.most_free.get(index).map_or(NOTHING, |summary: &Summary| summary.block(position));
        self.wants.iter().all(|(index, amount)| most(index) >= amount)
    }

    #[inline]
    fn marked_both(&self, index: usize) -> u64 {
        self.marked(&self.architecture, &self.table.architectures, index)
            & self.marked(&self.traits, &self.table.traits, index)
    }

    #[inline]
    fn marked(&self, marks: &Marks, tags: &crate::table::Tags, block: usize) -> u64 {
        if marks.impossible {
            return 0;
        }
        let required = marks.required.iter().fold(u64::MAX, |mask, id| mask & tags.word(*id, block));
        marks.forbidden.iter().fold(required, |mask, id| mask & !tags.word(*id, block))
    }
}

/// The bits of the values below 0.
#[inline]
fn negative(values: &[i64; BLOCK]) -> u64 {
    let mut bytes = [0; BLOCK];
    bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = (*value as u64 >> 63) as u8);
    let mut mask = 0;
    for (number, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // Brings the lowest bit of each byte to its place in the highest byte.
        mask |= (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * number);
    }
    mask
}

#[cfg(test)]
mod tests;
