//! The client against this project's own Neutron-compatible API over HTTP, and against servers that misbehave.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, RequestId};
use nova_core::network::{
    InstanceNetworks, NetworkService, NetworkServiceError, PortStatus, RequestedInterface, RequestedNetworks,
};
use nova_db::{IdentityStore, MemoryStore, NetworkStore, PortQuery};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::api::{Api, ApiOptions, EnabledApi, FilterDeps, Registry, Server, ServerOptions};
use crate::identity::{Catalog, IdentityManager, IdentityOptions, PasswordOptions};
use crate::network::{NetworkManager, NetworkOptions};
use crate::outside::Account;
use crate::outside::testing::{Scripted, TestClock, reply};

/// A cloud's identity and network behind a socket, and a client of them.
pub(crate) struct World {
    pub(crate) client: NeutronClient,
    /// The same books, without HTTP.
    store: Arc<MemoryStore>,
    entropy: Arc<SeededEntropy>,
    _stop: watch::Sender<bool>,
    _serving: AbortOnDropHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (clock, entropy) = (Arc::new(TestClock), Arc::new(SeededEntropy::new(5)));
        let store = Arc::new(MemoryStore::new());
        let options = IdentityOptions { password: PasswordOptions::cheap(), ..IdentityOptions::default() };
        let catalog = Catalog::of_this_process("http://cloud:8774");
        let identities = Arc::clone(&store) as Arc<dyn IdentityStore>;
        let identity =
            IdentityManager::open(identities, clock.clone(), entropy.clone(), catalog, options).await.unwrap();
        let identity = Arc::new(identity);
        let accounts = identity.bootstrap().await.unwrap().accounts;
        let password = accounts.iter().find(|account| account.user == "admin").unwrap().password.reveal().to_owned();
        let manager = NetworkManager::new(store.clone(), clock.clone(), entropy.clone(), NetworkOptions::default());
        let enabled_apis =
            ["identity", "network"].map(|name| EnabledApi { name: name.to_owned(), address: None }).to_vec();
        let options = Arc::new(ApiOptions { enabled_apis, ..ApiOptions::default() });
        let mut registry = Registry::new(FilterDeps {
            identity: identity.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: options.clone(),
        });
        registry
            .application(crate::identity::application(identity))
            .application(crate::api::network::application(Arc::new(manager)));
        let (_, api): (String, Api) = registry.build().unwrap().swap_remove(0);
        let server = Server::bind("127.0.0.1:0", ServerOptions::from(&*options)).await.unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = AbortOnDropHandle::new(tokio::spawn(server.serve(api, stopped)));
        let options = NeutronOptions::new(format!("http://{address}/identity/v3"), "admin", password);
        let account = Account { project_name: "admin".into(), ..options.account };
        let options = NeutronOptions { endpoint: Some(format!("http://{address}/network")), account, ..options };
        let client = NeutronClient::new(options, clock, entropy).unwrap();
        Self { client, store, entropy: Arc::new(SeededEntropy::new(6)), _stop: stop, _serving: serving }
    }

    pub(crate) async fn network(&self, project: &str, cidr: &str) -> NetworkId {
        let now = TestClock.now();
        let id = NetworkId::generate(&*self.entropy);
        let network = json!({
            "id": id, "project_id": project, "name": format!("net of {project}"), "admin_state_up": true,
            "shared": false, "external": false, "mtu": 1450, "port_security_enabled": true, "created_at": now,
            "updated_at": now,
        });
        self.store.create_network(serde_json::from_value(network).unwrap(), None).await.unwrap();
        if !cidr.is_empty() {
            let cidr: nova_core::network::Cidr = cidr.parse().unwrap();
            let gateway = Some(nova_core::network::default_gateway(&cidr));
            let subnet = json!({
                "id": self.entropy.uuid(), "network_id": id, "project_id": project, "name": "", "cidr": cidr,
                "gateway_ip": gateway, "allocation_pools": nova_core::network::default_pools(&cidr, gateway),
                "dns_nameservers": ["9.9.9.9"], "host_routes": [], "enable_dhcp": true, "created_at": now,
                "updated_at": now,
            });
            self.store.create_subnet(serde_json::from_value(subnet).unwrap(), None, None).await.unwrap();
        }
        id
    }

    /// An outer network with a router to that one.
    pub(crate) async fn way_out(&self, inner: NetworkId, project: &str) -> NetworkId {
        let session = &self.client.session;
        let body = json!({"network": {"name": "outer", "router:external": true}});
        let outer: Value = session.post("/networks", &body, "network").await.unwrap();
        let body = json!({"subnet": {"network_id": outer["id"], "ip_version": 4, "cidr": "203.0.113.0/29"}});
        session.post::<Value>("/subnets", &body, "subnet").await.unwrap();
        let gateway = json!({"network_id": outer["id"]});
        let body = json!({"router": {"name": "r", "project_id": project, "external_gateway_info": gateway}});
        let router: Value = session.post("/routers", &body, "router").await.unwrap();
        let network: Value = session.get(&format!("/networks/{inner}"), "network").await.unwrap();
        let path = format!("/routers/{}/add_router_interface", router["id"].as_str().unwrap());
        let body = json!({"subnet_id": network["subnets"][0]});
        session.put::<Value>(&path, &body, "id").await.unwrap();
        serde_json::from_value(outer["id"].clone()).unwrap()
    }

    fn server(&self, project: &str, requested: RequestedNetworks) -> InstanceNetworks {
        InstanceNetworks {
            instance_id: InstanceId::generate(&*self.entropy),
            project_id: project.into(),
            hostname: "web".into(),
            availability_zone: Some("zone-1".into()),
            host: Some(HostName::new("host1")),
            security_groups: Vec::new(),
            requested,
        }
    }

    /// A port of a user's own.
    async fn port(&self, network: NetworkId, project: &str) -> PortId {
        let entropy = Arc::new(SeededEntropy::new(self.entropy.next_u64()));
        let books = NetworkManager::new(self.store.clone(), Arc::new(TestClock), entropy, NetworkOptions::default());
        let new = books.new_port(network, &project.into());
        books.create_ports(vec![new], &[true]).await.unwrap().remove(0).id
    }

    async fn ports(&self) -> Vec<nova_core::network::Port> {
        self.store.list_ports(&PortQuery::default()).await.unwrap()
    }
}

fn member(project: &str) -> RequestContext {
    let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
    let project_id = ProjectId::from(project);
    RequestContext { project_id, roles: vec!["member".into()], ..RequestContext::internal(request_id) }
}

fn on(network: NetworkId) -> RequestedInterface {
    RequestedInterface { network_id: Some(network), ..RequestedInterface::default() }
}

fn by(port: PortId) -> RequestedInterface {
    RequestedInterface { port_id: Some(port), ..RequestedInterface::default() }
}

#[tokio::test]
async fn servers_get_interfaces_in_order_and_give_them_back() {
    let world = World::new().await;
    let (one, two) = (world.network("p", "10.0.0.0/24").await, world.network("p", "10.1.0.0/24").await);
    let own = world.port(two, "p").await;
    let fixed = RequestedInterface { fixed_ip: Some([10, 0, 0, 77].into()), ..on(one) };
    let wanted = world.server("p", RequestedNetworks::These(vec![on(two), by(own), fixed]));
    let context = member("p");
    world.client.validate(&context, &wanted.requested, 1).await.unwrap();
    let vifs = world.client.allocate(&context, &wanted).await.unwrap();
    let places: Vec<_> = vifs.iter().map(|vif| vif.network_id).collect();
    assert_eq!((places, vifs[1].port_id), (vec![two, two, one], own));
    assert_eq!(vifs[2].addresses[0].address, IpAddr::from([10, 0, 0, 77]));
    assert_eq!((vifs[0].label.as_str(), vifs[0].mtu, vifs[0].host.as_ref()), ("net of p", 1450, wanted.host.as_ref()));
    assert_eq!(vifs.iter().map(|vif| vif.delete_with_instance).collect::<Vec<_>>(), [true, false, true]);
    // Once more finds them, and so does who asks for many.
    assert_eq!(world.client.allocate(&context, &wanted).await.unwrap(), vifs);
    let other = world.server("p", RequestedNetworks::These(vec![on(one)]));
    world.client.allocate(&context, &other).await.unwrap();
    let many = world.client.interfaces(&context, &[other.instance_id, wanted.instance_id]).await.unwrap();
    let of_wanted = many.iter().filter(|(id, _)| *id == wanted.instance_id).map(|(_, vif)| vif.clone());
    assert_eq!((many.len(), of_wanted.collect::<Vec<_>>()), (4, vifs.clone()));
    for port in world.ports().await {
        assert_eq!((port.host.as_ref(), port.device_owner.as_str()), (wanted.host.as_ref(), "compute:zone-1"));
        assert!(port.id == own || port.security_groups.len() == 1, "the default group: {port:?}");
    }
    let to = HostName::new("host2");
    let coming = async || world.ports().await.iter().filter(|port| port.migrating_to().as_ref() == Some(&to)).count();
    for (host, count) in [(Some(&to), vifs.len()), (None, 0), (Some(&to), vifs.len())] {
        world.client.prepare_binding(&context, wanted.instance_id, host).await.unwrap();
        assert_eq!(coming().await, count);
    }
    let moved = world.client.bind(&context, wanted.instance_id, Some(&HostName::new("host2"))).await.unwrap();
    assert!(moved.iter().all(|vif| vif.host.as_ref().is_some_and(|host| host.as_str() == "host2")));
    assert_eq!(coming().await, 0);
    world.client.deallocate(&context, wanted.instance_id).await.unwrap();
    world.client.deallocate(&context, wanted.instance_id).await.unwrap();
    let left = world.ports().await;
    let own = left.iter().find(|port| port.id == own).unwrap();
    assert_eq!((left.len(), own.device_id.as_str(), own.device_owner.as_str(), &own.host), (2, "", "", &None));
    assert!(own.binding.profile.is_empty(), "{own:?}");
    world.client.deallocate(&context, other.instance_id).await.unwrap();
    assert_eq!(world.ports().await.len(), 1);
}

#[tokio::test]
async fn all_or_none_are_made() {
    let world = World::new().await;
    let one = world.network("p", "10.0.0.0/24").await;
    let tiny = world.network("p", "10.2.0.0/30").await;
    let own = world.port(one, "p").await;
    let context = member("p");
    let first = world.server("p", RequestedNetworks::These(vec![on(tiny)]));
    world.client.allocate(&context, &first).await.unwrap();
    let before = world.ports().await.len();
    // The tiny network has no address left.
    let full = world.server("p", RequestedNetworks::These(vec![by(own), on(one), on(tiny)]));
    let error = world.client.allocate(&context, &full).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::Refused(_)), "{error:?}");
    assert_eq!(world.ports().await.len(), before);
    assert_eq!(world.store.get_port(own).await.unwrap().device_id, "", "given back");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let world = World::new().await;
    let (mine, theirs) = (world.network("p", "10.0.0.0/24").await, world.network("q", "10.0.0.0/24").await);
    let (bare, foreign) = (world.network("p", "").await, world.port(theirs, "q").await);
    let context = member("p");
    let check = async |interface: RequestedInterface| {
        let requested = RequestedNetworks::These(vec![interface]);
        let error = world.client.validate(&context, &requested, 1).await.unwrap_err();
        let allocated = world.client.allocate(&context, &world.server("p", requested)).await.unwrap_err();
        (error, allocated)
    };
    let nowhere = NetworkId::generate(&*world.entropy);
    for id in [theirs, nowhere] {
        let errors = check(on(id)).await;
        assert!(
            matches!(
                errors,
                (NetworkServiceError::NetworkNotFound { .. }, NetworkServiceError::NetworkNotFound { .. })
            ),
            "{errors:?}"
        );
    }
    let errors = check(by(foreign)).await;
    assert!(matches!(errors.0, NetworkServiceError::PortNotFound { .. }), "{errors:?}");
    let errors = check(on(bare)).await;
    assert!(matches!(errors.0, NetworkServiceError::NoSubnet { .. }), "{errors:?}");
    let outside = RequestedInterface { fixed_ip: Some([192, 0, 2, 1].into()), ..on(mine) };
    assert!(matches!(check(outside).await, (NetworkServiceError::Refused(_), NetworkServiceError::Refused(_))));
    let wanted = world.server("p", RequestedNetworks::These(vec![on(mine)]));
    let vif = world.client.allocate(&context, &wanted).await.unwrap().remove(0);
    let address = vif.addresses[0].address;
    let taken = RequestedInterface { fixed_ip: Some(address), ..on(mine) };
    let errors = check(taken).await;
    let is_it = |error: &NetworkServiceError| matches!(error, NetworkServiceError::AddressInUse { address: a } if *a == address);
    assert!(is_it(&errors.0) && is_it(&errors.1), "{errors:?}");
    let used = check(by(vif.port_id)).await;
    assert!(matches!(used.0, NetworkServiceError::PortInUse { .. }), "{used:?}");
    let unknown = InstanceNetworks {
        security_groups: vec!["none".into()],
        ..world.server("p", RequestedNetworks::These(vec![on(mine)]))
    };
    let error = world.client.allocate(&context, &unknown).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::NoSecurityGroup { .. }), "{error:?}");
    let several = RequestedNetworks::Unsaid;
    assert!(matches!(world.client.validate(&context, &several, 1).await, Err(NetworkServiceError::Ambiguous)));
    let twice = RequestedNetworks::These(vec![by(world.port(mine, "p").await)]);
    let error = world.client.validate(&context, &twice, 2).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::PortTwice { .. }), "{error:?}");
    let over = world.client.validate(&context, &RequestedNetworks::These(vec![on(mine)]), 1000).await.unwrap_err();
    assert!(matches!(over, NetworkServiceError::OverQuota), "{over:?}");
    assert!(matches!(
        world.client.detach(&context, wanted.instance_id, foreign).await,
        Err(NetworkServiceError::PortNotFound { .. })
    ));
}

#[tokio::test]
async fn interfaces_are_attached_once_and_detached() {
    let world = World::new().await;
    let one = world.network("p", "10.0.0.0/24").await;
    let context = member("p");
    let wanted = world.server("p", RequestedNetworks::Unsaid);
    let first = world.client.allocate(&context, &wanted).await.unwrap();
    let request = Some(PortId::generate(&*world.entropy));
    let interface = RequestedInterface { new_port_id: request, ..on(one) };
    let added = world.client.attach(&context, &wanted, &interface).await.unwrap();
    assert_eq!(world.client.attach(&context, &wanted, &interface).await.unwrap(), added, "the same step again");
    assert_eq!(world.ports().await.len(), 2);
    let unsaid = RequestedInterface { new_port_id: Some(PortId::generate(&*world.entropy)), ..Default::default() };
    let last = world.client.attach(&context, &wanted, &unsaid).await.unwrap();
    let all = world.client.interfaces(&context, &[wanted.instance_id]).await.unwrap();
    let all: Vec<_> = all.into_iter().map(|(_, vif)| vif.port_id).collect();
    assert_eq!(all, [first[0].port_id, added.port_id, last.port_id]);
    world.client.detach(&context, wanted.instance_id, added.port_id).await.unwrap();
    let again = world.client.detach(&context, wanted.instance_id, added.port_id).await;
    assert!(matches!(again, Err(NetworkServiceError::PortNotFound { .. })));
    world.client.detach(&context, wanted.instance_id, unsaid.new_port_id.unwrap()).await.unwrap();
    let last = world.client.attach(&context, &wanted, &unsaid).await.unwrap();
    world.client.set_status(&context, last.port_id, PortStatus::Active).await.unwrap();
    assert_eq!(world.ports().await.len(), 2);
}

#[tokio::test]
async fn what_an_interrupted_call_made_is_found_and_completed() {
    let world = World::new().await;
    let one = world.network("p", "10.0.0.0/24").await;
    let own = world.port(one, "p").await;
    let context = member("p");
    let wanted = world.server("p", RequestedNetworks::These(vec![on(one), by(own)]));
    // As far as a call came that died after it had taken the port.
    let taken = InstanceNetworks { requested: RequestedNetworks::These(vec![by(own)]), ..wanted.clone() };
    world.client.allocate(&context, &taken).await.unwrap();
    let vifs = world.client.allocate(&context, &wanted).await.unwrap();
    assert_eq!((vifs.len(), vifs[1].port_id), (2, own));
    assert_eq!(world.ports().await.len(), 2);
}

/// A client of what a scripted server says.
fn client_of(server: &Scripted) -> NeutronClient {
    let options = NeutronOptions::new(server.url.clone(), "nova", "secret");
    let account = Account { first_wait: Duration::from_millis(1), timeout: Duration::from_secs(5), ..options.account };
    let options = NeutronOptions { account, ..options };
    NeutronClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1))).unwrap()
}

fn instance() -> InstanceId {
    "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap()
}

fn port(number: u8, delete: bool) -> Value {
    json!({
        "id": format!("b01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5{number:02x}"), "mac_address": "fa:16:3e:00:00:01",
        "network_id": "7e700000-0000-4000-8000-000000000001", "project_id": "p", "status": "ACTIVE", "fixed_ips": [],
        "device_id": instance(), "device_owner": "compute:nova", "binding:profile": {"nova": {"delete": delete}},
    })
}

#[tokio::test]
async fn troubles_that_pass_are_sat_out() {
    let server = Scripted::start(|number, head| match number {
        1 => Some(reply("503 Service Unavailable", &Value::Null)),
        2 => None,
        3 => Some(reply("401 Unauthorized", &Value::Null)),
        4 => Some(reply("200 OK", &json!({"ports": [port(1, true)]}))),
        // It is done, and the answer is lost; then it is gone.
        5 => None,
        _ => Some(reply("404 Not Found", &json!({"NeutronError": {"type": "PortNotFound", "message": head}}))),
    })
    .await;
    let client = client_of(&server);
    client.deallocate(&member("p"), instance()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(seen[0].starts_with("GET /net/v2.0/ports?device_id=a01b23c4") && seen[5].starts_with("DELETE"), "{seen:?}");
    assert_eq!(server.logins(), 2, "the token that did not count was renewed, once");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let network = json!({
        "id": "7e700000-0000-4000-8000-000000000001", "project_id": "p", "name": "n",
        "subnets": ["5b1e0000-0000-4000-8000-000000000001"],
    });
    let server = Scripted::start(move |_, head| {
        if head.starts_with("POST") {
            return None;
        }
        Some(match head {
            head if head.contains("/ports?") => reply("200 OK", &json!({"ports": []})),
            head if head.contains("/extensions") => reply("200 OK", &json!({"extensions": []})),
            _ => reply("200 OK", &json!({"network": network})),
        })
    })
    .await;
    let client = client_of(&server);
    let wanted = InstanceNetworks {
        instance_id: instance(),
        project_id: "p".into(),
        hostname: "web".into(),
        availability_zone: None,
        host: None,
        security_groups: Vec::new(),
        requested: RequestedNetworks::These(vec![on("7e700000-0000-4000-8000-000000000001".parse().unwrap())]),
    };
    let error = client.allocate(&member("p"), &wanted).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::Unavailable { .. }), "{error:?}");
    assert_eq!(server.seen().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn lists_are_read_page_after_page_and_rights_are_not_begged_for() {
    let server = Scripted::start(|number, _| {
        let links = json!([{"rel": "next", "href": "http://behind-a-proxy/v2.0/ports?device_id=x&marker=1"}]);
        Some(match number {
            1 => reply("200 OK", &json!({"ports": [port(1, true)], "ports_links": links})),
            2 => reply("200 OK", &json!({"ports": [port(2, false)]})),
            _ => reply("403 Forbidden", &json!({"NeutronError": {"type": "PolicyNotAuthorized", "message": "no"}})),
        })
    })
    .await;
    let client = client_of(&server);
    let error = client.deallocate(&member("p"), instance()).await.unwrap_err();
    assert!(matches!(&error, NetworkServiceError::Refused(text) if text == "no"), "{error:?}");
    let seen = server.seen();
    assert!(seen[1].contains("/net/v2.0/ports?device_id=x&marker=1"), "{seen:?}");
    assert_eq!(seen.len(), 3, "a refusal is final: {seen:?}");
}

#[tokio::test]
async fn a_neutron_that_is_away_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = NeutronOptions::new(url, "nova", "secret");
    let account = Account { first_wait: Duration::from_millis(1), ..options.account };
    let options = NeutronOptions { account, ..options };
    let client = NeutronClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1))).unwrap();
    let error = client.interfaces(&member("p"), &[instance()]).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::Unavailable { .. }), "{error:?}");
    assert!(!format!("{client:?}").contains("secret"));
    for url in ["https://neutron", "neutron:9696", "http://a:b@neutron", ""] {
        let options = NeutronOptions::new(url, "nova", "secret");
        let refused = NeutronClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1)));
        assert!(matches!(refused, Err(NeutronError::Url { .. })), "{url}");
    }
}
