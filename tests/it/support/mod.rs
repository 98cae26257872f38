//! A cloud in one process, in virtual time, from a seed.

mod recorder;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nova::conductor::{Conductor, ConductorOptions};
use nova::scheduler::{SchedulerService, ServiceOptions};
use nova_compute::{Agent, ComputeOptions};
use nova_core::action::ActionRecord;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::flavor::Flavor;
use nova_core::ids::{FlavorId, HostName, ImageId, InstanceId, ProjectId, RequestId, ReservationId, TaskId, UserId};
use nova_core::image::ImageMeta;
use nova_core::instance::Instance;
use nova_core::quota::Limits;
use nova_core::request::RequestSpec;
use nova_core::rpc::conductor::{StartTask, StartTaskRequest};
use nova_core::rpc::{Role, Sender};
use nova_core::state::{Action, PowerState, TaskState, VmState, decide};
use nova_core::task::{Task, Work};
use nova_db::{MemoryStore, NewInstance, NewInstances, Store, StoreError, TaskStart};
use nova_queue::testing::VirtualClock;
use nova_queue::{Chances, FaultyBus, MemoryBus, MessageBus, RpcClient};
use nova_sched::SchedulerOptions;
use nova_virt::{FakeHypervisor, FakeOptions, FakeWorld};
use tokio_util::sync::CancellationToken;

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
}

impl Default for CloudOptions {
    fn default() -> Self {
        let chances = Chances::default();
        Self { seed: 1, hosts: 3, scheduler: "least_load", chances, vcpus: 8, memory_mb: 8192, disk_gb: 100 }
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
    pub world: FakeWorld,
    pub hosts: BTreeMap<HostName, Arc<FakeHypervisor>>,
    pub conductor: Conductor,
    pub api: RpcClient,
    agents: Vec<nova_compute::Running>,
    services: Option<(nova::conductor::Running, nova::scheduler::Running)>,
}

/// No image is ever fetched by the fake.
struct NoImages;

#[async_trait]
impl ImageService for NoImages {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
    async fn download(&self, id: ImageId) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
}

pub fn project() -> ProjectId {
    ProjectId::new("project")
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
            options: ConductorOptions::default(),
        });
        let scheduler = SchedulerService::new(nova::scheduler::Parts {
            algorithm: nova_sched::by_name(options.scheduler, &SchedulerOptions::default()).unwrap(),
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: ServiceOptions::default(),
        })
        .unwrap();
        let services = (conductor.clone().start().await.unwrap(), scheduler.start().await.unwrap());
        let mut cloud = Self {
            api: client(Role::Api, "controller"),
            store,
            clock,
            entropy,
            world: FakeWorld::new(),
            hosts: BTreeMap::new(),
            conductor,
            agents: Vec::new(),
            services: Some(services),
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

    /// From now on the bus does this to messages.
    pub fn set_chances(&self, chances: Chances) {
        self.faults.set_chances(chances);
    }

    async fn add_host(&mut self, name: &str, options: &CloudOptions) {
        let fake = Arc::new(FakeHypervisor::new(FakeOptions {
            vcpus: options.vcpus,
            memory_mb: options.memory_mb,
            disk_gb: options.disk_gb,
            latency: Duration::from_millis(5),
            world: self.world.clone(),
            ..FakeOptions::new(name)
        }));
        let host = HostName::new(name);
        self.hosts.insert(host.clone(), fake.clone());
        let sender = Sender { role: Role::Compute, host: host.clone() };
        let agent = Agent::new(nova_compute::Parts {
            hypervisor: fake,
            images: Arc::new(NoImages),
            rpc: RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: ComputeOptions::new(host, PathBuf::from("/nonexistent")),
        });
        self.agents.push(agent.start(CancellationToken::new()).await.unwrap());
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
            access: std::collections::BTreeSet::new(),
            created_at: self.clock.now(),
            updated_at: None,
            generation: 0,
        }
    }

    fn context(&self) -> RequestContext {
        RequestContext {
            request_id: RequestId::generate(&*self.entropy),
            user_id: UserId::new("user"),
            project_id: project(),
            user_domain_id: None,
            project_domain_id: None,
            roles: vec!["member".into()],
            trace_parent: None,
        }
    }

    fn action(&self, id: InstanceId, context: &RequestContext, action: &str) -> ActionRecord {
        let now = self.clock.now();
        ActionRecord {
            instance_id: id,
            request_id: context.request_id.clone(),
            action: action.into(),
            user_id: context.user_id.clone(),
            project_id: context.project_id.clone(),
            started: now,
            finished: None,
            message: None,
            updated: now,
            events: Vec::new(),
        }
    }

    fn task(&self, id: InstanceId, context: &RequestContext, work: Work) -> Task {
        let now = self.clock.now();
        Task {
            id: TaskId::generate(&*self.entropy),
            instance_id: id,
            work,
            context: context.clone(),
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            owner: None,
            lease_until: now,
            deadline: now + SignedDuration::from_mins(10),
            created_at: now,
            generation: 0,
        }
    }

    /// Asks for servers as the API does: one transaction, one message.
    pub async fn boot(&self, count: u32, flavor: Flavor) -> Result<Vec<InstanceId>, StoreError> {
        let context = self.context();
        let ids: Vec<_> = (0..count).map(|_| InstanceId::generate(&*self.entropy)).collect();
        let reservation_id = ReservationId::generate(&*self.entropy);
        let spec =
            RequestSpec { instances: ids.clone(), resources: flavor.resources(), ..RequestSpec::default() };
        let new = ids.iter().enumerate().map(|(n, id)| {
            let work =
                Work::Build { spec: spec.clone(), selection: None, admin_password: None, keys: BTreeMap::new() };
            NewInstance {
                instance: self.instance(*id, &context, reservation_id, n as u32, flavor.clone()),
                action: self.action(*id, &context, "create"),
                task: self.task(*id, &context, work),
            }
        });
        let new: Vec<_> = new.collect();
        let tasks = new.iter().map(|n| n.task.id).collect();
        let limits = Limits { instances: None, cores: None, ram: None };
        self.store.create_instances(NewInstances { instances: new, limits }).await?;
        // As for the API: a lost message costs time, nothing else.
        let _ = self.api.cast::<StartTask>(&context, &StartTaskRequest { tasks }).await;
        Ok(ids)
    }

    fn instance(
        &self,
        id: InstanceId,
        context: &RequestContext,
        reservation_id: ReservationId,
        launch_index: u32,
        flavor: Flavor,
    ) -> Instance {
        let now = self.clock.now();
        Instance {
            id,
            number: 0,
            project_id: context.project_id.clone(),
            user_id: context.user_id.clone(),
            reservation_id,
            launch_index,
            request_id: context.request_id.clone(),
            display_name: format!("server-{launch_index}"),
            display_description: None,
            hostname: format!("server-{launch_index}"),
            image: None,
            flavor,
            key_name: None,
            key_data: None,
            user_data: None,
            config_drive: false,
            metadata: BTreeMap::new(),
            tags: std::collections::BTreeSet::new(),
            availability_zone: None,
            pinned_availability_zone: None,
            scheduler_hints: BTreeMap::new(),
            host: None,
            node: None,
            vm_state: VmState::Building,
            task_state: Some(TaskState::Scheduling),
            power_state: PowerState::NoState,
            progress: 0,
            locked: None,
            locked_reason: None,
            access_ip_v4: None,
            access_ip_v6: None,
            auto_disk_config: false,
            security_groups: Vec::new(),
            fault: None,
            created_at: now,
            updated_at: now,
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            epoch: 0,
            generation: 0,
        }
    }

    /// Begins an action as the API does; false: not allowed now.
    pub async fn act(&self, id: InstanceId, action: Action) -> bool {
        let work = match action {
            Action::Delete => Work::Delete,
            Action::Start => Work::Start,
            Action::Stop => Work::Stop,
            Action::RebootSoft => Work::Reboot { hard: false },
            Action::RebootHard => Work::Reboot { hard: true },
            other => panic!("{other:?} is not built"),
        };
        let mut instance = self.store.get_instance(id).await.unwrap();
        let Ok(transition) = decide(action, &instance.situation(false, true, 104)) else { return false };
        instance.set_states(transition.apply(&instance.states()));
        instance.updated_at = self.clock.now();
        let context = self.context();
        let task = self.task(id, &context, work);
        let (action_record, tasks) = (self.action(id, &context, "x"), vec![task.id]);
        let supersede = action == Action::Delete;
        match self.store.start_task(TaskStart { instance, action: action_record, task, supersede }).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
        let _ = self.api.cast::<StartTask>(&context, &StartTaskRequest { tasks }).await;
        true
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
        let usage = self.store.usage(&project()).await.unwrap();
        assert_eq!(usage.instances, all.len() as u64);
        assert_eq!(usage.ram, all.iter().map(|i| i.flavor.memory_mb).sum::<u64>());
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
        }
    }

    pub async fn stop(mut self) {
        for agent in self.agents.drain(..) {
            agent.stop().await;
        }
        if let Some((conductor, scheduler)) = self.services.take() {
            scheduler.stop().await;
            conductor.stop().await;
        }
    }
}

fn add(sum: nova_core::flavor::Resources, a: &nova_core::host::Allocation) -> nova_core::flavor::Resources {
    sum.plus(a.resources)
}
