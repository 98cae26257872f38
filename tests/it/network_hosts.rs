//! From the books to the hosts, in virtual time: the service, and hosts' agents over a plumbing that only takes notes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nova::network::service::{HostsOptions, NetworkHosts, Parts};
use nova::network::{Gateways, Notifier};
use nova_compute::{
    Converged, HostNetworkAgent, MetadataDoor, NetworkAgent, NetworkAgentOptions, NetworkAgentParts, Plumbing,
    PlumbingError,
};
use nova_core::clock::Clock;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, SecurityGroupId, SecurityGroupRuleId, SubnetId};
use nova_core::network::{
    Cidr, Direction, EtherType, HostNetwork, MacAddress, Network, NetworkAgent as Known, Port, PortStatus,
    SecurityGroup, SecurityGroupRule, Subnet, Vif, VifBinding, default_gateway, default_pools,
};
use nova_core::rpc::compute::NetworkChanged;
use nova_core::rpc::network::{BooksChangedRequest, ReportHost, ReportHostRequest, SyncHost, SyncHostRequest};
use nova_core::rpc::{Role, Sender};
use nova_db::{HostScope, MemoryStore, NewPort, PortChange, Store};
use nova_queue::testing::{VirtualClock, context};
use nova_queue::{
    BusError, Chances, Dispatcher, FaultyBus, MemoryBus, MessageBus, RpcClient, RunningService, Serving, Subscription,
};
use nova_virt::InterfaceSpec;
use tokio_util::sync::CancellationToken;

/// Notes what it is to make so.
#[derive(Default)]
struct Notes {
    seen: Mutex<Vec<HostNetwork>>,
    /// Ports that can't be plugged in.
    broken: Mutex<BTreeSet<PortId>>,
    /// Guests' ends that are not there yet.
    absent: Mutex<BTreeSet<PortId>>,
    /// Nothing works.
    down: Mutex<bool>,
    /// Small changes, if it knows how to make them.
    small: Mutex<Option<Vec<HostNetwork>>>,
}

impl Notes {
    fn last(&self) -> HostNetwork {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

#[async_trait]
impl Plumbing for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    async fn converge(&self, wanted: &HostNetwork) -> Result<Converged, PlumbingError> {
        if *self.down.lock().unwrap() {
            return Err(PlumbingError::Unsupported("the kernel says no".into()));
        }
        self.seen.lock().unwrap().push(wanted.clone());
        let mut converged = Converged::default();
        for id in wanted.segments.values().flat_map(|segment| segment.ports.keys()) {
            let status = match (self.broken.lock().unwrap().contains(id), self.absent.lock().unwrap().contains(id)) {
                (true, _) => PortStatus::Error,
                (_, true) => PortStatus::Down,
                _ => PortStatus::Active,
            };
            if status == PortStatus::Error {
                converged.problems.push(format!("port {id} can't be plugged in"));
            }
            converged.ports.insert(*id, status);
        }
        Ok(converged)
    }

    async fn adjust(&self, wanted: &HostNetwork) -> Result<Option<Converged>, PlumbingError> {
        let ports = wanted.segments.values().flat_map(|segment| segment.ports.keys());
        let ports = ports.map(|id| (*id, PortStatus::Active)).collect();
        Ok(self.small.lock().unwrap().as_mut().map(|small| {
            small.push(wanted.clone());
            Converged { ports, problems: Vec::new() }
        }))
    }

    fn interface(&self, _: &HostNetwork, vif: &Vif) -> Result<InterfaceSpec, PlumbingError> {
        let mac_address = vif.mac_address.to_string();
        Ok(InterfaceSpec { mac_address, bridge: None, tap_name: "tap".into(), mtu: None })
    }

    async fn metadata_doors(&self) -> Vec<MetadataDoor> {
        Vec::new()
    }
}

/// A host with its agent.
struct Host {
    notes: Arc<Notes>,
    agent: NetworkAgent,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    _serving: Serving,
}

impl Host {
    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Books, a bus, and whatever services and hosts a test adds.
struct World {
    store: Arc<dyn Store>,
    bus: Arc<dyn MessageBus>,
    faults: Arc<FaultyBus>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    notifier: Notifier,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let memory: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(clock.clone()));
        let faults = Arc::new(FaultyBus::new(memory, Chances::default(), Arc::new(SeededEntropy::new(2))));
        let bus: Arc<dyn MessageBus> = faults.clone();
        let sender = Sender { role: Role::Api, host: "controller".into() };
        let rpc = RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone());
        let notifier = Notifier::new(rpc, entropy.clone());
        Self { store: Arc::new(MemoryStore::new()), bus, faults, clock, entropy, notifier }
    }

    fn client(&self, role: Role, host: &str) -> RpcClient {
        let sender = Sender { role, host: host.into() };
        RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone())
    }

    async fn service(&self) -> RunningService {
        let parts = Parts {
            store: self.store.clone(),
            rpc: self.client(Role::Network, "controller"),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: HostsOptions { gateways: Gateways::EveryHost, ..HostsOptions::default() },
        };
        NetworkHosts::new(parts).start().await.unwrap()
    }

    async fn host(&self, name: &str) -> Host {
        self.host_with(name, Arc::default(), None).await
    }

    async fn host_with(&self, name: &str, notes: Arc<Notes>, state_file: Option<PathBuf>) -> Host {
        let tunnel_ip = Some(format!("192.0.2.{}", name.trim_start_matches('h')).parse().unwrap());
        let agent = NetworkAgent::new(NetworkAgentParts {
            plumbing: notes.clone(),
            rpc: self.client(Role::Compute, name),
            entropy: self.entropy.clone(),
            metadata: None,
            options: NetworkAgentOptions { tunnel_ip, state_file, ..NetworkAgentOptions::new(name) },
        });
        let hinted = agent.clone();
        let dispatcher = Dispatcher::new("compute").method::<NetworkChanged, _, _>(move |_, ()| {
            hinted.changed();
            async { Ok(()) }
        });
        let subscription = Subscription::on("compute", name.into());
        let serving = self.bus.serve(subscription, Arc::new(dispatcher)).await.unwrap();
        let (stop, running) = (CancellationToken::new(), agent.clone());
        let until = stop.clone();
        let running = tokio::spawn(async move { running.run(until).await });
        Host { notes, agent, stop, running, _serving: serving }
    }

    async fn network(&self, kind: &str, number: Option<u32>) -> Network {
        let now = self.clock.now();
        let network = Network {
            id: NetworkId::generate(&*self.entropy),
            project_id: "p".into(),
            name: "net".into(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            is_default: false,
            mtu: 1450,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: Some(kind.into()),
            physical_network: None,
            segmentation_id: number,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let network = self.store.create_network(network, None).await.unwrap();
        let cidr: Cidr = "10.0.0.0/16".parse().unwrap();
        let gateway_ip = Some(default_gateway(&cidr));
        let subnet = Subnet {
            id: SubnetId::generate(&*self.entropy),
            network_id: network.id,
            project_id: "p".into(),
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
        };
        self.store.create_subnet(subnet, None, None).await.unwrap();
        network
    }

    async fn port(&self, network: &Network, host: &str, groups: &[SecurityGroupId]) -> Port {
        let now = self.clock.now();
        let port = Port {
            id: PortId::generate(&*self.entropy),
            network_id: network.id,
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            status: PortStatus::Down,
            mac_address: MacAddress::generate(&*self.entropy),
            fixed_ips: Vec::new(),
            device_id: InstanceId::generate(&*self.entropy).to_string(),
            device_owner: "compute:nova".into(),
            host: Some(host.into()),
            binding: VifBinding::default(),
            security_groups: groups.to_vec(),
            allowed_address_pairs: Vec::new(),
            port_security_enabled: true,
            dns_name: String::new(),
            delete_with_device: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let draw = self.entropy.next_u64();
        let new = NewPort { port, fixed_ips: None, asked_by: None, draw, limit: None };
        self.store.create_ports(vec![new]).await.unwrap().remove(0)
    }

    async fn group(&self, remote: Option<SecurityGroupId>) -> SecurityGroupId {
        let now = self.clock.now();
        let id = SecurityGroupId::generate(&*self.entropy);
        let rules = remote.map(|remote| self.rule(id, Some(remote))).into_iter().collect();
        let group = SecurityGroup {
            id,
            project_id: "p".into(),
            name: "web".into(),
            description: String::new(),
            is_default: false,
            stateful: true,
            rules,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        self.store.create_security_group(group, None, None).await.unwrap().id
    }

    fn rule(&self, group: SecurityGroupId, remote: Option<SecurityGroupId>) -> SecurityGroupRule {
        SecurityGroupRule {
            id: SecurityGroupRuleId::generate(&*self.entropy),
            security_group_id: group,
            project_id: "p".into(),
            description: String::new(),
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: Some(if remote.is_some() { "tcp" } else { "udp" }.into()),
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: remote,
            created_at: self.clock.now(),
        }
    }

    /// What the books say now.
    async fn should_be(&self, host: &str) -> HostNetwork {
        let host = HostName::from(host);
        let scope = HostScope { host: host.clone(), network_node: None };
        nova::network::host_network(&self.store.host_books(&scope).await.unwrap(), &host, &Gateways::EveryHost)
    }

    async fn status(&self, port: &Port) -> PortStatus {
        self.store.get_port(port.id).await.unwrap().status
    }

    async fn known(&self) -> Vec<Known> {
        self.store.list_network_agents(None).await.unwrap()
    }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn vif(port: &Port) -> Vif {
    Vif {
        port_id: port.id,
        network_id: port.network_id,
        label: "net".into(),
        mtu: 1450,
        mac_address: port.mac_address,
        addresses: Vec::new(),
        status: port.status,
        host: port.host.clone(),
        delete_with_instance: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_books_reaches_its_hosts_within_a_second() {
    let world = World::new();
    let service = world.service().await;
    let (one, two, three) = (world.host("h1").await, world.host("h2").await, world.host("h3").await);
    let (network, apart) = (world.network("vxlan", Some(5)).await, world.network("local", None).await);
    let db = world.group(None).await;
    let web = world.group(Some(db)).await;
    let first = world.port(&network, "h1", &[web]).await;
    world.port(&apart, "h3", &[]).await;
    pass(40.0).await;
    assert_eq!((one.notes.last(), world.status(&first).await), (world.should_be("h1").await, PortStatus::Active));
    assert_eq!(two.notes.last(), HostNetwork::default());
    let quiet = (one.notes.count(), three.notes.count());
    // A member on another host of a group that a rule names.
    let second = world.port(&network, "h2", &[db]).await;
    let change = BooksChangedRequest { groups: vec![db], networks: vec![network.id], ..BooksChangedRequest::default() };
    world.notifier.changed(change);
    pass(0.9).await;
    assert_eq!(one.notes.last(), world.should_be("h1").await);
    assert_eq!(one.notes.last().groups[&db].members.len(), 1);
    assert_eq!(two.notes.last(), world.should_be("h2").await);
    assert_eq!(world.status(&second).await, PortStatus::Active);
    assert!(
        one.notes.count() <= quiet.0 + 2 && three.notes.count() <= quiet.1 + 1,
        "one round, and only where it matters"
    );
    // A rule.
    world.store.create_security_group_rules(vec![world.rule(web, None)], None).await.unwrap();
    world.notifier.changed(BooksChangedRequest { groups: vec![web], ..BooksChangedRequest::default() });
    pass(0.9).await;
    assert_eq!(one.notes.last().groups[&web].rules.len(), 2);
    // A port that goes.
    world.store.delete_port(second.id).await.unwrap();
    let change = BooksChangedRequest { networks: vec![network.id], hosts: vec!["h2".into()], ..Default::default() };
    world.notifier.changed(change);
    pass(0.9).await;
    assert_eq!(two.notes.last(), HostNetwork::default());
    assert_eq!(one.notes.last(), world.should_be("h1").await);
    for host in [one, two, three] {
        host.stop().await;
    }
    service.stop().await;
}

/// Small changes are made as they come, and do not keep the host from looking at all of it every ten seconds.
#[tokio::test(start_paused = true)]
async fn small_changes_do_not_put_off_the_full_look() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("vxlan", Some(5)).await;
    let group = world.group(None).await;
    world.port(&network, "h1", &[group]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wanted.json");
    let host = world.host_with("h1", Arc::default(), Some(file.clone())).await;
    pass(5.0).await;
    *host.notes.small.lock().unwrap() = Some(Vec::new());
    let looks = host.notes.count();
    let rule =
        |port| SecurityGroupRule { port_range_min: Some(port), port_range_max: Some(port), ..world.rule(group, None) };
    for port in 1..=25 {
        world.store.create_security_group_rules(vec![rule(port)], None).await.unwrap();
        world.notifier.changed(BooksChangedRequest { groups: vec![group], ..BooksChangedRequest::default() });
        pass(1.0).await;
        let small = host.notes.small.lock().unwrap().clone().unwrap_or_default();
        let newest = [small.last().cloned().unwrap_or_default(), host.notes.last()];
        assert!(newest.contains(&world.should_be("h1").await));
    }
    let small = host.notes.small.lock().unwrap().as_ref().map_or(0, Vec::len);
    let looks = host.notes.count() - looks;
    assert!(small >= 20 && (2..=3).contains(&looks), "{small} small changes, {looks} full looks");
    let kept: HostNetwork = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, world.should_be("h1").await);
    // What it cannot make as a small change is made with all the rest.
    *host.notes.small.lock().unwrap() = None;
    world.store.create_security_group_rules(vec![rule(26)], None).await.unwrap();
    world.notifier.changed(BooksChangedRequest { groups: vec![group], ..BooksChangedRequest::default() });
    pass(0.9).await;
    assert_eq!(host.notes.last(), world.should_be("h1").await);
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_told_when_a_host_is_first_heard_of() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("vxlan", Some(5)).await;
    world.port(&network, "h1", &[]).await;
    world.port(&network, "h2", &[]).await;
    let one = world.host("h1").await;
    pass(1.0).await;
    assert!(one.notes.last().segments[&network.id].elsewhere[0].tunnel.is_none());
    let two = world.host("h2").await;
    pass(1.0).await;
    assert_eq!(one.notes.last().segments[&network.id].elsewhere[0].tunnel, Some("192.0.2.2".parse().unwrap()));
    let known = world.known().await;
    assert_eq!(known.iter().map(|agent| agent.plumbing.as_str()).collect::<Vec<_>>(), ["notes", "notes"]);
    one.stop().await;
    two.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_told_is_asked_for() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    // No word is sent; with a bus that loses half of everything it takes longer.
    pass(34.0).await;
    assert_eq!(host.notes.last(), world.should_be("h1").await);
    world.faults.set_chances(Chances { lose: 500, ..Chances::default() });
    world.store.delete_port(port.id).await.unwrap();
    pass(300.0).await;
    assert_eq!(host.notes.last(), HostNetwork::default());
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_service_the_host_keeps_what_it_has() {
    let world = World::new();
    let service = world.service().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wanted.json");
    let network = world.network("local", None).await;
    world.port(&network, "h1", &[]).await;
    let host = world.host_with("h1", Arc::default(), Some(file.clone())).await;
    pass(2.0).await;
    let before = world.should_be("h1").await;
    assert_eq!(host.notes.last(), before);
    service.stop().await;
    let count = host.notes.count();
    pass(60.0).await;
    assert!(host.notes.count() >= count + 5, "it goes on to make it so");
    assert_eq!(host.notes.last(), before);
    host.stop().await;
    // Started again, still without the service; and a host that knows nothing touches nothing.
    let again = world.host_with("h1", Arc::default(), Some(file)).await;
    let new = world.host("h2").await;
    pass(0.5).await;
    assert_eq!((again.notes.count(), again.notes.last()), (1, before));
    pass(60.0).await;
    assert_eq!(new.notes.count(), 0);
    let second = world.port(&network, "h1", &[]).await;
    let service = world.service().await;
    pass(40.0).await;
    assert!(again.notes.last().segments[&network.id].ports.contains_key(&second.id));
    again.stop().await;
    new.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_for_its_ports_and_shares_the_asking() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let mut ports = Vec::new();
    for _ in 0..20 {
        ports.push(world.port(&network, "h1", &[]).await);
    }
    host.notes.absent.lock().unwrap().extend(ports.iter().map(|port| port.id));
    let before = (world.bus.counters().messages, host.notes.count());
    let began = tokio::time::Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for port in &ports {
        let (agent, vif) = (host.agent.clone(), vif(port));
        waiting.spawn(async move { agent.ready(&[vif]).await.map(|specs| specs.len()) });
    }
    while let Some(ready) = waiting.join_next().await {
        assert_eq!(ready.unwrap().unwrap(), 1);
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(host.notes.count() - before.1 <= 2, "many share a round");
    pass(0.01).await;
    assert!(world.bus.counters().messages - before.0 <= 6, "two rounds with their reports at most");
    // The guests' ends come, and it is seen soon.
    assert_eq!(world.status(&ports[0]).await, PortStatus::Down);
    host.notes.absent.lock().unwrap().clear();
    pass(1.5).await;
    for port in &ports {
        assert_eq!(world.status(port).await, PortStatus::Active);
    }
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_ports_cannot_be_is_told_so() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let foreign = world.port(&network, "h2", &[]).await;
    let why = host.agent.ready(&[vif(&foreign)]).await.unwrap_err();
    assert!(nova_core::error::chain(&why).contains("do not have it on this host"), "{why:?}");
    let broken = world.port(&network, "h1", &[]).await;
    host.notes.broken.lock().unwrap().insert(broken.id);
    let why = host.agent.ready(&[vif(&broken)]).await.unwrap_err();
    assert!(nova_core::error::chain(&why).contains("can't be plugged in"), "{why:?}");
    pass(1.0).await;
    assert_eq!(world.status(&broken).await, PortStatus::Error);
    let state = world.store.get_network_state(&"h1".into()).await.unwrap().unwrap();
    assert_eq!(state.problems.len(), 1);
    assert!(!state.applied.contains_key(&format!("segment:{}", network.id)));
    host.notes.broken.lock().unwrap().clear();
    pass(15.0).await;
    assert_eq!(world.status(&broken).await, PortStatus::Active, "it is tried again");
    // Without the service it waits, and gives up.
    service.stop().await;
    let late = world.port(&network, "h1", &[]).await;
    let began = tokio::time::Instant::now();
    host.agent.ready(&[vif(&late)]).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(60));
    assert_eq!(host.agent.ready(&[vif(&broken)]).await.unwrap().len(), 1, "what it has it has");
    *host.notes.down.lock().unwrap() = true;
    pass(15.0).await;
    *host.notes.down.lock().unwrap() = false;
    let service = world.service().await;
    host.agent.ready(&[vif(&late)]).await.unwrap();
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_guests_ports_go_soon() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    pass(1.0).await;
    host.agent.ready(&[vif(&port)]).await.unwrap();
    host.agent.gone(port.device_id.parse().unwrap()).await;
    pass(0.5).await;
    world.store.delete_port(port.id).await.unwrap();
    pass(2.0).await;
    assert_eq!(host.notes.last(), HostNetwork::default());
    host.stop().await;
    service.stop().await;
}

/// Two services, one of which dies: hosts do not notice.
#[tokio::test(start_paused = true)]
async fn services_stand_in_for_each_other() {
    let world = World::new();
    let (first, second) = (world.service().await, world.service().await);
    let host = world.host("h1").await;
    let network = world.network("local", None).await;
    pass(1.0).await;
    for n in 0..6 {
        let port = world.port(&network, "h1", &[]).await;
        world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
        pass(0.9).await;
        assert_eq!(world.status(&port).await, PortStatus::Active, "{n}");
    }
    first.stop().await;
    let port = world.port(&network, "h1", &[]).await;
    world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
    pass(0.9).await;
    assert_eq!(world.status(&port).await, PortStatus::Active);
    host.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_speaks_of_its_own_network_only() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    let evil = world.client(Role::Compute, "h2");
    let sync = SyncHostRequest {
        host: "h1".into(),
        plumbing: "linux".into(),
        tunnel_ip: None,
        physical_networks: Vec::new(),
        have: BTreeMap::new(),
    };
    let refused = |error: BusError| error.refusal().map(|refusal| refusal.kind);
    let forbidden = Some(nova_core::rpc::RefusalKind::Forbidden);
    assert_eq!(refused(evil.call::<SyncHost>(&context(), &sync).await.unwrap_err()), forbidden);
    let mut report = ReportHostRequest {
        host: "h1".into(),
        applied: BTreeMap::new(),
        ports: [(port.id, PortStatus::Active)].into(),
        problems: Vec::new(),
    };
    assert_eq!(refused(evil.call::<ReportHost>(&context(), &report).await.unwrap_err()), forbidden);
    report.host = "h2".into();
    evil.call::<ReportHost>(&context(), &report).await.unwrap();
    assert_eq!(world.status(&port).await, PortStatus::Down, "it is not bound there");
    for wrong in [
        SyncHostRequest { plumbing: "x".repeat(65), ..sync.clone() },
        SyncHostRequest { physical_networks: vec!["w".into(); 65], ..sync.clone() },
        SyncHostRequest { tunnel_ip: Some("0.0.0.0".parse().unwrap()), ..sync.clone() },
    ] {
        let wrong = SyncHostRequest { host: "h2".into(), ..wrong };
        let kind = refused(evil.call::<SyncHost>(&context(), &wrong).await.unwrap_err());
        assert_eq!(kind, Some(nova_core::rpc::RefusalKind::Malformed));
    }
    assert_eq!(world.known().await, []);
    service.stop().await;
}

/// Where nothing is plugged in the host is only known to be there: no views are made for it, and no word is sent to it.
#[tokio::test(start_paused = true)]
async fn hosts_with_books_only_cost_next_to_nothing() {
    let world = World::new();
    let service = world.service().await;
    let agent = NetworkAgent::new(NetworkAgentParts {
        plumbing: Arc::new(nova_compute::BooksPlumbing),
        rpc: world.client(Role::Compute, "h1"),
        entropy: world.entropy.clone(),
        metadata: None,
        options: NetworkAgentOptions::new("h1"),
    });
    let (stop, running) = (CancellationToken::new(), agent.clone());
    let until = stop.clone();
    let running = tokio::spawn(async move { running.run(until).await });
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    pass(0.5).await;
    let before = world.bus.counters().messages;
    assert_eq!(agent.ready(&[vif(&port)]).await.unwrap().len(), 1);
    world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
    pass(1.0).await;
    assert_eq!(world.bus.counters().messages, before + 1, "the word that the books changed, and nothing after it");
    pass(100.0).await;
    assert!((4..=6).contains(&(world.bus.counters().messages - before)), "a sign of life now and then");
    assert!(!world.known().await[0].plugs());
    stop.cancel();
    running.await.unwrap();
    service.stop().await;
}

/// What it is changed between two askings ends the same as what it is asked for as a whole.
#[tokio::test(start_paused = true)]
async fn many_small_changes_end_where_the_books_are() {
    let world = World::new();
    let service = world.service().await;
    let hosts = [world.host("h1").await, world.host("h2").await];
    let networks = [world.network("vxlan", Some(5)).await, world.network("local", None).await];
    let db = world.group(None).await;
    let web = world.group(Some(db)).await;
    let dice = SeededEntropy::new(7);
    let mut ports: Vec<Port> = Vec::new();
    for _ in 0..120 {
        let draw = dice.next_u64();
        let network = &networks[usize::try_from(draw % 2).unwrap()];
        let host = ["h1", "h2"][usize::try_from(draw / 2 % 2).unwrap()];
        match draw / 4 % 4 {
            0 | 1 => {
                ports.push(world.port(network, host, &[if (draw / 16).is_multiple_of(2) { web } else { db }]).await)
            }
            2 if !ports.is_empty() => {
                let port = ports.swap_remove(usize::try_from(draw / 16).unwrap() % ports.len());
                world.store.delete_port(port.id).await.unwrap();
            }
            _ => {
                if let Some(port) = ports.first() {
                    let read = world.store.get_port(port.id).await.unwrap();
                    let moved = Port { host: Some(host.into()), security_groups: vec![web, db], ..read };
                    let change = PortChange { port: moved, fixed_ips: None, draw: 0 };
                    world.store.update_port(change).await.unwrap();
                }
            }
        }
        // Only some are told of.
        if (draw / 64).is_multiple_of(3) {
            let networks = networks.iter().map(|network| network.id).collect();
            world.notifier.changed(BooksChangedRequest { networks, groups: vec![web, db], ..Default::default() });
        }
        pass(0.05 * (draw % 9) as f64).await;
    }
    pass(40.0).await;
    for (host, name) in hosts.iter().zip(["h1", "h2"]) {
        assert_eq!(host.notes.last(), world.should_be(name).await, "{name}");
    }
    for port in &ports {
        assert_eq!(world.status(port).await, PortStatus::Active, "{port:?}");
    }
    for host in hosts {
        host.stop().await;
    }
    service.stop().await;
}
