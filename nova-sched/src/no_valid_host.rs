//! The answer when no host fits, with the reasons.

use std::collections::BTreeMap;
use std::fmt;

use crate::Request;
use crate::query::{Judge, Overlay, Query, Reason};
use crate::table::{HostTable, Row, bits, row_at};

/// No host fits. Says how many hosts each check turned away, and what would have fitted.
///
/// `Display` is for operators and names hosts; [`NoValidHost::summary`] is what the server's owner may read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoValidHost {
    /// How many instances were to be placed.
    pub requested: u32,
    /// How many of them had found a host when it ended (they were given up).
    pub placed: u32,
    /// How many hosts were looked at: all of the table, or the one that was named.
    pub considered: usize,
    /// What turned hosts away, each host under the first check that it failed, in the order of the checks: `zone`,
    /// `ignored`, `down`, `disabled`, `architecture`, `traits`, `server_group`, the dimensions by name, an algorithm's own bound. The
    /// counts add up to [`NoValidHost::considered`].
    pub reasons: Vec<(String, usize)>,
    /// The host or hypervisor that was forced or requested.
    pub target: Option<String>,
    /// How near the hosts came that lacked nothing but room.
    pub nearest: Option<Box<NearestMiss>>,
    /// How many hosts each check kept out alone, nothing else speaking against them: what lifting it would open.
    pub alone: Vec<(String, usize)>,
}

/// How near the hosts came that lacked nothing but room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearestMiss {
    /// How many such hosts there were.
    pub hosts: usize,
    /// What an instance needs, by dimension.
    pub asked: Vec<(String, u64)>,
    /// How many of the hosts had room in the dimension, taken alone.
    pub with_room: Vec<(String, usize)>,
    /// The most that any of the hosts has left of the dimension.
    pub largest_free: Vec<(String, u64)>,
    /// The host that lacked least, in parts of what was asked.
    pub closest_host: String,
    /// What that host lacked, by dimension; empty when an algorithm's own bound kept it out.
    pub missing: Vec<(String, u64)>,
    /// An instance of this size would have fitted there: as asked, but no more than what is free.
    pub would_fit: Vec<(String, u64)>,
}

impl NoValidHost {
    /// What may be shown to the owner of the server: Nova's words, no names and no numbers of the cloud.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        "No valid host was found. There are not enough hosts available."
    }

    /// How many hosts the check of that name turned away.
    #[must_use]
    pub fn turned_away(&self, reason: &str) -> usize {
        self.reasons.iter().find(|(name, _)| name == reason).map_or(0, |(_, hosts)| *hosts)
    }

    /// The answer of an algorithm of one's own that found no host for instance number `placed` of the request: the
    /// usual checks are made on every host of the table, and what passes them all is counted under `algorithm`.
    #[must_use]
    pub fn for_request(table: &HostTable, request: &Request, placed: u32) -> Self {
        let query = Query::new(table, request, None);
        let mut answer = Self::explain(&query, &query, &Overlay::default(), placed);
        let others = table.len() - answer.considered;
        if others > 0 {
            answer.reasons.push(("algorithm".to_owned(), others));
            answer.considered = table.len();
        }
        answer
    }

    /// Asks every host for its reason.
    pub(crate) fn explain(query: &Query<'_>, judge: &impl Judge, overlay: &Overlay, placed: u32) -> Self {
        let mut tally = Tally::default();
        for index in 0..query.table.blocks.len() {
            for bit in bits(query.table.blocks[index].occupied) {
                let row = row_at(index, bit);
                if let Err(reason) = judge.judge(row, overlay) {
                    tally.count(query, judge, overlay, row, reason);
                }
            }
        }
        tally.into_answer(query, judge, overlay, placed)
    }

    /// The one host that was named said no.
    pub(crate) fn refused(
        query: &Query<'_>,
        judge: &impl Judge,
        row: Row,
        overlay: &Overlay,
        reason: Reason,
        placed: u32,
    ) -> Self {
        let mut tally = Tally::default();
        tally.count(query, judge, overlay, row, reason);
        tally.into_answer(query, judge, overlay, placed)
    }

    /// The host that was named isn't there.
    pub(crate) fn absent(query: &Query<'_>) -> Self {
        Tally::default().into_answer(query, query, &Overlay::default(), 0)
    }
}

/// Counts reasons and remembers the nearest miss.
#[derive(Default)]
struct Tally {
    considered: usize,
    reasons: BTreeMap<Reason, usize>,
    alone: BTreeMap<Reason, usize>,
    only_room: usize,
    with_room: BTreeMap<usize, usize>,
    largest: BTreeMap<usize, u64>,
    closest: Option<(u64, Row)>,
}

impl Tally {
    fn count(&mut self, query: &Query<'_>, judge: &impl Judge, overlay: &Overlay, row: Row, reason: Reason) {
        self.considered += 1;
        *self.reasons.entry(reason).or_insert(0) += 1;
        if let [only] = judge.objections(row, overlay)[..] {
            *self.alone.entry(only).or_insert(0) += 1;
        }
        if !matches!(reason, Reason::Room(_) | Reason::Limit) {
            return;
        }
        self.only_room += 1;
        let Some(host) = query.view(row, overlay) else { return };
        let mut short = 0_u64;
        for (index, asked) in query.request.resources.non_zero() {
            let free = host.free(index);
            *self.with_room.entry(index).or_insert(0) += usize::from(free >= asked);
            let largest = self.largest.entry(index).or_insert(0);
            *largest = free.max(*largest);
            let missing = u128::from(asked.saturating_sub(free));
            short += (missing * 1_000_000 / u128::from(asked)) as u64;
        }
        if self.closest.is_none_or(|(least, _)| short < least) {
            self.closest = Some((short, row));
        }
    }

    fn into_answer(self, query: &Query<'_>, judge: &impl Judge, overlay: &Overlay, placed: u32) -> NoValidHost {
        let request = query.request;
        let nearest = self.nearest(query, overlay).map(Box::new);
        NoValidHost {
            requested: request.num_instances,
            placed,
            considered: self.considered,
            reasons: named(query, judge, &self.reasons),
            alone: named(query, judge, &self.alone),
            target: request.forced().or(request.requested_host.as_deref()).map(str::to_owned),
            nearest,
        }
    }

    fn nearest(&self, query: &Query<'_>, overlay: &Overlay) -> Option<NearestMiss> {
        let (_, row) = self.closest?;
        let host = query.view(row, overlay)?;
        let name = |index| dimension_name(query, index);
        let asked: Vec<(usize, u64)> = query.request.resources.non_zero().collect();
        Some(NearestMiss {
            hosts: self.only_room,
            asked: asked.iter().map(|(index, amount)| (name(*index), *amount)).collect(),
            with_room: self.with_room.iter().map(|(index, hosts)| (name(*index), *hosts)).collect(),
            largest_free: self.largest.iter().map(|(index, free)| (name(*index), *free)).collect(),
            closest_host: host.name().to_owned(),
            missing: (asked.iter())
                .map(|(index, amount)| (name(*index), amount.saturating_sub(host.free(*index))))
                .filter(|(_, missing)| *missing > 0)
                .collect(),
            would_fit: (asked.iter())
                .map(|(index, amount)| (name(*index), room_left(query, &host, *index).min(*amount)))
                .collect(),
        })
    }
}

/// What a host can still take of a dimension, an algorithm's own bound included.
fn room_left(query: &Query<'_>, host: &crate::HostView<'_>, index: usize) -> u64 {
    let free = host.free(index);
    match query.limit {
        Some(limit) if limit.dimension == index => free.min(limit.most.saturating_sub(host.used(index))),
        _ => free,
    }
}

pub(crate) fn dimension_name(query: &Query<'_>, index: usize) -> String {
    query.table.dimensions.name(index).map_or_else(|| format!("dimension {index}"), str::to_owned)
}

fn named(query: &Query<'_>, judge: &impl Judge, reasons: &BTreeMap<Reason, usize>) -> Vec<(String, usize)> {
    reasons.iter().map(|(reason, hosts)| (reason_name(query, judge, *reason), *hosts)).collect()
}

/// The name of a check.
pub(crate) fn reason_name(query: &Query<'_>, judge: &impl Judge, reason: Reason) -> String {
    match reason {
        Reason::Zone => "zone".to_owned(),
        Reason::Ignored => "ignored".to_owned(),
        Reason::Down => "down".to_owned(),
        Reason::Disabled => "disabled".to_owned(),
        Reason::Architecture => "architecture".to_owned(),
        Reason::Traits => "traits".to_owned(),
        Reason::Group => "server_group".to_owned(),
        Reason::Room(index) => dimension_name(query, index),
        Reason::Filter(number) => judge.filter_name(number),
        Reason::Limit => query.limit.map_or("limit", |limit| limit.name).to_owned(),
    }
}

impl fmt::Display for NoValidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no valid host for {} instance(s)", self.requested)?;
        if self.placed > 0 {
            write!(f, " ({} found one)", self.placed)?;
        }
        if let Some(target) = &self.target {
            write!(f, " on `{target}`")?;
        }
        match (self.considered, &self.target) {
            (0, Some(_)) => return write!(f, ": it is not known"),
            (0, None) => return write!(f, ": there are no hosts"),
            (considered, _) => write!(f, ": of {considered} host(s), turned away by ")?,
        }
        list(f, &self.reasons, ": ")?;
        if let Some(nearest) = &self.nearest {
            write!(f, "; {nearest}")?;
        }
        if !self.alone.is_empty() {
            write!(f, "; kept out by one check alone: ")?;
            list(f, &self.alone, ": ")?;
        }
        Ok(())
    }
}

impl fmt::Display for NearestMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} host(s) lacked only room for ", self.hosts)?;
        list(f, &self.asked, "=")?;
        write!(f, ", having it in ")?;
        list(f, &self.with_room, ": ")?;
        write!(f, ", at most ")?;
        list(f, &self.largest_free, "=")?;
        write!(f, " free; closest was {}", self.closest_host)?;
        if !self.missing.is_empty() {
            write!(f, ", which lacked ")?;
            list(f, &self.missing, "=")?;
        }
        write!(f, "; there ")?;
        list(f, &self.would_fit, "=")?;
        write!(f, " would fit")
    }
}

impl std::error::Error for NoValidHost {}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[(String, T)], between: &str) -> fmt::Result {
    for (index, (name, value)) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{name}{between}{value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{RandomScheduler, Request, Scheduler, SchedulerRng, fixtures};

    #[test]
    fn an_operator_reads_the_reasons_and_the_owner_does_not() {
        let mut table = fixtures::table(3, 1);
        table.set_up("host-0", false).unwrap();
        table.allocate("host-1", 1, &[10, 60_000, 0].into()).unwrap();
        table.allocate("host-2", 2, &[15, 0, 0].into()).unwrap();
        let request = Request::new([4, 8_192, 0].into());
        let refused =
            RandomScheduler::new().select_destinations(&table, &request, &mut SchedulerRng::from_seed(0)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no valid host for 1 instance(s): of 3 host(s), turned away by down: 1, vcpus: 1, memory_mb: 1; \
             2 host(s) lacked only room for vcpus=4, memory_mb=8192, having it in vcpus: 1, memory_mb: 1, \
             at most vcpus=6, memory_mb=65536 free; closest was host-1, which lacked memory_mb=2656; \
             there vcpus=4, memory_mb=5536 would fit; \
             kept out by one check alone: down: 1, vcpus: 1, memory_mb: 1"
        );
        assert_eq!(refused.summary(), "No valid host was found. There are not enough hosts available.");
    }
}
