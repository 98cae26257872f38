//! I2, I3, I6: what is booked and counted is what there is.

use std::collections::BTreeMap;

use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId, ProjectId};
use nova_core::instance::Instance;
use nova_core::quota::Usage;

use super::View;
use crate::check::{Repair, Violation};

/// I2: what is booked fits, and nodes count it right.
pub(super) fn capacity(view: &View<'_>) -> Vec<Violation> {
    let mut booked: BTreeMap<&HostName, (Resources, u64)> = BTreeMap::new();
    for allocation in &view.facts.store.allocations {
        let (sum, count) = booked.entry(&allocation.host).or_default();
        *sum = sum.plus(allocation.resources);
        *count += 1;
    }
    let mut found = Vec::new();
    for node in &view.facts.store.nodes {
        // Of several nodes of a host, the first carries its bookings.
        let (sum, count) = booked.remove(&node.host).unwrap_or_default();
        found.extend(node_violations(node, sum, count));
    }
    for (host, (sum, count)) in booked {
        let text = format!("{count} bookings ({}) on a host that has no compute node", resources(sum));
        let parts = [u128::from(count), u128::from(sum.memory_mb), u128::from(sum.vcpus)];
        found.push(Violation::new("I2", vec![("host", host.to_string())], text).stamped(parts));
    }
    found
}

fn node_violations(node: &ComputeNode, sum: Resources, count: u64) -> Vec<Violation> {
    let subject = || vec![("host", node.host.to_string()), ("node", node.id.to_string())];
    let stamp = [u128::from(node.generation)];
    let mut found = Vec::new();
    let capacity = node.inventory.capacity();
    if sum.vcpus > capacity.vcpus || sum.memory_mb > capacity.memory_mb || sum.disk_gb > capacity.disk_gb {
        let text = format!(
            "{} are booked, {} can be: move servers away, or give it back its inventory or ratios",
            resources(sum),
            resources(capacity)
        );
        found.push(Violation::new("I2", subject(), text).stamped(stamp));
    }
    if node.used != sum || node.allocations != count {
        let text = format!(
            "the node counts {} in {} bookings; it is {} in {count}",
            resources(node.used),
            node.allocations,
            resources(sum)
        );
        found.push(Violation::new("I2", subject(), text).stamped(stamp).mended_by(Repair::RebuildAccounts));
    }
    found
}

/// I3: each live instance has exactly one booking, on its host (two while it moves); nobody else has any.
pub(super) fn bookings(view: &View<'_>) -> Vec<Violation> {
    let mut held: BTreeMap<InstanceId, Vec<&Allocation>> = BTreeMap::new();
    for allocation in &view.facts.store.allocations {
        held.entry(allocation.instance_id).or_default().push(allocation);
    }
    let mut found = Vec::new();
    for instance in view.live() {
        let own = held.remove(&instance.id).unwrap_or_default();
        found.extend(of_live(view, instance, &own));
    }
    for allocation in held.into_values().flatten() {
        let owner = if view.instances.contains_key(&allocation.instance_id) { "deleted" } else { "unknown" };
        found.push(surplus(view, allocation, &format!("booked for an instance that is {owner}")));
    }
    found
}

fn of_live(view: &View<'_>, instance: &Instance, own: &[&Allocation]) -> Vec<Violation> {
    let settled = view.is_settled(instance);
    let (there, elsewhere): (Vec<&Allocation>, Vec<&Allocation>) =
        own.iter().partition(|allocation| instance.host.as_ref() == Some(&allocation.host));
    let mut found = Vec::new();
    if let Some(host) = &instance.host {
        let subject = vec![("instance", instance.id.to_string()), ("host", host.to_string())];
        let repair = settled.then_some(Repair::RebuildAccounts);
        let right = instance.booked_resources();
        let text = match there.first() {
            None => Some(format!("nothing is booked for it; it is {}", resources(right))),
            Some(one) if settled && one.resources != right => {
                Some(format!("{} are booked for it; it is {}", resources(one.resources), resources(right)))
            }
            Some(_) => None,
        };
        if let Some(text) = text {
            let stamp = [u128::from(instance.generation)];
            found.push(Violation::new("I3", subject, text).stamped(stamp).mended_by(repair));
        }
    }
    if settled {
        let text = match &instance.host {
            Some(host) => format!("booked for an instance that is on host {host}"),
            None => "booked for an instance that is on no host".to_owned(),
        };
        found.extend(elsewhere.into_iter().map(|allocation| surplus(view, allocation, &text)));
    }
    found
}

fn surplus(view: &View<'_>, allocation: &Allocation, text: &str) -> Violation {
    let (instance, host) = (allocation.instance_id, allocation.host.clone());
    let subject = vec![("instance", instance.to_string()), ("host", host.to_string())];
    let made = allocation.created_at.as_microsecond().unsigned_abs();
    Violation::new("I3", subject, format!("{} {text}", resources(allocation.resources)))
        .stamped([view.generation(instance), u128::from(made)])
        .mended_by(Repair::DeleteAllocation { instance, host })
}

/// I6: usage is what the instances use.
pub(super) fn usage(view: &View<'_>) -> Vec<Violation> {
    let mut truth: BTreeMap<&ProjectId, (Usage, Vec<u128>)> = BTreeMap::new();
    for (project, _) in &view.facts.store.usage {
        truth.entry(project).or_default();
    }
    for instance in view.live() {
        let (sum, parts) = truth.entry(&instance.project_id).or_default();
        let counts = instance.usage();
        sum.instances += counts.instances;
        sum.cores += counts.cores;
        sum.ram += counts.ram;
        parts.extend([instance.id.as_u128(), u128::from(instance.generation)]);
    }
    let recorded: BTreeMap<&ProjectId, Usage> = view.facts.store.usage.iter().map(|(p, usage)| (p, *usage)).collect();
    let mut found = Vec::new();
    for (project, (right, mut parts)) in truth {
        let counted = recorded.get(project).copied().unwrap_or_default();
        if counted == right {
            continue;
        }
        parts.extend([counted.instances, counted.cores, counted.ram].map(u128::from));
        let text = format!("counted as {}; its servers are {}", amounts(counted), amounts(right));
        let violation = Violation::new("I6", vec![("project", project.to_string())], text);
        found.push(violation.stamped(parts).mended_by(Repair::RebuildAccounts));
    }
    found
}

fn amounts(usage: Usage) -> String {
    format!("{} instances, {} cores, {} MiB", usage.instances, usage.cores, usage.ram)
}

fn resources(resources: Resources) -> String {
    format!("{} vcpus, {} MiB, {} GiB", resources.vcpus, resources.memory_mb, resources.disk_gb)
}
