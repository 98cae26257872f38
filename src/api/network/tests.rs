//! The network API as clients see it, without HTTP.

mod auto;
mod guards;
mod hosts;
mod wrong;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{ProjectId, RequestId, UserId};
use nova_db::MemoryStore;
use serde_json::{Value, json};

use super::{NeutronDialect, resources};
use crate::api::router::{Found, Router};
use crate::api::{ApiError, Dialect, MAX_BODY, Microversion, Query, Request};
use crate::network::{NetworkManager, NetworkOptions, Notifier};

/// Who calls: a project and a role.
type Caller = (&'static str, &'static str);

const ADMIN: Caller = ("p-admin", "admin");
const DEMO: Caller = ("p-demo", "member");
const OTHER: Caller = ("p-other", "member");
const READER: Caller = ("p-demo", "reader");

struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

struct Bench(Router, Arc<NetworkManager>);

impl Bench {
    fn new() -> Self {
        Self::with(NetworkOptions::default())
    }

    fn with(options: NetworkOptions) -> Self {
        Self::telling(options, Notifier::silent())
    }

    fn telling(options: NetworkOptions, notifier: Notifier) -> Self {
        let (clock, entropy) = (Arc::new(TestClock), Arc::new(SeededEntropy::new(1)));
        let store = Arc::new(MemoryStore::new());
        let manager = Arc::new(NetworkManager::new(store, clock, entropy, options).telling(notifier));
        let mut router = Router::default();
        for resource in resources(manager.clone()) {
            for route in resource.routes() {
                router.add(route);
            }
        }
        Self(router, manager)
    }

    async fn call(&self, (project, role): Caller, line: &str, body: Value) -> (u16, Value) {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method: Method = method.parse().unwrap();
        let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
        let context = RequestContext {
            user_id: UserId::new("u"),
            project_id: ProjectId::new(project),
            roles: vec![role.to_owned()],
            ..RequestContext::internal(request_id.clone())
        };
        let result = match self.0.find(&method, path, Microversion::MIN) {
            Found::Handler { handler, params, .. } => {
                let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
                let request = Request {
                    method,
                    path: path.to_owned(),
                    params,
                    url_project: None,
                    query: Query::parse(query),
                    headers: HeaderMap::new(),
                    request_id,
                    context: Some(context),
                    token: None,
                    proven: false,
                    version: Microversion::MIN,
                    lenient: false,
                    base_url: "http://h:8774/network/v2.0".to_owned(),
                    body_limit: MAX_BODY,
                    body_timeout: std::time::Duration::from_secs(1),
                    body: body.into(),
                };
                handler(request).await
            }
            _ => Err(ApiError::no_such_resource()),
        };
        let response = result.unwrap_or_else(|error| NeutronDialect.render(&error));
        let status = response.status.as_u16();
        let bytes = response.body.collect().await.unwrap().to_bytes();
        assert!(status < 500 || status == 501, "{line} {bytes:?}");
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (status, body)
    }

    async fn get(&self, caller: Caller, path: &str) -> Value {
        let (status, body) = self.call(caller, &format!("GET {path}"), Value::Null).await;
        assert_eq!(status, 200, "{path} {body}");
        body
    }

    /// Creates something and returns what is under its key.
    async fn make(&self, caller: Caller, path: &str, key: &str, body: Value) -> Value {
        let (status, answer) = self.call(caller, &format!("POST {path}"), json!({ key: body })).await;
        assert_eq!(status, 201, "{path} {answer}");
        answer[key].clone()
    }

    /// The status and the name of the error.
    async fn refused(&self, caller: Caller, line: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(caller, line, body).await;
        let error = &answer["NeutronError"];
        assert!(error["message"].is_string() && error["detail"].is_string(), "{line} {status} {answer}");
        (status, error["type"].as_str().unwrap().to_owned())
    }

    async fn gone(&self, caller: Caller, path: &str) {
        let (status, body) = self.call(caller, &format!("DELETE {path}"), Value::Null).await;
        assert_eq!((status, body), (204, Value::Null), "{path}");
    }
}

fn id(view: &Value) -> &str {
    view["id"].as_str().unwrap()
}

fn refusal(status: u16, name: &str) -> (u16, String) {
    (status, name.to_owned())
}

/// A network of that caller's with a subnet.
async fn wired(bench: &Bench, caller: Caller, cidr: &str) -> (Value, Value) {
    let network = bench.make(caller, "/networks", "network", json!({"name": "net"})).await;
    let subnet = json!({"network_id": id(&network), "cidr": cidr, "ip_version": 4, "name": "sub"});
    let subnet = bench.make(caller, "/subnets", "subnet", subnet).await;
    (network, subnet)
}

#[tokio::test]
async fn networks_are_made_shown_changed_and_removed() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let path = format!("/networks/{}", id(&network));
    let shown = bench.get(DEMO, &path).await;
    assert_eq!(shown["network"]["subnets"], json!([id(&subnet)]));
    assert_eq!((&shown["network"]["router:external"], &shown["network"]["status"]), (&json!(false), &json!("ACTIVE")));
    assert!(shown["network"].get("provider:network_type").is_none(), "how it is carried is for administrators");
    assert!(bench.get(ADMIN, &path).await["network"].get("provider:network_type").is_some());
    assert_eq!(
        bench.get(DEMO, &format!("{path}?fields=id&fields=name")).await["network"].as_object().unwrap().len(),
        2
    );
    assert_eq!(subnet["allocation_pools"], json!([{"start": "10.0.0.2", "end": "10.0.0.254"}]));
    assert_eq!((&subnet["gateway_ip"], &subnet["ip_version"]), (&json!("10.0.0.1"), &json!(4)));
    let (_, changed) = bench.call(DEMO, &format!("PUT {path}"), json!({"network": {"name": "new"}})).await;
    assert_eq!((&changed["network"]["name"], &changed["network"]["admin_state_up"]), (&json!("new"), &json!(true)));
    let shared = json!({"network": {"shared": true}});
    assert_eq!(bench.refused(DEMO, &format!("PUT {path}"), shared).await, refusal(403, "PolicyNotAuthorized"));
    bench.gone(DEMO, &path).await;
    assert_eq!(bench.refused(DEMO, &format!("GET {path}"), Value::Null).await, refusal(404, "NetworkNotFound"));
}

#[tokio::test]
async fn foreign_things_are_not_there() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let port = bench.make(DEMO, "/ports", "port", json!({"network_id": id(&network)})).await;
    let router = bench.make(DEMO, "/routers", "router", json!({"name": "r"})).await;
    let group = bench.make(DEMO, "/security-groups", "security_group", json!({"name": "g"})).await;
    let rule = &group["security_group_rules"][0];
    let keys = ["network", "subnet", "port", "router", "security_group"];
    let paths = ["networks", "subnets", "ports", "routers", "security-groups"];
    for ((key, path), thing) in keys.into_iter().zip(paths).zip([&network, &subnet, &port, &router, &group]) {
        let path = format!("/{path}/{}", id(thing));
        for (method, body) in [("GET", Value::Null), ("PUT", json!({ key: {} })), ("DELETE", Value::Null)] {
            let (status, _) = bench.refused(OTHER, &format!("{method} {path}"), body).await;
            assert_eq!(status, 404, "{method} {path}");
        }
        bench.get(READER, &path).await;
    }
    assert_eq!(bench.refused(OTHER, &format!("DELETE /security-group-rules/{}", id(rule)), Value::Null).await.0, 404);
    let plug = json!({"port": {"network_id": id(&network)}});
    assert_eq!(bench.refused(OTHER, "POST /ports", plug.clone()).await, refusal(404, "NetworkNotFound"));
    assert_eq!(bench.refused(READER, "POST /ports", plug).await, refusal(403, "PolicyNotAuthorized"));
    let join = json!({"subnet_id": id(&subnet)});
    let own = bench.make(OTHER, "/routers", "router", json!({})).await;
    let line = format!("PUT /routers/{}/add_router_interface", id(&own));
    assert_eq!(bench.refused(OTHER, &line, join).await, refusal(404, "SubnetNotFound"));
    for list in ["networks", "subnets", "ports"] {
        assert_eq!(bench.get(OTHER, &format!("/{list}")).await[list], json!([]), "{list}");
    }
    for name in ["no-such-name", "net"] {
        assert_eq!(bench.refused(DEMO, &format!("GET /networks/{name}"), Value::Null).await.0, 404);
    }
    let alien = json!({"network": {"project_id": "p-other"}});
    assert_eq!(bench.refused(DEMO, "POST /networks", alien.clone()).await.0, 400);
    let (_, made) = bench.call(ADMIN, "POST /networks", alien).await;
    bench.get(OTHER, &format!("/networks/{}", id(&made["network"]))).await;
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let bench = Bench::new();
    for name in ["c", "a", "b"] {
        bench.make(DEMO, "/networks", "network", json!({"name": name, "description": format!("is {name}")})).await;
    }
    bench.make(ADMIN, "/networks", "network", json!({"name": "outer", "router:external": true})).await;
    let names = async |query: &str| {
        let list = bench.get(DEMO, &format!("/networks?{query}")).await;
        let names: Vec<_> =
            list["networks"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect();
        names.join("")
    };
    for (query, expected) in [
        ("sort_key=name", "abcouter"),
        ("sort_key=name&sort_dir=desc", "outercba"),
        ("name=a&name=b&sort_key=name", "ab"),
        ("router%3Aexternal=True", "outer"),
        ("router:external=false&sort_key=name", "abc"),
        ("description=is%20b", "b"),
        ("tenant_id=p-demo&sort_key=name&limit=2", "ab"),
        ("status=ACTIVE&sort_key=name&limit=1", "a"),
        ("shared=true", ""),
    ] {
        assert_eq!(names(query).await, expected, "{query}");
    }
    let first = bench.get(DEMO, "/networks?limit=2&sort_key=name").await;
    let link = &first["networks_links"][0];
    assert_eq!((first["networks_links"].as_array().unwrap().len(), &link["rel"]), (1, &json!("next")));
    let next = link["href"].as_str().unwrap().strip_prefix("http://h:8774/network/v2.0").unwrap();
    let second = bench.get(DEMO, next).await;
    assert_eq!(second["networks"][0]["name"], "c");
    let back = second["networks_links"].as_array().unwrap().iter().find(|link| link["rel"] == "previous").unwrap();
    let back = back["href"].as_str().unwrap().strip_prefix("http://h:8774/network/v2.0").unwrap();
    assert_eq!(bench.get(DEMO, back).await["networks"], first["networks"]);
    for (query, status) in [
        ("limit=-1", 400),
        ("limit=x", 400),
        ("sort_key=color", 400),
        ("color=red", 400),
        ("shared=perhaps", 400),
        ("sort_key=name&sort_dir=up", 400),
        ("marker=9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a", 404),
    ] {
        assert_eq!(bench.refused(DEMO, &format!("GET /networks?{query}"), Value::Null).await.0, status, "{query}");
    }
}

#[tokio::test]
async fn bad_subnets_are_told_what_is_wrong() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let network = id(&network);
    for (fields, expected) in [
        (json!({"cidr": "10.0.0.1/24", "ip_version": 4}), refusal(400, "HTTPBadRequest")),
        (json!({"cidr": "x", "ip_version": 4}), refusal(400, "HTTPBadRequest")),
        (json!({"cidr": "10.1.0.0/24"}), refusal(400, "HTTPBadRequest")),
        (json!({"ip_version": 4}), refusal(400, "HTTPBadRequest")),
        (json!({"cidr": "10.1.0.0/24", "ip_version": 6}), refusal(400, "HTTPBadRequest")),
        (json!({"cidr": "10.1.0.0/24", "ip_version": 4, "colour": 1}), refusal(400, "HTTPBadRequest")),
        (json!({"cidr": "10.0.0.128/25", "ip_version": 4}), refusal(400, "InvalidInput")),
        (json!({"cidr": "10.1.0.0/24", "ip_version": 4, "gateway_ip": "10.2.0.1"}), refusal(400, "InvalidInput")),
        (
            json!({"cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.8"}]}),
            refusal(400, "InvalidAllocationPool"),
        ),
        (
            json!({"cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.1.0.1", "end": "10.1.0.8"}]}),
            refusal(409, "GatewayConflictWithAllocationPools"),
        ),
    ] {
        let mut body = fields.clone();
        body["network_id"] = json!(network);
        assert_eq!(bench.refused(DEMO, "POST /subnets", json!({ "subnet": body })).await, expected, "{fields}");
    }
    let v6 = json!({"network_id": network, "cidr": "2001:db8::/64", "ip_version": 6, "gateway_ip": null, "ipv6_ra_mode": "slaac"});
    let v6 = bench.make(DEMO, "/subnets", "subnet", v6).await;
    assert_eq!((&v6["gateway_ip"], &v6["ipv6_ra_mode"]), (&json!(null), &json!("slaac")));
    let line = format!("PUT /subnets/{}", id(&subnet));
    let servers = json!({"subnet": {"dns_nameservers": ["9.9.9.9"], "enable_dhcp": false, "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]}});
    let (status, changed) = bench.call(DEMO, &line, servers).await;
    assert_eq!((status, &changed["subnet"]["dns_nameservers"]), (200, &json!(["9.9.9.9"])));
    assert_eq!(changed["subnet"]["host_routes"][0]["destination"], "10.9.0.0/16");
    assert_eq!(bench.refused(DEMO, &line, json!({"subnet": {"cidr": "10.5.0.0/24"}})).await.0, 400);
}

#[tokio::test]
async fn ports_have_addresses_and_the_default_group() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let network = id(&network);
    let port = bench.make(DEMO, "/ports", "port", json!({"network_id": network, "name": "one"})).await;
    assert!(port["mac_address"].as_str().unwrap().starts_with("fa:16:3e:"));
    assert_eq!(port["fixed_ips"][0]["subnet_id"], subnet["id"]);
    let groups = bench.get(DEMO, "/security-groups?name=default").await;
    assert_eq!(port["security_groups"], json!([groups["security_groups"][0]["id"]]));
    assert!(port.get("binding:host_id").is_none(), "where it is plugged in is for administrators");
    let two =
        json!({"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.50"}], "mac_address": "fa:16:3e:00:00:01"});
    let two = bench.make(DEMO, "/ports", "port", two).await;
    for (query, count) in [
        ("name=one", 1),
        ("fixed_ips=ip_address%3D10.0.0.50", 1),
        ("fixed_ips=ip_address%3D10.0.0.51", 0),
        ("mac_address=fa:16:3e:00:00:01", 1),
        ("device_id=", 2),
        ("binding:vnic_type=normal", 2),
        (&format!("fixed_ips=subnet_id%3D{}", id(&subnet)), 2),
        (&format!("security_groups={}", groups["security_groups"][0]["id"].as_str().unwrap()), 2),
    ] {
        let list = bench.get(DEMO, &format!("/ports?{query}")).await;
        assert_eq!(list["ports"].as_array().unwrap().len(), count, "{query}");
    }
    for (fields, expected) in [
        (json!({"fixed_ips": [{"ip_address": "10.0.0.50"}]}), refusal(409, "IpAddressInUse")),
        (json!({"fixed_ips": [{"ip_address": "10.7.0.50"}]}), refusal(400, "InvalidIpForNetwork")),
        (json!({"fixed_ips": [{}]}), refusal(400, "HTTPBadRequest")),
        (json!({"mac_address": "fa:16:3e:00:00:01"}), refusal(409, "MacAddressInUse")),
        (json!({"mac_address": "01:16:3e:00:00:01"}), refusal(400, "HTTPBadRequest")),
        (json!({"security_groups": ["9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a"]}), refusal(404, "SecurityGroupNotFound")),
        (json!({"device_owner": "network:dhcp"}), refusal(403, "PolicyNotAuthorized")),
        (json!({"device_owner": "compute:nova"}), refusal(403, "PolicyNotAuthorized")),
        (json!({"binding:host_id": "h1"}), refusal(403, "PolicyNotAuthorized")),
        (
            json!({"port_security_enabled": false, "allowed_address_pairs": [{"ip_address": "10.0.0.0/8"}]}),
            refusal(409, "AddressPairAndPortSecurityRequired"),
        ),
    ] {
        let mut body = fields.clone();
        body["network_id"] = json!(network);
        assert_eq!(bench.refused(DEMO, "POST /ports", json!({ "port": body })).await, expected, "{fields}");
    }
    let path = format!("/ports/{}", id(&two));
    let change = json!({"port": {"security_groups": [], "port_security_enabled": false, "fixed_ips": [{"subnet_id": id(&subnet)}]}});
    let (status, changed) = bench.call(DEMO, &format!("PUT {path}"), change).await;
    assert_eq!(
        (status, &changed["port"]["fixed_ips"], &changed["port"]["port_security_enabled"]),
        (200, &two["fixed_ips"], &json!(false))
    );
    let host = json!({"port": {"binding:host_id": "h1"}});
    let (_, bound) = bench.call(ADMIN, &format!("PUT {path}"), host).await;
    assert_eq!(
        (&bound["port"]["binding:host_id"], &bound["port"]["binding:vif_type"]),
        (&json!("h1"), &json!("bridge"))
    );
    let both = json!({"ports": [{"network_id": network}, {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.50"}]}]});
    assert_eq!(bench.refused(DEMO, "POST /ports", both).await.0, 409);
    assert_eq!(bench.get(DEMO, "/ports").await["ports"].as_array().unwrap().len(), 2, "all or none");
    bench.gone(DEMO, &path).await;
    assert_eq!(bench.refused(DEMO, &format!("DELETE {path}"), Value::Null).await, refusal(404, "PortNotFound"));
}

/// On a network that is shared with them, guests of others take what they are given.
#[tokio::test]
async fn shared_networks_keep_their_walls() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, ADMIN, "10.0.0.0/24").await;
    let share = json!({"network": {"shared": true}});
    let (status, _) = bench.call(ADMIN, &format!("PUT /networks/{}", id(&network)), share).await;
    assert_eq!(status, 200);
    bench.get(DEMO, &format!("/subnets/{}", id(&subnet))).await;
    let port = bench.make(DEMO, "/ports", "port", json!({"network_id": id(&network)})).await;
    for fields in [
        json!({"port_security_enabled": false}),
        json!({"allowed_address_pairs": [{"ip_address": "0.0.0.0/0"}]}),
        json!({"mac_address": "fa:16:3e:00:00:01"}),
        json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]}),
    ] {
        let mut body = fields.clone();
        body["network_id"] = json!(id(&network));
        let made = bench.refused(DEMO, "POST /ports", json!({ "port": body })).await;
        let changed = bench.refused(DEMO, &format!("PUT /ports/{}", id(&port)), json!({ "port": fields })).await;
        assert_eq!((made.0, changed.0), (403, 403), "{fields}");
    }
    let name = json!({"network": {"name": "mine"}});
    assert_eq!(bench.refused(DEMO, &format!("PUT /networks/{}", id(&network)), name).await.0, 403);
    let subnet = json!({"subnet": {"network_id": id(&network), "cidr": "10.3.0.0/24", "ip_version": 4}});
    assert_eq!(bench.refused(DEMO, "POST /subnets", subnet).await.0, 403);
}

#[tokio::test]
async fn floating_ips_come_through_routers() {
    let bench = Bench::new();
    let outer = bench.make(ADMIN, "/networks", "network", json!({"name": "public", "router:external": true})).await;
    let subnet = json!({"network_id": id(&outer), "cidr": "192.0.2.0/24", "ip_version": 4, "enable_dhcp": false});
    bench.make(ADMIN, "/subnets", "subnet", subnet).await;
    let (network, inner) = wired(&bench, DEMO, "10.0.0.0/24").await;
    let gateway = json!({"name": "r", "external_gateway_info": {"network_id": id(&outer)}});
    let router = bench.make(DEMO, "/routers", "router", gateway).await;
    assert_eq!(router["external_gateway_info"]["external_fixed_ips"].as_array().unwrap().len(), 1);
    let line = |what: &str| format!("PUT /routers/{}/{what}_router_interface", id(&router));
    let join = json!({"subnet_id": id(&inner)});
    let (status, joined) = bench.call(DEMO, &line("add"), join.clone()).await;
    assert_eq!((status, &joined["subnet_id"], &joined["id"]), (200, &inner["id"], &router["id"]));
    assert_eq!(bench.refused(DEMO, &line("add"), join.clone()).await, refusal(400, "BadRequest"));
    assert_eq!(bench.refused(DEMO, &line("add"), json!({})).await, refusal(400, "BadRequest"));
    let interface = format!("DELETE /ports/{}", joined["port_id"].as_str().unwrap());
    assert_eq!(bench.refused(DEMO, &interface, Value::Null).await, refusal(409, "ServicePortInUse"));
    let port = bench.make(DEMO, "/ports", "port", json!({"network_id": id(&network)})).await;
    let floating = json!({"floating_network_id": id(&outer), "port_id": id(&port)});
    let floating = bench.make(DEMO, "/floatingips", "floatingip", floating).await;
    assert!(floating["floating_ip_address"].as_str().unwrap().starts_with("192.0.2."));
    assert_eq!(
        (&floating["fixed_ip_address"], &floating["status"]),
        (&port["fixed_ips"][0]["ip_address"], &json!("ACTIVE"))
    );
    let path = format!("/floatingips/{}", id(&floating));
    assert_eq!(bench.refused(OTHER, &format!("GET {path}"), Value::Null).await, refusal(404, "FloatingIPNotFound"));
    assert_eq!(
        bench.refused(DEMO, &line("remove"), join.clone()).await,
        refusal(409, "RouterInterfaceInUseByFloatingIP")
    );
    let list = bench.get(DEMO, &format!("/floatingips?port_id={}", id(&port))).await;
    assert_eq!(list["floatingips"][0]["id"], floating["id"]);
    let (_, named) = bench.call(DEMO, &format!("PUT {path}"), json!({"floatingip": {"description": "x"}})).await;
    assert_eq!(named["floatingip"]["port_id"], port["id"]);
    let (_, free) = bench.call(DEMO, &format!("PUT {path}"), json!({"floatingip": {"port_id": null}})).await;
    assert_eq!((&free["floatingip"]["port_id"], &free["floatingip"]["status"]), (&json!(null), &json!("DOWN")));
    let chosen = json!({"floatingip": {"floating_network_id": id(&outer), "floating_ip_address": "192.0.2.200"}});
    assert_eq!(bench.refused(DEMO, "POST /floatingips", chosen.clone()).await.0, 403);
    let (status, _) = bench.call(ADMIN, "POST /floatingips", chosen).await;
    assert_eq!(status, 201);
    let inside = json!({"floatingip": {"floating_network_id": id(&network)}});
    assert_eq!(bench.refused(DEMO, "POST /floatingips", inside).await, refusal(400, "BadRequest"));
    bench.gone(DEMO, &path).await;
    assert_eq!(
        bench.refused(DEMO, &format!("DELETE /routers/{}", id(&router)), Value::Null).await,
        refusal(409, "RouterInUse")
    );
    let (status, _) = bench.call(DEMO, &line("remove"), join.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(bench.refused(DEMO, &line("remove"), join).await, refusal(404, "RouterInterfaceNotFoundForSubnet"));
    bench.gone(DEMO, &format!("/routers/{}", id(&router))).await;
}

#[tokio::test]
async fn security_groups_and_rules() {
    let bench = Bench::new();
    let list = bench.get(DEMO, "/security-groups").await;
    let default = &list["security_groups"][0];
    assert_eq!(
        (default["name"].as_str(), default["security_group_rules"].as_array().unwrap().len()),
        (Some("default"), 4)
    );
    let path = format!("/security-groups/{}", id(default));
    assert_eq!(
        bench.refused(DEMO, &format!("DELETE {path}"), Value::Null).await,
        refusal(409, "SecurityGroupCannotRemoveDefault")
    );
    let group = bench.make(DEMO, "/security-groups", "security_group", json!({"name": "web"})).await;
    let web = id(&group);
    assert_eq!(
        bench.refused(DEMO, "POST /security-groups", json!({"security_group": {"name": "default"}})).await.0,
        409
    );
    let ssh = json!({"security_group_id": web, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": "22", "remote_ip_prefix": "0.0.0.0/0"});
    let rule = bench.make(DEMO, "/security-group-rules", "security_group_rule", ssh.clone()).await;
    assert_eq!((&rule["ethertype"], &rule["port_range_max"]), (&json!("IPv4"), &json!(22)));
    let (status, again) = bench.call(DEMO, "POST /security-group-rules", json!({"security_group_rule": ssh})).await;
    let text = format!("Security group rule already exists. Rule id is {}.", id(&rule));
    assert_eq!((status, again["NeutronError"]["message"].as_str()), (409, Some(text.as_str())));
    for (change, name) in [
        (json!({"protocol": "fictional"}), "SecurityGroupRuleInvalidProtocol"),
        (json!({"protocol": "tcp", "port_range_min": 70000}), "SecurityGroupInvalidPortValue"),
        (json!({"port_range_min": 22}), "SecurityGroupProtocolRequiredWithPorts"),
        (json!({"remote_ip_prefix": "::/0"}), "SecurityGroupRuleParameterConflict"),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": web}),
            "SecurityGroupRemoteGroupAndRemoteIpPrefix",
        ),
        (json!({"remote_group_id": "9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a"}), "SecurityGroupNotFound"),
    ] {
        let mut body = change.clone();
        body["security_group_id"] = json!(web);
        body["direction"] = json!("ingress");
        let (_, kind) = bench.refused(DEMO, "POST /security-group-rules", json!({ "security_group_rule": body })).await;
        assert_eq!(kind, name, "{change}");
    }
    let many: Vec<Value> = (1..=3).map(|port| json!({"security_group_id": web, "direction": "ingress", "protocol": "udp", "port_range_min": port, "port_range_max": port})).collect();
    let (status, made) = bench.call(DEMO, "POST /security-group-rules", json!({ "security_group_rules": many })).await;
    assert_eq!((status, made["security_group_rules"].as_array().unwrap().len()), (201, 3));
    let list = bench.get(DEMO, &format!("/security-group-rules?security_group_id={web}&protocol=udp")).await;
    assert_eq!(list["security_group_rules"].as_array().unwrap().len(), 3);
    bench.gone(DEMO, &format!("/security-group-rules/{}", id(&rule))).await;
    bench.gone(DEMO, &format!("/security-groups/{web}")).await;
    // Administrators clean up after a project, its default group included.
    let found = bench.get(ADMIN, "/security-groups?project_id=p-demo&name=default").await;
    bench.gone(ADMIN, &format!("/security-groups/{}", id(&found["security_groups"][0]))).await;
}

#[tokio::test]
async fn quotas_count_and_bind() {
    let bench = Bench::new();
    let quota = bench.get(DEMO, "/quotas/p-demo").await;
    assert_eq!((&quota["quota"]["port"], &quota["quota"]["security_group_rule"]), (&json!(500), &json!(100)));
    assert_eq!(bench.refused(DEMO, "GET /quotas/p-other", Value::Null).await.0, 403);
    assert_eq!(bench.refused(DEMO, "PUT /quotas/p-demo", json!({"quota": {"network": 9}})).await.0, 403);
    let (status, changed) = bench.call(ADMIN, "PUT /quotas/p-demo", json!({"quota": {"network": 1, "port": -1}})).await;
    assert_eq!((status, &changed["quota"]["network"], &changed["quota"]["port"]), (200, &json!(1), &json!(-1)));
    for wrong in [json!({"volumes": 1}), json!({"network": -2}), json!({"network": "many"})] {
        assert_eq!(bench.refused(ADMIN, "PUT /quotas/p-demo", json!({ "quota": wrong })).await.0, 400);
    }
    bench.make(DEMO, "/networks", "network", json!({"name": "one"})).await;
    let (status, over) = bench.call(DEMO, "POST /networks", json!({"network": {"name": "two"}})).await;
    let text = "Quota exceeded for resources: ['network'].";
    assert_eq!((status, over["NeutronError"]["message"].as_str()), (409, Some(text)));
    let details = bench.get(DEMO, "/quotas/p-demo/details").await;
    assert_eq!(details["quota"]["network"], json!({"limit": 1, "used": 1, "reserved": 0}));
    bench.gone(ADMIN, "/quotas/p-demo").await;
    assert_eq!(bench.get(DEMO, "/quotas/p-demo/default").await["quota"]["network"], 100);
    bench.make(DEMO, "/networks", "network", json!({"name": "two"})).await;
}

#[tokio::test]
async fn the_rest_is_told() {
    let bench = Bench::new();
    let list = bench.get(DEMO, "/extensions").await;
    assert!(list["extensions"].as_array().unwrap().iter().any(|extension| extension["alias"] == "router"));
    assert_eq!(bench.get(DEMO, "/extensions/security-group").await["extension"]["alias"], "security-group");
    assert_eq!(bench.refused(DEMO, "GET /extensions/Availability%20Zone", Value::Null).await.0, 404);
    assert_eq!(bench.get(ADMIN, "/agents").await["agents"], json!([]));
    assert_eq!(bench.get(DEMO, "/availability_zones").await["availability_zones"][0]["state"], "available");
    for body in
        [json!({}), json!({"net": {}}), json!({"network": []}), json!({"network": {"admin_state_up": "perhaps"}})]
    {
        assert_eq!(bench.refused(DEMO, "POST /networks", body).await.0, 400);
    }
}
