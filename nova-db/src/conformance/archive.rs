//! Archiving, and what else the whole store does.

use std::sync::Arc;

use nova_core::ids::HostName;

use super::fixtures::{FREE, Make, at, claim, deleted};
use crate::{Deleted, InstanceQuery, Store, StoreError, TaskCommit};

/// Only what was deleted before goes, oldest first, and all that hangs on it.
pub async fn old_deleted_instances_are_archived(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let mut made = Vec::new();
    for seconds in [30, 10, 20] {
        let (instance, task) = make.building(&**store).await;
        let commit = TaskCommit { instance: Some(deleted(&instance, seconds)), ..claim(&task, &instance, "h1") };
        store.commit_task(commit).await.unwrap();
        made.push(instance);
    }
    let live = make.created(&**store, make.instance("project")).await;
    assert_eq!(store.archive_deleted(at(10), 10).await.unwrap(), 0, "before means before");
    assert_eq!(store.archive_deleted(at(30), 1).await.unwrap(), 1);
    assert!(matches!(store.get_instance(made[1].id).await, Err(StoreError::NotFound { .. })));
    assert!(store.get_instance(made[2].id).await.is_ok());
    assert_eq!(store.archive_deleted(at(30), 10).await.unwrap(), 1);
    let all = InstanceQuery { deleted: Deleted::Any, ..InstanceQuery::default() };
    let mut left: Vec<_> = store.list_instances(&all).await.unwrap().into_iter().map(|i| i.id).collect();
    left.sort();
    let mut expected = vec![made[0].id, live.id];
    expected.sort();
    assert_eq!(left, expected);
    for gone in [&made[1], &made[2]] {
        assert_eq!(store.list_actions(gone.id).await.unwrap(), []);
        assert_eq!(store.list_tasks(Some(gone.id)).await.unwrap(), []);
    }
    assert_eq!(store.node_of_host(&HostName::from("h1")).await.unwrap().allocations, 1);
    let again = make.request_of(vec![made[1].clone()], FREE);
    assert_eq!(store.create_instances(again).await.unwrap().len(), 1, "its request is forgotten too");
}

/// A store that is open answers, has the schema that is needed, and migrates again without effect.
pub async fn open_store_is_healthy(store: &Arc<dyn Store>) {
    store.ping().await.unwrap();
    let (found, needed) = store.schema_version().await.unwrap();
    assert_eq!(found, needed);
    let make = Make::new();
    let instance = make.created(&**store, make.instance("p")).await;
    store.migrate().await.unwrap();
    assert_eq!(store.get_instance(instance.id).await.unwrap(), instance);
    assert!(["memory", "sqlite", "postgresql", "mysql"].contains(&store.backend()));
}
