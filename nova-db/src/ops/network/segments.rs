//! What carries networks: tags, identifiers and whole wires, each of one network at most.

use nova_core::ids::NetworkId;
use nova_core::network::{Network, NetworkProblem};

use super::super::{add, find, list};
use crate::SegmentRange;
use crate::records::NetworkSegment;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};

/// Rows of taken ones that are read at once.
const AT_ONCE: u32 = 256;

/// Takes what the network says that it has, if that is anything.
pub(super) async fn take(tx: &mut dyn Transaction, network: &Network) -> Result<(), Fail> {
    let Some(segment) = NetworkSegment::of(network) else { return Ok(()) };
    if find::<NetworkSegment>(tx, &segment.key(), Lock::None).await?.is_some() {
        return Err(in_use(&segment).into());
    }
    add(tx, &segment).await
}

fn in_use(segment: &NetworkSegment) -> NetworkProblem {
    let physical_network = segment.physical_network.clone();
    match segment.network_type.as_str() {
        "vlan" => NetworkProblem::VlanInUse { physical_network, tag: segment.segmentation_id },
        "vxlan" => NetworkProblem::TunnelInUse { vni: segment.segmentation_id },
        _ => NetworkProblem::FlatInUse { physical_network },
    }
}

pub(super) async fn give_back(tx: &mut dyn Transaction, network: NetworkId) -> Result<(), Fail> {
    tx.delete(NetworkSegment::TABLE, &Condition::Is("network_id", Value::text(network))).await?;
    Ok(())
}

/// The first that is free in these ranges, from a drawn place on, and around.
pub(super) async fn free_one(
    tx: &mut dyn Transaction,
    network_type: &str,
    ranges: &[SegmentRange],
    draw: u64,
) -> Result<(Option<String>, u32), Fail> {
    let total: u64 = ranges.iter().map(SegmentRange::count).sum();
    let mut skip = draw.checked_rem(total).ok_or(NetworkProblem::NoSegmentLeft)?;
    let mut parts: Vec<(&SegmentRange, u32, u32)> = Vec::new();
    let mut before = Vec::new();
    for range in ranges.iter().filter(|range| range.count() > 0) {
        if skip >= range.count() {
            skip -= range.count();
            before.push((range, range.first, range.last));
            continue;
        }
        if parts.is_empty() {
            let from = range.first + u32::try_from(skip).unwrap_or_default();
            parts.push((range, from, range.last));
            if from > range.first {
                before.push((range, range.first, from - 1));
            }
            skip = 0;
        } else {
            parts.push((range, range.first, range.last));
        }
    }
    for (range, first, last) in parts.into_iter().chain(before) {
        if let Some(free) = free_in(tx, network_type, range, first, last).await? {
            return Ok((range.physical_network.clone(), free));
        }
    }
    Err(NetworkProblem::NoSegmentLeft.into())
}

async fn free_in(
    tx: &mut dyn Transaction,
    network_type: &str,
    range: &SegmentRange,
    first: u32,
    last: u32,
) -> Result<Option<u32>, Fail> {
    let mut candidate = first;
    while candidate <= last {
        let end = last.min(candidate.saturating_add(AT_ONCE - 1));
        let which = Condition::All(vec![
            Condition::Is("network_type", network_type.into()),
            Condition::Is("physical_network", Value::from(range.physical_network.clone().unwrap_or_default())),
            Condition::AtLeast("segmentation_id", i64::from(candidate).into()),
            Condition::AtMost("segmentation_id", i64::from(end).into()),
        ]);
        let taken: Vec<NetworkSegment> = list(tx, &Select::new(which).by(&["segmentation_id"])).await?;
        for segment in &taken {
            if segment.segmentation_id != candidate {
                break;
            }
            candidate += 1;
        }
        if candidate <= end {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}
