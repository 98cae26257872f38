//! From the books to the hosts, in virtual time: the service, and hosts' agents over a plumbing that only takes notes.

mod agent;
mod service;
mod view;

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
use nova_core::ids::{HostName, InstanceId, PortId, SecurityGroupId, SecurityGroupRuleId};
use nova_core::network::{
    Direction, EtherType, HostNetwork, Network, NetworkAgent as Known, Port, PortStatus, SecurityGroup,
    SecurityGroupRule, Vif,
};
use nova_core::rpc::compute::NetworkChanged;
use nova_core::rpc::network::{BooksChangedRequest, ReportHost, ReportHostRequest, SyncHost, SyncHostRequest};
use nova_core::rpc::{Role, Sender};
use nova_db::{HostScope, MemoryStore, NetworkHostStore, NewPort, PortChange, Store};
use nova_queue::testing::{VirtualClock, context};
use nova_queue::{
    BusError, Chances, Dispatcher, FaultyBus, MemoryBus, MessageBus, RpcClient, RunningService, Serving, Subscription,
};
use nova_virt::InterfaceSpec;
use tokio_util::sync::CancellationToken;

use crate::support::networks::{network_of, port_of, subnet_of};

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
        self.service_over(self.store.clone()).await
    }

    async fn service_over(&self, store: Arc<dyn NetworkHostStore>) -> RunningService {
        let parts = Parts {
            store,
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
            network_type: Some(kind.into()),
            segmentation_id: number,
            ..network_of(&*self.entropy, now, "p".into())
        };
        let network = self.store.create_network(network, None).await.unwrap();
        let subnet = subnet_of(&*self.entropy, now, &network, "10.0.0.0/16");
        self.store.create_subnet(subnet, None, None).await.unwrap();
        network
    }

    async fn port(&self, network: &Network, host: &str, groups: &[SecurityGroupId]) -> Port {
        let port = Port {
            device_id: InstanceId::generate(&*self.entropy).to_string(),
            device_owner: "compute:nova".into(),
            host: Some(host.into()),
            security_groups: groups.to_vec(),
            ..port_of(&*self.entropy, self.clock.now(), "p".into(), network.id)
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
        tag: None,
        asked_as: None,
    }
}
