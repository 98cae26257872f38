//! `/os-networks` and `/os-tenant-networks`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::NetworkId;
use nova_core::network::Network;
use nova_db::{ListQuery, StoreError};
use serde_json::{Value, json};

use super::PROXIED;
use crate::api::compute::ComputeApi;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, policy, route};
use crate::network::may_see;

/// Attributes of nova-network's that stay empty.
const EMPTY: [&str; 9] =
    ["cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6"];

/// Both resources.
pub(in crate::api::compute) struct Networks {
    api: Arc<ComputeApi>,
}

impl Networks {
    /// Over this cloud's books.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for Networks {
    fn name(&self) -> &'static str {
        "os-networks"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-networks", &self, Self::index).versions(PROXIED),
            route(Method::GET, "/os-networks/{id}", &self, Self::show).versions(PROXIED),
            route(Method::GET, "/os-tenant-networks", &self, Self::tenant_index).versions(PROXIED),
            route(Method::GET, "/os-tenant-networks/{id}", &self, Self::tenant_show).versions(PROXIED),
        ]
    }
}

/// What is shown of a network, of either kind.
struct Shown {
    id: Value,
    label: Value,
}

impl From<&Network> for Shown {
    fn from(network: &Network) -> Self {
        Self { id: json!(network.id), label: json!(network.name) }
    }
}

impl From<Value> for Shown {
    fn from(mut passed: Value) -> Self {
        Self { id: passed["id"].take(), label: passed["label"].take() }
    }
}

fn view(network: &Shown) -> Value {
    let mut view = json!({"id": network.id, "label": network.label});
    for key in EMPTY {
        view[key] = Value::Null;
    }
    view
}

fn brief(network: &Shown) -> Value {
    json!({"id": network.id, "label": network.label, "cidr": null})
}

impl Networks {
    /// Those that servers of the caller's project may be plugged into.
    async fn all(&self, context: &RequestContext) -> Result<Vec<Shown>, ApiError> {
        if let Some(passed) = self.api.passed_on(context) {
            return Ok(passed.networks().await?.into_iter().map(Shown::from).collect());
        }
        let query = ListQuery { visible_to: Some(context.project_id.clone()), ..ListQuery::default() };
        let mut all = self.api.books()?.store.list_networks(&query).await?;
        all.retain(|network| network.project_id == context.project_id || network.shared);
        Ok(all.iter().map(Shown::from).collect())
    }

    async fn one(&self, request: &Request) -> Result<Shown, ApiError> {
        let missing = || ApiError::not_found("Network not found");
        let id: NetworkId = request.param("id").parse().map_err(|_| missing())?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            return passed.network(id).await?.map(Shown::from).ok_or_else(missing);
        }
        match self.api.books()?.store.get_network(id).await {
            Ok(network) if may_see(request.context()?, &network) => Ok(Shown::from(&network)),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-networks:list", context)?;
        let views: Vec<Value> = self.all(context).await?.iter().map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "networks": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-networks:show", request.context()?)?;
        let network = self.one(&request).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "network": view(&network) })))
    }

    async fn tenant_index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-tenant-networks:list", context)?;
        let views: Vec<Value> = self.all(context).await?.iter().map(brief).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "networks": views })))
    }

    async fn tenant_show(self: Arc<Self>, request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-tenant-networks:show", request.context()?)?;
        let network = self.one(&request).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "network": brief(&network) })))
    }
}
