//! One request on its way through filters and weighers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Company, FilterScheduler, HostBlock};
use crate::classes::Turn;
use crate::filters::{Filter, Reads};
use crate::query::{Judge, Overlay, Query, Reason, Scope};
use crate::request::Purpose;
use crate::table::{BLOCK, Row, bit_of, bits, row_at};
use crate::weighers::Weigher;
use crate::{Request, SchedulerRng};

/// A request, and the filters that have something to say to it.
pub(super) struct Pipeline<'a> {
    scheduler: &'a FilterScheduler,
    query: &'a Query<'a>,
    turn: Turn,
    /// Each with its number among all.
    filters: Vec<(usize, &'a dyn Filter, Reads)>,
}

/// A block with hosts that passed.
struct Survivors {
    block: usize,
    position: usize,
    hosts: u64,
}

impl Survivors {
    fn rows(&self) -> impl Iterator<Item = Row> + use<> {
        let block = self.block;
        bits(self.hosts).map(move |place| row_at(block, place))
    }
}

/// What weighers add to a score, by name.
pub(super) type Parts = Vec<(String, f64)>;

/// Memory that decisions use again.
#[derive(Default)]
struct Scratch {
    survivors: Vec<Survivors>,
    scores: Vec<[f64; BLOCK]>,
    weights: Vec<[f64; BLOCK]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(scheduler: &'a FilterScheduler, query: &'a Query<'a>, random: u64) -> Self {
        let rebuild = query.request.purpose == Purpose::Rebuild;
        let filters = (scheduler.filters.iter().enumerate())
            .filter(|(_, filter)| !rebuild || filter.runs_on_rebuild())
            .map(|(number, filter)| (number, &**filter, filter.reads(query.request)))
            .filter(|(_, _, reads)| *reads != Reads::Nothing)
            .collect();
        Self { scheduler, query, turn: Turn::new(random), filters }
    }

    /// The best host, or one of the `subset` best.
    pub(super) fn best(&self, overlay: &Overlay, subset: u32, rng: &mut SchedulerRng) -> Option<Row> {
        if subset > 1 {
            let ranked = self.ranked(overlay, subset as usize);
            return ranked.get(rng.index(ranked.len())).copied();
        }
        self.weighed(overlay, |scratch, blocks| {
            let mut best: Option<(f64, u64, Row)> = None;
            for (survivors, scores) in scratch.survivors.iter().zip(&scratch.scores) {
                for place in bits(survivors.hosts) {
                    let score = scores[place];
                    if best.is_some_and(|(most, ..)| score < most || score.is_nan()) {
                        continue;
                    }
                    let rank = self.turn.rank(survivors.position, place, blocks);
                    if best.is_none_or(|(most, first, _)| score > most || rank < first || most.is_nan()) {
                        best = Some((score, rank, row_at(survivors.block, place)));
                    }
                }
            }
            best.map(|(.., row)| row)
        })
    }

    /// So many of the best hosts, the best first.
    pub(super) fn ranked(&self, overlay: &Overlay, most: usize) -> Vec<Row> {
        self.weighed(overlay, |scratch, blocks| {
            let mut all = Vec::new();
            for (survivors, scores) in scratch.survivors.iter().zip(&scratch.scores) {
                all.extend(bits(survivors.hosts).map(|place| {
                    let rank = self.turn.rank(survivors.position, place, blocks);
                    (scores[place], rank, row_at(survivors.block, place))
                }));
            }
            let order = |a: &(f64, u64, Row), b: &(f64, u64, Row)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            if most < all.len() {
                all.select_nth_unstable_by(most, order);
                all.truncate(most);
            }
            all.sort_unstable_by(order);
            all.into_iter().map(|(.., row)| row).collect()
        })
    }

    /// What each weigher adds to the score of every host that passes; without those that add nothing.
    pub(super) fn parts(&self) -> BTreeMap<Row, Parts> {
        let overlay = Overlay::default();
        let company = Company::new(self.query, &overlay);
        let mut scratch = Scratch::default();
        self.filter(&company, &overlay, &mut scratch.survivors);
        let rows = scratch.survivors.iter().flat_map(|survivors| survivors.rows());
        let mut parts: BTreeMap<Row, Parts> = rows.map(|row| (row, Parts::new())).collect();
        for weigher in &self.scheduler.weighers {
            scratch.scores.clear();
            scratch.scores.resize(scratch.survivors.len(), [0.0; BLOCK]);
            weigh(&**weigher, &company, &overlay, &mut scratch);
            for (survivors, added) in scratch.survivors.iter().zip(&scratch.scores) {
                for row in survivors.rows() {
                    let added = added[bit_of(row)];
                    if let Some(parts) = parts.get_mut(&row).filter(|_| added != 0.0) {
                        parts.push((weigher.name().to_owned(), added));
                    }
                }
            }
        }
        parts
    }

    /// Filters, weighs, and shows the survivors with their scores.
    fn weighed<T>(&self, overlay: &Overlay, show: impl FnOnce(&Scratch, usize) -> T) -> T {
        let company = Company::new(self.query, overlay);
        SCRATCH.with_borrow_mut(|scratch| {
            let blocks = self.filter(&company, overlay, &mut scratch.survivors);
            scratch.scores.clear();
            scratch.scores.resize(scratch.survivors.len(), [0.0; BLOCK]);
            // A single host needs no weighing.
            let hosts: u32 = scratch.survivors.iter().map(|survivors| survivors.hosts.count_ones()).sum();
            if hosts > 1 {
                for weigher in &self.scheduler.weighers {
                    weigh(&**weigher, &company, overlay, scratch);
                }
            }
            show(scratch, blocks)
        })
    }

    /// Collects the hosts that pass; returns how many blocks there are where the request may look.
    fn filter(&self, company: &Company<'_>, overlay: &Overlay, survivors: &mut Vec<Survivors>) -> usize {
        survivors.clear();
        let table = self.query.table;
        let mut memos: Vec<Memo> = (self.filters.iter())
            .map(|(_, _, reads)| match reads {
                Reads::Attributes => Memo::new(table.kinds.len()),
                Reads::Aggregates => Memo::new(table.aggregates.len()),
                Reads::Nothing | Reads::Host => Memo::default(),
            })
            .collect();
        let of_zone = match self.query.scope {
            Scope::Everywhere => None,
            Scope::Zone(zone) => Some(&table.zones[zone as usize].blocks),
            Scope::Nowhere => return 0,
        };
        let blocks = of_zone.map_or(table.blocks.len(), Vec::len);
        for position in 0..blocks {
            let index = of_zone.map_or(position, |blocks| blocks[position] as usize);
            let mut hosts = self.query.candidates(index, u64::MAX, overlay);
            let block = HostBlock::new(company, index);
            for ((_, filter, reads), memo) in self.filters.iter().zip(&mut memos) {
                if hosts == 0 {
                    break;
                }
                let request = self.query.request;
                hosts = match reads {
                    Reads::Nothing => hosts,
                    Reads::Attributes => memo.passes(*filter, &block, request, hosts, block.kinds()),
                    Reads::Aggregates => memo.passes(*filter, &block, request, hosts, block.aggregate_sets()),
                    Reads::Host => hosts & filter.block_passes(&block, request, hosts),
                };
            }
            if hosts != 0 {
                survivors.push(Survivors { block: index, position, hosts });
            }
        }
        blocks
    }

    fn passes(&self, filter: &dyn Filter, company: &Company<'_>, row: Row) -> bool {
        company.view(row).is_some_and(|host| filter.host_passes(&host, self.query.request))
    }
}

impl Judge for Pipeline<'_> {
    fn judge(&self, row: Row, overlay: &Overlay) -> Result<(), Reason> {
        self.query.verdict(row, overlay)?;
        let company = Company::new(self.query, overlay);
        match self.filters.iter().find(|(_, filter, _)| !self.passes(*filter, &company, row)) {
            Some((number, ..)) => Err(Reason::Filter(*number)),
            None => Ok(()),
        }
    }

    fn filter_name(&self, number: usize) -> String {
        self.scheduler.filters.get(number).map(|filter| filter.name().to_owned()).unwrap_or_default()
    }

    fn objections(&self, row: Row, overlay: &Overlay) -> Vec<Reason> {
        let mut all = self.query.objections(row, overlay);
        let company = Company::new(self.query, overlay);
        let against = self.filters.iter().filter(|(_, filter, _)| !self.passes(*filter, &company, row));
        all.extend(against.map(|(number, ..)| Reason::Filter(*number)));
        all
    }
}

/// Verdicts of a filter that are the same for all hosts of a number.
#[derive(Default)]
struct Memo(Vec<Option<bool>>);

impl Memo {
    fn new(len: usize) -> Self {
        Self(vec![None; len])
    }

    fn passes(
        &mut self,
        filter: &dyn Filter,
        block: &HostBlock<'_>,
        request: &Request,
        hosts: u64,
        numbers: &[u32; BLOCK],
    ) -> u64 {
        let mut ask = |place: usize| {
            let ask = || block.host(place).is_some_and(|host| filter.host_passes(&host, request));
            match self.0.get_mut(numbers[place] as usize) {
                Some(verdict) => *verdict.get_or_insert_with(ask),
                None => ask(),
            }
        };
        // Mostly all hosts of a block are alike.
        let first = hosts.trailing_zeros() as usize;
        if numbers.iter().all(|number| *number == numbers[first]) {
            return if ask(first) { hosts } else { 0 };
        }
        bits(hosts).filter(|place| ask(*place)).fold(0, |mask, place| mask | 1 << place)
    }
}

/// Adds a weigher's part to the scores.
fn weigh(weigher: &dyn Weigher, company: &Company<'_>, overlay: &Overlay, scratch: &mut Scratch) {
    let (table, request) = (company.query.table, company.query.request);
    let key = weigher.multiplier_key().filter(|key| table.aggregates.has_key(key));
    let multiplier = weigher.multiplier();
    if (multiplier == 0.0 && key.is_none()) || weigher.is_level(table, request) {
        return;
    }
    scratch.weights.resize(scratch.survivors.len(), [0.0; BLOCK]);
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for (survivors, weights) in scratch.survivors.iter().zip(&mut scratch.weights) {
        weigh_block(weigher, company, overlay, survivors, weights);
        for weight in weights.iter() {
            least = if *weight < least { *weight } else { least };
            most = if *weight > most { *weight } else { most };
        }
    }
    least = weigher.least().unwrap_or(least);
    let range = most - least;
    // All alike; or something that can't be put on a scale.
    if range == 0.0 || !range.is_finite() {
        return;
    }
    for ((survivors, weights), scores) in scratch.survivors.iter().zip(&scratch.weights).zip(&mut scratch.scores) {
        match key {
            None => scores
                .iter_mut()
                .zip(weights)
                .for_each(|(score, weight)| *score += multiplier * ((weight - least) / range)),
            Some(key) => {
                let block = HostBlock::new(company, survivors.block);
                for place in bits(survivors.hosts) {
                    let multiplier = block.host(place).map_or(multiplier, |host| {
                        let own = crate::filters::least_of(&host, key, f64::NAN);
                        if own.is_nan() { multiplier } else { own * weigher.aggregate_sign() }
                    });
                    scores[place] += multiplier * ((weights[place] - least) / range);
                }
            }
        }
    }
}

/// What the hosts of a block are worth; places without a survivor have the weight of one.
fn weigh_block(
    weigher: &dyn Weigher,
    company: &Company<'_>,
    overlay: &Overlay,
    survivors: &Survivors,
    weights: &mut [f64; BLOCK],
) {
    let request = company.query.request;
    let block = HostBlock::new(company, survivors.block);
    weigher.weigh_block(&block, request, survivors.hosts, weights);
    if !overlay.placed.is_empty() {
        // Columns don't know what the request has placed.
        for place in bits(survivors.hosts & block.placed()) {
            weights[place] = block.host(place).map_or(0.0, |host| weigher.weigh(&host, request));
        }
    }
    let some = weights[survivors.hosts.trailing_zeros() as usize];
    for place in bits(!survivors.hosts) {
        weights[place] = some;
    }
    if let Some(least) = weigher.least() {
        for weight in weights.iter_mut() {
            *weight = if *weight < least { least } else { *weight };
        }
    }
}
