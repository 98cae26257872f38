//! A cloud in one process, in virtual time, from a seed.

mod any_image;
mod asking;
mod checks;
mod door;
mod images;
pub mod mortal;
pub mod networks;
mod options;
pub mod outage;
mod outside;
mod recorder;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use jiff::{SignedDuration, Timestamp};
use nova::api::compute::{ComputeApi, ComputeOptions as ApiComputeOptions, compute_application};
use nova::api::{Api, ApiOptions, EnabledApi, FilterDeps, Registry};
use nova::conductor::{BusOrders, Conductor, ConductorOptions};
use nova::identity::{Catalog, IdentityManager, IdentityOptions, PasswordOptions};
use nova::image::ImageManager;
use nova::live::Live;
use nova::network::{NetworkManager, NetworkOptions};
use nova::scheduler::{SchedulerService, ServiceOptions};
use nova_compute::{Agent, ComputeOptions};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::flavor::Flavor;
use nova_core::ids::{FlavorId, HostName, ImageId, InstanceId, ProjectId};
use nova_core::image::{ImageGrant, ImageMeta, ImageStatus};
use nova_core::instance::Instance;
use nova_core::network::NetworkService;
use nova_core::quota::Limits;
use nova_core::rpc::{Role, Sender};
use nova_core::state::{Action, PowerState, VmState};
use nova_core::volume::BlockStorage;
use nova_db::{InstanceQuery, MemoryStore, Store, StoreError};
use nova_queue::testing::VirtualClock;
use nova_queue::{Chances, FaultyBus, MemoryBus, MessageBus, RpcClient, RunningService};
use nova_sched::SchedulerOptions;
use nova_virt::{FakeHypervisor, FakeOptions, FakeWorld};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use any_image::AnyImage;
use door::{Door, door};
use images::RealImages;
pub use options::CloudOptions;
pub use recorder::{EventLog, RecordingBus};

/// The cloud, as a test holds it.
pub struct Cloud {
    /// For the test, which looks also while the services cannot.
    pub store: Arc<dyn Store>,
    /// The same rows, as the services reach them.
    pub database: Arc<MemoryStore>,
    pub broker: Arc<outage::Broker>,
    pub bus: Arc<dyn MessageBus>,
    pub log: Arc<EventLog>,
    faults: Arc<FaultyBus>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub network: Arc<NetworkManager>,
    pub world: FakeWorld,
    pub hosts: BTreeMap<HostName, Arc<FakeHypervisor>>,
    images: Option<RealImages>,
    api: Api,
    token: String,
    admin_token: String,
    project: ProjectId,
    agents: BTreeMap<HostName, RunningService>,
    settings: BTreeMap<HostName, ComputeOptions>,
    conductor: ConductorOptions,
    place: TempDir,
    services: Option<(RunningService, RunningService)>,
    pub volumes: Option<volumes::Volumes>,
}

impl Cloud {
    pub async fn start(options: CloudOptions) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(options.seed));
        let memory: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(clock.clone()));
        let log = EventLog::new(clock.clone());
        let dice = Arc::new(SeededEntropy::new(options.seed ^ 0xfa_u64));
        // It comes up without faults; they begin when all hosts are there.
        let faults = Arc::new(FaultyBus::new(memory, Chances::default(), dice));
        let broker = Arc::new(outage::Broker::new(faults.clone()));
        let bus: Arc<dyn MessageBus> = Arc::new(RecordingBus { inner: broker.clone(), log: log.clone() });
        let database = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = database.clone();
        let client = |role, host: &str| {
            let sender = Sender { role, host: HostName::new(host) };
            RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone())
        };
        let conductor = Conductor::new(nova::conductor::Parts {
            store: store.clone(),
            rpc: client(Role::Conductor, "controller"),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: Live::new(options.conductor.clone()),
        });
        let network = networks::manager(&store, &clock, &entropy);
        let mut conductor = match options.outside_network {
            true => conductor.with_network(Arc::new(outside::Outside(network.clone()))),
            false => conductor.with_network(network.clone()),
        };
        let mut volumes = None;
        if options.volumes {
            let there = volumes::Volumes::start(&store, &clock, &entropy, &client, options.image_delay).await;
            conductor = conductor.with_block_storage(there.for_conductor.clone());
            volumes = Some(there);
        }
        let scheduler = SchedulerService::new(nova::scheduler::Parts {
            algorithm: nova_sched::by_name(options.scheduler, &options.algorithm).unwrap(),
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: ServiceOptions {
                weighs_images: options.algorithm.filter.image_props_weight_multiplier != 0.0,
                ..ServiceOptions::default()
            },
        })
        .unwrap();
        let services = (conductor.start().await.unwrap(), scheduler.start().await.unwrap());
        let orders = BusOrders::new(client(Role::Api, "controller"));
        let mut images = None;
        if options.fetch_images {
            images = Some(RealImages::open(&store, &clock, &entropy).await);
        }
        let manager = images.as_ref().map(|images| images.manager.clone());
        let storage = volumes.as_ref().map(|volumes| volumes.for_api.clone());
        let Door { api, token, admin_token, project } =
            door(&store, &clock, &entropy, orders, &options, manager, storage).await;
        if let Some(images) = &mut images {
            images.serve(&api).await;
        }
        let mut cloud = Self {
            images,
            api,
            token,
            admin_token,
            project,
            store: Arc::new(database.beside()),
            database,
            broker,
            clock,
            entropy,
            world: FakeWorld::new(),
            hosts: BTreeMap::new(),
            agents: BTreeMap::new(),
            settings: BTreeMap::new(),
            conductor: options.conductor.clone(),
            place: tempfile::tempdir().unwrap(),
            services: Some(services),
            volumes,
            network,
            bus,
            log,
            faults,
        };
        for n in 0..options.hosts {
            cloud.add_host(&format!("host{n:02}"), &options).await;
        }
        cloud.set_chances(options.chances);
        cloud
    }

    /// The conductor ends, whatever it has in hand, and another one comes: perhaps one that does not live for long.
    pub async fn replace_conductor(&mut self, name: &str, life: Option<Arc<mortal::Life>>) {
        let Some((conductor, scheduler)) = self.services.take() else { return };
        // One that is dead does not end what it has in hand.
        let _ = tokio::time::timeout(Duration::from_secs(1), conductor.stop()).await;
        let sender = Sender { role: Role::Conductor, host: HostName::new("controller") };
        let (mut bus, mut network): (Arc<dyn MessageBus>, Arc<dyn NetworkService>) =
            (self.bus.clone(), self.network.clone());
        let mut storage = self.volumes.as_ref().map(|volumes| volumes.for_conductor.clone());
        if let Some(life) = life {
            bus = Arc::new(mortal::MortalBus { inner: bus, life: life.clone() });
            network = Arc::new(mortal::MortalNetwork { inner: network, life: life.clone() });
            storage = storage.map(|inner| Arc::new(mortal::MortalStorage { inner, life }) as Arc<dyn BlockStorage>);
        }
        let conductor = Conductor::new(nova::conductor::Parts {
            store: self.database.clone(),
            rpc: RpcClient::new(bus, sender, self.clock.clone(), self.entropy.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: Live::new(ConductorOptions { name: name.into(), ..self.conductor.clone() }),
        });
        let mut conductor = conductor.with_network(network);
        if let Some(storage) = storage {
            conductor = conductor.with_block_storage(storage);
        }
        let running = conductor.start().await.unwrap();
        self.services = Some((running, scheduler));
    }

    /// From now on the bus does this to messages.
    pub fn set_chances(&self, chances: Chances) {
        self.faults.set_chances(chances);
    }

    async fn add_host(&mut self, name: &str, options: &CloudOptions) {
        let mut machine = FakeOptions {
            vcpus: options.vcpus,
            memory_mb: options.memory_mb,
            disk_gb: options.disk_gb,
            latency: Duration::from_millis(5),
            needs_images: options.fetch_images,
            world: self.world.clone(),
            ..FakeOptions::new(name)
        };
        let host = HostName::new(name);
        let cache = match &self.images {
            Some(images) => images.cache_of(name),
            None => PathBuf::from("/nonexistent"),
        };
        let mut settings = ComputeOptions {
            power_sync_interval: Duration::from_secs(120),
            snapshots: self.place.path().join("snapshots").join(name),
            ..ComputeOptions::new(host.clone(), cache)
        };
        (options.dress)(name, &mut machine, &mut settings);
        self.hosts.insert(host.clone(), Arc::new(FakeHypervisor::new(machine)));
        self.settings.insert(host.clone(), settings);
        self.start_agent(&host, None).await;
    }

    /// The agent of a host begins, over the guests that are there: perhaps one that does not live for long. One that was
    /// there before ends, whatever it has in hand.
    pub async fn start_agent(&mut self, host: &HostName, life: Option<Arc<mortal::Life>>) {
        drop(self.agents.remove(host));
        let sender = Sender { role: Role::Compute, host: host.clone() };
        let mut bus: Arc<dyn MessageBus> = self.bus.clone();
        if let Some(life) = life {
            bus = Arc::new(mortal::MortalBus { inner: bus, life });
        }
        let images = match &self.images {
            Some(images) => images.for_host(&self.entropy),
            None => Arc::new(AnyImage(self.database.clone())) as Arc<dyn ImageService>,
        };
        let agent = Agent::new(nova_compute::Parts {
            hypervisor: self.hosts[host].clone(),
            images,
            rpc: RpcClient::new(bus, sender, self.clock.clone(), self.entropy.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: self.settings[host].clone(),
        });
        let starting = agent.start(CancellationToken::new());
        // One that dies while it starts never says so.
        if let Ok(started) = tokio::time::timeout(Duration::from_secs(30), starting).await {
            self.agents.insert(host.clone(), started.unwrap());
        }
    }

    /// The agent of a host is gone, whatever it had in hand; its guests run on.
    pub fn kill_agent(&mut self, host: &HostName) {
        drop(self.agents.remove(host));
    }

    /// Where a host keeps copies of disks until the image service has them.
    pub fn snapshots_of(&self, host: &HostName) -> PathBuf {
        self.settings[host].snapshots.clone()
    }

    /// Copies of disks that hosts have not removed.
    pub fn copies(&self) -> Vec<PathBuf> {
        let hosts = std::fs::read_dir(self.place.path().join("snapshots")).into_iter().flatten();
        let files = hosts.filter_map(|host| std::fs::read_dir(host.ok()?.path()).ok()).flatten();
        files.filter_map(|file| Some(file.ok()?.path())).collect()
    }

    /// Lets virtual time pass until nothing is being done any more, at most an hour.
    pub async fn settle(&self) {
        let (since, until) = (self.clock.now(), self.clock.now() + SignedDuration::from_hours(1));
        while self.clock.now() < until {
            let fine = self.clock.now() < since + SignedDuration::from_secs(1);
            tokio::time::sleep(Duration::from_millis(if fine { 20 } else { 1000 })).await;
            if self.store.list_tasks(None).await.unwrap().is_empty() {
                return;
            }
        }
        panic!("tasks never ended: {:#?}", self.store.list_tasks(None).await.unwrap());
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn stop(mut self) {
        for agent in std::mem::take(&mut self.agents).into_values() {
            // One that is dead does not end what it has in hand.
            let _ = tokio::time::timeout(Duration::from_secs(1), agent.stop()).await;
        }
        if let Some((conductor, scheduler)) = self.services.take() {
            scheduler.stop().await;
            conductor.stop().await;
        }
    }
}
