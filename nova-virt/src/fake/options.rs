//! What a fake is told at start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use nova_core::topology::{HostCell, HugePages};

use super::world::FakeWorld;
use crate::Operation;

/// What a [`FakeHypervisor`](super::FakeHypervisor) is like.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// The compute node's name.
    pub hostname: String,
    /// The address that it says it has.
    pub host_ip: String,
    /// Where the screen of its first guest is said to be; those of others follow.
    pub first_vnc_port: u16,
    /// The same over SPICE; `None`: its guests have none.
    pub first_spice_port: Option<u16>,
    /// Logical processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in GiB.
    pub disk_gb: u64,
    /// How long each operation takes, on tokio's clock.
    pub latency: Duration,
    /// How long single operations take instead.
    pub latencies: BTreeMap<Operation, Duration>,
    /// Where guests are kept, so that they outlive the process as real ones do. `None`: in memory only. While the file
    /// can't be read or written, every operation is `Unavailable`.
    pub state_file: Option<PathBuf>,
    /// Has base images fetched to its host like a driver that reads them, although it does not.
    pub needs_images: bool,
    /// The world that this fake shares with others.
    pub world: FakeWorld,
    /// Says that the disks of its guests are on storage that the other fakes of its world see as well.
    pub shared_disks: bool,
    /// How many journal entries are kept; the hash covers all.
    pub journal_limit: usize,
    /// What it says that it can do, besides being a compute node.
    pub traits: BTreeSet<String>,
    /// How busy it is at first.
    pub load: FakeLoad,
    /// Its NUMA cells; none: one, with all that it has.
    pub cells: Vec<HostCell>,
    /// The version that it says it has, as in [`Capabilities`](crate::Capabilities).
    pub hypervisor_version: i64,
    /// What its processor says that it can do.
    pub cpu_features: BTreeSet<String>,
    /// Says that guests see that processor.
    pub guests_see_cpu: bool,
}

impl FakeOptions {
    /// Spreads CPUs and memory over so many cells, each with so much memory as pages of 2 MiB.
    pub fn spread_over(&mut self, nodes: u32, huge_pages_mb: u64) {
        let nodes = nodes.clamp(1, self.vcpus.max(1));
        let memory_mb = self.memory_mb / u64::from(nodes);
        let huge_pages_mb = huge_pages_mb.min(memory_mb);
        let pages = HugePages { size_kb: 2048, count: huge_pages_mb / 2 };
        let first = |cell: u32| (u64::from(cell) * u64::from(self.vcpus) / u64::from(nodes)) as u32;
        let cell = |id| HostCell {
            id,
            shared_cpus: (first(id)..first(id + 1)).collect(),
            memory_mb: memory_mb - huge_pages_mb,
            huge_pages: (pages.count > 0).then_some(pages).into_iter().collect(),
            ..HostCell::default()
        };
        self.cells = (0..nodes).map(cell).collect();
    }

    pub(super) fn all_cells(&self) -> Vec<HostCell> {
        if !self.cells.is_empty() {
            return self.cells.clone();
        }
        let (shared_cpus, memory_mb) = ((0..self.vcpus).collect(), self.memory_mb);
        vec![HostCell { shared_cpus, memory_mb, ..HostCell::default() }]
    }
}

/// How busy a fake host says that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FakeLoad {
    /// Share of processor time in programs, 0 to 100.
    pub cpu_percent: u8,
    /// Share of processor time waiting for disks; both together at most 100.
    pub iowait_percent: u8,
    /// Processes that run or wait, in thousandths.
    pub load_average_milli: u64,
}

impl FakeOptions {
    /// A host of that name with 32 processors, 64 GiB of memory and 2 TiB of disk, that answers at once.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            host_ip: "127.0.0.1".into(),
            first_vnc_port: 5900,
            first_spice_port: None,
            vcpus: 32,
            memory_mb: 64 << 10,
            disk_gb: 2048,
            latency: Duration::ZERO,
            latencies: BTreeMap::new(),
            state_file: None,
            needs_images: false,
            world: FakeWorld::new(),
            shared_disks: false,
            journal_limit: 100_000,
            traits: ["COMPUTE_RESCUE_BFV".to_owned()].into(),
            load: FakeLoad::default(),
            cells: Vec::new(),
            hypervisor_version: 1_000_000,
            cpu_features: BTreeSet::new(),
            guests_see_cpu: false,
        }
    }
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self::new("fake")
    }
}
