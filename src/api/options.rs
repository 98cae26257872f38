//! What the HTTP side is configured by.

use std::collections::BTreeMap;
use std::time::Duration;

use super::MAX_BODY;

/// One `[pipeline:NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Names of filters, outermost first.
    pub filters: Vec<String>,
    /// The application at its end.
    pub app: String,
}

/// Options of the API service.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiOptions {
    /// `api.listen`: address and port.
    pub listen: String,
    /// `api.public_url`: what links begin with; `None`: the Host header of each request.
    pub public_url: Option<String>,
    /// `DEFAULT.enabled_apis`: names of pipelines.
    pub enabled_apis: Vec<String>,
    /// The pipelines by name.
    pub pipelines: BTreeMap<String, PipelineOptions>,
    /// `api.max_limit`: items of a list at most.
    pub max_limit: usize,
    /// `oslo_middleware.max_request_body_size`, bytes.
    pub max_body: usize,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a request's head may take, and a connection may idle.
    pub header_timeout: Duration,
    /// Requests at once; more are answered 503.
    pub max_requests: usize,
    /// Connections at once; more are answered 503.
    pub max_connections: usize,
    /// How long requests in hand may take at shutdown.
    pub shutdown_timeout: Duration,
    /// Requests per second and project that the `rate_limit` filter lets through; `None`: all.
    pub rate_limit: Option<u32>,
}

/// The filters of a pipeline for users: Nova's order (etc/nova/api-paste.ini).
const USER_FILTERS: &[&str] = &["request_id", "request_log", "faults", "size_limit", "authtoken", "context", "rate_limit"];

impl Default for ApiOptions {
    fn default() -> Self {
        let pipeline = |filters: &[&str], app: &str| {
            let filters = filters.iter().map(|f| (*f).to_owned()).collect();
            (app.to_owned(), PipelineOptions { filters, app: app.to_owned() })
        };
        // Uploads have no size limit of this kind: the image service has its own.
        let image: Vec<&str> = USER_FILTERS.iter().copied().filter(|f| *f != "size_limit").collect();
        Self {
            listen: "127.0.0.1:8774".to_owned(),
            public_url: None,
            enabled_apis: ["identity", "image", "compute"].map(str::to_owned).to_vec(),
            pipelines: BTreeMap::from([
                pipeline(USER_FILTERS, "compute"),
                pipeline(USER_FILTERS, "identity"),
                pipeline(&image, "image"),
            ]),
            max_limit: 1000,
            max_body: MAX_BODY,
            body_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(30),
            max_requests: 4096,
            max_connections: 8192,
            shutdown_timeout: Duration::from_secs(20),
            rate_limit: None,
        }
    }
}
