//! What guests hold of hosts' NUMA cells and devices.

use std::sync::Arc;

use super::HostTable;
use super::cold::Cold;
use super::layout::Row;
use crate::SchedulerError;
use crate::attributes::HostAttributes;
use crate::topology::{CpuPolicy, GuestCell, NumaCell, PciPool, PciRequest};

/// So many ways to lay a guest's cells over a host's are tried.
const MOST_TRIES: u32 = 10_000;

/// Where a guest's cells and devices are on its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopologyClaim {
    /// Per cell of the guest, the index of the host's cell.
    pub cells: Vec<usize>,
    /// Devices taken: the index of the host's pool, how many.
    pub devices: Vec<(usize, u32)>,
    asked: Vec<GuestCell>,
}

/// What is held of a host, and what that leaves.
#[derive(Clone, Default)]
pub(crate) struct Held {
    claims: Vec<(u128, TopologyClaim)>,
    free: Free,
}

impl Held {
    /// Counts anew what is left: a claim came or went, or the host is another.
    pub(super) fn recount(&mut self, host: &HostAttributes) {
        self.free = Free::of(host);
        self.claims.iter().for_each(|(_, claim)| self.free.take(claim));
    }
}

/// What is free, cell by cell and pool by pool.
#[derive(Clone, Default)]
struct Free {
    cells: Vec<NumaCell>,
    pools: Vec<u32>,
}

impl Free {
    fn of(host: &HostAttributes) -> Self {
        Self { cells: host.numa.clone(), pools: host.pci.iter().map(|pool| pool.count).collect() }
    }

    fn take(&mut self, claim: &TopologyClaim) {
        for (guest, cell) in claim.asked.iter().zip(&claim.cells) {
            if let Some(cell) = self.cells.get_mut(*cell) {
                take_cell(cell, guest);
            }
        }
        for (pool, count) in &claim.devices {
            if let Some(left) = self.pools.get_mut(*pool) {
                *left = left.saturating_sub(*count);
            }
        }
    }

    /// Finds a place for the cells and devices.
    fn place(&self, cells: &[GuestCell], pci: &[PciRequest], pools: &[PciPool]) -> Option<TopologyClaim> {
        let devices = self.devices(pci, pools)?;
        // The fullest first, so that large guests find empty cells later.
        let mut order: Vec<usize> = (0..self.cells.len()).collect();
        order.sort_by_key(|index| (self.cells[*index].dedicated_cpus, self.cells[*index].memory_mb, *index));
        let mut chosen = Vec::with_capacity(cells.len());
        let mut tries = MOST_TRIES;
        if !self.lay(cells, &order, &mut chosen, &mut tries) {
            return None;
        }
        Some(TopologyClaim { cells: chosen, devices, asked: cells.to_vec() })
    }

    /// Lays the guest's cells over different cells of the host.
    fn lay(&self, cells: &[GuestCell], order: &[usize], chosen: &mut Vec<usize>, tries: &mut u32) -> bool {
        let Some(guest) = cells.get(chosen.len()) else { return true };
        for cell in order {
            if *tries == 0 {
                return false;
            }
            *tries -= 1;
            if chosen.contains(cell) || !fits_cell(&self.cells[*cell], guest) {
                continue;
            }
            chosen.push(*cell);
            if self.lay(cells, order, chosen, tries) {
                return true;
            }
            chosen.pop();
        }
        false
    }

    /// Devices for all requests: a maximum flow from requests to pools, so that one request never takes the only device
    /// that another can use.
    fn devices(&self, pci: &[PciRequest], pools: &[PciPool]) -> Option<Vec<(usize, u32)>> {
        let suits = |request: usize, pool: usize| {
            let specs = &pci[request].specs;
            specs.is_empty() || specs.iter().any(|spec| spec.iter().all(|(key, value)| pools[pool].has(key, value)))
        };
        let mut flow = vec![vec![0_u32; pools.len()]; pci.len()];
        for (request, asked) in pci.iter().enumerate() {
            if asked.count > self.pools.iter().fold(0, |sum: u32, pool| sum.saturating_add(*pool)) {
                return None;
            }
            for _ in 0..asked.count {
                if !self.augment(request, &suits, &mut flow, &mut vec![false; pools.len()]) {
                    return None;
                }
            }
        }
        let taken = |pool: usize| flow.iter().map(|of| of[pool]).sum();
        Some((0..pools.len()).map(|pool| (pool, taken(pool))).filter(|(_, count)| *count > 0).collect())
    }

    /// One device more for the request, others moving to other pools if need be.
    fn augment(
        &self,
        request: usize,
        suits: &impl Fn(usize, usize) -> bool,
        flow: &mut [Vec<u32>],
        seen: &mut [bool],
    ) -> bool {
        for pool in 0..self.pools.len() {
            if seen[pool] || !suits(request, pool) {
                continue;
            }
            seen[pool] = true;
            let taken: u32 = flow.iter().map(|of| of[pool]).sum();
            let mover = || (0..flow.len()).filter(|other| flow[*other][pool] > 0).collect::<Vec<_>>();
            let moved = if taken < self.pools[pool] {
                true
            } else {
                mover().into_iter().any(|other| {
                    let moves = self.augment(other, suits, flow, seen);
                    flow[other][pool] -= u32::from(moves);
                    moves
                })
            };
            if moved {
                flow[request][pool] += 1;
                return true;
            }
        }
        false
    }
}

impl PciPool {
    /// Whether the devices have that property.
    fn has(&self, key: &str, value: &str) -> bool {
        match key {
            "vendor_id" => self.vendor_id == value,
            "product_id" => self.product_id == value,
            "dev_type" => self.dev_type == value,
            "numa_node" => self.numa_node.is_some_and(|node| value.parse() == Ok(node)),
            _ => self.tags.iter().any(|(name, tag)| name == key && tag == value),
        }
    }
}

/// How many of the host's dedicated CPUs the guest's take.
fn dedicated(cell: &NumaCell, guest: &GuestCell) -> u32 {
    match guest.cpu_policy {
        CpuPolicy::Shared => 0,
        CpuPolicy::Dedicated => guest.cpus,
        CpuPolicy::Isolate => guest.cpus.saturating_mul(cell.threads_per_core.max(1)),
    }
}

/// How many pages the guest's memory takes; `None` when it can't be made up of them.
fn pages(guest: &GuestCell, page_kb: u64) -> Option<u64> {
    let memory_kb = guest.memory_mb.checked_mul(1_024)?;
    (page_kb > 0 && memory_kb % page_kb == 0).then(|| memory_kb / page_kb)
}

fn fits_cell(cell: &NumaCell, guest: &GuestCell) -> bool {
    let cpus = match guest.cpu_policy {
        CpuPolicy::Shared => guest.cpus <= cell.shared_cpus,
        CpuPolicy::Dedicated | CpuPolicy::Isolate => dedicated(cell, guest) <= cell.dedicated_cpus,
    };
    let page = |page_kb: u64| cell.huge_pages.iter().find(|(size, _)| *size == page_kb);
    cpus && match guest.page_kb {
        None => guest.memory_mb <= cell.memory_mb,
        Some(page_kb) => match (page(page_kb), pages(guest, page_kb)) {
            (Some((_, free)), Some(pages)) => pages <= *free,
            _ => false,
        },
    }
}

fn take_cell(cell: &mut NumaCell, guest: &GuestCell) {
    cell.dedicated_cpus = cell.dedicated_cpus.saturating_sub(dedicated(cell, guest));
    match guest.page_kb {
        None => cell.memory_mb = cell.memory_mb.saturating_sub(guest.memory_mb),
        Some(page_kb) => {
            let taken = pages(guest, page_kb).unwrap_or(0);
            if let Some((_, free)) = cell.huge_pages.iter_mut().find(|(size, _)| *size == page_kb) {
                *free = free.saturating_sub(taken);
            }
        }
    }
}

impl HostTable {
    /// Books NUMA cells and devices for a consumer, beside what [`HostTable::allocate`] books, and says which. The
    /// memory of a cell is not overcommitted; shared CPUs are bounded by their number alone. Released with the
    /// consumer's resources; booking the same again changes nothing.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::TopologyDoesNotFit`], [`SchedulerError::UnknownHost`]. The table is then as it was.
    pub fn claim_topology(
        &mut self,
        host: &str,
        consumer: u128,
        cells: &[GuestCell],
        pci: &[PciRequest],
    ) -> Result<TopologyClaim, SchedulerError> {
        let row = self.known_row(host)?;
        let held = self.cold(row).and_then(Cold::topology);
        let before = held.and_then(|held| held.claims.iter().find(|(holder, _)| *holder == consumer));
        if let Some((_, claim)) = before {
            return Ok(claim.clone());
        }
        let attributes = Arc::clone(self.kinds.get(self.counts.kind_at(row)));
        let claim = match held {
            Some(held) => held.free.place(cells, pci, &attributes.pci),
            None => Free::of(&attributes).place(cells, pci, &attributes.pci),
        };
        let claim = claim.ok_or_else(|| SchedulerError::TopologyDoesNotFit { host: host.to_owned() })?;
        if let Some(cold) = self.cold_mut(row) {
            cold.change_rare(|rare| {
                let held = rare.topology.get_or_insert_default();
                held.claims.push((consumer, claim.clone()));
                held.recount(&attributes);
            });
        }
        Ok(claim)
    }

    /// Whether the cells and devices fit on the host, `times` over.
    pub(crate) fn topology_fits(&self, row: Row, cells: &[GuestCell], pci: &[PciRequest], times: u32) -> bool {
        let attributes = self.kinds.get(self.counts.kind_at(row));
        let held = self.cold(row).and_then(Cold::topology);
        if let ([cell], [], 1) = (cells, pci, times) {
            // The common question, without a list of what is free.
            let cells = held.map_or(&attributes.numa, |held| &held.free.cells);
            return cells.iter().any(|free| fits_cell(free, cell));
        }
        let mut free = held.map_or_else(|| Free::of(attributes), |held| held.free.clone());
        (0..times).all(|_| match free.place(cells, pci, &attributes.pci) {
            Some(claim) => {
                free.take(&claim);
                true
            }
            None => false,
        })
    }

    /// Free devices of all sorts.
    pub(crate) fn free_devices(&self, row: Row) -> u32 {
        let attributes = self.kinds.get(self.counts.kind_at(row));
        let held = self.cold(row).and_then(Cold::topology);
        match held {
            Some(held) => held.free.pools.iter().fold(0, |sum, pool| sum.saturating_add(*pool)),
            None => attributes.pci.iter().fold(0, |sum, pool| sum.saturating_add(pool.count)),
        }
    }

    pub(super) fn release_topology(&mut self, row: Row, consumer: u128) {
        let Some(held) = self.cold(row).and_then(Cold::topology) else { return };
        if !held.claims.iter().any(|(holder, _)| *holder == consumer) {
            return;
        }
        self.recount_topology(row, |held| held.claims.retain(|(holder, _)| *holder != consumer));
    }

    /// Changes what is held of a host's cells and devices, if anything is, and counts what is left.
    pub(super) fn recount_topology(&mut self, row: Row, change: impl FnOnce(&mut Held)) {
        let attributes = Arc::clone(self.kinds.get(self.counts.kind_at(row)));
        let Some(cold) = self.cold_mut(row).filter(|cold| cold.topology().is_some()) else { return };
        cold.change_rare(|rare| {
            let Some(held) = rare.topology.as_mut() else { return };
            change(held);
            if held.claims.is_empty() {
                rare.topology = None;
            } else {
                held.recount(&attributes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn table() -> HostTable {
        let mut table = fixtures::table(0, 1);
        let mut host = fixtures::host(0, 1);
        let cell = |id| NumaCell { id, dedicated_cpus: 4, memory_mb: 4_096, shared_cpus: 8, ..NumaCell::default() };
        let pool = |product: &str| PciPool { product_id: product.to_owned(), count: 1, ..PciPool::default() };
        let pci = vec![pool("a"), pool("b")];
        host.attributes = HostAttributes { numa: vec![cell(0), cell(1)], pci, ..HostAttributes::default() }.into();
        table.upsert_host(host).unwrap();
        table
    }

    fn guest(cpus: u32) -> GuestCell {
        GuestCell { cpus, memory_mb: 1_024, cpu_policy: CpuPolicy::Dedicated, page_kb: None }
    }

    fn asks(products: &[&str]) -> PciRequest {
        let specs = products.iter().map(|id| vec![("product_id".to_owned(), (*id).to_owned())]).collect();
        PciRequest { count: 1, specs }
    }

    #[test]
    fn claims_fill_cells_and_end_with_the_consumer() {
        let mut table = table();
        let first = table.claim_topology("host-0", 1, &[guest(3)], &[]).unwrap();
        assert_eq!(table.claim_topology("host-0", 1, &[guest(3)], &[]).unwrap(), first);
        // The fuller cell takes what still fits there.
        assert_eq!(table.claim_topology("host-0", 2, &[guest(1)], &[]).unwrap().cells, first.cells);
        assert_ne!(table.claim_topology("host-0", 3, &[guest(2)], &[]).unwrap().cells, first.cells);
        assert!(table.claim_topology("host-0", 4, &[guest(3)], &[]).is_err());
        table.allocate("host-0", 1, &[3, 1_024, 1].into()).unwrap();
        assert!(table.release(1));
        assert_eq!(table.claim_topology("host-0", 4, &[guest(3)], &[]).unwrap().cells, first.cells);
    }

    /// What is left follows the host's description, a move to another zone and the claims that end.
    #[test]
    fn what_is_left_is_counted_anew_when_the_host_changes() {
        let mut table = table();
        table.allocate("host-0", 1, &[1, 1, 1].into()).unwrap();
        table.claim_topology("host-0", 1, &[guest(3)], &[]).unwrap();
        let fits = |table: &HostTable, cpus| table.topology_fits(table.row("host-0").unwrap(), &[guest(cpus)], &[], 1);
        assert!(fits(&table, 4) && !fits(&table, 5));
        let mut host = table.host("host-0").unwrap().inventory();
        let mut attributes = HostAttributes::clone(&host.attributes);
        attributes.numa.iter_mut().for_each(|cell| cell.dedicated_cpus = 6);
        (host.attributes, host.zone) = (attributes.into(), "elsewhere".to_owned());
        table.upsert_host(host).unwrap();
        assert!(fits(&table, 6));
        table.claim_topology("host-0", 2, &[guest(6)], &[]).unwrap();
        assert!(fits(&table, 3) && !fits(&table, 4));
        table.release(1);
        assert!(fits(&table, 6));
    }

    #[test]
    fn a_device_that_another_needs_is_left_to_it() {
        let mut table = table();
        let both = [asks(&["a", "b"]), asks(&["a"])];
        let claim = table.claim_topology("host-0", 1, &[], &both).unwrap();
        assert_eq!(claim.devices, [(0, 1), (1, 1)]);
        assert!(table.claim_topology("host-0", 2, &[], &[asks(&["a", "b"])]).is_err());
        let row = table.row("host-0").unwrap();
        assert_eq!(table.free_devices(row), 0);
        assert!(!table.topology_fits(row, &[guest(4)], &[], 3));
        assert!(table.topology_fits(row, &[guest(4)], &[], 2));
    }
}
