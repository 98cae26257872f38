//! Compute nodes as administrators see them (nova/api/openstack/compute/hypervisors.py, `_view_hypervisor`).

use nova_core::host::{ComputeNode, Service};
use nova_core::instance::{Instance, hypervisor_name};
use serde_json::{Map, Value, json};

use crate::api::Microversion;
use crate::api::compute::services::view as service_view;
use crate::api::compute::services::view::Liveness;

/// A node with the service that manages it.
#[derive(Debug, Clone, Copy)]
pub struct Hypervisor<'a> {
    /// The node.
    pub node: &'a ComputeNode,
    /// Its service.
    pub service: &'a Service,
    /// The servers on it, where they were asked for.
    pub servers: Option<&'a [Instance]>,
    /// From a server's number to the hypervisor's name for it.
    pub name_template: &'a str,
}

/// The id that this version shows: a number before 2.53, a UUID from then on.
pub fn id(version: Microversion, node: &ComputeNode) -> Value {
    if version.at_least(53) { json!(node.id) } else { json!(node.number) }
}

/// The short form.
pub fn brief(version: Microversion, liveness: &Liveness, hypervisor: &Hypervisor) -> Map<String, Value> {
    let mut view = Map::new();
    view.insert("id".into(), id(version, hypervisor.node));
    view.insert("hypervisor_hostname".into(), json!(hypervisor.node.hypervisor_hostname));
    view.insert("state".into(), json!(liveness.state(hypervisor.service)));
    view.insert("status".into(), json!(service_view::status(hypervisor.service)));
    if let Some(servers) = hypervisor.servers.filter(|s| !s.is_empty() || version.at_least(75)) {
        let name = |s: &Instance| hypervisor_name(hypervisor.name_template, s.number, s.id);
        let servers: Vec<Value> = servers.iter().map(|s| json!({"uuid": s.id, "name": name(s)})).collect();
        view.insert("servers".into(), json!(servers));
    }
    view
}

/// The long form.
pub fn full(version: Microversion, liveness: &Liveness, hypervisor: &Hypervisor) -> Map<String, Value> {
    let mut view = brief(version, liveness, hypervisor);
    let Hypervisor { node, service, .. } = hypervisor;
    view.insert("hypervisor_type".into(), json!(node.hypervisor_type));
    view.insert("hypervisor_version".into(), json!(node.hypervisor_version));
    view.insert("host_ip".into(), json!(node.host_ip));
    view.insert(
        "service".into(),
        json!({
            "id": service_view::id(version, service),
            "host": node.host,
            "disabled_reason": service.disabled_reason,
        }),
    );
    if version.before(88) {
        numbers(&mut view, node);
        view.insert("cpu_info".into(), cpu_info(version, node));
    } else {
        // A host that is down cannot be asked how long it has been up.
        let uptime = node.uptime.as_ref().filter(|_| liveness.is_up(service));
        view.insert("uptime".into(), json!(uptime));
    }
    view
}

/// `os-hypervisors/statistics`: sums over nodes whose service is enabled.
pub fn statistics<'a>(nodes: impl Iterator<Item = &'a ComputeNode>) -> Value {
    let mut sums = Map::new();
    let (mut count, mut sum) = (0_u64, Numbers::default());
    for node in nodes {
        count += 1;
        sum.add(&Numbers::of(node));
    }
    sum.write(&mut sums);
    sums.insert("count".into(), json!(count));
    Value::Object(sums)
}

fn numbers(view: &mut Map<String, Value>, node: &ComputeNode) {
    Numbers::of(node).write(view);
}

/// Text up to 2.27, an object from then on; `{}` where the driver tells nothing.
fn cpu_info(version: Microversion, node: &ComputeNode) -> Value {
    let nothing = node.cpu_info.is_null();
    match version.at_least(28) {
        true if nothing => json!({}),
        true => node.cpu_info.clone(),
        false if nothing => json!(""),
        false => json!(node.cpu_info.to_string()),
    }
}

/// The counters that versions before 2.88 show. What is used includes what is reserved, as libvirt's driver counts.
#[derive(Debug, Default)]
struct Numbers {
    vcpus: u64,
    vcpus_used: u64,
    memory_mb: u64,
    memory_mb_used: u64,
    local_gb: u64,
    local_gb_used: u64,
    disk_available_least: i64,
    free_ram_mb: i64,
    free_disk_gb: i64,
    running_vms: u64,
}

impl Numbers {
    fn of(node: &ComputeNode) -> Self {
        let (total, used) = (node.inventory.total, node.used.plus(node.inventory.reserved));
        let free = |total: u64, used: u64| {
            let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
            number(total).saturating_sub(number(used))
        };
        Self {
            vcpus: total.vcpus,
            vcpus_used: node.used.vcpus,
            memory_mb: total.memory_mb,
            memory_mb_used: used.memory_mb,
            local_gb: total.disk_gb,
            local_gb_used: used.disk_gb,
            disk_available_least: free(total.disk_gb, used.disk_gb),
            free_ram_mb: free(total.memory_mb, used.memory_mb),
            free_disk_gb: free(total.disk_gb, used.disk_gb),
            running_vms: node.allocations,
        }
    }

    fn add(&mut self, other: &Self) {
        self.vcpus += other.vcpus;
        self.vcpus_used += other.vcpus_used;
        self.memory_mb += other.memory_mb;
        self.memory_mb_used += other.memory_mb_used;
        self.local_gb += other.local_gb;
        self.local_gb_used += other.local_gb_used;
        self.disk_available_least += other.disk_available_least;
        self.free_ram_mb += other.free_ram_mb;
        self.free_disk_gb += other.free_disk_gb;
        self.running_vms += other.running_vms;
    }

    fn write(&self, view: &mut Map<String, Value>) {
        for (key, number) in [
            ("vcpus", self.vcpus),
            ("vcpus_used", self.vcpus_used),
            ("memory_mb", self.memory_mb),
            ("memory_mb_used", self.memory_mb_used),
            ("local_gb", self.local_gb),
            ("local_gb_used", self.local_gb_used),
            ("running_vms", self.running_vms),
            ("current_workload", 0),
        ] {
            view.insert(key.into(), json!(number));
        }
        for (key, number) in [
            ("disk_available_least", self.disk_available_least),
            ("free_ram_mb", self.free_ram_mb),
            ("free_disk_gb", self.free_disk_gb),
        ] {
            view.insert(key.into(), json!(number));
        }
    }
}
