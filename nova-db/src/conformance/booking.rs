//! Booking and giving back of resources.

use std::sync::Arc;

use nova_core::flavor::Resources;
use nova_core::host::ComputeNode;
use nova_core::ids::HostName;

use super::fixtures::{Make, active, booking, claim, deleted};
use crate::{Booking, Kind, Store, StoreError, TaskCommit};

async fn node(store: &dyn Store, host: &str) -> ComputeNode {
    store.node_of_host(&HostName::from(host)).await.unwrap()
}

/// Booking raises the node's use and generation; giving back lowers it.
pub async fn booking_is_counted_on_the_node(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let fresh = store.put_node(make.node("h1", 4096)).await.unwrap();
    let committed = store.commit_task(claim(&task, &instance, "h1")).await.unwrap();
    let booked = node(&**store, "h1").await;
    assert_eq!((booked.used, booked.allocations), (Resources { vcpus: 1, memory_mb: 512, disk_gb: 1 }, 1));
    assert_eq!(booked.generation, fresh.generation + 1);
    assert_eq!(committed.nodes, [(HostName::from("h1"), booked.version())]);
    let release = vec![HostName::from("h1"), HostName::from("nowhere")];
    let released = store.commit_task(TaskCommit { release, ..TaskCommit::of(committed.task) }).await.unwrap();
    let free = node(&**store, "h1").await;
    assert_eq!(released.nodes, [(HostName::from("h1"), free.version())], "what was not there is not told");
    assert_eq!((free.used, free.allocations), (Resources::default(), 0));
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
}

/// The same booking again changes nothing; another amount takes its place.
pub async fn booking_may_be_repeated(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    store.put_node(make.node("h1", 1024)).await.unwrap();
    let task = store.commit_task(claim(&task, &instance, "h1")).await.unwrap().task;
    let once = node(&**store, "h1").await;
    let again = store.commit_task(claim(&task, &instance, "h1")).await.unwrap();
    assert_eq!(again.nodes, []);
    let task = again.task;
    assert_eq!(node(&**store, "h1").await, once);
    let mut larger = booking(&instance, "h1");
    larger.allocation.resources.memory_mb = 1024;
    store.commit_task(TaskCommit { book: Some(larger), ..TaskCommit::of(task) }).await.unwrap();
    let node = node(&**store, "h1").await;
    assert_eq!((node.used.memory_mb, node.allocations), (1024, 1));
}

/// Whoever is on a host and holds less from now on asks for nothing: neither for room, nor for leave of its zone.
pub async fn giving_back_asks_for_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let roomy = store.put_node(make.node("h1", 1024)).await.unwrap();
    let mut large = booking(&instance, "h1");
    large.allocation.resources.memory_mb = 1024;
    let task = store.commit_task(TaskCommit { book: Some(large), ..TaskCommit::of(task) }).await.unwrap().task;
    let now = node(&**store, "h1").await;
    let mut shrunk = now.clone();
    shrunk.inventory.total.memory_mb = 100;
    store.put_node(shrunk).await.unwrap();
    assert_eq!(roomy.host, now.host);
    let small = Booking { zone: Some("elsewhere".into()), ..booking(&instance, "h1") };
    store.commit_task(TaskCommit { book: Some(small), ..TaskCommit::of(task) }).await.unwrap();
    let node = node(&**store, "h1").await;
    assert_eq!((node.used.memory_mb, node.allocations), (512, 1));
}

/// A host without room is told with what it lacks; nothing of the commit is written.
pub async fn no_room_leaves_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    store.put_node(make.node("h1", 511)).await.unwrap();
    let mut written = task.clone();
    written.owner = Some("someone".into());
    let commit = TaskCommit { instance: Some(active(&instance, "h1")), ..claim(&written, &instance, "h1") };
    let error = store.commit_task(commit).await.unwrap_err();
    assert!(matches!(&error, StoreError::NoRoom { host, resource: "memory_mb" } if host == "h1"), "{error:?}");
    assert_eq!(store.get_task(task.id).await.unwrap(), task);
    assert_eq!(store.get_instance(instance.id).await.unwrap(), instance);
    assert_eq!(node(&**store, "h1").await.used, Resources::default());
}

/// A host that never reported has no room.
pub async fn unknown_host_has_no_room(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let error = store.commit_task(claim(&task, &instance, "h1")).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { resource: "node", .. }), "{error:?}");
}

/// What one gives back, another may take in the same commit.
pub async fn release_makes_room_first(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    store.put_node(make.node("h1", 512)).await.unwrap();
    store.put_node(make.node("h2", 512)).await.unwrap();
    let task = store.commit_task(claim(&task, &instance, "h1")).await.unwrap().task;
    let release = vec![HostName::from("h1")];
    let task = store.commit_task(TaskCommit { release, ..claim(&task, &instance, "h2") }).await.unwrap().task;
    let held: Vec<_> = store.list_allocations(None).await.unwrap().into_iter().map(|a| a.host.to_string()).collect();
    assert_eq!(held, ["h2"]);
    let release = vec![HostName::from("h2")];
    store.commit_task(TaskCommit { release, ..claim(&task, &instance, "h2") }).await.unwrap();
    assert_eq!(node(&**store, "h2").await.allocations, 1);
}

/// Allocations are listed by host and instance, of one host or all.
pub async fn allocations_are_listed_in_order(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut expected = Vec::new();
    for host in ["h2", "h1", "h2"] {
        let (instance, task) = make.building(&**store).await;
        store.put_node(make.node(host, 4096)).await.unwrap();
        store.commit_task(claim(&task, &instance, host)).await.unwrap();
        expected.push((host.to_owned(), instance.id));
    }
    expected.sort();
    let listed = |host: Option<HostName>| async move {
        let all = store.list_allocations(host.as_ref()).await.unwrap();
        all.into_iter().map(|a| (a.host.to_string(), a.instance_id)).collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await, expected);
    assert_eq!(listed(Some(HostName::from("h2"))).await, expected[1..]);
}

/// Repair gives back what no live instance needs, and refuses what one does.
pub async fn needed_allocation_is_not_deleted(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let host = HostName::from("h1");
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let commit = TaskCommit { instance: Some(active(&instance, "h1")), ..claim(&task, &instance, "h1") };
    let running = store.commit_task(commit).await.unwrap().instance.unwrap();
    let error = store.delete_allocation(instance.id, &host).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Allocation, .. }), "{error:?}");
    store.update_instance(deleted(&running, 9)).await.unwrap();
    store.delete_allocation(instance.id, &host).await.unwrap();
    assert_eq!(node(&**store, "h1").await.used, Resources::default());
    let error = store.delete_allocation(instance.id, &host).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Allocation, .. }), "{error:?}");
}
