//! Actions at the versions around each change.

use nova_core::instance::Instance;
use nova_db::{Deleted, InstanceQuery, TaskStart};
use serde_json::{Value, json};

use super::InstanceActions;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, keys};

/// A server with a finished `create`, one event on it, and a `reboot` an hour later.
async fn bench() -> (Bench, Instance) {
    let bench = Bench::new(InstanceActions::new);
    let instance = bench.instance(DEMO, Some("h1")).await;
    bench.pass(3600);
    let mut task = bench.api.store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    let mut action = bench.api.store.list_actions(instance.id).await.unwrap().remove(0);
    action.action = "reboot".to_owned();
    action.request_id = nova_core::ids::RequestId::generate(&*bench.api.entropy);
    action.started = bench.now();
    action.begin_event("compute_reboot_instance", Some("h1"), bench.now());
    action.finish_event("compute_reboot_instance", Some("the plug was stuck".to_owned()), bench.now());
    action.begin_event("compute_wait", None, bench.now());
    task.id = nova_core::ids::TaskId::generate(&*bench.api.entropy);
    task.context.request_id = action.request_id.clone();
    let start = TaskStart::of(instance, action, task);
    let instance = bench.api.store.start_task(start).await.unwrap();
    (bench, instance)
}

async fn paths(bench: &Bench, instance: &Instance) -> (String, Vec<String>) {
    let all = format!("/servers/{}/os-instance-actions", instance.id);
    let actions = bench.api.store.list_actions(instance.id).await.unwrap();
    let each = actions.iter().map(|a| format!("{all}/{}", a.request_id)).collect();
    (all, each)
}

#[tokio::test]
async fn actions_have_the_keys_of_their_version() {
    let (bench, instance) = bench().await;
    let (all, _) = paths(&bench, &instance).await;
    let list = bench.get(DEMO, 1, &all).await;
    let names: Vec<_> = list["instanceActions"].as_array().unwrap().iter().map(|a| a["action"].clone()).collect();
    assert_eq!(names, ["reboot", "create"], "newest first");
    let mut expected = json!({
        "action": "create", "instance_uuid": instance.id, "request_id": instance.request_id, "user_id": "u-demo",
        "project_id": "p-demo", "start_time": "2026-11-22T08:03:11.000000", "message": null,
    });
    assert_eq!(list["instanceActions"][1], expected);
    assert_eq!(bench.get(DEMO, 57, &all).await["instanceActions"][1], expected);
    expected["updated_at"] = json!("2026-11-22T08:03:11.000000");
    assert_eq!(bench.get(DEMO, 58, &all).await["instanceActions"][1], expected);
}

#[tokio::test]
async fn events_open_up_with_versions_and_roles() {
    let (bench, instance) = bench().await;
    let (_, each) = paths(&bench, &instance).await;
    let reboot = &each[0];
    assert!(bench.get(DEMO, 50, reboot).await["instanceAction"].get("events").is_none());
    let event = async |caller, minor| bench.get(caller, minor, reboot).await["instanceAction"]["events"][1].clone();
    assert_eq!(keys(&event(ADMIN, 1).await), ["event", "finish_time", "result", "start_time", "traceback"]);
    assert_eq!(keys(&event(DEMO, 51).await), ["event", "finish_time", "result", "start_time"]);
    assert_eq!(keys(&event(DEMO, 62).await), ["event", "finish_time", "hostId", "result", "start_time"]);
    assert_eq!(
        keys(&event(ADMIN, 62).await),
        ["event", "finish_time", "host", "hostId", "result", "start_time", "traceback"]
    );
    assert_eq!(keys(&event(DEMO, 84).await), keys(&event(DEMO, 62).await));
    let whole = event(ADMIN, 84).await;
    assert_eq!((&whole["details"], &whole["host"]), (&json!("the plug was stuck"), &json!("h1")));
    assert_eq!((&whole["result"], &whole["event"]), (&json!("Error"), &json!("compute_reboot_instance")));
    assert_eq!(whole["hostId"].as_str().unwrap().len(), 56);
    let open = bench.get(ADMIN, 84, reboot).await["instanceAction"]["events"][0].clone();
    assert_eq!((&open["finish_time"], &open["result"], &open["hostId"]), (&Value::Null, &Value::Null, &json!("")));
}

#[tokio::test]
async fn lists_are_paged_and_limited_in_time() {
    let (bench, instance) = bench().await;
    let (all, each) = paths(&bench, &instance).await;
    let newest = each[0].rsplit('/').next().unwrap();
    let page = bench.get(DEMO, 58, &format!("{all}?limit=1")).await;
    assert_eq!(page["instanceActions"][0]["request_id"], newest);
    let href = format!("http://h:8774/compute/v2.1{all}?limit=1&marker={newest}");
    assert_eq!(page["links"], json!([{"rel": "next", "href": href}]));
    let actions = async |minor, query: &str| -> Vec<String> {
        let body = bench.get(DEMO, minor, &format!("{all}?{query}")).await;
        body["instanceActions"].as_array().unwrap().iter().map(|a| a["action"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(actions(58, &format!("marker={newest}")).await, ["create"]);
    assert_eq!(actions(58, "changes-since=2026-11-22T08:30:00Z").await, ["reboot"]);
    assert_eq!(actions(58, "changes-since=2026-11-22T08:30:00").await, ["reboot"]);
    assert_eq!(actions(66, "changes-before=2026-11-22T08:30:00Z").await, ["create"]);
    assert_eq!(actions(57, "limit=1").await.len(), 2);
    for (minor, query) in [
        (58, "limit=-1"),
        (58, "limit=1&limit=1"),
        (58, "marker=nope"),
        (58, "changes-since=yesterday"),
        (58, "changes-before=2026-11-22T08:30:00Z"),
        (58, "foo=1"),
        (66, "changes-before=x"),
        (66, "changes-since=2026-11-22T08:30:00Z&changes-before=2026-11-22T08:29:59Z"),
    ] {
        assert_eq!(bench.refused(DEMO, minor, &format!("GET {all}?{query}"), Value::Null).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn actions_of_deleted_servers_are_shown_from_2_21_on() {
    let (bench, mut instance) = bench().await;
    let (all, each) = paths(&bench, &instance).await;
    instance.deleted_at = Some(bench.now());
    bench.api.store.update_instance(instance).await.unwrap();
    let gone = InstanceQuery { deleted: Deleted::Only, ..InstanceQuery::default() };
    assert_eq!(bench.api.store.list_instances(&gone).await.unwrap().len(), 1);
    for path in [&all, &each[1]] {
        assert_eq!(bench.refused(DEMO, 20, &format!("GET {path}"), Value::Null).await.0, 404);
        bench.get(DEMO, 21, path).await;
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_yours_is_404() {
    let (bench, instance) = bench().await;
    let (all, each) = paths(&bench, &instance).await;
    let (status, text) = bench.refused(OTHER, 1, &format!("GET {all}"), Value::Null).await;
    assert_eq!((status, text), (404, format!("Instance {} could not be found.", instance.id)));
    assert_eq!(bench.refused(OTHER, 1, &format!("GET {}", each[0]), Value::Null).await.0, 404);
    bench.get(ADMIN, 1, &all).await;
    for id in ["-1", "999", "7f7f7f7f-0000-4000-8000-000000000000", "x"] {
        assert_eq!(bench.refused(DEMO, 1, &format!("GET /servers/{id}/os-instance-actions"), Value::Null).await.0, 404);
    }
    for id in ["req-7f7f7f7f-0000-4000-8000-000000000000", "999", "req-x"] {
        let (status, text) = bench.refused(DEMO, 1, &format!("GET {all}/{id}"), Value::Null).await;
        assert_eq!((status, text), (404, format!("Action {id} not found")));
    }
}
