//! Rows to check with.

use jiff::{SignedDuration, Timestamp};
use nova_core::action::ActionRecord;
use nova_core::aggregate::{Aggregate, ZONE_KEY};
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::flavor::{Flavor, Resources};
use nova_core::host::{Allocation, ComputeNode, Inventory};
use nova_core::ids::{
    AggregateId, ComputeNodeId, FlavorId, HostName, ImageId, InstanceId, ProjectId, RequestId, ReservationId,
    ServerGroupId, ServiceId, TaskId, UserId,
};
use nova_core::image::ImageMeta;
use nova_core::instance::Instance;
use nova_core::quota::Limits;
use nova_core::server_group::{GroupPolicy, ServerGroup};
use nova_core::state::{States, TaskState, VmState};
use nova_core::task::{Task, Work};

use crate::{Booking, NewInstance, NewInstances, ServiceBeat, Store, TaskCommit, TaskStart};

/// No limit.
pub(crate) const FREE: Limits = Limits { instances: None, cores: None, ram: None };

/// The moment that fixtures are made at, some microseconds past a second.
pub(crate) fn at(seconds: i64) -> Timestamp {
    let base = Timestamp::from_microsecond(1_800_000_000_000_123).unwrap();
    base + SignedDuration::from_secs(seconds)
}

/// Makes ids; the same in every run.
pub(crate) struct Make(pub(super) SeededEntropy);

impl Make {
    pub(crate) fn new() -> Self {
        Self(SeededEntropy::new(7))
    }
    /// Other ids than those of another seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(SeededEntropy::new(1000 + seed))
    }
    pub(crate) fn request(&self) -> RequestId {
        RequestId::generate(&self.0)
    }
    pub(crate) fn task_id(&self) -> TaskId {
        TaskId::generate(&self.0)
    }
    pub(crate) fn service_id(&self) -> ServiceId {
        ServiceId::generate(&self.0)
    }
    pub(crate) fn image_id(&self) -> ImageId {
        ImageId::generate(&self.0)
    }
    pub(crate) fn instance_id(&self) -> InstanceId {
        InstanceId::generate(&self.0)
    }

    pub(crate) fn group_id(&self) -> ServerGroupId {
        ServerGroupId::generate(&self.0)
    }

    pub(crate) fn aggregate(&self, name: &str, zone: Option<&str>) -> Aggregate {
        Aggregate {
            id: AggregateId::generate(&self.0),
            number: 0,
            name: name.to_owned(),
            metadata: zone.map(|zone| (ZONE_KEY.to_owned(), zone.to_owned())).into_iter().collect(),
            hosts: Default::default(),
            created_at: at(0),
            updated_at: None,
        }
    }

    pub(crate) fn server_group(&self, project: &str, policy: GroupPolicy) -> ServerGroup {
        ServerGroup {
            id: self.group_id(),
            number: 0,
            name: "group".into(),
            project_id: ProjectId::from(project),
            user_id: UserId::from("user"),
            policy,
            max_server_per_host: None,
            members: Vec::new(),
            created_at: at(0),
        }
    }

    pub(crate) fn instance(&self, project: &str) -> Instance {
        let states = States::created();
        Instance {
            id: self.instance_id(),
            number: 0,
            project_id: ProjectId::from(project),
            user_id: UserId::from("user"),
            reservation_id: ReservationId::generate(&self.0),
            launch_index: 0,
            request_id: self.request(),
            display_name: "server".into(),
            display_description: None,
            hostname: "server".into(),
            image: Some(image_meta(self.image_id())),
            volume_image: std::collections::BTreeMap::new(),
            flavor: flavor("1"),
            local_disks: nova_core::instance::LocalDisks::default(),
            volumes: Vec::new(),
            key_name: None,
            key_data: None,
            user_data: None,
            config_drive: false,
            metadata: [("a".to_owned(), "ä 日本 '; DROP TABLE".to_owned())].into(),
            tags: ["t".to_owned()].into(),
            availability_zone: None,
            pinned_availability_zone: None,
            scheduler_hints: [("h".to_owned(), serde_json::json!({"x": [1, null]}))].into(),
            host: None,
            node: None,
            vm_state: states.vm_state,
            task_state: states.task_state,
            previous_vm_state: None,
            device_places: Vec::new(),
            soft_deleted_at: None,
            system_metadata: std::collections::BTreeMap::new(),
            power_state: states.power_state,
            progress: 0,
            locked: None,
            locked_reason: None,
            access_ip_v4: None,
            access_ip_v6: None,
            auto_disk_config: false,
            security_groups: vec!["default".into()],
            fault: None,
            created_at: at(0),
            updated_at: at(0),
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            epoch: 0,
            generation: 0,
        }
    }

    pub(crate) fn task(&self, instance: &Instance, work: Work) -> Task {
        Task {
            id: self.task_id(),
            instance_id: instance.id,
            work,
            context: RequestContext::internal(self.request()),
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: at(30),
            deadline: at(3600),
            created_at: at(0),
            generation: 0,
        }
    }

    /// A whole create request of one server each.
    pub(crate) fn request_of(&self, instances: Vec<Instance>, limits: Limits) -> NewInstances {
        let new = |instance: Instance| {
            let action = action(&instance, &instance.request_id, "create");
            let build = Work::Build {
                spec: Default::default(),
                selection: None,
                admin_password: None,
                keys: Default::default(),
                networks: Default::default(),
            };
            let task = self.task(&instance, build);
            NewInstance { instance, action, task }
        };
        NewInstances { instances: instances.into_iter().map(new).collect(), limits, user_limits: None, group: None }
    }

    /// Creates it and returns it as it was kept.
    pub(crate) async fn created(&self, store: &dyn Store, instance: Instance) -> Instance {
        store.create_instances(self.request_of(vec![instance], FREE)).await.unwrap().remove(0)
    }

    /// Creates a server and returns it with its task.
    pub(crate) async fn building(&self, store: &dyn Store) -> (Instance, Task) {
        let instance = self.created(store, self.instance("project")).await;
        let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
        (instance, task)
    }

    pub(crate) fn start(&self, instance: &Instance, work: Work, supersede: bool) -> TaskStart {
        let mut instance = instance.clone();
        instance.task_state = Some(TaskState::Deleting);
        let task = self.task(&instance, work);
        let action = action(&instance, &task.context.request_id, "delete");
        TaskStart { supersede, ..TaskStart::of(instance, action, task) }
    }

    pub(crate) fn node(&self, host: &str, memory_mb: u64) -> ComputeNode {
        ComputeNode {
            id: ComputeNodeId::generate(&self.0),
            number: 0,
            host: HostName::from(host),
            hypervisor_hostname: format!("{host}.example"),
            hypervisor_type: "fake".into(),
            hypervisor_version: 1,
            host_ip: "127.0.0.1".into(),
            zone: "nova".into(),
            architectures: vec!["x86_64".into()],
            inventory: Inventory {
                total: Resources { vcpus: 100, memory_mb, disk_gb: 1000 },
                reserved: Resources::default(),
                cpu_ratio: 4.0,
                ram_ratio: 1.0,
                disk_ratio: 1.0,
            },
            cpu_info: serde_json::json!({"model": "x"}),
            uptime: None,
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
            used: Resources::default(),
            allocations: 0,
            facts: Default::default(),
            stats: Default::default(),
        }
    }

    pub(crate) fn beat(&self, host: &str, seconds: i64) -> ServiceBeat {
        ServiceBeat {
            new_id: self.service_id(),
            binary: "nova-compute".into(),
            host: HostName::from(host),
            zone: "nova".into(),
            now: at(seconds),
            version: 1,
        }
    }
}

/// One processor, 512 MiB, 1 GiB.
pub(crate) fn flavor(id: &str) -> Flavor {
    Flavor {
        id: FlavorId::from(id),
        name: format!("m1.{id}"),
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
        created_at: at(0),
        updated_at: None,
        generation: 0,
    }
}

fn image_meta(id: ImageId) -> ImageMeta {
    ImageMeta {
        id,
        name: Some("image".into()),
        disk_format: "qcow2".into(),
        size: 1,
        sha512: "00".into(),
        min_ram: 0,
        min_disk: 0,
        virtual_size: 1,
        properties: Default::default(),
    }
}

pub(crate) fn action(instance: &Instance, request: &RequestId, name: &str) -> ActionRecord {
    ActionRecord {
        instance_id: instance.id,
        request_id: request.clone(),
        action: name.into(),
        user_id: instance.user_id.clone(),
        project_id: instance.project_id.clone(),
        started: at(0),
        finished: None,
        message: None,
        updated: at(0),
        events: Vec::new(),
    }
}

/// Its flavor's resources, on that host.
pub(crate) fn booking(instance: &Instance, host: &str) -> Booking {
    let (instance_id, host) = (instance.id, HostName::from(host));
    Booking::of(Allocation {
        instance_id,
        host,
        resources: instance.flavor.resources(),
        created_at: at(1),
        placement: None,
    })
}

/// A commit of the task's own row and a booking.
pub(crate) fn claim(task: &Task, instance: &Instance, host: &str) -> TaskCommit {
    TaskCommit { book: Some(booking(instance, host)), ..TaskCommit::of(task.clone()) }
}

/// The instance as it is once it runs there.
pub(crate) fn active(instance: &Instance, host: &str) -> Instance {
    let mut instance = instance.clone();
    instance.set_states(States::idle(VmState::Active));
    instance.host = Some(HostName::from(host));
    instance.node = Some(format!("{host}.example"));
    instance.launched_at = Some(at(2));
    instance.updated_at = at(2);
    instance
}

/// The instance as it is once it is gone.
pub(crate) fn deleted(instance: &Instance, seconds: i64) -> Instance {
    let mut instance = instance.clone();
    instance.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: Default::default() });
    instance.host = None;
    instance.deleted_at = Some(at(seconds));
    instance.updated_at = at(seconds);
    instance
}
