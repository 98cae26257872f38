//! Finding a place for a guest's cells on a host's (nova/virt/hardware.py, `numa_fit_instance_to_host`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{CpuPolicy, GuestCell, GuestTopology, HostCell, HugePages, PageSize, PlacedCell, Placement, ThreadPolicy};

/// So many ways to lay a guest's cells over a host's are tried.
const MOST_TRIES: u32 = 10_000;

/// A host's cells, and how often what guests share of them may be sold. CPUs and pages of their own are sold once.
#[derive(Debug, Clone, Copy)]
pub struct HostCells<'a> {
    /// The cells.
    pub cells: &'a [HostCell],
    /// How often a shared CPU may be sold.
    pub cpu_ratio: f64,
    /// How often a MiB of usual pages may be sold.
    pub ram_ratio: f64,
}

impl HostCells<'_> {
    fn shared_cpus(&self, cell: &HostCell) -> u64 {
        (cell.shared_cpus.len() as f64 * self.cpu_ratio.max(0.0)).floor() as u64
    }

    /// MiB in usual pages that may be sold of a cell.
    pub fn memory_mb(&self, cell: &HostCell) -> u64 {
        (cell.memory_mb as f64 * self.ram_ratio.max(0.0)).floor() as u64
    }
}

/// What is free of a cell.
struct Free<'a> {
    cell: &'a HostCell,
    /// Shared CPUs that may still be sold.
    shared: u64,
    dedicated: BTreeSet<u32>,
    memory_mb: u64,
    huge_pages: Vec<HugePages>,
}

/// A place for the guest beside those that are there.
///
/// # Errors
/// What the host has not enough of.
pub fn place<'a>(
    host: HostCells<'_>,
    held: impl IntoIterator<Item = &'a Placement>,
    guest: &GuestTopology,
) -> Result<Placement, &'static str> {
    if guest.cells.len() > host.cells.len() {
        return Err("NUMA cells");
    }
    let mut free: Vec<Free<'_>> = host.cells.iter().map(|cell| Free::all(&host, cell)).collect();
    for placed in held.into_iter().flat_map(|placement| &placement.cells) {
        // What is held of a cell that the host no longer has takes nothing of the others.
        if let Some(free) = free.iter_mut().find(|free| free.cell.id == placed.host_cell) {
            free.take(placed);
        }
    }
    match guest.cpu_policy {
        // Who shares CPUs shares them with the fewest.
        CpuPolicy::Shared => free.sort_by_key(|free| (Reverse(free.shared), free.cell.id)),
        // The fullest first, so that large guests find empty cells later.
        CpuPolicy::Dedicated => free.sort_by_key(|free| (free.dedicated.len(), free.memory_mb, free.cell.id)),
    }
    let (tries, placed) = (MOST_TRIES, Vec::new());
    let mut search = Search { free: &free, guest, missing: "NUMA cells", tries, placed, last: Vec::new() };
    match search.lay(&mut vec![false; free.len()]) {
        true => Ok(Placement { cells: search.placed }),
        false => Err(search.missing),
    }
}

struct Search<'a> {
    free: &'a [Free<'a>],
    guest: &'a GuestTopology,
    missing: &'static str,
    tries: u32,
    placed: Vec<PlacedCell>,
    /// Which of the host's cells each of these is on.
    last: Vec<usize>,
}

impl Search<'_> {
    /// Lays what is left of the guest's cells over cells of the host that it does not use yet.
    fn lay(&mut self, taken: &mut [bool]) -> bool {
        let number = self.placed.len();
        let Some(cell) = self.guest.cells.get(number) else { return true };
        // Equal cells of the guest are laid in the order of the host's: another order of them is no other way.
        let before = number.checked_sub(1).and_then(|before| self.guest.cells.get(before));
        let from = match (before, self.last.last()) {
            (Some(before), Some(last)) if alike(before, cell) => last + 1,
            _ => 0,
        };
        for (index, free) in self.free.iter().enumerate().skip(from) {
            if self.tries == 0 {
                return false;
            }
            if taken[index] {
                continue;
            }
            self.tries -= 1;
            match free.fit(self.guest, cell) {
                Ok(fitted) => {
                    taken[index] = true;
                    self.placed.push(fitted);
                    self.last.push(index);
                    if self.lay(taken) {
                        return true;
                    }
                    self.placed.pop();
                    self.last.pop();
                    taken[index] = false;
                }
                Err(missing) => self.missing = missing,
            }
        }
        false
    }
}

/// Do they ask for the same, whichever of the guest's CPUs they hold?
fn alike(one: &GuestCell, other: &GuestCell) -> bool {
    one.cpus.len() == other.cpus.len() && one.memory_mb == other.memory_mb
}

impl<'a> Free<'a> {
    fn all(host: &HostCells<'_>, cell: &'a HostCell) -> Self {
        Self {
            cell,
            shared: host.shared_cpus(cell),
            dedicated: cell.dedicated_cpus.clone(),
            memory_mb: host.memory_mb(cell),
            huge_pages: cell.huge_pages.clone(),
        }
    }

    fn take(&mut self, placed: &PlacedCell) {
        for cpu in placed.pins.values().chain(&placed.idle) {
            self.dedicated.remove(cpu);
        }
        if placed.pins.is_empty() {
            self.shared = self.shared.saturating_sub(placed.cpus.len() as u64);
        }
        let Some(page_kb) = placed.page_kb else {
            self.memory_mb = self.memory_mb.saturating_sub(placed.memory_mb);
            return;
        };
        if let Some(pages) = self.huge_pages.iter_mut().find(|pages| pages.size_kb == page_kb) {
            pages.count = pages.count.saturating_sub(placed.memory_mb.saturating_mul(1024).div_ceil(page_kb.max(1)));
        }
    }

    fn fit(&self, guest: &GuestTopology, cell: &GuestCell) -> Result<PlacedCell, &'static str> {
        let mut placed = PlacedCell {
            host_cell: self.cell.id,
            cpus: cell.cpus.clone(),
            memory_mb: cell.memory_mb,
            page_kb: self.pages(guest.pages, cell.memory_mb)?,
            ..PlacedCell::default()
        };
        match guest.cpu_policy {
            CpuPolicy::Shared if cell.cpus.len() > self.cell.shared_cpus.len() => return Err("CPUs of a NUMA cell"),
            CpuPolicy::Shared if cell.cpus.len() as u64 > self.shared => return Err("CPUs of a NUMA cell"),
            CpuPolicy::Shared => placed.floats = self.cell.shared_cpus.clone(),
            CpuPolicy::Dedicated => {
                let policy = guest.thread_policy.unwrap_or(ThreadPolicy::Prefer);
                let (own, idle) = self.cores(cell.cpus.len(), policy).ok_or("dedicated CPUs")?;
                placed.pins = cell.cpus.iter().copied().zip(own).collect();
                placed.idle = idle;
            }
        }
        Ok(placed)
    }

    /// The pages that the memory is made of: the largest that do.
    fn pages(&self, wanted: Option<PageSize>, memory_mb: u64) -> Result<Option<u64>, &'static str> {
        let memory_kb = memory_mb.saturating_mul(1024);
        let takes = |pages: &&HugePages| {
            pages.size_kb > 0 && memory_kb.is_multiple_of(pages.size_kb) && memory_kb / pages.size_kb <= pages.count
        };
        let largest = || self.huge_pages.iter().filter(takes).map(|pages| pages.size_kb).max();
        let small = || if memory_mb <= self.memory_mb { Ok(None) } else { Err("memory of a NUMA cell") };
        match wanted {
            None | Some(PageSize::Small) => small(),
            Some(PageSize::Any) => largest().map_or_else(small, |size| Ok(Some(size))),
            Some(PageSize::Large) => largest().map(Some).ok_or("huge pages"),
            // 4 KiB is the usual size of the architectures that there are.
            Some(PageSize::Kib(4)) => small(),
            Some(PageSize::Kib(size)) => {
                let found = self.huge_pages.iter().filter(takes).find(|pages| pages.size_kb == size);
                found.map(|pages| Some(pages.size_kb)).ok_or("huge pages")
            }
        }
    }

    /// So many CPUs that are free, and those that must stay idle beside them.
    fn cores(&self, count: usize, policy: ThreadPolicy) -> Option<(Vec<u32>, BTreeSet<u32>)> {
        let mut cores: Vec<Vec<u32>> = Vec::new();
        let mut idle = BTreeSet::new();
        for core in self.all_cores() {
            let threads: Vec<u32> = core.intersection(&self.dedicated).copied().collect();
            match policy {
                ThreadPolicy::Isolate if threads.len() == core.len() => cores.push(threads),
                ThreadPolicy::Require if threads.len() > 1 => cores.push(threads),
                ThreadPolicy::Prefer if !threads.is_empty() => cores.push(threads),
                _ => {}
            }
        }
        let own: Vec<u32> = if policy == ThreadPolicy::Isolate {
            cores.truncate(count);
            idle.extend(cores.iter().flat_map(|threads| threads.iter().skip(1)));
            cores.iter().filter_map(|threads| threads.first().copied()).collect()
        } else {
            // Whole cores first: threads of a core are not shared with another guest then.
            cores.sort_by_key(|threads| std::cmp::Reverse(threads.len()));
            cores.into_iter().flatten().take(count).collect()
        };
        (own.len() == count).then_some((own, idle))
    }

    fn all_cores(&self) -> Vec<BTreeSet<u32>> {
        let mut cores = self.cell.siblings.clone();
        let known: BTreeSet<u32> = cores.iter().flatten().copied().collect();
        cores.extend(self.cell.dedicated_cpus.difference(&known).map(|cpu| BTreeSet::from([*cpu])));
        cores.sort_by_key(|core| core.first().copied());
        cores
    }
}

/// CPUs of a host that two guests have, or that are none of the host's dedicated ones: what is never to be.
pub fn conflicts<'a, K: Copy>(
    cells: &[HostCell],
    held: impl IntoIterator<Item = (K, &'a Placement)>,
) -> Vec<(u32, Vec<K>)> {
    let dedicated: BTreeSet<u32> = cells.iter().flat_map(|cell| &cell.dedicated_cpus).copied().collect();
    let mut users: BTreeMap<u32, Vec<K>> = BTreeMap::new();
    for (who, placement) in held {
        for cpu in placement.own_cpus() {
            users.entry(cpu).or_default().push(who);
        }
    }
    users.into_iter().filter(|(cpu, users)| users.len() > 1 || !dedicated.contains(cpu)).collect()
}

#[cfg(test)]
mod tests;
