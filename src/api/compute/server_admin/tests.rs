//! Locks, and states that are set by hand.

use nova_core::state::{LockedBy, TaskState, VmState};
use nova_db::TaskCommit;
use serde_json::{Value, json};

use super::ServerAdmin;
use crate::api::compute::test_support::{ADMIN, Bench, Caller, DEMO, OTHER, READER};

async fn bench() -> (Bench, String) {
    let bench = Bench::new(ServerAdmin::new);
    let id = bench.instance(DEMO, Some("h1")).await.id.to_string();
    (bench, id)
}

async fn act(bench: &Bench, caller: Caller, minor: u16, id: &str, body: Value) -> (u16, Value) {
    bench.call(caller, minor, &format!("POST /servers/{id}/action"), body).await
}

async fn refused(bench: &Bench, caller: Caller, minor: u16, id: &str, body: Value) -> (u16, String) {
    bench.refused(caller, minor, &format!("POST /servers/{id}/action"), body).await
}

async fn actions(bench: &Bench, id: &str) -> Vec<(String, String)> {
    let list = bench.api.store.list_actions(id.parse().unwrap()).await.unwrap();
    list.into_iter()
        .filter(|action| action.action != "create")
        .map(|action| (action.action, action.events.first().map_or(String::new(), |event| event.event.clone())))
        .collect()
}

#[tokio::test]
async fn owners_lock_and_unlock() {
    let (bench, id) = bench().await;
    let locked = |instance: nova_core::instance::Instance| (instance.locked, instance.locked_reason);
    assert_eq!(act(&bench, DEMO, 73, &id, json!({"lock": {"locked_reason": "mine"}})).await, (202, Value::Null));
    assert_eq!(locked(bench.read(&id).await), (Some(LockedBy::Owner), Some("mine".to_owned())));
    // Again changes nothing, not even the reason.
    assert_eq!(act(&bench, DEMO, 73, &id, json!({"lock": {"locked_reason": "other"}})).await.0, 202);
    assert_eq!(locked(bench.read(&id).await), (Some(LockedBy::Owner), Some("mine".to_owned())));
    assert_eq!(act(&bench, DEMO, 1, &id, json!({"unlock": null})).await.0, 202);
    assert_eq!(locked(bench.read(&id).await), (None, None));
    assert_eq!(act(&bench, DEMO, 1, &id, json!({"lock": null})).await.0, 202);
    assert_eq!(locked(bench.read(&id).await), (Some(LockedBy::Owner), None));
    let pair = |action: &str| (action.to_owned(), format!("api_{action}"));
    let mut recorded = actions(&bench, &id).await;
    recorded.sort();
    assert_eq!(recorded, [pair("lock"), pair("lock"), pair("unlock")]);
}

#[tokio::test]
async fn an_administrator_s_lock_holds_against_the_owner() {
    let (bench, id) = bench().await;
    assert_eq!(act(&bench, ADMIN, 1, &id, json!({"lock": null})).await.0, 202);
    assert_eq!(bench.read(&id).await.locked, Some(LockedBy::Admin));
    let (status, text) = refused(&bench, DEMO, 1, &id, json!({"unlock": null})).await;
    assert!(status == 403 && text.contains("unlock:unlock_override"), "{status} {text}");
    assert_eq!(act(&bench, ADMIN, 1, &id, json!({"unlock": null})).await.0, 202);
    assert_eq!(bench.read(&id).await.locked, None);
    for caller in [OTHER, READER] {
        let wanted = if caller == OTHER { 404 } else { 403 };
        assert_eq!(refused(&bench, caller, 1, &id, json!({"lock": null})).await.0, wanted);
    }
}

#[tokio::test]
async fn reasons_came_with_2_73() {
    let (bench, id) = bench().await;
    for body in [json!({"locked_reason": ""}), json!({"locked_reason": 1}), json!({"reason": "x"}), json!("x")] {
        assert_eq!(refused(&bench, DEMO, 73, &id, json!({ "lock": body })).await.0, 400, "{body}");
    }
    let long = json!({"lock": {"locked_reason": "x".repeat(256)}});
    assert_eq!(refused(&bench, DEMO, 73, &id, long.clone()).await.0, 400);
    assert_eq!(act(&bench, DEMO, 72, &id, long).await.0, 202);
    assert_eq!(bench.read(&id).await.locked_reason, None);
}

#[tokio::test]
async fn states_are_set_by_hand() {
    let (bench, id) = bench().await;
    // Nobody is at work; a deletion would go on.
    let task = bench.api.store.list_tasks(Some(id.parse().unwrap())).await.unwrap().remove(0);
    bench.api.store.commit_task(TaskCommit { done: true, ..TaskCommit::of(task) }).await.unwrap();
    bench.touch(&id, |instance| instance.task_state = Some(TaskState::Rebooting)).await;
    assert_eq!(act(&bench, ADMIN, 1, &id, json!({"os-resetState": {"state": "error"}})).await, (202, Value::Null));
    let instance = bench.read(&id).await;
    assert_eq!((instance.vm_state, instance.task_state), (VmState::Error, None));
    assert_eq!(act(&bench, ADMIN, 1, &id, json!({"os-resetState": {"state": "active"}})).await.0, 202);
    assert_eq!(bench.read(&id).await.vm_state, VmState::Active);
    for body in
        [json!({"state": "invalid"}), json!({"state": 1}), json!({}), json!(null), json!({"state": "active", "x": 1})]
    {
        assert_eq!(refused(&bench, ADMIN, 1, &id, json!({ "os-resetState": body })).await.0, 400, "{body}");
    }
    assert_eq!(refused(&bench, DEMO, 1, &id, json!({"os-resetState": {"state": "active"}})).await.0, 403);
    assert_eq!(refused(&bench, OTHER, 1, &id, json!({"os-resetState": {"state": "active"}})).await.0, 404);
    let recorded = actions(&bench, &id).await;
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|(action, _)| action == "resetState"));
}

#[tokio::test]
async fn there_is_no_network_to_inject() {
    let (bench, id) = bench().await;
    let before = bench.read(&id).await;
    assert_eq!(act(&bench, ADMIN, 1, &id, json!({"injectNetworkInfo": null})).await, (202, Value::Null));
    assert_eq!(bench.read(&id).await, before);
    assert_eq!(refused(&bench, DEMO, 1, &id, json!({"injectNetworkInfo": null})).await.0, 403);
    let unknown = "7f7f7f7f-0000-4000-8000-000000000000";
    assert_eq!(refused(&bench, ADMIN, 1, unknown, json!({"injectNetworkInfo": null})).await.0, 404);
}
