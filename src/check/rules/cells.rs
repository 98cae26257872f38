//! I2 for what is not an amount: CPUs, cells and pages that guests have to themselves.

use std::collections::BTreeMap;

use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId};
use nova_core::topology::{Placement, conflicts};

use super::View;
use crate::check::Violation;

/// No CPU is anybody's twice, none is outside of the host's dedicated set, no cell or page is given out that there is not,
/// and who asked for some has some.
pub(super) fn given_out(view: &View<'_>) -> Vec<Violation> {
    let mut by_host: BTreeMap<&HostName, Vec<&Allocation>> = BTreeMap::new();
    for allocation in view.facts.store.allocations.iter().filter(|allocation| allocation.placement.is_some()) {
        by_host.entry(&allocation.host).or_default().push(allocation);
    }
    let mut found = Vec::new();
    for node in &view.facts.store.nodes {
        let held = by_host.remove(&node.host).unwrap_or_default();
        found.extend(of_node(node, &held));
    }
    found.extend(without_any(view));
    found
}

fn of_node(node: &ComputeNode, held: &[&Allocation]) -> Vec<Violation> {
    let subject = || vec![("host", node.host.to_string()), ("node", node.id.to_string())];
    let stamp = [u128::from(node.generation)];
    let cells = &node.facts.cells;
    let placed = || held.iter().filter_map(|a| Some((a.instance_id, a.placement.as_ref()?)));
    let mut found = Vec::new();
    for (cpu, instances) in conflicts(cells, placed()) {
        let who = instances.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let text = match instances.len() {
            1 => format!("CPU {cpu} is booked for {who}, and is none of compute.cpu_dedicated_set"),
            _ => format!("CPU {cpu} is booked for {who}: one of them must go elsewhere"),
        };
        found.push(Violation::new("I2", subject(), text).stamped(stamp));
    }
    for ((cell, page_kb), booked_mb) in memory(placed()) {
        let there = cells.iter().find(|known| known.id == cell);
        let has_mb = there.map_or(0, |known| match page_kb {
            None => node.cells().memory_mb(known),
            Some(size) => known.huge_pages.iter().filter(|p| p.size_kb == size).map(|p| p.count * size / 1024).sum(),
        });
        if booked_mb > has_mb {
            let pages = page_kb.map_or_else(|| "usual pages".to_owned(), |size| format!("pages of {size} KiB"));
            let text = format!("{booked_mb} MiB in {pages} are booked in NUMA cell {cell}, which has {has_mb} MiB");
            found.push(Violation::new("I2", subject(), text).stamped(stamp));
        }
    }
    found
}

/// MiB by cell and size of pages.
fn memory<'a>(placed: impl Iterator<Item = (InstanceId, &'a Placement)>) -> BTreeMap<(u32, Option<u64>), u64> {
    let mut booked = BTreeMap::new();
    for cell in placed.flat_map(|(_, placement)| &placement.cells) {
        *booked.entry((cell.host_cell, cell.page_kb)).or_default() += cell.memory_mb;
    }
    booked
}

/// Servers that asked for cells and have none.
fn without_any(view: &View<'_>) -> Vec<Violation> {
    let booked: BTreeMap<(InstanceId, &HostName), &Allocation> =
        view.facts.store.allocations.iter().map(|a| ((a.instance_id, &a.host), a)).collect();
    let mut found = Vec::new();
    for instance in view.live().filter(|instance| view.is_settled(instance) && instance.topology().is_some()) {
        let Some(host) = &instance.host else { continue };
        // One without any booking is I3's.
        if booked.get(&(instance.id, host)).is_some_and(|allocation| allocation.placement.is_none()) {
            let subject = vec![("instance", instance.id.to_string()), ("host", host.to_string())];
            let text = "it asked for NUMA cells, CPUs or pages, and none are booked for it: build it anew";
            found.push(Violation::new("I2", subject, text).stamped([u128::from(instance.generation)]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use nova_core::topology::{HostCell, HugePages, PlacedCell};
    use serde_json::json;

    use super::*;

    fn node() -> ComputeNode {
        let mut node: ComputeNode = serde_json::from_value(json!({
            "id": "11111111-1111-4111-8111-111111111111", "host": "h", "hypervisor_hostname": "h",
            "hypervisor_type": "fake", "hypervisor_version": 1, "host_ip": "", "zone": "nova",
            "inventory": {
                "total": {"vcpus": 0, "memory_mb": 0, "disk_gb": 0},
                "reserved": {"vcpus": 0, "memory_mb": 0, "disk_gb": 0},
                "cpu_ratio": 1.0, "ram_ratio": 1.0, "disk_ratio": 1.0,
            },
            "created_at": Timestamp::UNIX_EPOCH, "updated_at": Timestamp::UNIX_EPOCH,
        }))
        .unwrap();
        let huge_pages = vec![HugePages { size_kb: 2048, count: 4 }];
        let cell = HostCell { dedicated_cpus: (0..4).collect(), memory_mb: 100, huge_pages, ..HostCell::default() };
        node.facts.cells = vec![cell];
        node
    }

    fn booked(number: u128, cpu: u32, memory_mb: u64, page_kb: Option<u64>) -> Allocation {
        let cell = PlacedCell { pins: [(0, cpu)].into(), memory_mb, page_kb, ..PlacedCell::default() };
        Allocation {
            instance_id: InstanceId::from_uuid(uuid::Uuid::from_u128(number)),
            host: "h".into(),
            resources: Default::default(),
            created_at: Timestamp::UNIX_EPOCH,
            placement: Some(Placement { cells: vec![cell] }),
        }
    }

    #[test]
    fn what_is_given_out_twice_or_is_not_there_is_found() {
        let texts = |held: &[Allocation]| {
            let found = of_node(&node(), &held.iter().collect::<Vec<_>>());
            found.into_iter().map(|violation| violation.text).collect::<Vec<_>>()
        };
        assert!(texts(&[booked(1, 0, 50, None), booked(2, 1, 50, None), booked(3, 2, 8, Some(2048))]).is_empty());
        let twice = texts(&[booked(1, 0, 1, None), booked(2, 0, 1, None)]);
        assert!(twice[0].starts_with("CPU 0 is booked for 00000000-"), "{twice:?}");
        assert!(texts(&[booked(1, 9, 1, None)])[0].contains("none of compute.cpu_dedicated_set"));
        assert_eq!(
            texts(&[booked(1, 0, 60, None), booked(2, 1, 41, None), booked(3, 2, 10, Some(2048))]),
            [
                "101 MiB in usual pages are booked in NUMA cell 0, which has 100 MiB",
                "10 MiB in pages of 2048 KiB are booked in NUMA cell 0, which has 8 MiB",
            ]
        );
    }
}
