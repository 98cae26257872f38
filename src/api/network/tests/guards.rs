//! What projects may not do to others, and to what services use.

use super::*;

const INSTANCE: &str = "9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a";

/// Compute and routers say whose their ports are; who owns the port does not.
#[tokio::test]
async fn ports_in_use_keep_their_users() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let port = bench.make(DEMO, "/ports", "port", json!({"network_id": id(&network), "device_id": "mine"})).await;
    let path = format!("PUT /ports/{}", id(&port));
    let (status, _) = bench.call(DEMO, &path, json!({"port": {"device_id": "", "device_owner": "me"}})).await;
    assert_eq!(status, 200, "what no service uses is theirs to name");
    let used = json!({"port": {"device_id": INSTANCE, "device_owner": "compute:nova"}});
    assert_eq!(bench.call(ADMIN, &path, used.clone()).await.0, 200);
    let router = bench.make(DEMO, "/routers", "router", json!({})).await;
    let line = format!("PUT /routers/{}/add_router_interface", id(&router));
    let (_, joined) = bench.call(DEMO, &line, json!({"subnet_id": id(&subnet)})).await;
    let leg = format!("PUT /ports/{}", joined["port_id"].as_str().unwrap());
    for path in [&path, &leg] {
        for fields in [
            json!({"device_id": "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6"}),
            json!({"device_id": ""}),
            json!({"device_owner": ""}),
            json!({"device_owner": "compute:other"}),
        ] {
            let refused = bench.refused(DEMO, path, json!({ "port": fields })).await;
            assert_eq!(refused, refusal(403, "PolicyNotAuthorized"), "{path} {fields}");
        }
    }
    // As it is, it can be said again; a router's port is not even the administrator's to take away.
    let (status, _) = bench.call(DEMO, &path, json!({"port": {"device_id": INSTANCE, "name": "new"}})).await;
    assert_eq!(status, 200);
    assert_eq!(bench.refused(ADMIN, &leg, json!({"port": {"device_owner": ""}})).await.0, 403);
}

/// Translation and addresses outside are for administrators to choose (`create_router:external_gateway_info:…`).
#[tokio::test]
async fn the_outside_of_routers_is_the_administrators() {
    let bench = Bench::new();
    let outer = bench.make(ADMIN, "/networks", "network", json!({"name": "public", "router:external": true})).await;
    let subnet = json!({"network_id": id(&outer), "cidr": "192.0.2.0/24", "ip_version": 4});
    bench.make(ADMIN, "/subnets", "subnet", subnet).await;
    let router = bench.make(DEMO, "/routers", "router", json!({})).await;
    let line = format!("PUT /routers/{}", id(&router));
    for (key, value) in [("enable_snat", json!(false)), ("external_fixed_ips", json!([{"ip_address": "192.0.2.77"}]))] {
        let mut info = json!({"network_id": id(&outer)});
        info[key] = value;
        let body = json!({"router": {"external_gateway_info": info}});
        for line in ["POST /routers", &line] {
            assert_eq!(bench.refused(DEMO, line, body.clone()).await, refusal(403, "PolicyNotAuthorized"), "{body}");
        }
        assert_eq!(bench.call(ADMIN, &line, body).await.0, 200, "{key}");
    }
}

/// A shared network's gateway address is its owner's to give.
#[tokio::test]
async fn routers_of_others_do_not_become_the_gateway_of_a_shared_network() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, ADMIN, "10.0.0.0/24").await;
    let share = json!({"network": {"shared": true}});
    assert_eq!(bench.call(ADMIN, &format!("PUT /networks/{}", id(&network)), share).await.0, 200);
    let router = bench.make(DEMO, "/routers", "router", json!({})).await;
    let line = format!("PUT /routers/{}/add_router_interface", id(&router));
    let join = json!({"subnet_id": id(&subnet)});
    assert_eq!(bench.refused(DEMO, &line, join.clone()).await, refusal(403, "PolicyNotAuthorized"));
    let foreign = bench.make(OTHER, "/ports", "port", json!({"network_id": id(&network)})).await;
    let by_port = json!({"port_id": id(&foreign)});
    assert_eq!(bench.refused(DEMO, &line, by_port.clone()).await, refusal(404, "PortNotFound"));
    assert_eq!(bench.refused(ADMIN, &line, by_port).await, refusal(400, "BadRequest"));
    assert_eq!(bench.call(ADMIN, &line, join).await.0, 200);
}

/// Whoever follows the books hears of every change of them.
#[tokio::test(start_paused = true)]
async fn every_change_is_told() {
    use nova_queue::testing::{VirtualClock, client};
    let bus = Arc::new(nova_queue::MemoryBus::new(Arc::new(VirtualClock::new())));
    let notifier = Notifier::new(client(bus), Arc::new(SeededEntropy::new(1)));
    let bench = Bench::telling(NetworkOptions::default(), notifier.clone());
    let told = async |caller: Caller, line: String, body: Value| {
        let (status, answer) = bench.call(caller, &line, body).await;
        assert!((200..300).contains(&status), "{line} {answer}");
        assert!(notifier.take().is_some(), "nobody is told of {line}");
        answer
    };
    let put = async |caller: Caller, path: &str, key: &str, body: Value| {
        told(caller, format!("PUT {path}"), json!({ key: body })).await;
    };
    let made = async |caller: Caller, path: &str, key: &str, body: Value| {
        let answer = told(caller, format!("POST {path}"), json!({ key: body })).await;
        format!("{path}/{}", id(&answer[key]))
    };
    let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let outer = made(ADMIN, "/networks", "network", json!({"router:external": true})).await;
    let range = json!({"network_id": last(&outer), "cidr": "192.0.2.0/24", "ip_version": 4});
    made(ADMIN, "/subnets", "subnet", range).await;
    let network = made(DEMO, "/networks", "network", json!({})).await;
    put(DEMO, &network, "network", json!({"name": "x"})).await;
    let range = json!({"network_id": last(&network), "cidr": "10.0.0.0/24", "ip_version": 4});
    let subnet = made(DEMO, "/subnets", "subnet", range).await;
    put(DEMO, &subnet, "subnet", json!({"dns_nameservers": ["9.9.9.9"]})).await;
    let group = made(DEMO, "/security-groups", "security_group", json!({"name": "web"})).await;
    put(DEMO, &group, "security_group", json!({"stateful": false})).await;
    let rule = json!({"security_group_id": last(&group), "direction": "ingress", "protocol": "tcp"});
    let rule = made(DEMO, "/security-group-rules", "security_group_rule", rule).await;
    let port = made(DEMO, "/ports", "port", json!({"network_id": last(&network)})).await;
    put(DEMO, &port, "port", json!({"security_groups": [last(&group)]})).await;
    let router = made(DEMO, "/routers", "router", json!({})).await;
    put(DEMO, &router, "router", json!({"external_gateway_info": {"network_id": last(&outer)}})).await;
    let join = json!({"subnet_id": last(&subnet)});
    told(DEMO, format!("PUT {router}/add_router_interface"), join.clone()).await;
    let floating = json!({"floating_network_id": last(&outer), "port_id": last(&port)});
    let floating = made(DEMO, "/floatingips", "floatingip", floating).await;
    put(DEMO, &floating, "floatingip", json!({"port_id": null})).await;
    put(DEMO, &floating, "floatingip", json!({"port_id": last(&port)})).await;
    told(DEMO, format!("DELETE {floating}"), Value::Null).await;
    told(DEMO, format!("PUT {router}/remove_router_interface"), join).await;
    for path in [&router, &port, &rule, &group, &subnet, &network] {
        told(DEMO, format!("DELETE {path}"), Value::Null).await;
    }
}
