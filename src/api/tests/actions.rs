//! What is done to servers that exist.

use nova_core::state::{TaskState, VmState};
use nova_core::task::Work;
use serde_json::{Value, json};

use super::world::World;

impl World {
    async fn act(&self, token: &str, id: &str, body: Value) -> super::world::Answer {
        self.call(token, 1, &format!("POST /servers/{id}/action"), Some(body)).await
    }
}

async fn running(world: &World) -> String {
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Active, "h1").await;
    id
}

#[tokio::test]
async fn each_action_writes_its_task() {
    let world = World::new().await;
    let cases = [
        (VmState::Active, json!({"os-stop": null}), TaskState::PoweringOff, "stop"),
        (VmState::Stopped, json!({"os-start": null}), TaskState::PoweringOn, "start"),
        (VmState::Active, json!({"reboot": {"type": "soft"}}), TaskState::Rebooting, "reboot"),
        (VmState::Stopped, json!({"reboot": {"type": "HARD"}}), TaskState::RebootingHard, "reboot"),
    ];
    for (state, body, task_state, action) in cases {
        let id = world.create("demo", "vm").await;
        world.settle(&id, state, "h1").await;
        world.pass(1);
        let before = world.store.commits();
        let answer = world.act("demo", &id, body.clone()).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, ""), "{body}");
        assert_eq!(world.store.commits(), before + 1);
        let instance = world.instance(&id).await;
        assert_eq!((instance.vm_state, instance.task_state), (state, Some(task_state)));
        let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].epoch, instance.epoch);
        assert_eq!(world.orders.started.lock().unwrap().last(), Some(&tasks[0].id));
        assert_eq!(world.store.list_actions(instance.id).await.unwrap()[0].action, action);
    }
}

#[tokio::test]
async fn states_that_forbid_it_are_409() {
    let world = World::new().await;
    let id = running(&world).await;
    let before = world.store.commits();
    let answer = world.act("demo", &id, json!({"os-start": null})).await;
    let text = format!("Cannot 'start' instance {id} while it is in vm_state active");
    assert_eq!(answer.fault(409, "conflictingRequest"), text);
    assert_eq!(world.store.commits(), before);
    assert_eq!(world.act("demo", &id, json!({"os-stop": null})).await.status, 202);
    let busy = world.act("demo", &id, json!({"reboot": {"type": "SOFT"}})).await;
    let text = format!("Cannot 'reboot' instance {id} while it is in task_state powering-off");
    assert_eq!(busy.fault(409, "conflictingRequest"), text);
}

#[tokio::test]
async fn unplaced_servers_are_not_ready() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    for body in [json!({"os-stop": null}), json!({"os-getConsoleOutput": {}})] {
        let answer = world.act("demo", &id, body).await;
        assert_eq!(answer.fault(409, "conflictingRequest"), format!("Instance {id} is not ready"));
    }
}

#[tokio::test]
async fn locks_hold_for_owners_and_not_for_administrators() {
    let world = World::new().await;
    let id = running(&world).await;
    let mut instance = world.instance(&id).await;
    instance.locked = Some(nova_core::state::LockedBy::Owner);
    world.store.update_instance(instance).await.unwrap();
    let answer = world.act("demo", &id, json!({"os-stop": null})).await;
    assert_eq!(answer.fault(409, "conflictingRequest"), format!("Instance {id} is locked"));
    world.call("demo", 1, &format!("DELETE /servers/{id}"), None).await.fault(409, "conflictingRequest");
    assert_eq!(world.act("admin", &id, json!({"os-stop": null})).await.status, 202);
}

#[tokio::test]
async fn delete_ends_other_tasks_and_may_be_repeated() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    let path = format!("DELETE /servers/{id}");
    let answer = world.call("demo", 1, &path, None).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let instance = world.instance(&id).await;
    assert_eq!(instance.task_state, Some(TaskState::Deleting));
    let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
    assert_eq!(tasks.iter().map(|task| task.work.kind()).collect::<Vec<_>>(), ["delete"]);
    let before = world.store.commits();
    assert_eq!(world.call("demo", 1, &path, None).await.status, 204);
    assert_eq!(world.store.commits(), before);
    world.settle(&id, VmState::Deleted, "h1").await;
    world.call("demo", 1, &path, None).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn a_hard_reboot_takes_over_from_a_soft_one() {
    let world = World::new().await;
    let id = running(&world).await;
    assert_eq!(world.act("demo", &id, json!({"reboot": {"type": "SOFT"}})).await.status, 202);
    assert_eq!(world.act("demo", &id, json!({"reboot": {"type": "HARD"}})).await.status, 202);
    let tasks = world.store.list_tasks(Some(id.parse().unwrap())).await.unwrap();
    assert!(matches!(tasks[..], [ref task] if task.work == Work::Reboot { hard: true }));
}

#[tokio::test]
async fn console_output_has_exactly_the_lines_asked_for() {
    let world = World::new().await;
    let id = running(&world).await;
    let all = world.act("demo", &id, json!({"os-getConsoleOutput": {}})).await;
    assert_eq!(all.body, json!({"output": "one\ntwo\n[1mthree\nlogin: \n"}));
    let two = world.act("demo", &id, json!({"os-getConsoleOutput": {"length": 2}})).await;
    assert_eq!(two.body, json!({"output": "[1mthree\nlogin: "}));
    world.act("reader", &id, json!({"os-getConsoleOutput": {}})).await.fault(403, "forbidden");
}

#[tokio::test]
async fn what_does_not_exist_is_400() {
    let world = World::new().await;
    let id = running(&world).await;
    let answer = world.act("demo", &id, json!({"explode": null})).await;
    assert_eq!(answer.fault(400, "badRequest"), "There is no such action: explode");
    for body in [json!({}), json!([]), json!("reboot"), json!({"os-stop": null, "os-start": null})] {
        let answer = world.act("demo", &id, body).await;
        assert_eq!(answer.fault(400, "badRequest"), "Malformed request body");
    }
    for body in [json!({"type": "warm"}), json!({}), json!(null), json!({"type": "HARD", "x": 1}), json!({"type": 1})] {
        world.act("demo", &id, json!({"reboot": body})).await.fault(400, "badRequest");
    }
}

#[tokio::test]
async fn one_request_id_for_everything_leaves_every_action_its_record() {
    let world = World::new().await;
    let id = "req-5f3e1d2c-0000-4000-8000-1234567890ab";
    let headers = [("x-auth-token", "demo".to_owned()), ("x-openstack-request-id", id.to_owned())];
    let body = json!({"server": super::world::server("vm")}).to_string();
    let made = world.raw("POST /servers", &headers, body).await;
    let server = made.body["server"]["id"].as_str().unwrap();
    world.pass(1);
    assert_eq!(world.raw(&format!("DELETE /servers/{server}"), &headers, "").await.status, 204);
    let actions = world.store.list_actions(server.parse().unwrap()).await.unwrap();
    assert_eq!(actions.iter().map(|action| action.action.as_str()).collect::<Vec<_>>(), ["delete", "create"]);
}
