//! Ports of servers: looked for, made, taken, given back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId};
use nova_core::network::{
    InstanceNetworks, NetworkProblem, NetworkServiceError, RequestedInterface, RequestedNetworks, Vif, VifAddress,
};
use serde_json::{Value, json};

use super::NeutronClient;
use super::session::NeutronError;
use super::wire::{FloatingIpView, GroupView, NetworkView, PortView, SubnetView, TopologyView, mark};

pub(super) type Answer<T> = Result<T, NetworkServiceError>;

/// Things that one request asks for by id: so that URLs stay below 8 KiB.
const CHUNK: usize = 100;

/// What happened to a port while a server's were made.
pub(super) enum Done {
    /// Nothing: it was the server's before.
    Found(PortView),
    /// Made, or taken.
    Changed(PortView),
}

impl Done {
    pub(super) fn port(self) -> PortView {
        match self {
            Self::Found(port) | Self::Changed(port) => port,
        }
    }
}

/// Owned by compute, in that zone.
fn owner(wanted: &InstanceNetworks) -> String {
    format!("compute:{}", wanted.availability_zone.as_deref().unwrap_or("nova"))
}

impl NeutronClient {
    /// A server's ports, in order.
    pub(super) async fn ports_of(&self, instance: InstanceId) -> Answer<Vec<PortView>> {
        let device = instance.to_string();
        let ports: Vec<PortView> = self.session.list("ports", "ports", &[("device_id", &device)]).await?;
        let mut ports: Vec<PortView> = ports.into_iter().filter(PortView::is_of_compute).collect();
        ports.sort_by_key(|port| (port.order(), port.id));
        Ok(ports)
    }

    /// Items of a collection by the values of one of their attributes, so many at a time.
    async fn by<T: serde::de::DeserializeOwned>(
        &self,
        collection: &str,
        attribute: &str,
        values: &BTreeSet<String>,
    ) -> Result<Vec<T>, NeutronError> {
        let all: Vec<&String> = values.iter().collect();
        let mut items = Vec::new();
        for chunk in all.chunks(CHUNK) {
            let query: Vec<(&str, &str)> = chunk.iter().map(|value| (attribute, value.as_str())).collect();
            items.extend(self.session.list::<T>(collection, collection, &query).await?);
        }
        Ok(items)
    }

    /// Ports of these servers.
    pub(super) async fn ports_of_all(&self, instances: &[InstanceId]) -> Answer<Vec<PortView>> {
        let devices = instances.iter().map(InstanceId::to_string).collect();
        let mut ports: Vec<PortView> = self.by("ports", "device_id", &devices).await?;
        ports.retain(PortView::is_of_compute);
        ports.sort_by_key(|port| (port.order(), port.id));
        Ok(ports)
    }

    /// What is asked for, as interfaces each with its network or port. Checks that networks are there and the project's.
    pub(super) async fn plan(
        &self,
        context: &RequestContext,
        project: &ProjectId,
        requested: &RequestedNetworks,
    ) -> Answer<Vec<(RequestedInterface, Option<NetworkView>)>> {
        match requested {
            RequestedNetworks::Nothing => Ok(Vec::new()),
            RequestedNetworks::Unsaid | RequestedNetworks::Auto => {
                let mut networks = self.networks_of(project).await?;
                if networks.len() > 1 {
                    return Err(NetworkServiceError::Ambiguous);
                }
                if networks.is_empty() && *requested == RequestedNetworks::Auto {
                    let id = self.auto_topology(project).await?;
                    networks.push(self.network(id).await?);
                }
                let on = |network: NetworkView| {
                    let interface =
                        RequestedInterface { network_id: Some(network.id), ..RequestedInterface::default() };
                    (interface, Some(network))
                };
                Ok(networks.into_iter().map(on).collect())
            }
            RequestedNetworks::These(interfaces) => {
                let mut planned = Vec::with_capacity(interfaces.len());
                for interface in interfaces {
                    let network = match (interface.port_id, interface.network_id) {
                        (None, Some(id)) => Some(self.bootable_network(context, project, id).await?),
                        _ => None,
                    };
                    planned.push((interface.clone(), network));
                }
                Ok(planned)
            }
        }
    }

    /// Networks that a server without a wish may be plugged into: the project's own, or else shared ones.
    pub(super) async fn networks_of(&self, project: &ProjectId) -> Answer<Vec<NetworkView>> {
        let inner = |networks: Vec<NetworkView>| networks.into_iter().filter(|n| !n.external).collect::<Vec<_>>();
        let own = self.session.list("networks", "networks", &[("project_id", project.as_str())]).await?;
        let own = inner(own);
        if !own.is_empty() {
            return Ok(own);
        }
        Ok(inner(self.session.list("networks", "networks", &[("shared", "True")]).await?))
    }

    async fn auto_topology(&self, project: &ProjectId) -> Answer<NetworkId> {
        let path = format!("/auto-allocated-topology/{}", project.as_str());
        let topology = self.session.get::<TopologyView>(&path, "auto_allocated_topology").await;
        match topology {
            Ok(topology) => Ok(topology.id),
            Err(NeutronError::Refused { message, .. }) => {
                tracing::warn!(%project, "no network is made for it: {message}");
                Err(NetworkServiceError::CannotAutoAllocate { project: project.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Would a network be made for the project?
    pub(super) async fn check_auto_topology(&self, project: &ProjectId) -> Answer<()> {
        let path = format!("/auto-allocated-topology/{}?fields=dry-run", project.as_str());
        match self.session.get::<Value>(&path, "auto_allocated_topology").await {
            Ok(_) => Ok(()),
            Err(NeutronError::Refused { .. }) => {
                Err(NetworkServiceError::CannotAutoAllocate { project: project.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn network(&self, id: NetworkId) -> Answer<NetworkView> {
        match self.session.get(&format!("/networks/{id}"), "network").await {
            Err(error) if error.is_not_found() => Err(NetworkServiceError::NetworkNotFound { id }),
            answer => Ok(answer?),
        }
    }

    async fn bootable_network(
        &self,
        context: &RequestContext,
        project: &ProjectId,
        id: NetworkId,
    ) -> Answer<NetworkView> {
        let network = self.network(id).await?;
        let open = network.shared || network.is_of(project) || context.is_admin();
        if !open && network.external {
            return Err(NetworkServiceError::External { id });
        }
        if !open {
            return Err(NetworkServiceError::NetworkNotFound { id });
        }
        if network.subnets.is_empty() {
            return Err(NetworkServiceError::NoSubnet { id });
        }
        Ok(network)
    }

    /// Is the address one of the network's that nobody has?
    pub(super) async fn check_address(&self, network: NetworkId, address: IpAddr) -> Answer<()> {
        let id = network.to_string();
        let subnets: Vec<SubnetView> = self.session.list("subnets", "subnets", &[("network_id", &id)]).await?;
        if !subnets.iter().any(|subnet| subnet.cidr.contains(address)) {
            let problem = NetworkProblem::AddressOutsideNetwork { network, address };
            return Err(NetworkServiceError::Refused(problem.to_string()));
        }
        let filter = format!("ip_address={address}");
        let query = [("network_id", id.as_str()), ("fixed_ips", filter.as_str())];
        let ports: Vec<PortView> = self.session.list("ports", "ports", &query).await?;
        if ports.is_empty() { Ok(()) } else { Err(NetworkServiceError::AddressInUse { address }) }
    }

    /// A port of the caller's that nobody uses, or this server does.
    pub(super) async fn free_port(
        &self,
        context: &RequestContext,
        id: PortId,
        by: Option<InstanceId>,
    ) -> Answer<PortView> {
        let port: PortView = match self.session.get(&format!("/ports/{id}"), "port").await {
            Err(error) if error.is_not_found() => return Err(NetworkServiceError::PortNotFound { id }),
            answer => answer?,
        };
        if !context.is_admin() && !port.is_of(&context.project_id) {
            return Err(NetworkServiceError::PortNotFound { id });
        }
        if !port.device_id.is_empty() && by.is_none_or(|instance| port.device_id != instance.to_string()) {
            return Err(NetworkServiceError::PortInUse { id });
        }
        Ok(port)
    }

    /// Makes a server's interfaces, all or none: first takes ports that are there, then makes the rest in one request.
    /// `there` are ports that an earlier call made; `first` is the place of the first interface.
    pub(super) async fn make(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interfaces: &[(RequestedInterface, Option<NetworkView>)],
        there: &[PortView],
        first: u64,
    ) -> Answer<Vec<PortView>> {
        let mut done = BTreeMap::new();
        let result = self.fill(context, wanted, interfaces, there, first, &mut done).await;
        if let Err(error) = result {
            for port in done.into_values() {
                if let Done::Changed(port) = port
                    && let Err(undo) = self.let_go(&port).await
                {
                    tracing::warn!(port = %port.id, error = %undo, "an interface is left behind");
                }
            }
            return Err(error);
        }
        Ok(done.into_values().map(Done::port).collect())
    }

    async fn fill(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interfaces: &[(RequestedInterface, Option<NetworkView>)],
        there: &[PortView],
        first: u64,
        done: &mut BTreeMap<u64, Done>,
    ) -> Answer<()> {
        for (order, (interface, _)) in (first..).zip(interfaces) {
            if let Some(id) = interface.port_id {
                done.insert(order, self.claim(context, wanted, id, (order, interface)).await?);
            }
        }
        let (mut orders, mut bodies) = (Vec::new(), Vec::new());
        let mut groups = None;
        for (order, (interface, network)) in (first..).zip(interfaces) {
            let (None, Some(network)) = (interface.port_id, network) else { continue };
            let is_it = |port: &&PortView| match interface.new_port_id {
                Some(request) => port.request() == Some(request),
                None => port.goes_with_server() && port.order() == order,
            };
            if let Some(port) = there.iter().find(is_it) {
                done.insert(order, Done::Found(port.clone()));
                continue;
            }
            if groups.is_none() {
                groups = Some(self.groups_named(&wanted.project_id, &wanted.security_groups).await?);
            }
            orders.push(order);
            let groups = groups.as_deref().unwrap_or_default();
            bodies.push(self.draft(wanted, interface, network, groups, order).await?);
        }
        if bodies.is_empty() {
            return Ok(());
        }
        let addresses = interfaces.iter().filter_map(|(interface, _)| interface.fixed_ip);
        let made = self.session.post::<Vec<PortView>>("/ports", &json!({ "ports": bodies }), "ports").await;
        let mut made = made.map_err(|error| taken(error, addresses))?;
        if made.iter().any(|port| !port.goes_with_server()) {
            // What is not marked would stay behind when its server goes.
            for port in &made {
                self.session.delete(&format!("/ports/{}", port.id)).await?;
            }
            let why =
                "Neutron does not keep binding:profile: the user of the group 'neutron' lacks the right to write it.";
            return Err(NetworkServiceError::Unavailable { source: why.into() });
        }
        // Neutron does not promise an order.
        made.sort_by_key(PortView::order);
        done.extend(orders.into_iter().zip(made.into_iter().map(Done::Changed)));
        self.check_bindings(done, wanted.host.as_ref())
    }

    fn check_bindings(&self, done: &BTreeMap<u64, Done>, host: Option<&HostName>) -> Answer<()> {
        let ports = done.values().map(|done| match done {
            Done::Found(port) | Done::Changed(port) => port,
        });
        match ports.into_iter().find(|port| port.binding_failed()) {
            Some(port) => {
                let host = host.map(HostName::as_str).unwrap_or_default();
                Err(NetworkServiceError::Refused(format!(
                    "Binding failed for port {}, please check neutron logs for more information ({host}).",
                    port.id
                )))
            }
            None => Ok(()),
        }
    }

    async fn draft(
        &self,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
        network: &NetworkView,
        groups: &[SecurityGroupId],
        order: u64,
    ) -> Answer<Value> {
        let mut body = json!({
            "network_id": network.id,
            "project_id": wanted.project_id,
            "admin_state_up": true,
            "device_id": wanted.instance_id,
            "device_owner": owner(wanted),
            "binding:profile": {super::wire::MARK: mark(order, interface, true)},
        });
        if let Some(host) = &wanted.host {
            body["binding:host_id"] = json!(host);
        }
        if let Some(address) = interface.fixed_ip {
            body["fixed_ips"] = json!([{ "ip_address": address }]);
        }
        if !groups.is_empty() && network.port_security() {
            body["security_groups"] = json!(groups);
        }
        if self.session.has_extension("dns-integration").await? {
            body["dns_name"] = json!(wanted.hostname);
        }
        Ok(body)
    }

    /// Takes a port that is there for the server. It stays when the server goes.
    async fn claim(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        id: PortId,
        (order, interface): (u64, &RequestedInterface),
    ) -> Answer<Done> {
        let port = self.free_port(context, id, Some(wanted.instance_id)).await?;
        if port.owner() == Some(wanted.instance_id) && port.host() == wanted.host {
            return Ok(Done::Found(port));
        }
        let body = json!({"port": {
            "device_id": wanted.instance_id,
            "device_owner": owner(wanted),
            "binding:host_id": wanted.host.as_ref().map_or("", HostName::as_str),
            "binding:profile": port.profile_with(Some(mark(order, interface, false))),
        }});
        let taken: PortView = match self.session.put(&format!("/ports/{id}"), &body, "port").await {
            Err(error) if error.is_not_found() => return Err(NetworkServiceError::PortNotFound { id }),
            Err(NeutronError::Refused { kind, .. }) if kind == "PortInUse" || kind == "PortBound" => {
                return Err(NetworkServiceError::PortInUse { id });
            }
            answer => answer?,
        };
        if taken.device_id != wanted.instance_id.to_string() {
            return Err(NetworkServiceError::PortInUse { id });
        }
        Ok(Done::Changed(taken))
    }

    /// Removes a port that was made for its server; gives any other back.
    pub(super) async fn let_go(&self, port: &PortView) -> Answer<()> {
        let path = format!("/ports/{}", port.id);
        if port.goes_with_server() {
            return Ok(self.session.delete(&path).await?);
        }
        // Somebody else may have it by now.
        let now: PortView = match self.session.get(&path, "port").await {
            Err(error) if error.is_not_found() => return Ok(()),
            answer => answer?,
        };
        if now.device_id != port.device_id {
            return Ok(());
        }
        let body = json!({"port": {
            "device_id": "",
            "device_owner": "",
            "binding:host_id": "",
            "binding:profile": now.profile_with(None),
        }});
        match self.session.put::<PortView>(&path, &body, "port").await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Puts a port on a host, or nowhere.
    /// Names the host that the port's server comes to while it runs, or none.
    pub(super) async fn announce(&self, port: &PortView, host: Option<&HostName>) -> Answer<()> {
        let host = host.map(HostName::as_str);
        if port.migrating_to() == host {
            return Ok(());
        }
        let id = port.id;
        let body = json!({"port": {"binding:profile": port.profile_to(host)}});
        match self.session.put::<PortView>(&format!("/ports/{id}"), &body, "port").await {
            Err(error) if error.is_not_found() => Err(NetworkServiceError::PortNotFound { id }),
            answer => answer.map(drop).map_err(Into::into),
        }
    }

    pub(super) async fn place(&self, port: PortView, host: Option<&HostName>) -> Answer<PortView> {
        if port.host().as_ref() == host {
            return Ok(port);
        }
        let id = port.id;
        let mut body = json!({"port": {"binding:host_id": host.map_or("", HostName::as_str)}});
        if port.migrating_to().is_some() {
            body["port"]["binding:profile"] = port.profile_to(None);
        }
        match self.session.put(&format!("/ports/{id}"), &body, "port").await {
            Err(error) if error.is_not_found() => Err(NetworkServiceError::PortNotFound { id }),
            answer => Ok(answer?),
        }
    }

    /// Ids of groups that are named by id or name. Of none, Neutron takes the project's default group.
    async fn groups_named(&self, project: &ProjectId, names: &[String]) -> Answer<Vec<SecurityGroupId>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let query = [("project_id", project.as_str())];
        let own: Vec<GroupView> = self.session.list("security-groups", "security_groups", &query).await?;
        let mut ids = BTreeSet::new();
        for name in names {
            let mut found = own.iter().filter(|group| group.id.to_string() == *name || group.name == *name);
            match (found.next(), found.next()) {
                (Some(group), None) => drop(ids.insert(group.id)),
                (None, _) => return Err(NetworkServiceError::NoSecurityGroup { name: name.clone() }),
                (Some(_), Some(_)) => return Err(NetworkServiceError::ManySecurityGroups { name: name.clone() }),
            }
        }
        Ok(ids.into_iter().collect())
    }

    /// Ports with what guests need to know of their networks and addresses.
    pub(super) async fn vifs(&self, ports: &[PortView]) -> Answer<Vec<Vif>> {
        let networks = ports.iter().map(|port| port.network_id.to_string()).collect();
        let subnets = ports.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.subnet_id.to_string()).collect();
        let ids = ports.iter().map(|port| port.id.to_string()).collect();
        let networks: Vec<NetworkView> = self.by("networks", "id", &networks).await?;
        let subnets: Vec<SubnetView> = self.by("subnets", "id", &subnets).await?;
        let floating: Vec<FloatingIpView> = self.by("floatingips", "port_id", &ids).await?;
        let networks: BTreeMap<NetworkId, NetworkView> = networks.into_iter().map(|n| (n.id, n)).collect();
        let subnets: BTreeMap<SubnetId, SubnetView> = subnets.into_iter().map(|s| (s.id, s)).collect();
        Ok(ports.iter().map(|port| vif(port, networks.get(&port.network_id), &subnets, &floating)).collect())
    }
}

/// A conflict over an address that was asked for.
fn taken(error: NeutronError, mut asked: impl Iterator<Item = IpAddr>) -> NetworkServiceError {
    const KINDS: [&str; 3] = ["IpAddressInUse", "IpAddressAlreadyAllocated", "IPAddressInUse"];
    match &error {
        NeutronError::Refused { kind, message, .. } if KINDS.contains(&kind.as_str()) => {
            match asked.find(|address| names(message, *address)) {
                Some(address) => NetworkServiceError::AddressInUse { address },
                None => error.into(),
            }
        }
        _ => error.into(),
    }
}

/// Does the text name the address, and not one that begins or ends with it?
fn names(text: &str, address: IpAddr) -> bool {
    let inside = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    text.split(|c: char| !inside(c)).any(|word| word.trim_end_matches(['.', ':']) == address.to_string())
}

fn vif(
    port: &PortView,
    network: Option<&NetworkView>,
    subnets: &BTreeMap<SubnetId, SubnetView>,
    floating: &[FloatingIpView],
) -> Vif {
    let addresses = port.fixed_ips.iter().filter_map(|fixed| {
        let subnet = subnets.get(&fixed.subnet_id)?;
        let stands =
            |one: &&FloatingIpView| one.port_id == Some(port.id) && one.fixed_ip_address == Some(fixed.ip_address);
        Some(VifAddress {
            address: fixed.ip_address,
            subnet_id: subnet.id,
            cidr: subnet.cidr,
            gateway: subnet.gateway_ip,
            dns: subnet.dns_nameservers.clone(),
            routes: subnet.host_routes.clone(),
            dhcp: subnet.enable_dhcp,
            ipv6_address_mode: subnet.ipv6_address_mode.clone(),
            floating: floating.iter().filter(stands).map(|one| one.floating_ip_address).collect(),
        })
    });
    Vif {
        port_id: port.id,
        network_id: port.network_id,
        label: network.map(|network| network.name.clone()).unwrap_or_default(),
        mtu: network.and_then(|network| network.mtu).unwrap_or(1500),
        mac_address: port.mac_address,
        addresses: addresses.collect(),
        status: port.status(),
        host: port.host(),
        delete_with_instance: port.goes_with_server(),
        tag: port.tag().map(str::to_owned),
        asked_as: port.request(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_text_is_the_whole_one() {
        let is = |text: &str| names(text, "10.0.0.5".parse().unwrap());
        assert!(is("IP address 10.0.0.5 already allocated in subnet x.") && is("taken: 10.0.0.5."));
        assert!(!is("IP address 10.0.0.55 already allocated") && !is("110.0.0.5"));
    }
}
