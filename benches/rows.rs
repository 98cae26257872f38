//! Rows for benchmarks of the store: servers of an ordinary size on one very large host.

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::flavor::{Flavor, Resources};
use nova_core::host::{Allocation, ComputeNode, Inventory};
use nova_core::ids::{
    ComputeNodeId, FlavorId, HostName, ImageId, InstanceId, ProjectId, RequestId, ReservationId, TaskId, UserId,
};
use nova_core::image::ImageMeta;
use nova_core::instance::Instance;
use nova_core::quota::Limits;
use nova_core::state::{States, TaskState, VmState};
use nova_core::task::{Task, Work};
use nova_db::{Booking, NewInstance, NewInstances, TaskCommit};

/// The project of all servers.
pub const PROJECT: &str = "project";

/// The host that all servers are put on.
const HOST: &str = "host-1";

/// All rows are of this moment.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Makes rows; ids are from a seed.
pub struct Rows(SeededEntropy);

impl Default for Rows {
    fn default() -> Self {
        Self(SeededEntropy::new(0x5EED))
    }
}

impl Rows {
    /// A request for one server.
    #[must_use]
    pub fn request(&self) -> NewInstances {
        let instance = self.instance();
        let action = ActionRecord {
            instance_id: instance.id,
            request_id: instance.request_id.clone(),
            action: "create".into(),
            user_id: instance.user_id.clone(),
            project_id: instance.project_id.clone(),
            started: NOW,
            finished: None,
            message: None,
            updated: NOW,
            events: Vec::new(),
        };
        let task = self.build(&instance);
        let limits = Limits { instances: None, cores: None, ram: None };
        NewInstances { instances: vec![NewInstance { instance, action, task }], limits, user_limits: None, group: None }
    }

    fn build(&self, instance: &Instance) -> Task {
        let work = Work::Build {
            spec: Default::default(),
            selection: None,
            admin_password: None,
            keys: Default::default(),
            networks: Default::default(),
        };
        Task {
            id: TaskId::generate(&self.0),
            instance_id: instance.id,
            work,
            context: RequestContext::internal(instance.request_id.clone()),
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: NOW,
            deadline: NOW,
            created_at: NOW,
            generation: 0,
        }
    }

    fn instance(&self) -> Instance {
        let states = States::created();
        Instance {
            id: InstanceId::generate(&self.0),
            number: 0,
            project_id: ProjectId::from(PROJECT),
            user_id: UserId::from("user"),
            reservation_id: ReservationId::generate(&self.0),
            launch_index: 0,
            request_id: RequestId::generate(&self.0),
            display_name: "server".into(),
            display_description: None,
            hostname: "server".into(),
            image: Some(self.image()),
            volume_image: std::collections::BTreeMap::new(),
            flavor: flavor(),
            local_disks: nova_core::instance::LocalDisks::default(),
            volumes: Vec::new(),
            key_name: None,
            key_data: None,
            user_data: None,
            config_drive: false,
            metadata: [("purpose".to_owned(), "benchmark".to_owned())].into(),
            tags: Default::default(),
            availability_zone: None,
            pinned_availability_zone: None,
            scheduler_hints: Default::default(),
            host: None,
            node: None,
            vm_state: states.vm_state,
            task_state: states.task_state,
            power_state: states.power_state,
            progress: 0,
            locked: None,
            locked_reason: None,
            access_ip_v4: None,
            access_ip_v6: None,
            auto_disk_config: false,
            security_groups: vec!["default".into()],
            fault: None,
            created_at: NOW,
            updated_at: NOW,
            previous_vm_state: None,
            device_places: Vec::new(),
            soft_deleted_at: None,
            system_metadata: std::collections::BTreeMap::new(),
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            epoch: 0,
            generation: 0,
        }
    }

    fn image(&self) -> ImageMeta {
        ImageMeta {
            id: ImageId::generate(&self.0),
            name: Some("image".into()),
            disk_format: "qcow2".into(),
            size: 1 << 29,
            sha512: "0123456789abcdef".repeat(8),
            min_ram: 0,
            min_disk: 0,
            virtual_size: 1 << 31,
            properties: Default::default(),
        }
    }

    /// The host's compute node, with room for all.
    #[must_use]
    pub fn node(&self) -> ComputeNode {
        ComputeNode {
            id: ComputeNodeId::generate(&self.0),
            number: 0,
            host: HostName::from(HOST),
            hypervisor_hostname: HOST.into(),
            hypervisor_type: "fake".into(),
            hypervisor_version: 1,
            host_ip: "127.0.0.1".into(),
            zone: "nova".into(),
            architectures: vec!["x86_64".into()],
            inventory: Inventory {
                total: Resources { vcpus: 1 << 20, memory_mb: 1 << 40, disk_gb: 1 << 40 },
                reserved: Resources::default(),
                cpu_ratio: 16.0,
                ram_ratio: 1.0,
                disk_ratio: 1.0,
            },
            cpu_info: serde_json::Value::Null,
            uptime: None,
            created_at: NOW,
            updated_at: NOW,
            generation: 0,
            used: Resources::default(),
            allocations: 0,
            facts: Default::default(),
            stats: Default::default(),
        }
    }
}

fn flavor() -> Flavor {
    Flavor {
        id: FlavorId::from("1"),
        name: "m1.tiny".into(),
        vcpus: 1,
        memory_mb: 512,
        root_gb: 1,
        ephemeral_gb: 0,
        swap_mb: 0,
        rxtx_factor: 1.0,
        disabled: false,
        is_public: true,
        description: None,
        extra_specs: Default::default(),
        access: Default::default(),
        created_at: NOW,
        updated_at: None,
        generation: 0,
    }
}

/// The durable transaction of a boot that books the host and puts the instance on it.
#[must_use]
pub fn claim(mut task: Task, mut instance: Instance) -> TaskCommit {
    let (instance_id, host) = (instance.id, HostName::from(HOST));
    let resources = instance.flavor.resources();
    let allocation = Allocation { instance_id, host: host.clone(), resources, created_at: NOW, placement: None };
    instance.host = Some(host);
    instance.node = Some(HOST.into());
    instance.task_state = Some(TaskState::Spawning);
    instance.epoch += 1;
    task.epoch = instance.epoch;
    TaskCommit { instance: Some(instance), book: Some(Booking::of(allocation)), ..TaskCommit::of(task) }
}

/// The durable transaction of a boot that ends it: the instance is active, its task and action are over.
#[must_use]
pub fn result(task: Task, mut instance: Instance, mut action: ActionRecord) -> TaskCommit {
    instance.set_states(States::idle(VmState::Active));
    instance.launched_at = Some(NOW);
    action.finished = Some(NOW);
    TaskCommit { done: true, instance: Some(instance), action: Some(action), ..TaskCommit::of(task) }
}
