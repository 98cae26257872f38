//! All services in one process, on one host: for trying and for developing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::options::{Config, common};
use nova_examples::cli::{ConfigArgs, StartError, exit};
use nova_examples::control::{Control, Foundation, Serving};
use nova_examples::hosts::{Agents, Surroundings};
use nova_examples::parts::{self, StateFolder};
use nova_examples::process::{self, Asked, OsEntropy, Signals, SystemClock};

/// A whole cloud in one process: API, scheduler, conductor, identity, images and the host agent.
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
    let (serving, agents) = tokio::select! {
        biased;
        asked = until_stop(&mut signals) => return asked,
        started = start(&config, &state) => started?,
    };
    while signals.next().await == Asked::Reload {
        config = process::reload(arguments, config);
        serving.reload(&config);
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    tracing::info!("stopping: what is in hand may take {} s; guests go on running", patience.as_secs());
    // Hosts report what they have in hand to the conductor: it goes last.
    let stopping = async {
        serving.close();
        agents.stop().await;
        serving.stop().await;
    };
    if tokio::time::timeout(patience, stopping).await.is_err() {
        tracing::warn!("not everything ended in time; it goes on at the next start");
    }
    Ok(())
}

/// While it starts, only a wish to stop counts.
async fn until_stop(signals: &mut Signals) -> Result<(), StartError> {
    loop {
        if signals.next().await == Asked::Stop {
            break;
        }
    }
    Err(StartError::because("stopped before it had started"))
}

async fn start(config: &Config, state: &StateFolder) -> Result<(Serving, Agents), StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let bus = parts::open_bus(config, &clock)?;
    let store = parts::open_store(config).await?;
    store.migrate().await.map_err(|e| StartError::new("the database cannot be brought up to date", &e))?;
    let hypervisors = parts::open_hypervisors(config, &state.path)?;
    let foundation = Foundation { store, bus: bus.clone(), clock: clock.clone(), entropy: entropy.clone() };
    let control = Control::build(config, &state.path, foundation).await?;
    let around = Surroundings { bus, images: control.images.clone(), clock, entropy };
    let agents = Agents::start(config, &state.path, hypervisors, &around);
    if tokio::time::timeout(HOSTS_READY, agents.ready()).await.is_err() {
        tracing::warn!("not every host is up yet; serving without them");
    }
    tracing::info!(
        "conductor and host agent run on one host: for trying and developing, not for other people's servers"
    );
    let (url, first) = (control.public_url.clone(), control.first_start);
    let serving = control.serve();
    announce(&url, first, state);
    Ok((serving, agents))
}

fn announce(url: &str, first: bool, state: &StateFolder) {
    let clouds = nova_examples::clouds::path(&state.path);
    println!("nova-all serves at {url}");
    if first {
        println!("users admin and demo were made; their passwords are in {}", clouds.display());
    }
    println!("  export OS_CLIENT_CONFIG_FILE={}\n  openstack --os-cloud nova server list", clouds.display());
}
