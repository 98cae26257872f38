//! A compute API on a store in memory, called without HTTP: for the tests of its resources.

mod hostile;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{IdentityError, IdentityService, ImageData, ImageService, ImageServiceError, TokenInfo};
use nova_core::entropy::SeededEntropy;
use nova_core::host::{ComputeNode, Service};
use nova_core::ids::{ComputeNodeId, HostName, ImageId, InstanceId, PortId, RequestId, ServiceId, TaskId, ZoneName};
use nova_core::image::{Image, ImageGrant, ImageMeta};
use nova_core::instance::Instance;
use nova_core::rpc::conductor::CacheImageRequest;
use nova_core::rpc::scheduler::{AggregateNews, HostsChangedRequest, ServiceNews};
use nova_core::task::{Task, Work};
use nova_db::{MemoryStore, NewInstance, NewInstances, ServiceBeat, Store};
use serde_json::{Value, json};

use super::{ComputeApi, ComputeOptions, OrderError, Orders};
use crate::api::actions::Actions;
use crate::api::router::{Found, Router};
use crate::api::{ApiError, Dialect, MAX_BODY, Microversion, NovaDialect, Query, Request, Resource, Response};
use crate::image::{ImageManager, ImageOptions};
use crate::network::{NetworkManager, NetworkOptions, NeutronClient};

/// The API under test.
pub struct Bench {
    /// What the resources share.
    pub api: Arc<ComputeApi>,
    /// What was told to schedulers.
    pub told: Arc<Told>,
    clock: Arc<TestClock>,
    router: Router,
    place: Option<tempfile::TempDir>,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    user: &'static str,
    project: &'static str,
    role: &'static str,
}

/// An administrator, in the project `p-admin`.
pub const ADMIN: Caller = Caller { user: "u-admin", project: "p-admin", role: "admin" };
/// A member of the project `p-demo`.
pub const DEMO: Caller = Caller { user: "u-demo", project: "p-demo", role: "member" };
/// Someone who only reads in the project `p-demo`.
pub const READER: Caller = Caller { user: "u-reader", project: "p-demo", role: "reader" };
/// A member of the project `p-other`.
pub const OTHER: Caller = Caller { user: "u-other", project: "p-other", role: "member" };

/// Records orders and carries none out.
#[derive(Debug, Default)]
pub struct Told {
    /// News about services, oldest first.
    pub services: Mutex<Vec<ServiceNews>>,
    /// News about aggregates, oldest first.
    pub aggregates: Mutex<Vec<AggregateNews>>,
    /// Which tasks heard of which interface that it works, or does not.
    pub plugged: Mutex<Vec<(Vec<TaskId>, PortId, bool)>>,
}

struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[async_trait]
impl Orders for Told {
    async fn start_tasks(&self, _: &RequestContext, _: &[TaskId]) -> Result<(), OrderError> {
        Ok(())
    }

    async fn tell_plugged(
        &self,
        _: &RequestContext,
        tasks: &[TaskId],
        port: PortId,
        works: bool,
    ) -> Result<(), OrderError> {
        self.plugged.lock().unwrap().push((tasks.to_vec(), port, works));
        Ok(())
    }

    async fn console_output(
        &self,
        _: &RequestContext,
        _: &HostName,
        _: InstanceId,
        _: Option<u32>,
    ) -> Result<String, OrderError> {
        Err(OrderError::Unsupported)
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

    async fn hosts_changed(&self, _: &RequestContext, news: HostsChangedRequest) -> Result<(), OrderError> {
        self.services.lock().unwrap().extend(news.services);
        self.aggregates.lock().unwrap().extend(news.aggregates);
        Ok(())
    }
}

struct NoOne;

#[async_trait]
impl IdentityService for NoOne {
    async fn validate(&self, _: &str) -> Result<TokenInfo, IdentityError> {
        Err(IdentityError::Unauthorized)
    }
}

#[async_trait]
impl ImageService for NoOne {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }

    async fn download(&self, id: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
}

impl Bench {
    /// With the routes of one resource.
    pub fn new<R: Resource + 'static>(resource: impl FnOnce(Arc<ComputeApi>) -> R) -> Self {
        Self::with_options(ComputeOptions::default(), resource)
    }

    /// The same, configured.
    pub fn with_options<R: Resource + 'static>(
        options: ComputeOptions,
        resource: impl FnOnce(Arc<ComputeApi>) -> R,
    ) -> Self {
        let clock = Arc::new(TestClock(Mutex::new("2026-11-22T08:03:11Z".parse().unwrap())));
        let told = Arc::new(Told::default());
        let store = Arc::new(MemoryStore::new());
        let entropy = Arc::new(SeededEntropy::new(2));
        let network = NetworkManager::new(store.clone(), clock.clone(), entropy, NetworkOptions::default());
        let network = Arc::new(network);
        let api = Arc::new(ComputeApi {
            store,
            network: network.clone(),
            books: Some(network),
            neutron: None,
            images: Arc::new(NoOne),
            image_books: None,
            volumes: None,
            identity: Arc::new(NoOne),
            orders: told.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(1)),
            options: crate::live::Live::new(options),
        });
        let bench = Self { api, told, clock, router: Router::default(), place: None };
        bench.add(resource)
    }

    /// With images in a folder of its own.
    pub async fn with_images(mut self) -> Self {
        let place = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::clone(&self.api.store);
        let (clock, entropy) = (Arc::clone(&self.api.clock), Arc::clone(&self.api.entropy));
        let options = ImageOptions::new(place.path());
        let images = ImageManager::open(store, clock, entropy, options).await.unwrap();
        let image_books = Some(Arc::new(images));
        self.api = Arc::new(ComputeApi { image_books, ..(*self.api).clone() });
        self.place = Some(place);
        self.router = Router::default();
        self
    }

    /// Networks are kept by that Neutron.
    pub fn with_neutron(mut self, neutron: NeutronClient) -> Self {
        let network = Arc::new(neutron.clone());
        self.api = Arc::new(ComputeApi { network, books: None, neutron: Some(neutron), ..(*self.api).clone() });
        self.router = Router::default();
        self
    }

    /// An image of that caller's project.
    pub async fn image(&self, owner: Caller, name: &str, status: &str, properties: &[(&str, &str)]) -> String {
        self.image_row(owner, name, status, "shared", properties).await
    }

    /// An image for everybody.
    pub async fn public_image(&self, name: &str) -> String {
        self.image_row(ADMIN, name, "active", "public", &[]).await
    }

    async fn image_row(
        &self,
        owner: Caller,
        name: &str,
        status: &str,
        visibility: &str,
        properties: &[(&str, &str)],
    ) -> String {
        let properties: BTreeMap<&str, &str> = properties.iter().copied().collect();
        let image: Image = serde_json::from_value(json!({
            "id": ImageId::generate(&*self.api.entropy), "name": name, "status": status, "visibility": visibility,
            "owner": owner.project, "disk_format": "raw", "container_format": "bare", "size": 7, "virtual_size": 7,
            "checksum": null, "os_hash_value": null, "min_ram": 0, "min_disk": 0, "protected": false, "os_hidden": false,
            "tags": [], "properties": properties, "created_at": self.now(), "updated_at": self.now(),
        }))
        .unwrap();
        let id = image.id.to_string();
        self.api.store.create_image(image).await.unwrap();
        id
    }

    /// Adds another resource.
    pub fn add<R: Resource + 'static>(mut self, resource: impl FnOnce(Arc<ComputeApi>) -> R) -> Self {
        let resource = Arc::new(resource(self.api.clone()));
        for route in Arc::clone(&resource).routes() {
            self.router.add(route);
        }
        let actions = resource.actions();
        if !actions.is_empty() {
            for route in Arc::new(Actions::new(&actions)).routes() {
                self.router.add(route);
            }
        }
        self
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        let mut now = self.clock.0.lock().unwrap();
        *now = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// One request; the status and the body, `null` for an empty one. Fails on a 500.
    pub async fn call(&self, caller: Caller, minor: u16, line: &str, body: Value) -> (u16, Value) {
        self.call_in(false, caller, minor, line, body).await
    }

    /// The same, in the compatibility mode of `/v2`.
    pub async fn call_lenient(&self, caller: Caller, line: &str, body: Value) -> (u16, Value) {
        self.call_in(true, caller, 1, line, body).await
    }

    async fn call_in(&self, lenient: bool, caller: Caller, minor: u16, line: &str, body: Value) -> (u16, Value) {
        let response = self.respond_in(lenient, caller, minor, line, body).await;
        let status = response.status.as_u16();
        let bytes = response.body.collect().await.unwrap().to_bytes();
        let value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        assert_ne!(status, 500, "{line} {value}");
        (status, value)
    }

    /// One request; the answer as it is.
    pub async fn respond(&self, caller: Caller, minor: u16, line: &str, body: Value) -> Response {
        self.respond_in(false, caller, minor, line, body).await
    }

    async fn respond_in(&self, lenient: bool, caller: Caller, minor: u16, line: &str, body: Value) -> Response {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method: Method = method.parse().unwrap();
        let version = Microversion(minor);
        let result = match self.router.find(&method, path, version) {
            Found::Handler { handler, params, .. } => {
                let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
                let request_id = RequestId::generate(&*self.api.entropy);
                let context = RequestContext { request_id, ..context(caller) };
                handler(Request {
                    method,
                    path: path.to_owned(),
                    params,
                    url_project: None,
                    query: Query::parse(query),
                    headers: HeaderMap::new(),
                    request_id: context.request_id.clone(),
                    context: Some(context),
                    token: None,
                    proven: false,
                    version,
                    lenient,
                    base_url: "http://h:8774/compute/v2.1".to_owned(),
                    body_limit: MAX_BODY,
                    body_timeout: std::time::Duration::from_secs(60),
                    body: body.into(),
                })
                .await
            }
            Found::OtherMethod | Found::Nothing => Err(ApiError::no_such_resource()),
        };
        result.unwrap_or_else(|error| NovaDialect.render(&error))
    }

    /// GET, which must succeed.
    pub async fn get(&self, caller: Caller, minor: u16, path: &str) -> Value {
        let (status, body) = self.call(caller, minor, &format!("GET {path}"), Value::Null).await;
        assert_eq!(status, 200, "{path} at 2.{minor}: {body}");
        body
    }

    /// A request that must fail; its status and text.
    pub async fn refused(&self, caller: Caller, minor: u16, line: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(caller, minor, line, body).await;
        assert!((400..500).contains(&status), "{line} at 2.{minor}: {status} {answer}");
        let fault = answer.as_object().unwrap().values().next().unwrap();
        assert_eq!(fault["code"], status);
        (status, fault["message"].as_str().unwrap().to_owned())
    }

    /// A server as it is now.
    pub async fn read(&self, id: &str) -> Instance {
        self.api.store.get_instance(id.parse().unwrap()).await.unwrap()
    }

    /// Changes a server behind the API's back.
    pub async fn touch(&self, id: &str, change: impl FnOnce(&mut Instance)) {
        let mut instance = self.read(id).await;
        change(&mut instance);
        self.api.store.update_instance(instance).await.unwrap();
    }

    /// A service that was seen now.
    pub async fn service(&self, binary: &str, host: &str, zone: &str) -> Service {
        let beat = ServiceBeat {
            new_id: ServiceId::generate(&*self.api.entropy),
            binary: binary.to_owned(),
            host: HostName::new(host),
            zone: ZoneName::new(zone),
            now: self.now(),
            version: 1,
        };
        self.api.store.record_beats(&[beat]).await.unwrap().remove(0)
    }

    /// A compute node.
    pub async fn node(&self, host: &str) -> ComputeNode {
        let now = self.now();
        let node: ComputeNode = serde_json::from_value(json!({
            "id": ComputeNodeId::generate(&*self.api.entropy),
            "host": host,
            "hypervisor_hostname": format!("{host}.example.org"),
            "hypervisor_type": "QEMU",
            "hypervisor_version": 7_002_022,
            "host_ip": "192.0.2.1",
            "zone": "nova",
            "inventory": {
                "total": {"vcpus": 8, "memory_mb": 16384, "disk_gb": 100},
                "reserved": {"vcpus": 0, "memory_mb": 512, "disk_gb": 0},
                "cpu_ratio": 4.0, "ram_ratio": 1.0, "disk_ratio": 1.0,
            },
            "cpu_info": {"arch": "x86_64", "topology": {"sockets": 1}},
            "uptime": "up 3 days",
            "created_at": now,
            "updated_at": now,
        }))
        .unwrap();
        self.api.store.put_node(node).await.unwrap()
    }

    /// A server of that caller, on a host or on none, with its `create` action.
    pub async fn instance(&self, owner: Caller, host: Option<&str>) -> Instance {
        let now = self.now();
        let context = context(owner);
        let request_id = RequestId::generate(&*self.api.entropy);
        let instance: Instance = serde_json::from_value(json!({
            "id": InstanceId::generate(&*self.api.entropy),
            "project_id": owner.project, "user_id": owner.user,
            "reservation_id": self.api.entropy.uuid(), "request_id": request_id,
            "display_name": "server", "hostname": "server", "image": null,
            "flavor": {
                "id": "1", "name": "m1", "vcpus": 2, "memory_mb": 512, "root_gb": 1, "is_public": true,
                "created_at": now,
            },
            "host": host, "vm_state": "active", "power_state": 1,
            "created_at": now, "updated_at": now,
        }))
        .unwrap();
        let action = nova_core::action::ActionRecord {
            instance_id: instance.id,
            request_id: request_id.clone(),
            action: "create".to_owned(),
            user_id: instance.user_id.clone(),
            project_id: instance.project_id.clone(),
            started: now,
            finished: None,
            message: None,
            updated: now,
            events: Vec::new(),
        };
        let task = Task {
            id: TaskId::generate(&*self.api.entropy),
            instance_id: instance.id,
            work: Work::Delete,
            context: RequestContext { request_id, ..context },
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: now,
            deadline: now,
            created_at: now,
            generation: 0,
        };
        let new = NewInstances {
            instances: vec![NewInstance { instance, action, task }],
            limits: self.api.options.get().limits,
            user_limits: None,
            group: None,
        };
        self.api.store.create_instances(new).await.unwrap().remove(0)
    }
}

/// The keys of an object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn context(caller: Caller) -> RequestContext {
    let mut context = RequestContext::internal(RequestId::generate(&SeededEntropy::new(7)));
    context.user_id = caller.user.into();
    context.project_id = caller.project.into();
    context.roles = vec![caller.role.to_owned()];
    context
}
