//! Repair of the accounts.

use std::sync::Arc;

use nova_core::ids::{HostName, ProjectId};
use nova_core::quota::Usage;

use super::fixtures::{Make, active, booking, claim, deleted};
use crate::{Store, TaskCommit};

/// Accounts that are right are left alone: also those of what is under way.
pub async fn right_accounts_are_left_alone(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let (instance, task) = make.building(&**store).await;
    store.commit_task(claim(&task, &instance, "h1")).await.unwrap();
    let (running, task) = make.building(&**store).await;
    let commit = TaskCommit { done: true, instance: Some(active(&running, "h1")), ..claim(&task, &running, "h1") };
    store.commit_task(commit).await.unwrap();
    let commits = store.commits();
    assert_eq!(store.rebuild_accounts().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.commits(), commits);
}

/// Allocations that are missing, left over or of the wrong size are put right, and the node with them.
pub async fn wrong_allocations_are_put_right(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    // Running, but booked too small.
    let (small, task) = make.building(&**store).await;
    let mut book = booking(&small, "h1");
    book.allocation.resources.memory_mb = 1;
    let commit =
        TaskCommit { instance: Some(active(&small, "h1")), book: Some(book), done: true, ..TaskCommit::of(task) };
    store.commit_task(commit).await.unwrap();
    // Running, but not booked.
    let (missing, task) = make.building(&**store).await;
    let commit = TaskCommit { instance: Some(active(&missing, "h1")), done: true, ..TaskCommit::of(task) };
    store.commit_task(commit).await.unwrap();
    // Deleted, but still booked.
    let (gone, task) = make.building(&**store).await;
    let commit = TaskCommit { instance: Some(deleted(&gone, 3)), done: true, ..claim(&task, &gone, "h1") };
    store.commit_task(commit).await.unwrap();
    let changes = store.rebuild_accounts().await.unwrap();
    for id in [small.id, missing.id, gone.id] {
        assert!(changes.iter().any(|line| line.contains(&id.to_string())), "{id}: {changes:?}");
    }
    let held = store.list_allocations(None).await.unwrap();
    assert_eq!(held.len(), 2);
    assert!(held.iter().all(|a| a.resources.memory_mb == 512 && a.instance_id != gone.id));
    let node = store.node_of_host(&HostName::from("h1")).await.unwrap();
    assert_eq!((node.used.memory_mb, node.allocations), (1024, 2));
    assert_eq!(store.rebuild_accounts().await.unwrap(), Vec::<String>::new(), "twice equals once");
    let usage = store.usage(&ProjectId::from("project")).await.unwrap();
    assert_eq!(usage, Usage { instances: 2, cores: 2, ram: 1024 });
}
