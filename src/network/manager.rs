//! The rules that need a store: what belongs to whom, defaults, draws that may meet.

use std::sync::Arc;

use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{NetworkId, PortId, ProjectId, RouterId, SecurityGroupId};
use nova_core::network::{
    MacAddress, Network, NetworkProblem, NetworkResource, Port, PortStatus, SecurityGroup, VifBinding, default_rules,
};
use nova_core::rpc::network::BooksChangedRequest;
use nova_db::{NetworkStore, NewPort, PortChange, StoreError};

use super::{NetworkOptions, Notifier};

/// How often a MAC address is drawn before that is an error (`create_unique_mac_address_attempts`).
const MAC_DRAWS: usize = 5;
/// How often a change is tried again when somebody else changed the thing meanwhile.
pub(crate) const ATTEMPTS: usize = 8;

/// The built-in network service.
pub struct NetworkManager {
    pub(crate) store: Arc<dyn NetworkStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) options: NetworkOptions,
    pub(crate) notifier: Notifier,
}

impl std::fmt::Debug for NetworkManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkManager").field("options", &self.options).finish_non_exhaustive()
    }
}

impl NetworkManager {
    /// Over these collaborators.
    pub fn new(
        store: Arc<dyn NetworkStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: NetworkOptions,
    ) -> Self {
        Self { store, clock, entropy, options, notifier: Notifier::silent() }
    }

    /// The same, which tells of what it changes.
    #[must_use]
    pub fn telling(mut self, notifier: Notifier) -> Self {
        self.notifier = notifier;
        self
    }

    /// Tells whoever is concerned that these ports have come, gone or changed. Call it after the commit.
    pub(crate) fn ports_changed<'a>(&self, ports: impl IntoIterator<Item = &'a Port>) {
        let mut news = BooksChangedRequest::default();
        for port in ports {
            news.networks.push(port.network_id);
            news.groups.extend(&port.security_groups);
            news.hosts.extend(port.host.clone().into_iter().chain(port.migrating_to()));
        }
        self.notifier.changed(news);
    }

    /// The same of a network, its subnets included.
    pub(crate) fn network_changed(&self, id: NetworkId) {
        self.notifier.changed(BooksChangedRequest { networks: vec![id], ..Default::default() });
    }

    /// The same of a group or its rules.
    pub(crate) fn group_changed(&self, id: SecurityGroupId) {
        self.notifier.changed(BooksChangedRequest { groups: vec![id], ..Default::default() });
    }

    /// The same of a router, its interfaces and floating addresses.
    pub(crate) fn routers_changed(&self, routers: impl IntoIterator<Item = RouterId>) {
        self.notifier.changed(BooksChangedRequest { routers: routers.into_iter().collect(), ..Default::default() });
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn limit(&self, resource: NetworkResource) -> Option<u64> {
        self.options.limits.of(resource)
    }

    /// The project's default group, made if this is its first use.
    pub(crate) async fn default_group(&self, project: &ProjectId) -> Result<SecurityGroup, StoreError> {
        let group = self.new_group(project, "default", "Default security group", true);
        self.store.default_security_group(group).await
    }

    /// A group with the rules that it begins with, not yet kept.
    pub(crate) fn new_group(
        &self,
        project: &ProjectId,
        name: &str,
        description: &str,
        is_default: bool,
    ) -> SecurityGroup {
        let now = self.now();
        let mut group = SecurityGroup {
            id: SecurityGroupId::generate(&*self.entropy),
            project_id: project.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            is_default,
            stateful: true,
            rules: Vec::new(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        group.rules = default_rules(&group, &*self.entropy);
        group
    }

    /// A port without addresses, groups or a user, not yet kept.
    pub(crate) fn new_port(&self, network: NetworkId, project: &ProjectId) -> NewPort {
        let now = self.now();
        let port = Port {
            id: PortId::generate(&*self.entropy),
            network_id: network,
            project_id: project.clone(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            status: PortStatus::Down,
            mac_address: MacAddress::generate(&*self.entropy),
            fixed_ips: Vec::new(),
            device_id: String::new(),
            device_owner: String::new(),
            host: None,
            binding: VifBinding::default(),
            security_groups: Vec::new(),
            allowed_address_pairs: Vec::new(),
            port_security_enabled: true,
            dns_name: String::new(),
            delete_with_device: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let limit = self.limit(NetworkResource::Port);
        NewPort { port, fixed_ips: None, asked_by: None, draw: self.entropy.next_u64(), limit }
    }

    /// Keeps new ports, all or none. Of those that `draws` says so, another MAC address is drawn when the first is taken.
    pub(crate) async fn create_ports(&self, mut new: Vec<NewPort>, draws: &[bool]) -> Result<Vec<Port>, StoreError> {
        for _ in 1..MAC_DRAWS {
            match self.store.create_ports(new.clone()).await {
                Err(StoreError::Network(NetworkProblem::MacInUse { mac, network })) => {
                    let mut again = false;
                    for (new, draw) in new.iter_mut().zip(draws) {
                        if *draw && new.port.mac_address == mac && new.port.network_id == network {
                            new.port.mac_address = MacAddress::generate(&*self.entropy);
                            again = true;
                        }
                    }
                    if !again {
                        return Err(NetworkProblem::MacInUse { mac, network }.into());
                    }
                }
                answer => return answer,
            }
        }
        self.store.create_ports(new).await
    }

    /// Changes a port whoever else does, as long as `change` finds it changeable.
    pub(crate) async fn change_port(
        &self,
        id: PortId,
        change: impl Fn(&mut Port) -> Result<(), StoreError> + Send + Sync,
    ) -> Result<Port, StoreError> {
        let mut tries = 1;
        loop {
            let mut port = self.store.get_port(id).await?;
            change(&mut port)?;
            port.updated_at = self.now();
            let answer = self.store.update_port(PortChange { port, fixed_ips: None, draw: 0 }).await;
            match answer {
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => tries += 1,
                answer => return answer,
            }
        }
    }
}

/// May the caller know that the network is there?
pub(crate) fn may_see(context: &RequestContext, network: &Network) -> bool {
    context.is_admin() || network.project_id == context.project_id || network.shared || network.external
}
