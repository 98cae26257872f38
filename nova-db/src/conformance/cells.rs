//! Cells, CPUs and pages: given out at the booking, never twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::task::Task;
use nova_core::topology::{CpuPolicy, GuestCell, GuestTopology, HostCell, HugePages, PageSize};

use super::fixtures::{Make, booking, claim};
use super::races::all_at_once;
use crate::{Booking, Store, StoreError, TaskCommit};

const RACERS: usize = 16;

/// A node with two cells, each of so many dedicated CPUs and 4 huge pages.
fn node(make: &Make, host: &str, cpus: u32) -> ComputeNode {
    let cell = |id: u32| HostCell {
        id,
        dedicated_cpus: (id * cpus..(id + 1) * cpus).collect(),
        memory_mb: 1 << 20,
        huge_pages: vec![HugePages { size_kb: 2048, count: 4 }],
        ..HostCell::default()
    };
    let mut node = make.node(host, 1 << 20);
    node.facts.cells = vec![cell(0), cell(1)];
    node
}

fn asks(cpus: u32, memory_mb: u64, pages: Option<PageSize>) -> GuestTopology {
    let cells = vec![GuestCell { cpus: (0..cpus).collect(), memory_mb }];
    GuestTopology { cells, cpu_policy: CpuPolicy::Dedicated, thread_policy: None, pages }
}

fn with(task: &Task, instance: &Instance, host: &str, topology: GuestTopology) -> TaskCommit {
    let book = Booking { topology: Some(topology), ..booking(instance, host) };
    TaskCommit { book: Some(book), ..TaskCommit::of(task.clone()) }
}

fn own_cpus(allocations: &[Allocation]) -> Vec<u32> {
    allocations.iter().filter_map(|a| a.placement.as_ref()).flat_map(|placement| placement.own_cpus()).collect()
}

/// A booking that asks for CPUs gets some and says which; the same again keeps them, giving back frees them.
pub async fn cpus_are_given_out_at_the_booking(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(node(&make, "h1", 2)).await.unwrap();
    let (first, task) = make.building(&**store).await;
    let booked = store.commit_task(with(&task, &first, "h1", asks(2, 512, None))).await.unwrap();
    let placement = booked.booked.clone().unwrap().placement.unwrap();
    assert_eq!(placement.own_cpus().collect::<Vec<_>>(), [0, 1]);
    let held = store.list_allocations(None).await.unwrap();
    assert_eq!(held, [booked.booked.unwrap()]);
    let again = store.commit_task(with(&booked.task, &first, "h1", asks(2, 512, None))).await.unwrap();
    assert_eq!(again.booked.unwrap().placement, Some(placement.clone()));

    let (second, other) = make.building(&**store).await;
    let booked = store.commit_task(with(&other, &second, "h1", asks(2, 512, None))).await.unwrap();
    assert_eq!(booked.booked.unwrap().placement.unwrap().own_cpus().collect::<Vec<_>>(), [2, 3]);
    let (third, late) = make.building(&**store).await;
    let refused = store.commit_task(with(&late, &third, "h1", asks(1, 512, None))).await.unwrap_err();
    assert!(matches!(&refused, StoreError::NoRoom { resource: "dedicated CPUs", .. }), "{refused:?}");
    // Nothing was written, not even the amounts; who asks for no CPU of its own is not concerned.
    assert_eq!(store.node_of_host(&HostName::from("h1")).await.unwrap().allocations, 2);
    let plain = store.commit_task(claim(&late, &third, "h1")).await.unwrap();
    assert_eq!(plain.booked.unwrap().placement, None);

    let release = vec![HostName::from("h1")];
    store.commit_task(TaskCommit { release, ..TaskCommit::of(again.task) }).await.unwrap();
    let (fourth, task) = make.building(&**store).await;
    let booked = store.commit_task(with(&task, &fourth, "h1", asks(2, 512, None))).await.unwrap();
    assert_eq!(booked.booked.unwrap().placement, Some(placement));
}

/// Huge pages are counted cell by cell.
pub async fn huge_pages_are_given_out_once(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(node(&make, "h1", 8)).await.unwrap();
    let mut full = 0;
    for _ in 0..4 {
        let (instance, task) = make.building(&**store).await;
        // 3 of the 4 pages of a cell.
        match store.commit_task(with(&task, &instance, "h1", asks(1, 6, Some(PageSize::Large)))).await {
            Ok(_) => {}
            Err(StoreError::NoRoom { resource: "huge pages", .. }) => full += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    let held = store.list_allocations(None).await.unwrap();
    let cells: BTreeSet<u32> =
        held.iter().flat_map(|a| &a.placement.as_ref().unwrap().cells).map(|c| c.host_cell).collect();
    assert_eq!((full, held.len(), cells), (2, 2, BTreeSet::from([0, 1])));
}

/// Many want the last CPUs at once: each goes to one, and the others are told that there is none.
pub async fn no_cpu_is_given_out_twice(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(node(&make, "h1", 3)).await.unwrap();
    let mut commits = Vec::new();
    for _ in 0..RACERS {
        let (instance, task) = make.building(&**store).await;
        commits.push(with(&task, &instance, "h1", asks(1, 1, None)));
    }
    let answers = all_at_once(commits, |commit| {
        let store = Arc::clone(store);
        async move { store.commit_task(commit).await }
    })
    .await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused = |answer: &Result<_, StoreError>| {
        matches!(answer, Ok(_) | Err(StoreError::NoRoom { resource: "dedicated CPUs", .. }))
    };
    assert!(answers.iter().all(refused), "{:?}", answers.iter().find(|answer| !refused(answer)));
    let mut cpus = own_cpus(&store.list_allocations(None).await.unwrap());
    cpus.sort_unstable();
    assert_eq!((won, cpus), (6, (0..6).collect()));
}
