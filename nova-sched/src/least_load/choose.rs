//! The search for the least loaded host.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{LeastLoadOptions, TieBreak};
use crate::classes::{Held, Reach, Turn};
use crate::group::Tier;
use crate::query::{Overlay, Query, Scope};
use crate::table::{LoadIndexRef, Row, bit_of, bits, merit, row_at};

/// A host that could be chosen. The greatest is: more merit, then nearer, then of lower rank.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Candidate {
    merit: i64,
    distance: u32,
    rank: u64,
    row: Row,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.merit.cmp(&other.merit))
            .then(other.distance.cmp(&self.distance))
            .then(other.rank.cmp(&self.rank))
            .then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A part of the table that is searched on its own.
struct Part {
    reach: Reach,
    distance: u32,
    /// What is known of requests like this one, there.
    class: Option<usize>,
}

/// Chooses host after host for one request.
pub(super) struct Chooser<'a> {
    options: &'a LeastLoadOptions,
    query: &'a Query<'a>,
    index: Option<LoadIndexRef<'a>>,
    turn: Turn,
    held: Option<Held<'a>>,
    parts: Vec<Part>,
    /// The hosts that have instances of this request: their load isn't what the index says.
    placed: BinaryHeap<Candidate>,
    last: Option<Row>,
    /// What the request's group asked for in the last search.
    tier: Tier,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(options: &'a LeastLoadOptions, query: &'a Query<'a>, random: u64) -> Self {
        let start = match options.tie_break {
            TieBreak::Random => random,
            TieBreak::Name => 0,
        };
        let mut chooser = Self {
            options,
            query,
            index: query.table.load_index_ref(options.source.name()),
            turn: Turn::new(start),
            held: None,
            parts: Vec::new(),
            placed: BinaryHeap::new(),
            last: None,
            tier: Tier::Any,
        };
        chooser.find_parts();
        chooser
    }

    fn find_parts(&mut self) {
        if self.query.is_hopeless() {
            return;
        }
        let distances = self.options.zone_distances.as_deref().filter(|_| !self.query.request.near_zones.is_empty());
        let reaches = match (self.query.scope, distances) {
            (Scope::Everywhere, None) => vec![(Reach::Everywhere, 0)],
            (_, None) => self.query.zones().map(|zone| (Reach::Zone(zone as u32), 0)).collect(),
            (_, Some(distances)) => {
                let near = || self.query.request.near_zones.iter().map(String::as_str);
                let distance = |zone: usize| distances.to_nearest(&self.query.table.zones[zone].name, near());
                self.query.zones().map(|zone| (Reach::Zone(zone as u32), distance(zone))).collect()
            }
        };
        self.held = self.index.and_then(|_| self.query.table.classes.hold());
        let load = self.index.map(|index| index.number);
        for (reach, distance) in reaches {
            let class = self.held.as_mut().and_then(|held| held.class(self.query, load, reach));
            self.parts.push(Part { reach, distance, class });
        }
    }

    /// The next host, what was chosen before for this request being taken into account.
    pub(super) fn choose(&mut self, overlay: &Overlay) -> Option<Row> {
        self.weigh_last(overlay);
        if let Some(rows) = self.query.admitted_only(overlay) {
            self.last = self.best_of(&rows, overlay).map(|best| best.row);
            return self.last;
        }
        self.follow_tier(overlay);
        let mut best = self.best_placed(overlay);
        for part in 0..self.parts.len() {
            best = match (self.parts[part].class, self.options.tie_break) {
                (Some(class), TieBreak::Random) => self.search_class(part, class, overlay, best),
                (Some(class), TieBreak::Name) => self.search_names(part, class, overlay, best),
                (None, _) => self.search_all(part, overlay, best),
            };
        }
        self.last = best.map(|best| best.row);
        self.last
    }

    /// What was barred for another wish of the group is not barred any more.
    fn follow_tier(&mut self, overlay: &Overlay) {
        let tier = self.query.tier(overlay);
        if tier != self.tier {
            self.tier = tier;
            self.held.iter_mut().for_each(Held::restore);
        }
    }

    /// Puts the host chosen last among those that have instances of this request, with its new load.
    fn weigh_last(&mut self, overlay: &Overlay) {
        let Some(row) = self.last.take() else { return };
        if self.placed.peek().is_some_and(|best| best.row == row) {
            self.placed.pop();
        } else if !self.placed.is_empty() {
            self.placed.retain(|other| other.row != row);
        }
        if !overlay.placed.contains_key(&row) || self.query.room(row, overlay).is_err() {
            return;
        }
        self.placed.extend(self.candidate_of(row, overlay));
    }

    /// The host with its load as it is now.
    fn candidate_of(&self, row: Row, overlay: &Overlay) -> Option<Candidate> {
        let part = self.parts.iter().find_map(|part| Some((part, self.query.position_of(part.reach, row)?)));
        let (part, position) = part?;
        Some(self.candidate(part, position, row, self.ask(row, overlay)))
    }

    /// The best of these hosts.
    fn best_of(&self, rows: &[Row], overlay: &Overlay) -> Option<Candidate> {
        let fits = |row: &&Row| self.query.verdict(**row, overlay).is_ok() && !overlay.excluded.contains(*row);
        let fitting = rows.iter().filter(fits).filter_map(|row| self.candidate_of(*row, overlay));
        fitting.reduce(|a, b| self.better(a, b))
    }

    fn best_placed(&mut self, overlay: &Overlay) -> Option<Candidate> {
        let any = overlay.excluded.is_empty() && self.query.tier(overlay) == Tier::Any;
        if any && self.options.tie_break == TieBreak::Random {
            return self.placed.peek().copied();
        }
        let free = |candidate: &&Candidate| {
            !overlay.excluded.contains(&candidate.row) && self.query.group_admits(candidate.row, overlay)
        };
        self.placed.iter().filter(free).copied().reduce(|a, b| self.better(a, b))
    }

    fn search_class(
        &mut self,
        part: usize,
        class: usize,
        overlay: &Overlay,
        best: Option<Candidate>,
    ) -> Option<Candidate> {
        let (Some(index), Some(held)) = (self.index, self.held.as_mut()) else { return best };
        let query = self.query;
        let Some(found) = held.best(class, query, index, self.turn, |block| query.barred(block, overlay)) else {
            return best;
        };
        let found = self.candidate(&self.parts[part], found.position, found.row, found.merit);
        best.max(Some(found))
    }

    /// As [`Chooser::search_class`], but looks at all hosts that are as good, for the first name.
    fn search_names(
        &mut self,
        part: usize,
        class: usize,
        overlay: &Overlay,
        best: Option<Candidate>,
    ) -> Option<Candidate> {
        let (Some(index), Some(held)) = (self.index, self.held.as_mut()) else { return best };
        let query = self.query;
        let Some(found) = held.best(class, query, index, self.turn, |block| query.barred(block, overlay)) else {
            return best;
        };
        let mut rows = Vec::new();
        held.each_bound(class, query, found.merit, |block| {
            let takers = query.takers(block, !query.barred(block, overlay));
            rows.extend(bits(takers).filter(|bit| index.merits[block][*bit] == found.merit).map(|b| row_at(block, b)));
        });
        let part = &self.parts[part];
        let equals = rows.into_iter().map(|row| self.candidate(part, found.position, row, found.merit));
        best.into_iter().chain(equals).reduce(|a, b| self.better(a, b))
    }

    /// Looks at every block that may hold a better host.
    fn search_all(&self, part: usize, overlay: &Overlay, mut best: Option<Candidate>) -> Option<Candidate> {
        let part = &self.parts[part];
        for position in 0..self.query.reach_len(part.reach) {
            let block = self.query.block_at(part.reach, position);
            if let (Some(best), Some(index)) = (best, self.index)
                && self.query.table.best_merit_of(index.number, block) < best.merit
            {
                continue;
            }
            for bit in bits(self.query.takers(block, !self.query.barred(block, overlay))) {
                let row = row_at(block, bit);
                let merit = match self.index {
                    Some(index) => index.merits[block][bit],
                    None => self.ask(row, overlay),
                };
                let found = self.candidate(part, position, row, merit);
                best = Some(best.map_or(found, |best| self.better(best, found)));
            }
        }
        best
    }

    fn candidate(&self, part: &Part, position: usize, row: Row, merit: i64) -> Candidate {
        let rank = self.turn.rank(position, bit_of(row), self.query.reach_len(part.reach));
        Candidate { merit, distance: part.distance, rank, row }
    }

    fn better(&self, one: Candidate, other: Candidate) -> Candidate {
        let name = |row| self.query.table.cold(row).map(|cold| &cold.name);
        let by_name = || match self.options.tie_break {
            TieBreak::Random => Ordering::Equal,
            TieBreak::Name => name(other.row).cmp(&name(one.row)),
        };
        let order = (one.merit.cmp(&other.merit))
            .then(other.distance.cmp(&one.distance))
            .then_with(by_name)
            .then_with(|| one.cmp(&other));
        if order == Ordering::Less { other } else { one }
    }

    fn ask(&self, row: Row, overlay: &Overlay) -> i64 {
        self.query.view(row, overlay).map_or(i64::MIN, |host| merit(self.options.source.load(host)))
    }
}
