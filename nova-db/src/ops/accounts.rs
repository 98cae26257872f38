//! What projects use and what is booked on hosts. Always called inside the transaction that gives the reason.

use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode, NodeVersion};
use nova_core::ids::{HostName, InstanceId, ProjectId};
use nova_core::instance::Instance;
use nova_core::quota::{Limits, Usage, check};
use nova_core::topology::{GuestTopology, Placement, place};

use super::{add, aggregates, find, first, list, quotas, remove, replace_or_race, server_groups};
use crate::records::ProjectUsage;
use crate::rows::{Condition, Fail, Found, Lock, Select, Transaction, Value};
use crate::{Booking, StoreError};

/// What an instance counts for.
pub(super) fn share(instance: &Instance) -> Usage {
    instance.usage()
}

/// Both together.
pub(super) fn sum(a: Usage, b: Usage) -> Usage {
    Usage { instances: a.instances + b.instances, cores: a.cores + b.cores, ram: a.ram + b.ram }
}

fn difference(a: Usage, b: Usage) -> Usage {
    Usage {
        instances: a.instances.saturating_sub(b.instances),
        cores: a.cores.saturating_sub(b.cores),
        ram: a.ram.saturating_sub(b.ram),
    }
}

/// A project's usage as it stands, with its row's generation if it has one.
pub(super) async fn usage_of(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    lock: Lock,
) -> Result<(Usage, Option<u64>), Fail> {
    let found: Option<Found<ProjectUsage>> = find(tx, &[Value::text(project)], lock).await?;
    Ok(found.map_or((Usage::default(), None), |found| (found.record.usage, Some(found.generation))))
}

/// Writes a project's usage over the one of that generation.
pub(super) async fn write_usage(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    usage: Usage,
    generation: Option<u64>,
) -> Result<(), Fail> {
    let row = ProjectUsage { project_id: project.clone(), usage };
    match generation {
        Some(generation) => replace_or_race(tx, &row, generation).await,
        None => add(tx, &row).await,
    }
}

/// Keeps usage true when an instance changes.
pub(super) async fn recount(tx: &mut dyn Transaction, old: &Instance, new: &Instance) -> Result<(), Fail> {
    let (before, after) = (share(old), share(new));
    if old.project_id != new.project_id {
        adjust(tx, &old.project_id, before, Usage::default()).await?;
        return adjust(tx, &new.project_id, Usage::default(), after).await;
    }
    adjust(tx, &new.project_id, before, after).await
}

async fn adjust(tx: &mut dyn Transaction, project: &ProjectId, minus: Usage, plus: Usage) -> Result<(), Fail> {
    if minus == plus {
        return Ok(());
    }
    let (used, generation) = usage_of(tx, project, Lock::ForUpdate).await?;
    write_usage(tx, project, sum(difference(used, minus), plus), generation).await
}

/// Refuses a change of an instance after which it counts for more than its project's limits, or its user's, leave room for. The change is
/// counted already.
pub(super) async fn check_growth(
    tx: &mut dyn Transaction,
    limits: &Limits,
    user_limits: Option<&Limits>,
    old: &Instance,
    new: &Instance,
) -> Result<(), Fail> {
    let more = difference(share(new), share(old));
    if more == Usage::default() {
        return Ok(());
    }
    let (used, _) = usage_of(tx, &new.project_id, Lock::ForUpdate).await?;
    check(limits, &difference(used, more), &more).map_err(StoreError::Quota)?;
    if let Some(limits) = user_limits {
        // Whoever else asks for more in this project waits for the row of its usage.
        let used = quotas::usage_of_user(tx, &new.project_id, &new.user_id).await?;
        check(limits, &difference(used, more), &more).map_err(StoreError::Quota)?;
    }
    Ok(())
}

/// The node of a host; of several, the first by name.
pub(super) async fn node_of_host(
    tx: &mut dyn Transaction,
    host: &HostName,
    lock: Lock,
) -> Result<Option<Found<ComputeNode>>, Fail> {
    let which = Condition::Is("host", Value::text(host));
    first(tx, Select::new(which).by(&["host", "hypervisor_hostname"]), lock).await
}

fn key(instance: InstanceId, host: &HostName) -> [Value; 2] {
    [Value::text(instance), Value::text(host)]
}

/// Books resources on a host if there is room, and zone and group allow it. The same booking again changes nothing; another
/// amount takes the place of the first. Returns what is booked, and the node as it is then, if it changed.
pub(super) async fn book(
    tx: &mut dyn Transaction,
    booking: &Booking,
) -> Result<(Allocation, Option<ComputeNode>), Fail> {
    let mut wanted = booking.allocation.clone();
    let held: Option<Found<Allocation>> = find(tx, &key(wanted.instance_id, &wanted.host), Lock::ForUpdate).await?;
    if let Some(held) = held.as_ref().filter(|held| is_that(&held.record, booking)) {
        return Ok((held.record.clone(), None));
    }
    // Whoever is there and holds no more than before asks for nothing.
    let given_back = held.as_ref().filter(|held| held.record.placement.is_none() && booking.topology.is_none());
    let stays = given_back.is_some_and(|held| {
        let own = held.record.resources;
        own.larger(wanted.resources) == own
    });
    if !stays {
        server_groups::check_rule(tx, booking).await?;
    }
    let no_room = |resource| StoreError::NoRoom { host: wanted.host.to_string(), resource };
    let Some(Found { record: mut node, generation }) = node_of_host(tx, &wanted.host, Lock::ForUpdate).await? else {
        return Err(no_room("node").into());
    };
    let own = held.as_ref().map_or(Resources::default(), |held| held.record.resources);
    let others = node.used.minus(own);
    if !stays {
        if let Some(resource) = node.inventory.shortage(others, wanted.resources) {
            return Err(no_room(resource).into());
        }
        aggregates::check_zone(tx, booking, &node.zone).await?;
    }
    wanted.placement = match &booking.topology {
        Some(asked) => Some(give_out(tx, &node, booking, asked).await?),
        None => None,
    };
    node.used = others.plus(wanted.resources);
    node.allocations += u64::from(held.is_none());
    node.generation = generation + 1;
    replace_or_race(tx, &node, generation).await?;
    match held {
        Some(held) => replace_or_race(tx, &wanted, held.generation).await?,
        None => add(tx, &wanted).await?,
    }
    Ok((wanted, Some(node)))
}

/// Does the instance hold there what is to be booked?
fn is_that(held: &Allocation, booking: &Booking) -> bool {
    held.resources == booking.allocation.resources && held.placement.is_some() == booking.topology.is_some()
}

/// Cells, CPUs and pages of the node that nobody has. The node's row is held: whoever books there comes before or after.
async fn give_out(
    tx: &mut dyn Transaction,
    node: &ComputeNode,
    booking: &Booking,
    asked: &GuestTopology,
) -> Result<Placement, Fail> {
    let of_host = Condition::Is("host", Value::text(&node.host));
    let booked: Vec<Allocation> = list(tx, &Select::new(of_host).by(&["instance_id"])).await?;
    let others = booked.iter().filter(|other| other.instance_id != booking.allocation.instance_id);
    let held = others.filter_map(|other| other.placement.as_ref());
    let no_room = |resource| StoreError::NoRoom { host: node.host.to_string(), resource };
    place(node.cells(), held, asked).map_err(|resource| no_room(resource).into())
}

/// Gives an allocation back, if there is one. Returns the node as it is then.
pub(super) async fn release(
    tx: &mut dyn Transaction,
    instance: InstanceId,
    host: &HostName,
) -> Result<Option<NodeVersion>, Fail> {
    let key = key(instance, host);
    let Some(held) = find::<Allocation>(tx, &key, Lock::ForUpdate).await? else { return Ok(None) };
    if !remove::<Allocation>(tx, &key).await? {
        return Err(Fail::Raced { kind: crate::Kind::Allocation, id: format!("{instance}/{host}") });
    }
    if let Some(Found { record: mut node, generation }) = node_of_host(tx, host, Lock::ForUpdate).await? {
        node.used = node.used.minus(held.record.resources);
        node.allocations = node.allocations.saturating_sub(1);
        node.generation = generation + 1;
        replace_or_race(tx, &node, generation).await?;
        return Ok(Some(node.version()));
    }
    Ok(Some(NodeVersion::default()))
}
