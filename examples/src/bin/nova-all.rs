//! All services in one process, on one host: for trying and for developing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::options::{Config, common};
use nova_examples::cli::{ConfigArgs, StartError, exit};
use nova_examples::control::{
    ApiPart, Background, ConductorPart, Consoles, Foundation, NetworkPart, SchedulerPart, VolumePart, tell_life,
};
use nova_examples::hosts::{Agents, Surroundings};
use nova_examples::parts::{self, StateFolder};
use nova_examples::pieces::announce;
use nova_examples::process::{self, Asked, OsEntropy, Signals, SystemClock};
use nova_examples::transport::Transport;

/// A whole cloud in one process: API, scheduler, conductor, network and volume service, consoles, identity,
/// images and the host agent.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Hosts are waited for that long before requests are served without them.
const HOSTS_READY: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    exit("nova-all", run(&Arguments::parse().config).await)
}

async fn run(arguments: &ConfigArgs) -> Result<(), StartError> {
    let mut config = arguments.load()?;
    process::start_log(&config);
    let mut signals = Signals::listen()?;
    let state = StateFolder::open(&config, "nova-all")?;
    let cloud = tokio::select! {
        biased;
        asked = signals.until_stop() => return asked,
        started = Cloud::start(&config, &state) => started?,
    };
    while signals.next().await == Asked::Reload {
        config = process::reload(arguments, config);
        cloud.api.reload(&config);
        cloud.conductor.reload(&config);
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    tracing::info!("stopping: what is in hand may take {} s; guests go on running", patience.as_secs());
    if tokio::time::timeout(patience, cloud.stop()).await.is_err() {
        tracing::warn!("not everything ended in time; it goes on at the next start");
    }
    Ok(())
}

/// All services at work.
struct Cloud {
    api: ApiPart,
    conductor: ConductorPart,
    scheduler: SchedulerPart,
    network: NetworkPart,
    consoles: Consoles,
    volumes: Option<VolumePart>,
    agents: Agents,
    background: Background,
}

impl Cloud {
    async fn start(config: &Config, state: &StateFolder) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let transport = Transport::from_config(config, &clock, &entropy)?;
        let store = parts::open_store(config).await?;
        store.migrate().await.map_err(|e| StartError::new("the database cannot be brought up to date", &e))?;
        let hypervisors = parts::open_hypervisors(config, &state.path)?;
        let bus = transport.connect(&format!("nova-all@{}", config.get(&common::HOST))).await?;
        let on = Foundation { store, bus, clock: clock.clone(), entropy: entropy.clone() };
        let background = Background::default();
        let mut api = ApiPart::build(config, &state.path, &on, &background).await?;
        let scheduler = SchedulerPart::start(config, &on).await?;
        let conductor = ConductorPart::start(config, &on).await?;
        let network = NetworkPart::start(config, &on).await?;
        let consoles = Consoles::start(config, &on, api.access()).await?;
        let volumes = VolumePart::start_if_possible(config, &on, api.images()).await;
        let mut binaries = vec!["nova-conductor", "nova-scheduler", "nova-network", "nova-consoleauth"];
        binaries.extend(volumes.as_ref().map(|_| "nova-volume"));
        tell_life(config, &on, &binaries, &background);
        let around = Surroundings { transport, images: api.images(), clock, entropy };
        let agents = Agents::start(config, &state.path, hypervisors, &around);
        if tokio::time::timeout(HOSTS_READY, agents.ready()).await.is_err() {
            tracing::warn!("not every host is up yet; serving without them");
        }
        tracing::info!(
            "conductor and host agent run on one host: for trying and developing, not for other people's servers"
        );
        api.serve(&background);
        announce("nova-all", &api, &state.path);
        Ok(Self { api, conductor, scheduler, network, consoles, volumes, agents, background })
    }

    /// Hosts report what they have in hand to the conductor: it goes last.
    async fn stop(self) {
        self.api.close();
        self.consoles.stop().await;
        self.agents.stop().await;
        self.conductor.stop().await;
        self.scheduler.stop().await;
        self.network.stop().await;
        if let Some(volumes) = self.volumes {
            volumes.stop().await;
        }
        self.background.stop().await;
    }
}
