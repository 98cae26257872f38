//! NUMA cells, dedicated CPUs and huge pages: what hosts have, what guests ask for, and which of it a guest got.
//!
//! [`asked`] reads a flavor and an image, [`place`] finds a place on a host. Both are pure: the API refuses with the
//! first, schedulers guess with the second, and the store decides with it when it books.

mod asked;
mod cpu_set;
mod place;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use asked::{AskedError, asked, asks_dedicated};
pub use cpu_set::{CpuSetError, format_cpu_set, parse_cpu_set};
pub use place::{HostCells, conflicts, place};
pub use sockets::{CpuLayout, layout};

/// Extra specs of a flavor, or properties of an image.
type Properties = BTreeMap<String, String>;

/// A NUMA cell of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCell {
    /// Its number.
    pub id: u32,
    /// CPUs that guests may share.
    #[serde(default)]
    pub shared_cpus: BTreeSet<u32>,
    /// CPUs that guests may have to themselves.
    #[serde(default)]
    pub dedicated_cpus: BTreeSet<u32>,
    /// Hardware threads that share a core. CPUs that are in none of these sets are cores of their own.
    #[serde(default)]
    pub siblings: Vec<BTreeSet<u32>>,
    /// Memory in pages of the usual size, in MiB: what is set aside as huge pages is not in it.
    pub memory_mb: u64,
    /// Huge pages that are set aside.
    #[serde(default)]
    pub huge_pages: Vec<HugePages>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// The size of one in KiB.
    pub size_kb: u64,
    /// How many there are.
    pub count: u64,
}

/// What a guest asks of a host's cells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTopology {
    /// The guest's own cells, at least one, each for a cell of the host.
    pub cells: Vec<GuestCell>,
    /// How its CPUs are placed.
    pub cpu_policy: CpuPolicy,
    /// How its dedicated CPUs are laid over cores; none is as [`ThreadPolicy::Prefer`].
    #[serde(default)]
    pub thread_policy: Option<ThreadPolicy>,
    /// The pages of its memory; none for the usual ones.
    #[serde(default)]
    pub pages: Option<PageSize>,
}

/// A NUMA cell of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCell {
    /// The guest's CPUs in it.
    pub cpus: BTreeSet<u32>,
    /// The guest's memory in it.
    pub memory_mb: u64,
}

/// How a guest's CPUs are placed (`hw:cpu_policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuPolicy {
    /// They float over the host's shared CPUs.
    #[default]
    Shared,
    /// Each has a CPU of the host to itself.
    Dedicated,
}

/// How dedicated CPUs are laid over cores with several threads (`hw:cpu_thread_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadPolicy {
    /// On threads of one core if there are some.
    Prefer,
    /// One per core; the core's other threads stay idle.
    Isolate,
    /// On threads of one core, or not at all.
    Require,
}

/// The pages of a guest's memory (`hw:mem_page_size`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageSize {
    /// The usual ones.
    Small,
    /// Huge ones, of any size.
    Large,
    /// Huge ones where there are some.
    Any,
    /// Of that size in KiB.
    Kib(u64),
}

/// Which of a host's cells, CPUs and pages a guest has. Cell by cell, in the order of the guest's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The guest's cells.
    pub cells: Vec<PlacedCell>,
}

/// A cell of a guest on a cell of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedCell {
    /// The host's cell.
    pub host_cell: u32,
    /// The guest's CPUs in it.
    pub cpus: BTreeSet<u32>,
    /// Which CPU of the host each of them has to itself; empty for those that float.
    #[serde(default)]
    pub pins: BTreeMap<u32, u32>,
    /// CPUs of the host that nobody uses for the sake of this guest.
    #[serde(default)]
    pub idle: BTreeSet<u32>,
    /// CPUs of the host that it shares with others, where it floats.
    #[serde(default)]
    pub floats: BTreeSet<u32>,
    /// Its memory.
    pub memory_mb: u64,
    /// The size of its huge pages; none for the usual pages.
    #[serde(default)]
    pub page_kb: Option<u64>,
}

impl Placement {
    /// Does the guest have CPUs of its own?
    pub fn is_dedicated(&self) -> bool {
        self.cells.iter().any(|cell| !cell.pins.is_empty())
    }

    /// CPUs of the guest that have one of the host's for themselves, in order.
    pub fn dedicated_cpus(&self) -> Vec<u32> {
        let cpus: BTreeSet<u32> = self.cells.iter().flat_map(|cell| cell.pins.keys().copied()).collect();
        cpus.into_iter().collect()
    }

    /// CPUs of the host that nobody else may have.
    pub fn own_cpus(&self) -> impl Iterator<Item = u32> {
        self.cells.iter().flat_map(|cell| cell.pins.values().chain(&cell.idle).copied())
    }
}

impl HostCell {
    /// Hardware threads per core.
    pub fn threads_per_core(&self) -> usize {
        self.siblings.iter().map(BTreeSet::len).max().unwrap_or(1).max(1)
    }

    /// Splits a machine's CPUs into those for sharing and those for guests of their own, as
    /// `compute.cpu_shared_set` and `compute.cpu_dedicated_set` say. Without either, all are shared; with a dedicated set
    /// alone, none are.
    #[must_use]
    pub fn split(mut self, shared: Option<&BTreeSet<u32>>, dedicated: Option<&BTreeSet<u32>>) -> Self {
        let all: BTreeSet<u32> = self.shared_cpus.union(&self.dedicated_cpus).copied().collect();
        let of = |set: Option<&BTreeSet<u32>>| set.map(|set| all.intersection(set).copied().collect());
        self.dedicated_cpus = of(dedicated).unwrap_or_default();
        self.shared_cpus =
            of(shared).unwrap_or_else(|| if dedicated.is_some() { BTreeSet::new() } else { all.clone() });
        self
    }
}
