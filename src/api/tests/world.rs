//! A compute API with four callers, two flavors, an image and one host that is up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::console::{ConsoleTarget, ConsoleType};
use nova_core::context::RequestContext;
use nova_core::contracts::{
    IdentityError, IdentityService, ImageData, ImageService, ImageServiceError, Named, TokenInfo,
};
use nova_core::entropy::SeededEntropy;
use nova_core::flavor::Flavor;
use nova_core::ids::{FlavorId, HostName, ImageId, InstanceId, PortId, ProjectId, ServiceId, TaskId, ZoneName};
use nova_core::image::{ImageGrant, ImageMeta};
use nova_core::instance::Instance;
use nova_core::keypair::Keypair;
use nova_core::quota::Limits;
use nova_core::rpc::conductor::CacheImageRequest;
use nova_core::rpc::scheduler::HostsChangedRequest;
use nova_core::rpc::{Role, Sender};
use nova_core::state::{States, VmState};
use nova_core::volume::BlockStorage;
use nova_db::{MemoryStore, ServiceBeat, Store, TaskCommit};
use nova_queue::{MemoryBus, MessageBus, RpcClient};
use serde_json::{Value, json};

use crate::api::compute::{ComputeApi, ComputeOptions, OrderError, Orders, compute_application};
use crate::api::{Api, ApiOptions, EnabledApi, FilterDeps, Registry};
use crate::network::{NetworkManager, NetworkOptions};
use crate::volume::{OwnBlockStorage, VolumeManager, VolumeOptions, VolumeParts};

pub const IMAGE: &str = "70a599e0-31e7-49b7-b260-868f441e862b";
/// An image whose data is still missing.
pub const QUEUED: &str = "80a599e0-31e7-49b7-b260-868f441e862b";
/// An image that wants more than the small flavor has.
pub const LARGE: &str = "90a599e0-31e7-49b7-b260-868f441e862b";

/// A few bytes that make a disk of a TiB.
pub const HUGE: &str = "91a599e0-31e7-49b7-b260-868f441e862b";

/// What was ordered, and what the console says.
#[derive(Default)]
pub struct Ordered {
    pub started: Mutex<Vec<TaskId>>,
    pub refuse: Mutex<bool>,
}

#[async_trait]
impl Orders for Ordered {
    async fn start_tasks(&self, _: &RequestContext, tasks: &[TaskId]) -> Result<(), OrderError> {
        if *self.refuse.lock().unwrap() {
            return Err(OrderError::Failed { source: "the bus is away".into() });
        }
        self.started.lock().unwrap().extend(tasks);
        Ok(())
    }

    async fn tell_plugged(&self, _: &RequestContext, _: &[TaskId], _: PortId, _: bool) -> Result<(), OrderError> {
        Ok(())
    }

    async fn console_output(
        &self,
        _: &RequestContext,
        host: &HostName,
        _: InstanceId,
        _: Option<u32>,
    ) -> Result<String, OrderError> {
        if host.as_str() == "hung" {
            std::future::pending::<()>().await;
        }
        Ok("one\ntwo\r\n\x1b[1mthree\nlogin: \n".to_owned())
    }

    async fn console(
        &self,
        _: &RequestContext,
        host: &HostName,
        _: InstanceId,
        console_type: ConsoleType,
    ) -> Result<ConsoleTarget, OrderError> {
        match host.as_str() {
            "spiced" => Ok(ConsoleTarget { host: "10.0.0.1".to_owned(), port: 0, tls_port: Some(5903) }),
            _ if console_type == ConsoleType::SpiceHtml5 => Err(OrderError::Unsupported),
            "off" => Err(OrderError::NotReady),
            "away" => Err(OrderError::HostUnavailable { source: "nobody answers".into() }),
            _ => Ok(ConsoleTarget { host: "10.0.0.1".to_owned(), port: 5901, tls_port: None }),
        }
    }

    async fn steer_live_migration(
        &self,
        _: &RequestContext,
        _: &HostName,
        _: InstanceId,
        _: bool,
    ) -> Result<(), OrderError> {
        Ok(())
    }

    async fn cache_image(&self, _: &RequestContext, _: CacheImageRequest) -> Result<(), OrderError> {
        Ok(())
    }

    async fn hosts_changed(&self, _: &RequestContext, _: HostsChangedRequest) -> Result<(), OrderError> {
        Ok(())
    }
}

/// Stands still unless told otherwise.
pub struct StillClock(pub Mutex<Timestamp>);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Tokens;

#[async_trait]
impl IdentityService for Tokens {
    async fn validate(&self, token: &str) -> Result<TokenInfo, IdentityError> {
        let (user, project, role) = match token {
            "admin" => ("admin", "aaaa0000", "admin"),
            "demo" => ("demo", "dddd0000", "member"),
            "reader" => ("reader", "dddd0000", "reader"),
            "other" => ("other", "0000eeee", "member"),
            "panic" => panic!("a token that hurts"),
            "away" => return Err(IdentityError::Unavailable { source: "gone".into() }),
            _ => return Err(IdentityError::Unauthorized),
        };
        let named = |name: &str| Named { id: name.to_owned(), name: name.to_owned() };
        Ok(TokenInfo {
            user: named(user),
            user_domain: named("default"),
            project: Some(named(project)),
            project_domain: Some(named("default")),
            roles: vec![named(role)],
            methods: vec!["password".into()],
            audit_ids: Vec::new(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
        })
    }
}

struct Images;

#[async_trait]
impl ImageService for Images {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        let (min_ram, min_disk) = match id.to_string().as_str() {
            IMAGE | HUGE => (0, 0),
            LARGE => (1024, 20),
            QUEUED => return Err(ImageServiceError::NotActive { id }),
            _ => return Err(ImageServiceError::NotFound { id: id.to_string() }),
        };
        let properties = BTreeMap::from([("hw_disk_bus".into(), "virtio".into()), ("mine".into(), "x".into())]);
        Ok(ImageMeta {
            id,
            name: Some("cirros".into()),
            disk_format: "qcow2".into(),
            size: 1 << 20,
            sha512: "00".into(),
            min_ram,
            min_disk,
            virtual_size: if id.to_string() == HUGE { 1 << 40 } else { 1 << 30 },
            properties,
        })
    }

    async fn download(&self, id: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The message of a fault under that key.
    #[track_caller]
    pub fn fault(&self, status: u16, key: &str) -> &str {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.body[key]["code"], status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/json");
        self.body[key]["message"].as_str().unwrap()
    }
}

pub struct World {
    pub api: Api,
    pub store: Arc<dyn Store>,
    pub orders: Arc<Ordered>,
    pub clock: Arc<StillClock>,
    pub network: Arc<NetworkManager>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(ComputeOptions::default(), only_compute()).await
    }

    /// With the network API beside it.
    pub async fn with_networks() -> Self {
        Self::with_limits(ComputeOptions::default().limits).await
    }

    /// The same with these quotas of servers.
    pub async fn with_limits(limits: Limits) -> Self {
        let mut options = only_compute();
        options.enabled_apis.push(EnabledApi { name: "network".into(), address: None });
        Self::with(ComputeOptions { limits, ..ComputeOptions::default() }, options).await
    }

    /// Compute does not have the books of networks: another service keeps them.
    pub async fn without_books() -> Self {
        let mut options = only_compute();
        options.enabled_apis.push(EnabledApi { name: "network".into(), address: None });
        Self::assembled(ComputeOptions::default(), options, false).await
    }

    pub async fn with(options: ComputeOptions, api_options: ApiOptions) -> Self {
        Self::assembled(options, api_options, true).await
    }

    async fn assembled(options: ComputeOptions, api_options: ApiOptions, has_books: bool) -> Self {
        let clock = Arc::new(StillClock(Mutex::new("2026-11-22T08:03:11Z".parse().unwrap())));
        let orders = Arc::new(Ordered::default());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        fill(&*store, clock.now()).await;
        let entropy = Arc::new(SeededEntropy::new(7));
        let network = books(&store, &clock).await;
        let deps = Arc::new(ComputeApi {
            store: Arc::clone(&store),
            network: network.clone(),
            books: has_books.then(|| network.clone()),
            neutron: None,
            images: Arc::new(Images),
            image_books: None,
            volumes: Some(volumes(&store, &clock)),
            identity: Arc::new(Tokens),
            orders: orders.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: crate::live::Live::new(options),
        });
        let filters =
            FilterDeps { identity: Arc::new(Tokens), clock: clock.clone(), entropy, options: Arc::new(api_options) };
        let mut registry = Registry::new(filters);
        registry.application(compute_application(deps)).application(crate::api::network::application(network.clone()));
        let (_, api) = registry.build().unwrap().remove(0);
        Self { api, store, orders, clock, network }
    }

    pub fn pass(&self, seconds: i64) {
        let mut now = self.clock.0.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// `GET /servers` of that caller at that minor version; a path without `/compute` hangs under `/compute/v2.1`.
    pub async fn call(&self, token: &str, minor: u16, line: &str, body: Option<Value>) -> Answer {
        let mut headers = vec![("x-auth-token", token.to_owned())];
        if minor > 1 {
            headers.push(("openstack-api-version", format!("compute 2.{minor}")));
        }
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(line, &headers, text).await
    }

    pub async fn get(&self, token: &str, minor: u16, path: &str) -> Answer {
        self.call(token, minor, &format!("GET {path}"), None).await
    }

    pub async fn raw(&self, line: &str, headers: &[(&str, String)], body: impl Into<Body>) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let path = match path.starts_with("/compute") || path.starts_with("/network") {
            true => path.to_owned(),
            false => format!("/compute/v2.1{path}"),
        };
        let mut request = Request::builder().method(method).uri(path).header("host", "cloud:8774");
        if method == "POST" || method == "PUT" {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = self.api.handle(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    /// A call of the network API: `POST /network/v2.0/ports`.
    pub async fn neutron(&self, token: &str, line: &str, body: Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(line, &[("x-auth-token", token.to_owned())], text).await
    }

    /// Makes something of the network and returns what is under its key.
    pub async fn make(&self, token: &str, kind: &str, key: &str, body: Value) -> Value {
        let answer = self.neutron(token, &format!("POST /network/v2.0/{kind}"), json!({ key: body })).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.body[key].clone()
    }

    /// Things of the network: `ports?device_id=x`.
    pub async fn list(&self, token: &str, query: &str) -> Vec<Value> {
        let answer = self.neutron(token, &format!("GET /network/v2.0/{query}"), Value::Null).await;
        let kind = query.split('?').next().unwrap_or_default().replace('-', "_");
        answer.body[kind].as_array().cloned().unwrap_or_else(|| panic!("{}", answer.text))
    }

    /// A server of that caller; its id.
    pub async fn create(&self, token: &str, name: &str) -> String {
        let answer = self.call(token, 1, "POST /servers", Some(json!({"server": server(name)}))).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.body["server"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn instance(&self, id: &str) -> Instance {
        self.store.get_instance(id.parse().unwrap()).await.unwrap()
    }

    /// Ends whatever is done to a server, as a conductor would, and leaves it in that state on that host.
    pub async fn settle(&self, id: &str, vm_state: VmState, host: &str) {
        let mut instance = self.instance(id).await;
        instance.set_states(States::idle(vm_state));
        instance.host = Some(host.into());
        instance.node = Some(host.into());
        instance.availability_zone = Some(ZoneName::new("nova"));
        instance.launched_at = Some(self.clock.now());
        if vm_state == VmState::Deleted {
            instance.deleted_at = Some(self.clock.now());
            instance.terminated_at = Some(self.clock.now());
        }
        for task in self.store.list_tasks(Some(instance.id)).await.unwrap() {
            let commit = TaskCommit { done: true, ..TaskCommit::of(task) };
            self.store.commit_task(commit).await.unwrap();
        }
        let current = self.instance(id).await;
        instance.generation = current.generation;
        instance.epoch = current.epoch;
        self.store.update_instance(instance).await.unwrap();
    }
}

/// The books of a cloud that began with an outer network.
async fn books(store: &Arc<dyn Store>, clock: &Arc<StillClock>) -> Arc<NetworkManager> {
    let options = NetworkOptions { public_subnet: "172.24.4.0/24".parse().ok(), ..NetworkOptions::default() };
    let entropy = Arc::new(SeededEntropy::new(8));
    let network = NetworkManager::new(store.clone(), clock.clone(), entropy, options);
    network.bootstrap().await.unwrap();
    Arc::new(network)
}

/// The books of volumes, which have none.
fn volumes(store: &Arc<dyn Store>, clock: &Arc<StillClock>) -> Arc<dyn BlockStorage> {
    let (clock, entropy): (Arc<dyn Clock>, _) = (clock.clone(), Arc::new(SeededEntropy::new(9)));
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(clock.clone()));
    let sender = Sender { role: Role::Api, host: HostName::new("controller") };
    let manager = VolumeManager::new(VolumeParts {
        store: store.clone(),
        images: None,
        rpc: RpcClient::new(bus, sender, clock.clone(), entropy.clone()),
        clock,
        entropy,
        options: VolumeOptions::default(),
    });
    Arc::new(OwnBlockStorage::new(Arc::new(manager)))
}

/// The least that makes a server.
pub fn server(name: &str) -> Value {
    json!({"name": name, "imageRef": IMAGE, "flavorRef": "1"})
}

/// The configuration of a process that serves nothing but compute.
pub fn only_compute() -> ApiOptions {
    let enabled = EnabledApi { name: "osapi_compute".into(), address: None };
    ApiOptions { enabled_apis: vec![enabled], ..ApiOptions::default() }
}

async fn fill(store: &dyn Store, now: Timestamp) {
    for (id, name, is_public) in [("1", "m1.tiny", true), ("2", "private", false)] {
        let flavor = Flavor {
            id: FlavorId::new(id),
            name: name.into(),
            vcpus: 1,
            memory_mb: 512,
            root_gb: 1,
            ephemeral_gb: 0,
            swap_mb: 0,
            rxtx_factor: 1.0,
            disabled: false,
            is_public,
            description: None,
            extra_specs: BTreeMap::from([("hw:x".to_owned(), "y".to_owned())]),
            access: BTreeSet::from([ProjectId::new("0000eeee")]),
            created_at: now,
            updated_at: None,
            generation: 0,
        };
        store.create_flavor(flavor).await.unwrap();
    }
    let keypair = Keypair {
        id: 0,
        user_id: "demo".into(),
        name: "key".into(),
        public_key: "ssh-ed25519 AAAA".into(),
        fingerprint: "00".into(),
        kind: "ssh".into(),
        created_at: now,
    };
    store.create_keypair(keypair, None).await.unwrap();
    let beat = ServiceBeat {
        new_id: ServiceId::generate(&SeededEntropy::new(3)),
        binary: "nova-compute".into(),
        host: "h1".into(),
        zone: "nova".into(),
        now,
        version: 1,
    };
    store.record_beats(&[beat]).await.unwrap();
}

#[tokio::test]
async fn the_world_answers() {
    let world = World::new().await;
    let answer = world.get("demo", 1, "/servers").await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK.as_u16(), json!({"servers": []})));
}
