//! What an algorithm thinks of each host: the answer to "why there, and why not elsewhere".

use std::cmp::Ordering;
use std::fmt;

use crate::no_valid_host::{dimension_name, reason_name};
use crate::query::{Judge, Overlay, Query, Reason};
use crate::table::{HostTable, Row, bits, row_at};
use crate::{HostView, Request};

/// What is thought of one host.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HostExplanation {
    /// The host's name.
    pub host: String,
    /// Its zone.
    pub zone: String,
    /// All that speaks against it; when nothing does, it could be chosen.
    pub objections: Vec<Objection>,
    /// How good it is, more being better, if the algorithm orders hosts.
    pub score: Option<f64>,
    /// What makes up the score, by weigher; without those that add nothing.
    pub parts: Vec<(String, f64)>,
}

/// Something that speaks against a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The check: a filter, a dimension, or one of those that [`NoValidHost::reasons`](crate::NoValidHost::reasons) names.
    pub check: String,
    /// More about it, where there is more to say.
    pub details: Option<String>,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.details {
            Some(details) => write!(f, "{} ({details})", self.check),
            None => f.write_str(&self.check),
        }
    }
}

impl fmt::Display for HostExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: ", self.host, self.zone)?;
        if self.objections.is_empty() {
            f.write_str("takes it")?;
        }
        for (number, objection) in self.objections.iter().enumerate() {
            write!(f, "{}{objection}", if number == 0 { "no: " } else { ", " })?;
        }
        if let Some(score) = self.score.filter(|_| self.objections.is_empty()) {
            write!(f, ", score {score:.3}")?;
        }
        for (number, (weigher, part)) in self.parts.iter().enumerate() {
            write!(f, "{}{weigher} {part:+.3}", if number == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// The checks that all algorithms make.
pub(crate) fn explain_checks(table: &HostTable, request: &Request) -> Vec<HostExplanation> {
    let query = Query::new(table, request, None);
    explain(&query, &query, &|_| None)
}

/// Every host, with all that speaks against it, or its score.
pub(crate) fn explain(
    query: &Query<'_>,
    judge: &impl Judge,
    score: &dyn Fn(Row) -> Option<f64>,
) -> Vec<HostExplanation> {
    let overlay = Overlay::default();
    let mut all = Vec::with_capacity(query.table.len());
    for index in 0..query.table.blocks.len() {
        for bit in bits(query.table.blocks[index].occupied) {
            let row = row_at(index, bit);
            let Some(host) = query.view(row, &overlay) else { continue };
            let reasons = judge.objections(row, &overlay);
            let objections: Vec<Objection> =
                reasons.into_iter().map(|reason| objection(query, judge, row, &host, reason)).collect();
            all.push(HostExplanation {
                host: host.name().to_owned(),
                zone: host.zone().to_owned(),
                score: score(row).filter(|_| objections.is_empty()),
                objections,
                parts: Vec::new(),
            });
        }
    }
    all.sort_by(|a, b| {
        let refused = |host: &HostExplanation| !host.objections.is_empty();
        let score = |host: &HostExplanation| host.score.unwrap_or(f64::NEG_INFINITY);
        match refused(a).cmp(&refused(b)) {
            Ordering::Equal => score(b).total_cmp(&score(a)).then_with(|| a.host.cmp(&b.host)),
            other => other,
        }
    });
    all
}

/// How the request's group stands to the host.
fn group(query: &Query<'_>, row: Row) -> Option<String> {
    let policy = query.request.group.as_ref()?.policy.as_str();
    let members = query.members_on(row, &Overlay::default());
    Some(format!("policy {policy}: {members} of its members are here"))
}

fn objection(query: &Query<'_>, judge: &impl Judge, row: Row, host: &HostView<'_>, reason: Reason) -> Objection {
    let request = query.request;
    let details = match reason {
        Reason::Room(index) => Some(format!(
            "{} asked, {} of {} left",
            request.resources.get(index),
            host.free(index),
            host.capacity(index)
        )),
        Reason::Zone => Some(format!("is in {}", host.zone())),
        Reason::Disabled => host.inventory().disabled_reason,
        Reason::Limit => query.limit.map(|limit| {
            let name = dimension_name(query, limit.dimension);
            format!("no more than {} {name}, {} are in use", limit.most, host.used(limit.dimension))
        }),
        Reason::Group => group(query, row),
        Reason::Filter(number) if judge.filter_name(number).starts_with("ServerGroup") => group(query, row),
        _ => None,
    };
    Objection { check: reason_name(query, judge, reason), details }
}

#[cfg(test)]
mod tests {
    use crate::{FilterOptions, FilterScheduler, LeastLoadScheduler, RandomScheduler, Request, Scheduler, fixtures};

    fn told(scheduler: &dyn Scheduler, request: &Request) -> Vec<String> {
        let mut table = fixtures::table(4, 2);
        table.set_enabled("host-0", false, Some("fan")).unwrap();
        table.allocate("host-0", 1, &[15, 0, 0].into()).unwrap();
        table.allocate("host-1", 2, &[8, 0, 0].into()).unwrap();
        scheduler.explain(&table, request).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_host_is_told_with_all_that_speaks_against_it() {
        let mut request = Request::new([2, 1_024, 10].into());
        request.ignore_hosts = vec!["host-2".to_owned()];
        let refused =
            ["host-0 in zone-0: no: disabled (fan), vcpus (2 asked, 1 of 16 left)", "host-2 in zone-0: no: ignored"];
        let first = ["host-1 in zone-1: takes it", "host-3 in zone-1: takes it"];
        assert_eq!(told(&RandomScheduler::new(), &request), [first, refused].concat());
        let first = ["host-3 in zone-1: takes it, score 0.000", "host-1 in zone-1: takes it, score -8.000"];
        assert_eq!(told(&LeastLoadScheduler::default(), &request), [first, refused].concat());
        let filter = FilterScheduler::new(&FilterOptions::default()).unwrap();
        let lines = told(&filter, &request);
        assert!(lines[0].starts_with("host-3 in zone-1: takes it, score 3.000: CPUWeigher +1.000, "), "{lines:?}");
        assert!(lines[1].starts_with("host-1 in zone-1: takes it, score 2.500: CPUWeigher +0.500"), "{lines:?}");
        assert_eq!(lines[2..], refused);
    }
}
