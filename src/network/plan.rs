//! What a server asks for, held against the books: which networks, ports, addresses and groups those are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::context::RequestContext;
use nova_core::ids::{InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId};
use nova_core::network::{Network, NetworkProblem, NetworkServiceError, Port, RequestedInterface, RequestedNetworks};
use nova_db::{ListQuery, PortField, PortQuery, SecurityGroupField, StoreError, SubnetField};

use super::NetworkManager;
use super::instance::{Answer, failed};
use super::manager::may_see;

impl NetworkManager {
    /// What is asked for, as interfaces each with its network or port. Checks that they are there and the project's to use.
    pub(super) async fn plan(
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

    pub(super) async fn check_address(&self, network: NetworkId, address: IpAddr) -> Answer<()> {
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
    pub(super) async fn free_port(&self, context: &RequestContext, id: PortId, by: Option<InstanceId>) -> Answer<Port> {
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

    /// Ids of groups that are named by id or name; of none, the project's default group.
    pub(super) async fn groups_named(&self, project: &ProjectId, names: &[String]) -> Answer<Vec<SecurityGroupId>> {
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
}
