//! What carries networks, the hosts' agents, and what is in force on them.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use nova_core::ids::{HostName, NetworkAgentId, NetworkId};
use nova_core::network::{NetworkAgent, NetworkState};
use nova_db::HostScope;

use super::*;
use crate::network::{Gateways, SegmentOptions, host_network};

#[tokio::test]
async fn administrators_say_what_carries_a_network() {
    let bench = Bench::new();
    let network = bench.make(DEMO, "/networks", "network", json!({"name": "own"})).await;
    assert_eq!(network["mtu"], 1450, "tunnels take 50 bytes of each packet");
    let shown = bench.get(ADMIN, &format!("/networks/{}", id(&network))).await["network"].clone();
    assert_eq!((&shown["provider:network_type"], &shown["provider:physical_network"]), (&json!("vxlan"), &json!(null)));
    assert!(shown["provider:segmentation_id"].as_u64().is_some());
    let of = |kind: &str, wire: Value, number: Value| {
        json!({"network": {
            "provider:network_type": kind, "provider:physical_network": wire, "provider:segmentation_id": number,
        }})
    };
    let vlan = of("vlan", json!("one"), json!(7));
    assert_eq!(bench.refused(DEMO, "POST /networks", vlan.clone()).await, refusal(403, "PolicyNotAuthorized"));
    let (status, made) = bench.call(ADMIN, "POST /networks", vlan.clone()).await;
    assert_eq!((status, &made["network"]["mtu"]), (201, &json!(1500)));
    for (body, status, name) in [
        (vlan, 409, "VlanIdInUse"),
        (of("vxlan", json!(null), shown["provider:segmentation_id"].clone()), 409, "TunnelIdInUse"),
        (of("flat", json!(null), json!(null)), 400, "InvalidInput"),
        (of("geneve", json!(null), json!(null)), 400, "InvalidInput"),
        (json!({"network": {"provider:segmentation_id": 7}}), 400, "InvalidInput"),
    ] {
        assert_eq!(bench.refused(ADMIN, "POST /networks", body.clone()).await, refusal(status, name), "{body}");
    }
    let big = json!({"network": {"mtu": 1451}});
    assert_eq!(bench.refused(DEMO, "POST /networks", big).await, refusal(400, "InvalidInput"));
}

#[tokio::test]
async fn when_all_is_taken_there_is_none_left() {
    let range = nova_db::SegmentRange { physical_network: None, first: 5, last: 5 };
    let segments = SegmentOptions { vni_ranges: vec![range], ..SegmentOptions::default() };
    let bench = Bench::with(NetworkOptions { segments, ..NetworkOptions::default() });
    let network = bench.make(DEMO, "/networks", "network", json!({})).await;
    let another = NetworkId::generate(&SeededEntropy::new(9));
    let another = bench.1.new_network(another, &"p-demo".into());
    let none = ApiError::from(bench.1.create_network(another, None).await.unwrap_err());
    assert!(matches!(none, ApiError::Network { status, name: "NoNetworkAvailable", .. } if status == 503));
    bench.gone(DEMO, &format!("/networks/{}", id(&network))).await;
    bench.make(DEMO, "/networks", "network", json!({})).await;
}

fn agent(host: &str, plumbing: &str, silent: i64) -> NetworkAgent {
    let heard_at = TestClock.now() - SignedDuration::from_secs(silent);
    NetworkAgent {
        host: host.into(),
        id: NetworkAgentId::generate(&SeededEntropy::new(silent.unsigned_abs())),
        plumbing: plumbing.into(),
        tunnel_ip: Some("192.0.2.1".parse().unwrap()),
        physical_networks: vec!["one".into()],
        created_at: heard_at,
        heard_at,
    }
}

#[tokio::test]
async fn agents_are_the_hosts_that_ask() {
    let bench = Bench::new();
    for agent in [agent("h1", "linux", 75), agent("h2", "linux", 76), agent("h3", "books", 1)] {
        bench.1.store.hear_network_agent(agent).await.unwrap();
    }
    for (query, expected) in [
        ("", vec!["h1", "h2", "h3"]),
        ("?host=h2", vec!["h2"]),
        ("?alive=true", vec!["h1", "h3"]),
        ("?alive=False&agent_type=Linux%20bridge%20agent", vec!["h2"]),
        ("?agent_type=DHCP%20agent", vec![]),
        ("?binary=nova-compute&host=h1&host=h3", vec!["h1", "h3"]),
    ] {
        let list = bench.get(ADMIN, &format!("/agents{query}")).await;
        let hosts: Vec<&str> =
            list["agents"].as_array().unwrap().iter().map(|agent| agent["host"].as_str().unwrap()).collect();
        assert_eq!(hosts, expected, "{query}");
    }
    assert_eq!(bench.refused(ADMIN, "GET /agents?colour=red", Value::Null).await.0, 400);
    assert_eq!(bench.refused(DEMO, "GET /agents", Value::Null).await.0, 403);
    let first = bench.get(ADMIN, "/agents?host=h1").await["agents"][0].clone();
    let path = format!("/agents/{}", id(&first));
    let state = NetworkState {
        host: "h1".into(),
        applied: BTreeMap::new(),
        problems: vec!["no bridge".into()],
        reported_at: TestClock.now(),
    };
    bench.1.store.report_network(state, BTreeMap::new()).await.unwrap();
    let shown = bench.get(ADMIN, &path).await["agent"].clone();
    assert_eq!(shown["configurations"]["problems"], json!(["no bridge"]));
    assert_eq!(shown["configurations"]["tunneling_ip"], "192.0.2.1");
    assert_eq!(shown["heartbeat_timestamp"], "2027-01-15 07:58:45");
    assert_eq!(bench.get(ADMIN, &format!("{path}?fields=host")).await["agent"], json!({"host": "h1"}));
    bench.gone(ADMIN, &path).await;
    for line in [format!("GET {path}"), "GET /agents/nonsense".into(), format!("DELETE {path}")] {
        assert_eq!(bench.refused(ADMIN, &line, Value::Null).await, refusal(404, "AgentNotFound"));
    }
}

impl Bench {
    async fn is_applied(&self, path: &str, key: &str) -> bool {
        self.get(DEMO, path).await[key]["applied"].as_bool().unwrap()
    }

    /// A host that has made all of its network so.
    async fn applies(&self, host: &HostName) {
        let scope = HostScope { host: host.clone(), network_node: None };
        let network = host_network(&self.1.store.host_books(&scope).await.unwrap(), host, &Gateways::EveryHost);
        let mut applied = network.digests();
        applied.extend(network.port_digests());
        let state = NetworkState { host: host.clone(), applied, problems: Vec::new(), reported_at: TestClock.now() };
        self.1.store.report_network(state, BTreeMap::new()).await.unwrap();
    }
}

/// A group is in force when every host says so that has a port with it, or with a rule that names it.
#[tokio::test]
async fn what_is_applied_is_what_all_hosts_say() {
    let bench = Bench::new();
    let (network, _) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let web = bench.make(DEMO, "/security-groups", "security_group", json!({"name": "web"})).await;
    let db = bench.make(DEMO, "/security-groups", "security_group", json!({"name": "db"})).await;
    let (web_path, db_path) = (format!("/security-groups/{}", id(&web)), format!("/security-groups/{}", id(&db)));
    assert!(bench.is_applied(&web_path, "security_group").await, "nobody has it");
    let mut paths = Vec::new();
    for (group, host) in [(&web, "h1"), (&db, "h2")] {
        let body = json!({"network_id": id(&network), "security_groups": [id(group)], "project_id": "p-demo",
            "binding:host_id": host});
        let port = bench.make(ADMIN, "/ports", "port", body).await;
        paths.push(format!("/ports/{}", id(&port)));
    }
    let hosts: [HostName; 2] = ["h1".into(), "h2".into()];
    for (n, host) in hosts.iter().enumerate() {
        bench.1.store.hear_network_agent(agent(host.as_str(), "linux", n as i64 + 1)).await.unwrap();
    }
    let rule = json!({"security_group_id": id(&web), "direction": "ingress", "remote_group_id": id(&db)});
    bench.make(DEMO, "/security-group-rules", "security_group_rule", rule).await;
    assert!(!bench.is_applied(&web_path, "security_group").await && !bench.is_applied(&paths[0], "port").await);
    bench.applies(&hosts[0]).await;
    assert!(bench.is_applied(&web_path, "security_group").await && bench.is_applied(&paths[0], "port").await);
    assert!(!bench.is_applied(&db_path, "security_group").await, "its own host has not said so");
    assert!(!bench.is_applied(&paths[1], "port").await);
    bench.applies(&hosts[1]).await;
    assert!(bench.is_applied(&db_path, "security_group").await);
    // Another member: the host with the rule must know it, and its own.
    let body = json!({"network_id": id(&network), "security_groups": [id(&db)], "project_id": "p-demo"});
    bench.make(ADMIN, "/ports", "port", body).await;
    assert!(!bench.is_applied(&db_path, "security_group").await);
    assert!(bench.is_applied(&web_path, "security_group").await, "that is the same");
    bench.applies(&hosts[0]).await;
    assert!(bench.is_applied(&db_path, "security_group").await, "the member is plugged in nowhere");
    // A port with other groups.
    let both = json!({"port": {"security_groups": [id(&web), id(&db)]}});
    bench.call(DEMO, &format!("PUT {}", paths[1]), both).await;
    assert!(!bench.is_applied(&web_path, "security_group").await && !bench.is_applied(&paths[1], "port").await);
    for host in &hosts {
        bench.applies(host).await;
    }
    assert!(bench.is_applied(&web_path, "security_group").await && bench.is_applied(&paths[1], "port").await);
    // Where nothing is plugged in nothing is waited for.
    bench.1.store.hear_network_agent(agent("h1", "books", 0)).await.unwrap();
    bench
        .1
        .store
        .report_network(
            NetworkState {
                host: "h1".into(),
                applied: BTreeMap::new(),
                problems: Vec::new(),
                reported_at: TestClock.now(),
            },
            BTreeMap::new(),
        )
        .await
        .unwrap();
    assert!(bench.is_applied(&web_path, "security_group").await && bench.is_applied(&paths[0], "port").await);
}
