//! What the tests of this room share: a fleet of equal hosts, as the store shows it.

use jiff::{SignedDuration, Timestamp};
use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode, Inventory, NodeVersion, Service};
use nova_core::ids::{ComputeNodeId, HostName, InstanceId, ServiceId};
use nova_core::rpc::scheduler::{AllocationNews, HostsChangedRequest};
use nova_sched::{Scheduler, SchedulerOptions};
use uuid::Uuid;

use super::{Hosts, Stored};

pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;
pub(super) const DOWN: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn instance(number: u128) -> InstanceId {
    InstanceId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn host(number: usize) -> HostName {
    HostName::new(format!("host{number:03}"))
}

pub(super) fn small() -> Resources {
    Resources { vcpus: 1, memory_mb: 512, disk_gb: 1 }
}

pub(super) fn node(number: usize) -> ComputeNode {
    let total = Resources { vcpus: 8, memory_mb: 8_192, disk_gb: 100 };
    let none = Resources::default();
    ComputeNode {
        id: ComputeNodeId::from_uuid(Uuid::from_u128(number as u128)),
        number: number as i64 + 1,
        host: host(number),
        hypervisor_hostname: host(number).to_string(),
        hypervisor_type: "fake".into(),
        hypervisor_version: 1,
        host_ip: "192.0.2.1".into(),
        zone: "nova".into(),
        architectures: vec!["x86_64".into(), "i686".into(), "x86_64".into()],
        inventory: Inventory { total, reserved: none, cpu_ratio: 1.0, ram_ratio: 1.0, disk_ratio: 1.0 },
        cpu_info: serde_json::json!({"vendor": "AMD"}),
        facts: nova_core::host_facts::HostFacts::default(),
        stats: nova_core::host_facts::HostStats::default(),
        uptime: None,
        created_at: NOW,
        updated_at: NOW,
        generation: 1,
        used: none,
        allocations: 0,
    }
}

pub(super) fn service(number: usize) -> Service {
    Service {
        id: ServiceId::from_uuid(Uuid::from_u128(number as u128)),
        number: number as i64 + 1,
        binary: "nova-compute".into(),
        host: host(number),
        zone: "nova".into(),
        disabled: false,
        disabled_reason: None,
        forced_down: false,
        drain: None,
        last_seen_up: NOW,
        updated_at: NOW,
        created_at: NOW,
        version: 1,
        generation: 1,
    }
}

/// So many hosts, all up and empty.
pub(super) fn stored(hosts: usize) -> Stored {
    Stored {
        aggregates: Vec::new(),
        nodes: (0..hosts).map(node).collect(),
        services: (0..hosts).map(service).collect(),
        allocations: Vec::new(),
    }
}

impl Stored {
    /// Books as the store does.
    pub(super) fn book(&mut self, number: u128, at: usize) {
        let (instance_id, host) = (instance(number), host(at));
        self.allocations.push(Allocation { instance_id, host, resources: small(), created_at: NOW, placement: None });
        self.allocations.sort_by(|a, b| (&a.host, a.instance_id).cmp(&(&b.host, b.instance_id)));
        self.nodes[at].generation += 1;
    }

    /// Gives back as the store does.
    pub(super) fn give_back(&mut self, number: u128, at: usize) {
        self.allocations.retain(|held| held.instance_id != instance(number) || held.host != host(at));
        self.nodes[at].generation += 1;
    }

    /// What the last change of an instance's allocation on a host would be told as.
    pub(super) fn told(&self, number: u128, at: usize) -> HostsChangedRequest {
        let held = self.allocations.iter().find(|held| held.instance_id == instance(number) && held.host == host(at));
        let version = Some(NodeVersion { number: self.nodes[at].number, generation: self.nodes[at].generation });
        let resources = held.map(|held| held.resources);
        let news =
            AllocationNews { instance_id: instance(number), host: host(at), resources, placement: None, version };
        HostsChangedRequest { allocations: vec![news], ..HostsChangedRequest::default() }
    }
}

pub(super) fn algorithm(name: &str) -> Box<dyn Scheduler> {
    nova_sched::by_name(name, &SchedulerOptions::default()).unwrap()
}

/// A table of what is stored.
pub(super) fn read(algorithm: &dyn Scheduler, stored: &Stored) -> Hosts {
    let mut hosts = Hosts::new(algorithm).unwrap();
    hosts.read_from(stored, NOW, DOWN);
    hosts
}

/// The instances that hold something on a host, by number.
pub(super) fn on(hosts: &Hosts, at: usize) -> Vec<u128> {
    hosts.table.consumers_on(host(at).as_str())
}
