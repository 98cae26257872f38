//! What is gone, what has two names, and what no host is needed for.

use nova_core::quota::{QuotaLimits, QuotaOwner};
use nova_core::state::VmState;
use serde_json::{Value, json};

use super::world::{World, server};

#[tokio::test]
async fn what_is_gone_says_so_at_every_version() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    let lines = [
        "GET /os-agents".to_owned(),
        "PUT /os-agents/1".to_owned(),
        "GET /os-cells/capacities".to_owned(),
        "POST /os-cells/sync_instances".to_owned(),
        "DELETE /os-cells/x".to_owned(),
        "GET /os-certificates/root".to_owned(),
        "POST /os-cloudpipe".to_owned(),
        "GET /os-fping".to_owned(),
        "GET /os-fping/1".to_owned(),
        "GET /os-fixed-ips/1".to_owned(),
        format!("GET /servers/{id}/consoles"),
        format!("DELETE /servers/{id}/consoles/1"),
        format!("GET /servers/{id}/os-virtual-interfaces"),
    ];
    for minor in [1, 50, 104] {
        for line in &lines {
            let body = line.starts_with('P').then(|| json!({}));
            let answer = world.call("demo", minor, line, body).await;
            assert_eq!(answer.status, 410, "{line} at 2.{minor}: {}", answer.text);
        }
        let path = format!("POST /servers/{id}/action");
        assert_eq!(world.call("admin", minor, &path, Some(json!({"resetNetwork": null}))).await.status, 410);
    }
    let path = format!("POST /servers/{id}/action");
    let console = json!({"os-getRDPConsole": {"type": "rdp-html5"}});
    assert_eq!(world.call("demo", 5, &path, Some(console.clone())).await.status, 410);
    assert_eq!(world.call("demo", 6, &path, Some(console)).await.status, 404);
}

#[tokio::test]
async fn baremetal_nodes_are_of_a_service_that_is_not_here() {
    let world = World::new().await;
    world.get("admin", 1, "/os-baremetal-nodes").await.fault(501, "notImplemented");
    world.get("demo", 1, "/os-baremetal-nodes").await.fault(403, "forbidden");
    let text = "Command Not supported. Please use Ironic command node-create to perform this action.";
    let made = world.call("demo", 35, "POST /os-baremetal-nodes", Some(json!({"node": {}}))).await;
    assert_eq!(made.fault(400, "badRequest"), text);
    for body in [json!({"add_interface": {}}), json!({"remove_interface": {}}), json!({"x": 1}), json!({}), json!([])] {
        let answer = world.call("demo", 1, "POST /os-baremetal-nodes/1/action", Some(body)).await;
        answer.fault(400, "badRequest");
    }
    world.get("admin", 36, "/os-baremetal-nodes").await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn servers_have_another_name_until_2_102() {
    let world = World::new().await;
    let made = world.call("demo", 1, "POST /os-volumes_boot", Some(json!({"server": server("vm")}))).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.body["server"]["id"].as_str().unwrap().to_owned();
    world.settle(&id, VmState::Active, "h1").await;
    for path in ["", "/detail", &format!("/{id}")] {
        let alias = world.get("demo", 102, &format!("/os-volumes_boot{path}")).await;
        let own = world.get("demo", 102, &format!("/servers{path}")).await;
        assert_eq!((alias.status, alias.body), (200, own.body), "{path}");
        world.get("demo", 103, &format!("/os-volumes_boot{path}")).await.fault(404, "itemNotFound");
    }
    let path = format!("POST /os-volumes_boot/{id}/action");
    // Only what is no extension.
    let locked = world.call("demo", 1, &path, Some(json!({"lock": null}))).await;
    assert_eq!(locked.fault(400, "badRequest"), "There is no such action: lock");
    assert_eq!(world.call("demo", 1, &path, Some(json!({"os-stop": null}))).await.status, 202);
    assert_eq!(world.call("demo", 1, &format!("DELETE /os-volumes_boot/{id}"), None).await.status, 204);
}

#[tokio::test]
async fn versions_have_documents() {
    let world = World::new().await;
    let document = world.get("demo", 1, "/versions/v2.1").await;
    assert_eq!(document.body["version"]["id"], "v2.1");
    world.get("demo", 1, "/versions/v3").await.fault(404, "itemNotFound");
    world.get("none", 1, "/versions/v2.1").await.fault(401, "unauthorized");
}

#[tokio::test]
async fn certificates_are_kept_and_shown() {
    let world = World::new().await;
    let with = |certificates: Value| {
        let mut body = server("vm");
        body["networks"] = json!("none");
        body["trusted_image_certificates"] = certificates;
        Some(json!({ "server": body }))
    };
    let ids = json!(["b", "a"]);
    let made = world.call("demo", 63, "POST /servers", with(ids.clone())).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.body["server"]["id"].as_str().unwrap().to_owned();
    let shown = world.get("demo", 63, &format!("/servers/{id}")).await.body["server"].clone();
    assert_eq!(shown["trusted_image_certificates"], ids);
    let none = world.call("demo", 63, "POST /servers", with(Value::Null)).await;
    let id = none.body["server"]["id"].as_str().unwrap().to_owned();
    let shown = world.get("demo", 63, &format!("/servers/{id}")).await.body["server"].clone();
    assert_eq!(shown["trusted_image_certificates"], Value::Null);
    for bad in [json!([]), json!(["a", "a"]), json!([""]), json!("a"), json!(vec!["x"; 51])] {
        world.call("demo", 63, "POST /servers", with(bad)).await.fault(400, "badRequest");
    }
    world.call("demo", 62, "POST /servers", with(ids)).await.fault(400, "badRequest");
}

/// What was set by an operator counts in the transaction that makes the server, for the project and for its user.
#[tokio::test]
async fn servers_keep_to_the_quotas_that_were_set() {
    let world = World::new().await;
    let set = async |owner: QuotaOwner, name: &str, limit: i64| {
        world.store.set_quotas(owner, QuotaLimits::from([(name.to_owned(), limit)])).await.unwrap();
    };
    let create = async || world.call("demo", 1, "POST /servers", Some(json!({"server": server("vm")}))).await;
    let project = || QuotaOwner::Project("dddd0000".into());
    let user = || QuotaOwner::User("dddd0000".into(), "demo".into());
    set(project(), "instances", 2).await;
    assert_eq!(create().await.status, 202);
    set(user(), "instances", 1).await;
    let text = "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances";
    assert_eq!(create().await.fault(403, "forbidden"), text);
    set(user(), "instances", 9).await;
    assert_eq!(create().await.status, 202);
    let text = "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances";
    assert_eq!(create().await.fault(403, "forbidden"), text);
    set(project(), "instances", -1).await;
    // So many as fit, at least one.
    let mut many = server("vm");
    many["min_count"] = json!(1);
    many["max_count"] = json!(50);
    assert_eq!(world.call("demo", 1, "POST /servers", Some(json!({"server": many}))).await.status, 202);
    assert_eq!(world.store.user_usage(&"dddd0000".into(), &"demo".into()).await.unwrap().instances, 9);
    set(project(), "metadata_items", 1).await;
    set(QuotaOwner::Class("default".into()), "metadata_items", 0).await;
    let mut labelled = server("vm");
    labelled["metadata"] = json!({"a": "1", "b": "2"});
    let refused = world.call("demo", 1, "POST /servers", Some(json!({"server": labelled}))).await;
    assert_eq!(refused.fault(403, "forbidden"), "Maximum number of metadata items exceeds 1");
}

#[tokio::test]
async fn no_volume_can_be_snapshotted() {
    let world = World::new().await;
    let url = "/os-assisted-volume-snapshots";
    let info = json!({"snapshot_id": "s", "type": "qcow2", "new_file": "f"});
    let body = json!({"snapshot": {"volume_id": "v", "create_info": info}});
    let refused = world.call("admin", 1, &format!("POST {url}"), Some(body.clone())).await;
    assert_eq!(refused.fault(400, "badRequest"), "No volume Block Device Mapping with id v.");
    world.call("demo", 1, &format!("POST {url}"), Some(body)).await.fault(403, "forbidden");
    for bad in
        [json!({}), json!({"snapshot": {}}), json!({"snapshot": {"volume_id": "v", "create_info": {"type": "raw"}}})]
    {
        world.call("admin", 1, &format!("POST {url}"), Some(bad)).await.fault(400, "badRequest");
    }
    let delete = async |query: &str| world.call("admin", 1, &format!("DELETE {url}/s{query}"), None).await;
    for query in ["", "?delete_info=x", "?delete_info=%7B%7D", "?delete_info=%7B%22volume_id%22%3A%22v%22%7D"] {
        delete(query).await.fault(400, "badRequest");
    }
}

/// A rebuild keeps certificates that it does not speak of, and forgets those that it takes away.
#[tokio::test]
async fn a_rebuild_changes_certificates() {
    let world = World::new().await;
    let mut body = server("vm");
    body["networks"] = json!("none");
    body["trusted_image_certificates"] = json!(["a"]);
    let made = world.call("demo", 63, "POST /servers", Some(json!({ "server": body }))).await;
    let id = made.body["server"]["id"].as_str().unwrap().to_owned();
    let rebuild = async |more: Value| {
        world.settle(&id, VmState::Active, "h1").await;
        let mut body = json!({"imageRef": super::world::IMAGE});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let path = format!("POST /servers/{id}/action");
        let answer = world.call("demo", 63, &path, Some(json!({ "rebuild": body }))).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.body["server"]["trusted_image_certificates"].clone()
    };
    assert_eq!(rebuild(json!({})).await, json!(["a"]));
    assert_eq!(rebuild(json!({"trusted_image_certificates": ["b", "c"]})).await, json!(["b", "c"]));
    assert_eq!(rebuild(json!({"trusted_image_certificates": null})).await, Value::Null);
}
