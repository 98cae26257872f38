//! Servers in groups and zones.

use nova_core::state::VmState;
use nova_core::task::Work;
use serde_json::{Value, json};

use super::world::{World, only_compute, server};
use crate::api::compute::ComputeOptions;

async fn group(world: &World, token: &str) -> String {
    let body = json!({"server_group": {"name": "g", "policy": "anti-affinity"}});
    let answer = world.call(token, 64, "POST /os-server-groups", Some(body)).await;
    answer.body["server_group"]["id"].as_str().unwrap().to_owned()
}

fn grouped(group: &str, count: u32) -> Option<Value> {
    let mut server = server("vm");
    (server["min_count"], server["max_count"]) = (json!(count), json!(count));
    Some(json!({"server": server, "os:scheduler_hints": {"group": group}}))
}

#[tokio::test]
async fn servers_are_members_while_they_live() {
    let world = World::new().await;
    let group = group(&world, "demo").await;
    let before = world.store.commits();
    let answer = world.call("demo", 1, "POST /servers", grouped(&group, 1)).await;
    assert_eq!((answer.status, world.store.commits()), (202, before + 1), "{}", answer.text);
    let id = answer.body["server"]["id"].as_str().unwrap();
    let members = async || {
        let answer = world.get("demo", 64, &format!("/os-server-groups/{group}")).await;
        answer.body["server_group"]["members"].clone()
    };
    assert_eq!(members().await, json!([id]));
    let one = format!("/servers/{id}");
    assert_eq!(world.get("demo", 71, &one).await.body["server"]["server_groups"], json!([group]));
    assert!(world.get("demo", 70, &one).await.body["server"].get("server_groups").is_none());
    let detail = world.get("demo", 71, "/servers/detail").await;
    assert!(detail.body["servers"][0].get("server_groups").is_none());
    let put = world.call("demo", 71, &format!("PUT {one}"), Some(json!({"server": {"name": "new"}}))).await;
    assert_eq!(put.body["server"]["server_groups"], json!([group]), "{}", put.text);
    let tasks = world.store.list_tasks(None).await.unwrap();
    let Work::Build { spec, .. } = &tasks[0].work else { panic!("{tasks:?}") };
    assert_eq!((spec.hints["group"].clone(), spec.group.clone()), (json!(group), None), "read when it is placed");
    world.settle(id, VmState::Deleted, "h1").await;
    assert_eq!(members().await, json!([]));
    let again = world.create("demo", "alone").await;
    assert_eq!(world.get("demo", 71, &format!("/servers/{again}")).await.body["server"]["server_groups"], json!([]));
}

#[tokio::test]
async fn a_group_that_is_gone_is_shown_by_no_server() {
    let world = World::new().await;
    let group = group(&world, "demo").await;
    let answer = world.call("demo", 1, "POST /servers", grouped(&group, 1)).await;
    let path = format!("/servers/{}", answer.body["server"]["id"].as_str().unwrap());
    assert_eq!(world.call("demo", 1, &format!("DELETE /os-server-groups/{group}"), None).await.status, 204);
    assert_eq!(world.get("demo", 71, &path).await.body["server"]["server_groups"], json!([]));
}

#[tokio::test]
async fn hints_name_a_group_of_the_project_with_room() {
    let options = ComputeOptions { server_group_members: Some(2), ..ComputeOptions::default() };
    let world = World::with(options, only_compute()).await;
    let (own, foreign) = (group(&world, "demo").await, group(&world, "other").await);
    let answer = world.call("demo", 1, "POST /servers", grouped(&foreign, 1)).await;
    assert_eq!(answer.fault(400, "badRequest"), format!("Instance group {foreign} could not be found."));
    let answer = world.call("demo", 1, "POST /servers", grouped("web", 1)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(world.call("demo", 1, "POST /servers", grouped(&own, 2)).await.status, 202);
    let before = world.store.commits();
    let answer = world.call("demo", 1, "POST /servers", grouped(&own, 1)).await;
    assert_eq!(answer.fault(403, "forbidden"), "Quota exceeded, too many servers in group");
    assert_eq!(world.store.commits(), before);
    let unknown = json!({"server": server("vm"), "os:scheduler_hints": {"group": []}});
    assert_eq!(world.call("demo", 1, "POST /servers", Some(unknown)).await.status, 202);
}

#[tokio::test]
async fn a_zone_that_aggregates_make_can_be_asked_for() {
    let world = World::new().await;
    let body = json!({"aggregate": {"name": "w", "availability_zone": "west"}});
    let made = world.call("admin", 1, "POST /os-aggregates", Some(body)).await;
    let action = format!("POST /os-aggregates/{}/action", made.body["aggregate"]["id"]);
    let asked = async |zone: &str| {
        let mut server = server("vm");
        server["availability_zone"] = json!(zone);
        world.call("demo", 1, "POST /servers", Some(json!({"server": server}))).await.status
    };
    assert_eq!((asked("nova").await, asked("west").await), (202, 400));
    let added = world.call("admin", 1, &action, Some(json!({"add_host": {"host": "h1"}}))).await;
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!((asked("nova").await, asked("west").await), (400, 202));
}
