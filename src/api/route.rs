//! Which handler answers which method on which path, at which versions.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::Method;
use serde_json::Value;

use super::microversion::ALWAYS;
use super::{ApiError, Microversion, Request, Response};

/// What a handler returns.
pub type HandlerResult = Result<Response, ApiError>;

/// A handler, ready to be called many times at once.
pub type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, HandlerResult> + Send + Sync>;

/// The handler of a one-key body: gets the request and what stands under the key.
pub type ActionHandler = Arc<dyn Fn(Request, Value) -> BoxFuture<'static, HandlerResult> + Send + Sync>;

/// One route.
#[derive(Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path below the application's prefix. A segment `{name}` matches any one segment that is not empty and goes to
    /// [`Request::params`]; `{*name}` as the last one matches the rest. A literal segment wins over a parameter.
    pub path: &'static str,
    /// Minor versions at which it is there; at others the path answers 404.
    pub versions: RangeInclusive<u16>,
    /// Answers without a token.
    pub public: bool,
    /// What answers.
    pub handler: Handler,
}

/// A route with a handler that shares `state`: `route(Method::GET, "/flavors/{id}", self, Self::show)` where
/// `async fn show(self: Arc<Self>, request: Request) -> HandlerResult`.
pub fn route<S, F, Fut>(method: Method, path: &'static str, state: &Arc<S>, handler: F) -> Route
where
    S: Send + Sync + 'static + ?Sized,
    F: Fn(Arc<S>, Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    let state = Arc::clone(state);
    let handler: Handler = Arc::new(move |request| Box::pin(handler(Arc::clone(&state), request)));
    Route { method, path, versions: ALWAYS, public: false, handler }
}

impl Route {
    /// Only at these minor versions.
    #[must_use]
    pub fn versions(mut self, versions: RangeInclusive<u16>) -> Self {
        self.versions = versions;
        self
    }

    /// Answers without a token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Is it there at that version?
    pub fn offered_at(&self, version: Microversion) -> bool {
        self.versions.contains(&version.0)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.method, self.path, self.versions)
    }
}

/// One key of the bodies that `POST /servers/{id}/action` takes.
#[derive(Clone)]
pub struct ServerAction {
    /// The key: `reboot`, `os-start`.
    pub key: &'static str,
    /// Minor versions at which it is there.
    pub versions: RangeInclusive<u16>,
    /// What answers; `id` in [`Request::params`] is the server.
    pub handler: ActionHandler,
}

/// An action with a handler that shares `state`: `async fn reboot(self: Arc<Self>, request: Request, body: Value)`.
pub fn action<S, F, Fut>(key: &'static str, state: &Arc<S>, handler: F) -> ServerAction
where
    S: Send + Sync + 'static + ?Sized,
    F: Fn(Arc<S>, Request, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    let state = Arc::clone(state);
    let handler: ActionHandler = Arc::new(move |request, body| Box::pin(handler(Arc::clone(&state), request, body)));
    ServerAction { key, versions: ALWAYS, handler }
}

impl ServerAction {
    /// Only at these minor versions.
    #[must_use]
    pub fn versions(mut self, versions: RangeInclusive<u16>) -> Self {
        self.versions = versions;
        self
    }
}

impl std::fmt::Debug for ServerAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.key, self.versions)
    }
}
