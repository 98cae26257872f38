//! Lists of servers.

use nova_core::state::VmState;
use serde_json::json;

use super::world::{World, server};

impl World {
    async fn names(&self, token: &str, minor: u16, query: &str) -> Vec<String> {
        let answer = self.get(token, minor, &format!("/servers{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let servers = answer.body["servers"].as_array().unwrap();
        servers.iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// Three servers of `demo`, a second apart, and one of `other`.
async fn world() -> World {
    let world = World::new().await;
    for name in ["alpha", "beta", "gamma"] {
        world.create("demo", name).await;
        world.pass(1);
    }
    world.create("other", "foreign").await;
    world
}

#[tokio::test]
async fn the_newest_comes_first_and_only_what_is_ours() {
    let world = world().await;
    assert_eq!(world.names("demo", 1, "").await, ["gamma", "beta", "alpha"]);
    assert_eq!(world.names("reader", 1, "").await, ["gamma", "beta", "alpha"]);
    assert_eq!(world.names("admin", 1, "").await, [""; 0]);
    assert_eq!(world.names("admin", 1, "?all_tenants=").await.len(), 4);
    assert_eq!(world.names("admin", 1, "?all_tenants=1&project_id=0000eeee").await, ["foreign"]);
    assert_eq!(world.names("admin", 1, "?project_id=0000eeee").await, [""; 0]);
    world.get("demo", 1, "/servers?all_tenants=1").await.fault(403, "forbidden");
    world.get("demo", 1, "/servers?all_tenants=maybe").await.fault(400, "badRequest");
}

#[tokio::test]
async fn pages_are_linked() {
    let world = world().await;
    let first = world.get("demo", 1, "/servers?limit=2&name=a").await;
    let link = first.body["servers_links"][0]["href"].as_str().unwrap();
    assert_eq!(first.body["servers"].as_array().unwrap().len(), 2);
    let second = world
        .raw(
            &format!("GET {}", link.strip_prefix("http://cloud:8774").unwrap()),
            &[("x-auth-token", "demo".into())],
            "",
        )
        .await;
    assert_eq!(second.body["servers"][0]["name"], "alpha");
    assert!(second.body.get("servers_links").is_none());
    let detail = world.get("demo", 1, "/servers/detail?limit=1").await;
    assert!(detail.body["servers_links"][0]["href"].as_str().unwrap().contains("/servers/detail?limit=1&marker="));
    assert_eq!(world.names("demo", 1, "?limit=0").await, [""; 0]);
    for query in ["limit=-1", "limit=x", "marker=nothing", "marker=00000000-0000-4000-8000-000000000000"] {
        world.get("demo", 1, &format!("/servers?{query}")).await.fault(400, "badRequest");
    }
    let foreign = world.get("other", 1, "/servers").await.body["servers"][0]["id"].as_str().unwrap().to_owned();
    world.get("demo", 1, &format!("/servers?marker={foreign}")).await.fault(400, "badRequest");
}

#[tokio::test]
async fn lists_are_sorted_as_asked() {
    let world = world().await;
    assert_eq!(world.names("demo", 1, "?sort_key=display_name&sort_dir=asc").await, ["alpha", "beta", "gamma"]);
    assert_eq!(world.names("demo", 1, "?sort_key=display_name").await, ["gamma", "beta", "alpha"]);
    assert_eq!(world.names("demo", 1, "?sort_dir=asc").await, ["alpha", "beta", "gamma"]);
    assert_eq!(world.names("demo", 1, "?sort_key=vcpus").await.len(), 3);
    for query in ["sort_key=nothing", "sort_dir=up"] {
        world.get("demo", 1, &format!("/servers?{query}")).await.fault(400, "badRequest");
    }
    world.get("demo", 75, "/servers?sort_key=vcpus").await.fault(400, "badRequest");
    world.get("demo", 1, "/servers?sort_key=host").await.fault(403, "forbidden");
}

#[tokio::test]
async fn names_are_patterns() {
    let world = world().await;
    assert_eq!(world.names("demo", 1, "?name=^a").await, ["alpha"]);
    assert_eq!(world.names("demo", 1, "?name=et").await, ["beta"]);
    world.get("demo", 1, "/servers?name=[").await.fault(400, "badRequest");
    world.get("demo", 1, "/servers?name=(a{1000}){1000}").await.fault(400, "badRequest");
}

#[tokio::test]
async fn a_status_lists_exactly_what_shows_it() {
    let world = world().await;
    let id = world.create("demo", "delta").await;
    world.settle(&id, VmState::Active, "h1").await;
    assert_eq!(world.names("demo", 1, "?status=active").await, ["delta"]);
    assert_eq!(world.names("demo", 1, "?status=BUILD").await.len(), 3);
    assert_eq!(world.names("demo", 1, "?status=BUILD&status=ACTIVE").await.len(), 4);
    world.call("demo", 1, &format!("POST /servers/{id}/action"), Some(json!({"reboot": {"type": "SOFT"}}))).await;
    assert_eq!(world.names("demo", 1, "?status=ACTIVE").await, [""; 0]);
    assert_eq!(world.names("demo", 1, "?status=REBOOT").await, ["delta"]);
    assert_eq!(world.names("demo", 37, "?status=NONSENSE").await, [""; 0]);
    let answer = world.get("demo", 38, "/servers?status=NONSENSE").await;
    assert_eq!(answer.fault(400, "badRequest"), "Invalid status value");
    world.get("demo", 1, "/servers?status=DELETED").await.fault(403, "forbidden");
}

#[tokio::test]
async fn deleted_servers_show_in_changes_and_to_administrators() {
    let world = world().await;
    let id = world.create("demo", "gone").await;
    world.settle(&id, VmState::Deleted, "h1").await;
    assert_eq!(world.names("demo", 1, "?deleted=True").await.len(), 3);
    assert_eq!(world.names("admin", 1, "?deleted=True&all_tenants=1").await, ["gone"]);
    let changes = world.get("demo", 66, "/servers/detail?changes-since=2026-11-22T08:03:14Z").await;
    assert_eq!(changes.body["servers"][0]["status"], "DELETED");
    assert_eq!(changes.body["servers"].as_array().unwrap().len(), 1, "{}", changes.text);
    assert_eq!(world.names("demo", 66, "?changes-before=2026-11-22T08:03:11Z").await, ["alpha"]);
    for query in ["changes-since=soon", "changes-since=2026-11-22T08:03:14Z&changes-before=2026-11-22T08:03:13Z"] {
        world.get("demo", 66, &format!("/servers?{query}")).await.fault(400, "badRequest");
    }
}

#[tokio::test]
async fn tags_images_flavors_and_addresses_select() {
    let world = world().await;
    let mut body = json!({"server": server("tagged")});
    body["server"]["tags"] = json!(["a", "b"]);
    body["server"]["networks"] = json!("none");
    assert_eq!(world.call("demo", 52, "POST /servers", Some(body)).await.status, 202);
    assert_eq!(world.names("demo", 26, "?tags=a,b").await, ["tagged"]);
    assert_eq!(world.names("demo", 26, "?tags=a,c").await, [""; 0]);
    assert_eq!(world.names("demo", 26, "?tags-any=c,b").await, ["tagged"]);
    assert_eq!(world.names("demo", 26, "?not-tags-any=b").await.len(), 3);
    assert_eq!(world.names("demo", 26, "?not-tags=a,c").await.len(), 4);
    assert_eq!(world.names("demo", 1, "?tags=a").await.len(), 4, "tags are no filter below 2.26");
    assert_eq!(world.names("demo", 1, "?flavor=1").await.len(), 4);
    assert_eq!(world.names("demo", 1, "?flavor=2").await, [""; 0]);
    assert_eq!(world.names("demo", 1, &format!("?image={}", super::world::IMAGE)).await.len(), 4);
    assert_eq!(world.names("demo", 1, "?image=nothing").await, [""; 0]);
    assert_eq!(world.names("demo", 1, "?ip=10.").await, [""; 0]);
    assert_eq!(world.names("admin", 1, "?all_tenants=1&host=h9").await, [""; 0]);
}

#[tokio::test]
async fn unknown_keys_are_passed_over_until_2_74() {
    let world = world().await;
    assert_eq!(world.names("demo", 74, "?nonsense=1").await.len(), 3);
    world.get("demo", 75, "/servers?nonsense=1").await.fault(400, "badRequest");
    assert_eq!(world.names("demo", 104, "?deleted=False").await.len(), 3);
}
