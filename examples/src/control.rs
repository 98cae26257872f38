//! The control services in one process: identity, images, API, conductor, scheduler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nova::api::compute::{ComputeApi, ComputeOptions, compute_application};
use nova::api::health::{Health, HealthCheck};
use nova::api::{Api, ApiOptions, FilterDeps, Registry, Server, ServerOptions};
use nova::conductor::{BusOrders, Conductor, ConductorOptions};
use nova::identity::{Catalog, IdentityManager, IdentityOptions};
use nova::image::{ImageManager, ImageOptions};
use nova::live::Live;
use nova::scheduler::{SchedulerService, ServiceOptions};
use nova::servicegroup::Membership;
use nova_core::clock::Clock;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, ZoneName};
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_db::Store;
use nova_queue::{MessageBus, RpcClient, RunningService};
use nova_sched::SchedulerOptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::StartError;
use crate::clouds;

/// What the control services are built on.
#[derive(Clone)]
pub struct Foundation {
    /// The store, its schema current.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Arc<dyn MessageBus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// All control services, built; they serve from [`Control::serve`] on.
pub struct Control {
    /// How clients reach it, without a path.
    pub public_url: String,
    /// This was the first start: `clouds.yaml` is new.
    pub first_start: bool,
    /// Where hosts of this process get images.
    pub images: Arc<dyn ImageService>,
    settings: Settings,
    listeners: Vec<(Server, Api)>,
    conductor: RunningService,
    scheduler: RunningService,
    loops: TaskTracker,
    stop: CancellationToken,
}

/// What may change while the services run.
struct Settings {
    compute: Live<ComputeOptions>,
    conductor: Live<ConductorOptions>,
    identity: Arc<IdentityManager>,
    images: Arc<ImageManager>,
}

/// Control services at work.
pub struct Serving {
    settings: Settings,
    conductor: RunningService,
    scheduler: RunningService,
    loops: TaskTracker,
    stop: CancellationToken,
    closing: watch::Sender<bool>,
}

impl Control {
    /// Takes the address, makes users at the first start, and starts everything but the listening.
    pub async fn build(config: &Config, state: &Path, on: Foundation) -> Result<Self, StartError> {
        let options = Arc::new(ApiOptions::from_config(config));
        let main = bind(&options, &options.listen).await?;
        let address = main.address().map_err(|e| StartError::new("the API cannot be served", &e))?;
        let public_url = options.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let (loops, stop) = (TaskTracker::new(), CancellationToken::new());

        let identity = IdentityManager::open(
            on.store.clone(),
            on.clock.clone(),
            on.entropy.clone(),
            catalog(&options, &public_url),
            IdentityOptions::from_config(config),
        );
        let identity = Arc::new(identity.await.map_err(|e| StartError::new("identity cannot start", &e))?);
        let first_start = clouds::write_at_first_start(&identity, state, &public_url).await?;
        loops.spawn(identity.clone().run(stop.clone()));

        let image_options = ImageOptions::from_config(config);
        let images = ImageManager::open(on.store.clone(), on.clock.clone(), on.entropy.clone(), image_options);
        let images = Arc::new(images.await.map_err(|e| StartError::new("the image service cannot start", &e))?);

        let compute_options = Live::new(ComputeOptions::from_config(config));
        let name = format!("{}/{}", config.get(&common::HOST), on.entropy.hex(8));
        let conductor_options = Live::new(ConductorOptions::from_config(config, name));
        let (conductor, scheduler) = start_workers(config, &on, &conductor_options).await?;
        loops.spawn(membership(config, &on).run(stop.clone()));
        let compute = ComputeApi {
            store: on.store.clone(),
            images: images.clone(),
            identity: identity.clone(),
            orders: Arc::new(BusOrders::new(client(config, &on, Role::Api))),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: compute_options.clone(),
        };
        let deps = FilterDeps {
            identity: identity.clone(),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: options.clone(),
        };
        let mut registry = Registry::new(deps);
        registry
            .application(compute_application(Arc::new(compute)))
            .application(nova::identity::application(identity.clone()))
            .application(nova::image::application(images.clone()))
            .application(health(&on));
        let mut listeners = Vec::new();
        let (mut main, apis) = (Some(main), registry.build());
        for (address, api) in apis.map_err(|e| StartError::config(vec![e.to_string()]))? {
            let taken = if address == options.listen { main.take() } else { None };
            let server = match taken {
                Some(server) => server,
                None => bind(&options, &address).await?,
            };
            listeners.push((server, api));
        }
        let settings =
            Settings { compute: compute_options, conductor: conductor_options, identity, images: images.clone() };
        Ok(Self { public_url, first_start, images, settings, listeners, conductor, scheduler, loops, stop })
    }

    /// Answers requests from now on.
    pub fn serve(self) -> Serving {
        let (closing, closed) = watch::channel(false);
        for (server, api) in self.listeners {
            self.loops.spawn(server.serve(api, closed.clone()));
        }
        let Self { settings, conductor, scheduler, loops, stop, .. } = self;
        Serving { settings, conductor, scheduler, loops, stop, closing }
    }
}

impl Serving {
    /// Takes over what may change.
    pub fn reload(&self, config: &Config) {
        self.settings.compute.set(ComputeOptions::from_config(config));
        let name = self.settings.conductor.get().name.clone();
        self.settings.conductor.set(ConductorOptions::from_config(config, name));
        self.settings.identity.reload(&IdentityOptions::from_config(config));
        self.settings.images.reload(&ImageOptions::from_config(config));
    }

    /// Takes no more requests; those in hand are answered.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Takes no more requests, then no more messages, and waits for what is in hand. The caller bounds the wait.
    pub async fn stop(self) {
        self.close();
        self.conductor.stop().await;
        self.scheduler.stop().await;
        self.stop.cancel();
        self.loops.close();
        self.loops.wait().await;
    }
}

/// What the catalog tells: the applications that are enabled, where they are.
fn catalog(options: &ApiOptions, public_url: &str) -> Catalog {
    let known = [
        ("identity", "identity", "keystone", "/identity/v3"),
        ("osapi_compute", "compute", "nova", "/compute/v2.1"),
        ("image", "image", "glance", "/image"),
    ];
    let mut catalog = Catalog::new(public_url);
    for (application, service_type, name, path) in known {
        let Some(enabled) = options.enabled_apis.iter().find(|e| e.name == application) else { continue };
        let place = match &enabled.address {
            Some(address) => format!("http://{address}{path}"),
            None => path.to_owned(),
        };
        catalog = catalog.service(service_type, name, &place);
    }
    catalog
}

async fn bind(options: &ApiOptions, address: &str) -> Result<Server, StartError> {
    let server = Server::bind(address, ServerOptions::from(options)).await;
    server.map_err(|e| StartError::new("the API cannot be served", &e))
}

fn client(config: &Config, on: &Foundation, role: Role) -> RpcClient {
    let sender = Sender { role, host: HostName::new(config.get(&common::HOST)) };
    RpcClient::new(on.bus.clone(), sender, on.clock.clone(), on.entropy.clone())
}

async fn start_workers(
    config: &Config,
    on: &Foundation,
    options: &Live<ConductorOptions>,
) -> Result<(RunningService, RunningService), StartError> {
    let driver = config.get(&common::SCHEDULER_DRIVER);
    let algorithm = nova_sched::by_name(&driver, &SchedulerOptions::default())
        .map_err(|e| StartError::config(vec![format!("scheduler.driver: {e}")]))?;
    let scheduler = SchedulerService::new(nova::scheduler::Parts {
        algorithm,
        store: on.store.clone(),
        bus: on.bus.clone(),
        clock: on.clock.clone(),
        entropy: on.entropy.clone(),
        options: ServiceOptions {
            service_down_time: config.get(&common::SERVICE_DOWN_TIME),
            ..ServiceOptions::default()
        },
    });
    let scheduler = scheduler.map_err(|e| StartError::new("the scheduler cannot start", &e))?;
    let conductor = Conductor::new(nova::conductor::Parts {
        store: on.store.clone(),
        rpc: client(config, on, Role::Conductor),
        clock: on.clock.clone(),
        entropy: on.entropy.clone(),
        options: options.clone(),
    });
    let scheduler = scheduler.start().await.map_err(|e| StartError::new("the scheduler cannot start", &e))?;
    let conductor = conductor.start().await.map_err(|e| StartError::new("the conductor cannot start", &e))?;
    Ok((conductor, scheduler))
}

fn membership(config: &Config, on: &Foundation) -> Membership {
    Membership {
        store: on.store.clone(),
        clock: on.clock.clone(),
        entropy: on.entropy.clone(),
        host: HostName::new(config.get(&common::HOST)),
        zone: ZoneName::new(config.get(&common::INTERNAL_SERVICE_AVAILABILITY_ZONE)),
        binaries: vec!["nova-conductor", "nova-scheduler"],
        interval: config.get(&common::REPORT_INTERVAL),
    }
}

fn health(on: &Foundation) -> nova::api::Application {
    let checks: Vec<Arc<dyn HealthCheck>> =
        vec![Arc::new(StoreAnswers(on.store.clone())), Arc::new(BusAnswers(on.bus.clone()))];
    let (store, bus, prometheus) = (on.store.clone(), on.bus.clone(), metrics_handle());
    let text = Arc::new(move || {
        let sent = bus.counters();
        format!(
            "{}# TYPE nova_store_commits_total counter\nnova_store_commits_total {}\n\
             # TYPE nova_bus_messages_total counter\nnova_bus_messages_total {}\n\
             # TYPE nova_bus_replies_total counter\nnova_bus_replies_total {}\n\
             # TYPE nova_bus_fanouts_total counter\nnova_bus_fanouts_total {}\n\
             # TYPE nova_bus_redelivered_total counter\nnova_bus_redelivered_total {}\n\
             # TYPE nova_bus_dead_letters_total counter\nnova_bus_dead_letters_total {}\n",
            prometheus.as_ref().map(PrometheusHandle::render).unwrap_or_default(),
            store.commits(),
            sent.messages,
            sent.replies,
            sent.fanouts,
            sent.redelivered,
            sent.dead_letters,
        )
    });
    Health::new(checks, Some(text)).application()
}

fn metrics_handle() -> Option<PrometheusHandle> {
    match PrometheusBuilder::new().install_recorder() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!("metrics are not recorded: {error}");
            None
        }
    }
}

/// How long a part may take to show that it answers.
const PATIENCE: Duration = Duration::from_secs(5);

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

struct BusAnswers(Arc<dyn MessageBus>);

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
