//! From an HTTP request to a handler: which application, through which filters (Nova's `api-paste.ini`, as configuration).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderName, HeaderValue, header, uri::Authority};
use nova_core::entropy::Entropy;
use nova_core::ids::RequestId;
use tokio::sync::Semaphore;

use super::router::Found;
use super::{
    Access, ApiError, ApiOptions, Application, Dialect, Handler, HandlerResult, Proof, Query, Request, Response,
    filters,
};

/// One layer around an application.
#[async_trait]
pub trait Filter: Send + Sync {
    /// Does its part before and after the rest of the pipeline, or answers in its place.
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult;
}

/// The rest of a pipeline, for one request.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Filter>],
    application: &'a Application,
    target: &'a Target,
}

impl<'a> Next<'a> {
    /// The application that the request is for, for as long as the pipeline lives.
    pub fn application(&self) -> &'a Application {
        self.application
    }

    /// Passes the request on.
    pub async fn run(self, request: Request) -> HandlerResult {
        match self.rest.split_first() {
            Some((filter, rest)) => filter.call(request, Next { rest, ..self }).await,
            None => self.target.answer(self.application, request).await,
        }
    }

    /// Does the request's route answer without a token?
    pub fn public(&self) -> bool {
        matches!(self.target, Target::Handler { access: Access::Public, .. })
    }

    /// What the request's route takes in the place of a token.
    pub fn proof(&self) -> Option<&'a Proof> {
        match self.target {
            Target::Handler { access: Access::TokenOr(proof), .. } => Some(proof),
            _ => None,
        }
    }
}

/// Where a request goes, decided before the filters run and told after them: who has no token learns nothing of paths.
enum Target {
    Handler { handler: Handler, access: Access },
    Version(std::sync::Mutex<Option<ApiError>>),
    WrongMethod,
    Nothing,
}

impl Target {
    async fn answer(&self, application: &Application, request: Request) -> HandlerResult {
        match self {
            Self::Handler { handler, .. } => {
                application.dialect.admit(&request)?;
                handler(request).await
            }
            Self::Version(error) => {
                let error = error.lock().ok().and_then(|mut error| error.take());
                Err(error.unwrap_or_else(ApiError::no_such_resource))
            }
            Self::WrongMethod => Err(application.dialect.wrong_method()),
            Self::Nothing => Err(ApiError::no_such_resource()),
        }
    }
}

/// An application behind its filters.
pub(super) struct Served {
    pub(super) application: Application,
    pub(super) filters: Vec<Arc<dyn Filter>>,
}

struct Inner {
    served: Vec<Served>,
    in_flight: Semaphore,
    entropy: Arc<dyn Entropy>,
    options: Arc<ApiOptions>,
}

/// All enabled applications behind one door. Cheap to clone; a [`tower::Service`], and callable in process.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

impl Api {
    /// One door for these applications.
    pub(super) fn new(mut served: Vec<Served>, options: Arc<ApiOptions>, entropy: Arc<dyn Entropy>) -> Self {
        // The longest mount first: `/image/v2` before `/image`, and the empty one last.
        served.sort_by_key(|served| std::cmp::Reverse(served.application.mount.len()));
        let in_flight = Semaphore::new(options.max_requests.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { served, in_flight, entropy, options }))
    }

    /// Answers one request. Never fails: whatever goes wrong is an HTTP answer.
    pub async fn handle(&self, request: http::Request<Body>) -> http::Response<Body> {
        let request_id = inbound_request_id(&request).unwrap_or_else(|| RequestId::generate(&*self.0.entropy));
        let mut response = self.route(request, &request_id).await;
        if !response.headers.contains_key("x-openstack-request-id") {
            filters::add_request_id(&mut response, &request_id);
        }
        if bodyless(response.status) {
            response.body = Body::empty();
        }
        response.into_http()
    }

    /// The same as an axum router, to be merged into another.
    pub fn into_router(self) -> axum::Router {
        axum::Router::new().fallback_service(self)
    }

    /// The applications that are served, longest mount first.
    pub fn applications(&self) -> impl Iterator<Item = &Application> {
        self.0.served.iter().map(|served| &served.application)
    }

    async fn route(&self, request: http::Request<Body>, request_id: &RequestId) -> Response {
        let path = request.uri().path();
        let Some((served, rest)) = self.find(path) else {
            return super::NovaDialect.render(&ApiError::no_such_resource());
        };
        let (prefix, path) = split_prefix(&served.application, rest);
        let (prefix, path) = (prefix.to_owned(), path.to_owned());
        let dialect = Arc::clone(&served.application.dialect);
        let echo = dialect.answer_headers(&prefix, request.headers());
        let mut response = match self.0.in_flight.try_acquire() {
            Err(_) => dialect.render(&ApiError::Unavailable { retry_after: 1 }).with_retry_after(1),
            Ok(_permit) => self.run(served, &prefix, path, request, request_id).await,
        };
        add_headers(&mut response, echo);
        response
    }

    async fn run(
        &self,
        served: &Served,
        prefix: &str,
        path: String,
        request: http::Request<Body>,
        request_id: &RequestId,
    ) -> Response {
        let head = request.method() == http::Method::HEAD;
        let (request, target) = self.prepare(served, prefix, path, request, request_id);
        let next = Next { rest: &served.filters, application: &served.application, target: &target };
        let mut response = match next.run(request).await {
            Ok(response) => response,
            Err(error) => filters::fault_response(&served.application, &error, request_id),
        };
        if head {
            response.body = Body::empty();
        }
        response
    }

    fn find<'p>(&self, path: &'p str) -> Option<(&Served, &'p str)> {
        self.0.served.iter().find_map(|served| {
            let rest = path.strip_prefix(served.application.mount.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((served, rest))
        })
    }

    fn prepare(
        &self,
        served: &Served,
        prefix: &str,
        path: String,
        request: http::Request<Body>,
        request_id: &RequestId,
    ) -> (Request, Target) {
        let application = &served.application;
        let (parts, body) = request.into_parts();
        let mut base_url = format!("{}{}{prefix}", self.public_root(&parts), application.mount);
        let whole = format!("{prefix}{path}");
        let (version, refused) = match application.dialect.negotiate(prefix, &parts.headers) {
            Ok(version) => (version, None),
            Err(error) => (super::Microversion::MIN, Some(error)),
        };
        let mut url_project = None;
        let mut found = application.root.find(&parts.method, &whole, version);
        if let Found::Nothing = found {
            found = application.router.find(&parts.method, &path, version);
        }
        if let (Found::Nothing, true, Some((project, rest))) =
            (&found, application.project_in_path, leading_project(&path))
        {
            found = application.router.find(&parts.method, rest, version);
            base_url = format!("{base_url}/{project}");
            url_project = Some(project.to_owned());
        }
        let mut params = BTreeMap::new();
        let target = match (found, refused) {
            // Version documents are there for clients that have yet to find a version.
            (Found::Handler { handler, access: access @ Access::Public, params: p }, _) => {
                params = p;
                Target::Handler { handler, access }
            }
            (_, Some(error)) => Target::Version(std::sync::Mutex::new(Some(error))),
            (Found::Handler { handler, access, params: p }, None) => {
                params = p;
                Target::Handler { handler, access }
            }
            (Found::OtherMethod, None) => Target::WrongMethod,
            (Found::Nothing, None) => Target::Nothing,
        };
        let request = Request {
            query: Query::parse(parts.uri.query().unwrap_or("")),
            method: parts.method,
            path,
            params,
            url_project,
            headers: parts.headers,
            context: None,
            token: None,
            proven: false,
            request_id: request_id.clone(),
            version,
            lenient: application.dialect.lenient(prefix),
            base_url,
            body_limit: self.0.options.max_body,
            body_timeout: self.0.options.body_timeout,
            body: body.into(),
        };
        (request, target)
    }

    /// `api.public_url`, or what the client called us by.
    fn public_root(&self, parts: &http::request::Parts) -> String {
        if let Some(url) = &self.0.options.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let valid = host.filter(|host| host.parse::<Authority>().is_ok());
        let uri = parts.uri.authority().map(Authority::as_str);
        format!("http://{}", valid.or(uri).unwrap_or(&self.0.options.listen))
    }
}

/// The application's prefix that the path begins with, and the rest. Without one, everything is rest.
fn split_prefix<'a, 'p>(application: &'a Application, path: &'p str) -> (&'a str, &'p str) {
    for prefix in &application.prefixes {
        if let Some(rest) = path.strip_prefix(prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return (prefix, rest);
        }
    }
    ("", path)
}

/// A first segment of the form that project ids have (`[0-9a-f-]+`, nova/api/openstack/__init__.py), and the rest.
fn leading_project(path: &str) -> Option<(&str, &str)> {
    let (first, _) = path.strip_prefix('/')?.split_once('/')?;
    let plain = !first.is_empty() && first.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    plain.then(|| (first, &path[1 + first.len()..]))
}

fn inbound_request_id(request: &http::Request<Body>) -> Option<RequestId> {
    let text = request.headers().get("x-openstack-request-id")?.to_str().ok()?;
    RequestId::parse(text)
}

fn bodyless(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 204 | 205 | 304)
}

fn add_headers(response: &mut Response, headers: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in headers {
        response.headers.append(name, value);
    }
}

impl tower::Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.handle(request).await) })
    }
}
