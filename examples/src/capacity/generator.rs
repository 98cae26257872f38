//! Traces from a seed, fitted to the published figures of a real cloud.
//!
//! The figures are those published for Huawei-East-1, one month of one region of a public cloud (VMAgent,
//! <https://vmagent.readthedocs.io/en/latest/simulator/dataset.html>): 125,430 creations and 116,313 deletions in 30 days;
//! 15 sizes from 1 core with 1 GiB to 8 cores with 32 GiB; more than two thirds ask for 1 core and at most 2 GiB; 1U1G,
//! 1U2G, 2U4G and 4U8G are the main body; the live set grows from nothing to more than 8,000 in the rhythm increase, flux,
//! increase, flux; requests follow the hour of the day. What was not published (the exact weights, disks, how short the
//! bursts are) is chosen here.

use nova_sched::SchedulerRng;

use super::records::InputError;
use super::trace::{Shape, Trace, TraceBuilder};

/// Creations of the published month.
pub const PUBLISHED_CREATIONS: u64 = 125_430;
/// Deletions of the published month.
pub const PUBLISHED_DELETIONS: u64 = 116_313;

/// Cores, GiB, and how many of 10,000 requests ask for it.
const SIZES: [(u64, u64, u64); 15] = [
    (1, 1, 4_400),
    (1, 2, 2_350),
    (1, 4, 250),
    (1, 8, 50),
    (2, 2, 150),
    (2, 4, 1_200),
    (2, 8, 250),
    (2, 16, 60),
    (4, 4, 90),
    (4, 8, 750),
    (4, 16, 150),
    (4, 32, 50),
    (8, 8, 40),
    (8, 16, 130),
    (8, 32, 80),
];
const ALL_SIZES: u64 = 10_000;

const DAY_MS: u64 = 86_400_000;
/// A burst takes one part in this many of the whole time; there are two.
const BURST_PART: u64 = 60;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// How many requests.
    pub requests: u64,
    /// Over how many days.
    pub days: u64,
    /// Disk per core; nothing was published about disks.
    pub disk_gb_per_vcpu: u64,
    /// Which percentage of requests names a zone.
    pub zone_percent: u64,
    /// The zones that they name, each as likely.
    pub zones: Vec<String>,
}

/// Generates a trace.
///
/// # Errors
/// There is nothing to generate.
pub fn generate(options: &GeneratorOptions) -> Result<Trace, InputError> {
    let mut generator = Generator {
        rng: SchedulerRng::from_seed(options.seed),
        options,
        live: Vec::new(),
        owed: 0,
        requests: Vec::new(),
    };
    for phase in phases(options) {
        generator.phase(&phase);
    }
    let mut builder = TraceBuilder::default();
    for (at_ms, lifetime_ms, shape) in generator.requests {
        builder.add(at_ms, lifetime_ms, shape);
    }
    builder.build(&format!("generated, seed {}", options.seed), Vec::new())
}

/// A stretch of time with a steady mixture of creations and deletions.
#[derive(Debug, PartialEq, Eq)]
struct Phase {
    start_ms: u64,
    length_ms: u64,
    creations: u64,
    deletions: u64,
}

/// Burst, plateau, burst, plateau. What the live set grows by comes in the bursts, which make two creations to one
/// deletion; on a plateau as many go as come.
fn phases(options: &GeneratorOptions) -> [Phase; 4] {
    let all_ms = options.days.max(1).saturating_mul(DAY_MS);
    let burst_ms = all_ms / BURST_PART;
    let plateau_ms = all_ms / 2 - burst_ms;
    let creations = options.requests;
    let kept = |ratio: u128| (u128::from(creations) * ratio / u128::from(PUBLISHED_CREATIONS)) as u64;
    let growth = kept(u128::from(PUBLISHED_CREATIONS - PUBLISHED_DELETIONS));
    let burst =
        |growth: u64, start_ms| Phase { start_ms, length_ms: burst_ms, creations: 2 * growth, deletions: growth };
    let steady = |count: u64, start_ms| Phase { start_ms, length_ms: plateau_ms, creations: count, deletions: count };
    let (first, second) = (growth / 2, growth - growth / 2);
    let rest = creations - 2 * growth;
    [
        burst(first, 0),
        steady(rest / 2, burst_ms),
        burst(second, all_ms / 2),
        steady(rest - rest / 2, all_ms / 2 + burst_ms),
    ]
}

struct Generator<'a> {
    rng: SchedulerRng,
    options: &'a GeneratorOptions,
    /// The requests that are alive, by their place in `requests`.
    live: Vec<usize>,
    /// Deletions that found nothing to delete; the next creations pay.
    owed: u64,
    requests: Vec<(u64, Option<u64>, Shape)>,
}

impl Generator<'_> {
    fn phase(&mut self, phase: &Phase) {
        let mut events: Vec<(u64, bool)> = Vec::new();
        for (count, is_creation) in [(phase.creations, true), (phase.deletions, false)] {
            events.extend((0..count).map(|_| (self.moment(phase), is_creation)));
        }
        // At the same moment a creation comes first.
        events.sort_unstable_by_key(|(at_ms, is_creation)| (*at_ms, !*is_creation));
        for (at_ms, is_creation) in events {
            if is_creation {
                self.create(at_ms);
            } else {
                self.owed += 1;
            }
            self.delete_owed(at_ms);
        }
    }

    /// A moment of the phase; at the busiest hour of the day three times as likely as at the quietest.
    fn moment(&mut self, phase: &Phase) -> u64 {
        loop {
            let at_ms = phase.start_ms + self.rng.below(phase.length_ms.max(1));
            let from_noon = (at_ms % DAY_MS).abs_diff(DAY_MS / 2);
            // From 1 at midnight to 3 at noon, in whole numbers: the same on every machine.
            let weight = 3 * (DAY_MS / 2) - 2 * from_noon;
            if self.rng.below(3 * (DAY_MS / 2)) < weight {
                return at_ms;
            }
        }
    }

    fn create(&mut self, at_ms: u64) {
        let shape = self.shape();
        self.live.push(self.requests.len());
        self.requests.push((at_ms, None, shape));
    }

    /// Any of the living may go next: lifetimes are then as different as the live set is old.
    fn delete_owed(&mut self, at_ms: u64) {
        while self.owed > 0 && !self.live.is_empty() {
            self.owed -= 1;
            let index = self.rng.index(self.live.len());
            let request = self.live.swap_remove(index);
            if let Some((start, lifetime, _)) = self.requests.get_mut(request) {
                *lifetime = Some(at_ms - *start);
            }
        }
    }

    fn shape(&mut self) -> Shape {
        let mut ticket = self.rng.below(ALL_SIZES);
        let mut size = SIZES[0];
        for candidate in SIZES {
            size = candidate;
            match ticket.checked_sub(candidate.2) {
                Some(rest) => ticket = rest,
                None => break,
            }
        }
        let (vcpus, gib, _) = size;
        let mut shape = Shape::new([vcpus, gib * 1_024, vcpus.saturating_mul(self.options.disk_gb_per_vcpu)]);
        shape.flavor = format!("{vcpus}U{gib}G");
        if self.rng.below(100) < self.options.zone_percent {
            let zones = &self.options.zones;
            shape.zone = zones.get(self.rng.index(zones.len())).cloned();
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn published(seed: u64) -> GeneratorOptions {
        GeneratorOptions {
            seed,
            requests: PUBLISHED_CREATIONS,
            days: 30,
            disk_gb_per_vcpu: 10,
            zone_percent: 0,
            zones: Vec::new(),
        }
    }

    /// How many are alive after each event, with the time.
    fn live(trace: &Trace) -> Vec<(u64, i64)> {
        let mut changes: Vec<(u64, i64)> = Vec::new();
        for arrival in &trace.arrivals {
            changes.push((arrival.at_ms, 1));
            changes.extend(arrival.lifetime_ms.map(|lifetime| (arrival.at_ms + lifetime, -1)));
        }
        changes.sort_unstable_by_key(|(at_ms, change)| (*at_ms, -change));
        let mut alive = 0;
        changes
            .iter()
            .map(|(at_ms, change)| {
                alive += change;
                (*at_ms, alive)
            })
            .collect()
    }

    #[test]
    fn sizes_match_what_was_published() {
        assert_eq!(SIZES.iter().map(|size| size.2).sum::<u64>(), ALL_SIZES);
        for seed in 0..3 {
            let trace = generate(&published(seed)).unwrap();
            assert_eq!(trace.arrivals.len(), 125_430);
            let share = |wanted: &dyn Fn(&Shape) -> bool| {
                trace.arrivals.iter().filter(|arrival| wanted(trace.shape(arrival))).count() as f64 / 125_430.0
            };
            let small = share(&|shape| shape.resources[0] == 1 && shape.resources[1] <= 2_048);
            assert!((0.667..0.70).contains(&small), "{small}");
            let main = share(&|shape| ["1U1G", "1U2G", "2U4G", "4U8G"].contains(&shape.flavor.as_str()));
            assert!(main > 0.8, "{main}");
            let sizes: BTreeSet<[u64; 3]> = trace.shapes.iter().map(|shape| shape.resources).collect();
            assert_eq!(sizes.len(), 15);
            assert_eq!(sizes.first(), Some(&[1, 1_024, 10]));
            assert_eq!(sizes.last(), Some(&[8, 32_768, 80]));
        }
    }

    #[test]
    fn the_live_set_grows_in_two_bursts_past_8000_and_rests_between() {
        let trace = generate(&published(7)).unwrap();
        let deletions = trace.arrivals.iter().filter(|arrival| arrival.lifetime_ms.is_some()).count() as u64;
        assert_eq!(deletions, PUBLISHED_DELETIONS);
        let live = live(&trace);
        assert_eq!(live.last().map(|(_, alive)| *alive), Some(9_117));
        let at = |days: f64| {
            let ms = (days * DAY_MS as f64) as u64;
            live.iter().take_while(|(at_ms, _)| *at_ms <= ms).last().map_or(0, |(_, alive)| *alive)
        };
        // Two bursts of half a day, at the beginning and in the middle.
        assert!((4_000..5_000).contains(&at(0.5)), "{}", at(0.5));
        assert!((4_000..5_100).contains(&at(14.9)), "{}", at(14.9));
        assert!(at(15.5) > 8_000, "{}", at(15.5));
        let per_day = |from: u64, to: u64| {
            let inside = |arrival: &&super::super::trace::Arrival| (from..to).contains(&(arrival.at_ms * 2 / DAY_MS));
            trace.arrivals.iter().filter(inside).count() as f64 * 2.0 / (to - from) as f64
        };
        assert!(per_day(0, 1) > 3.0 * per_day(2, 30), "{} {}", per_day(0, 1), per_day(2, 30));
        let by_hour =
            |hour: u64| trace.arrivals.iter().filter(|arrival| arrival.at_ms / 3_600_000 % 24 == hour).count();
        assert!(by_hour(12) > 2 * by_hour(0), "{} {}", by_hour(12), by_hour(0));
    }

    #[test]
    fn the_seed_decides() {
        let small = |seed| GeneratorOptions { requests: 2_000, days: 3, ..published(seed) };
        let digest = |options: &GeneratorOptions| generate(options).unwrap().digest();
        assert_eq!(digest(&small(1)), digest(&small(1)));
        assert_ne!(digest(&small(1)), digest(&small(2)));
        // Published with the seed: a trace of this name is this trace.
        assert_eq!(digest(&small(42)), "004c318d1e89b0ab566472c3ef7f381c6fa70d90ab0a24816b6a91ee073d0b02");
        assert_eq!(generate(&GeneratorOptions { requests: 0, ..small(1) }).unwrap_err().reason, "has no request");
    }

    #[test]
    fn some_requests_name_a_zone() {
        let zones = vec!["east".to_owned(), "west".to_owned()];
        let options = GeneratorOptions { requests: 4_000, zone_percent: 25, zones, ..published(3) };
        let trace = generate(&options).unwrap();
        let named = |zone: &str| {
            trace.arrivals.iter().filter(|arrival| trace.shape(arrival).zone.as_deref() == Some(zone)).count()
        };
        assert!((400..600).contains(&named("east")) && (400..600).contains(&named("west")));
    }
}
