//! What compute asks for: the interfaces of servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use jiff::SignedDuration;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId};
use nova_core::network::{
    FloatingIp, InstanceNetworks, Network, NetworkProblem, NetworkResource, NetworkService, NetworkServiceError, Port,
    PortStatus, RequestedInterface, RequestedNetworks, Subnet, Vif, VifAddress,
};
use nova_db::{
    FixedIpRequest, FloatingIpField, ListQuery, NetworkField, NewPort, PortField, PortQuery, SecurityGroupField,
    StoreError, SubnetField,
};

use sha2::Digest as _;

use super::NetworkManager;
use super::manager::may_see;
use super::servers::{AT_ONCE, is_of_compute};

type Answer<T> = Result<T, NetworkServiceError>;

/// What the store says, as compute understands it.
fn failed(error: StoreError) -> NetworkServiceError {
    match error {
        StoreError::Network(NetworkProblem::OverQuota { .. }) => NetworkServiceError::OverQuota,
        StoreError::Network(NetworkProblem::AddressInUse { address, .. }) => {
            NetworkServiceError::AddressInUse { address }
        }
        StoreError::Network(NetworkProblem::Exhausted { network }) => NetworkServiceError::NoMoreAddresses { network },
        StoreError::Network(problem) => NetworkServiceError::Refused(problem.to_string()),
        other => NetworkServiceError::Unavailable { source: Box::new(other) },
    }
}

/// Owned by compute, in that zone.
fn owner(wanted: &InstanceNetworks) -> String {
    format!("compute:{}", wanted.availability_zone.as_deref().unwrap_or("nova"))
}

#[async_trait]
impl NetworkService for NetworkManager {
    async fn validate(&self, context: &RequestContext, requested: &RequestedNetworks, count: u32) -> Answer<()> {
        let interfaces = self.plan(context, &context.project_id, requested).await?;
        let mut new = 0;
        let mut ports = BTreeSet::new();
        for interface in &interfaces {
            match interface.port_id {
                Some(id) if !ports.insert(id) || count > 1 => return Err(NetworkServiceError::PortTwice { id }),
                Some(id) => drop(self.free_port(context, id, None).await?),
                None => new += u64::from(count),
            }
            if let (Some(address), Some(network)) = (interface.fixed_ip, interface.network_id) {
                self.check_address(network, address).await?;
            }
        }
        let accounts = self.store.network_accounts(&context.project_id).await.map_err(failed)?;
        let account = accounts.get(&NetworkResource::Port).copied().unwrap_or_default();
        let limit = account.limit.unwrap_or_else(|| self.limit(NetworkResource::Port));
        if new > 0 && limit.is_some_and(|limit| account.used + new > limit) {
            return Err(NetworkServiceError::OverQuota);
        }
        Ok(())
    }

    async fn allocate(&self, context: &RequestContext, wanted: &InstanceNetworks) -> Answer<Vec<Vif>> {
        let made = self.ports_of(wanted.instance_id).await?;
        if !made.is_empty() && !matches!(wanted.requested, RequestedNetworks::These(_)) {
            return self.vifs(made).await;
        }
        let mut interfaces = self.plan(context, &wanted.project_id, &wanted.requested).await?;
        for (place, interface) in interfaces.iter_mut().enumerate() {
            if interface.port_id.is_none() && interface.new_port_id.is_none() {
                interface.new_port_id = Some(port_of(wanted.instance_id, place));
            }
        }
        self.prepare_auto(wanted, &interfaces).await?;
        let ports = self.make(context, wanted, &interfaces, made).await?;
        self.vifs(ports).await
    }

    async fn deallocate(&self, _context: &RequestContext, instance: InstanceId) -> Answer<()> {
        let ports = self.ports_of(instance).await?;
        for port in &ports {
            self.let_go(port).await?;
        }
        self.ports_changed(&ports);
        Ok(())
    }

    async fn attach(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
    ) -> Answer<Vif> {
        let asked = match interface.network_id.is_none() && interface.port_id.is_none() {
            true => RequestedNetworks::Unsaid,
            false => RequestedNetworks::These(vec![interface.clone()]),
        };
        let made = self.ports_of(wanted.instance_id).await?;
        let named = interface.port_id.or(interface.new_port_id);
        if let Some(port) = made.into_iter().find(|port| Some(port.id) == named) {
            let id = port.id;
            return self.vifs(vec![port]).await?.pop().ok_or(NetworkServiceError::PortNotFound { id });
        }
        let mut interfaces = self.plan(context, &wanted.project_id, &asked).await?;
        if let [one] = interfaces.as_mut_slice() {
            one.new_port_id = interface.new_port_id;
        }
        let ports = self.make(context, wanted, &interfaces, Vec::new()).await?;
        let vif = self.vifs(ports).await?.into_iter().next();
        vif.ok_or_else(|| NetworkServiceError::Refused("No network is available to this project.".to_owned()))
    }

    async fn detach(&self, _context: &RequestContext, instance: InstanceId, id: PortId) -> Answer<()> {
        let ports = self.ports_of(instance).await?;
        let port = ports.iter().find(|port| port.id == id).ok_or(NetworkServiceError::PortNotFound { id })?;
        self.let_go(port).await?;
        self.ports_changed([port]);
        Ok(())
    }

    async fn bind(&self, _context: &RequestContext, instance: InstanceId, host: Option<&HostName>) -> Answer<Vec<Vif>> {
        let mut bound = Vec::new();
        for port in self.ports_of(instance).await? {
            if port.host.as_ref() == host {
                bound.push(port);
                continue;
            }
            let device = instance.to_string();
            let changed = self.change_port(port.id, |port| {
                if port.device_id == device {
                    place(port, host);
                }
                Ok(())
            });
            let changed = changed.await.map_err(failed)?;
            // Where it was and where it is.
            self.ports_changed([&port, &changed]);
            bound.push(changed);
        }
        self.vifs(bound).await
    }

    async fn set_status(&self, _context: &RequestContext, id: PortId, status: PortStatus) -> Answer<()> {
        let changed = self.change_port(id, |port| {
            port.status = status;
            Ok(())
        });
        match changed.await {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound { .. }) => Err(NetworkServiceError::PortNotFound { id }),
            Err(error) => Err(failed(error)),
        }
    }

    async fn set_statuses(
        &self,
        _context: &RequestContext,
        host: &HostName,
        ports: &BTreeMap<PortId, PortStatus>,
    ) -> Answer<()> {
        self.store.set_port_statuses(host, ports).await.map(drop).map_err(failed)
    }

    async fn owns_port(
        &self,
        _context: &RequestContext,
        instance: InstanceId,
        project: &ProjectId,
        host: &HostName,
        port: PortId,
    ) -> Answer<bool> {
        match self.store.get_port(port).await {
            Ok(port) => {
                let of_server = is_of_compute(&port) && port.device_id == instance.to_string();
                Ok(of_server && port.project_id == *project && port.host.as_ref() == Some(host))
            }
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn interfaces(&self, _context: &RequestContext, instances: &[InstanceId]) -> Answer<Vec<(InstanceId, Vif)>> {
        let ports = self.ports_of_servers(instances).await.map_err(failed)?;
        let owners: Vec<Option<InstanceId>> = ports.iter().map(|port| port.device_id.parse().ok()).collect();
        let vifs = self.vifs(ports).await?;
        Ok(owners.into_iter().zip(vifs).filter_map(|(owner, vif)| Some((owner?, vif))).collect())
    }
}

/// The id of the port that is made for a server's interface at that place: the same call again makes the same port, and
/// of two at once one finds it made.
fn port_of(instance: InstanceId, place: usize) -> PortId {
    let mut text = sha2::Sha256::new();
    text.update(instance.as_uuid().as_bytes());
    text.update(u64::try_from(place).unwrap_or(u64::MAX).to_be_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(text.finalize()).for_each(|(byte, hashed)| *byte = hashed);
    PortId::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Puts a port on a host, or nowhere.
fn place(port: &mut Port, host: Option<&HostName>) {
    port.host = host.cloned();
    port.status = PortStatus::Down;
    port.binding.vif_type = if host.is_some() { "bridge" } else { "unbound" }.to_owned();
}

impl NetworkManager {
    /// A server's ports, in order.
    async fn ports_of(&self, instance: InstanceId) -> Answer<Vec<Port>> {
        let list = ListQuery::of(PortField::DeviceId, instance);
        let ports = self.store.list_ports(&PortQuery { list, ..PortQuery::default() }).await.map_err(failed)?;
        Ok(ports.into_iter().filter(is_of_compute).collect())
    }

    /// What is asked for, as interfaces each with its network or port. Checks that they are there and the project's to use.
    async fn plan(
        &self,
        context: &RequestContext,
        project: &ProjectId,
        requested: &RequestedNetworks,
    ) -> Answer<Vec<RequestedInterface>> {
        let of =
            |network: &Network| RequestedInterface { network_id: Some(network.id), ..RequestedInterface::default() };
        match requested {
            RequestedNetworks::Nothing => Ok(Vec::new()),
            RequestedNetworks::Unsaid | RequestedNetworks::Auto => {
                let mut networks = self.networks_of(project).await?;
                match (networks.len(), requested) {
                    (0, RequestedNetworks::Auto) => Ok(vec![self.auto_interface(project).await?]),
                    (0 | 1, _) => Ok(networks.pop().iter().map(of).collect()),
                    _ => Err(NetworkServiceError::Ambiguous),
                }
            }
            RequestedNetworks::These(interfaces) => {
                let mut named = BTreeSet::new();
                if let Some(id) = interfaces.iter().filter_map(|i| i.port_id).find(|id| !named.insert(*id)) {
                    return Err(NetworkServiceError::PortTwice { id });
                }
                for id in interfaces.iter().filter(|i| i.port_id.is_none()).filter_map(|i| i.network_id) {
                    self.bootable_network(context, project, id).await?;
                }
                Ok(interfaces.clone())
            }
        }
    }

    /// Networks that a server without a wish may be plugged into: the project's own, or else shared ones, with a subnet.
    pub(crate) async fn networks_of(&self, project: &ProjectId) -> Answer<Vec<Network>> {
        let query = ListQuery { visible_to: Some(project.clone()), ..ListQuery::default() };
        let all: Vec<Network> = self.store.list_networks(&query).await.map_err(failed)?;
        let inner = |network: &&Network| !network.external;
        let own: Vec<Network> = all.iter().filter(inner).filter(|n| n.project_id == *project).cloned().collect();
        if !own.is_empty() {
            return Ok(own);
        }
        Ok(all.iter().filter(inner).filter(|network| network.shared).cloned().collect())
    }

    async fn bootable_network(&self, context: &RequestContext, project: &ProjectId, id: NetworkId) -> Answer<Network> {
        let network = match self.store.get_network(id).await {
            Ok(network) if may_see(context, &network) => network,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Err(NetworkServiceError::NetworkNotFound { id }),
            Err(error) => return Err(failed(error)),
        };
        if network.external && !network.shared && !context.is_admin() && network.project_id != *project {
            return Err(NetworkServiceError::External { id });
        }
        let subnets = ListQuery { limit: Some(1), ..ListQuery::of(SubnetField::NetworkId, id) };
        if self.store.list_subnets(&subnets).await.map_err(failed)?.is_empty() {
            return Err(NetworkServiceError::NoSubnet { id });
        }
        Ok(network)
    }

    async fn check_address(&self, network: NetworkId, address: IpAddr) -> Answer<()> {
        let subnets = self.store.list_subnets(&ListQuery::of(SubnetField::NetworkId, network)).await.map_err(failed)?;
        if !subnets.iter().any(|subnet| subnet.cidr.contains(address)) {
            let problem = NetworkProblem::AddressOutsideNetwork { network, address };
            return Err(NetworkServiceError::Refused(problem.to_string()));
        }
        let list = ListQuery::of(PortField::NetworkId, network);
        let query = PortQuery { list, ip_addresses: vec![address], ..PortQuery::default() };
        match self.store.list_ports(&query).await.map_err(failed)?.is_empty() {
            true => Ok(()),
            false => Err(NetworkServiceError::AddressInUse { address }),
        }
    }

    /// A port of the caller's that nobody uses, or this server does.
    async fn free_port(&self, context: &RequestContext, id: PortId, by: Option<InstanceId>) -> Answer<Port> {
        let port = match self.store.get_port(id).await {
            Ok(port) if context.is_admin() || port.project_id == context.project_id => port,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Err(NetworkServiceError::PortNotFound { id }),
            Err(error) => return Err(failed(error)),
        };
        if !port.device_id.is_empty() && by.is_none_or(|instance| port.device_id != instance.to_string()) {
            return Err(NetworkServiceError::PortInUse { id });
        }
        Ok(port)
    }

    /// Makes interfaces, all or none: first those by ports that are there, then the rest in one transaction. Those that
    /// the server has are not made again.
    async fn make(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interfaces: &[RequestedInterface],
        has: Vec<Port>,
    ) -> Answer<Vec<Port>> {
        let mut made = BTreeMap::new();
        for port in has {
            let is_it = |interface: &RequestedInterface| interface.port_id.or(interface.new_port_id) == Some(port.id);
            if let Some(place) = interfaces.iter().position(is_it) {
                made.insert(place, port);
            }
        }
        if made.len() == interfaces.len() {
            return Ok(made.into_values().collect());
        }
        let result = self.fill(context, wanted, interfaces, &mut made).await;
        if let Err(error) = result {
            for port in made.values() {
                if let Err(undo) = self.let_go(port).await {
                    tracing::warn!(port = %port.id, error = %undo, "an interface is left behind");
                }
            }
            self.ports_changed(made.values());
            return Err(error);
        }
        self.ports_changed(made.values());
        Ok(made.into_values().collect())
    }

    async fn fill(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interfaces: &[RequestedInterface],
        made: &mut BTreeMap<usize, Port>,
    ) -> Answer<()> {
        for (place, interface) in interfaces.iter().enumerate() {
            if let (Some(id), false) = (interface.port_id, made.contains_key(&place)) {
                made.insert(place, self.claim(context, wanted, id, interface.tag.as_deref()).await?);
            }
        }
        let missing = |place: &usize| !made.contains_key(place);
        let missing: Vec<usize> = (0..interfaces.len()).filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let groups = self.groups_named(&wanted.project_id, &wanted.security_groups).await?;
        let (mut places, mut new) = (Vec::new(), Vec::new());
        for place in missing {
            let Some(interface) = interfaces.get(place) else { continue };
            if let Some(network) = interface.network_id {
                let asked_by = (!context.is_admin()).then(|| wanted.project_id.clone());
                let mut port = self.draft(wanted, network, interface, &groups).await?;
                // Lists are in the order of time.
                let step = SignedDuration::from_micros(i64::try_from(place).unwrap_or_default());
                port.port.created_at = port.port.created_at.checked_add(step).unwrap_or(port.port.created_at);
                new.push(NewPort { asked_by, ..port });
                places.push(place);
            }
        }
        if !new.is_empty() {
            let (draws, ids) = (vec![true; new.len()], new.iter().map(|new| new.port.id).collect::<Vec<_>>());
            let ports = match self.create_ports(new, &draws).await {
                Ok(ports) => ports,
                Err(error) => self.made_meanwhile(wanted.instance_id, &ids).await?.ok_or_else(|| failed(error))?,
            };
            made.extend(places.into_iter().zip(ports));
        }
        Ok(())
    }

    /// The ports of these ids, if somebody else has made all of them for the server.
    async fn made_meanwhile(&self, instance: InstanceId, ids: &[PortId]) -> Answer<Option<Vec<Port>>> {
        let there = self.ports_of(instance).await?;
        Ok(ids.iter().map(|id| there.iter().find(|port| port.id == *id).cloned()).collect())
    }

    async fn draft(
        &self,
        wanted: &InstanceNetworks,
        network: NetworkId,
        interface: &RequestedInterface,
        groups: &[SecurityGroupId],
    ) -> Answer<NewPort> {
        let security = self.store.get_network(network).await.map_err(failed)?.port_security_enabled;
        let mut new = self.new_port(network, &wanted.project_id);
        if let Some(id) = interface.new_port_id {
            new.port.id = id;
        }
        new.port.device_id = wanted.instance_id.to_string();
        new.port.device_owner = owner(wanted);
        new.port.dns_name = wanted.hostname.clone();
        new.port.set_device_tag(interface.tag.as_deref());
        new.port.delete_with_device = true;
        new.port.port_security_enabled = security;
        if security {
            new.port.security_groups = groups.to_vec();
        }
        if wanted.host.is_some() {
            place(&mut new.port, wanted.host.as_ref());
        }
        let asked = interface.fixed_ip.map(|address| FixedIpRequest { subnet_id: None, ip_address: Some(address) });
        new.fixed_ips = asked.map(|asked| vec![asked]);
        Ok(new)
    }

    /// Takes a port that is there for the server. It stays when the server goes.
    async fn claim(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        id: PortId,
        tag: Option<&str>,
    ) -> Answer<Port> {
        self.free_port(context, id, Some(wanted.instance_id)).await?;
        let (device, owner) = (wanted.instance_id.to_string(), owner(wanted));
        let changed = self.change_port(id, |port| {
            if !port.device_id.is_empty() && port.device_id != device {
                return Err(NetworkProblem::PortInUse { port: id, device: port.device_id.clone() }.into());
            }
            port.device_id.clone_from(&device);
            port.device_owner.clone_from(&owner);
            port.set_device_tag(tag);
            place(port, wanted.host.as_ref());
            Ok(())
        });
        changed.await.map_err(|error| match error {
            StoreError::Network(NetworkProblem::PortInUse { .. }) => NetworkServiceError::PortInUse { id },
            StoreError::NotFound { .. } => NetworkServiceError::PortNotFound { id },
            other => failed(other),
        })
    }

    /// Removes a port that was made for its server; gives any other back.
    async fn let_go(&self, port: &Port) -> Answer<()> {
        let device = port.device_id.clone();
        let done = if port.delete_with_device {
            self.store.delete_port(port.id).await
        } else {
            let freed = self.change_port(port.id, |port| {
                // Somebody else may have it by now.
                if port.device_id == device {
                    port.device_id.clear();
                    port.device_owner.clear();
                    port.set_device_tag(None);
                    place(port, None);
                }
                Ok(())
            });
            freed.await
        };
        match done {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Ids of groups that are named by id or name; of none, the project's default group.
    async fn groups_named(&self, project: &ProjectId, names: &[String]) -> Answer<Vec<SecurityGroupId>> {
        let default = self.default_group(project).await.map_err(failed)?;
        if names.is_empty() {
            return Ok(vec![default.id]);
        }
        let own = self.store.list_security_groups(&ListQuery::of(SecurityGroupField::ProjectId, project)).await;
        let own = own.map_err(failed)?;
        let mut ids = Vec::new();
        for name in names {
            let fits = |id: &SecurityGroupId, text: &str| id.to_string() == *name || text == name;
            let mut found = own.iter().filter(|group| fits(&group.id, &group.name));
            match (found.next(), found.next()) {
                (Some(group), None) => ids.push(group.id),
                (None, _) => return Err(NetworkServiceError::NoSecurityGroup { name: name.clone() }),
                (Some(_), Some(_)) => return Err(NetworkServiceError::ManySecurityGroups { name: name.clone() }),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Ports with what guests need to know of their networks and addresses: three questions, however many there are.
    pub(super) async fn vifs(&self, ports: Vec<Port>) -> Answer<Vec<Vif>> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let networks = texts(ports.iter().map(|port| port.network_id));
        let subnets = texts(ports.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.subnet_id));
        let ids = texts(ports.iter().map(|port| port.id));
        let (mut wires, mut ranges, mut floating) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for some in networks.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(NetworkField::Id, some.to_vec())], ..ListQuery::default() };
            let found = self.store.list_networks(&query).await.map_err(failed)?;
            wires.extend(found.into_iter().map(|network| (network.id, network)));
        }
        for some in subnets.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(SubnetField::Id, some.to_vec())], ..ListQuery::default() };
            let found = self.store.list_subnets(&query).await.map_err(failed)?;
            ranges.extend(found.into_iter().map(|subnet| (subnet.id, subnet)));
        }
        for some in ids.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(FloatingIpField::PortId, some.to_vec())], ..ListQuery::default() };
            floating.extend(self.store.list_floating_ips(&query).await.map_err(failed)?);
        }
        let mut of_port: BTreeMap<PortId, Vec<FloatingIp>> = BTreeMap::new();
        for one in floating {
            if let Some(port) = one.port_id {
                of_port.entry(port).or_default().push(one);
            }
        }
        Ok(ports
            .iter()
            .map(|port| {
                vif(port, wires.get(&port.network_id), &ranges, of_port.get(&port.id).map_or(&[], Vec::as_slice))
            })
            .collect())
    }
}

fn texts(ids: impl Iterator<Item = impl std::fmt::Display>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn vif(port: &Port, network: Option<&Network>, subnets: &BTreeMap<SubnetId, Subnet>, floating: &[FloatingIp]) -> Vif {
    let addresses = port.fixed_ips.iter().filter_map(|fixed| {
        let subnet = subnets.get(&fixed.subnet_id)?;
        let stands = |one: &&FloatingIp| one.port_id == Some(port.id) && one.fixed_ip_address == Some(fixed.ip_address);
        Some(VifAddress {
            address: fixed.ip_address,
            subnet_id: subnet.id,
            cidr: subnet.cidr,
            gateway: subnet.gateway_ip,
            dns: subnet.dns_nameservers.clone(),
            routes: subnet.host_routes.clone(),
            // On the operator's bridge nobody of ours tells it.
            dhcp: subnet.enable_dhcp && network.is_none_or(|network| network.network_type.as_deref() != Some("flat")),
            ipv6_address_mode: subnet.ipv6_address_mode.clone(),
            floating: floating.iter().filter(stands).map(|one| one.floating_ip_address).collect(),
        })
    });
    Vif {
        port_id: port.id,
        network_id: port.network_id,
        label: network.map(|network| network.name.clone()).unwrap_or_default(),
        mtu: network.map_or(1500, |network| network.mtu),
        mac_address: port.mac_address,
        addresses: addresses.collect(),
        status: port.status,
        host: port.host.clone(),
        delete_with_instance: port.delete_with_device,
    }
}
