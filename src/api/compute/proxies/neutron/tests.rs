use nova_core::context::RequestContext;
use nova_core::ids::{HostName, RequestId};
use nova_core::instance::Instance;
use nova_core::network::{InstanceNetworks, RequestedInterface, RequestedNetworks, Vif};

use super::*;
use crate::api::compute::proxies::{FloatingIps, Networks, SecurityGroups};
use crate::api::compute::server_networks::ServerNetworkActions;
use crate::api::compute::test_support::{Bench, DEMO, OTHER};
use crate::network::NeutronWorld;

fn bench(world: &NeutronWorld) -> Bench {
    let bench = Bench::new(Networks::new).with_neutron(world.client.clone());
    bench.add(Networks::new).add(FloatingIps::new).add(SecurityGroups::new).add(ServerNetworkActions::new)
}

async fn get(bench: &Bench, path: &str) -> Value {
    let (status, body) = bench.call(DEMO, 1, &format!("GET {path}"), Value::Null).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn act(bench: &Bench, server: &Instance, body: Value) -> (u16, Value) {
    bench.call(DEMO, 1, &format!("POST /servers/{}/action", server.id), body).await
}

/// A server with an interface on that network.
async fn server(bench: &Bench, network: NetworkId) -> (Instance, Vif) {
    let server = bench.instance(DEMO, Some("host1")).await;
    let on = RequestedInterface { network_id: Some(network), ..RequestedInterface::default() };
    let wanted = InstanceNetworks {
        instance_id: server.id,
        project_id: server.project_id.clone(),
        hostname: "server".into(),
        availability_zone: None,
        host: Some(HostName::new("host1")),
        security_groups: Vec::new(),
        requested: RequestedNetworks::These(vec![on]),
    };
    let context = RequestContext {
        project_id: server.project_id.clone(),
        ..RequestContext::internal(RequestId::generate(&*bench.api.entropy))
    };
    let vif = bench.api.network.allocate(&context, &wanted).await.unwrap().remove(0);
    (server, vif)
}

#[tokio::test]
async fn networks_are_those_that_servers_may_have() {
    let world = NeutronWorld::new().await;
    let bench = bench(&world);
    let (own, theirs) = (world.network("p-demo", "10.0.0.0/24").await, world.network("p-x", "10.0.0.0/24").await);
    let listed = get(&bench, "/os-networks").await;
    assert_eq!((&listed["networks"][0]["id"], &listed["networks"][1]), (&json!(own), &Value::Null));
    let shown = get(&bench, &format!("/os-tenant-networks/{own}")).await;
    assert_eq!(shown["network"], json!({"id": own, "label": "net of p-demo", "cidr": null}));
    for path in ["/os-networks", "/os-tenant-networks"] {
        let line = format!("GET {path}/{theirs}");
        assert_eq!(bench.call(DEMO, 1, &line, Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn groups_and_rules_are_passed_on() {
    let world = NeutronWorld::new().await;
    let bench = bench(&world);
    let body = json!({"security_group": {"name": "web", "description": "d"}});
    let (status, made) = bench.call(DEMO, 1, "POST /os-security-groups", body).await;
    assert_eq!(status, 200, "{made}");
    let id = made["security_group"]["id"].as_str().unwrap().to_owned();
    let expected = json!({"id": id, "name": "web", "description": "d", "tenant_id": "p-demo", "rules": []});
    assert_eq!(made["security_group"], expected);
    let rule = |more: Value| {
        let mut rule = json!({"parent_group_id": id, "ip_protocol": "tcp", "from_port": 22, "to_port": 22});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "security_group_rule": rule })
    };
    let ssh = rule(json!({"cidr": "10.0.0.0/8"}));
    let (status, made) = bench.call(DEMO, 1, "POST /os-security-group-rules", ssh.clone()).await;
    assert_eq!((status, &made["security_group_rule"]["ip_range"]["cidr"]), (200, &json!("10.0.0.0/8")), "{made}");
    let first = made["security_group_rule"]["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.call(DEMO, 1, "POST /os-security-group-rules", ssh.clone()).await.0, 400, "there is such a rule");
    let (status, made) = bench.call(DEMO, 1, "POST /os-security-group-rules", rule(json!({"group_id": id}))).await;
    assert_eq!((status, &made["security_group_rule"]["group"]["name"]), (200, &json!("web")), "{made}");
    let shown = get(&bench, &format!("/os-security-groups/{id}")).await;
    assert_eq!(shown["security_group"]["rules"].as_array().unwrap().len(), 2, "{shown}");
    // They are nobody else's.
    assert_eq!(bench.call(OTHER, 1, "POST /os-security-group-rules", ssh).await.0, 404);
    for line in [format!("GET /os-security-groups/{id}"), format!("DELETE /os-security-groups/{id}")] {
        assert_eq!(bench.call(OTHER, 1, &line, Value::Null).await.0, 404);
    }
    let delete = format!("DELETE /os-security-group-rules/{first}");
    for (caller, status) in [(OTHER, 404), (DEMO, 202), (DEMO, 404)] {
        assert_eq!(bench.call(caller, 1, &delete, Value::Null).await.0, status);
    }
    let body = json!({"security_group": {"name": "www", "description": ""}});
    let (status, changed) = bench.call(DEMO, 1, &format!("PUT /os-security-groups/{id}"), body).await;
    assert_eq!((status, &changed["security_group"]["name"]), (200, &json!("www")), "{changed}");
    let delete = format!("DELETE /os-security-groups/{id}");
    for status in [202, 404] {
        assert_eq!(bench.call(DEMO, 1, &delete, Value::Null).await.0, status);
    }
}

#[tokio::test]
async fn servers_get_and_lose_groups_and_addresses() {
    let world = NeutronWorld::new().await;
    let bench = bench(&world);
    let network = world.network("p-demo", "10.0.0.0/24").await;
    let (server, vif) = server(&bench, network).await;
    let body = json!({"security_group": {"name": "web", "description": "d"}});
    assert_eq!(bench.call(DEMO, 1, "POST /os-security-groups", body).await.0, 200);
    let names = async || {
        let groups = get(&bench, &format!("/servers/{}/os-security-groups", server.id)).await;
        let names = list(&groups, "security_groups").map(|group| text(group, "name").to_owned());
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["default"]);
    for (action, name, status, now) in [
        ("addSecurityGroup", "web", 202, 2),
        ("addSecurityGroup", "web", 202, 2),
        ("addSecurityGroup", "none", 404, 2),
        ("removeSecurityGroup", "web", 202, 1),
        ("removeSecurityGroup", "web", 404, 1),
    ] {
        let (code, answer) = act(&bench, &server, json!({ action: {"name": name} })).await;
        assert_eq!((code, names().await.len()), (status, now), "{action} {name}: {answer}");
    }
    let address = vif.addresses[0].address;
    let gone = json!({"removeFixedIp": {"address": address}});
    assert_eq!(act(&bench, &server, json!({"addFixedIp": {"networkId": network}})).await.0, 202);
    assert_eq!(act(&bench, &server, gone.clone()).await.0, 202);
    assert_eq!(act(&bench, &server, gone).await.0, 400, "it has it no more");
    let context = RequestContext::internal(RequestId::generate(&*bench.api.entropy));
    let now = bench.api.network.interfaces(&context, &[server.id]).await.unwrap().remove(0).1;
    assert!(now.addresses.len() == 1 && now.addresses[0].address != address, "{now:?}");
    let elsewhere = json!({"addFixedIp": {"networkId": server.id}});
    assert_eq!(act(&bench, &server, elsewhere).await.0, 404);
}

#[tokio::test]
async fn floating_addresses_are_passed_on() {
    let world = NeutronWorld::new().await;
    let bench = bench(&world);
    let network = world.network("p-demo", "10.0.0.0/24").await;
    world.way_out(network, "p-demo").await;
    let (server, vif) = server(&bench, network).await;
    assert_eq!(get(&bench, "/os-floating-ip-pools").await["floating_ip_pools"], json!([{"name": "outer"}]));
    let (status, made) = bench.call(DEMO, 1, "POST /os-floating-ips", json!({"pool": "outer"})).await;
    assert_eq!(status, 200, "{made}");
    let (id, address) = (text(&made["floating_ip"], "id").to_owned(), made["floating_ip"]["ip"].clone());
    let nowhere = bench.call(DEMO, 1, "POST /os-floating-ips", json!({"pool": "none"})).await;
    assert_eq!(nowhere.0, 404, "{}", nowhere.1);
    let (status, answer) = act(&bench, &server, json!({"addFloatingIp": {"address": address}})).await;
    assert_eq!(status, 202, "{answer}");
    let shown = get(&bench, &format!("/os-floating-ips/{id}")).await;
    let expected = json!({"id": id, "ip": address, "pool": "outer", "fixed_ip": vif.addresses[0].address,
        "instance_id": server.id});
    assert_eq!(shown["floating_ip"], expected);
    assert_eq!(get(&bench, "/os-floating-ips").await["floating_ips"], json!([expected]));
    let line = format!("GET /os-floating-ips/{id}");
    assert_eq!(bench.call(OTHER, 1, &line, Value::Null).await.0, 404);
    for status in [202, 409] {
        let (code, answer) = act(&bench, &server, json!({"removeFloatingIp": {"address": address}})).await;
        assert_eq!(code, status, "{answer}");
    }
    // The pool has as many as a small range.
    let mut more = Vec::new();
    let (status, answer) = loop {
        let (status, answer) = bench.call(DEMO, 1, "POST /os-floating-ips", json!({"pool": "outer"})).await;
        if status != 200 || more.len() > 8 {
            break (status, answer);
        }
        more.push(answer);
    };
    assert_eq!((status, &answer["itemNotFound"]["message"]), (404, &json!("No more floating IPs in pool outer.")));
    let line = format!("DELETE /os-floating-ips/{id}");
    for (caller, status) in [(OTHER, 404), (DEMO, 202), (DEMO, 404)] {
        assert_eq!(bench.call(caller, 1, &line, Value::Null).await.0, status);
    }
}
