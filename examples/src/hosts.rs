//! Host agents of this process.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use nova::api::health::HealthCheck;
use nova_compute::linux::LinuxPlumbing;
use nova_compute::{
    Agent, BooksPlumbing, ComputeOptions, HttpImageService, MetadataLimits, MetadataServer, NetworkAgent,
    NetworkAgentOptions, NetworkAgentParts, Parts, PlumbingError, PlumbingOptions, RpcMetadataSource,
};
use nova_core::clock::Clock;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::HostName;
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_queue::{MessageBus, RpcClient, RunningService};
use nova_virt::Hypervisor;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cli::{ConfigArgs, StartError};
use crate::health::{BusAnswers, HealthPage, PATIENCE, Vitals, metrics_text};
use crate::parts::{self, StateFolder};
use crate::process::{self, Asked, OsEntropy, Signals, SystemClock};
use crate::transport::Transport;

/// What agents share.
#[derive(Clone)]
pub struct Surroundings {
    /// Where each host gets its bus.
    pub transport: Transport,
    /// Where images come from.
    pub images: Arc<dyn ImageService>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// So many hosts of one process connect at the same time: a broker takes connections at its own pace.
const CONNECTING: usize = 16;

/// Agents that are starting or at work.
pub struct Agents {
    starting: JoinSet<Option<RunningHost>>,
    stop: CancellationToken,
    /// The buses of the hosts that take orders.
    ready: watch::Receiver<Vec<Arc<dyn MessageBus>>>,
    count: usize,
}

impl Agents {
    /// Starts an agent for each hypervisor. Returns at once: an agent waits for a conductor by itself.
    pub fn start(
        config: &Config,
        state: &Path,
        hypervisors: Vec<(HostName, Arc<dyn Hypervisor>)>,
        around: &Surroundings,
    ) -> Self {
        let (stop, mut starting) = (CancellationToken::new(), JoinSet::new());
        let (told, ready) = watch::channel(Vec::new());
        let (told, count) = (Arc::new(told), hypervisors.len());
        let turns = Arc::new(Semaphore::new(CONNECTING));
        for (host, hypervisor) in hypervisors {
            let agent = NewAgent {
                options: ComputeOptions::from_config(config, host.clone(), state.join("instances/_base")),
                plumbing: PlumbingOptions::from_config(config, host.clone()),
                host,
                hypervisor,
                around: around.clone(),
                turns: turns.clone(),
                linux: config.get(&nova_compute::PLUMBING) == "linux",
            };
            starting.spawn(start_until(agent, stop.clone(), told.clone()));
        }
        Self { starting, stop, ready, count }
    }

    /// Waits until every host takes orders.
    pub async fn ready(&self) {
        let _ = self.ready.clone().wait_for(|ready| ready.len() == self.count).await;
    }

    /// What the page of a process with nothing but hosts shows.
    fn vitals(&self, drivers: Vec<Arc<dyn Hypervisor>>) -> Vitals {
        let buses = self.ready.clone();
        Vitals {
            checks: vec![Arc::new(HostsAnswer(self.ready.clone(), self.count)), Arc::new(DriversAnswer(drivers))],
            metrics: metrics_text(|| None, move || buses.borrow().iter().map(|bus| bus.counters()).collect()),
        }
    }

    /// Takes no more orders and waits for those in hand.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(started) = self.starting.join_next().await {
            if let Ok(Some(agent)) = started {
                agent.stop().await;
            }
        }
    }
}

/// A host whose agent is to be started.
struct NewAgent {
    host: HostName,
    hypervisor: Arc<dyn Hypervisor>,
    options: ComputeOptions,
    around: Surroundings,
    turns: Arc<Semaphore>,
    plumbing: PlumbingOptions,
    /// Guests are plugged in; otherwise their network is in the books only.
    linux: bool,
}

/// A host at work.
struct RunningHost {
    agent: RunningService,
    network: RunningNetwork,
}

impl RunningHost {
    /// Orders in hand may still need the network: it ends last.
    async fn stop(self) {
        self.agent.stop().await;
        self.network.stop().await;
    }
}

/// A host's network agent at work; it ends when this is dropped.
struct RunningNetwork {
    stop: DropGuard,
    running: JoinHandle<()>,
}

impl RunningNetwork {
    async fn stop(self) {
        drop(self.stop);
        let _ = self.running.await;
    }
}

impl NewAgent {
    async fn connect(&self) -> Result<Arc<dyn MessageBus>, StartError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.ok();
        self.around.transport.connect(&format!("nova-compute@{}", self.host)).await
    }

    fn client(&self, bus: Arc<dyn MessageBus>) -> RpcClient {
        let sender = Sender { role: Role::Compute, host: self.host.clone() };
        RpcClient::new(bus, sender, self.around.clock.clone(), self.around.entropy.clone())
    }

    /// The agent of the host's network, over the plumbing that the configuration names.
    async fn network(&self, bus: Arc<dyn MessageBus>) -> Result<NetworkAgent, PlumbingError> {
        let (rpc, entropy) = (self.client(bus), self.around.entropy.clone());
        let options = NetworkAgentOptions::new(self.host.clone());
        if !self.linux {
            let plumbing = Arc::new(BooksPlumbing);
            return Ok(NetworkAgent::new(NetworkAgentParts { plumbing, rpc, entropy, metadata: None, options }));
        }
        let settings = &self.plumbing;
        let wires = settings.interface_mappings.keys().chain(settings.bridge_mappings.keys());
        let options = NetworkAgentOptions {
            tunnel_ip: Some(settings.tunnel_ip),
            physical_networks: wires.cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            state_file: Some(settings.state.join("wanted.json")),
            ..options
        };
        let plumbing = Arc::new(LinuxPlumbing::open(settings.clone()).await?);
        let source = Arc::new(RpcMetadataSource::new(rpc.clone(), entropy.clone()));
        let metadata = Some(MetadataServer::new(source, entropy.clone(), MetadataLimits::default()));
        Ok(NetworkAgent::new(NetworkAgentParts { plumbing, rpc, entropy, metadata, options }))
    }

    fn on(self, bus: Arc<dyn MessageBus>, network: NetworkAgent) -> Agent {
        let rpc = self.client(bus);
        let (clock, entropy) = (self.around.clock, self.around.entropy);
        let agent = Agent::new(Parts {
            hypervisor: self.hypervisor,
            images: self.around.images,
            rpc,
            clock,
            entropy,
            options: self.options,
        });
        // With books the conductor says which ports work: nobody is asked on a build's way.
        if self.linux { agent.with_network(Arc::new(network)) } else { agent }
    }
}

/// A broker or a hypervisor that does not answer yet is tried again: the host comes up when it does.
async fn start_until(
    new: NewAgent,
    stop: CancellationToken,
    told: Arc<watch::Sender<Vec<Arc<dyn MessageBus>>>>,
) -> Option<RunningHost> {
    let host = new.host.clone();
    let bus = tokio::select! {
        biased;
        () = stop.cancelled() => return None,
        bus = new.connect() => bus,
    };
    let bus = bus.inspect_err(|error| tracing::error!(%host, "{error}")).ok()?;
    let network = loop {
        match new.network(bus.clone()).await {
            Ok(network) => break network,
            Err(error) => tracing::error!(%host, "its network can't be used: {}", nova_core::error::chain(&error)),
        }
        rest(&stop).await?;
    };
    // The network is what it was before the start while a conductor is still waited for.
    let running = run_network(network.clone());
    let agent = new.on(bus.clone(), network);
    loop {
        match agent.clone().start(stop.clone()).await {
            Ok(agent) => {
                told.send_modify(|ready| ready.push(bus));
                return Some(RunningHost { agent, network: running });
            }
            Err(nova_compute::AgentError::Stopped) => return None,
            Err(error) => tracing::warn!(%host, "not yet: {}", nova_core::error::chain(&error)),
        }
        rest(&stop).await?;
    }
}

fn run_network(network: NetworkAgent) -> RunningNetwork {
    let stop = CancellationToken::new();
    let until = stop.clone();
    let running = tokio::spawn(async move { network.run(until).await });
    RunningNetwork { stop: stop.drop_guard(), running }
}

/// A moment before the next try; `None`: it is to stop.
async fn rest(stop: &CancellationToken) -> Option<()> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = tokio::time::sleep(std::time::Duration::from_secs(2)) => Some(()),
    }
}

/// One process has one network: several hosts in it can't be plugged in. And what hosts plug in is in the books of the
/// built-in service, not in an outside Neutron's, whose own agents do it. An entry of
/// [`Registry::check`](nova_core::options::Registry::check).
///
/// # Errors
/// The option and what is wrong with it.
pub fn plumbing_fits(config: &Config) -> Result<(), (&'static str, String)> {
    if config.get(&nova_compute::PLUMBING) != "linux" {
        return Ok(());
    }
    let refused = |why: &str| Err(("network.plumbing", why.to_owned()));
    if config.get(&common::FAKE_HOSTS) > 1 {
        return refused("'linux' is for one host, and fake.hosts makes several");
    }
    if config.get(&nova::network::NETWORK_SERVICE) == "neutron" {
        return refused("'linux' is for networks of this cloud, and network.service gives them to an outside Neutron");
    }
    Ok(())
}

/// Do all hosts of this process take orders, and do messages get through to them?
struct HostsAnswer(watch::Receiver<Vec<Arc<dyn MessageBus>>>, usize);

#[async_trait]
impl HealthCheck for HostsAnswer {
    fn name(&self) -> &'static str {
        "hosts"
    }

    async fn check(&self) -> Result<(), String> {
        let buses = self.0.borrow().clone();
        if buses.len() < self.1 {
            return Err(format!("{} of {} take orders; the log says what the others wait for", buses.len(), self.1));
        }
        all_of(buses.into_iter().map(|bus| async move { BusAnswers(bus).check().await })).await
    }
}

/// Do the hypervisors answer? A host without its hypervisor can keep no promise.
struct DriversAnswer(Vec<Arc<dyn Hypervisor>>);

#[async_trait]
impl HealthCheck for DriversAnswer {
    fn name(&self) -> &'static str {
        "hypervisor"
    }

    async fn check(&self) -> Result<(), String> {
        let ask = |driver: Arc<dyn Hypervisor>| async move {
            match tokio::time::timeout(PATIENCE, driver.resources()).await {
                Ok(answer) => answer.map(drop).map_err(|error| nova_core::error::chain(&error)),
                Err(_) => Err("no answer".to_owned()),
            }
        };
        all_of(self.0.iter().cloned().map(ask)).await
    }
}

/// All at once; the first that fails tells.
async fn all_of(
    checks: impl Iterator<Item = impl Future<Output = Result<(), String>> + Send + 'static>,
) -> Result<(), String> {
    let mut asked: JoinSet<_> = checks.collect();
    while let Some(answer) = asked.join_next().await {
        answer.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// The agents of this process, without any control service in it, until told to stop.
///
/// # Errors
/// A transport that reaches no other process, or a hypervisor or state folder that cannot be used.
pub async fn run_alone(arguments: &ConfigArgs, config: &Config) -> Result<(), StartError> {
    Transport::require_shared(config)?;
    refuse_database(config);
    let mut signals = Signals::listen()?;
    let state = StateFolder::open(config, "nova-compute")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let images = HttpImageService::from_config(config, entropy.clone())
        .map_err(|error| StartError::config(vec![error.to_string()]))?;
    tracing::info!("images come from {}", images.endpoint());
    let around = Surroundings {
        transport: Transport::from_config(config, &clock, &entropy)?,
        images: Arc::new(images),
        clock,
        entropy,
    };
    let (page, stop_page) = (HealthPage::bind(config).await?, CancellationToken::new());
    let hypervisors = parts::open_hypervisors(config, &state.path)?;
    let drivers = hypervisors.iter().map(|(_, hypervisor)| hypervisor.clone()).collect();
    let agents = Agents::start(config, &state.path, hypervisors, &around);
    let vitals = Arc::new(agents.vitals(drivers).into());
    let page = page.map(|page| tokio::spawn(page.serve(vitals, stop_page.clone())));
    let mut config = config.clone();
    while signals.next().await == Asked::Reload {
        config = process::reload(arguments, config);
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    if tokio::time::timeout(patience, agents.stop()).await.is_err() {
        tracing::warn!("not every order was done in time; the conductor gives it again");
    }
    stop_page.cancel();
    if let Some(page) = page {
        let _ = page.await;
    }
    Ok(())
}

/// A compute host has no business with the database: who reads its configuration must not learn the way there.
fn refuse_database(config: &Config) {
    if let Some(origin) = config.given("database.connection") {
        tracing::error!(
            "database.connection ({origin}): a mistake: a compute host never uses the database, and its configuration must not \
             give away the address and the password; remove it here"
        );
    }
}
