//! `PUT /servers/{id}`.

use nova_core::state::VmState;
use serde_json::json;

use super::world::World;

#[tokio::test]
async fn names_descriptions_and_addresses_change() {
    let world = World::new().await;
    let id = world.create("demo", "old").await;
    let path = format!("PUT /servers/{id}");
    let body = json!({"server": {"name": "new", "accessIPv6": "::BABE:220.12.22.2", "OS-DCF:diskConfig": "AUTO"}});
    let answer = world.call("demo", 1, &path, Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let server = &answer.body["server"];
    assert_eq!((server["name"].as_str(), server["accessIPv6"].as_str()), (Some("new"), Some("::babe:dc0c:1602")));
    assert_eq!(server["OS-DCF:diskConfig"], "AUTO");
    assert!(server.get("OS-EXT-STS:vm_state").is_none());
    let whole = world.call("demo", 75, &path, Some(json!({"server": {"description": null}}))).await;
    assert_eq!(whole.body["server"]["OS-EXT-STS:vm_state"], "building");
    assert_eq!(whole.body["server"]["description"], json!(null));
    for body in [
        json!({"server": {"name": ""}}),
        json!({"server": {"name": "x".repeat(256)}}),
        json!({}),
        json!({"server": {"x": 1}}),
    ] {
        world.call("demo", 1, &path, Some(body)).await.fault(400, "badRequest");
    }
    world.call("demo", 89, &path, Some(json!({"server": {"hostname": "ho"}}))).await.fault(400, "badRequest");
    assert_eq!(world.call("demo", 90, &path, Some(json!({"server": {"hostname": "ho"}}))).await.status, 200);
    world.call("reader", 1, &path, Some(json!({"server": {"name": "x"}}))).await.fault(403, "forbidden");
    world.call("other", 1, &path, Some(json!({"server": {"name": "x"}}))).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn a_pin_comes_off_and_goes_back_to_where_the_server_is() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Active, "h1").await;
    let pin = |zone: serde_json::Value| {
        let path = format!("PUT /servers/{id}");
        let body = json!({"server": {"pinned_availability_zone": zone}});
        let world = &world;
        async move { world.call("demo", 104, &path, Some(body)).await }
    };
    pin(json!("moon")).await.fault(409, "conflictingRequest");
    assert_eq!(pin(json!("nova")).await.body["server"]["pinned_availability_zone"], "nova");
    pin(json!("moon")).await.fault(409, "conflictingRequest");
    assert_eq!(pin(json!(null)).await.body["server"]["pinned_availability_zone"], json!(null));
}
