//! Records of moves: written with their tasks.

use std::sync::Arc;

use nova_core::ids::{HostName, MigrationId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::task::{Move, Work};

use super::fixtures::{Make, at};
use crate::{Kind, MigrationQuery, Store, StoreError, TaskCommit, TaskStart};

fn migration(make: &Make, instance: &Instance, source: &str) -> Migration {
    Migration {
        uuid: MigrationId::generate(&make.0),
        id: 0,
        instance_id: instance.id,
        project_id: instance.project_id.clone(),
        user_id: instance.user_id.clone(),
        migration_type: MigrationType::Resize,
        status: MigrationStatus::PreMigrating,
        source_compute: source.into(),
        source_node: Some(source.to_owned()),
        source_zone: None,
        dest_compute: None,
        dest_node: None,
        dest_host: None,
        old_flavor: instance.flavor.clone(),
        new_flavor: instance.flavor.clone(),
        old_vm_state: instance.vm_state,
        ordered_of: None,
        aborted: false,
        answers: [("step".to_owned(), serde_json::json!({"x": [1, null]}))].into(),
        progress: None,
        created_at: at(1),
        updated_at: Some(at(1)),
        generation: 0,
    }
}

/// A server whose task has begun to move it.
async fn moving(make: &Make, store: &dyn Store, source: &str) -> (Instance, Migration) {
    let (instance, _) = make.building(store).await;
    let migration = migration(make, &instance, source);
    let work = Work::Move(Move::ConfirmResize { migration: migration.uuid });
    let start = TaskStart { migration: Some(migration.clone()), ..make.start(&instance, work, true) };
    let instance = store.start_task(start).await.unwrap();
    (instance, store.get_migration(migration.uuid).await.unwrap())
}

/// The begin of a move writes its record, with a number of its own by which it is found.
pub async fn migrations_are_numbered(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, first) = moving(&make, &**store, "h1").await;
    let (_, second) = moving(&make, &**store, "h1").await;
    assert_eq!((first.id, first.generation, second.id), (1, 1, 2));
    assert_eq!(first.answers["step"], serde_json::json!({"x": [1, null]}));
    assert_eq!(store.migration_of_number(2).await.unwrap(), second);
    let unknown = store.migration_of_number(3).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { kind: Kind::Migration, .. }), "{unknown:?}");
}

/// Of two commits that read the same record, the second writes nothing, not even its task.
pub async fn stale_migration_commits_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, read) = moving(&make, &**store, "h1").await;
    let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    let running = Migration { status: MigrationStatus::Migrating, dest_compute: Some("h2".into()), ..read.clone() };
    let commit = TaskCommit { migration: Some(running), ..TaskCommit::of(task) };
    let committed = store.commit_task(commit.clone()).await.unwrap();
    let written = committed.migration.unwrap();
    assert_eq!((written.generation, written.status), (2, MigrationStatus::Migrating));
    let late = TaskCommit { task: committed.task.clone(), migration: Some(read.clone()), ..commit };
    let error = store.commit_task(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Migration, .. }), "{error:?}");
    assert_eq!(store.get_task(committed.task.id).await.unwrap(), committed.task);
    assert!(matches!(store.update_migration(read, None).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.get_migration(written.uuid).await.unwrap(), written);
}

/// A deletion ends the move that its task was in.
pub async fn superseded_task_ends_its_migration(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, open) = moving(&make, &**store, "h1").await;
    assert!(open.is_open());
    store.start_task(make.start(&instance, Work::Delete, true)).await.unwrap();
    assert_eq!(store.get_migration(open.uuid).await.unwrap().status, MigrationStatus::Error);
}

/// Every condition narrows the list; pages make it up, newest first.
pub async fn migrations_are_found(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut all = Vec::new();
    for source in ["h1", "h2", "h1"] {
        all.push(moving(&make, &**store, source).await.1);
    }
    let to_h2 = Migration { dest_compute: Some("h2".into()), updated_at: Some(at(9)), ..all[0].clone() };
    all[0] = store.update_migration(to_h2, None).await.unwrap();
    let done = Migration { status: MigrationStatus::Confirmed, ..all[2].clone() };
    all[2] = store.update_migration(done, None).await.unwrap();
    let any = MigrationQuery::default;
    let host = |name: &str| Some(HostName::new(name));
    let cases = [
        (any(), vec![2, 1, 0]),
        (MigrationQuery { instance: Some(all[1].instance_id), ..any() }, vec![1]),
        (MigrationQuery { host: host("h2"), ..any() }, vec![1, 0]),
        (MigrationQuery { source_compute: host("h1"), ..any() }, vec![2, 0]),
        (MigrationQuery::open(), vec![1, 0]),
        (MigrationQuery { statuses: Some(Vec::new()), ..any() }, vec![]),
        (MigrationQuery { migration_type: Some(MigrationType::Evacuation), ..any() }, vec![]),
        (MigrationQuery { project_id: Some(all[0].project_id.clone()), ..any() }, vec![2, 1, 0]),
        (MigrationQuery { user_id: Some("nobody".into()), ..any() }, vec![]),
        (MigrationQuery { changed_since: Some(at(5)), ..any() }, vec![0]),
        (MigrationQuery { changed_before: Some(at(5)), ..any() }, vec![2, 1]),
        (MigrationQuery { limit: Some(2), ..any() }, vec![2, 1]),
        (MigrationQuery { after: Some(all[1].uuid), limit: Some(2), ..any() }, vec![0]),
    ];
    for (query, expected) in cases {
        let found = store.list_migrations(&query).await.unwrap();
        let expected: Vec<Migration> = expected.into_iter().map(|one: usize| all[one].clone()).collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let unknown = MigrationQuery { after: Some(MigrationId::generate(&make.0)), ..any() };
    assert!(matches!(store.list_migrations(&unknown).await, Err(StoreError::NotFound { .. })));
}
