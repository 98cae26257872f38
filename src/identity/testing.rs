//! A small cloud of identity and images in one process, for the tests of both.

use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, Method, StatusCode};
use axum::body::Body;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_db::{IdentityStore, ImageStore, MemoryStore};
use serde_json::{Value, json};

use super::{Bootstrap, Catalog, IdentityManager, IdentityOptions, PasswordOptions, application};
use crate::api::{Api, ApiOptions, EnabledApi, FilterDeps, Registry};
use crate::image::{self, ImageManager, ImageOptions};

/// A clock that goes on by hand.
pub(crate) struct TestClock(Mutex<Timestamp>);

impl TestClock {
    pub(crate) fn advance(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// What a call got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// Everything that a test may want to touch.
pub(crate) struct Cloud {
    pub api: Api,
    pub clock: Arc<TestClock>,
    pub entropy: Arc<dyn Entropy>,
    pub store: Arc<MemoryStore>,
    pub identity: Arc<IdentityManager>,
    pub images: Arc<ImageManager>,
    pub bootstrap: Bootstrap,
    pub place: tempfile::TempDir,
}

pub(crate) fn identity_options() -> IdentityOptions {
    IdentityOptions { password: PasswordOptions::cheap(), ..IdentityOptions::default() }
}

impl Cloud {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ImageOptions)) -> Self {
        let clock = Arc::new(TestClock(Mutex::new(Timestamp::from_second(1_763_798_591).unwrap())));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let store = Arc::new(MemoryStore::new());
        let identity = Arc::new(manager(&store, &clock, &entropy).await);
        let bootstrap = identity.bootstrap().await.unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut options = ImageOptions::new(place.path());
        change(&mut options);
        let images = Arc::clone(&store) as Arc<dyn ImageStore>;
        let images = ImageManager::open(images, clock.clone(), entropy.clone(), options).await.unwrap();
        let images = Arc::new(images);
        let enabled_apis =
            ["identity", "image"].map(|name| EnabledApi { name: name.to_owned(), address: None }).to_vec();
        let mut registry = Registry::new(FilterDeps {
            identity: identity.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: Arc::new(ApiOptions { enabled_apis, ..ApiOptions::default() }),
        });
        registry.application(application(identity.clone())).application(image::application(images.clone()));
        let (_, api) = registry.build().unwrap().swap_remove(0);
        Self { api, clock, entropy, store, identity, images, bootstrap, place }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = ::http::Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.handle(request.header("host", "cloud:8774").body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, bytes };
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path} {answer:?}");
        answer
    }

    /// A call with a JSON body, or with none for null.
    pub(crate) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let mut headers = vec![("content-type", "application/json")];
        if !token.is_empty() {
            headers.push(("x-auth-token", token));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(method, path, &headers, body).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, Value::Null).await
    }

    pub(crate) fn password(&self, user: &str) -> &str {
        self.bootstrap.accounts.iter().find(|account| account.user == user).unwrap().password.reveal()
    }

    pub(crate) async fn login(&self, user: &str, password: &str, project: Option<&str>) -> Answer {
        self.call("", "POST", "/identity/v3/auth/tokens", login_body(user, password, project)).await
    }

    /// A token of a user that bootstrap made, on the project of the same name.
    pub(crate) async fn token(&self, user: &str) -> String {
        let answer = self.login(user, self.password(user), Some(user)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("x-subject-token").to_owned()
    }

    /// The id of the thing of that name in a list of identity.
    pub(crate) async fn id(&self, collection: &str, name: &str) -> String {
        let admin = self.token("admin").await;
        let list = self.get(&admin, &format!("/identity/v3/{collection}?name={name}")).await.json();
        list[collection][0]["id"].as_str().unwrap_or_else(|| panic!("no {name} in {list}")).to_owned()
    }

    /// A new user with roles on a new project; returns their token.
    pub(crate) async fn another(&self, name: &str, roles: &[&str]) -> String {
        let admin = self.token("admin").await;
        let project =
            self.call(&admin, "POST", "/identity/v3/projects", json!({"project": {"name": name}})).await.json();
        let user = json!({"user": {"name": name, "password": "secret"}});
        let user = self.call(&admin, "POST", "/identity/v3/users", user).await.json();
        let (project, user) = (project["project"]["id"].as_str().unwrap(), user["user"]["id"].as_str().unwrap());
        for role in roles {
            let role = self.id("roles", role).await;
            let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
            assert_eq!(self.call(&admin, "PUT", &path, Value::Null).await.status, 204);
        }
        self.login(name, "secret", Some(name)).await.header("x-subject-token").to_owned()
    }
}

pub(crate) async fn manager(
    store: &Arc<MemoryStore>,
    clock: &Arc<TestClock>,
    entropy: &Arc<dyn Entropy>,
) -> IdentityManager {
    let store = Arc::clone(store) as Arc<dyn IdentityStore>;
    let catalog = Catalog::of_this_process("http://cloud:8774");
    IdentityManager::open(store, clock.clone(), entropy.clone(), catalog, identity_options()).await.unwrap()
}

pub(crate) fn login_body(user: &str, password: &str, project: Option<&str>) -> Value {
    let domain = json!({"name": "Default"});
    let mut body = json!({"auth": {"identity": {
        "methods": ["password"],
        "password": {"user": {"name": user, "password": password, "domain": domain}},
    }}});
    if let Some(project) = project {
        body["auth"]["scope"] = json!({"project": {"name": project, "domain": domain}});
    }
    body
}
