use super::*;

fn sold_once(cells: &[HostCell]) -> HostCells<'_> {
    HostCells { cells, cpu_ratio: 1.0, ram_ratio: 1.0 }
}

fn place<'a>(
    cells: &[HostCell],
    held: impl IntoIterator<Item = &'a Placement>,
    guest: &GuestTopology,
) -> Result<Placement, &'static str> {
    super::place(sold_once(cells), held, guest)
}

/// Two threads per core: 0 and 4, 1 and 5, …; the first cell of two.
fn cell(id: u32) -> HostCell {
    let base = id * 8;
    HostCell {
        id,
        shared_cpus: BTreeSet::new(),
        dedicated_cpus: (base..base + 8).collect(),
        siblings: (base..base + 4).map(|cpu| [cpu, cpu + 4].into()).collect(),
        memory_mb: 4096,
        huge_pages: vec![HugePages { size_kb: 2048, count: 512 }, HugePages { size_kb: 1 << 20, count: 1 }],
    }
}

fn dedicated(cpus: u32, policy: Option<ThreadPolicy>) -> GuestTopology {
    GuestTopology {
        cells: vec![GuestCell { cpus: (0..cpus).collect(), memory_mb: 512 }],
        cpu_policy: CpuPolicy::Dedicated,
        thread_policy: policy,
        pages: None,
    }
}

fn pins(placement: &Placement) -> Vec<u32> {
    placement.cells.iter().flat_map(|cell| cell.pins.values().copied()).collect()
}

#[test]
fn dedicated_cpus_are_laid_over_cores_as_the_policy_says() {
    use ThreadPolicy::{Isolate, Prefer, Require};
    let host = [cell(0)];
    let of = |cpus, policy| place(&host, [], &dedicated(cpus, policy));
    assert_eq!(pins(&of(2, None).unwrap()), [0, 4], "threads of one core");
    assert_eq!(pins(&of(3, Some(Prefer)).unwrap()), [0, 4, 1]);
    assert_eq!(pins(&of(4, Some(Require)).unwrap()), [0, 4, 1, 5]);
    let isolated = of(2, Some(Isolate)).unwrap();
    assert_eq!((pins(&isolated), &isolated.cells[0].idle), (vec![0, 1], &BTreeSet::from([4, 5])));
    assert_eq!(of(5, Some(Isolate)), Err("dedicated CPUs"), "four cores");
    assert_eq!(of(9, None), Err("dedicated CPUs"));
    // One thread of each core is taken.
    let half = Placement {
        cells: vec![PlacedCell { pins: [(0, 0), (1, 1), (2, 2), (3, 3)].into(), ..PlacedCell::default() }],
    };
    let beside = |cpus, policy| place(&host, [&half], &dedicated(cpus, policy));
    assert_eq!(pins(&beside(2, Some(Prefer)).unwrap()), [4, 5]);
    assert_eq!(beside(2, Some(Require)), Err("dedicated CPUs"));
    assert_eq!(beside(1, Some(Isolate)), Err("dedicated CPUs"));
    let single = [HostCell { siblings: Vec::new(), ..cell(0) }];
    assert_eq!(place(&single, [], &dedicated(2, Some(Require))), Err("dedicated CPUs"), "no threads at all");
    assert_eq!(pins(&place(&single, [], &dedicated(2, Some(Isolate))).unwrap()), [0, 1]);
}

#[test]
fn nothing_is_given_twice_until_cells_are_full() {
    let host = [cell(0), cell(1)];
    let mut held: Vec<Placement> = Vec::new();
    for _ in 0..5 {
        let placement = place(&host, &held, &dedicated(3, None)).unwrap();
        held.push(placement);
        if held.len() == 4 {
            break;
        }
    }
    assert_eq!(place(&host, &held, &dedicated(3, None)), Err("dedicated CPUs"), "two are left in each cell");
    held.push(place(&host, &held, &dedicated(2, None)).unwrap());
    held.push(place(&host, &held, &dedicated(2, None)).unwrap());
    let all: BTreeSet<u32> = held.iter().flat_map(pins).collect();
    assert_eq!((all.len(), held.iter().flat_map(pins).count()), (16, 16));
    assert!(conflicts(&host, held.iter().map(|held| (0, held))).is_empty());
    held.remove(0);
    assert_eq!(pins(&place(&host, &held, &dedicated(3, None)).unwrap()).len(), 3);
}

#[test]
fn two_cells_of_a_guest_go_to_two_of_the_host() {
    let two = GuestTopology {
        cells: vec![
            GuestCell { cpus: [0].into(), memory_mb: 256 },
            GuestCell { cpus: [1, 2, 3].into(), memory_mb: 256 },
        ],
        ..dedicated(4, None)
    };
    assert_eq!(place(&[cell(0)], [], &two), Err("NUMA cells"));
    // Cell 0 has room for one CPU only, so the guest's first goes there and the second to cell 1.
    let full = place(&[cell(0)], [], &dedicated(7, None)).unwrap();
    let placed = place(&[cell(0), cell(1)], [&full], &two).unwrap();
    assert_eq!(placed.cells.iter().map(|cell| cell.host_cell).collect::<Vec<_>>(), [0, 1]);
    let turned = GuestTopology { cells: two.cells.iter().rev().cloned().collect(), ..two };
    let placed = place(&[cell(0), cell(1)], [&full], &turned).unwrap();
    assert_eq!(placed.cells.iter().map(|cell| cell.host_cell).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn memory_comes_from_the_pages_that_were_asked_for() {
    let host = [HostCell { shared_cpus: (0..4).collect(), ..cell(0) }];
    let asks = |pages, memory_mb| GuestTopology {
        cells: vec![GuestCell { cpus: [0].into(), memory_mb }],
        pages,
        ..GuestTopology::default()
    };
    let of = |pages, memory_mb| place(&host, [], &asks(pages, memory_mb)).map(|placed| placed.cells[0].page_kb);
    assert_eq!(of(None, 4096), Ok(None));
    assert_eq!(of(Some(PageSize::Small), 4097), Err("memory of a NUMA cell"));
    assert_eq!(of(Some(PageSize::Large), 1024), Ok(Some(1 << 20)));
    assert_eq!(of(Some(PageSize::Large), 512), Ok(Some(2048)));
    assert_eq!(of(Some(PageSize::Large), 511), Err("huge pages"), "not a whole number of them");
    assert_eq!(of(Some(PageSize::Any), 511), Ok(None));
    assert_eq!(of(Some(PageSize::Kib(2048)), 1024), Ok(Some(2048)));
    assert_eq!(of(Some(PageSize::Kib(2048)), 1026), Err("huge pages"));
    assert_eq!(of(Some(PageSize::Kib(4)), 511), Ok(None));
    let first = place(&host, [], &asks(Some(PageSize::Kib(2048)), 1000)).unwrap();
    assert_eq!(first.cells[0].floats, (0..4).collect());
    assert_eq!(place(&host, [&first], &asks(Some(PageSize::Kib(2048)), 26)), Err("huge pages"));
    place(&host, [&first], &asks(Some(PageSize::Kib(2048)), 24)).unwrap();
    let shared = GuestTopology { cells: vec![GuestCell { cpus: (0..5).collect(), memory_mb: 1 }], ..asks(None, 1) };
    assert_eq!(place(&host, [], &shared), Err("CPUs of a NUMA cell"));
}

#[test]
fn a_cpu_of_two_guests_or_of_nobody_is_found() {
    let pinned = |cpu| Placement { cells: vec![PlacedCell { pins: [(0, cpu)].into(), ..PlacedCell::default() }] };
    let (a, b, c) = (pinned(1), pinned(1), pinned(99));
    assert_eq!(conflicts(&[cell(0)], [('a', &a), ('b', &b), ('c', &c)]), [(1, vec!['a', 'b']), (99, vec!['c'])]);
}

fn sharing(cpus: u32, memory_mb: u64) -> GuestTopology {
    GuestTopology { cells: vec![GuestCell { cpus: (0..cpus).collect(), memory_mb }], ..GuestTopology::default() }
}

/// nova/virt/hardware.py, `_numa_fit_instance_cell`: per cell as often as the ratios say.
#[test]
fn guests_that_share_are_spread_over_cells_and_none_is_oversold() {
    let shared =
        |id| HostCell { shared_cpus: (id * 8..id * 8 + 8).collect(), dedicated_cpus: BTreeSet::new(), ..cell(id) };
    let cells = [shared(0), shared(1)];
    let fill = |cpu_ratio, ram_ratio, guest: &GuestTopology| {
        let mut held: Vec<Placement> = Vec::new();
        let no = loop {
            match super::place(HostCells { cells: &cells, cpu_ratio, ram_ratio }, &held, guest) {
                Ok(placed) => held.push(placed),
                Err(no) => break no,
            }
        };
        let on = |id| held.iter().filter(|placed| placed.cells[0].host_cell == id).count();
        ((on(0), on(1)), no)
    };
    assert_eq!(fill(1.0, 1.0, &sharing(4, 64)), ((2, 2), "CPUs of a NUMA cell"));
    assert_eq!(fill(2.5, 1.0, &sharing(4, 64)), ((5, 5), "CPUs of a NUMA cell"));
    assert_eq!(fill(9.0, 1.0, &sharing(1, 1024)), ((4, 4), "memory of a NUMA cell"));
    assert_eq!(fill(9.0, 1.5, &sharing(1, 1024)), ((6, 6), "memory of a NUMA cell"));
}

/// Equal cells in another order are no other way, so that a guest with many is answered at once.
#[test]
fn many_cells_are_laid_without_trying_every_order() {
    let host: Vec<HostCell> = (0..8).map(cell).collect();
    let equal = |count: u32| {
        let cell = |n: u32| GuestCell { cpus: [n].into(), memory_mb: 64 };
        GuestTopology { cells: (0..count).map(cell).collect(), cpu_policy: CpuPolicy::Dedicated, ..sharing(1, 1) }
    };
    assert_eq!(place(&host, [], &equal(9)), Err("NUMA cells"));
    assert_eq!(place(&host, [], &equal(8)).unwrap().cells.len(), 8);
    let full = place(&host[..1], [], &dedicated(8, None)).unwrap();
    assert_eq!(place(&host, [&full], &equal(8)), Err("dedicated CPUs"));
    let free: Vec<Free<'_>> = host.iter().skip(1).map(|cell| Free::all(&sold_once(&host), cell)).collect();
    let guest = equal(8);
    let (tries, placed) = (MOST_TRIES, Vec::new());
    let mut search = Search { free: &free, guest: &guest, missing: "", tries, placed, last: Vec::new() };
    assert!(!search.lay(&mut vec![false; free.len()]));
    assert!(MOST_TRIES - search.tries < 200, "{} ways were tried", MOST_TRIES - search.tries);
}
