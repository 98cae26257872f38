//! Networks for the cloud's servers, and servers that ask for them.

use nova::network::{NetworkManager, NetworkOptions};
use nova_core::action::ActionRecord;
use nova_core::ids::{ImageId, NetworkId, PortId, RequestId, ReservationId, SecurityGroupId, SubnetId, TaskId};
use nova_core::network::{
    Cidr, MacAddress, Network, Port, PortStatus, RequestedInterface, RequestedNetworks, Subnet, VifBinding,
    default_gateway, default_pools,
};
use nova_core::request::{Purpose, RequestSpec};
use nova_core::rpc::conductor::{StartTask, StartTaskRequest};
use nova_core::state::States;
use nova_core::task::{BuildNetworks, Task, Work};
use nova_db::{FixedIpRequest, NewInstance, NewInstances, NewPort, PortQuery, TaskStart};
use nova_queue::testing::context as bus_context;

use super::*;

pub(super) fn manager(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Arc<NetworkManager> {
    Arc::new(NetworkManager::new(store.clone(), clock.clone(), entropy.clone(), NetworkOptions::default()))
}

/// An interface on that network.
pub fn on(network: NetworkId) -> RequestedInterface {
    RequestedInterface { network_id: Some(network), ..RequestedInterface::default() }
}

/// An interface by that port.
pub fn by(port: PortId) -> RequestedInterface {
    RequestedInterface { port_id: Some(port), ..RequestedInterface::default() }
}

/// Exactly these interfaces.
pub fn these(interfaces: impl IntoIterator<Item = RequestedInterface>) -> RequestedNetworks {
    RequestedNetworks::These(interfaces.into_iter().collect())
}

/// A network of that project, not yet kept.
pub fn network_of(entropy: &dyn Entropy, now: Timestamp, project: ProjectId) -> Network {
    Network {
        id: NetworkId::generate(entropy),
        project_id: project,
        name: "net".into(),
        description: String::new(),
        admin_state_up: true,
        shared: false,
        external: false,
        is_default: false,
        mtu: 1450,
        port_security_enabled: true,
        dns_domain: String::new(),
        network_type: None,
        physical_network: None,
        segmentation_id: None,
        created_at: now,
        updated_at: now,
        generation: 0,
    }
}

/// A subnet of that network, not yet kept.
pub fn subnet_of(entropy: &dyn Entropy, now: Timestamp, network: &Network, cidr: &str) -> Subnet {
    let cidr: Cidr = cidr.parse().unwrap();
    let gateway_ip = Some(default_gateway(&cidr));
    Subnet {
        id: SubnetId::generate(entropy),
        network_id: network.id,
        project_id: network.project_id.clone(),
        name: String::new(),
        description: String::new(),
        cidr,
        gateway_ip,
        allocation_pools: default_pools(&cidr, gateway_ip),
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        shared: false,
        created_at: now,
        updated_at: now,
        generation: 0,
    }
}

/// A port on that network, not yet kept.
pub fn port_of(entropy: &dyn Entropy, now: Timestamp, project: ProjectId, network: NetworkId) -> Port {
    Port {
        id: PortId::generate(entropy),
        network_id: network,
        project_id: project,
        name: String::new(),
        description: String::new(),
        admin_state_up: true,
        status: PortStatus::Down,
        mac_address: MacAddress::generate(entropy),
        fixed_ips: Vec::new(),
        device_id: String::new(),
        device_owner: String::new(),
        host: None,
        binding: VifBinding::default(),
        security_groups: Vec::<SecurityGroupId>::new(),
        allowed_address_pairs: Vec::new(),
        port_security_enabled: true,
        dns_name: String::new(),
        delete_with_device: false,
        created_at: now,
        updated_at: now,
        generation: 0,
    }
}

impl Cloud {
    /// A network of the demo project with one subnet.
    pub async fn add_network(&self, cidr: &str) -> Network {
        self.add_network_of(self.project.clone(), cidr).await
    }

    /// A network of that project with one subnet.
    pub async fn add_network_of(&self, project: ProjectId, cidr: &str) -> Network {
        let name = format!("net {cidr}");
        let network = Network { name, ..network_of(&*self.entropy, self.now(), project) };
        let network = self.store.create_network(network, None).await.unwrap();
        let subnet = subnet_of(&*self.entropy, self.now(), &network, cidr);
        self.store.create_subnet(subnet, None, None).await.unwrap();
        network
    }

    /// A port of the demo project's own.
    pub async fn add_port(&self, network: NetworkId) -> Port {
        self.add_port_of(self.project.clone(), network, String::new()).await
    }

    /// A port of that project, perhaps with a device that says that it is its server.
    pub async fn add_port_of(&self, project: ProjectId, network: NetworkId, device: String) -> Port {
        let mut new = self.new_port(project, network);
        if !device.is_empty() {
            new.port.device_owner = "compute:nova".to_owned();
        }
        new.port.device_id = device;
        self.store.create_ports(vec![new]).await.unwrap().remove(0)
    }

    /// A port that is to be.
    pub fn new_port(&self, project: ProjectId, network: NetworkId) -> NewPort {
        let port = Port { name: "mine".into(), ..port_of(&*self.entropy, self.now(), project, network) };
        let any = FixedIpRequest { subnet_id: None, ip_address: None };
        NewPort { port, fixed_ips: Some(vec![any]), asked_by: None, draw: 0, limit: None }
    }

    /// All ports.
    pub async fn ports(&self) -> Vec<Port> {
        self.store.list_ports(&PortQuery::default()).await.unwrap()
    }

    /// The ports of a server, in order.
    pub async fn ports_of(&self, id: InstanceId) -> Vec<Port> {
        let device = id.to_string();
        self.ports().await.into_iter().filter(|port| port.device_id == device).collect()
    }

    /// A server that asks for these interfaces, as an API writes it.
    pub async fn boot_on(&self, requested: RequestedNetworks, flavor: Flavor) -> InstanceId {
        let id = InstanceId::generate(&*self.entropy);
        let instance = self.new_instance(id, flavor).await;
        self.boot_instance(instance, requested).await
    }

    /// A server, as an API that checks nothing writes it.
    pub async fn boot_instance(&self, instance: Instance, requested: RequestedNetworks) -> InstanceId {
        let id = instance.id;
        let spec = RequestSpec {
            instances: vec![id],
            purpose: Purpose::Create,
            project_id: instance.project_id.to_string(),
            resources: instance.booked_resources(),
            alternates: 2,
            ..RequestSpec::default()
        };
        let networks = BuildNetworks { requested, security_groups: Vec::new() };
        let work = Work::Build { spec, selection: None, admin_password: None, keys: BTreeMap::new(), networks };
        let (task, action) = self.begin(&instance, work, instance.request_id.clone());
        let limits = Limits { instances: None, cores: None, ram: None };
        let tasks = vec![task.id];
        let instances = vec![NewInstance { instance, action, task }];
        self.store.create_instances(NewInstances { instances, limits, user_limits: None, group: None }).await.unwrap();
        self.hurry(tasks).await;
        id
    }

    /// A server that is not in the store yet.
    pub async fn new_instance(&self, id: InstanceId, flavor: Flavor) -> Instance {
        let now = self.now();
        let States { vm_state, task_state, power_state } = States::created();
        let image = AnyImage(self.store.clone())
            .bootable_image(&bus_context(), ImageId::generate(&*self.entropy))
            .await
            .unwrap();
        Instance {
            id,
            number: 0,
            project_id: self.project.clone(),
            user_id: "demo".into(),
            reservation_id: ReservationId::generate(&*self.entropy),
            launch_index: 0,
            request_id: RequestId::generate(&*self.entropy),
            display_name: "server".into(),
            display_description: None,
            hostname: "server".into(),
            image: Some(image),
            volume_image: BTreeMap::new(),
            flavor,
            local_disks: nova_core::instance::LocalDisks::default(),
            volumes: Vec::new(),
            key_name: None,
            key_data: None,
            user_data: None,
            config_drive: false,
            metadata: BTreeMap::new(),
            tags: Default::default(),
            availability_zone: None,
            pinned_availability_zone: None,
            scheduler_hints: Default::default(),
            host: None,
            node: None,
            vm_state,
            task_state,
            power_state,
            progress: 0,
            locked: None,
            locked_reason: None,
            access_ip_v4: None,
            access_ip_v6: None,
            auto_disk_config: true,
            security_groups: vec!["default".into()],
            fault: None,
            created_at: now,
            updated_at: now,
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

    fn begin(&self, instance: &Instance, work: Work, request_id: RequestId) -> (Task, ActionRecord) {
        let now = self.now();
        let context = RequestContext {
            user_id: instance.user_id.clone(),
            project_id: instance.project_id.clone(),
            roles: vec!["member".into()],
            ..RequestContext::internal(request_id.clone())
        };
        let action = ActionRecord {
            instance_id: instance.id,
            request_id,
            action: work.action().name().to_owned(),
            user_id: instance.user_id.clone(),
            project_id: instance.project_id.clone(),
            started: now,
            finished: None,
            message: None,
            updated: now,
            events: Vec::new(),
        };
        let task = Task {
            id: TaskId::generate(&*self.entropy),
            instance_id: instance.id,
            work,
            context,
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: now,
            deadline: now + SignedDuration::from_secs(600),
            created_at: now,
            generation: 0,
        };
        (task, action)
    }

    async fn hurry(&self, tasks: Vec<TaskId>) {
        let sender = Sender { role: Role::Api, host: HostName::new("controller") };
        let rpc = RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone());
        // One that is lost is found by a sweep.
        let _ = rpc.cast::<StartTask>(&bus_context(), &StartTaskRequest { tasks, plugged: BTreeMap::new() }).await;
    }

    /// Begins to plug an interface in or out, as an API does. `None`: the server is not in a state for it.
    pub async fn change_interface(&self, id: InstanceId, work: Work) -> Option<Task> {
        loop {
            let instance = self.get(id).await;
            let rule = nova_core::state::rule(work.action());
            if instance.is_deleted() || !rule.admits(instance.vm_state, instance.task_state) {
                return None;
            }
            let (task, action) = self.begin(&instance, work.clone(), RequestId::generate(&*self.entropy));
            let start = TaskStart::of(instance, action, task.clone());
            match self.store.start_task(start).await {
                Ok(_) => {
                    self.hurry(vec![task.id]).await;
                    return Some(task);
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Each port that is a server's is bound where the server is, and plugged into its guest; each guest has no other.
    /// Every address is free or taken, and taken by a port that is there.
    pub async fn check_ports(&self) {
        let all = self.store.list_instances(&InstanceQuery::default()).await.unwrap();
        let ports = self.ports().await;
        for port in ports.iter().filter(|port| port.device_owner.starts_with("compute:")) {
            let owner = all.iter().find(|one| one.id.to_string() == port.device_id);
            let owner = owner.unwrap_or_else(|| panic!("{port:?} has no owner"));
            let may_have_none = owner.vm_state == VmState::ShelvedOffloaded;
            assert!(owner.host.is_some() || may_have_none, "{port:?} is of a server without a host: {owner:?}");
            assert_eq!(owner.host, port.host, "{port:?} of {owner:?}");
            if owner.vm_state == VmState::Active {
                assert_eq!(port.status, PortStatus::Active, "{port:?}");
            }
        }
        for (name, host) in &self.hosts {
            for instance in all.iter().filter(|one| one.host.as_ref() == Some(name)) {
                let Some(spec) = host.spec_of(instance.id) else { continue };
                let has: Vec<_> = spec.interfaces.iter().map(|nic| nic.mac_address.clone()).collect();
                let mut has_sorted = has.clone();
                has_sorted.sort();
                let mut books: Vec<_> = ports.iter().filter(|port| port.device_id == instance.id.to_string()).collect();
                books.sort_by_key(|port| port.mac_address.to_string());
                let books: Vec<_> = books.iter().map(|port| port.mac_address.to_string()).collect();
                assert_eq!(has_sorted, books, "interfaces of {} on {name}", instance.id);
            }
        }
        let mut taken = BTreeMap::new();
        for fixed in ports.iter().flat_map(|port| &port.fixed_ips) {
            *taken.entry(fixed.subnet_id).or_insert(0_u64) += 1;
        }
        for subnet in self.store.list_subnets(&Default::default()).await.unwrap() {
            let (_, counted) = self.store.count_addresses(subnet.id).await.unwrap();
            assert_eq!(counted, taken.get(&subnet.id).copied().unwrap_or(0), "taken addresses of {}", subnet.cidr);
        }
    }
}
