//! `/os-services`: who is there, and taking hosts out of scheduling (nova/api/openstack/compute/services.py).

#[cfg(test)]
mod tests;
mod update;
pub mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::host::Service;
use nova_core::ids::ServiceId;
use nova_core::rpc::scheduler::{HostsChangedRequest, ServiceNews};
use nova_db::{Deleted, InstanceQuery, StoreError};
use serde_json::json;

pub(super) use self::update::{Change, Status};
use self::view::Liveness;
use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::microversion::{since, until};
use crate::api::policy::enforce;
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, route};

/// The binary of compute services: the only ones that can be taken out.
pub const COMPUTE: &str = "nova-compute";

/// Services behind HTTP are not listed, as they send no heartbeats in Nova.
pub const HIDDEN: [&str; 3] = ["nova-osapi_compute", "nova-metadata", "nova-api"];

/// How often a change is tried when somebody else changes the service at the same time.
const ATTEMPTS: usize = 5;

/// The resource.
pub struct Services {
    api: Arc<ComputeApi>,
}

impl Services {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-services:list", request.context()?)?;
        strict_query(&request, 75, &["host", "binary"])?;
        let wanted = |key: &str, value: &str| request.query.get(key).is_none_or(|w| w.is_empty() || w == value);
        let liveness = liveness(&self.api);
        let services = self.api.zoned_services().await?;
        let views: Vec<_> = services
            .iter()
            .filter(|s| !HIDDEN.contains(&s.binary.as_str()))
            .filter(|s| wanted("host", s.host.as_str()) && wanted("binary", &s.binary))
            .map(|s| view::full(request.version, &liveness, s))
            .collect();
        Ok(Response::json(StatusCode::OK, &json!({ "services": views })))
    }

    /// 2.53 and later: the service's UUID in the path, what to change in the body.
    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-services:update", request.context()?)?;
        let body = request.json().await?;
        let id = uuid(request.param("id"))?;
        let service = self.api.store.get_service(id).await.map_err(|e| missing(e, &id.to_string()))?;
        only_compute(&service.binary)?;
        let change = Change::read(&body, request.lenient)?;
        let mut service = self.apply(request.context()?, id, &change).await?;
        service.zone = self.api.zones().await?.zone(&service.host, &service.zone).clone();
        let view = view::full(request.version, &liveness(&self.api), &service);
        Ok(Response::json(StatusCode::OK, &json!({ "service": view })))
    }

    /// Before 2.53: what to do in the path, host and binary in the body.
    async fn act(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-services:update", request.context()?)?;
        let body = request.json().await?;
        let order = update::read_order(request.param("id"), &body, request.version, request.lenient)?;
        only_compute(&order.binary)?;
        let services = self.api.store.list_services().await?;
        let named = |s: &&Service| s.host.as_str() == order.host && s.binary == order.binary;
        let service = services.iter().find(named).ok_or_else(|| {
            ApiError::not_found(format!("Could not find binary {} on host {}.", order.binary, order.host))
        })?;
        self.apply(request.context()?, service.id, &order.change).await?;
        Ok(Response::json(StatusCode::OK, &json!({"service": order.answer()})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-services:delete", request.context()?)?;
        let service = self.find(request.version, request.param("id")).await?;
        if service.binary == COMPUTE {
            self.refuse_if_used(&service).await?;
        }
        self.api.store.delete_service(service.id).await.map_err(|e| missing(e, request.param("id")))?;
        if service.binary == COMPUTE {
            let generation = service.generation + 1;
            let news = ServiceNews { host: service.host, disabled: true, up: false, generation };
            self.tell(request.context()?, news).await;
        }
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn find(&self, version: Microversion, id: &str) -> Result<Service, ApiError> {
        if version.at_least(53) {
            return self.api.store.get_service(uuid(id)?).await.map_err(|e| missing(e, id));
        }
        let number: i64 =
            id.parse().map_err(|_| ApiError::bad_request("Invalid input received: id must be an integer"))?;
        let services = self.api.store.list_services().await?;
        services.into_iter().find(|s| s.number == number).ok_or_else(|| not_found(id))
    }

    /// A host with servers, or with resources booked for servers that are on their way, must stay known.
    async fn refuse_if_used(&self, service: &Service) -> Result<(), ApiError> {
        let query = InstanceQuery {
            host: Some(service.host.clone()),
            deleted: Deleted::No,
            limit: Some(1),
            ..InstanceQuery::default()
        };
        if !self.api.store.list_instances(&query).await?.is_empty() {
            return Err(ApiError::conflict(
                "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.",
            ));
        }
        if !self.api.store.list_allocations(Some(&service.host)).await?.is_empty() {
            return Err(ApiError::conflict(
                "Unable to delete compute service that has in-progress migrations. Complete the migrations or delete \
                 the instances first.",
            ));
        }
        Ok(())
    }

    /// Writes a change, again if someone else was faster, and tells the schedulers.
    pub(super) async fn apply(
        &self,
        context: &RequestContext,
        id: ServiceId,
        change: &Change,
    ) -> Result<Service, ApiError> {
        let mut attempt = 1;
        let service = loop {
            let mut service = self.api.store.get_service(id).await.map_err(|e| missing(e, &id.to_string()))?;
            change.apply_to(&mut service);
            service.updated_at = self.api.clock.now();
            match self.api.store.update_service(service).await {
                Ok(service) => break service,
                Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(other) => return Err(missing(other, &id.to_string())),
            }
        };
        let up = liveness(&self.api).is_up(&service);
        let (host, disabled, generation) = (service.host.clone(), service.disabled, service.generation);
        self.tell(context, ServiceNews { host, disabled, up, generation }).await;
        Ok(service)
    }

    /// It is in the store; schedulers that do not hear of it now read it later.
    async fn tell(&self, context: &RequestContext, news: ServiceNews) {
        let news = HostsChangedRequest { services: vec![news], ..HostsChangedRequest::default() };
        self.api.tell_schedulers(context, news).await;
    }
}

impl Resource for Services {
    fn name(&self) -> &'static str {
        "os-services"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ONE: &str = "/os-services/{id}";
        vec![
            route(Method::GET, "/os-services", &self, Self::index),
            route(Method::PUT, ONE, &self, Self::act).versions(until(52)),
            route(Method::PUT, ONE, &self, Self::update).versions(since(53)),
            route(Method::DELETE, ONE, &self, Self::delete),
        ]
    }
}

/// How services are judged now.
pub fn liveness(api: &ComputeApi) -> Liveness {
    Liveness { now: api.clock.now(), down_time: api.options.get().service_down_time }
}

fn only_compute(binary: &str) -> Result<(), ApiError> {
    if binary == COMPUTE {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Updating a {binary} service is not supported. Only nova-compute services can be updated."
    )))
}

fn uuid(id: &str) -> Result<ServiceId, ApiError> {
    id.parse().map_err(|_| ApiError::bad_request(format!("Invalid uuid {id}")))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Service {id} not found."))
}

fn missing(error: StoreError, id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => not_found(id),
        other => other.into(),
    }
}
