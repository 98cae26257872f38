//! Interfaces that are plugged in and out; groups and addresses of servers; what compute once passed on.

use nova_core::fault::Fault;
use nova_core::network::{InstanceNetworks, NetworkService, RequestedInterface};
use nova_core::task::Work;
use nova_db::TaskCommit;
use serde_json::{Value, json};

use super::networks::{built, context, create, network, wired};
use super::world::{Answer, World};

/// Does what a conductor does with the one task of a server that plugs an interface in or out.
async fn carried_out(world: &World, id: &str) {
    let server = world.instance(id).await;
    let task = loop {
        if let Some(task) = world.store.list_tasks(Some(server.id)).await.unwrap().pop() {
            break task;
        }
        tokio::task::yield_now().await;
    };
    let context = context(&server);
    match &task.work {
        Work::AttachInterface { interface } => {
            let wanted = InstanceNetworks {
                instance_id: server.id,
                project_id: server.project_id.clone(),
                hostname: server.hostname.clone(),
                availability_zone: None,
                host: server.host.clone(),
                security_groups: Vec::new(),
                requested: nova_core::network::RequestedNetworks::Unsaid,
            };
            let mut interface: RequestedInterface = interface.clone();
            interface.new_port_id = task.port_id().filter(|_| interface.port_id.is_none());
            if let Err(error) = world.network.attach(&context, &wanted, &interface).await {
                let message = format!("Failed to attach network adapter device to {id}: {error}");
                let mut failed = world.instance(id).await;
                failed.fault = Some(Fault::new(400, &message, String::new(), task.created_at));
                world.store.update_instance(failed).await.unwrap();
            }
        }
        Work::DetachInterface { port_id } => world.network.detach(&context, server.id, *port_id).await.unwrap(),
        other => panic!("{other:?}"),
    }
    world.store.commit_task(TaskCommit { done: true, ..TaskCommit::of(task) }).await.unwrap();
}

async fn attach(world: &World, id: &str, minor: u16, body: Value) -> Answer {
    let line = format!("POST /servers/{id}/os-interface");
    let call = world.call("demo", minor, &line, Some(json!({ "interfaceAttachment": body })));
    tokio::pin!(call);
    tokio::select! {
        biased;
        // Refused: there is nothing to carry out.
        answer = &mut call => return answer,
        () = carried_out(world, id) => {}
    }
    call.await
}

/// A server on its network, built, and the network.
async fn server() -> (World, String, String) {
    let (world, network) = wired().await;
    let id = create(&world, 100, json!({"networks": [{ "uuid": network }]})).await;
    built(&world, &id).await;
    (world, id, network)
}

async fn act(world: &World, id: &str, minor: u16, body: Value) -> Answer {
    world.call("demo", minor, &format!("POST /servers/{id}/action"), Some(body)).await
}

#[tokio::test]
async fn interfaces_come_and_go() {
    let (world, id, _) = server().await;
    let second = network(&world, "demo", "second", "10.2.0.0/24").await;
    let wanted = json!({"net_id": second, "fixed_ips": [{"ip_address": "10.2.0.9"}], "tag": "nic"});
    let answer = attach(&world, &id, 70, wanted).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let made = answer.body["interfaceAttachment"].clone();
    assert_eq!(made["fixed_ips"][0]["ip_address"], "10.2.0.9");
    assert_eq!((&made["tag"], &made["net_id"]), (&json!("nic"), &json!(second)));
    let list = |minor| {
        let world = &world;
        let path = format!("/servers/{id}/os-interface");
        async move { world.get("demo", minor, &path).await.body["interfaceAttachments"].as_array().unwrap().clone() }
    };
    let all = list(70).await;
    assert_eq!((all.len(), &all[0]["tag"], &all[1]), (2, &Value::Null, &made));
    assert!(list(69).await.iter().all(|one| one.get("tag").is_none()));
    let port = world.make("demo", "ports", "port", json!({ "network_id": second })).await;
    let by_port = attach(&world, &id, 1, json!({"port_id": port["id"]})).await;
    assert_eq!(by_port.body["interfaceAttachment"]["port_id"], port["id"], "{}", by_port.text);
    let path = format!("/servers/{id}/os-interface/{}", port["id"].as_str().unwrap());
    assert_eq!(world.get("demo", 1, &path).await.body["interfaceAttachment"]["mac_addr"], port["mac_address"]);
    assert_eq!(world.call("demo", 1, &format!("DELETE {path}"), None).await.status, 202);
    carried_out(&world, &id).await;
    assert_eq!(list(1).await.len(), 2);
    let missing = world.get("demo", 1, &path).await;
    assert!(missing.fault(404, "itemNotFound").contains("does not have a port with id"));
    let line = format!("GET /network/v2.0/ports/{}", port["id"].as_str().unwrap());
    let left = world.neutron("demo", &line, Value::Null).await.body;
    assert_eq!(left["port"]["device_id"], "", "a port that was there before stays");
}

/// What the network service can tell is told, whoever that is; what needs the books themselves is not.
#[tokio::test]
async fn interfaces_need_no_books_of_ours() {
    let world = World::without_books().await;
    let nothing = create(&world, 100, json!({"networks": "none"})).await;
    built(&world, &nothing).await;
    let refused = attach(&world, &nothing, 1, json!({})).await;
    assert!(refused.fault(400, "badRequest").contains("none are available"));
    let wire = network(&world, "demo", "net", "10.1.0.0/24").await;
    let made = attach(&world, &nothing, 70, json!({"tag": "nic"})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = &made.body["interfaceAttachment"];
    assert_eq!((&made["net_id"], &made["tag"]), (&json!(wire), &json!("nic")));
    let path = format!("/servers/{nothing}/os-interface/{}", made["port_id"].as_str().unwrap());
    assert_eq!(world.get("demo", 70, &path).await.body["interfaceAttachment"], *made);
    assert_eq!(world.call("demo", 1, &format!("DELETE {path}"), None).await.status, 202);
    carried_out(&world, &nothing).await;
    assert_eq!(world.get("demo", 1, &path).await.status, 404);
    assert_eq!(world.get("demo", 1, &format!("/servers/{nothing}/os-security-groups")).await.status, 501);
}

/// That there is no address is found out when one is taken.
#[tokio::test]
async fn an_exhausted_pool_is_told_and_leaves_nothing() {
    let (world, id, _) = server().await;
    let narrow = network(&world, "demo", "narrow", "10.2.0.0/30").await;
    let one = attach(&world, &id, 1, json!({ "net_id": narrow })).await;
    assert_eq!(one.status, 200, "{}", one.text);
    let before = world.list("demo", "ports").await;
    let two = attach(&world, &id, 1, json!({ "net_id": narrow })).await;
    let message = two.fault(400, "badRequest");
    assert_eq!(message, format!("No fixed IP addresses available for network: {narrow}"));
    assert_eq!(world.list("demo", "ports").await, before);
}

#[tokio::test]
async fn interfaces_that_cannot_be_are_refused_at_once() {
    let (world, id, network_id) = server().await;
    network(&world, "demo", "second", "10.2.0.0/24").await;
    let theirs = network(&world, "other", "theirs", "10.3.0.0/24").await;
    let their_port = world.make("other", "ports", "port", json!({ "network_id": theirs })).await["id"].clone();
    let own = world.list("demo", &format!("ports?device_id={id}")).await[0].clone();
    let address = own["fixed_ips"][0]["ip_address"].clone();
    let public = world.list("admin", "networks?name=public").await[0]["id"].clone();
    let unknown = "00000000-0000-4000-8000-000000000000";
    let cases = [
        (json!({}), 400),
        (json!({ "net_id": theirs }), 404),
        (json!({ "net_id": unknown }), 404),
        (json!({ "port_id": their_port }), 404),
        (json!({ "port_id": unknown }), 404),
        (json!({ "port_id": own["id"] }), 409),
        (json!({ "net_id": public }), 403),
        (json!({"net_id": network_id, "fixed_ips": [{ "ip_address": address }]}), 409),
        (json!({"net_id": network_id, "fixed_ips": [{"ip_address": "192.0.2.1"}]}), 400),
        (json!({"fixed_ips": [{"ip_address": "10.1.0.9"}]}), 400),
        (json!({"net_id": network_id, "port_id": unknown}), 400),
        (json!({"net_id": "x"}), 400),
        (json!({"net_id": network_id, "fixed_ips": []}), 400),
        (json!({"net_id": network_id, "tag": "early"}), 400),
    ];
    let before = world.store.commits();
    for (body, status) in cases {
        let line = format!("POST /servers/{id}/os-interface");
        let answer = world.call("demo", 1, &line, Some(json!({ "interfaceAttachment": body }))).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text);
    }
    for (token, status) in [("reader", 403), ("other", 404)] {
        let answer = world.call(token, 1, &format!("POST /servers/{id}/os-interface"), Some(json!({}))).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let line = format!("DELETE /servers/{id}/os-interface/{unknown}");
    assert_eq!(world.call("demo", 1, &line, None).await.status, 404);
    assert_eq!(world.store.commits(), before);
}

#[tokio::test]
async fn security_groups_are_given_to_servers_and_taken() {
    let (world, id, _) = server().await;
    let web = world.make("demo", "security-groups", "security_group", json!({"name": "web"})).await;
    for name in ["web".to_owned(), web["id"].as_str().unwrap().to_owned()] {
        assert_eq!(act(&world, &id, 1, json!({"addSecurityGroup": { "name": name }})).await.status, 202);
    }
    let shown = world.get("demo", 1, &format!("/servers/{id}")).await.body;
    assert_eq!(shown["server"]["security_groups"], json!([{"name": "default"}, {"name": "web"}]));
    let groups = world.get("demo", 1, &format!("/servers/{id}/os-security-groups")).await.body;
    let names: Vec<_> =
        groups["security_groups"].as_array().unwrap().iter().map(|group| group["name"].clone()).collect();
    assert!(names.contains(&json!("web")) && names.len() == 2, "{groups}");
    assert_eq!(act(&world, &id, 1, json!({"removeSecurityGroup": {"name": "web"}})).await.status, 202);
    for (body, status) in [
        (json!({"removeSecurityGroup": {"name": "web"}}), 404),
        (json!({"addSecurityGroup": {"name": "none"}}), 404),
        (json!({"addSecurityGroup": {"name": ""}}), 400),
        (json!({"addSecurityGroup": {}}), 400),
        (json!({"addSecurityGroup": {"name": "web", "x": 1}}), 400),
    ] {
        assert_eq!(act(&world, &id, 1, body.clone()).await.status, status, "{body}");
    }
    world.make("demo", "security-groups", "security_group", json!({"name": "web"})).await;
    assert_eq!(act(&world, &id, 1, json!({"addSecurityGroup": {"name": "web"}})).await.status, 409);
    let bare = create(&world, 100, json!({"networks": "none"})).await;
    built(&world, &bare).await;
    assert_eq!(act(&world, &bare, 1, json!({"addSecurityGroup": {"name": "default"}})).await.status, 404);
}

#[tokio::test]
async fn addresses_are_given_to_servers_until_2_43() {
    let (world, id, network) = server().await;
    assert_eq!(act(&world, &id, 43, json!({"addFixedIp": { "networkId": network }})).await.status, 202);
    let addresses =
        || async { world.get("demo", 1, &format!("/servers/{id}/ips")).await.body["addresses"]["net"].clone() };
    let two = addresses().await;
    assert_eq!(two.as_array().unwrap().len(), 2, "{two}");
    let second = two[1]["addr"].clone();
    assert_eq!(act(&world, &id, 43, json!({"removeFixedIp": { "address": second }})).await.status, 202);
    assert_eq!(addresses().await.as_array().unwrap().len(), 1);
    for body in [json!({"removeFixedIp": { "address": second }}), json!({"removeFixedIp": {"address": "x"}})] {
        assert_eq!(act(&world, &id, 43, body).await.status, 400);
    }
    let unknown = "00000000-0000-4000-8000-000000000000";
    assert_eq!(act(&world, &id, 43, json!({"addFixedIp": { "networkId": unknown }})).await.status, 404);
    for key in ["addFixedIp", "removeFixedIp", "addFloatingIp", "removeFloatingIp"] {
        let answer = act(&world, &id, 44, json!({ key: {"address": "172.24.4.9", "networkId": network} })).await;
        assert_eq!(answer.status, 404, "{key} {}", answer.text);
    }
}

/// A router between the network's subnet and the outer network.
async fn routed(world: &World, network: &str) {
    let public = world.list("admin", "networks?name=public").await[0]["id"].clone();
    let router = json!({"name": "r", "external_gateway_info": { "network_id": public }});
    let router = world.make("demo", "routers", "router", router).await;
    let subnet = world.list("demo", &format!("subnets?network_id={network}")).await[0]["id"].clone();
    let line = format!("PUT /network/v2.0/routers/{}/add_router_interface", router["id"].as_str().unwrap());
    let answer = world.neutron("demo", &line, json!({ "subnet_id": subnet })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn floating_addresses_come_from_pools_and_stand_for_servers() {
    let (world, id, network) = server().await;
    routed(&world, &network).await;
    let pools = world.get("demo", 1, "/os-floating-ip-pools").await.body;
    assert_eq!(pools, json!({"floating_ip_pools": [{"name": "public"}]}));
    let made = world.call("demo", 35, "POST /os-floating-ips", Some(json!({"pool": "public"}))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let floating = made.body["floating_ip"].clone();
    assert_eq!(
        (&floating["pool"], &floating["fixed_ip"], &floating["instance_id"]),
        (&json!("public"), &Value::Null, &Value::Null)
    );
    let address = floating["ip"].clone();
    let remove = json!({"removeFloatingIp": { "address": address }});
    assert_eq!(act(&world, &id, 1, remove.clone()).await.status, 409, "it stands for nothing yet");
    let answer = act(&world, &id, 1, json!({"addFloatingIp": { "address": address }})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let shown = world.get("demo", 1, &format!("/servers/{id}")).await.body;
    let list = shown["server"]["addresses"]["net"].as_array().unwrap();
    assert_eq!((&list[1]["addr"], &list[1]["OS-EXT-IPS:type"]), (&address, &json!("floating")));
    let path = format!("/os-floating-ips/{}", floating["id"].as_str().unwrap());
    let now = world.get("demo", 1, &path).await.body["floating_ip"].clone();
    assert_eq!((&now["fixed_ip"], &now["instance_id"]), (&list[0]["addr"], &json!(id)));
    assert_eq!(world.get("demo", 1, "/os-floating-ips").await.body["floating_ips"], json!([now]));
    assert_eq!(world.get("other", 1, "/os-floating-ips").await.body["floating_ips"], json!([]));
    for (body, status) in [
        (json!({"addFloatingIp": {"address": "172.24.4.200"}}), 404),
        (json!({"addFloatingIp": {"address": "x"}}), 400),
        (json!({"addFloatingIp": {"address": address, "fixed_address": "10.1.0.250"}}), 400),
        (json!({"removeFloatingIp": {"address": "172.24.4.200"}}), 404),
    ] {
        assert_eq!(act(&world, &id, 1, body.clone()).await.status, status, "{body}");
    }
    assert_eq!(act(&world, &id, 1, remove).await.status, 202);
    assert_eq!(world.call("other", 1, &format!("DELETE {path}"), None).await.status, 404);
    assert_eq!(world.call("demo", 1, &format!("DELETE {path}"), None).await.status, 202);
    assert_eq!(world.get("demo", 1, &path).await.status, 404);
    let answer = world.call("demo", 1, "POST /os-floating-ips", Some(json!({"pool": "nowhere"}))).await;
    assert_eq!(answer.fault(404, "itemNotFound"), "Floating IP pool not found.");
    for path in
        ["/os-floating-ips", "/os-floating-ip-pools", "/os-networks", "/os-tenant-networks", "/os-security-groups"]
    {
        assert_eq!(world.get("demo", 35, path).await.status, 200, "{path}");
        assert_eq!(world.get("demo", 36, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn security_groups_have_novas_form_until_2_35() {
    let world = World::with_networks().await;
    let post = |path: &'static str, body: Value| {
        let world = &world;
        async move { world.call("demo", 1, &format!("POST {path}"), Some(body)).await }
    };
    let group = |name: &str| json!({"security_group": {"name": name, "description": "d"}});
    let made = post("/os-security-groups", group("web")).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let web = made.body["security_group"].clone();
    assert_eq!((&web["rules"], &web["tenant_id"]), (&json!([]), &json!("dddd0000")));
    let id = web["id"].as_str().unwrap().to_owned();
    for (body, status) in [
        (group(""), 400),
        (group(&"n".repeat(256)), 400),
        (json!({"security_group": {"name": "x"}}), 400),
        (group("default"), 400),
    ] {
        assert_eq!(post("/os-security-groups", body.clone()).await.status, status, "{body}");
    }
    let rule = |change: Value| {
        let mut rule = json!({"parent_group_id": id, "ip_protocol": "tcp", "from_port": 22, "to_port": "22", "cidr": "10.0.0.0/8"});
        for (key, value) in change.as_object().unwrap() {
            rule[key] = value.clone();
        }
        json!({ "security_group_rule": rule })
    };
    let made = post("/os-security-group-rules", rule(json!({}))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let ssh = made.body["security_group_rule"].clone();
    let expected = json!({"id": ssh["id"], "parent_group_id": id, "ip_protocol": "tcp", "from_port": 22, "to_port": 22,
        "group": {}, "ip_range": {"cidr": "10.0.0.0/8"}});
    assert_eq!(ssh, expected);
    let by_group =
        post("/os-security-group-rules", rule(json!({"cidr": null, "group_id": id, "from_port": 80, "to_port": 80})))
            .await;
    assert_eq!(
        by_group.body["security_group_rule"]["group"],
        json!({"name": "web", "tenant_id": "dddd0000"}),
        "{}",
        by_group.text
    );
    let icmp =
        post("/os-security-group-rules", rule(json!({"ip_protocol": "icmp", "from_port": -1, "to_port": -1}))).await;
    assert_eq!(icmp.body["security_group_rule"]["from_port"], -1, "{}", icmp.text);
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (change, status) in [
        (json!({}), 400),
        (json!({"ip_protocol": "no"}), 400),
        (json!({"from_port": 99999}), 400),
        (json!({"from_port": 30, "to_port": 20}), 400),
        (json!({"cidr": "10.0.0.0/99"}), 400),
        (json!({ "parent_group_id": unknown }), 404),
        (json!({"parent_group_id": "x"}), 400),
    ] {
        assert_eq!(post("/os-security-group-rules", rule(change.clone())).await.status, status, "{change}");
    }
    let path = format!("/os-security-groups/{id}");
    let shown = world.get("demo", 1, &path).await.body["security_group"].clone();
    assert_eq!(shown["rules"].as_array().unwrap().len(), 3);
    assert_eq!(world.get("other", 1, &path).await.status, 404);
    let line = format!("DELETE /os-security-group-rules/{}", ssh["id"].as_str().unwrap());
    assert_eq!(world.call("demo", 1, &line, None).await.status, 202);
    assert_eq!(world.call("demo", 1, &line, None).await.status, 404);
    let renamed = world.call("demo", 1, &format!("PUT {path}"), Some(group("new"))).await;
    assert_eq!(renamed.body["security_group"]["name"], "new", "{}", renamed.text);
    let list = world.get("demo", 1, "/os-security-groups").await.body["security_groups"].clone();
    let default = list.as_array().unwrap().iter().find(|group| group["name"] == "default").unwrap()["id"].clone();
    let default = format!("/os-security-groups/{}", default.as_str().unwrap());
    assert_eq!(world.call("demo", 1, &format!("DELETE {default}"), None).await.status, 400);
    assert_eq!(world.call("demo", 1, &format!("PUT {default}"), Some(group("mine"))).await.status, 400);
    assert_eq!(world.call("demo", 1, "PUT /os-security-groups/x", Some(group("a"))).await.status, 400);
    assert_eq!(world.call("demo", 1, &format!("DELETE {path}"), None).await.status, 202);
    assert_eq!(world.get("demo", 1, &path).await.status, 404);
}

#[tokio::test]
async fn networks_have_novas_form_until_2_35() {
    let (world, id) = wired().await;
    let list = world.get("demo", 1, "/os-tenant-networks").await.body;
    assert_eq!(list, json!({"networks": [{"id": id, "label": "net", "cidr": null}]}));
    let one = world.get("demo", 1, &format!("/os-tenant-networks/{id}")).await.body;
    assert_eq!(one["network"]["label"], "net");
    assert_eq!(world.get("demo", 1, "/os-networks").await.body["networks"][0]["label"], "net");
    for path in [format!("/os-networks/{id}"), format!("/os-tenant-networks/{id}")] {
        assert_eq!(world.get("other", 1, &path).await.fault(404, "itemNotFound"), "Network not found");
    }
}

#[tokio::test]
async fn what_came_with_nova_network_is_gone() {
    let (world, id, _) = server().await;
    for line in [
        "GET /os-fixed-ips/10.0.0.1".to_owned(),
        "GET /os-floating-ips-bulk".to_owned(),
        "GET /os-floating-ip-dns".to_owned(),
        "POST /os-networks".to_owned(),
        "DELETE /os-tenant-networks/1".to_owned(),
        "GET /os-security-group-default-rules".to_owned(),
        format!("GET /servers/{id}/os-virtual-interfaces"),
    ] {
        for minor in [1, 100] {
            let answer = world.call("demo", minor, &line, Some(json!({}))).await;
            assert_eq!(answer.status, 410, "{line} {}", answer.text);
        }
    }
}
