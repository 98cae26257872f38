//! Records of moves at the versions around each change.

use nova_core::ids::{MigrationId, TaskId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType, Progress};
use nova_core::state::TaskState;
use nova_db::TaskStart;
use serde_json::{Value, json};

use super::Migrations;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, keys};

/// A server that migrates while it runs.
async fn bench() -> (Bench, Instance, Migration) {
    let bench = Bench::new(Migrations::new);
    let mut instance = bench.instance(DEMO, Some("h1")).await;
    let mut task = bench.api.store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    let mut action = bench.api.store.list_actions(instance.id).await.unwrap().remove(0);
    (task.id, action.action) = (TaskId::generate(&*bench.api.entropy), "live-migration".to_owned());
    action.request_id = nova_core::ids::RequestId::generate(&*bench.api.entropy);
    task.context.request_id = action.request_id.clone();
    let migration = Migration {
        uuid: MigrationId::generate(&*bench.api.entropy),
        id: 0,
        instance_id: instance.id,
        project_id: instance.project_id.clone(),
        user_id: instance.user_id.clone(),
        migration_type: MigrationType::LiveMigration,
        status: MigrationStatus::Running,
        source_compute: "h1".into(),
        source_node: Some("n1".into()),
        source_zone: None,
        dest_compute: Some("h2".into()),
        dest_node: Some("n2".into()),
        dest_host: Some("192.0.2.2".into()),
        old_flavor: instance.flavor.clone(),
        new_flavor: instance.flavor.clone(),
        old_vm_state: instance.vm_state,
        ordered_of: None,
        aborted: false,
        answers: Default::default(),
        progress: Some(Progress { memory_total: 9, memory_processed: 4, memory_remaining: 5, ..Progress::default() }),
        created_at: bench.now(),
        updated_at: Some(bench.now()),
        generation: 0,
    };
    (instance.task_state, instance.launched_at) = (Some(TaskState::Migrating), Some(bench.now()));
    let uuid = migration.uuid;
    let start = TaskStart { migration: Some(migration), ..TaskStart::of(instance, action, task) };
    let instance = bench.api.store.start_task(start).await.unwrap();
    let migration = bench.api.store.get_migration(uuid).await.unwrap();
    (bench, instance, migration)
}

#[tokio::test]
async fn records_have_the_keys_of_their_version() {
    let (bench, instance, migration) = bench().await;
    let one = async |minor| bench.get(ADMIN, minor, "/os-migrations").await["migrations"][0].clone();
    let mut expected = vec![
        "created_at",
        "dest_compute",
        "dest_host",
        "dest_node",
        "id",
        "instance_uuid",
        "new_instance_type_id",
        "old_instance_type_id",
        "source_compute",
        "source_node",
        "status",
        "updated_at",
    ];
    assert_eq!(keys(&one(22).await), expected);
    expected.extend(["links", "migration_type"]);
    expected.sort_unstable();
    assert_eq!(keys(&one(23).await), expected);
    assert_eq!(one(23).await["migration_type"], "live-migration");
    assert_eq!(one(59).await["uuid"], json!(migration.uuid));
    assert!(one(79).await.get("project_id").is_none());
    let newest = one(80).await;
    assert_eq!((&newest["project_id"], &newest["instance_uuid"]), (&json!("p-demo"), &json!(instance.id)));
    assert_eq!((&newest["source_compute"], &newest["dest_node"]), (&json!("h1"), &json!("n2")));
}

#[tokio::test]
async fn lists_are_narrowed_and_turned() {
    let (bench, instance, migration) = bench().await;
    let count = async |minor, query: &str| {
        let body = bench.get(ADMIN, minor, &format!("/os-migrations?{query}")).await;
        body["migrations"].as_array().unwrap().len()
    };
    for (query, found) in [
        ("status=running", 1),
        ("status=nonsense", 0),
        ("migration_type=resize", 0),
        ("migration_type=nonsense", 0),
        ("host=h2", 1),
        ("source_compute=h2", 0),
    ] {
        assert_eq!(count(1, query).await, found, "{query}");
        assert_eq!(count(104, query).await, found, "{query}");
    }
    assert_eq!(count(80, &format!("instance_uuid={}&user_id=u-demo", instance.id)).await, 1);
    let page = bench.get(ADMIN, 59, "/os-migrations?limit=1").await;
    let next = page["migrations_links"][0]["href"].as_str().unwrap().to_owned();
    assert!(next.contains(&migration.uuid.to_string()), "{next}");
    assert_eq!(count(59, &format!("marker={}", migration.uuid)).await, 0);
    for (minor, query) in
        [(59, "limit=-1"), (59, "marker=nope"), (59, "changes-since=x"), (65, "changes-before=x"), (59, "x=1")]
    {
        let (status, text) = bench.refused(ADMIN, minor, &format!("GET /os-migrations?{query}"), Value::Null).await;
        assert_eq!(status, 400, "{query}: {text}");
    }
    assert_eq!(bench.refused(DEMO, 104, "GET /os-migrations", Value::Null).await.0, 403);
}

#[tokio::test]
async fn a_live_migration_is_seen_and_ended() {
    let (bench, instance, migration) = bench().await;
    let all = format!("/servers/{}/migrations", instance.id);
    let one = format!("{all}/{}", migration.id);
    assert_eq!(bench.refused(ADMIN, 22, &format!("GET {all}"), Value::Null).await.0, 404, "since 2.23");
    let seen = bench.get(ADMIN, 23, &all).await["migrations"][0].clone();
    assert_eq!((&seen["memory_total_bytes"], &seen["disk_total_bytes"]), (&json!(9), &json!(0)));
    assert_eq!(bench.get(ADMIN, 23, &one).await["migration"]["server_uuid"], json!(instance.id));
    assert_eq!(bench.refused(DEMO, 104, &format!("GET {one}"), Value::Null).await.0, 403);
    let action = format!("POST {one}/action");
    assert_eq!(bench.refused(ADMIN, 22, &action, json!({"forced": null})).await.0, 400);
    assert_eq!(bench.call(ADMIN, 22, &action, json!({"force_complete": null})).await.0, 202);
    assert_eq!(bench.call(ADMIN, 24, &format!("DELETE {one}"), Value::Null).await.0, 202);
    let aborted = bench.api.store.get_migration(migration.uuid).await.unwrap();
    assert!(aborted.aborted);
    let actions = bench.api.store.list_actions(instance.id).await.unwrap();
    assert!(actions.iter().any(|action| action.action == "live_migration_cancel"), "{actions:?}");
    let over = Migration { status: MigrationStatus::Completed, ..aborted };
    bench.api.store.update_migration(over, None).await.unwrap();
    for line in [format!("GET {one}"), format!("GET {all}/77")] {
        assert_eq!(bench.refused(ADMIN, 104, &line, Value::Null).await.0, 404, "{line}");
    }
    let (status, text) = bench.refused(ADMIN, 104, &format!("DELETE {one}"), Value::Null).await;
    assert_eq!((status, text.contains("is completed. Cannot abort live migration")), (400, true), "{text}");
}
