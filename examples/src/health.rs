//! Can this process do its work? `/healthz` and `/metrics`, for services with an API and those without.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nova::api::health::{HealthCheck, MetricsText};
use nova_core::options::{Config, common};
use nova_db::Store;
use nova_queue::{Counters, MessageBus};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::StartError;

/// How long a part may take to show that it answers; longer than it takes a bus to say why it does not.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the store answers.
struct StoreAnswers(Arc<dyn Store>);

#[async_trait]
impl HealthCheck for StoreAnswers {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.0.ping()).await {
            Ok(answer) => answer.map_err(|e| nova_core::error::chain(&e)),
            Err(_) => Err("no answer".into()),
        }
    }
}

/// Whether a message gets through the bus.
pub struct BusAnswers(pub Arc<dyn MessageBus>);

#[async_trait]
impl HealthCheck for BusAnswers {
    fn name(&self) -> &'static str {
        "bus"
    }

    async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.0.ping()).await {
            Ok(answer) => answer.map_err(|e| nova_core::error::chain(&e)),
            Err(_) => Err("no answer".into()),
        }
    }
}

/// What a process has counted: everything recorded by name, what its buses carried, and what its store, if it has one
/// (`commits`), committed.
pub fn metrics_text(
    commits: impl Fn() -> Option<u64> + Send + Sync + 'static,
    buses: impl Fn() -> Vec<Counters> + Send + Sync + 'static,
) -> MetricsText {
    let prometheus = recorder();
    Arc::new(move || {
        let buses = buses();
        let sum = |count: fn(&Counters) -> u64| buses.iter().map(count).sum::<u64>();
        let mut text = prometheus.as_ref().map(PrometheusHandle::render).unwrap_or_default();
        let commits = commits().map(|commits| ("nova_store_commits_total", commits));
        let counts = [
            ("nova_bus_messages_total", sum(|c| c.messages)),
            ("nova_bus_replies_total", sum(|c| c.replies)),
            ("nova_bus_fanouts_total", sum(|c| c.fanouts)),
            ("nova_bus_redelivered_total", sum(|c| c.redelivered)),
            ("nova_bus_dead_letters_total", sum(|c| c.dead_letters)),
        ];
        for (name, count) in commits.into_iter().chain(counts) {
            text.push_str(&format!("# TYPE {name} counter\n{name} {count}\n"));
        }
        text
    })
}

fn recorder() -> Option<PrometheusHandle> {
    match PrometheusBuilder::new().install_recorder() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!("metrics are not recorded: {error}");
            None
        }
    }
}

/// The page of a service without an API, at `health.listen`.
pub struct HealthPage {
    listener: TcpListener,
}

impl HealthPage {
    /// Takes the address; `None` where no address is set.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(address) = config.get(&common::HEALTH_LISTEN) else { return Ok(None) };
        let address = address.to_string();
        let listener = TcpListener::bind(&address)
            .await
            .map_err(|error| StartError::because(format!("health.listen: cannot listen on {address}: {error}")))?;
        tracing::info!("/healthz and /metrics at http://{address}");
        Ok(Some(Self { listener }))
    }

    /// Answers until told to stop. Before there are vitals, the process is starting: 503.
    pub async fn serve(self, vitals: Arc<OnceLock<Vitals>>, stop: CancellationToken) {
        let counted = vitals.clone();
        let router = Router::new()
            .route("/healthz", get(move || healthz(vitals.clone())))
            .route("/metrics", get(move || metrics(counted.clone())));
        let stopped = async move { stop.cancelled().await };
        if let Err(error) = axum::serve(self.listener, router).with_graceful_shutdown(stopped).await {
            tracing::warn!("/healthz and /metrics are no longer served: {error}");
        }
    }
}

/// What a service is asked about its health.
pub struct Vitals {
    /// All must pass.
    pub checks: Vec<Arc<dyn HealthCheck>>,
    /// What was counted.
    pub metrics: MetricsText,
}

impl Vitals {
    /// Those of a control service.
    pub fn of(store: &Arc<dyn Store>, bus: &Arc<dyn MessageBus>) -> Self {
        let (counted, carried) = (store.clone(), bus.clone());
        Self {
            checks: vec![Arc::new(StoreAnswers(store.clone())), Arc::new(BusAnswers(bus.clone()))],
            metrics: metrics_text(move || Some(counted.commits()), move || vec![carried.counters()]),
        }
    }
}

async fn healthz(vitals: Arc<OnceLock<Vitals>>) -> (StatusCode, String) {
    let Some(vitals) = vitals.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting: the log says what is waited for\n".to_owned());
    };
    let mut problems = String::new();
    for check in &vitals.checks {
        if let Err(problem) = check.check().await {
            problems.push_str(&format!("{}: {problem}\n", check.name()));
        }
    }
    match problems.is_empty() {
        true => (StatusCode::OK, "OK\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, problems),
    }
}

async fn metrics(vitals: Arc<OnceLock<Vitals>>) -> ([(header::HeaderName, &'static str); 1], String) {
    let text = vitals.get().map(|vitals| (vitals.metrics)()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

#[cfg(all(test, feature = "amqp"))]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use nova_queue::amqp::{AmqpBus, AmqpOptions};

    use super::*;
    use crate::process::SystemClock;

    #[tokio::test]
    async fn a_broker_that_is_away_is_named_before_patience_ends() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("amqp://guest:guest@{closed}/");
        let mut options = AmqpOptions::new(url, "test", Arc::new(SystemClock), Arc::new(SeededEntropy::new(1)));
        assert!(options.ping_timeout + Duration::from_secs(1) <= PATIENCE, "{:?}", options.ping_timeout);
        options.ping_timeout = Duration::from_millis(10);
        let bus = AmqpBus::start(options).unwrap();
        let problem = BusAnswers(Arc::new(bus)).check().await.unwrap_err();
        assert!(problem.starts_with("the message bus is unavailable"), "{problem}");
    }
}
