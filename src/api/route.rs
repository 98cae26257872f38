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

/// Does a header's text hold for a request?
type ProofCheck = Arc<dyn Fn(&Request, &str) -> bool + Send + Sync>;

/// What a caller must show before a route answers.
#[derive(Debug, Clone)]
pub enum Access {
    /// A token.
    Token,
    /// Nothing.
    Public,
    /// A token, or a proof of the route's own: it authenticates such callers by itself.
    TokenOr(Proof),
}

/// A header that a route takes in the place of a token, and how it is checked: without I/O, as tokens are.
#[derive(Clone)]
pub struct Proof {
    header: &'static str,
    check: ProofCheck,
}

impl Proof {
    /// Does the request bring this proof, and does it hold? `None`: it brings none.
    pub fn holds(&self, request: &Request) -> Option<bool> {
        request.header(self.header).map(|text| (self.check)(request, text))
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proof").field("header", &self.header).finish_non_exhaustive()
    }
}

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
    /// What a caller must show.
    pub access: Access,
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
    Route { method, path, versions: ALWAYS, access: Access::Token, handler }
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
        self.access = Access::Public;
        self
    }

    /// Takes, where there is no token, this header in its place if `check` says that it holds for this request. The
    /// handler sees [`Request::proven`] and no caller; whatever does not hold is 401, as without a token.
    #[must_use]
    pub fn or_proof<F>(mut self, header: &'static str, check: F) -> Self
    where
        F: Fn(&Request, &str) -> bool + Send + Sync + 'static,
    {
        self.access = Access::TokenOr(Proof { header, check: Arc::new(check) });
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
