//! Exactly the keys of each version, no more and no fewer: clients' schemas forbid both.

use std::collections::BTreeSet;

use nova_core::fault::Fault;
use nova_core::state::VmState;
use serde_json::{Value, json};

use super::world::World;

const BASE: &[&str] = &[
    "OS-DCF:diskConfig",
    "OS-EXT-AZ:availability_zone",
    "OS-EXT-STS:power_state",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:vm_state",
    "OS-SRV-USG:launched_at",
    "OS-SRV-USG:terminated_at",
    "accessIPv4",
    "accessIPv6",
    "addresses",
    "config_drive",
    "created",
    "flavor",
    "hostId",
    "id",
    "image",
    "key_name",
    "links",
    "metadata",
    "name",
    "os-extended-volumes:volumes_attached",
    "progress",
    "status",
    "tenant_id",
    "updated",
    "user_id",
];
const REDUCED: &[&str] = &[
    "OS-DCF:diskConfig",
    "accessIPv4",
    "accessIPv6",
    "addresses",
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
/// What came with which version, for everyone.
const ADDED: &[(u16, &str)] = &[
    (9, "locked"),
    (19, "description"),
    (26, "tags"),
    (63, "trusted_image_certificates"),
    (71, "server_groups"),
    (73, "locked_reason"),
    (90, "OS-EXT-SRV-ATTR:hostname"),
    (96, "pinned_availability_zone"),
    (100, "scheduler_hints"),
];
const ADMIN: &[(u16, &str)] = &[
    (1, "OS-EXT-SRV-ATTR:host"),
    (1, "OS-EXT-SRV-ATTR:hypervisor_hostname"),
    (1, "OS-EXT-SRV-ATTR:instance_name"),
    (3, "OS-EXT-SRV-ATTR:hostname"),
    (3, "OS-EXT-SRV-ATTR:kernel_id"),
    (3, "OS-EXT-SRV-ATTR:launch_index"),
    (3, "OS-EXT-SRV-ATTR:ramdisk_id"),
    (3, "OS-EXT-SRV-ATTR:reservation_id"),
    (3, "OS-EXT-SRV-ATTR:root_device_name"),
    (3, "OS-EXT-SRV-ATTR:user_data"),
    (16, "host_status"),
];

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

fn expected(base: &[&str], added: &[&[(u16, &str)]], minor: u16) -> BTreeSet<String> {
    let added = added.iter().flat_map(|list| list.iter()).filter(|(since, _)| minor >= *since).map(|(_, key)| *key);
    base.iter().copied().chain(added).map(str::to_owned).collect()
}

async fn active(world: &World) -> String {
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Active, "h1").await;
    id
}

#[tokio::test]
async fn a_shown_server_has_exactly_its_version_s_keys() {
    let world = World::new().await;
    let id = active(&world).await;
    for minor in 1..=104 {
        let own = world.get("demo", minor, &format!("/servers/{id}")).await.body["server"].clone();
        assert_eq!(keys(&own), expected(BASE, &[ADDED], minor), "2.{minor}");
        let admin = world.get("admin", minor, &format!("/servers/{id}")).await.body["server"].clone();
        assert_eq!(keys(&admin), expected(BASE, &[ADDED, ADMIN], minor), "2.{minor} for administrators");
        let list = world.get("demo", minor, "/servers/detail").await.body["servers"][0].clone();
        let mut wanted = expected(BASE, &[ADDED], minor);
        wanted.remove("server_groups");
        assert_eq!(keys(&list), wanted, "2.{minor} in a list");
    }
}

#[tokio::test]
async fn an_updated_server_is_reduced_until_2_74() {
    let world = World::new().await;
    let id = active(&world).await;
    for minor in 1..=104 {
        let body = Some(json!({"server": {"name": "vm"}}));
        let answer = world.call("demo", minor, &format!("PUT /servers/{id}"), body).await;
        let base = if minor < 75 { REDUCED } else { BASE };
        assert_eq!(keys(&answer.body["server"]), expected(base, &[ADDED], minor), "2.{minor}");
    }
}

#[tokio::test]
async fn a_server_at_2_1_reads_as_nova_s() {
    let world = World::new().await;
    let id = active(&world).await;
    let server = world.get("demo", 1, &format!("/servers/{id}")).await.body["server"].clone();
    let root = "http://cloud:8774/compute";
    assert_eq!(
        server,
        json!({
            "id": id,
            "name": "vm",
            "status": "ACTIVE",
            "tenant_id": "dddd0000",
            "user_id": "demo",
            "metadata": {},
            "hostId": server["hostId"],
            "image": {"id": super::world::IMAGE, "links": [{"rel": "bookmark", "href": format!("{root}/images/{}", super::world::IMAGE)}]},
            "flavor": {"id": "1", "links": [{"rel": "bookmark", "href": format!("{root}/flavors/1")}]},
            "created": "2026-11-22T08:03:11Z",
            "updated": "2026-11-22T08:03:11Z",
            "addresses": {},
            "accessIPv4": "",
            "accessIPv6": "",
            "links": [
                {"rel": "self", "href": format!("{root}/v2.1/servers/{id}")},
                {"rel": "bookmark", "href": format!("{root}/servers/{id}")},
            ],
            "OS-DCF:diskConfig": "MANUAL",
            "progress": 0,
            "OS-EXT-AZ:availability_zone": "nova",
            "config_drive": "",
            "key_name": null,
            "OS-SRV-USG:launched_at": "2026-11-22T08:03:11.000000",
            "OS-SRV-USG:terminated_at": null,
            "OS-EXT-STS:task_state": null,
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:power_state": 1,
            "os-extended-volumes:volumes_attached": [],
        })
    );
    assert_eq!(server["hostId"].as_str().unwrap().len(), 56);
}

#[tokio::test]
async fn flavor_and_image_grow_with_the_version() {
    let world = World::new().await;
    let id = active(&world).await;
    let server = world.get("demo", 104, &format!("/servers/{id}")).await.body["server"].clone();
    let flavor = json!({"original_name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0,
        "extra_specs": {"hw:x": "y"}});
    assert_eq!(server["flavor"], flavor);
    assert_eq!(server["image"]["properties"], json!({"hw_disk_bus": "virtio"}));
    let admin = world.get("admin", 16, &format!("/servers/{id}")).await.body["server"].clone();
    assert_eq!(admin["host_status"], "UP");
    assert_eq!(admin["OS-EXT-SRV-ATTR:instance_name"], "instance-00000001");
    world.pass(61);
    let admin = world.get("admin", 16, &format!("/servers/{id}")).await.body["server"].clone();
    assert_eq!(admin["host_status"], "UNKNOWN");
}

#[tokio::test]
async fn the_host_id_differs_between_projects_and_hides_the_host() {
    let world = World::new().await;
    let mut ids = BTreeSet::new();
    for token in ["demo", "other"] {
        let id = world.create(token, "vm").await;
        let unplaced = world.get(token, 1, &format!("/servers/{id}")).await;
        assert_eq!(unplaced.body["server"]["hostId"], "");
        world.settle(&id, VmState::Active, "h1").await;
        let shown = world.get(token, 1, &format!("/servers/{id}")).await;
        assert!(!shown.text.contains("h1\""), "{}", shown.text);
        ids.insert(shown.body["server"]["hostId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn a_fault_s_details_are_for_administrators() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Error, "h1").await;
    let mut instance = world.instance(&id).await;
    let created = instance.created_at;
    instance.fault = Some(Fault::new(500, "No valid host was found.", "h1: no memory".into(), created));
    world.store.update_instance(instance).await.unwrap();
    let own = world.get("demo", 1, &format!("/servers/{id}")).await.body["server"].clone();
    let shown = json!({"code": 500, "created": "2026-11-22T08:03:11Z", "message": "No valid host was found."});
    assert_eq!(own["fault"], shown);
    assert!(own.get("progress").is_none());
    let admin = world.get("admin", 1, &format!("/servers/{id}")).await.body["server"].clone();
    assert_eq!(admin["fault"]["details"], "h1: no memory");
}

#[tokio::test]
async fn addresses_are_empty_until_there_is_a_network() {
    let world = World::new().await;
    let id = active(&world).await;
    assert_eq!(world.get("demo", 1, &format!("/servers/{id}/ips")).await.body, json!({"addresses": {}}));
    world.get("demo", 1, &format!("/servers/{id}/ips/private")).await.fault(404, "itemNotFound");
}
