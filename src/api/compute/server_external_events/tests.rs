use std::sync::Arc;

use nova_core::context::RequestContext;
use nova_core::ids::{HostName, NetworkId, RequestId};
use nova_core::network::{InstanceNetworks, Port, RequestedNetworks, Vif};
use nova_core::task::AwaitedVifs;
use nova_db::{PortQuery, Store, TaskCommit};

use super::*;
use crate::api::compute::test_support::{ADMIN, Bench, Caller, DEMO};

const PATH: &str = "POST /os-server-external-events";

fn bench() -> Bench {
    Bench::new(ServerExternalEvents::new)
}

fn event(name: &str, server: impl std::fmt::Display) -> Value {
    json!({"name": name, "server_uuid": server.to_string()})
}

async fn told(bench: &Bench, caller: Caller, events: Vec<Value>) -> (u16, Value) {
    bench.call(caller, 1, PATH, json!({ "events": events })).await
}

/// An interface of that server.
async fn plug(bench: &Bench, server: &Instance) -> Vif {
    let store: &Arc<dyn Store> = &bench.api.store;
    let (now, id) = (bench.api.clock.now(), NetworkId::generate(&*bench.api.entropy));
    let network = json!({
        "id": id, "project_id": server.project_id, "name": "private", "admin_state_up": true, "shared": false,
        "external": false, "mtu": 1450, "port_security_enabled": true, "created_at": now, "updated_at": now,
    });
    store.create_network(serde_json::from_value(network).unwrap(), None).await.unwrap();
    let subnet = json!({
        "id": bench.api.entropy.uuid(), "network_id": id, "project_id": server.project_id, "name": "",
        "cidr": "10.0.0.0/24", "gateway_ip": null, "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.20"}],
        "dns_nameservers": [], "host_routes": [], "enable_dhcp": true, "created_at": now, "updated_at": now,
    });
    store.create_subnet(serde_json::from_value(subnet).unwrap(), None, None).await.unwrap();
    let wanted = InstanceNetworks {
        instance_id: server.id,
        project_id: server.project_id.clone(),
        hostname: "server".into(),
        availability_zone: None,
        host: Some(HostName::new("host1")),
        security_groups: Vec::new(),
        requested: RequestedNetworks::Auto,
    };
    let context = RequestContext {
        project_id: server.project_id.clone(),
        ..RequestContext::internal(RequestId::generate(&*bench.api.entropy))
    };
    bench.api.network.allocate(&context, &wanted).await.unwrap().remove(0)
}

async fn port(bench: &Bench) -> Port {
    bench.api.store.list_ports(&PortQuery::default()).await.unwrap().remove(0)
}

#[tokio::test]
async fn each_event_is_answered_by_itself() {
    let bench = bench();
    let (placed, unplaced) = (bench.instance(DEMO, Some("host1")).await, bench.instance(DEMO, None).await);
    let nobody = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6";
    let (status, body) = told(&bench, ADMIN, vec![event("network-changed", placed.id)]).await;
    assert_eq!(status, 200, "{body}");
    let expected = json!({"name": "network-changed", "server_uuid": placed.id, "code": 200});
    assert_eq!(body, json!({"events": [expected]}));
    let events = vec![
        event("network-changed", placed.id),
        event("network-changed", unplaced.id),
        event("network-changed", nobody),
    ];
    let (status, body) = told(&bench, ADMIN, events).await;
    let codes: Vec<_> = body["events"].as_array().unwrap().iter().map(|event| event["code"].clone()).collect();
    assert_eq!((status, codes), (207, vec![json!(200), json!(422), json!(404)]));
    assert_eq!(body["events"][2]["status"], "failed");
    let (status, body) = told(&bench, ADMIN, vec![event("network-changed", nobody)]).await;
    assert_eq!((status, &body["itemNotFound"]["message"]), (404, &json!("No instances found for any event")));
}

#[tokio::test]
async fn only_what_is_known_is_understood_and_only_from_services() {
    let bench = bench();
    let server = bench.instance(DEMO, Some("host1")).await;
    assert_eq!(told(&bench, DEMO, vec![event("network-changed", server.id)]).await.0, 403);
    let wrong = [
        json!({}),
        json!({"events": []}),
        json!({"events": {}}),
        json!({"events": ["x"]}),
        json!({"events": [event("nonsense", server.id)]}),
        json!({"events": [event("volume-extended", server.id)]}),
        json!({"events": [event("network-changed", "no-id")]}),
        json!({"events": [{"name": "network-changed"}]}),
        json!({"events": [{"name": "network-changed", "server_uuid": server.id, "status": "odd"}]}),
        json!({"events": [{"name": "network-changed", "server_uuid": server.id, "tag": "x".repeat(256)}]}),
        json!({"events": [{"name": "network-changed", "server_uuid": server.id, "more": 1}]}),
        json!({"events": [event("network-changed", server.id)], "more": 1}),
    ];
    for body in wrong {
        let (status, answer) = bench.call(ADMIN, 1, PATH, body.clone()).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let extended = json!({"events": [event("volume-extended", server.id)]});
    assert_eq!(bench.call(ADMIN, 51, PATH, extended).await.0, 200);
    let power = json!({"events": [
        {"name": "power-update", "server_uuid": server.id, "tag": "POWER_ON"}, event("power-update", server.id),
    ]});
    let (status, body) = bench.call(ADMIN, 76, PATH, power).await;
    assert_eq!((status, &body["events"][1]["code"]), (207, &json!(400)), "{body}");
}

#[tokio::test]
async fn a_port_is_as_it_is_told() {
    let bench = bench();
    let server = bench.instance(DEMO, Some("host1")).await;
    let vif = plug(&bench, &server).await;
    let tagged = |name: &str, tag: &str, status: &str| json!({"name": name, "server_uuid": server.id, "tag": tag, "status": status});
    let own = vif.port_id.to_string();
    let steps = [
        ("network-vif-plugged", "in-progress", PortStatus::Down),
        ("network-vif-plugged", "completed", PortStatus::Active),
        ("network-changed", "completed", PortStatus::Active),
        ("network-vif-unplugged", "completed", PortStatus::Down),
        ("network-vif-plugged", "failed", PortStatus::Error),
    ];
    for (name, status, expected) in steps {
        assert_eq!(told(&bench, ADMIN, vec![tagged(name, &own, status)]).await.0, 200);
        assert_eq!(port(&bench).await.status, expected, "{name} {status}");
    }
    // Ports that are not the server's, and tags that are none, change nothing.
    let other = bench.instance(DEMO, Some("host1")).await;
    let foreign = json!({"name": "network-vif-plugged", "server_uuid": other.id, "tag": own});
    for event in [foreign, tagged("network-vif-plugged", "no-id", "completed")] {
        assert_eq!(told(&bench, ADMIN, vec![event]).await.0, 200);
        assert_eq!(port(&bench).await.status, PortStatus::Error);
    }
}

#[tokio::test]
async fn a_port_that_goes_is_unplugged() {
    let bench = bench();
    bench.service("nova-compute", "host1", "nova").await;
    let mut server = bench.instance(DEMO, Some("host1")).await;
    server.launched_at = Some(bench.api.clock.now());
    let server = bench.api.store.update_instance(server).await.unwrap();
    let vif = plug(&bench, &server).await;
    let before = bench.api.store.list_tasks(Some(server.id)).await.unwrap().len();
    let deleted = json!({"name": "network-vif-deleted", "server_uuid": server.id, "tag": vif.port_id});
    assert_eq!(told(&bench, ADMIN, vec![deleted]).await.0, 200);
    let tasks = bench.api.store.list_tasks(Some(server.id)).await.unwrap();
    assert_eq!(tasks.len(), before + 1);
    assert!(tasks.iter().any(|task| task.work == Work::DetachInterface { port_id: vif.port_id }), "{tasks:?}");
    let gone = json!({"name": "network-vif-deleted", "server_uuid": server.id, "tag": server.id});
    assert_eq!(told(&bench, ADMIN, vec![gone]).await.0, 200);
    assert_eq!(bench.api.store.list_tasks(Some(server.id)).await.unwrap().len(), before + 1);
}

/// A build that waits for an interface hears of it; nobody else is told.
#[tokio::test]
async fn who_waits_for_an_interface_hears_of_it() {
    let bench = bench();
    let server = bench.instance(DEMO, Some("host1")).await;
    let vif = plug(&bench, &server).await;
    let tell = async |name: &str, status: &str| {
        let event = json!({"name": name, "server_uuid": server.id, "tag": vif.port_id, "status": status});
        assert_eq!(told(&bench, ADMIN, vec![event]).await.0, 200);
        std::mem::take(&mut *bench.told.plugged.lock().unwrap())
    };
    assert_eq!(tell("network-vif-plugged", "completed").await, []);
    let task = bench.api.store.list_tasks(Some(server.id)).await.unwrap().remove(0);
    let awaited = Some(AwaitedVifs { ports: [vif.port_id].into(), since: None });
    bench.api.store.commit_task(TaskCommit::of(Task { awaited, ..task.clone() })).await.unwrap();
    assert_eq!(tell("network-vif-plugged", "completed").await, [(vec![task.id], vif.port_id, true)]);
    assert_eq!(tell("network-vif-plugged", "failed").await, [(vec![task.id], vif.port_id, false)]);
    assert_eq!(tell("network-changed", "completed").await, []);
    assert_eq!(tell("network-vif-unplugged", "completed").await, []);
}
