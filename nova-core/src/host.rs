//! Services, hosts and compute nodes, and what of them is taken.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::drain::Drain;
use crate::flavor::Resources;
use crate::host_facts::{HostFacts, HostStats};
use crate::ids::{ComputeNodeId, HostName, InstanceId, ServiceId, ZoneName};
use crate::topology::{HostCells, Placement};

/// How reasons begin for which hosts take themselves out of scheduling, and are put back when it is over. Nova's
/// (nova/virt/libvirt/driver.py, `DISABLE_PREFIX`).
pub const AUTO_DISABLED: &str = "AUTO: ";

/// One binary on one host (nova/objects/service.py): made by its first heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The id that clients see from 2.53.
    pub id: ServiceId,
    /// The number that clients see below 2.53.
    #[serde(default)]
    pub number: i64,
    /// `nova-compute`, `nova-conductor`, …
    pub binary: String,
    /// Where it runs.
    pub host: HostName,
    /// The zone of a compute host; `internal` for control services.
    pub zone: ZoneName,
    /// Taken out of scheduling by an operator.
    #[serde(default)]
    pub disabled: bool,
    /// Why.
    #[serde(default)]
    pub disabled_reason: Option<String>,
    /// Declared dead by an operator (2.11).
    #[serde(default)]
    pub forced_down: bool,
    /// It is being emptied, or was and is kept so, until its operator takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// The last heartbeat.
    pub last_seen_up: Timestamp,
    /// When an operator last changed it, or it was last seen.
    pub updated_at: Timestamp,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// Version of the messages that it speaks.
    #[serde(default)]
    pub version: u32,
    /// Grows with every change but heartbeats.
    #[serde(default)]
    pub generation: u64,
}

impl Service {
    /// Did its host take it out of scheduling for as long as something lasts? Not one that an operator keeps out.
    pub fn is_auto_disabled(&self) -> bool {
        let reason = self.disabled_reason.as_deref().unwrap_or_default();
        self.disabled && self.drain.is_none() && reason.starts_with(AUTO_DISABLED)
    }

    /// Is it there? Nova's `servicegroup` rule: not forced down, and seen within `service_down_time`.
    pub fn is_up(&self, now: Timestamp, down_time: SignedDuration) -> bool {
        !self.forced_down && now.duration_since(self.last_seen_up) <= down_time
    }
}

/// A hypervisor and what it has (nova/objects/compute_node.py). What is used of it is the sum of its allocations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeNode {
    /// The id that clients see from 2.53.
    pub id: ComputeNodeId,
    /// The number that clients see below 2.53.
    #[serde(default)]
    pub number: i64,
    /// The host whose compute service manages it.
    pub host: HostName,
    /// Its own name.
    pub hypervisor_hostname: String,
    /// `QEMU`, `fake`.
    pub hypervisor_type: String,
    /// As libvirt counts: 7002022 is 7.2.22.
    pub hypervisor_version: i64,
    /// Address of the host.
    pub host_ip: String,
    /// The zone.
    pub zone: ZoneName,
    /// Guest architectures that it runs, as `x86_64`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// What it has, to sell and to keep.
    pub inventory: Inventory,
    /// JSON about the processor, as clients show it.
    #[serde(default)]
    pub cpu_info: serde_json::Value,
    /// As `uptime` prints it (2.88).
    #[serde(default)]
    pub uptime: Option<String>,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// When its report last changed.
    pub updated_at: Timestamp,
    /// Grows with every change of the inventory or of the allocations: who books names the version that they read.
    #[serde(default)]
    pub generation: u64,
    /// The sum of its allocations, kept by the store in the same transaction.
    #[serde(default)]
    pub used: Resources,
    /// How many allocations there are.
    #[serde(default)]
    pub allocations: u64,
    /// What it can do besides.
    #[serde(default)]
    pub facts: HostFacts,
    /// How busy it is, as it said last.
    #[serde(default)]
    pub stats: HostStats,
}

impl ComputeNode {
    /// How new this is.
    pub fn version(&self) -> NodeVersion {
        NodeVersion { number: self.number, generation: self.generation }
    }

    /// Its NUMA cells, and how often what guests share of them may be sold.
    pub fn cells(&self) -> HostCells<'_> {
        let Inventory { cpu_ratio, ram_ratio, .. } = self.inventory;
        HostCells { cells: &self.facts.cells, cpu_ratio, ram_ratio }
    }
}

/// How new what is known of a node and of its allocations is. The later of two is the greater: numbers grow from node to
/// node, generations with every change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeVersion {
    /// The node's number.
    pub number: i64,
    /// Its generation.
    pub generation: u64,
}

/// What a node has and how far it may be sold: capacity = (total − reserved) × ratio, as in Placement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// All that the machine has.
    pub total: Resources,
    /// What the operator keeps for the host itself.
    pub reserved: Resources,
    /// How often each processor may be sold.
    pub cpu_ratio: f64,
    /// How often each MiB may be sold.
    pub ram_ratio: f64,
    /// How often each GiB may be sold.
    pub disk_ratio: f64,
}

impl Inventory {
    /// What may be allocated at most.
    pub fn capacity(&self) -> Resources {
        let left = self.total.minus(self.reserved);
        let times = |amount: u64, ratio: f64| (amount as f64 * ratio.max(0.0)).floor() as u64;
        Resources {
            vcpus: times(left.vcpus, self.cpu_ratio),
            memory_mb: times(left.memory_mb, self.ram_ratio),
            disk_gb: times(left.disk_gb, self.disk_ratio),
        }
    }

    /// The name of the first resource that `used` and `wanted` together exceed.
    pub fn shortage(&self, used: Resources, wanted: Resources) -> Option<&'static str> {
        let (sum, capacity) = (used.plus(wanted), self.capacity());
        if wanted.vcpus > 0 && sum.vcpus > capacity.vcpus {
            Some("vcpus")
        } else if wanted.memory_mb > 0 && sum.memory_mb > capacity.memory_mb {
            Some("memory_mb")
        } else if wanted.disk_gb > 0 && sum.disk_gb > capacity.disk_gb {
            Some("disk_gb")
        } else {
            None
        }
    }
}

/// Resources booked on a host for an instance; its key is (instance, host): a move holds two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// For whom.
    pub instance_id: InstanceId,
    /// Where.
    pub host: HostName,
    /// How much.
    pub resources: Resources,
    /// When.
    pub created_at: Timestamp,
    /// Which cells, CPUs and pages of the host, where the instance asks for some. The store gives them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        Inventory {
            total: Resources { vcpus: 4, memory_mb: 1024, disk_gb: 10 },
            reserved: Resources { vcpus: 0, memory_mb: 512, disk_gb: 0 },
            cpu_ratio: 4.0,
            ram_ratio: 1.0,
            disk_ratio: 1.0,
        }
    }

    #[test]
    fn capacity_is_what_is_not_reserved_times_the_ratio() {
        assert_eq!(inventory().capacity(), Resources { vcpus: 16, memory_mb: 512, disk_gb: 10 });
    }

    #[test]
    fn the_last_unit_fits_and_one_more_does_not() {
        let used = Resources { vcpus: 15, memory_mb: 511, disk_gb: 9 };
        let one = Resources { vcpus: 1, memory_mb: 1, disk_gb: 1 };
        assert_eq!(inventory().shortage(used, one), None);
        assert_eq!(inventory().shortage(used, Resources { memory_mb: 2, ..one }), Some("memory_mb"));
    }

    #[test]
    fn what_is_not_asked_for_is_not_short() {
        let over = Resources { vcpus: 99, memory_mb: 0, disk_gb: 0 };
        assert_eq!(inventory().shortage(over, Resources { vcpus: 0, memory_mb: 1, disk_gb: 0 }), None);
    }
}
