//! Host agents of this process.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use nova_compute::{Agent, ComputeOptions, Parts};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, ImageId};
use nova_core::image::ImageMeta;
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_queue::{MessageBus, RpcClient, RunningService};
use nova_virt::Hypervisor;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::StartError;
use crate::parts::{self, StateFolder};
use crate::process::{Asked, OsEntropy, Signals, SystemClock};

/// What agents share.
#[derive(Clone)]
pub struct Surroundings {
    /// The bus.
    pub bus: Arc<dyn MessageBus>,
    /// Where images come from.
    pub images: Arc<dyn ImageService>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Agents that are starting or at work.
pub struct Agents {
    starting: JoinSet<Option<RunningService>>,
    stop: CancellationToken,
    ready: watch::Receiver<usize>,
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
        let (told, ready) = watch::channel(0);
        let (told, count) = (Arc::new(told), hypervisors.len());
        for (host, hypervisor) in hypervisors {
            let sender = Sender { role: Role::Compute, host: host.clone() };
            let clock = around.clock.clone();
            let agent = Agent::new(Parts {
                hypervisor,
                images: around.images.clone(),
                rpc: RpcClient::new(around.bus.clone(), sender, clock.clone(), around.entropy.clone()),
                clock,
                entropy: around.entropy.clone(),
                options: ComputeOptions::from_config(config, host.clone(), state.join("instances/_base")),
            });
            let (stop, told) = (stop.clone(), told.clone());
            starting.spawn(start_until(agent, host, stop, told));
        }
        Self { starting, stop, ready, count }
    }

    /// Waits until every host takes orders.
    pub async fn ready(&self) {
        let _ = self.ready.clone().wait_for(|ready| *ready == self.count).await;
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

/// A hypervisor that does not answer yet is tried again: the host comes up when it does.
async fn start_until(
    agent: Agent,
    host: HostName,
    stop: CancellationToken,
    told: Arc<watch::Sender<usize>>,
) -> Option<RunningService> {
    loop {
        match agent.clone().start(stop.clone()).await {
            Ok(running) => {
                told.send_modify(|ready| *ready += 1);
                return Some(running);
            }
            Err(nova_compute::AgentError::Stopped) => return None,
            Err(error) => tracing::warn!(%host, "not yet: {}", nova_core::error::chain(&error)),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {}
        }
    }
}

/// The agents of this process, without any control service in it, until told to stop.
///
/// # Errors
/// A transport that reaches no other process, or a hypervisor or state folder that cannot be used.
pub async fn run_alone(config: &Config) -> Result<(), StartError> {
    if config.get(&common::TRANSPORT_URL).starts_with("memory:") {
        return Err(StartError::config(vec![
            "DEFAULT.transport_url: 'memory:' reaches no other process, and a host agent of its own needs one; nova-all \
             runs host and control services together"
                .to_owned(),
        ]));
    }
    let mut signals = Signals::listen()?;
    let state = StateFolder::open(config, "nova-compute")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let around = Surroundings {
        bus: parts::open_bus(config, &clock)?,
        images: Arc::new(NoImageService),
        clock,
        entropy: Arc::new(OsEntropy),
    };
    let agents = Agents::start(config, &state.path, parts::open_hypervisors(config, &state.path)?, &around);
    loop {
        if signals.next().await == Asked::Stop {
            break;
        }
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    if tokio::time::timeout(patience, agents.stop()).await.is_err() {
        tracing::warn!("not every order was done in time; the conductor gives it again");
    }
    Ok(())
}

/// A host that was told of no image service: guests without images can be made, others say why not.
struct NoImageService;

fn no_image_service() -> ImageServiceError {
    ImageServiceError::Unavailable { source: "this host was told of no image service".into() }
}

#[async_trait]
impl ImageService for NoImageService {
    async fn bootable_image(&self, _: &RequestContext, _: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Err(no_image_service())
    }

    async fn download(&self, _: ImageId) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(no_image_service())
    }
}
