//! In which availability zones hosts are, and telling the schedulers of it.

use nova_core::aggregate::ZoneMap;
use nova_core::context::RequestContext;
use nova_core::host::Service;
use nova_core::rpc::scheduler::HostsChangedRequest;
use nova_db::StoreError;

use super::ComputeApi;
use super::services::COMPUTE;

impl ComputeApi {
    /// Zones as aggregates make them.
    pub(super) async fn zones(&self) -> Result<ZoneMap, StoreError> {
        Ok(ZoneMap::of(&self.store.list_aggregates().await?))
    }

    /// All services, compute services in the zones of their hosts (nova/availability_zones.py,
    /// `set_availability_zones`).
    pub(super) async fn zoned_services(&self) -> Result<Vec<Service>, StoreError> {
        let (zones, mut services) = (self.zones().await?, self.store.list_services().await?);
        for service in services.iter_mut().filter(|service| service.binary == COMPUTE) {
            service.zone = zones.zone(&service.host, &service.zone).clone();
        }
        Ok(services)
    }

    /// What is told is in the store; schedulers that do not hear of it now read it later.
    pub(super) async fn tell_schedulers(&self, context: &RequestContext, news: HostsChangedRequest) {
        if let Err(error) = self.orders.hosts_changed(context, news).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "schedulers were not told of a change");
        }
    }
}
