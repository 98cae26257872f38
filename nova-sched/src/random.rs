//! Random over all hosts that fit.

use crate::classes::{Held, Reach};
use crate::place::place;
use crate::query::{Overlay, Query, Scope, Search};
use crate::table::{BLOCK, Row, bits, row_at};
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerRng, Selection};

/// How often to draw a place blindly before looking at all of them. With half of the places good, as many draws fail
/// once in 65,000 times.
const DRAWS: usize = 16;

/// Any host that fits, each as likely as the other: Nova's chance scheduler (removed there in 2018).
///
/// A zone that is asked for is kept to, since it is a promise to the owner of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomScheduler {
    _private: (),
}

impl RandomScheduler {
    /// Its name in a configuration.
    pub const NAME: &'static str = "random";

    /// The algorithm has no options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Scheduler for RandomScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let query = Query::new(table, request, None);
        let mut draw = Draw::new(&query);
        place(&query, &query, |overlay| draw.choose(overlay, rng))
    }
}

/// Draws hosts for one request, each that fits being equally likely.
///
/// Drawing places until one is good costs the same however many hosts there are; when that finds nothing, because few
/// fit, the blocks that may have room are searched.
pub(crate) struct Draw<'a> {
    query: &'a Query<'a>,
    /// What is known of requests like this one, taken once drawing has failed.
    held: Option<(Held<'a>, usize)>,
}

impl<'a> Draw<'a> {
    pub(crate) fn new(query: &'a Query<'a>) -> Self {
        Self { query, held: None }
    }

    pub(crate) fn choose(&mut self, overlay: &Overlay, rng: &mut SchedulerRng) -> Option<Row> {
        if self.query.is_hopeless() {
            return None;
        }
        if let Some(rows) = self.query.admitted_only(overlay) {
            let fits = |row: &Row| self.query.verdict(*row, overlay).is_ok() && !overlay.excluded.contains(row);
            let rows: Vec<Row> = rows.into_iter().filter(fits).collect();
            return rows.get(rng.index(rows.len())).copied();
        }
        let places = self.query.places();
        if places > BLOCK {
            for _ in 0..DRAWS {
                let row = self.query.place(rng.index(places));
                if self.query.verdict(row, overlay).is_ok() && !overlay.excluded.contains(&row) {
                    return Some(row);
                }
            }
        }
        let all = self.collect(overlay);
        all.pick(rng.below(all.count))
    }

    fn collect(&mut self, overlay: &Overlay) -> Collect {
        let query = self.query;
        let mut all = Collect::default();
        if self.held.is_none() {
            self.held = query.table.classes.hold().and_then(|mut held| {
                let reach = match query.scope {
                    Scope::Everywhere => Reach::Everywhere,
                    Scope::Zone(zone) => Reach::Zone(zone),
                    Scope::Nowhere => return None,
                };
                let class = held.class(query, None, reach)?;
                Some((held, class))
            });
        }
        match &mut self.held {
            Some((held, class)) => held.each_block(*class, query, |block, takers| {
                let mut takers = takers;
                if query.barred(block, overlay) & takers != 0 {
                    takers = query.candidates(block, takers, overlay);
                }
                if takers != 0 {
                    all.visit(block, takers);
                }
            }),
            None => query.walk(overlay, &mut all),
        }
        all
    }
}

/// Gathers all candidates, block by block.
#[derive(Default)]
struct Collect {
    blocks: Vec<(usize, u64)>,
    count: u64,
}

impl Search for Collect {
    fn visit(&mut self, block: usize, candidates: u64) {
        self.count += u64::from(candidates.count_ones());
        self.blocks.push((block, candidates));
    }
}

impl Collect {
    fn pick(&self, mut number: u64) -> Option<Row> {
        for (block, candidates) in &self.blocks {
            let here = u64::from(candidates.count_ones());
            if number < here {
                return bits(*candidates).nth(number as usize).map(|bit| row_at(*block, bit));
            }
            number -= here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    crate::scheduler_conformance!(Box::new(RandomScheduler::new()));

    #[test]
    fn every_host_that_fits_is_as_likely() {
        // One zone of many hosts, one of a single host: both ways of drawing are used.
        for hosts in [10, 300] {
            let mut table = fixtures::table(hosts, 3);
            table.set_up("host-3", false).unwrap();
            let mut rng = SchedulerRng::from_seed(5);
            let mut seen = std::collections::BTreeMap::new();
            let rounds = hosts as u32 * 200;
            for _ in 0..rounds {
                let chosen = RandomScheduler::new()
                    .select_destinations(&table, &Request::new([1, 1, 1].into()), &mut rng)
                    .unwrap();
                *seen.entry(chosen[0].host.to_string()).or_insert(0_u32) += 1;
            }
            assert_eq!(seen.len(), hosts - 1);
            assert!(seen.values().all(|count| (120..300).contains(count)), "{seen:?}");
        }
    }

    #[test]
    fn the_only_host_with_room_is_found_among_many() {
        let mut table = fixtures::table(500, 4);
        for number in 0..500_u128 {
            if number != 321 {
                table.allocate(&format!("host-{number}"), number, &[16, 1, 1].into()).unwrap();
            }
        }
        let mut rng = SchedulerRng::from_seed(1);
        let chosen =
            RandomScheduler::new().select_destinations(&table, &Request::new([1, 1, 1].into()), &mut rng).unwrap();
        assert_eq!(&*chosen[0].host, "host-321");
    }
}
