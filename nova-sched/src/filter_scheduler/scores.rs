//! What hosts that passed are worth, and which of them is best.
//!
//! A score is a sum over weighers of multiplier × (weight − least) / (most − least). The order of hosts is that of these
//! sums, computed as written. But the sum of weight × (multiplier / (most − least)) orders them almost the same, without a
//! division per host and weigher: it tells which few hosts can be the best, and only for these the score is computed.

use std::collections::BTreeMap;

use super::pipeline::Survivors;
use super::{Company, HostBlock};
use crate::classes::Turn;
use crate::query::Overlay;
use crate::table::{BLOCK, Row, bits, row_at};
use crate::weighers::Weigher;

/// What a host's score loses if a weigher can't weigh it while it can weigh others: more than any multiplier in use, and
/// little enough for the other parts of the score to count.
const WITHOUT_WEIGHT: f64 = -1e12;

/// How far the quick sum may be from the score, in parts of the largest numbers in it: much more than rounding makes.
const ROUNDING: f64 = 1e-12;

/// What weighers add to a score, by name.
pub(super) type Parts = Vec<(String, f64)>;

/// Memory that decisions use again.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) survivors: Vec<Survivors>,
    /// Per block of survivors.
    scores: Vec<[f64; BLOCK]>,
    /// The highest of each block's.
    highest: Vec<f64>,
    /// Per weigher that has a say, then block of survivors.
    weights: Vec<[f64; BLOCK]>,
}

/// A weigher that has a say, and the scale that its weights are put on.
struct Scale<'a> {
    weigher: &'a dyn Weigher,
    multiplier: f64,
    /// The key under which aggregates of the table say another multiplier.
    key: Option<&'a str>,
    least: f64,
    range: f64,
    /// Whether a host has a weight that can't be put on the scale: none, or no number.
    odd: bool,
}

impl Scale<'_> {
    fn part(&self, weight: f64, multiplier: f64) -> f64 {
        if weight == f64::NEG_INFINITY { WITHOUT_WEIGHT } else { multiplier * ((weight - self.least) / self.range) }
    }

    fn multiplier_of(&self, block: &HostBlock<'_>, place: usize) -> f64 {
        let (Some(key), Some(host)) = (self.key, block.host(place)) else { return self.multiplier };
        let own = crate::filters::least_of(&host, key, f64::NAN);
        if own.is_nan() { self.multiplier } else { own * self.weigher.aggregate_sign() }
    }
}

/// The weighing of the survivors of one decision.
pub(super) struct Weighing<'a, 's> {
    company: &'a Company<'a>,
    overlay: &'a Overlay,
    scratch: &'s mut Scratch,
    scales: Vec<Scale<'a>>,
}

impl<'a, 's> Weighing<'a, 's> {
    pub(super) fn new(
        company: &'a Company<'a>,
        overlay: &'a Overlay,
        scratch: &'s mut Scratch,
        weighers: &'a [Box<dyn Weigher>],
    ) -> Self {
        let mut weighing = Self { company, overlay, scratch, scales: Vec::new() };
        // A single host needs no weighing.
        let hosts: u32 = weighing.scratch.survivors.iter().map(|survivors| survivors.hosts.count_ones()).sum();
        if hosts > 1 {
            for weigher in weighers {
                let scale = weighing.weigh(&**weigher);
                weighing.scales.extend(scale);
            }
        }
        weighing
    }

    /// Weighs all survivors; `None` when the weigher finds them alike.
    fn weigh(&mut self, weigher: &'a dyn Weigher) -> Option<Scale<'a>> {
        let (table, request) = (self.company.query.table, self.company.query.request);
        let key = weigher.multiplier_key().filter(|key| table.aggregates.has_key(key));
        let multiplier = weigher.multiplier();
        if (multiplier == 0.0 && key.is_none()) || weigher.is_level(table, request) {
            return None;
        }
        let (first, blocks) = (self.scales.len() * self.scratch.survivors.len(), self.scratch.survivors.len());
        if self.scratch.weights.len() < first + blocks {
            self.scratch.weights.resize(first + blocks, [0.0; BLOCK]);
        }
        let mut bounds = Bounds::default();
        for (survivors, weights) in self.scratch.survivors.iter().zip(&mut self.scratch.weights[first..]) {
            let block = HostBlock::new(self.company, survivors.block);
            weigher.weigh_block(&block, request, survivors.hosts, weights);
            if !self.overlay.placed.is_empty() {
                // Columns don't know what the request has placed.
                for place in bits(survivors.hosts & block.placed()) {
                    weights[place] = block.host(place).map_or(0.0, |host| weigher.weigh(&host, request));
                }
            }
            fill(weights, survivors.hosts);
            match weigher.least() {
                Some(least) => bounds.raise(weights, least),
                None => bounds.widen(weights),
            }
        }
        let least = weigher.least().unwrap_or(bounds.least);
        let range = bounds.most - least;
        if bounds.without {
            // Those that have a weight are put on the scale, be they alike; the others come last.
            let range = if range > 0.0 && range.is_finite() { range } else { 1.0 };
            let least = if least.is_finite() { least } else { 0.0 };
            return Some(Scale { weigher, multiplier, key, least, range, odd: true });
        }
        // All alike; or something that can't be put on a scale.
        (range != 0.0 && range.is_finite()).then_some(Scale {
            weigher,
            multiplier,
            key,
            least,
            range,
            odd: bounds.sum.is_nan(),
        })
    }

    /// The best host; of equals the first by rank.
    pub(super) fn best(&mut self, turn: Turn, blocks: usize) -> Option<Row> {
        if self.is_plain() { self.best_of_near(turn, blocks) } else { self.best_of_all(turn, blocks) }
    }

    /// Whether estimates can stand for scores: one multiplier for all hosts, and every weight a number.
    fn is_plain(&self) -> bool {
        self.scales.iter().all(|scale| scale.key.is_none() && !scale.odd)
    }

    /// How far apart two estimates are at most if their scores are in the other order.
    fn slack(&self) -> f64 {
        let size = |scale: &Scale<'_>| {
            let weight = scale.least.abs().max((scale.least + scale.range).abs());
            scale.multiplier.abs() * (1.0 + weight / scale.range)
        };
        self.scales.iter().map(size).sum::<f64>() * ROUNDING
    }

    /// The score of one survivor, where [`Weighing::is_plain`].
    fn score_of(&self, number: usize, place: usize) -> f64 {
        let len = self.scratch.survivors.len();
        let part = |(which, scale): (usize, &Scale<'_>)| {
            scale.part(self.scratch.weights[which * len + number][place], scale.multiplier)
        };
        self.scales.iter().enumerate().map(part).fold(0.0, |sum, part| sum + part)
    }

    fn best_of_all(&mut self, turn: Turn, blocks: usize) -> Option<Row> {
        self.score();
        let mut best = Best::default();
        for (survivors, scores) in self.scratch.survivors.iter().zip(&self.scratch.scores) {
            bits(survivors.hosts).for_each(|place| best.meet(scores[place], survivors, place, turn, blocks));
        }
        best.row()
    }

    /// As [`Weighing::best_of_all`], but computes the score of those hosts only that may have the highest.
    fn best_of_near(&mut self, turn: Turn, blocks: usize) -> Option<Row> {
        let least = self.estimate() - self.slack();
        let mut best = Best::default();
        for (number, survivors) in self.scratch.survivors.iter().enumerate() {
            if self.scratch.highest[number] < least {
                continue;
            }
            let estimates = &self.scratch.scores[number];
            for place in bits(survivors.hosts).filter(|place| estimates[*place] >= least) {
                best.meet(self.score_of(number, place), survivors, place, turn, blocks);
            }
        }
        best.row()
    }

    /// Writes what orders hosts almost as their scores do; returns the highest of it.
    fn estimate(&mut self) -> f64 {
        let len = self.scratch.survivors.len();
        self.scratch.scores.resize(len.max(self.scratch.scores.len()), [0.0; BLOCK]);
        self.scratch.highest.clear();
        for (number, estimates) in self.scratch.scores[..len].iter_mut().enumerate() {
            let weights = |which: usize| &self.scratch.weights[which * len + number];
            let factor = |scale: &Scale<'_>| scale.multiplier / scale.range;
            match &self.scales[..] {
                // So many are common: cores, memory and disk.
                [a, b, c] => {
                    let (a, b, c) = (factor(a), factor(b), factor(c));
                    let (x, y, z) = (weights(0), weights(1), weights(2));
                    for place in 0..BLOCK {
                        estimates[place] = a * x[place] + b * y[place] + c * z[place];
                    }
                }
                scales => {
                    estimates.fill(0.0);
                    for (which, scale) in scales.iter().enumerate() {
                        let factor = factor(scale);
                        let pairs = estimates.iter_mut().zip(weights(which));
                        pairs.for_each(|(sum, weight)| *sum += factor * weight);
                    }
                }
            }
            let mut most = [f64::NEG_INFINITY; 4];
            for four in estimates.as_chunks::<4>().0 {
                most.iter_mut().zip(four).for_each(|(most, sum)| *most = if sum > most { *sum } else { *most });
            }
            self.scratch.highest.push(most.into_iter().fold(f64::NEG_INFINITY, f64::max));
        }
        self.scratch.highest.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Computes the score of every survivor.
    fn score(&mut self) {
        let len = self.scratch.survivors.len();
        self.scratch.scores.clear();
        self.scratch.scores.resize(len, [0.0; BLOCK]);
        for (which, scale) in self.scales.iter().enumerate() {
            let weights = &self.scratch.weights[which * len..];
            let pairs = self.scratch.survivors.iter().zip(weights);
            for ((survivors, weights), scores) in pairs.zip(&mut self.scratch.scores) {
                if scale.key.is_none() {
                    let each = scores.iter_mut().zip(weights);
                    each.for_each(|(score, weight)| *score += scale.part(*weight, scale.multiplier));
                    continue;
                }
                let block = HostBlock::new(self.company, survivors.block);
                for place in bits(survivors.hosts) {
                    scores[place] += scale.part(weights[place], scale.multiplier_of(&block, place));
                }
            }
        }
    }

    /// The `most` best survivors, and maybe others, with their scores and ranks.
    pub(super) fn foremost(&mut self, turn: Turn, blocks: usize, most: usize) -> Vec<(f64, u64, Row)> {
        if !self.is_plain() || most == 0 {
            return self.all(turn, blocks);
        }
        self.estimate();
        let len = self.scratch.survivors.len();
        // The highest estimates, the lowest of them first.
        let mut highest = vec![f64::NEG_INFINITY; most.min(len * BLOCK).max(1)];
        for (number, survivors) in self.scratch.survivors.iter().enumerate() {
            if self.scratch.highest[number] <= highest[0] {
                continue;
            }
            for place in bits(survivors.hosts) {
                let estimate = self.scratch.scores[number][place];
                if estimate > highest[0] {
                    let behind = highest.partition_point(|other| *other < estimate);
                    highest[..behind].rotate_left(1);
                    highest[behind - 1] = estimate;
                }
            }
        }
        let bound = highest[0] - self.slack();
        let mut all = Vec::new();
        for (number, survivors) in self.scratch.survivors.iter().enumerate() {
            if self.scratch.highest[number] < bound {
                continue;
            }
            let near = |place: &usize| self.scratch.scores[number][*place] >= bound;
            all.extend(bits(survivors.hosts).filter(near).map(|place| {
                let rank = turn.rank(survivors.position, place, blocks);
                (self.score_of(number, place), rank, row_at(survivors.block, place))
            }));
        }
        all
    }

    /// Every survivor with its score and its rank.
    fn all(&mut self, turn: Turn, blocks: usize) -> Vec<(f64, u64, Row)> {
        self.score();
        let mut all = Vec::new();
        for (survivors, scores) in self.scratch.survivors.iter().zip(&self.scratch.scores) {
            all.extend(bits(survivors.hosts).map(|place| {
                let rank = turn.rank(survivors.position, place, blocks);
                (scores[place], rank, row_at(survivors.block, place))
            }));
        }
        all
    }

    /// What each weigher adds to the score of every survivor; without those that add nothing.
    pub(super) fn parts(&self) -> BTreeMap<Row, Parts> {
        let len = self.scratch.survivors.len();
        let mut all: BTreeMap<Row, Parts> = BTreeMap::new();
        for (number, survivors) in self.scratch.survivors.iter().enumerate() {
            let block = HostBlock::new(self.company, survivors.block);
            for place in bits(survivors.hosts) {
                let part = |(which, scale): (usize, &Scale<'_>)| {
                    let weight = self.scratch.weights[which * len + number][place];
                    (scale.weigher.name().to_owned(), scale.part(weight, scale.multiplier_of(&block, place)))
                };
                let parts = self.scales.iter().enumerate().map(part).filter(|(_, part)| *part != 0.0);
                all.insert(row_at(survivors.block, place), parts.collect());
            }
        }
        all
    }
}

/// The best host so far.
#[derive(Default)]
struct Best(Option<(f64, u64, Row)>);

impl Best {
    fn meet(&mut self, score: f64, survivors: &Survivors, place: usize, turn: Turn, blocks: usize) {
        if self.0.is_some_and(|(most, ..)| score < most || score.is_nan()) {
            return;
        }
        let rank = turn.rank(survivors.position, place, blocks);
        if self.0.is_none_or(|(most, first, _)| score > most || rank < first || most.is_nan()) {
            self.0 = Some((score, rank, row_at(survivors.block, place)));
        }
    }

    fn row(self) -> Option<Row> {
        self.0.map(|(.., row)| row)
    }
}

/// The range of weights.
struct Bounds {
    least: f64,
    most: f64,
    sum: f64,
    without: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        let none = (f64::INFINITY, f64::NEG_INFINITY);
        Self { least: none.0, most: none.1, sum: 0.0, without: false }
    }
}

impl Bounds {
    /// Raises weights to `least`, what is no number too.
    fn raise(&mut self, weights: &mut [f64; BLOCK], least: f64) {
        let mut most = [self.most; 4];
        for four in weights.as_chunks_mut::<4>().0 {
            for (weight, most) in four.iter_mut().zip(&mut most) {
                *weight = if *weight > least { *weight } else { least };
                *most = if *weight > *most { *weight } else { *most };
            }
        }
        self.most = most.into_iter().fold(f64::NEG_INFINITY, f64::max);
    }

    fn widen(&mut self, weights: &[f64; BLOCK]) {
        for weight in weights {
            if *weight == f64::NEG_INFINITY {
                self.without = true;
                continue;
            }
            self.least = if *weight < self.least { *weight } else { self.least };
            self.most = if *weight > self.most { *weight } else { self.most };
            self.sum += weight;
        }
    }
}

/// Gives places without a survivor the weight of one, so that all places can be read alike.
fn fill(weights: &mut [f64; BLOCK], hosts: u64) {
    let some = weights[hosts.trailing_zeros() as usize % BLOCK];
    for place in bits(!hosts) {
        weights[place] = some;
    }
}
