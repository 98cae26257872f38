//! `POST /servers`.

use nova_core::ids::ProjectId;
use nova_core::quota::Limits;
use nova_core::state::{TaskState, VmState};
use nova_core::task::Work;
use serde_json::{Value, json};

use super::world::{HUGE, IMAGE, LARGE, QUEUED, World, only_compute, server};
use crate::api::compute::ComputeOptions;

/// The body with these keys of `server` set.
fn with(changes: Value) -> Value {
    let mut server = server("vm");
    for (key, value) in changes.as_object().unwrap() {
        server[key] = value.clone();
    }
    json!({"server": server})
}

#[tokio::test]
async fn a_server_is_written_with_its_task_in_one_transaction() {
    let world = World::new().await;
    let before = world.store.commits();
    let answer = world.call("demo", 1, "POST /servers", Some(with(json!({"key_name": "key"})))).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(world.store.commits(), before + 1);
    let server = &answer.body["server"];
    let id = server["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("http://cloud:8774/compute/v2.1/servers/{id}"));
    assert_eq!(server["links"][1]["href"], format!("http://cloud:8774/compute/servers/{id}"));
    assert_eq!(server["security_groups"], json!([{"name": "default"}]));
    assert_eq!(server["OS-DCF:diskConfig"], "MANUAL");
    assert_eq!(server["adminPass"].as_str().unwrap().len(), 12);
    assert_eq!(server.as_object().unwrap().len(), 5);

    let instance = world.instance(id).await;
    assert_eq!((instance.vm_state, instance.task_state), (VmState::Building, Some(TaskState::Scheduling)));
    assert_eq!(instance.project_id, ProjectId::new("dddd0000"));
    assert_eq!(instance.display_description.as_deref(), Some("vm"));
    assert_eq!(instance.key_data.as_deref(), Some("ssh-ed25519 AAAA"));
    let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
    let Work::Build { spec, admin_password, keys, .. } = &tasks[0].work else { panic!("{tasks:?}") };
    assert_eq!(spec.instances, [instance.id]);
    assert_eq!((spec.resources.vcpus, spec.alternates), (1, 2));
    assert_eq!(admin_password.as_deref(), server["adminPass"].as_str());
    assert_eq!(keys["key"], "ssh-ed25519 AAAA");
    assert!(tasks[0].free_for("anyone", world.clock.0.lock().unwrap().to_owned()));
    assert_eq!(*world.orders.started.lock().unwrap(), [tasks[0].id]);
    let actions = world.store.list_actions(instance.id).await.unwrap();
    assert_eq!(actions[0].action, "create");
    assert_eq!(actions[0].request_id.as_str(), answer.header("x-openstack-request-id"));
}

#[tokio::test]
async fn a_lost_cast_is_no_error() {
    let world = World::new().await;
    *world.orders.refuse.lock().unwrap() = true;
    world.create("demo", "vm").await;
}

#[tokio::test]
async fn several_servers_share_reservation_and_spec() {
    let world = World::new().await;
    let body = with(json!({"min_count": "2", "max_count": 2, "return_reservation_id": "true"}));
    let answer = world.call("demo", 1, "POST /servers", Some(body)).await;
    assert_eq!(answer.status, 202);
    let reservation = answer.body["reservation_id"].as_str().unwrap();
    let list = world
        .get("demo", 1, &format!("/servers?reservation_id={reservation}&sort_key=display_name&sort_dir=asc"))
        .await;
    let names: Vec<_> = list.body["servers"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["vm-1", "vm-2"]);
    let tasks = world.store.list_tasks(None).await.unwrap();
    for task in &tasks {
        let Work::Build { spec, .. } = &task.work else { panic!() };
        assert_eq!(spec.instances.len(), 2);
    }
}

#[tokio::test]
async fn quota_allows_as_many_as_fit_but_not_fewer_than_asked() {
    let limits = Limits { instances: Some(3), cores: None, ram: Some(512 * 3) };
    let world = World::with(ComputeOptions { limits, ..ComputeOptions::default() }, only_compute()).await;
    let most = world.call("demo", 1, "POST /servers", Some(with(json!({"min_count": 1, "max_count": 10})))).await;
    assert_eq!(most.status, 202, "{}", most.text);
    assert_eq!(world.store.usage(&ProjectId::new("dddd0000")).await.unwrap().instances, 3);
    let over = world.call("demo", 1, "POST /servers", Some(with(json!({})))).await;
    assert_eq!(
        over.fault(403, "forbidden"),
        "Quota exceeded for instances, ram: Requested 1, 512, but already used 3, 1536 of 3, 1536 instances, ram"
    );
    assert_eq!(world.call("other", 1, "POST /servers", Some(with(json!({})))).await.status, 202);
}

#[tokio::test]
async fn the_same_request_id_makes_the_same_servers() {
    let world = World::new().await;
    let id = "req-5f3e1d2c-0000-4000-8000-1234567890ab";
    let headers = [("x-auth-token", "demo".to_owned()), ("x-openstack-request-id", id.to_owned())];
    let post = |body: Value| world.raw("POST /servers", &headers, body.to_string());
    let first = post(with(json!({}))).await;
    let commits = world.store.commits();
    let again = post(with(json!({}))).await;
    assert_eq!(first.body, again.body, "the password included");
    assert_eq!(world.store.commits(), commits);
    // Another server under the same id is another request.
    let other = post(with(json!({"name": "two"}))).await;
    assert_eq!(other.status, 202);
    assert_ne!(first.body["server"]["id"], other.body["server"]["id"]);
    assert_eq!(world.get("demo", 1, "/servers").await.body["servers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_asked_for_must_exist_and_fit() {
    let world = World::new().await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let cases = [
        (json!({"imageRef": unknown}), "Can not find requested image"),
        (json!({"imageRef": ""}), "Missing imageRef attribute"),
        (json!({"imageRef": QUEUED}), &format!("Image {QUEUED} is not active.")),
        (json!({"imageRef": LARGE}), "Flavor's memory is too small for requested image."),
        // OSSA-2013-012, -2013-029 (row 7): before anything is written.
        (
            json!({"imageRef": HUGE}),
            "Flavor's disk is too small for requested image. Flavor disk is 1073741824 bytes, image is 1099511627776 bytes.",
        ),
        (json!({"flavorRef": "99"}), "Flavor 99 could not be found."),
        (json!({"flavorRef": "2"}), "Flavor 2 could not be found."),
        (json!({"key_name": "other"}), "Invalid key_name provided."),
        (json!({"networks": [{"uuid": unknown}]}), &format!("Network {unknown} could not be found.")),
        (json!({"networks": [{"port": unknown}]}), &format!("Port id {unknown} could not be found.")),
        (json!({"security_groups": [{"name": "web"}]}), "Unable to find security_group with name or id 'web'"),
        (json!({"availability_zone": "moon"}), "The requested availability zone is not available"),
        (json!({"min_count": 3, "max_count": 2}), "min_count must be <= max_count"),
        (
            json!({"block_device_mapping_v2": [{"uuid": unknown, "source_type": "volume", "boot_index": 0}]}),
            &format!("Block Device Mapping is Invalid: failed to get volume {unknown}."),
        ),
    ];
    let before = world.store.commits();
    for (change, text) in cases {
        let answer = world.call("demo", 1, "POST /servers", Some(with(change.clone()))).await;
        assert_eq!(answer.fault(400, "badRequest"), text, "{change}");
    }
    let group = json!({"server": server("vm"), "os:scheduler_hints": {"group": unknown}});
    let answer = world.call("demo", 1, "POST /servers", Some(group)).await;
    assert_eq!(answer.fault(400, "badRequest"), format!("Instance group {unknown} could not be found."));
    assert_eq!(world.store.commits(), before);
}

#[tokio::test]
async fn the_cli_s_own_body_is_taken() {
    let world = World::new().await;
    let root = json!([{"uuid": IMAGE, "boot_index": 0, "source_type": "image", "destination_type": "local",
        "delete_on_termination": true}]);
    for networks in [json!("none"), json!("auto"), json!([])] {
        let body = with(json!({"min_count": 1, "max_count": 1, "networks": networks, "block_device_mapping_v2": root}));
        let answer = world.call("demo", 100, "POST /servers", Some(body)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
}

#[tokio::test]
async fn keys_are_taken_from_their_version_on() {
    let world = World::new().await;
    let networks = |mut server: Value| {
        server["networks"] = json!("none");
        server
    };
    let cases = [
        (19, "description", json!("d")),
        (52, "tags", json!(["a"])),
        (63, "trusted_image_certificates", json!(null)),
        (90, "hostname", json!("ho")),
    ];
    for (since, key, value) in cases {
        for minor in [since - 1, since] {
            let server = if minor >= 37 { networks(server("vm")) } else { server("vm") };
            let mut body = json!({"server": server});
            body["server"][key] = value.clone();
            let answer = world.call("admin", minor, "POST /servers", Some(body)).await;
            let expected = if minor < since { 400 } else { 202 };
            assert_eq!(answer.status, expected, "{key} at 2.{minor}: {}", answer.text);
            if minor < since {
                assert!(answer.text.contains(&format!("('{key}' was unexpected)")), "{}", answer.text);
            }
        }
    }
    let missing = world.call("demo", 37, "POST /servers", Some(json!({"server": server("vm")}))).await;
    assert!(missing.fault(400, "badRequest").contains("'networks' is a required property"));
    let gone = with(json!({"personality": [], "networks": "none"}));
    assert_eq!(world.call("demo", 57, "POST /servers", Some(gone)).await.status, 400);
    let dotted = with(json!({"hostname": "a.b", "networks": "none"}));
    assert_eq!(world.call("demo", 93, "POST /servers", Some(dotted.clone())).await.status, 400);
    assert_eq!(world.call("demo", 94, "POST /servers", Some(dotted)).await.status, 202);
}

#[tokio::test]
async fn placing_on_a_host_is_for_administrators() {
    let world = World::new().await;
    let forced = with(json!({"availability_zone": "nova:h1"}));
    let answer = world.call("demo", 1, "POST /servers", Some(forced.clone())).await;
    assert_eq!(
        answer.fault(403, "forbidden"),
        "Policy doesn't allow os_compute_api:servers:create:forced_host to be performed."
    );
    assert_eq!(world.call("admin", 1, "POST /servers", Some(forced)).await.status, 202);
    let tasks = world.store.list_tasks(None).await.unwrap();
    let Work::Build { spec, .. } = &tasks[0].work else { panic!() };
    assert_eq!(spec.force_host.as_ref().unwrap().as_str(), "h1");
    let named = with(json!({"host": "h1", "networks": "none"}));
    assert_eq!(world.call("demo", 74, "POST /servers", Some(named.clone())).await.status, 403);
    let answer = world.call("admin", 74, "POST /servers", Some(named)).await;
    assert_eq!(answer.fault(400, "badRequest"), "Compute host h1 could not be found.");
}

#[tokio::test]
async fn flavors_without_root_disk_are_for_those_whom_policy_trusts() {
    let world = World::new().await;
    let mut flavor = world.store.get_flavor(&"1".into()).await.unwrap();
    flavor.root_gb = 0;
    world.store.update_flavor(flavor).await.unwrap();
    let answer = world.call("demo", 1, "POST /servers", Some(with(json!({})))).await;
    let text = "Only volume-backed servers are allowed for flavors with zero disk.";
    assert_eq!(answer.fault(403, "forbidden"), text);
    assert_eq!(world.call("admin", 1, "POST /servers", Some(with(json!({})))).await.status, 202);
}

#[tokio::test]
async fn readers_do_not_write() {
    let world = World::new().await;
    let before = world.store.commits();
    let answer = world.call("reader", 1, "POST /servers", Some(with(json!({})))).await;
    answer.fault(403, "forbidden");
    assert_eq!(world.store.commits(), before);
}
