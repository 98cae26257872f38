//! Topologies that projects get by themselves, and the outer network that a cloud begins with.

use nova_core::ids::ProjectId;
use nova_core::network::{Cidr, NetworkResource};

use super::*;

fn range(text: &str) -> Option<Cidr> {
    Some(text.parse().unwrap())
}

async fn begun() -> Bench {
    let bench = Bench::with(NetworkOptions { public_subnet: range("172.24.4.0/24"), ..NetworkOptions::default() });
    bench.1.bootstrap().await.unwrap();
    bench
}

const DEMO_TOPOLOGY: &str = "/auto-allocated-topology/p-demo";

async fn show(bench: &Bench, caller: Caller, path: &str) -> Value {
    bench.get(caller, path).await["auto_allocated_topology"].clone()
}

#[tokio::test]
async fn a_cloud_begins_with_an_outer_network_once() {
    let bench = begun().await;
    bench.1.bootstrap().await.unwrap();
    let list = bench.get(DEMO, "/networks?router:external=True").await;
    let networks = list["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 1, "{list}");
    let public = &networks[0];
    assert_eq!(
        (&public["name"], &public["is_default"], &public["shared"]),
        (&json!("public"), &json!(true), &json!(false))
    );
    let subnets = bench.get(ADMIN, "/subnets").await;
    assert_eq!(subnets["subnets"][0]["cidr"], "172.24.4.0/24");
    assert_eq!(subnets["subnets"][0]["enable_dhcp"], false);
    let second = json!({"network": {"name": "x", "router:external": true, "is_default": true}});
    assert_eq!(bench.refused(ADMIN, "POST /networks", second).await, refusal(409, "DefaultExternalNetworkExists"));
}

#[tokio::test]
async fn a_project_gets_one_topology_whoever_asks_how_often() {
    let bench = begun().await;
    let made = futures_util::future::join_all((0..8).map(|_| show(&bench, DEMO, DEMO_TOPOLOGY))).await;
    let first = made[0]["id"].as_str().unwrap();
    assert!(made.iter().all(|one| one["id"] == first), "{made:?}");
    assert_eq!(show(&bench, DEMO, "/auto-allocated-topology/None").await["id"], first);
    assert_eq!(show(&bench, ADMIN, DEMO_TOPOLOGY).await["id"], first);
    let mine = bench.get(DEMO, "/networks?router:external=False").await;
    assert_eq!(mine["networks"].as_array().unwrap().len(), 1);
    assert_eq!(mine["networks"][0]["name"], "auto_allocated_network");
    let routers = bench.get(DEMO, "/routers").await;
    assert_eq!(routers["routers"].as_array().unwrap().len(), 1);
    assert!(routers["routers"][0]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"].is_string());
    let ports = bench.get(DEMO, "/ports?device_owner=network:router_interface").await;
    assert_eq!(ports["ports"][0]["fixed_ips"][0]["ip_address"], "10.0.0.1");
    assert_eq!(ports["ports"].as_array().unwrap().len(), 1);
    // Another project has one of its own with the same range.
    let other = show(&bench, OTHER, "/auto-allocated-topology/p-other").await;
    assert_ne!(other["id"], first);
}

#[tokio::test]
async fn what_one_who_died_began_is_finished() {
    let bench = begun().await;
    let project = ProjectId::from("p-demo");
    let id = show(&bench, DEMO, DEMO_TOPOLOGY).await["id"].clone();
    let router = bench.get(DEMO, "/routers").await["routers"][0]["id"].as_str().unwrap().to_owned();
    let subnet = bench.get(DEMO, "/subnets").await["subnets"][0]["id"].clone();
    let body = json!({ "subnet_id": subnet });
    let (status, _) = bench.call(DEMO, &format!("PUT /routers/{router}/remove_router_interface"), body).await;
    assert_eq!(status, 200);
    assert_eq!(show(&bench, DEMO, DEMO_TOPOLOGY).await["id"], id);
    assert_eq!(
        bench.get(DEMO, "/ports?device_owner=network:router_interface").await["ports"].as_array().unwrap().len(),
        1
    );
    let accounts = bench.1.store.network_accounts(&project).await.unwrap();
    assert!(accounts.values().all(|account| account.used <= 1), "{accounts:?}");
}

#[tokio::test]
async fn a_topology_is_removed_whole_or_not_at_all() {
    let bench = begun().await;
    let id = show(&bench, DEMO, DEMO_TOPOLOGY).await["id"].clone();
    let port = bench.make(DEMO, "/ports", "port", json!({ "network_id": id })).await;
    let line = format!("DELETE {DEMO_TOPOLOGY}");
    assert_eq!(bench.refused(DEMO, &line, Value::Null).await, refusal(409, "NetworkInUse"));
    assert_eq!(bench.get(DEMO, "/routers").await["routers"].as_array().unwrap().len(), 1);
    bench.gone(DEMO, &format!("/ports/{}", super::id(&port))).await;
    assert_eq!(bench.refused(OTHER, &line, Value::Null).await, refusal(403, "NotAuthorized"));
    for _ in 0..2 {
        bench.gone(DEMO, DEMO_TOPOLOGY).await;
    }
    let accounts = bench.1.store.network_accounts(&ProjectId::from("p-demo")).await.unwrap();
    // The port had the project's default group, which stays.
    let left = |resource: &NetworkResource| !resource.as_str().starts_with("security_group");
    assert!(accounts.iter().filter(|(what, _)| left(what)).all(|(_, account)| account.used == 0), "{accounts:?}");
    assert_eq!(show(&bench, DEMO, DEMO_TOPOLOGY).await["id"], id, "it is made again");
}

#[tokio::test]
async fn whether_it_would_work_is_told_without_making_it() {
    let bench = begun().await;
    let dry = format!("{DEMO_TOPOLOGY}?fields=dry-run");
    assert_eq!(show(&bench, DEMO, &dry).await["id"], "dry-run=pass");
    assert_eq!(bench.get(DEMO, "/networks?router:external=False").await["networks"], json!([]));
    let line = format!("GET {DEMO_TOPOLOGY}?fields=name");
    assert_eq!(bench.refused(DEMO, &line, Value::Null).await, refusal(400, "BadRequest"));
    assert_eq!(bench.refused(OTHER, &format!("GET {DEMO_TOPOLOGY}"), Value::Null).await, refusal(403, "NotAuthorized"));
    assert_eq!(bench.refused(READER, &format!("GET {DEMO_TOPOLOGY}"), Value::Null).await, refusal(404, "HTTPNotFound"));
    let bare = Bench::new();
    for line in [format!("GET {dry}"), format!("GET {DEMO_TOPOLOGY}")] {
        assert_eq!(bare.refused(DEMO, &line, Value::Null).await, refusal(409, "AutoAllocationFailure"));
    }
}

#[tokio::test]
async fn without_quota_the_failure_has_neutrons_name() {
    let bench = begun().await;
    let quota = json!({"quota": {"network": 0}});
    assert_eq!(bench.call(ADMIN, "PUT /quotas/p-demo", quota).await.0, 200);
    assert_eq!(
        bench.refused(DEMO, &format!("GET {DEMO_TOPOLOGY}"), Value::Null).await,
        refusal(409, "AutoAllocationFailure")
    );
}

#[tokio::test]
async fn networks_and_subnets_are_made_in_bulk_all_or_none() {
    let bench = Bench::new();
    let body = json!({"networks": [{"name": "a"}, {"name": "b"}]});
    let (status, made) = bench.call(DEMO, "POST /networks", body).await;
    assert_eq!((status, made["networks"].as_array().map(Vec::len)), (201, Some(2)), "{made}");
    let network = made["networks"][0]["id"].clone();
    let subnet = |cidr: &str| json!({"network_id": network, "cidr": cidr, "ip_version": 4});
    let overlapping = json!({"subnets": [subnet("10.0.0.0/24"), subnet("10.0.0.128/25")]});
    assert_eq!(bench.refused(DEMO, "POST /subnets", overlapping).await, refusal(400, "InvalidInput"));
    assert_eq!(bench.get(DEMO, "/subnets").await["subnets"], json!([]));
    let (status, made) = bench.call(DEMO, "POST /subnets", json!({"subnets": [subnet("10.0.0.0/24")]})).await;
    assert_eq!((status, &made["subnets"][0]["cidr"]), (201, &json!("10.0.0.0/24")));
    assert_eq!(bench.call(ADMIN, "PUT /quotas/p-demo", json!({"quota": {"network": 3}})).await.0, 200);
    let many = json!({"networks": [{"name": "c"}, {"name": "d"}]});
    assert_eq!(bench.refused(DEMO, "POST /networks", many).await, refusal(409, "OverQuota"));
    assert_eq!(bench.get(DEMO, "/networks").await["networks"].as_array().unwrap().len(), 2);
    for empty in [json!({"networks": []}), json!({"networks": 1}), json!({"networks": [1]})] {
        assert_eq!(bench.refused(DEMO, "POST /networks", empty).await.0, 400);
    }
}
