//! What compute asks for: the interfaces of servers.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::SignedDuration;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId};
use nova_core::network::{
    InstanceNetworks, NetworkProblem, NetworkResource, NetworkService, NetworkServiceError, Port, PortStatus,
    RequestedInterface, RequestedNetworks, Vif,
};
use nova_db::{FixedIpRequest, ListQuery, NewPort, PortField, PortQuery, StoreError};
use sha2::Digest as _;

use super::NetworkManager;
use super::servers::is_of_compute;

pub(super) type Answer<T> = Result<T, NetworkServiceError>;

/// What the store says, as compute understands it.
pub(super) fn failed(error: StoreError) -> NetworkServiceError {
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

    async fn has_network(&self, _context: &RequestContext, project: &ProjectId) -> Answer<bool> {
        Ok(!self.networks_of(project).await?.is_empty())
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
            // Without a network that is asked for, the plan is made of what the project has.
            one.tag.clone_from(&interface.tag);
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

    async fn prepare_binding(
        &self,
        _context: &RequestContext,
        instance: InstanceId,
        host: Option<&HostName>,
    ) -> Answer<()> {
        for port in self.ports_of(instance).await? {
            if port.migrating_to().as_ref() == host {
                continue;
            }
            let device = instance.to_string();
            let changed = self.change_port(port.id, |port| {
                if port.device_id == device {
                    port.set_migrating_to(host);
                }
                Ok(())
            });
            let changed = changed.await.map_err(failed)?;
            self.ports_changed([&port, &changed]);
        }
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
    port.set_migrating_to(None);
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
}
