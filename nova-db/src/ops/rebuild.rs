//! Repair of the accounts: usage, use of nodes and allocations, from what the instances say.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId, ProjectId};
use nova_core::instance::Instance;
use nova_core::quota::Usage;
use nova_core::state::VmState;
use nova_core::task::Task;

use super::accounts::{share, sum, write_usage};
use super::{add, list, put, remove, replace_or_race};
use crate::records::ProjectUsage;
use crate::rows::{Condition, Fail, Lock, Record, Row, Select, Transaction, Value, decode};

pub(super) async fn rebuild_accounts(tx: &mut dyn Transaction) -> Result<Vec<String>, Fail> {
    // Where rows have locks: whoever creates, books or writes an instance goes through one of these, so once all are held
    // what is read is one moment. Instances come first, as with who deletes one. A project's first usage that is written
    // meanwhile is a lost race.
    let live = Select::new(Condition::Is("deleted", false.into())).by(&["id"]);
    tx.select(Instance::TABLE, &live, Lock::ForUpdate).await?;
    let usages = tx.select(ProjectUsage::TABLE, &Select::all().by(&["project_id"]), Lock::ForUpdate).await?;
    let order = Select::all().by(&["host", "hypervisor_hostname"]);
    let nodes = tx.select(ComputeNode::TABLE, &order, Lock::ForUpdate).await?;
    // With those that were created until then.
    let rows = tx.select(Instance::TABLE, &live, Lock::None).await?;
    let instances = rows.iter().map(|row| decode(row).map(|found| found.record)).collect::<Result<Vec<_>, _>>()?;
    let mut changes = Vec::new();
    rebuild_usage(tx, &instances, &usages, &mut changes).await?;
    rebuild_allocations(tx, &instances, &mut changes).await?;
    rebuild_nodes(tx, &nodes, &mut changes).await?;
    Ok(changes)
}

async fn rebuild_usage(
    tx: &mut dyn Transaction,
    instances: &[Instance],
    rows: &[Row],
    changes: &mut Vec<String>,
) -> Result<(), Fail> {
    let mut truth: BTreeMap<ProjectId, Usage> = BTreeMap::new();
    for instance in instances {
        let usage = truth.entry(instance.project_id.clone()).or_default();
        *usage = sum(*usage, share(instance));
    }
    let mut known = BTreeMap::new();
    for row in rows {
        let found = decode::<ProjectUsage>(row)?;
        truth.entry(found.record.project_id.clone()).or_default();
        known.insert(found.record.project_id, (found.record.usage, found.generation));
    }
    for (project, usage) in truth {
        let (recorded, generation) = match known.get(&project) {
            Some((recorded, generation)) => (*recorded, Some(*generation)),
            None => (Usage::default(), None),
        };
        if recorded != usage {
            changes.push(format!("usage of project {project}: {} -> {}", of_usage(recorded), of_usage(usage)));
            write_usage(tx, &project, usage, generation).await?;
        }
    }
    Ok(())
}

async fn rebuild_allocations(
    tx: &mut dyn Transaction,
    instances: &[Instance],
    changes: &mut Vec<String>,
) -> Result<(), Fail> {
    let by_id: BTreeMap<InstanceId, &Instance> = instances.iter().map(|i| (i.id, i)).collect();
    let tasks: Vec<Task> = list(tx, &Select::all()).await?;
    // What is under way books and gives back by itself.
    let busy: BTreeSet<InstanceId> = tasks.iter().map(|task| task.instance_id).collect();
    let allocations: Vec<Allocation> = list(tx, &Select::all().by(&["instance_id", "host"])).await?;
    let mut held: BTreeSet<(InstanceId, HostName)> = BTreeSet::new();
    for mut allocation in allocations {
        let (id, host) = (allocation.instance_id, allocation.host.clone());
        let needed = by_id.get(&id).is_some_and(|instance| needs(instance, &host, busy.contains(&id)));
        if !needed {
            changes.push(format!("allocation of instance {id} on {host}: removed, nothing needs it"));
            remove::<Allocation>(tx, &[Value::text(id), Value::text(&host)]).await?;
            continue;
        }
        held.insert((id, host.clone()));
        let right = by_id.get(&id).filter(|instance| settled(instance, busy.contains(&id)));
        if let Some(right) = right.map(|i| i.booked_resources()).filter(|right| *right != allocation.resources) {
            let line = format!("{} -> {}", of_resources(allocation.resources), of_resources(right));
            changes.push(format!("allocation of instance {id} on {host}: {line}"));
            allocation.resources = right;
            put(tx, &allocation).await?;
        }
    }
    for instance in instances.iter().filter(|instance| settled(instance, busy.contains(&instance.id))) {
        let Some(host) = &instance.host else { continue };
        if held.contains(&(instance.id, host.clone())) {
            continue;
        }
        // Even where it does not fit: the guest is there, and nothing more must be put beside it.
        changes.push(format!("allocation of instance {} on {host}: added", instance.id));
        let resources = instance.booked_resources();
        let (instance_id, created_at) = (instance.id, instance.updated_at);
        add(tx, &Allocation { instance_id, host: host.clone(), resources, created_at, placement: None }).await?;
    }
    Ok(())
}

/// Nothing is under way that could move it.
fn settled(instance: &Instance, busy: bool) -> bool {
    !busy && instance.task_state.is_none() && instance.vm_state != VmState::Resized
}

fn needs(instance: &Instance, host: &HostName, busy: bool) -> bool {
    !settled(instance, busy) || instance.host.as_ref() == Some(host)
}

async fn rebuild_nodes(tx: &mut dyn Transaction, rows: &[Row], changes: &mut Vec<String>) -> Result<(), Fail> {
    let allocations: Vec<Allocation> = list(tx, &Select::all()).await?;
    let mut truth: BTreeMap<HostName, (Resources, u64)> = BTreeMap::new();
    for allocation in allocations {
        let (used, count) = truth.entry(allocation.host).or_default();
        *used = used.plus(allocation.resources);
        *count += 1;
    }
    for row in rows {
        let found = decode::<ComputeNode>(row)?;
        let mut node = found.record;
        // Of several nodes of a host, the first carries its allocations.
        let (used, count) = truth.remove(&node.host).unwrap_or_default();
        if node.used == used && node.allocations == count {
            continue;
        }
        let (was, is) = (of_resources(node.used), of_resources(used));
        changes.push(format!("use of node {}: {was}, {} -> {is}, {count}", node.host, node.allocations));
        node.used = used;
        node.allocations = count;
        node.generation = found.generation + 1;
        replace_or_race(tx, &node, found.generation).await?;
    }
    Ok(())
}

fn of_usage(usage: Usage) -> String {
    format!("{} instances, {} cores, {} MiB", usage.instances, usage.cores, usage.ram)
}

fn of_resources(resources: Resources) -> String {
    format!("{} vcpus, {} MiB, {} GiB", resources.vcpus, resources.memory_mb, resources.disk_gb)
}
