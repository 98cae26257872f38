//! Resources and the applications that they make up.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::actions::Actions;
use super::router::Router;
use super::{ApiError, Microversion, Request, Response, Route, ServerAction};

/// A group of routes under one name. Ours and a platform builder's register the same way.
pub trait Resource: Send + Sync {
    /// A name for logs and for the extension list.
    fn name(&self) -> &'static str;

    /// Its routes.
    fn routes(self: Arc<Self>) -> Vec<Route>;

    /// The server actions that it adds.
    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        Vec::new()
    }
}

/// What differs from one API to the next besides its resources: its errors, its versions, its headers.
pub trait Dialect: Send + Sync {
    /// The answer for an error. The pipeline adds the request id.
    fn render(&self, error: &ApiError) -> Response;

    /// The version that a request speaks.
    ///
    /// # Errors
    /// 400 and 406, answered once the caller is authenticated.
    fn negotiate(&self, _prefix: &str, _headers: &HeaderMap) -> Result<Microversion, ApiError> {
        Ok(Microversion::MIN)
    }

    /// Headers that every answer of the application carries, errors included. `headers` are the request's.
    fn answer_headers(&self, _prefix: &str, _headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// What a known path answers to a method that it has not.
    fn wrong_method(&self) -> ApiError {
        ApiError::MethodNotAllowed
    }

    /// Are unknown keys of bodies and queries let through under this prefix?
    fn lenient(&self, _prefix: &str) -> bool {
        false
    }

    /// A last look at a request that has passed all filters.
    ///
    /// # Errors
    /// Whatever the application has against it.
    fn admit(&self, _request: &Request) -> Result<(), ApiError> {
        Ok(())
    }
}

/// One API: resources under a mount path, behind a named pipeline.
pub struct Application {
    /// The name: key of its `[pipeline:NAME]` and of `enabled_apis`.
    pub name: String,
    /// Where it hangs: `/compute`.
    pub mount: String,
    /// What its resources' paths begin with, below the mount: `/v2.1` and `/v2`; one empty text for none.
    pub prefixes: Vec<String>,
    /// Its manners.
    pub dialect: Arc<dyn Dialect>,
    /// A first path segment that looks like a project id may stand before every path.
    pub project_in_path: bool,
    pub(super) root: Router,
    pub(super) router: Router,
    pub(super) actions: Vec<ServerAction>,
    pub(super) has_server_actions: bool,
}

impl Application {
    /// An application without resources. `mount` begins with a slash and does not end with one.
    pub fn new(name: impl Into<String>, mount: impl Into<String>, dialect: Arc<dyn Dialect>) -> Self {
        Self {
            name: name.into(),
            mount: mount.into(),
            prefixes: vec![String::new()],
            dialect,
            project_in_path: false,
            root: Router::default(),
            router: Router::default(),
            actions: Vec::new(),
            has_server_actions: false,
        }
    }

    /// Sets what resources' paths begin with.
    #[must_use]
    pub fn prefixes(mut self, prefixes: &[&str]) -> Self {
        self.prefixes = prefixes.iter().map(|p| (*p).to_owned()).collect();
        self
    }

    /// Lets a project id stand before every path.
    #[must_use]
    pub fn project_in_path(mut self) -> Self {
        self.project_in_path = true;
        self
    }

    /// Serves `POST /servers/{id}/action` with the actions of all resources.
    #[must_use]
    pub fn with_server_actions(mut self) -> Self {
        self.has_server_actions = true;
        self
    }

    /// What is left to do once all resources are there.
    pub(super) fn finished(self) -> Self {
        if !self.has_server_actions {
            return self;
        }
        let actions = Arc::new(Actions::new(&self.actions));
        self.resource(actions)
    }

    /// Adds a resource below the prefixes.
    #[must_use]
    pub fn resource(mut self, resource: Arc<dyn Resource>) -> Self {
        self.actions.extend(Arc::clone(&resource).actions());
        for route in resource.routes() {
            self.router.add(route);
        }
        self
    }

    /// Adds a resource directly below the mount, whatever the prefixes: version documents.
    #[must_use]
    pub fn root(mut self, resource: Arc<dyn Resource>) -> Self {
        for route in resource.routes() {
            self.root.add(route);
        }
        self
    }

    /// All routes, for documentation and tests.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.root.routes().chain(self.router.routes())
    }

    /// All server actions, for documentation and tests.
    pub fn server_actions(&self) -> &[ServerAction] {
        &self.actions
    }
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application").field("name", &self.name).field("mount", &self.mount).finish_non_exhaustive()
    }
}
