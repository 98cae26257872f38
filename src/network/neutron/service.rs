//! What compute asks for, asked of Neutron.

use std::collections::BTreeSet;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, PortId, ProjectId};
use nova_core::network::{
    InstanceNetworks, NetworkService, NetworkServiceError, PortStatus, RequestedInterface, RequestedNetworks, Vif,
};

use super::NeutronClient;
use super::ports::Answer;
use super::wire::{PortView, QuotaView};

#[async_trait]
impl NetworkService for NeutronClient {
    async fn validate(&self, context: &RequestContext, requested: &RequestedNetworks, count: u32) -> Answer<()> {
        let project = &context.project_id;
        let mut new = 0_i64;
        if *requested == RequestedNetworks::Auto && self.networks_of(project).await?.is_empty() {
            // Looked at only: nothing is made for a request that may be refused.
            self.check_auto_topology(project).await?;
            new = i64::from(count);
        } else {
            let mut ports = BTreeSet::new();
            for (interface, _) in self.plan(context, project, requested).await? {
                match interface.port_id {
                    Some(id) if !ports.insert(id) || count > 1 => return Err(NetworkServiceError::PortTwice { id }),
                    Some(id) => drop(self.free_port(context, id, None).await?),
                    None => new += i64::from(count),
                }
                if let (Some(address), Some(network)) = (interface.fixed_ip, interface.network_id) {
                    self.check_address(network, address).await?;
                }
            }
        }
        if new == 0 {
            return Ok(());
        }
        let path = format!("/quotas/{}/details.json", project.as_str());
        match self.session.get::<QuotaView>(&path, "quota").await {
            Ok(QuotaView { port }) if port.limit >= 0 && port.used + port.reserved + new > port.limit => {
                Err(NetworkServiceError::OverQuota)
            }
            // Without the extension, the making of ports will tell.
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn has_network(&self, _context: &RequestContext, project: &ProjectId) -> Answer<bool> {
        Ok(!self.networks_of(project).await?.is_empty())
    }

    async fn allocate(&self, context: &RequestContext, wanted: &InstanceNetworks) -> Answer<Vec<Vif>> {
        let there = self.ports_of(wanted.instance_id).await?;
        let complete = match &wanted.requested {
            RequestedNetworks::These(interfaces) => there.len() >= interfaces.len(),
            _ => !there.is_empty(),
        };
        if complete {
            return self.vifs(&there).await;
        }
        let interfaces = self.plan(context, &wanted.project_id, &wanted.requested).await?;
        let ports = self.make(context, wanted, &interfaces, &there, 0).await?;
        self.vifs(&ports).await
    }

    async fn deallocate(&self, _context: &RequestContext, instance: InstanceId) -> Answer<()> {
        for port in self.ports_of(instance).await? {
            self.let_go(&port).await?;
        }
        Ok(())
    }

    async fn attach(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
    ) -> Answer<Vif> {
        let there = self.ports_of(wanted.instance_id).await?;
        let asked = match interface.network_id.is_none() && interface.port_id.is_none() {
            true => RequestedNetworks::Unsaid,
            false => RequestedNetworks::These(vec![interface.clone()]),
        };
        let mut interfaces = self.plan(context, &wanted.project_id, &asked).await?;
        for (planned, _) in &mut interfaces {
            planned.new_port_id = interface.new_port_id;
            planned.fixed_ip = interface.fixed_ip;
            planned.tag.clone_from(&interface.tag);
        }
        let known = there.iter().map(PortView::order).filter(|order| *order < u64::MAX);
        let first = known.max().map_or(there.len() as u64, |last| last + 1);
        let ports = self.make(context, wanted, &interfaces, &there, first).await?;
        let vif = self.vifs(&ports).await?.into_iter().next();
        vif.ok_or_else(|| NetworkServiceError::Refused("No network is available to this project.".to_owned()))
    }

    async fn detach(&self, _context: &RequestContext, instance: InstanceId, id: PortId) -> Answer<()> {
        let ports = self.ports_of(instance).await?;
        // Who asked for a port under an id knows it by that; Neutron has given it another.
        let is_it = |port: &&PortView| port.id == id || port.request() == Some(id);
        let port = ports.iter().find(is_it).ok_or(NetworkServiceError::PortNotFound { id })?;
        self.let_go(port).await
    }

    async fn prepare_binding(
        &self,
        _context: &RequestContext,
        instance: InstanceId,
        host: Option<&HostName>,
    ) -> Answer<()> {
        for port in self.ports_of(instance).await? {
            self.announce(&port, host).await?;
        }
        Ok(())
    }

    async fn bind(&self, _context: &RequestContext, instance: InstanceId, host: Option<&HostName>) -> Answer<Vec<Vif>> {
        let mut bound = Vec::new();
        for port in self.ports_of(instance).await? {
            bound.push(self.place(port, host).await?);
        }
        self.vifs(&bound).await
    }

    /// Neutron hears it from its own agents.
    async fn set_status(&self, _context: &RequestContext, _port: PortId, _status: PortStatus) -> Answer<()> {
        Ok(())
    }

    /// Its agents plug in what they find on their hosts.
    fn tells_when_plugged(&self) -> bool {
        true
    }

    async fn interfaces(&self, _context: &RequestContext, instances: &[InstanceId]) -> Answer<Vec<(InstanceId, Vif)>> {
        let ports = self.ports_of_all(instances).await?;
        let owners: Vec<Option<InstanceId>> = ports.iter().map(PortView::owner).collect();
        let vifs = self.vifs(&ports).await?;
        Ok(owners.into_iter().zip(vifs).filter_map(|(owner, vif)| Some((owner?, vif))).collect())
    }
}
