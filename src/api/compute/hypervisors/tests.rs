//! Hypervisors at the versions around each change.

use serde_json::{Value, json};

use super::Hypervisors;
use crate::api::compute::services::Services;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, keys};

async fn bench(hosts: &[&str]) -> Bench {
    let bench = Bench::new(Hypervisors::new).add(Services::new);
    for host in hosts {
        bench.service("nova-compute", host, "nova").await;
        bench.node(host).await;
    }
    bench
}

#[tokio::test]
async fn a_hypervisor_has_the_keys_of_its_version() {
    let bench = bench(&["h1"]).await;
    let node = bench.api.store.list_nodes().await.unwrap().remove(0);
    let service = bench.api.store.list_services().await.unwrap().remove(0);
    let brief = json!({
        "id": node.number, "hypervisor_hostname": "h1.example.org", "state": "up", "status": "enabled",
    });
    assert_eq!(bench.get(ADMIN, 1, "/os-hypervisors").await, json!({"hypervisors": [brief]}));
    let mut full = json!({
        "id": node.number, "hypervisor_hostname": "h1.example.org", "state": "up", "status": "enabled",
        "hypervisor_type": "QEMU", "hypervisor_version": 7_002_022, "host_ip": "192.0.2.1",
        "service": {"id": service.number, "host": "h1", "disabled_reason": null},
        "vcpus": 8, "vcpus_used": 0, "memory_mb": 16384, "memory_mb_used": 512, "free_ram_mb": 15872,
        "local_gb": 100, "local_gb_used": 0, "free_disk_gb": 100, "disk_available_least": 100,
        "running_vms": 0, "current_workload": 0,
        "cpu_info": "{\"arch\":\"x86_64\",\"topology\":{\"sockets\":1}}",
    });
    assert_eq!(bench.get(ADMIN, 27, "/os-hypervisors/detail").await["hypervisors"][0], full);
    full["cpu_info"] = json!({"arch": "x86_64", "topology": {"sockets": 1}});
    let by_number = format!("/os-hypervisors/{}", node.number);
    assert_eq!(bench.get(ADMIN, 28, &by_number).await, json!({ "hypervisor": full }));
    full["id"] = json!(node.id);
    full["service"]["id"] = json!(service.id);
    let by_uuid = format!("/os-hypervisors/{}", node.id);
    assert_eq!(bench.get(ADMIN, 53, &by_uuid).await["hypervisor"], full);
    assert_eq!(bench.get(ADMIN, 87, &by_uuid).await["hypervisor"], full);
    let slim = bench.get(ADMIN, 88, &by_uuid).await["hypervisor"].clone();
    assert_eq!(
        keys(&slim),
        [
            "host_ip",
            "hypervisor_hostname",
            "hypervisor_type",
            "hypervisor_version",
            "id",
            "service",
            "state",
            "status",
            "uptime"
        ]
    );
    assert_eq!(slim["uptime"], "up 3 days");
    bench.pass(61);
    let down = bench.get(ADMIN, 88, &by_uuid).await["hypervisor"].clone();
    assert_eq!((&down["state"], &down["uptime"]), (&json!("down"), &Value::Null));
}

#[tokio::test]
async fn servers_are_shown_where_they_are_asked_for() {
    let bench = bench(&["h1", "h2"]).await;
    let server = bench.instance(DEMO, Some("h1")).await;
    let name = format!("instance-{:08x}", server.number);
    let expected = json!([{"uuid": server.id, "name": name}]);
    let old = bench.get(ADMIN, 52, "/os-hypervisors/example/servers").await;
    assert_eq!(old["hypervisors"][0]["servers"], expected);
    assert!(old["hypervisors"][1].get("servers").is_none());
    let at =
        async |minor: u16| bench.get(ADMIN, minor, "/os-hypervisors?with_servers=true").await["hypervisors"].clone();
    assert_eq!(at(53).await[0]["servers"], expected);
    assert!(at(74).await[1].get("servers").is_none());
    assert_eq!(at(75).await[1]["servers"], json!([]));
    assert!(bench.get(ADMIN, 75, "/os-hypervisors").await["hypervisors"][0].get("servers").is_none());
    assert!(bench.get(ADMIN, 52, "/os-hypervisors?with_servers=true").await["hypervisors"][0].get("servers").is_none());
    let node = bench.api.store.list_nodes().await.unwrap().remove(0);
    let shown = bench.get(ADMIN, 53, &format!("/os-hypervisors/{}?with_servers=1", node.id)).await;
    assert_eq!(shown["hypervisor"]["servers"], expected);
}

#[tokio::test]
async fn search_moves_into_the_query_at_2_53() {
    let bench = bench(&["alpha", "beta"]).await;
    let found = bench.get(ADMIN, 1, "/os-hypervisors/ALPH/search").await;
    assert_eq!(found["hypervisors"].as_array().unwrap().len(), 1);
    assert_eq!(bench.refused(ADMIN, 1, "GET /os-hypervisors/zzz/search", Value::Null).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 1, "GET /os-hypervisors/zzz/servers", Value::Null).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 53, "GET /os-hypervisors/alpha/search", Value::Null).await.0, 404);
    let found = bench.get(ADMIN, 53, "/os-hypervisors?hypervisor_hostname_pattern=alp").await;
    assert_eq!(found["hypervisors"][0]["hypervisor_hostname"], "alpha.example.org");
    for (query, status) in [
        ("hypervisor_hostname_pattern=zzz", 404),
        ("hypervisor_hostname_pattern=a&limit=1", 400),
        ("hypervisor_hostname_pattern=", 400),
        ("hypervisor_hostname_pattern=a%20b", 400),
        ("with_servers=maybe", 400),
        ("with_servers=1&with_servers=1", 400),
        ("foo=1", 400),
        ("limit=-1", 400),
        ("marker=nope", 400),
    ] {
        for path in ["/os-hypervisors", "/os-hypervisors/detail"] {
            let (got, text) = bench.refused(ADMIN, 53, &format!("GET {path}?{query}"), Value::Null).await;
            assert_eq!(got, status, "{query}: {text}");
        }
    }
}

#[tokio::test]
async fn lists_are_paged_from_2_33_on() {
    let bench = bench(&["a", "b", "c"]).await;
    let nodes = bench.api.store.list_nodes().await.unwrap();
    assert_eq!(bench.get(ADMIN, 32, "/os-hypervisors?limit=1").await["hypervisors"].as_array().unwrap().len(), 3);
    let page = bench.get(ADMIN, 33, "/os-hypervisors?limit=1").await;
    let href = format!("http://h:8774/compute/v2.1/os-hypervisors?limit=1&marker={}", nodes[0].number);
    assert_eq!(page["hypervisors_links"], json!([{"rel": "next", "href": href}]));
    let page = bench.get(ADMIN, 53, &format!("/os-hypervisors/detail?limit=1&marker={}", nodes[0].id)).await;
    assert_eq!(page["hypervisors"][0]["id"], json!(nodes[1].id));
    let href = format!("http://h:8774/compute/v2.1/os-hypervisors/detail?limit=1&marker={}", nodes[1].id);
    assert_eq!(page["hypervisors_links"][0]["href"], href);
    assert_eq!(bench.refused(ADMIN, 33, "GET /os-hypervisors?marker=99", Value::Null).await.0, 400);
}

#[tokio::test]
async fn sums_and_uptime_end_at_2_87() {
    let bench = bench(&["a", "b"]).await;
    let sums = bench.get(ADMIN, 1, "/os-hypervisors/statistics").await["hypervisor_statistics"].clone();
    assert_eq!((&sums["count"], &sums["vcpus"], &sums["memory_mb_used"]), (&json!(2), &json!(16), &json!(1024)));
    assert_eq!(keys(&sums).len(), 12);
    bench.call(ADMIN, 1, "PUT /os-services/disable", json!({"host": "a", "binary": "nova-compute"})).await;
    assert_eq!(bench.get(ADMIN, 87, "/os-hypervisors/statistics").await["hypervisor_statistics"]["count"], 1);
    assert_eq!(bench.refused(ADMIN, 88, "GET /os-hypervisors/statistics", Value::Null).await.0, 400);
    let node = bench.api.store.list_nodes().await.unwrap().remove(0);
    let path = format!("/os-hypervisors/{}/uptime", node.number);
    let shown = bench.get(ADMIN, 52, &path).await;
    assert_eq!(
        shown["hypervisor"],
        json!({"id": node.number, "hypervisor_hostname": "a.example.org", "state": "up", "status": "disabled", "uptime": "up 3 days"})
    );
    assert_eq!(bench.refused(ADMIN, 88, &format!("GET {path}"), Value::Null).await.0, 404);
    bench.pass(61);
    assert_eq!(bench.refused(ADMIN, 52, &format!("GET {path}"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn unknown_ids_and_members_are_refused() {
    let bench = bench(&["a"]).await;
    for (minor, id, status) in [
        (1, "99", 404),
        (1, "x", 404),
        (53, "x", 400),
        (53, "1", 400),
        (53, "7f7f7f7f-0000-4000-8000-000000000000", 404),
    ] {
        let (got, _) = bench.refused(ADMIN, minor, &format!("GET /os-hypervisors/{id}"), Value::Null).await;
        assert_eq!(got, status, "{id} at 2.{minor}");
        assert_eq!(
            bench.refused(ADMIN, minor, &format!("GET /os-hypervisors/{id}/uptime"), Value::Null).await.0,
            status
        );
    }
    for path in ["", "/detail", "/statistics", "/1", "/1/uptime", "/a/search", "/a/servers"] {
        assert_eq!(bench.refused(DEMO, 1, &format!("GET /os-hypervisors{path}"), Value::Null).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn a_node_without_service_is_not_shown() {
    let bench = bench(&["a", "b"]).await;
    let gone = bench.api.store.list_services().await.unwrap().remove(0);
    bench.api.store.delete_service(gone.id).await.unwrap();
    let list = bench.get(ADMIN, 1, "/os-hypervisors/detail").await;
    assert_eq!(list["hypervisors"].as_array().unwrap().len(), 1);
    let node = bench.api.store.node_of_host(&gone.host).await.unwrap();
    assert_eq!(bench.refused(ADMIN, 53, &format!("GET /os-hypervisors/{}", node.id), Value::Null).await.0, 404);
}
