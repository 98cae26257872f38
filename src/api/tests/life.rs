//! What is done to servers on their hosts: who may, when, at which version, and what is answered.

use nova_core::entropy::SeededEntropy;
use nova_core::ids::ComputeNodeId;
use nova_core::image::ImageStatus;
use nova_core::quota::Limits;
use nova_core::state::{LockedBy, TaskState, VmState};
use nova_core::task::Work;
use serde_json::{Value, json};

use super::world::{Answer, IMAGE, LARGE, QUEUED, World};
use crate::api::compute::ComputeOptions;

impl World {
    async fn act_at(&self, token: &str, minor: u16, id: &str, body: Value) -> Answer {
        self.call(token, minor, &format!("POST /servers/{id}/action"), Some(body)).await
    }

    /// One in which there may be any number of servers.
    async fn wide() -> Self {
        let limits = Limits { instances: None, cores: None, ram: None };
        Self::with(ComputeOptions { limits, ..ComputeOptions::default() }, super::world::only_compute()).await
    }

    async fn node(&self, host: &str, hypervisor: &str) {
        let node = json!({
            "id": ComputeNodeId::generate(&SeededEntropy::new(host.len() as u64 + u64::from(host.as_bytes()[1]))),
            "host": host, "hypervisor_hostname": host, "hypervisor_type": hypervisor, "hypervisor_version": 1,
            "host_ip": "192.0.2.1", "zone": "nova",
            "inventory": {
                "total": {"vcpus": 8, "memory_mb": 16384, "disk_gb": 100},
                "reserved": {"vcpus": 0, "memory_mb": 0, "disk_gb": 0},
                "cpu_ratio": 1.0, "ram_ratio": 1.0, "disk_ratio": 1.0,
            },
            "created_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:00Z",
        });
        self.store.put_node(serde_json::from_value(node).unwrap()).await.unwrap();
    }

    async fn in_state(&self, state: VmState) -> String {
        let id = self.create("demo", "vm").await;
        self.settle(&id, state, "h1").await;
        self.pass(1);
        id
    }
}

#[tokio::test]
async fn each_has_its_state_task_record_policy_and_lock() {
    let world = World::wide().await;
    let image = json!({"imageRef": IMAGE});
    let cases = [
        (VmState::Active, json!({"pause": null}), Some(TaskState::Pausing), "pause", 202),
        (VmState::Paused, json!({"unpause": null}), Some(TaskState::Unpausing), "unpause", 202),
        (VmState::Active, json!({"suspend": null}), Some(TaskState::Suspending), "suspend", 202),
        (VmState::Suspended, json!({"resume": null}), Some(TaskState::Resuming), "resume", 202),
        (VmState::SoftDelete, json!({"restore": null}), Some(TaskState::Restoring), "restore", 202),
        (VmState::SoftDelete, json!({"forceDelete": null}), Some(TaskState::Deleting), "delete", 202),
        (VmState::Error, json!({"rescue": {}}), Some(TaskState::Rescuing), "rescue", 200),
        (VmState::Rescued, json!({"unrescue": null}), Some(TaskState::Unrescuing), "unrescue", 202),
        (VmState::Stopped, json!({ "rebuild": image }), Some(TaskState::Rebuilding), "rebuild", 202),
        (
            VmState::Active,
            json!({"changePassword": {"adminPass": "x"}}),
            Some(TaskState::UpdatingPassword),
            "changePassword",
            202,
        ),
        (VmState::Paused, json!({"trigger_crash_dump": null}), None, "trigger_crash_dump", 202),
    ];
    for (state, body, task_state, record, status) in cases {
        let id = world.in_state(state).await;
        world.act_at("reader", 17, &id, body.clone()).await.fault(403, "forbidden");
        world.act_at("other", 17, &id, body.clone()).await.fault(404, "itemNotFound");
        let mut instance = world.instance(&id).await;
        instance.locked = Some(LockedBy::Owner);
        let mut instance = world.store.update_instance(instance).await.unwrap();
        let locked = world.act_at("demo", 17, &id, body.clone()).await;
        assert_eq!(locked.fault(409, "conflictingRequest"), format!("Instance {id} is locked"), "{body}");
        instance.locked = None;
        world.store.update_instance(instance).await.unwrap();
        let before = world.store.commits();
        let answer = world.act_at("demo", 17, &id, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert_eq!(world.store.commits(), before + 1, "{body}");
        let instance = world.instance(&id).await;
        assert_eq!((instance.vm_state, instance.task_state), (state, task_state), "{body}");
        let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
        assert_eq!(world.orders.started.lock().unwrap().last(), Some(&tasks[0].id));
        assert_eq!(world.store.list_actions(instance.id).await.unwrap()[0].action, record);
        if task_state.is_some_and(|task| task != TaskState::Deleting) {
            let again = world.act_at("demo", 17, &id, body.clone()).await;
            let key = body.as_object().unwrap().keys().next().unwrap();
            let text = format!("Cannot '{key}' instance {id} while it is in task_state {}", task_state.unwrap());
            assert_eq!(again.fault(409, "conflictingRequest"), text);
        }
    }
}

#[tokio::test]
async fn crash_dumps_came_with_2_17_and_have_no_content() {
    let world = World::new().await;
    let id = world.in_state(VmState::Active).await;
    world.act_at("demo", 16, &id, json!({"trigger_crash_dump": null})).await.fault(404, "itemNotFound");
    world.act_at("demo", 17, &id, json!({"trigger_crash_dump": {}})).await.fault(400, "badRequest");
}

/// A password is refused at once where nobody could set it, as Nova refuses it, and nothing is begun; what forbids it besides is
/// told first.
#[tokio::test]
async fn a_password_needs_an_agent() {
    const NO_AGENT: &str = "QEMU guest agent is not enabled";
    let world = World::wide().await;
    for (host, hypervisor) in [("h1", "QEMU"), ("h2", "fake")] {
        world.node(host, hypervisor).await;
    }
    let body = json!({"changePassword": {"adminPass": "x"}});
    let change = async |token: &str, id: &str| world.act_at(token, 1, id, body.clone()).await;
    let cases = [
        ("h1", None, false),
        ("h1", Some("no"), false),
        ("h1", Some("yes"), true),
        ("h1", Some("True"), true),
        ("h2", None, true),
        ("h2", Some("false"), false),
        ("h2", Some("yes"), true),
        ("nowhere", None, true),
    ];
    for (host, agent, there) in cases {
        let id = world.create("demo", "vm").await;
        world.settle(&id, VmState::Active, host).await;
        let mut instance = world.instance(&id).await;
        let said = agent.map(|agent| ("hw_qemu_guest_agent".to_owned(), agent.to_owned()));
        instance.image.as_mut().unwrap().properties.extend(said);
        world.store.update_instance(instance).await.unwrap();
        let before = world.store.commits();
        let answer = change("demo", &id).await;
        if there {
            assert_eq!(answer.status, 202, "{host} {agent:?}: {}", answer.text);
            continue;
        }
        assert_eq!(answer.fault(409, "conflictingRequest"), NO_AGENT, "{host} {agent:?}");
        assert_eq!(world.store.commits(), before, "{host} {agent:?}");
        let instance = world.instance(&id).await;
        assert_eq!((instance.vm_state, instance.task_state), (VmState::Active, None));
        change("reader", &id).await.fault(403, "forbidden");
        change("other", &id).await.fault(404, "itemNotFound");
        world.settle(&id, VmState::Stopped, host).await;
        let stopped = change("demo", &id).await;
        let text = format!("Cannot 'changePassword' instance {id} while it is in vm_state stopped");
        assert_eq!(stopped.fault(409, "conflictingRequest"), text);
    }
}

#[tokio::test]
async fn a_deleted_server_waits_where_the_operator_wants_it() {
    let reclaim_instance_interval = std::time::Duration::from_secs(60);
    let options = ComputeOptions { reclaim_instance_interval, ..ComputeOptions::default() };
    let world = World::with(options, super::world::only_compute()).await;
    let id = world.in_state(VmState::Active).await;
    assert_eq!(world.call("demo", 1, &format!("DELETE /servers/{id}"), None).await.status, 204);
    let instance = world.instance(&id).await;
    assert_eq!(instance.task_state, Some(TaskState::SoftDeleting));
    let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
    assert!(matches!(tasks[..], [ref task] if task.work == Work::SoftDelete));
    // One that never was on a host has nothing to be kept.
    let building = world.create("demo", "vm").await;
    assert_eq!(world.call("demo", 1, &format!("DELETE /servers/{building}"), None).await.status, 204);
    let instance = world.instance(&building).await;
    assert_eq!(instance.task_state, Some(TaskState::Deleting));
    let tasks = world.store.list_tasks(Some(instance.id)).await.unwrap();
    assert!(matches!(tasks[..], [ref task] if task.work == Work::Delete));
}

#[tokio::test]
async fn a_rescue_answers_with_its_password() {
    let world = World::new().await;
    let id = world.in_state(VmState::Active).await;
    for (body, text) in [
        (json!({"rescue_image_ref": LARGE.replace('9', "1")}), "is not supported"),
        (json!({"rescue_image_ref": QUEUED}), "is not supported"),
        (json!({"rescue_image_ref": "x"}), "is not a 'uuid'"),
        (json!({"adminPass": 1}), "adminPass"),
        (json!({"color": 1}), "color"),
    ] {
        let answer = world.act_at("demo", 1, &id, json!({ "rescue": body })).await;
        let message = answer.fault(400, "badRequest");
        assert!(message.contains(text), "{body}: {message}");
    }
    let answer = world.act_at("demo", 1, &id, json!({"rescue": null})).await;
    assert_eq!((answer.status, answer.body["adminPass"].as_str().unwrap().len()), (200, 12));
    let tasks = world.store.list_tasks(Some(id.parse().unwrap())).await.unwrap();
    let Work::Rescue { image, .. } = &tasks[0].work else { panic!("{:?}", tasks[0].work) };
    assert_eq!(image.id.to_string(), IMAGE, "its own");
}

#[tokio::test]
async fn a_rebuild_is_answered_as_each_version_shows_it() {
    let world = World::wide().await;
    let rebuild = async |minor: u16| {
        let id = world.in_state(VmState::Active).await;
        let body = json!({"rebuild": {"imageRef": IMAGE, "name": "new", "adminPass": "given"}});
        let answer = world.act_at("demo", minor, &id, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert!(answer.header("location").ends_with(&format!("/servers/{id}")), "{:?}", answer.headers);
        let server = &answer.body["server"];
        assert_eq!((&server["name"], &server["adminPass"]), (&json!("new"), &json!("given")));
        assert_eq!(server["status"], "REBUILD");
        server.as_object().unwrap().keys().cloned().collect::<Vec<String>>()
    };
    let first = [
        "OS-DCF:diskConfig",
        "accessIPv4",
        "accessIPv6",
        "addresses",
        "adminPass",
        "created",
        "flavor",
        "hostId",
        "id",
        "image",
        "links",
        "metadata",
        "name",
        "progress",
        "status",
        "tenant_id",
        "updated",
        "user_id",
    ];
    assert_eq!(rebuild(1).await, first);
    let has = async |minor: u16, key: &str| rebuild(minor).await.iter().any(|held| held == key);
    for (minor, key) in [(54, "key_name"), (57, "user_data"), (63, "trusted_image_certificates"), (71, "server_groups")]
    {
        assert!(!has(minor - 1, key).await && has(minor, key).await, "{key} since 2.{minor}");
    }
    assert!(!has(74, "OS-EXT-STS:vm_state").await && has(75, "OS-EXT-STS:vm_state").await);
}

#[tokio::test]
async fn what_cannot_be_rebuilt_from_is_refused() {
    let world = World::new().await;
    let id = world.in_state(VmState::Active).await;
    let unknown = "11a599e0-31e7-49b7-b260-868f441e862b";
    for (body, text) in [
        (json!({ "imageRef": unknown }), "Cannot find image for rebuild"),
        (json!({ "imageRef": LARGE }), "Flavor's memory is too small for requested image."),
        (json!({"imageRef": IMAGE, "key_name": "none"}), "Invalid key_name provided."),
        (json!({"imageRef": IMAGE, "metadata": {"": "x"}}), "metadata"),
        (json!({"name": "x"}), "'imageRef' is a required property"),
    ] {
        let answer = world.act_at("demo", 60, &id, json!({ "rebuild": body })).await;
        let message = answer.fault(400, "badRequest");
        assert!(message.contains(text), "{body}: {message}");
    }
    let many: serde_json::Map<String, Value> = (0..129).map(|n| (n.to_string(), json!("x"))).collect();
    let answer = world.act_at("demo", 1, &id, json!({"rebuild": {"imageRef": IMAGE, "metadata": many}})).await;
    assert_eq!(answer.fault(403, "forbidden"), "Maximum number of metadata items exceeds 128");
    assert_eq!(world.instance(&id).await.task_state, None);
}

#[tokio::test]
async fn an_image_is_told_by_header_and_from_2_45_by_body() {
    let world = World::new().await;
    let image = async |minor: u16, body: Value| {
        let id = world.in_state(VmState::Active).await;
        (world.act_at("demo", minor, &id, body).await, id)
    };
    let newest = async || world.store.list_images().await.unwrap().remove(0);
    let (answer, id) = image(44, json!({"createImage": {"name": "copy", "metadata": {"k": "v"}}})).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
    let made = newest().await;
    assert!(answer.header("location").ends_with(&format!("/images/{}", made.id)), "{:?}", answer.headers);
    assert_eq!(
        (made.status, made.name.as_deref(), made.disk_format.as_deref()),
        (ImageStatus::Queued, Some("copy"), Some("qcow2"))
    );
    let property = |key: &str| made.properties.get(key).map(String::as_str);
    assert_eq!((property("k"), property("instance_uuid")), (Some("v"), Some(id.as_str())));
    assert_eq!((property("image_type"), property("base_image_ref")), (Some("snapshot"), Some(IMAGE)));
    assert_eq!(property("hw_disk_bus"), Some("virtio"), "of the image that it was made from");
    let (answer, _) = image(45, json!({"createImage": {"name": "copy"}})).await;
    assert_eq!((answer.status, answer.header("location")), (202, ""));
    assert_eq!(answer.body, json!({"image_id": newest().await.id}));
    let backup = |rotation: i64| json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": rotation}});
    let (answer, _) = image(1, backup(1)).await;
    assert_eq!((answer.status, answer.header("location").is_empty()), (202, false));
    assert_eq!(newest().await.properties["backup_type"], "daily");
    let (answer, _) = image(1, backup(0)).await;
    assert_eq!((answer.status, answer.header("location")), (202, ""), "it is not kept");
    let (answer, _) = image(45, backup(0)).await;
    assert_eq!(answer.body, json!({"image_id": newest().await.id}));
}

#[tokio::test]
async fn an_image_that_is_refused_is_not_described() {
    let world = World::new().await;
    let id = world.in_state(VmState::Rescued).await;
    let answer = world.act_at("demo", 1, &id, json!({"createImage": {"name": "x"}})).await;
    let text = format!("Cannot 'createImage' instance {id} while it is in vm_state rescued");
    assert_eq!(answer.fault(409, "conflictingRequest"), text);
    let id = world.in_state(VmState::Active).await;
    for body in [
        json!({"createImage": {}}),
        json!({"createImage": {"name": ""}}),
        json!({"createImage": {"name": "x".repeat(256)}}),
        json!({"createImage": {"name": "x", "metadata": {"": "v"}}}),
        json!({"createImage": {"name": "x", "color": 1}}),
        json!({"createBackup": {"name": "x", "backup_type": "daily"}}),
        json!({"createBackup": {"name": "x", "rotation": 1}}),
        json!({"createBackup": {"name": "x", "backup_type": "daily", "rotation": -1}}),
    ] {
        world.act_at("demo", 1, &id, body).await.fault(400, "badRequest");
    }
    let many: serde_json::Map<String, Value> = (0..129).map(|n| (n.to_string(), json!("x"))).collect();
    let answer = world.act_at("demo", 1, &id, json!({"createImage": {"name": "x", "metadata": many}})).await;
    assert_eq!(answer.fault(403, "forbidden"), "Image metadata limit exceeded");
    assert!(world.store.list_images().await.unwrap().is_empty());
}

#[tokio::test]
async fn diagnostics_need_a_host_and_a_driver_that_has_some() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    let path = format!("/servers/{id}/diagnostics");
    world.get("demo", 1, &path).await.fault(403, "forbidden");
    let answer = world.get("admin", 1, &path).await;
    assert_eq!(answer.fault(409, "conflictingRequest"), format!("Instance {id} is not ready"));
    world.settle(&id, VmState::Active, "h1").await;
    world.get("admin", 1, &path).await.fault(501, "notImplemented");
    world.get("admin", 1, "/servers/1234/diagnostics").await.fault(404, "itemNotFound");
}

/// The body is Nova's to the letter; who looks after the cloud reads the header.
#[tokio::test]
async fn administrators_are_told_what_a_server_waits_for() {
    let world = World::new().await;
    let id = world.in_state(VmState::Active).await;
    let path = format!("/servers/{id}");
    let header = |answer: &Answer| answer.header("x-nova-waiting-for").to_owned();
    let idle = world.get("admin", 1, &path).await;
    assert_eq!(header(&idle), "");
    assert_eq!(world.act_at("demo", 1, &id, json!({"pause": null})).await.status, 202);
    let told = header(&world.get("admin", 1, &path).await);
    assert!(told.starts_with("pause: pause by any conductor since 20"), "{told}");
    assert!(told.contains(", until 20") && told.contains("(req-"), "{told}");
    assert_eq!(header(&world.get("demo", 1, &path).await), "", "tenants are not told of conductors and hosts");
}
