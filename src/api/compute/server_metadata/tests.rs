//! Labels of servers.

use nova_core::quota::{QuotaLimits, QuotaOwner};
use nova_core::state::{LockedBy, TaskState, VmState};
use serde_json::{Map, Value, json};

use super::ServerMetadata;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, READER};

async fn bench() -> (Bench, String) {
    let bench = Bench::new(ServerMetadata::new);
    let id = bench.instance(DEMO, Some("h1")).await.id.to_string();
    bench.touch(&id, |instance| instance.launched_at = Some(instance.created_at)).await;
    (bench, format!("/servers/{id}/metadata"))
}

async fn call(bench: &Bench, line: String, body: Value) -> (u16, Value) {
    bench.call(DEMO, 1, &line, body).await
}

#[tokio::test]
async fn labels_are_merged_replaced_and_removed() {
    let (bench, path) = bench().await;
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"metadata": {}}));
    let made = call(&bench, format!("POST {path}"), json!({"metadata": {"a": "1", "b": "2"}})).await;
    assert_eq!(made, (200, json!({"metadata": {"a": "1", "b": "2"}})));
    let merged = call(&bench, format!("POST {path}"), json!({"metadata": {"b": "3", "c": ""}})).await;
    assert_eq!(merged, (200, json!({"metadata": {"a": "1", "b": "3", "c": ""}})));
    let one = call(&bench, format!("PUT {path}/d"), json!({"meta": {"d": "4"}})).await;
    assert_eq!(one, (200, json!({"meta": {"d": "4"}})));
    assert_eq!(bench.get(DEMO, 1, &format!("{path}/b")).await, json!({"meta": {"b": "3"}}));
    let replaced = call(&bench, format!("PUT {path}"), json!({"metadata": {"e f": "5"}})).await;
    assert_eq!(replaced, (200, json!({"metadata": {"e f": "5"}})));
    assert_eq!(call(&bench, format!("DELETE {path}/e%20f"), Value::Null).await, (204, Value::Null));
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"metadata": {}}));
    for line in [format!("DELETE {path}/e"), format!("GET {path}/e")] {
        let gone = bench.refused(DEMO, 1, &line, Value::Null).await;
        assert_eq!(gone, (404, "Metadata item was not found".to_owned()));
    }
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let (bench, path) = bench().await;
    let too_long = "k".repeat(256);
    for body in [
        json!({}),
        json!({"metadata": null}),
        json!({"metadata": {"": "x"}}),
        json!({"metadata": {"ü": "x"}}),
        json!({"metadata": {"a": 1}}),
        json!({"metadata": {too_long.clone(): "x"}}),
        json!({"metadata": {"a": too_long.clone()}}),
        json!({"metadata": {}, "more": 1}),
    ] {
        for method in ["POST", "PUT"] {
            assert_eq!(bench.refused(DEMO, 1, &format!("{method} {path}"), body.clone()).await.0, 400, "{body}");
        }
    }
    for body in [json!({"meta": {}}), json!({"meta": {"a": "1", "b": "2"}}), json!({"meta": {"b": "2"}}), json!({})] {
        assert_eq!(bench.refused(DEMO, 1, &format!("PUT {path}/a"), body.clone()).await.0, 400, "{body}");
    }
    let mismatch = bench.refused(DEMO, 1, &format!("PUT {path}/a"), json!({"meta": {"b": "2"}})).await;
    assert_eq!(mismatch.1, "Request body and URI mismatch");
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"metadata": {}}));
}

#[tokio::test]
async fn labels_are_limited_by_quota() {
    let (bench, path) = bench().await;
    let labels = |count: usize| -> Value {
        let all: Map<String, Value> = (0..count).map(|number| (format!("k{number}"), json!("v"))).collect();
        json!({ "metadata": all })
    };
    let over = (403, "Maximum number of metadata items exceeds 128".to_owned());
    assert_eq!(bench.refused(DEMO, 1, &format!("PUT {path}"), labels(129)).await, over);
    assert_eq!(call(&bench, format!("PUT {path}"), labels(128)).await.0, 200);
    assert_eq!(bench.refused(DEMO, 1, &format!("POST {path}"), json!({"metadata": {"one": "more"}})).await, over);
    let project = QuotaOwner::Project("p-demo".into());
    let two = QuotaLimits::from([("metadata_items".to_owned(), 2)]);
    bench.api.store.set_quotas(project, two).await.unwrap();
    let over = (403, "Maximum number of metadata items exceeds 2".to_owned());
    assert_eq!(bench.refused(ADMIN, 1, &format!("PUT {path}"), labels(3)).await, over);
    assert_eq!(call(&bench, format!("PUT {path}"), labels(2)).await.0, 200);
}

#[tokio::test]
async fn states_locks_and_policy_are_asked() {
    let (bench, path) = bench().await;
    let id = path.split('/').nth(2).unwrap().to_owned();
    let post = format!("POST {path}");
    let body = json!({"metadata": {"a": "1"}});
    assert_eq!(bench.refused(OTHER, 1, &post, body.clone()).await.0, 404);
    assert_eq!(bench.refused(OTHER, 1, &format!("GET {path}"), Value::Null).await.0, 404);
    assert_eq!(bench.refused(READER, 1, &post, body.clone()).await.0, 403);
    bench.get(READER, 1, &path).await;
    // A task that runs is no obstacle.
    bench.touch(&id, |instance| instance.task_state = Some(TaskState::Rebooting)).await;
    assert_eq!(call(&bench, post.clone(), body.clone()).await.0, 200);
    bench.touch(&id, |instance| instance.locked = Some(LockedBy::Owner)).await;
    let locked = bench.refused(DEMO, 1, &post, json!({"metadata": {"a": "2"}})).await;
    assert_eq!(locked, (409, format!("Instance {id} is locked")));
    assert_eq!(bench.call(ADMIN, 1, &post, json!({"metadata": {"a": "3"}})).await.0, 200);
    bench
        .touch(&id, |instance| {
            instance.locked = None;
            instance.vm_state = VmState::Error;
        })
        .await;
    let text = format!("Cannot 'update metadata' instance {id} while it is in vm_state error");
    assert_eq!(bench.refused(DEMO, 1, &post, body).await, (409, text));
    let text = format!("Cannot 'delete metadata' instance {id} while it is in vm_state error");
    assert_eq!(bench.refused(DEMO, 1, &format!("DELETE {path}/a"), Value::Null).await, (409, text));
}
