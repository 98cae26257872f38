//! The host agent as a service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::{InstanceId, RequestId};
use nova_core::rpc::conductor::Ping;
use nova_queue::{BusError, RpcClient, RunningService, Subscription};
use nova_virt::{Hypervisor, HypervisorError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::ComputeOptions;
use crate::console::{SerialDoor, SerialTlsError};
use crate::health::Health;
use crate::hearing::Hearing;
use crate::heartbeat::{Spoken, ToldNode};
use crate::image_cache::ImageCache;
use crate::instances::Instances;
use crate::interfaces::NoNetwork;
use crate::moves::Exports;
use crate::network::HostNetworkAgent;
use crate::stats::Stats;
use crate::tracker::ResourceTracker;

/// Orders in hand at once. Builds and the driver have bounds of their own; those that wait must not keep out a deletion.
const PREFETCH: usize = 4096;

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The bus.
    #[error("the message bus cannot be used")]
    Bus(#[from] BusError),
    /// The hypervisor.
    #[error("the hypervisor cannot be used")]
    Hypervisor(#[from] HypervisorError),
    /// Certificates for serial ports.
    #[error("serial ports cannot be served with TLS")]
    SerialTls(#[from] SerialTlsError),
    /// It was told to stop before it had begun.
    #[error("stopped before a conductor was found")]
    Stopped,
}

/// What an agent is built from.
pub struct Parts {
    /// The driver.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Where images come from.
    pub images: Arc<dyn ImageService>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the ids of what it begins by itself.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: ComputeOptions,
}

/// The host agent. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) images: Arc<ImageCache>,
    pub(crate) rpc: RpcClient,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) options: Arc<ComputeOptions>,
    pub(crate) tracker: ResourceTracker,
    pub(crate) instances: Instances,
    pub(crate) stats: Stats,
    pub(crate) told_node: ToldNode,
    pub(crate) builds: Arc<Semaphore>,
    pub(crate) snapshots: Arc<Semaphore>,
    pub(crate) network: Arc<dyn HostNetworkAgent>,
    pub(crate) has_network_agent: bool,
    pub(crate) hearing: Hearing,
    pub(crate) spoken: Spoken,
    pub(crate) health: Health,
    /// Disks that go to other hosts.
    pub(crate) exports: Exports,
    /// The door to serial ports.
    pub(crate) serial: SerialDoor,
    /// Guests that leave the host while they run.
    pub(crate) leaving: Arc<Mutex<BTreeSet<InstanceId>>>,
    /// One has left: what it leaves behind is to be looked for soon.
    pub(crate) left: Arc<Notify>,
    /// Guests of which a volume is being swapped, each with what ends that.
    pub(crate) swapping: Arc<Mutex<BTreeMap<InstanceId, CancellationToken>>>,
}

impl Agent {
    /// An agent that does nothing yet.
    pub fn new(parts: Parts) -> Self {
        let builds = parts.options.max_concurrent_builds.max(1);
        let snapshots = parts.options.max_concurrent_snapshots.max(1);
        let mut images = ImageCache::new(&parts.options.image_cache, parts.images);
        if parts.options.force_raw_images && parts.hypervisor.capabilities().convert_image {
            images = images.raw_by(parts.hypervisor.clone());
        }
        Self {
            images: Arc::new(images),
            hearing: Hearing::new(parts.options.report_interval, parts.clock.now()),
            spoken: Spoken::default(),
            health: Health::new(parts.options.hypervisor_timeout),
            exports: Exports::new(parts.options.migration_listen.clone(), parts.clock.clone()),
            leaving: Arc::default(),
            left: Arc::default(),
            swapping: Arc::default(),
            serial: SerialDoor::new(
                parts.options.serial_listen.clone(),
                parts.options.serial_tls.clone(),
                parts.hypervisor.clone(),
            ),
            hypervisor: parts.hypervisor,
            rpc: parts.rpc,
            clock: parts.clock,
            entropy: parts.entropy,
            options: Arc::new(parts.options),
            tracker: ResourceTracker::default(),
            instances: Instances::default(),
            stats: Stats::default(),
            told_node: ToldNode::default(),
            builds: Arc::new(Semaphore::new(builds)),
            snapshots: Arc::new(Semaphore::new(snapshots)),
            network: Arc::new(NoNetwork),
            has_network_agent: false,
        }
    }

    /// The same, over the host's network: its agent says which ports work.
    #[must_use]
    pub fn with_network(mut self, network: Arc<dyn HostNetworkAgent>) -> Self {
        self.network = network;
        self.has_network_agent = true;
        self
    }

    /// Waits for a conductor, tells what the host has, compares what is here with what should be, and then takes orders.
    pub async fn start(self, stop: CancellationToken) -> Result<RunningService, AgentError> {
        self.serial.check()?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(AgentError::Stopped),
            () = self.wait_for_conductor() => {}
        }
        self.report_node().await?;
        self.drop_old_snapshots().await;
        self.reconcile_at_start().await?;
        let subscription =
            Subscription { prefetch: PREFETCH, ..Subscription::on("compute", self.options.host.clone()) };
        let serving = self.rpc.bus().serve(subscription, Arc::new(self.dispatcher())).await?;
        tracing::info!(host = %self.options.host, "the host takes orders");
        let (beating, probing, watching, cleaning) = (self.clone(), self.clone(), self.clone(), self.clone());
        Ok(RunningService::new(serving, &stop)
            .with(|stop| async move { beating.beat_until(stop).await })
            .with(|stop| async move { probing.probe_until(stop).await })
            .with(|stop| async move { watching.watch_until(stop).await })
            .with(|stop| async move { cleaning.clean_images_until(stop).await })
            .with(|stop| async move {
                // Orders are taken meanwhile: an interface may wait for the host's network, a volume for its host.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.compare_devices() => {}
                }
                self.reconcile_until(stop).await;
            }))
    }

    async fn wait_for_conductor(&self) {
        let mut wait = Duration::from_millis(100);
        let asking = self.rpc.clone().with_call_timeout(Duration::from_secs(10));
        while let Err(error) = asking.call::<Ping>(&self.context(), &()).await {
            tracing::info!(host = %self.options.host, "waiting for a conductor: {error}");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// The context of what the host does by itself.
    pub(crate) fn context(&self) -> RequestContext {
        RequestContext::internal(RequestId::generate(&*self.entropy))
    }
}
