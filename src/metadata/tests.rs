use std::sync::Arc;

use ::http::Method;
use async_trait::async_trait;
use axum::body::Body;
use http_body_util::BodyExt;
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::contracts::{IdentityError, IdentityService, TokenInfo};
use nova_core::entropy::SeededEntropy;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::network::{InstanceNetworks, NetworkService, RequestedNetworks};
use nova_core::rpc::conductor::{GetMetadata, GetMetadataRequest};
use nova_core::rpc::{RefusalKind, Role, Sender};
use nova_db::{MemoryStore, NetworkStore};
use nova_queue::{Dispatcher, MemoryBus, MessageBus, RpcClient, Subscription, testing};

use serde_json::json;

use super::*;
use crate::api::compute::test_support::{Bench, DEMO};
use crate::api::{Api, ApiOptions, EnabledApi, FilterDeps, Registry, Resource, Route};
use crate::network::{NetworkManager, NetworkOptions};

const SECRET: &str = "between us";

struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

/// A resource without routes.
struct Nothing;

impl Resource for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        Vec::new()
    }
}

struct NoOne;

#[async_trait]
impl IdentityService for NoOne {
    async fn validate(&self, _: &str) -> Result<TokenInfo, IdentityError> {
        Err(IdentityError::Unauthorized)
    }
}

/// A server on `host1`, and the service that knows of it.
async fn world(options: ProxyOptions) -> (Api, MetadataManager, Instance) {
    let bench = Bench::new(|_| Nothing);
    let instance = bench.instance(DEMO, Some("host1")).await;
    let networks: Arc<dyn NetworkStore> = Arc::new(MemoryStore::new());
    let entropy = Arc::new(SeededEntropy::new(3));
    let network: Arc<dyn NetworkService> =
        Arc::new(NetworkManager::new(networks, Arc::new(TestClock), entropy.clone(), NetworkOptions::default()));
    let manager =
        MetadataManager::new(bench.api.store.clone(), Some(network), entropy.clone(), GuestOptions::default());
    let enabled_apis = vec![EnabledApi { name: "metadata".into(), address: Some("127.0.0.1:8775".into()) }];
    let mut registry = Registry::new(FilterDeps {
        identity: Arc::new(NoOne),
        clock: Arc::new(TestClock),
        entropy,
        options: Arc::new(ApiOptions { enabled_apis, ..ApiOptions::default() }),
    });
    registry.application(application(manager.clone(), options));
    let (address, api) = registry.build().unwrap().swap_remove(1);
    assert_eq!(address, "127.0.0.1:8775");
    (api, manager, instance)
}

fn trusting() -> ProxyOptions {
    ProxyOptions { enabled: true, shared_secret: SECRET.into() }
}

async fn get(api: &Api, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    ask(api, Method::GET, path, headers).await
}

async fn ask(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    bring(api, method, path, headers, String::new()).await
}

async fn bring(api: &Api, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> (u16, String) {
    let mut request = ::http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = api.handle(request.body(Body::from(body)).unwrap()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// What a proxy that knows that secret sends.
fn headers(secret: &str, id: &str, project: &str) -> Vec<(&'static str, String)> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(id.as_bytes());
    let signature = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    vec![("x-instance-id", id.to_owned()), ("x-tenant-id", project.to_owned()), ("x-instance-id-signature", signature)]
}

fn strs<'h>(headers: &'h [(&'static str, String)]) -> Vec<(&'h str, &'h str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn a_signed_request_gets_what_the_server_may_learn() {
    let (api, _, instance) = world(trusting()).await;
    let id = instance.id.to_string();
    let signed = headers(SECRET, &id, "p-demo");
    let (status, text) = get(&api, "/openstack/latest/meta_data.json", &strs(&signed)).await;
    assert_eq!(status, 200, "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["uuid"], &document["hostname"]), (&id.into(), &"server.novalocal".into()));
    let (status, text) = get(&api, "/latest/meta-data/security-groups/", &strs(&signed)).await;
    assert_eq!((status, text.as_str()), (200, "default"));
    assert_eq!(get(&api, "/latest/nothing", &strs(&signed)).await.0, 404);
    let (status, text) = ask(&api, Method::HEAD, "/latest/meta-data/hostname", &strs(&signed)).await;
    assert_eq!((status, text.as_str()), (200, ""));
    // Anybody may know which versions there are.
    assert!(get(&api, "/", &[]).await.1.ends_with("latest"));
    assert_eq!(ask(&api, Method::PUT, "/latest/api/token", &strs(&signed)).await.0, 405);
}

#[tokio::test]
async fn a_password_comes_through_the_proxy_once() {
    let (api, manager, instance) = world(trusting()).await;
    let id = instance.id.to_string();
    const PATH: &str = "/openstack/latest/password";
    let good = headers(SECRET, &id, "p-demo");
    let post = async |headers: &[(&'static str, String)], text: &str| {
        bring(&api, Method::POST, PATH, &strs(headers), text.to_owned()).await.0
    };
    assert_eq!(post(&good, &"x".repeat(1021)).await, 400);
    assert_eq!(post(&headers("guessed", &id, "p-demo"), "x").await, 403);
    assert_eq!(post(&headers(SECRET, &id, "p-other"), "x").await, 404);
    assert_eq!(get(&api, PATH, &strs(&good)).await, (200, String::new()));
    assert_eq!(post(&good, "left").await, 200);
    assert_eq!(get(&api, PATH, &strs(&good)).await, (200, "left".to_owned()));
    assert_eq!(post(&good, "left").await, 409);
    assert_eq!(ask(&api, Method::POST, "/openstack/latest/user_data", &strs(&good)).await.0, 405);
    // The message of a host may come twice; another text may not.
    assert!(manager.set_password(instance.id, "left").await.unwrap());
    assert!(!manager.set_password(instance.id, "other").await.unwrap());
    assert!(!manager.set_password(instance.id, "").await.unwrap());
    assert_eq!(manager.get(instance.id).await.unwrap().unwrap().password, "left");
}

#[tokio::test]
async fn what_is_not_signed_is_not_believed() {
    let (api, _, instance) = world(trusting()).await;
    let path = "/latest/meta-data/hostname";
    let id = instance.id.to_string();
    let good = headers(SECRET, &id, "p-demo");
    for missing in 0..3 {
        let mut some = good.clone();
        let (name, _) = some.remove(missing);
        let (status, text) = get(&api, path, &strs(&some)).await;
        assert_eq!(status, 400, "without {name}: {text}");
        let mut twice = good.clone();
        twice.push(good[missing].clone());
        assert_eq!(get(&api, path, &strs(&twice)).await.0, 400, "{name} twice");
    }
    let other = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6";
    let mut foreign = good.clone();
    foreign[0].1 = other.to_owned();
    assert_eq!(get(&api, path, &strs(&foreign)).await.0, 403, "the signature is of another id");
    assert_eq!(get(&api, path, &strs(&headers("guessed", &id, "p-demo"))).await.0, 403);
    let mut short = good.clone();
    short[2].1.truncate(10);
    assert_eq!(get(&api, path, &strs(&short)).await.0, 403);
    assert_eq!(get(&api, path, &strs(&headers(SECRET, &id, "p-other"))).await.0, 404, "of another project");
    assert_eq!(get(&api, path, &strs(&headers(SECRET, other, "p-demo"))).await.0, 404, "of no server");
    assert_eq!(get(&api, path, &strs(&headers(SECRET, "x", "p-demo"))).await.0, 404, "of no id");
}

#[tokio::test]
async fn nobody_is_believed_unless_configured() {
    let (api, _, instance) = world(ProxyOptions { enabled: false, ..trusting() }).await;
    let id = instance.id.to_string();
    let path = "/latest/meta-data/hostname";
    assert_eq!(get(&api, path, &strs(&headers(SECRET, &id, "p-demo"))).await.0, 404);
    let (api, _, instance) = world(ProxyOptions { enabled: true, shared_secret: String::new() }).await;
    let id = instance.id.to_string();
    assert_eq!(get(&api, path, &strs(&headers("", &id, "p-demo"))).await.0, 403, "no secret signs nothing");
}

#[tokio::test]
async fn a_host_learns_of_its_own_guests_only() {
    let (_, manager, instance) = world(ProxyOptions::default()).await;
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(testing::clock()));
    let conductor = Dispatcher::new("conductor").method::<GetMetadata, _, _>(move |incoming, request| {
        let manager = manager.clone();
        async move { manager.answer(incoming, request).await }
    });
    let serving = bus.serve(Subscription::shared("conductor"), Arc::new(conductor)).await.unwrap();
    let host = |name: &str| {
        let sender = Sender { role: Role::Compute, host: HostName::new(name) };
        RpcClient::new(bus.clone(), sender, testing::clock(), Arc::new(SeededEntropy::new(9)))
    };
    let request = GetMetadataRequest { instance_id: instance.id, port_id: None };
    let own = host("host1").call::<GetMetadata>(&testing::context(), &request).await.unwrap();
    assert_eq!((own.instance_id, own.number), (instance.id, instance.number));
    // There is no such port.
    let nil = nova_core::ids::PortId::from_uuid(uuid::Uuid::nil());
    let alien = GetMetadataRequest { port_id: Some(nil), ..request.clone() };
    let refused = host("host1").call::<GetMetadata>(&testing::context(), &alien).await.unwrap_err();
    assert_eq!(refused.refusal().map(|refusal| refusal.kind), Some(RefusalKind::NotFound));
    let refused = host("host2").call::<GetMetadata>(&testing::context(), &request).await.unwrap_err();
    assert_eq!(refused.refusal().map(|refusal| refusal.kind), Some(RefusalKind::NotFound));
    serving.stop().await;
}

#[tokio::test]
async fn interfaces_and_keys_are_in_the_document() {
    let bench = Bench::new(|_| Nothing);
    let mut instance = bench.instance(DEMO, Some("host1")).await;
    instance.key_name = Some("mine".into());
    instance.key_data = Some("ssh-ed25519 AAAA me".into());
    let instance = bench.api.store.update_instance(instance).await.unwrap();
    let store = Arc::new(MemoryStore::new());
    let entropy = Arc::new(SeededEntropy::new(3));
    let network =
        Arc::new(NetworkManager::new(store.clone(), Arc::new(TestClock), entropy.clone(), NetworkOptions::default()));
    let now = TestClock.now();
    let network_id = "7e700000-0000-4000-8000-000000000001";
    let wire = json!({
        "id": network_id, "project_id": "p-demo", "name": "private", "admin_state_up": true, "shared": false,
        "external": false, "mtu": 1450, "port_security_enabled": true, "created_at": now, "updated_at": now,
    });
    store.create_network(serde_json::from_value(wire).unwrap(), None).await.unwrap();
    let subnet = json!({
        "id": "5b1e0000-0000-4000-8000-000000000001", "network_id": network_id, "project_id": "p-demo", "name": "",
        "cidr": "10.0.0.0/24", "gateway_ip": null, "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.20"}],
        "dns_nameservers": [], "host_routes": [], "enable_dhcp": true, "created_at": now, "updated_at": now,
    });
    store.create_subnet(serde_json::from_value(subnet).unwrap(), None, None).await.unwrap();
    let wanted = InstanceNetworks {
        instance_id: instance.id,
        project_id: instance.project_id.clone(),
        hostname: "server".into(),
        availability_zone: None,
        host: Some(HostName::new("host1")),
        security_groups: Vec::new(),
        requested: RequestedNetworks::Auto,
    };
    let context = testing::context();
    let vifs = network.allocate(&context, &wanted).await.unwrap();
    let options = GuestOptions { domain: String::new(), ..GuestOptions::default() };
    let manager = MetadataManager::new(bench.api.store.clone(), Some(network), entropy, options);
    let about = manager.get(instance.id).await.unwrap().unwrap();
    assert_eq!((&about.vifs, about.hostname.as_str(), about.keys.len()), (&vifs, "server", 1));
    assert_eq!(about.vifs[0].addresses.len(), 1);
    // Asked for from a port, the document is for that port's guest only.
    let port = vifs[0].port_id;
    let own = |host: &str, port| {
        let (manager, instance, host) = (manager.clone(), instance.clone(), HostName::new(host));
        async move { manager.asks_from_own(&instance, &host, port).await.unwrap() }
    };
    assert!(own("host1", Some(port)).await && own("host1", None).await);
    assert!(!own("host2", Some(port)).await, "it is not bound there");
    assert!(!own("host1", Some(nova_core::ids::PortId::from_uuid(uuid::Uuid::nil()))).await);
    let claim = async |change: fn(&mut nova_core::network::Port)| {
        let mut read = store.get_port(port).await.unwrap();
        change(&mut read);
        store.update_port(nova_db::PortChange { port: read, fixed_ips: None, draw: 0 }).await.unwrap();
    };
    claim(|port| port.device_owner = String::new()).await;
    assert!(!own("host1", Some(port)).await, "compute does not say that it is the server's");
    claim(|port| port.device_owner = "compute:nova".to_owned()).await;
    let mut foreign = instance.clone();
    foreign.project_id = "p-other".into();
    let host = HostName::new("host1");
    assert!(!manager.asks_from_own(&foreign, &host, Some(port)).await.unwrap(), "of another project");
    let nobody = nova_core::ids::InstanceId::from_uuid(uuid::Uuid::nil());
    assert!(manager.get(nobody).await.unwrap().is_none());
}
