//! What all algorithms share: several instances at once, forced and requested hosts, alternates.

use std::sync::Arc;

use crate::no_valid_host::NoValidHost;
use crate::query::{Judge, Overlay, Query};
use crate::request::{Destination, Selection};
use crate::table::{Row, block_of};

/// Places all instances of a request, one after the other, each with `choose`; earlier ones count.
pub(crate) fn place(
    query: &Query<'_>,
    judge: &impl Judge,
    mut choose: impl FnMut(&Overlay) -> Option<Row>,
) -> Result<Vec<Selection>, NoValidHost> {
    let request = query.request;
    if request.forced().is_some() {
        let row = forced_row(query);
        return place_on(query, judge, row, |row, overlay| forced_verdict(query, row, overlay));
    }
    if let Some(name) = &request.requested_host {
        let row = query.table.row(name);
        return place_on(query, judge, row, |row, overlay| judge.judge(row, overlay));
    }
    let mut overlay = Overlay::default();
    let mut chosen = Vec::new();
    for number in 0..request.num_instances {
        let Some(row) = query.choose_as_wished(&mut overlay, &mut choose) else {
            return Err(NoValidHost::explain(query, judge, &overlay, number));
        };
        chosen.push(row);
        if number + 1 < request.num_instances {
            *overlay.placed.entry(row).or_insert(0) += 1;
        }
    }
    Ok(with_alternates(query, &chosen, overlay, choose))
}

/// Names for each instance more hosts that would take it, none of them chosen for this request. They are the same for
/// all instances, as in Nova (`nova/scheduler/manager.py`, `_get_alternate_hosts`), and searched once.
fn with_alternates(
    query: &Query<'_>,
    chosen: &[Row],
    mut overlay: Overlay,
    mut choose: impl FnMut(&Overlay) -> Option<Row>,
) -> Vec<Selection> {
    let wanted = query.request.num_alternates;
    let mut alternates = Vec::new();
    if wanted > 0 && !chosen.is_empty() {
        overlay.excluded.extend_from_slice(chosen);
        overlay.excluded.sort_unstable();
        overlay.excluded.dedup();
        for _ in 0..wanted {
            let Some(other) = query.choose_as_wished(&mut overlay, &mut choose) else { break };
            overlay.excluded.push(other);
            alternates.extend(destination(query, other));
        }
    }
    let selection = |row: &Row| {
        let place = destination(query, *row)?;
        Some(Selection { host: place.host, node: place.node, zone: place.zone, alternates: alternates.clone() })
    };
    chosen.iter().filter_map(selection).collect()
}

/// Puts all instances on one host, if it takes them.
fn place_on(
    query: &Query<'_>,
    judge: &impl Judge,
    row: Option<Row>,
    verdict: impl Fn(Row, &Overlay) -> Result<(), crate::query::Reason>,
) -> Result<Vec<Selection>, NoValidHost> {
    let Some(row) = row else { return Err(NoValidHost::absent(query)) };
    let mut overlay = Overlay::default();
    for number in 0..query.request.num_instances {
        if let Err(reason) = verdict(row, &overlay) {
            return Err(NoValidHost::refused(query, judge, row, &overlay, reason, number));
        }
        *overlay.placed.entry(row).or_insert(0) += 1;
    }
    let chosen = vec![row; query.request.num_instances as usize];
    Ok((chosen.iter())
        .filter_map(|row| destination(query, *row))
        .map(|place| Selection { host: place.host, node: place.node, zone: place.zone, alternates: Vec::new() })
        .collect())
}

/// The host that an operator names, by host, node or both.
fn forced_row(query: &Query<'_>) -> Option<Row> {
    let request = query.request;
    let is_node = |row: &Row| {
        let cold = query.table.cold(*row);
        request.force_node.as_ref().is_none_or(|node| cold.is_some_and(|cold| **cold.node() == **node))
    };
    match &request.force_host {
        Some(host) => query.table.row(host).filter(is_node),
        None => (0..(query.table.blocks.len() * crate::table::BLOCK) as Row)
            .find(|row| query.table.cold(*row).is_some() && is_node(row)),
    }
}

/// A forced host passes every check but these: its service lives, and it has room.
fn forced_verdict(query: &Query<'_>, row: Row, overlay: &Overlay) -> Result<(), crate::query::Reason> {
    if !query.table.bit(row, |block| block.up) {
        return Err(crate::query::Reason::Down);
    }
    query.room(row, overlay)
}

fn destination(query: &Query<'_>, row: Row) -> Option<Destination> {
    let host = query.table.view(row, crate::ResourceVector::default())?;
    query.table.recent.set(row);
    let block = query.table.blocks.get(block_of(row))?;
    let zone = query.table.zones.get(block.zone as usize)?;
    Some(Destination { host: host.name_arc(), node: host.node_arc(), zone: Arc::clone(&zone.name) })
}
