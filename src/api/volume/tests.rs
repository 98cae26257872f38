//! The volume API as clients see it, without HTTP, over a volume host whose disks are in memory.

mod life;
mod wrong;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{HostName, ProjectId, RequestId, ServiceId, UserId};
use nova_core::rpc::{Role, Sender};
use nova_db::{HostStore, MemoryStore, ServiceBeat, Store};
use nova_queue::{MemoryBus, MessageBus, RpcClient, RunningService};
use serde_json::{Value, json};

use super::{CinderDialect, resources};
use crate::api::router::{Found, Router};
use crate::api::{ApiError, Dialect, MAX_BODY, Microversion, Query, Request};
use crate::volume::driver::MemoryVolumes;
use crate::volume::service::{HostOptions, Parts, VolumeHost};
use crate::volume::{VolumeManager, VolumeOptions, VolumeParts};

/// Who calls: a project and a role.
type Caller = (&'static str, &'static str);

const ADMIN: Caller = ("p-admin", "admin");
const DEMO: Caller = ("p-demo", "member");
const OTHER: Caller = ("p-other", "member");
const READER: Caller = ("p-demo", "reader");

/// Every look is a second later, so that lists have an order.
struct TestClock(Mutex<i64>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let mut looks = self.0.lock().unwrap();
        *looks += 1;
        Timestamp::constant(1_800_000_000, 0) + SignedDuration::from_micros(*looks)
    }
}

struct Bench {
    router: Router,
    store: Arc<MemoryStore>,
    host: VolumeHost,
    _running: RunningService,
    version: u16,
}

impl Bench {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock(Mutex::new(0)));
        let entropy = Arc::new(SeededEntropy::new(1));
        let store = Arc::new(MemoryStore::new());
        let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(clock.clone()));
        let client = |role, host: &str| {
            let sender = Sender { role, host: HostName::new(host) };
            RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone())
        };
        let manager = VolumeManager::new(VolumeParts {
            store: store.clone(),
            images: None,
            rpc: client(Role::Api, "controller"),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: VolumeOptions::default(),
        });
        let beat = ServiceBeat {
            new_id: ServiceId::generate(&*entropy),
            binary: "nova-volume".into(),
            host: "store1".into(),
            zone: "internal".into(),
            now: clock.now(),
            version: 0,
        };
        store.record_beats(&[beat]).await.unwrap();
        let host = VolumeHost::new(Parts {
            store: store.clone(),
            driver: Arc::new(MemoryVolumes::new(100, 2.0)),
            images: None,
            grants: None,
            rpc: client(Role::Volume, "store1"),
            clock,
            entropy,
            options: HostOptions { host: "store1".into(), owner: "store1/1".into(), ..HostOptions::default() },
        });
        let running = host.clone().start().await.unwrap();
        let mut router = Router::default();
        for resource in resources(Arc::new(manager)) {
            for route in resource.routes() {
                router.add(route);
            }
        }
        while store.list_volume_pools_now().await.is_empty() {
            tokio::task::yield_now().await;
        }
        Self { router, store, host, _running: running, version: super::dialect::MAX }
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
        let version = Microversion(self.version);
        let result = match self.router.find(&method, path, version) {
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
                    version,
                    lenient: false,
                    base_url: "http://h:8774/volume/v3".to_owned(),
                    body_limit: MAX_BODY,
                    body_timeout: std::time::Duration::from_secs(1),
                    body: body.into(),
                };
                handler(request).await
            }
            _ => Err(ApiError::no_such_resource()),
        };
        let response = result.unwrap_or_else(|error| CinderDialect.render(&error));
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

    /// A request that is accepted, and what its host makes of it.
    async fn done(&self, caller: Caller, line: &str, body: Value, expected: u16) -> Value {
        let (status, answer) = self.call(caller, line, body).await;
        assert_eq!(status, expected, "{line} {answer}");
        self.settle().await;
        answer
    }

    /// Until nothing is left to be done.
    async fn settle(&self) {
        while !self.store.list_volume_tasks_now().await.is_empty() {
            self.host.idle().await;
            tokio::task::yield_now().await;
        }
    }

    /// A new volume, ready.
    async fn volume(&self, caller: Caller, body: Value) -> String {
        let made = self.done(caller, "POST /volumes", json!({ "volume": body }), 202).await;
        made["volume"]["id"].as_str().unwrap().to_owned()
    }

    async fn act(&self, caller: Caller, id: &str, body: Value) -> u16 {
        let (status, _) = self.call(caller, &format!("POST /volumes/{id}/action"), body).await;
        self.settle().await;
        status
    }

    /// The status, and the key and text of the error.
    async fn refused(&self, caller: Caller, line: &str, body: Value) -> (u16, String, String) {
        let (status, answer) = self.call(caller, line, body).await;
        let (key, fault) = answer.as_object().and_then(|map| map.iter().next()).expect("a fault");
        assert_eq!(fault["code"], status, "{line} {answer}");
        (status, key.clone(), fault["message"].as_str().unwrap().to_owned())
    }

    async fn status(&self, id: &str) -> String {
        let view = self.get(ADMIN, &format!("/volumes/{id}")).await;
        view["volume"]["status"].as_str().unwrap().to_owned()
    }
}

/// Short forms of questions.
trait Now {
    async fn list_volume_pools_now(&self) -> Vec<nova_core::volume::Pool>;
    async fn list_volume_tasks_now(&self) -> Vec<nova_core::volume::VolumeTask>;
}

impl Now for MemoryStore {
    async fn list_volume_pools_now(&self) -> Vec<nova_core::volume::Pool> {
        let store: &dyn Store = self;
        store.list_volume_pools().await.unwrap()
    }

    async fn list_volume_tasks_now(&self) -> Vec<nova_core::volume::VolumeTask> {
        let store: &dyn Store = self;
        store.list_volume_tasks(&nova_db::ListQuery::default()).await.unwrap()
    }
}

fn keys(view: &Value) -> Vec<&str> {
    view.as_object().unwrap().keys().map(String::as_str).collect()
}
