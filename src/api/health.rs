//! `GET /healthz` and `GET /metrics`: for load balancers and monitoring, without a token.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, StatusCode};

use super::{ApiError, Application, Dialect, HandlerResult, Request, Resource, Response, Route, route};

/// The name of the application.
pub const APPLICATION: &str = "health";

/// Something without which the process cannot do its work.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// `store`, `bus`.
    fn name(&self) -> &'static str;
    /// Is it there? The text says why not.
    async fn check(&self) -> Result<(), String>;
}

/// Renders what has been counted, as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What `/healthz` and `/metrics` ask.
pub struct Health {
    checks: Vec<Arc<dyn HealthCheck>>,
    metrics: Option<MetricsText>,
}

impl Health {
    /// Health is when all checks pass.
    pub fn new(checks: Vec<Arc<dyn HealthCheck>>, metrics: Option<MetricsText>) -> Self {
        Self { checks, metrics }
    }

    /// The application, named `health`, mounted at the root.
    pub fn application(self) -> Application {
        Application::new(APPLICATION, "", Arc::new(PlainDialect)).resource(Arc::new(self))
    }

    async fn healthz(self: Arc<Self>, _: Request) -> HandlerResult {
        let mut problems = Vec::new();
        for check in &self.checks {
            if let Err(problem) = check.check().await {
                problems.push(format!("{}: {problem}\n", check.name()));
            }
        }
        let (status, text) = match problems.is_empty() {
            true => (StatusCode::OK, "OK\n".to_owned()),
            false => (StatusCode::SERVICE_UNAVAILABLE, problems.concat()),
        };
        Ok(Response::bytes(status, "text/plain; charset=utf-8", text))
    }

    async fn metrics(self: Arc<Self>, _: Request) -> HandlerResult {
        let Some(metrics) = &self.metrics else { return Err(ApiError::no_such_resource()) };
        Ok(Response::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics()))
    }
}

impl Resource for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/healthz", &self, Self::healthz).public(),
            route(Method::GET, "/metrics", &self, Self::metrics).public(),
        ]
    }
}

/// Errors as one line of text.
struct PlainDialect;

impl Dialect for PlainDialect {
    fn render(&self, error: &ApiError) -> Response {
        Response::bytes(error.status(), "text/plain; charset=utf-8", format!("{error}\n"))
    }
}
