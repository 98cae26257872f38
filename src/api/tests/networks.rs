//! Networks of servers: what create asks for, what servers show.

use std::collections::BTreeSet;

use nova_core::context::RequestContext;
use nova_core::ids::RequestId;
use nova_core::network::{InstanceNetworks, NetworkService, RequestedNetworks};
use nova_core::quota::Limits;
use nova_core::state::VmState;
use nova_core::task::{BuildNetworks, Work};
use serde_json::{Value, json};

use super::world::{World, server};

/// A world in which `demo` has a network with a subnet.
pub async fn wired() -> (World, String) {
    let world = World::with_networks().await;
    let network = network(&world, "demo", "net", "10.1.0.0/24").await;
    (world, network)
}

pub async fn network(world: &World, token: &str, name: &str, cidr: &str) -> String {
    let made = world.make(token, "networks", "network", json!({ "name": name })).await;
    let id = made["id"].as_str().unwrap().to_owned();
    world.make(token, "subnets", "subnet", json!({"network_id": id, "cidr": cidr, "ip_version": 4})).await;
    id
}

/// What the build of a server asks of the network.
async fn asked(world: &World, id: &str) -> BuildNetworks {
    let tasks = world.store.list_tasks(Some(id.parse().unwrap())).await.unwrap();
    let build = tasks.into_iter().find_map(|task| match task.work {
        Work::Build { networks, .. } => Some(networks),
        _ => None,
    });
    build.unwrap()
}

/// Makes a server's interfaces as its build would, and ends the build.
pub async fn built(world: &World, id: &str) {
    let instance = world.instance(id).await;
    let asked = asked(world, id).await;
    let wanted = InstanceNetworks {
        instance_id: instance.id,
        project_id: instance.project_id.clone(),
        hostname: instance.hostname.clone(),
        availability_zone: None,
        host: Some("h1".into()),
        security_groups: asked.security_groups,
        requested: asked.requested,
    };
    world.network.allocate(&context(&instance), &wanted).await.unwrap();
    world.settle(id, VmState::Active, "h1").await;
}

pub fn context(instance: &nova_core::instance::Instance) -> RequestContext {
    let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
    RequestContext { project_id: instance.project_id.clone(), ..RequestContext::internal(request_id) }
}

fn with(change: Value) -> Value {
    let mut body = json!({ "server": server("vm") });
    for (key, value) in change.as_object().unwrap() {
        body["server"][key] = value.clone();
    }
    body
}

pub async fn create(world: &World, minor: u16, change: Value) -> String {
    let answer = world.call("demo", minor, "POST /servers", Some(with(change))).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["server"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_asked_for_goes_into_the_build() {
    let (world, network) = wired().await;
    let port = world.make("demo", "ports", "port", json!({ "network_id": network })).await;
    let list = json!([{"uuid": network, "fixed_ip": "10.1.0.9", "tag": "a"}, {"port": port["id"]}]);
    let id = create(&world, 42, json!({"networks": list, "security_groups": [{"name": "default"}]})).await;
    let asked_for = asked(&world, &id).await;
    assert_eq!(asked_for.security_groups, ["default"]);
    let RequestedNetworks::These(interfaces) = asked_for.requested else { panic!("{asked_for:?}") };
    assert_eq!(interfaces[0].network_id.unwrap().to_string(), network);
    assert_eq!(interfaces[0].fixed_ip.unwrap().to_string(), "10.1.0.9");
    assert_eq!(interfaces[0].tag.as_deref(), Some("a"));
    assert_eq!(json!(interfaces[1].port_id.unwrap()), port["id"]);
    for (minor, word, wanted) in [
        (1, None, RequestedNetworks::Unsaid),
        (37, Some(json!([])), RequestedNetworks::Unsaid),
        (37, Some(json!("auto")), RequestedNetworks::Auto),
        (37, Some(json!("none")), RequestedNetworks::Nothing),
    ] {
        let change = word.map_or(json!({}), |word| json!({ "networks": word }));
        let id = create(&world, minor, change).await;
        assert_eq!(asked(&world, &id).await.requested, wanted);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_written() {
    let (world, network) = wired().await;
    let port = world.make("demo", "ports", "port", json!({"network_id": network, "device_id": "other"})).await;
    let free = world.make("demo", "ports", "port", json!({ "network_id": network })).await;
    let foreign = network_of_other(&world).await;
    let foreign_port = world.make("other", "ports", "port", json!({ "network_id": foreign })).await;
    let bare = world.make("demo", "networks", "network", json!({"name": "bare"})).await;
    let public = world.list("admin", "networks?name=public").await[0]["id"].clone();
    let taken = free["fixed_ips"][0]["ip_address"].clone();
    let id = |view: &Value| view["id"].as_str().unwrap().to_owned();
    let (foreign_port, port, bare, free) = (id(&foreign_port), id(&port), id(&bare), id(&free));
    let public = public.as_str().unwrap();
    let before = world.store.commits();
    let cases = [
        (json!([{ "uuid": foreign }]), 400, format!("Network {foreign} could not be found.")),
        (json!([{ "port": foreign_port }]), 400, format!("Port id {foreign_port} could not be found.")),
        (json!([{ "port": port }]), 409, format!("Port {port} is still in use.")),
        (json!([{ "uuid": bare }]), 400, format!("Network {bare} requires a subnet in order to boot instances on.")),
        (
            json!([{ "uuid": public }]),
            403,
            format!("It is not allowed to create an interface on external network {public}"),
        ),
        (
            json!([{"uuid": network, "fixed_ip": taken}]),
            400,
            format!("Fixed IP address {} is already in use on instance.", taken.as_str().unwrap()),
        ),
        (
            json!([{"uuid": network, "fixed_ip": "10.2.0.1"}]),
            400,
            "IP address 10.2.0.1 is not a valid IP for any of the subnets on the specified network.".to_owned(),
        ),
        (json!([{"port": free, "fixed_ip": "10.1.0.9"}]), 400, String::new()),
        (json!([{"port": free}, {"port": free}]), 400, String::new()),
        (json!([{"uuid": "x"}]), 400, "Bad networks format: network uuid is not in proper format (x)".to_owned()),
        (json!([{}]), 400, "Bad network format: missing 'uuid'".to_owned()),
        (json!("some"), 400, String::new()),
    ];
    for (networks, status, text) in cases {
        let body = with(json!({ "networks": networks }));
        let answer = world.call("demo", 100, "POST /servers", Some(body)).await;
        let key = match status {
            400 => "badRequest",
            403 => "forbidden",
            _ => "conflictingRequest",
        };
        let told = answer.fault(status, key);
        assert!(text.is_empty() || told == text, "{networks}: {told}");
    }
    for (change, part) in [
        (json!({"networks": [{"port": free}], "min_count": 2}), "single configured port ID"),
        (
            json!({"networks": [{"uuid": network, "fixed_ip": "10.1.0.9"}], "min_count": 2}),
            "max_count cannot be greater",
        ),
        (json!({"security_groups": [{"name": "web"}], "networks": "none"}), "security_group with name or id 'web'"),
    ] {
        let answer = world.call("demo", 100, "POST /servers", Some(with(change))).await;
        assert!(answer.fault(400, "badRequest").contains(part), "{}", answer.text);
    }
    let answer = world.call("demo", 37, "POST /servers", Some(with(json!({})))).await;
    assert!(answer.fault(400, "badRequest").contains("'networks' is a required property"));
    assert_eq!(world.store.commits(), before);
}

async fn network_of_other(world: &World) -> String {
    network(world, "other", "theirs", "10.9.0.0/24").await
}

#[tokio::test]
async fn a_choice_between_networks_is_the_callers() {
    let (world, _) = wired().await;
    network(&world, "demo", "second", "10.2.0.0/24").await;
    let answer = world.call("demo", 1, "POST /servers", Some(with(json!({})))).await;
    assert_eq!(
        answer.fault(409, "conflictingRequest"),
        "Multiple possible networks found, use a Network ID to be more specific."
    );
}

#[tokio::test]
async fn a_quota_of_ports_makes_fewer_servers_or_none() {
    let (world, network) = wired().await;
    let quota =
        |ports: u64| world.neutron("admin", "PUT /network/v2.0/quotas/dddd0000", json!({"quota": {"port": ports}}));
    assert_eq!(quota(3).await.status, 200);
    let many = json!({"networks": [{"uuid": network}], "min_count": 2, "max_count": 9});
    create(&world, 100, many.clone()).await;
    assert_eq!(world.get("demo", 1, "/servers").await.body["servers"].as_array().unwrap().len(), 3);
    assert_eq!(quota(1).await.status, 200);
    let answer = world.call("demo", 100, "POST /servers", Some(with(many))).await;
    assert_eq!(answer.fault(403, "forbidden"), "The number of defined ports exceeds the limit");
}

#[tokio::test]
async fn auto_makes_the_projects_topology_when_the_server_is_built() {
    let world = World::with_networks().await;
    let id = create(&world, 37, json!({"networks": "auto"})).await;
    assert_eq!(world.list("demo", "networks?router:external=False").await.len(), 0, "not before it is built");
    built(&world, &id).await;
    let shown = world.get("demo", 37, &format!("/servers/{id}")).await.body;
    assert_eq!(shown["server"]["addresses"]["auto_allocated_network"][0]["version"], 4, "{shown}");
    let second = create(&world, 37, json!({"networks": "auto"})).await;
    built(&world, &second).await;
    assert_eq!(world.list("demo", "networks?router:external=False").await.len(), 1);
    // Without a default outer network there is no way to make one.
    let public = world.list("admin", "networks?name=public").await[0]["id"].clone();
    let line = format!("PUT /network/v2.0/networks/{}", public.as_str().unwrap());
    assert_eq!(world.neutron("admin", &line, json!({"network": {"is_default": false}})).await.status, 200);
    let answer =
        world.call("other", 37, "POST /servers", Some(with(json!({"networks": "auto", "flavorRef": "1"})))).await;
    assert_eq!(answer.fault(400, "badRequest"), "Unable to automatically allocate a network for project 0000eeee");
}

#[tokio::test]
async fn servers_show_addresses_and_groups() {
    let (world, network) = wired().await;
    let id = create(&world, 100, json!({"networks": [{"uuid": network, "fixed_ip": "10.1.0.7"}]})).await;
    let shown = |minor: u16, path: String| {
        let world = &world;
        async move { world.get("demo", minor, &path).await.body }
    };
    let before = shown(100, format!("/servers/{id}")).await;
    assert_eq!(before["server"]["addresses"], json!({}));
    assert!(before["server"].get("security_groups").is_none(), "a server without ports has no groups");
    built(&world, &id).await;
    let mac = world.list("demo", &format!("ports?device_id={id}")).await[0]["mac_address"].clone();
    let fixed = json!({"version": 4, "addr": "10.1.0.7", "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": mac});
    let server = &shown(100, format!("/servers/{id}")).await["server"];
    assert_eq!(server["addresses"], json!({ "net": [fixed] }));
    assert_eq!(server["security_groups"], json!([{"name": "default"}]));
    let list = shown(100, "/servers/detail".to_owned()).await;
    assert_eq!(list["servers"][0]["addresses"], json!({ "net": [fixed] }));
    assert_eq!(list["servers"][0]["security_groups"], json!([{"name": "default"}]));
    let bare = json!([{"version": 4, "addr": "10.1.0.7"}]);
    assert_eq!(shown(1, format!("/servers/{id}/ips")).await, json!({"addresses": {"net": bare}}));
    assert_eq!(shown(1, format!("/servers/{id}/ips/net")).await, json!({ "net": bare }));
    let answer = world.get("demo", 1, &format!("/servers/{id}/ips/other")).await;
    assert_eq!(answer.fault(404, "itemNotFound"), "Instance is not a member of specified network");
    let change = Some(json!({"server": {"name": "new"}}));
    let reduced = world.call("demo", 74, &format!("PUT /servers/{id}"), change.clone()).await.body;
    assert_eq!(reduced["server"]["addresses"]["net"], bare);
    let whole = world.call("demo", 75, &format!("PUT /servers/{id}"), change).await.body;
    assert_eq!(whole["server"]["addresses"]["net"], json!([fixed]));
}

#[tokio::test]
async fn lists_are_filtered_by_addresses() {
    let (world, network) = wired().await;
    for (name, address) in [("a", "10.1.0.7"), ("b", "10.1.0.70"), ("c", "10.1.0.8")] {
        let networks = json!([{"uuid": network, "fixed_ip": address}]);
        let id = create(&world, 100, json!({"name": name, "networks": networks})).await;
        built(&world, &id).await;
    }
    let names = |query: &'static str| {
        let world = &world;
        async move {
            let answer =
                world.get("demo", 1, &format!("/servers?{query}&sort_key=display_name&sort_dir=asc")).await.body;
            answer["servers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(names("ip=10.1.0.7").await, ["a", "b"]);
    assert_eq!(names("ip=10.1.0.7$").await, ["a"]);
    assert_eq!(names("ip=1.0.8").await, [] as [&str; 0], "from its beginning");
    assert_eq!(names("ip=10.1&limit=2").await, ["a", "b"]);
    assert_eq!(names("ip=.*8").await, ["c"]);
}

#[tokio::test]
async fn a_long_list_shows_the_addresses_of_all() {
    let limits = Limits { instances: None, cores: None, ram: None };
    let world = World::with_limits(limits).await;
    let network = network(&world, "demo", "net", "10.64.0.0/16").await;
    let quota = json!({"quota": {"port": -1}});
    assert_eq!(world.neutron("admin", "PUT /network/v2.0/quotas/dddd0000", quota).await.status, 200);
    for _ in 0..10 {
        create(&world, 100, json!({"networks": [{"uuid": network}], "min_count": 100})).await;
    }
    let ids: Vec<String> = {
        let all = world.store.list_instances(&nova_db::InstanceQuery::default()).await.unwrap();
        all.into_iter().map(|server| server.id.to_string()).collect()
    };
    for id in &ids {
        built(&world, id).await;
    }
    let list = world.get("demo", 100, "/servers/detail").await.body;
    let servers = list["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 1000);
    let addresses: BTreeSet<_> = servers.iter().filter_map(|one| one["addresses"]["net"][0]["addr"].as_str()).collect();
    assert_eq!(addresses.len(), 1000);
}
