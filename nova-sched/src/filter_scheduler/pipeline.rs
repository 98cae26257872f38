//! One request on its way through filters and weighers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::scores::{Parts, Scratch, Weighing};
use super::{Company, FilterScheduler, HostBlock};
use crate::classes::Turn;
use crate::filters::{Filter, Reads};
use crate::query::{Judge, Overlay, Query, Reason, Scope};
use crate::request::Purpose;
use crate::table::{BLOCK, Row, bits};
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
pub(super) struct Survivors {
    pub(super) block: usize,
    pub(super) position: usize,
    pub(super) hosts: u64,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(scheduler: &'a FilterScheduler, query: &'a Query<'a>, random: u64) -> Self {
        let rebuild = query.request.purpose == Purpose::Rebuild;
        let filters = (scheduler.filters.iter().enumerate())
            .filter(|(_, filter)| !filter.is_covered() && (!rebuild || filter.runs_on_rebuild()))
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
        self.weighed(overlay, |weighing, blocks| weighing.best(self.turn, blocks))
    }

    /// So many of the best hosts, the best first.
    pub(super) fn ranked(&self, overlay: &Overlay, most: usize) -> Vec<Row> {
        self.weighed(overlay, |weighing, blocks| {
            let mut all = weighing.foremost(self.turn, blocks, most);
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
        self.weighed(&Overlay::default(), |weighing, _| weighing.parts())
    }

    /// Filters, weighs, and shows the survivors with how many blocks there are where the request may look.
    fn weighed<T>(&self, overlay: &Overlay, show: impl FnOnce(&mut Weighing<'_, '_>, usize) -> T) -> T {
        let company = Company::new(self.query, overlay);
        SCRATCH.with_borrow_mut(|scratch| {
            let blocks = self.filter(&company, overlay, &mut scratch.survivors);
            show(&mut Weighing::new(&company, overlay, scratch, &self.scheduler.weighers), blocks)
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
        if numbers.iter().fold(0, |differences, number| differences | number ^ numbers[first]) == 0 {
            return if ask(first) { hosts } else { 0 };
        }
        bits(hosts).filter(|place| ask(*place)).fold(0, |mask, place| mask | 1 << place)
    }
}
