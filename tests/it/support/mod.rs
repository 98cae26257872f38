//! A cloud in one process, in virtual time, from a seed.

mod images;
pub mod mortal;
pub mod networks;
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

use images::RealImages;
pub use recorder::{EventLog, RecordingBus};

/// What a test wants its cloud to be like.
pub struct CloudOptions {
    pub seed: u64,
    pub hosts: usize,
    pub scheduler: &'static str,
    pub chances: Chances,
    pub vcpus: u32,
    pub memory_mb: u64,
    pub disk_gb: u64,
    pub token_life: Duration,
    /// What differs from host to host.
    pub dress: fn(&str, &mut FakeOptions, &mut ComputeOptions),
    /// Settings of the scheduler's algorithm.
    pub algorithm: SchedulerOptions,
    /// Images are real: hosts fetch them from a listener on loopback. Not in virtual time.
    pub fetch_images: bool,
    /// Settings of the conductor and, where it has the same, of the API.
    pub conductor: ConductorOptions,
    /// Quota of instances.
    pub instances: Option<u64>,
    /// A resize may end on the host that the server is on.
    pub same_host: bool,
    /// Interfaces are plugged in by others, who tell of it: an outside Neutron.
    pub outside_network: bool,
    /// There is a volume host.
    pub volumes: bool,
    /// How long the image of a volume takes.
    pub image_delay: Duration,
}

impl Default for CloudOptions {
    fn default() -> Self {
        let chances = Chances::default();
        Self {
            seed: 1,
            hosts: 3,
            scheduler: "least_load",
            chances,
            vcpus: 8,
            memory_mb: 8192,
            disk_gb: 100,
            token_life: Duration::from_secs(10 * 86_400),
            dress: |_, _, _| {},
            algorithm: SchedulerOptions::default(),
            fetch_images: false,
            conductor: ConductorOptions::default(),
            instances: None,
            same_host: false,
            outside_network: false,
            volumes: false,
            image_delay: Duration::ZERO,
        }
    }
}

/// The cloud, as a test holds it.
pub struct Cloud {
    pub store: Arc<dyn Store>,
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

/// Every image is there; the fake fetches none. What hosts make of servers is noted in the store, and thrown away.
struct AnyImage(Arc<dyn Store>);

/// Images of some ids have properties.
fn properties(id: ImageId) -> BTreeMap<String, String> {
    let of: &[(&str, &str)] = match id.to_string().get(..4) {
        Some("deb1") => &[("os_distro", "debian")],
        Some("fed0") => &[("os_distro", "fedora")],
        // No copy without file systems that stand still; with an agent that does it, and without.
        Some("a9e1") => &[("os_require_quiesce", "yes"), ("hw_qemu_guest_agent", "yes")],
        Some("a9e0") => &[("os_require_quiesce", "yes"), ("hw_qemu_guest_agent", "no")],
        _ => &[],
    };
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[async_trait]
impl ImageService for AnyImage {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Ok(ImageMeta {
            id,
            name: Some("guest".into()),
            disk_format: "qcow2".into(),
            size: 1,
            sha512: "00".repeat(64),
            min_ram: 0,
            min_disk: 0,
            virtual_size: 1,
            properties: properties(id),
        })
    }
    async fn download(&self, id: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
    async fn upload(
        &self,
        id: ImageId,
        grant: Option<&ImageGrant>,
        size: u64,
        mut data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        assert!(grant.is_some(), "an order without a grant");
        let missing = |_| ImageServiceError::NotFound { id: id.to_string() };
        let image = self.0.get_image(id).await.map_err(missing)?;
        if image.status == ImageStatus::Active {
            return Ok(());
        }
        let mut read = 0;
        while let Some(piece) = data.next_chunk().await? {
            read += piece.len() as u64;
        }
        assert_eq!(read, size);
        // As long as a real one takes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let active = nova_core::image::Image { status: ImageStatus::Active, size: Some(size), ..image };
        self.0.update_image(active).await.map(drop).map_err(missing)
    }
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
        let bus: Arc<dyn MessageBus> = Arc::new(RecordingBus { inner: faults.clone(), log: log.clone() });
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
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
            store,
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
            store: self.store.clone(),
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
            None => Arc::new(AnyImage(self.store.clone())) as Arc<dyn ImageService>,
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

    /// A flavor of that size.
    pub fn flavor(&self, vcpus: u32, memory_mb: u64) -> Flavor {
        Flavor {
            id: FlavorId::new("1"),
            name: "m1.test".into(),
            vcpus,
            memory_mb,
            root_gb: 1,
            ephemeral_gb: 0,
            swap_mb: 0,
            rxtx_factor: 1.0,
            disabled: false,
            is_public: true,
            description: None,
            extra_specs: BTreeMap::new(),
            access: BTreeSet::new(),
            created_at: self.clock.now(),
            updated_at: None,
            generation: 0,
        }
    }

    /// Asks for servers; their ids come when the answer is 202.
    pub async fn boot(&self, count: u32, flavor: Flavor) -> Result<Vec<InstanceId>, String> {
        self.boot_from(ImageId::generate(&*self.entropy), count, flavor).await
    }

    /// The same, from that image.
    pub async fn boot_from(&self, image: ImageId, count: u32, flavor: Flavor) -> Result<Vec<InstanceId>, String> {
        let id = FlavorId::new(format!("{}-{}", flavor.vcpus, flavor.memory_mb));
        match self.store.create_flavor(Flavor { name: id.to_string(), id: id.clone(), ..flavor }).await {
            Ok(_) | Err(StoreError::Duplicate { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let server = json!({"name": "server", "flavorRef": id, "imageRef": image, "networks": "none",
            "min_count": count, "max_count": count, "return_reservation_id": true});
        let (status, answer) = self.call("POST", "/compute/v2.1/servers", Some(json!({"server": server}))).await;
        if status != 202 {
            return Err(format!("{status} {answer}"));
        }
        let reservation_id = Some(answer["reservation_id"].as_str().unwrap().parse().unwrap());
        let query = InstanceQuery { reservation_id, ..InstanceQuery::default() };
        let mut made = self.store.list_instances(&query).await.unwrap();
        made.sort_by_key(|instance| instance.launch_index);
        Ok(made.into_iter().map(|instance| instance.id).collect())
    }

    /// Begins an action; false: not allowed now.
    pub async fn act(&self, id: InstanceId, action: Action) -> bool {
        let path = format!("/compute/v2.1/servers/{id}");
        let body = match action {
            Action::Delete => return self.call("DELETE", &path, None).await.0 == 204,
            Action::Start => json!({"os-start": null}),
            Action::Stop => json!({"os-stop": null}),
            Action::RebootSoft => json!({"reboot": {"type": "SOFT"}}),
            Action::RebootHard => json!({"reboot": {"type": "HARD"}}),
            Action::Pause => json!({"pause": null}),
            Action::Unpause => json!({"unpause": null}),
            Action::Suspend => json!({"suspend": null}),
            Action::Resume => json!({"resume": null}),
            Action::Restore => json!({"restore": null}),
            Action::ForceDelete => json!({"forceDelete": null}),
            Action::TriggerCrashDump => json!({"trigger_crash_dump": null}),
            Action::Rescue => json!({"rescue": {}}),
            Action::Unrescue => json!({"unrescue": null}),
            Action::Rebuild => json!({"rebuild": {"imageRef": ImageId::generate(&*self.entropy)}}),
            Action::CreateImage => json!({"createImage": {"name": "image"}}),
            Action::CreateBackup => json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}}),
            Action::ChangePassword => json!({"changePassword": {"adminPass": "secret"}}),
            other => panic!("{other:?} is not built"),
        };
        let (status, answer) = self.call("POST", &format!("{path}/action"), Some(body)).await;
        assert!(matches!(status, 200 | 202 | 404 | 409), "{status} {answer}");
        matches!(status, 200 | 202)
    }

    /// A request of the demo user through the whole pipeline, without a socket.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.token, method, path, body).await
    }

    /// The same of the administrator.
    pub async fn call_as_admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.admin_token, method, path, body).await
    }

    async fn call_with(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cloud")
            .header("x-auth-token", token)
            .header("openstack-api-version", "compute 2.104")
            .header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.api.handle(request.body(body).unwrap()).await;
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn get(&self, id: InstanceId) -> Instance {
        self.store.get_instance(id).await.unwrap()
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

    /// What must hold whenever nothing is being done: reliability invariants I2, I3, I5, I6, I8 and I16.
    pub async fn check(&self) {
        use nova_virt::Hypervisor;
        assert_eq!(self.world.violations(), vec![], "a guest ran twice");
        let all = self.store.list_instances(&nova_db::InstanceQuery::default()).await.unwrap();
        let allocations = self.store.list_allocations(None).await.unwrap();
        let usage = self.store.usage(&self.project).await.unwrap();
        let counted = all.iter().map(|i| i.usage());
        assert_eq!(usage.instances, counted.clone().map(|counts| counts.instances).sum::<u64>());
        assert_eq!(usage.ram, counted.map(|counts| counts.ram).sum::<u64>());
        for image in self.store.list_images().await.unwrap() {
            assert_eq!(image.status, ImageStatus::Active, "an image that gets no data any more: {image:?}");
        }
        assert_eq!(self.copies(), Vec::<PathBuf>::new(), "copies of disks are left");
        for instance in &all {
            let own: Vec<_> = allocations.iter().filter(|a| a.instance_id == instance.id).collect();
            match &instance.host {
                Some(host) => assert_eq!((own.len(), &own[0].host), (1, host), "{instance:?}"),
                None => assert!(own.is_empty(), "{instance:?}"),
            }
            assert!(instance.task_state.is_none(), "{instance:?}");
        }
        for allocation in &allocations {
            assert!(all.iter().any(|i| i.id == allocation.instance_id), "{allocation:?} of nobody");
        }
        for node in self.store.list_nodes().await.unwrap() {
            let used = allocations.iter().filter(|a| a.host == node.host).fold(Default::default(), add);
            assert_eq!(node.used, used, "{}", node.host);
            assert_eq!(node.inventory.shortage(used, Default::default()), None);
        }
        for (host, fake) in &self.hosts {
            for guest in fake.list().await.unwrap() {
                let instance = all.iter().find(|i| i.id == guest.instance);
                assert_eq!(instance.and_then(|i| i.host.as_ref()), Some(host), "{guest:?} is a stray on {host}");
            }
        }
        for instance in all.iter().filter(|i| i.vm_state == VmState::Active) {
            let host = &self.hosts[instance.host.as_ref().unwrap()];
            assert_eq!(host.info(instance.id).await.unwrap().power_state, PowerState::Running, "{instance:?}");
            let size = host.spec_of(instance.id).map(|spec| (spec.vcpus, spec.memory_mb));
            assert_eq!(size, Some((instance.flavor.vcpus, instance.flavor.memory_mb)), "{instance:?}");
        }
        self.check_ports().await;
        self.check_volumes().await;
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

/// The API in front of the cloud, and tokens for as long as any test runs.
struct Door {
    api: Api,
    token: String,
    admin_token: String,
    project: ProjectId,
}

async fn door(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    orders: BusOrders,
    wanted: &CloudOptions,
    images: Option<Arc<ImageManager>>,
    volumes: Option<Arc<dyn BlockStorage>>,
) -> Door {
    let options = IdentityOptions {
        token_expiration: wanted.token_life,
        password: PasswordOptions::cheap(),
        ..IdentityOptions::default()
    };
    let catalog = Catalog::of_this_process("http://cloud");
    let identity = IdentityManager::open(store.clone(), clock.clone(), entropy.clone(), catalog, options);
    let identity = Arc::new(identity.await.unwrap());
    identity.bootstrap().await.unwrap();
    let user = store.list_users(Some("demo")).await.unwrap().remove(0).id;
    let project = store.list_projects(Some("demo")).await.unwrap().remove(0).id;
    let (token, _) = identity.issue_token(&user, Some(&project)).await.unwrap();
    let admin = store.list_users(Some("admin")).await.unwrap().remove(0).id;
    let admin_project = store.list_projects(Some("admin")).await.unwrap().remove(0).id;
    let (admin_token, _) = identity.issue_token(&admin, Some(&admin_project)).await.unwrap();
    let network = NetworkManager::new(store.clone(), clock.clone(), entropy.clone(), NetworkOptions::default());
    let network = Arc::new(network);
    let compute = ComputeApi {
        store: store.clone(),
        images: match &images {
            Some(images) => images.clone(),
            None => Arc::new(AnyImage(store.clone())),
        },
        image_books: images.clone(),
        volumes,
        identity: identity.clone(),
        network: network.clone(),
        books: Some(network),
        neutron: None,
        orders: Arc::new(orders),
        clock: clock.clone(),
        entropy: entropy.clone(),
        options: Live::new(ApiComputeOptions {
            limits: Limits { instances: wanted.instances, cores: None, ram: None },
            reclaim_instance_interval: wanted.conductor.reclaim_instance_interval,
            allow_resize_to_same_host: wanted.same_host,
            offloads_at_once: wanted.conductor.moves.shelved_offload_time == Some(Duration::ZERO),
            server_groups: None,
            server_group_members: None,
            instance_build_timeout: Duration::from_secs(600),
            operation_timeout: Duration::from_secs(600),
            ..ApiComputeOptions::default()
        }),
    };
    let enabled = ["osapi_compute"].into_iter().chain(images.is_some().then_some("image"));
    let enabled_apis = enabled.map(|name| EnabledApi { name: name.into(), address: None }).collect();
    let deps = FilterDeps {
        identity,
        clock: clock.clone(),
        entropy: entropy.clone(),
        options: Arc::new(ApiOptions { enabled_apis, ..ApiOptions::default() }),
    };
    let mut registry = Registry::new(deps);
    registry.application(compute_application(Arc::new(compute)));
    if let Some(images) = images {
        registry.application(nova::image::application(images));
    }
    let (_, api) = registry.build().unwrap().remove(0);
    Door { api, token, admin_token, project }
}

fn add(sum: nova_core::flavor::Resources, a: &nova_core::host::Allocation) -> nova_core::flavor::Resources {
    sum.plus(a.resources)
}
