//! What a host has reported, as algorithms read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::host::ComputeNode;
use nova_core::ids::ZoneName;
use nova_sched::{HostAttributes, HostInventory, HostStats, Ratios, SupportedInstance};
use serde_json::Value;

use super::request::vector;

/// A host in that zone, neither up nor enabled yet.
pub(super) fn inventory_of(node: &ComputeNode, zone: &ZoneName) -> HostInventory {
    let inventory = &node.inventory;
    let mut host = HostInventory::new(node.host.as_str(), zone.as_str(), vector(inventory.total));
    host.node = node.hypervisor_hostname.clone();
    host.reserved = vector(inventory.reserved);
    let mut ratio = Ratios::default();
    ratio.set(0, inventory.cpu_ratio);
    ratio.set(1, inventory.ram_ratio);
    ratio.set(2, inventory.disk_ratio);
    host.ratio = ratio;
    host.architectures = node.architectures.clone();
    host.ip = node.host_ip.parse().ok();
    host.traits = node.facts.traits.iter().cloned().collect();
    host.reported_load = node.stats.load;
    host.stats = HostStats {
        io_ops: node.stats.io_ops,
        failed_builds: node.stats.failed_builds,
        metrics: node.stats.metrics.clone(),
    };
    host.attributes = Arc::new(attributes(node));
    host
}

fn attributes(node: &ComputeNode) -> HostAttributes {
    // Nova's libvirt driver names the kind of guest in lower case (`qemu`), the hypervisor in upper case (`QEMU`).
    let kind = node.hypervisor_type.to_lowercase();
    // libvirt calls itself QEMU with hardware support and without; images ask for one of the two.
    let kinds = if kind == "qemu" { vec!["qemu", "kvm"] } else { vec![kind.as_str()] };
    let guest = |architecture: &String| {
        kinds.iter().map(|kind| SupportedInstance::new(architecture, kind, "hvm")).collect::<Vec<_>>()
    };
    let guests = node.architectures.iter().flat_map(guest);
    let mut capabilities = BTreeMap::new();
    flatten("cpu_info", &node.cpu_info, &mut capabilities);
    HostAttributes {
        hypervisor_type: node.hypervisor_type.clone(),
        hypervisor_version: u64::try_from(node.hypervisor_version).unwrap_or(0),
        supported_instances: guests.collect(),
        capabilities,
        ..HostAttributes::default()
    }
}

/// `cpu_info.topology.cores = 2`; members of a list stand side by side, as in Nova's `cpu_info.features`.
fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                flatten(&format!("{name}.{member}"), value, into);
            }
        }
        Value::String(text) => drop(into.insert(name.to_owned(), text.clone())),
        other => drop(into.insert(name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_processor_is_can_be_asked_for_by_name() {
        let mut found = BTreeMap::new();
        let cpu = json!({"vendor": "AMD", "topology": {"cores": 2}, "features": ["sse", "avx"], "model": null});
        flatten("cpu_info", &cpu, &mut found);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let features = ("cpu_info.features", "[\"sse\",\"avx\"]");
        assert_eq!(found, [features, ("cpu_info.topology.cores", "2"), ("cpu_info.vendor", "AMD")]);
    }
}
