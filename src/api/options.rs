//! What the HTTP side is configured by.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl, common};

use super::MAX_BODY;

/// One `[pipeline:NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Names of filters, outermost first.
    pub filters: Vec<String>,
    /// The application at its end.
    pub app: String,
}

/// One entry of `DEFAULT.enabled_apis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnabledApi {
    /// The pipeline.
    pub name: String,
    /// An address of its own, `NAME@host:port`; `None`: `api.listen`.
    pub address: Option<String>,
}

/// Options of the API service.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiOptions {
    /// `api.listen`: address and port.
    pub listen: String,
    /// `api.public_url`: what links begin with; `None`: the Host header of each request.
    pub public_url: Option<String>,
    /// `DEFAULT.enabled_apis`: names of pipelines, and where they are served.
    pub enabled_apis: Vec<EnabledApi>,
    /// The pipelines by name.
    pub pipelines: BTreeMap<String, PipelineOptions>,
    /// `oslo_middleware.max_request_body_size`, bytes.
    pub max_body: usize,
    /// `api.body_timeout`: how long a body may take.
    pub body_timeout: Duration,
    /// `api.header_timeout`: how long a request's head may take, and a connection may idle.
    pub header_timeout: Duration,
    /// `api.max_requests`: requests at once; more are answered 503.
    pub max_requests: usize,
    /// `api.max_connections`: connections at once; more are answered 503.
    pub max_connections: usize,
    /// `DEFAULT.graceful_shutdown_timeout`: how long requests in hand may take at shutdown.
    pub shutdown_timeout: Duration,
    /// `api.rate_limit`: requests per second and project that the `rate_limit` filter lets through; `None`: all.
    pub rate_limit: Option<u32>,
}

/// The filters of a pipeline for users: Nova's order (etc/nova/api-paste.ini).
const USER_FILTERS: &[&str] =
    &["request_id", "request_log", "faults", "size_limit", "authtoken", "context", "rate_limit"];
/// Nobody in particular asks for health.
const PLAIN_FILTERS: &[&str] = &["request_id", "faults"];

impl Default for ApiOptions {
    fn default() -> Self {
        let named = |name: &str| EnabledApi { name: name.to_owned(), address: None };
        Self {
            listen: "127.0.0.1:8774".to_owned(),
            public_url: None,
            enabled_apis: ["identity", "osapi_compute", "image", "network", "volume"].map(named).to_vec(),
            pipelines: default_pipelines(),
            max_body: MAX_BODY,
            body_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(30),
            max_requests: 4096,
            max_connections: 8192,
            shutdown_timeout: Duration::from_secs(60),
            rate_limit: None,
        }
    }
}

fn default_pipelines() -> BTreeMap<String, PipelineOptions> {
    let pipeline = |filters: &[&str], app: &str| {
        let filters = filters.iter().map(|f| (*f).to_owned()).collect();
        (app.to_owned(), PipelineOptions { filters, app: app.to_owned() })
    };
    // Uploads have no size limit of this kind: the image service has its own.
    let image: Vec<&str> = USER_FILTERS.iter().copied().filter(|f| *f != "size_limit").collect();
    BTreeMap::from([
        pipeline(USER_FILTERS, "osapi_compute"),
        pipeline(USER_FILTERS, "identity"),
        pipeline(USER_FILTERS, "network"),
        pipeline(USER_FILTERS, "volume"),
        pipeline(&image, "image"),
        pipeline(PLAIN_FILTERS, "health"),
        pipeline(PLAIN_FILTERS, "metadata"),
    ])
}

const API: &[&str] = &["nova-api"];

/// `api.body_timeout`
pub const BODY_TIMEOUT: Opt<Duration> = Opt::seconds("api", "body_timeout", 1, 3600)
    .default("60")
    .roles(API)
    .help("How long a client may take to send the body of a request. Image uploads are not bound by it.");
/// `api.header_timeout`
pub const HEADER_TIMEOUT: Opt<Duration> = Opt::seconds("api", "header_timeout", 1, 3600)
    .default("30")
    .roles(API)
    .help("How long a client may take to send the head of a request, and a connection may be idle.");
/// `api.max_requests`
pub const MAX_REQUESTS: Opt<i64> = Opt::integer("api", "max_requests", 1, 1_000_000)
    .default("4096")
    .unit("requests")
    .roles(API)
    .help("Requests that are worked on at once; one more is answered with 503 and Retry-After.");
/// `api.max_connections`
pub const MAX_CONNECTIONS: Opt<i64> = Opt::integer("api", "max_connections", 1, 1_000_000)
    .default("8192")
    .unit("connections")
    .roles(API)
    .help("Connections that are open at once; one more is answered with 503 and closed.");
/// `api.rate_limit`
pub const RATE_LIMIT: Opt<i64> = Opt::integer("api", "rate_limit", 0, 1_000_000)
    .default("0")
    .unit("requests per second and project")
    .roles(API)
    .help("What the filter rate_limit lets through; more is answered with 429 and Retry-After. 0 lets all through.");

/// `DEFAULT.metadata_listen`
pub const METADATA_LISTEN: Opt<String> = Opt::string("DEFAULT", "metadata_listen")
    .default("127.0.0.1")
    .roles(API)
    .help("Where the application 'metadata' is served, if enabled_apis names it without an address.");
/// `DEFAULT.metadata_listen_port`
pub const METADATA_LISTEN_PORT: Opt<i64> =
    Opt::integer("DEFAULT", "metadata_listen_port", 1, 65_535).default("8775").roles(API).help("The port there.");

/// Options that only the HTTP side has.
pub const API_OPTIONS: &[OptionDecl] = &[
    BODY_TIMEOUT.decl(),
    HEADER_TIMEOUT.decl(),
    MAX_REQUESTS.decl(),
    MAX_CONNECTIONS.decl(),
    RATE_LIMIT.decl(),
    METADATA_LISTEN.decl(),
    METADATA_LISTEN_PORT.decl(),
];

impl ApiOptions {
    /// Reads what the configuration says. The registry must know [`API_OPTIONS`]. A `[pipeline:NAME]` of the configuration
    /// takes the place of ours of that name.
    pub fn from_config(config: &Config) -> Self {
        let count = |option: &Opt<i64>| usize::try_from(config.get(option)).unwrap_or(usize::MAX);
        let mut pipelines = default_pipelines();
        for name in config.sections("pipeline") {
            let mut filters = config.get_in(&format!("pipeline:{name}"), &common::PIPELINE);
            if let Some(app) = filters.pop() {
                pipelines.insert(name.to_owned(), PipelineOptions { filters, app });
            }
        }
        Self {
            listen: config.get(&common::API_LISTEN).to_string(),
            public_url: config.get(&common::API_PUBLIC_URL),
            enabled_apis: config
                .get(&common::ENABLED_APIS)
                .iter()
                .map(|entry| EnabledApi::parse(entry, config))
                .collect(),
            pipelines,
            max_body: count(&common::MAX_REQUEST_BODY_SIZE),
            body_timeout: config.get(&BODY_TIMEOUT),
            header_timeout: config.get(&HEADER_TIMEOUT),
            max_requests: count(&MAX_REQUESTS),
            max_connections: count(&MAX_CONNECTIONS),
            shutdown_timeout: config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT),
            rate_limit: u32::try_from(config.get(&RATE_LIMIT)).ok().filter(|limit| *limit > 0),
        }
    }
}

impl EnabledApi {
    fn parse(text: &str, config: &Config) -> Self {
        match text.split_once('@') {
            Some((name, address)) => Self { name: name.to_owned(), address: Some(address.to_owned()) },
            // It takes every path, so it has a listener of its own.
            None if text == "metadata" => {
                let (host, port) = (config.get(&METADATA_LISTEN), config.get(&METADATA_LISTEN_PORT));
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                Self { name: text.to_owned(), address: Some(format!("{host}:{port}")) }
            }
            None => Self { name: text.to_owned(), address: None },
        }
    }
}
