//! A network service whose interfaces others plug in: what hosts say of them changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, PortId, ProjectId};
use nova_core::network::{
    InstanceNetworks, NetworkService, NetworkServiceError, PortStatus, RequestedInterface, RequestedNetworks, Vif,
};

/// The books, as an outside Neutron has them.
pub struct Outside(pub Arc<dyn NetworkService>);

type Answer<T> = Result<T, NetworkServiceError>;

#[async_trait]
impl NetworkService for Outside {
    async fn validate(&self, context: &RequestContext, requested: &RequestedNetworks, count: u32) -> Answer<()> {
        self.0.validate(context, requested, count).await
    }
    async fn has_network(&self, context: &RequestContext, project: &ProjectId) -> Answer<bool> {
        self.0.has_network(context, project).await
    }
    async fn allocate(&self, context: &RequestContext, wanted: &InstanceNetworks) -> Answer<Vec<Vif>> {
        self.0.allocate(context, wanted).await
    }
    async fn deallocate(&self, context: &RequestContext, instance: InstanceId) -> Answer<()> {
        self.0.deallocate(context, instance).await
    }
    async fn attach(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
    ) -> Answer<Vif> {
        self.0.attach(context, wanted, interface).await
    }
    async fn detach(&self, context: &RequestContext, instance: InstanceId, port: PortId) -> Answer<()> {
        self.0.detach(context, instance, port).await
    }
    async fn prepare_binding(&self, context: &RequestContext, id: InstanceId, host: Option<&HostName>) -> Answer<()> {
        self.0.prepare_binding(context, id, host).await
    }
    async fn bind(&self, context: &RequestContext, id: InstanceId, host: Option<&HostName>) -> Answer<Vec<Vif>> {
        self.0.bind(context, id, host).await
    }
    async fn set_status(&self, _: &RequestContext, _: PortId, _: PortStatus) -> Answer<()> {
        Ok(())
    }
    async fn set_statuses(&self, _: &RequestContext, _: &HostName, _: &BTreeMap<PortId, PortStatus>) -> Answer<()> {
        Ok(())
    }
    fn tells_when_plugged(&self) -> bool {
        true
    }
    async fn interfaces(&self, context: &RequestContext, instances: &[InstanceId]) -> Answer<Vec<(InstanceId, Vif)>> {
        self.0.interfaces(context, instances).await
    }
}
