//! `/os-floating-ips` and `/os-floating-ip-pools`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::{FloatingIpId, NetworkId, PortId};
use nova_core::network::{FloatingIp, Network, NetworkProblem, NetworkResource, Port};
use nova_db::{
    FixedIpRequest, FloatingIpField, ListQuery, NetworkField, NewFloatingIp, PortField, PortQuery, StoreError,
};
use serde_json::{Value, json};

use super::PROXIED;
use crate::api::compute::ComputeApi;
use crate::api::validate::{Fields, Text};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, policy, route};

/// Both resources.
pub(in crate::api::compute) struct FloatingIps {
    api: Arc<ComputeApi>,
}

impl FloatingIps {
    /// Over this cloud's books.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for FloatingIps {
    fn name(&self) -> &'static str {
        "os-floating-ips"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-floating-ip-pools", &self, Self::pools).versions(PROXIED),
            route(Method::GET, "/os-floating-ips", &self, Self::index).versions(PROXIED),
            route(Method::POST, "/os-floating-ips", &self, Self::create).versions(PROXIED),
            route(Method::GET, "/os-floating-ips/{id}", &self, Self::show).versions(PROXIED),
            route(Method::DELETE, "/os-floating-ips/{id}", &self, Self::delete).versions(PROXIED),
        ]
    }
}

fn missing(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::NotFound(format!("Floating IP not found for ID {shown}"))
}

impl FloatingIps {
    /// Outer networks.
    async fn outer(&self) -> Result<Vec<Network>, ApiError> {
        Ok(self.api.books()?.store.list_networks(&ListQuery::of(NetworkField::External, true)).await?)
    }

    async fn pools(self: Arc<Self>, request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-floating-ip-pools", request.context()?)?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            let pools = passed.pools().await?;
            return Ok(Response::json(StatusCode::OK, &json!({ "floating_ip_pools": pools })));
        }
        let name = |network: Network| if network.name.is_empty() { network.id.to_string() } else { network.name };
        let pools: Vec<Value> = self.outer().await?.into_iter().map(|one| json!({"name": name(one)})).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "floating_ip_pools": pools })))
    }

    /// Addresses as they are shown: with the pool's name and the server that they stand for.
    async fn views(&self, floating: &[FloatingIp]) -> Result<Vec<Value>, ApiError> {
        let books = self.api.books()?;
        let pools: BTreeMap<NetworkId, String> =
            self.outer().await?.into_iter().map(|network| (network.id, network.name)).collect();
        let mut ports: BTreeMap<PortId, Port> = BTreeMap::new();
        let ids: Vec<String> = floating.iter().filter_map(|one| one.port_id).map(|id| id.to_string()).collect();
        for some in ids.chunks(500) {
            let list = ListQuery { filters: vec![(PortField::Id, some.to_vec())], ..ListQuery::default() };
            let found = books.store.list_ports(&PortQuery { list, ..PortQuery::default() }).await?;
            ports.extend(found.into_iter().map(|port| (port.id, port)));
        }
        let view = |one: &FloatingIp| {
            let port = one.port_id.and_then(|id| ports.get(&id));
            json!({
                "id": one.id,
                "ip": one.floating_ip_address,
                "pool": pools.get(&one.floating_network_id).filter(|name| !name.is_empty()).cloned()
                    .unwrap_or_else(|| one.floating_network_id.to_string()),
                "fixed_ip": one.fixed_ip_address,
                "instance_id": port.map(|port| &port.device_id).filter(|id| !id.is_empty()),
            })
        };
        Ok(floating.iter().map(view).collect())
    }

    async fn answer(&self, floating: &FloatingIp) -> HandlerResult {
        let view = self.views(std::slice::from_ref(floating)).await?.pop();
        Ok(Response::json(StatusCode::OK, &json!({ "floating_ip": view })))
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-floating-ips:list", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            return Ok(Response::json(StatusCode::OK, &json!({ "floating_ips": passed.floating_ips().await? })));
        }
        let query = ListQuery::of(FloatingIpField::ProjectId, &context.project_id);
        let own = self.api.books()?.store.list_floating_ips(&query).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "floating_ips": self.views(&own).await? })))
    }

    async fn one(&self, context: &RequestContext, id: &str) -> Result<FloatingIp, ApiError> {
        let missing = || missing(id);
        let id: FloatingIpId = id.parse().map_err(|_| missing())?;
        match self.api.books()?.store.get_floating_ip(id).await {
            Ok(found) if context.is_admin() || found.project_id == context.project_id => Ok(found),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-floating-ips:show", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            let text = request.param("id");
            let id = text.parse().map_err(|_| missing(text))?;
            let view = passed.floating_ip(id).await?.ok_or_else(|| missing(text))?;
            return Ok(Response::json(StatusCode::OK, &json!({ "floating_ip": view })));
        }
        self.answer(&self.one(context, request.param("id")).await?).await
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json_or_none().await?;
        let context = request.context()?;
        policy::enforce("os_compute_api:os-floating-ips:create", context)?;
        let pool = match &body {
            Some(body) => {
                let mut read = Fields::root(body, request.lenient)?;
                let pool = read.nullable_text("pool", Text::new(0, 255))?.flatten();
                read.finish()?;
                pool
            }
            None => None,
        };
        if let Some(passed) = self.api.passed_on(context) {
            let view = passed.create_floating_ip(pool).await?;
            return Ok(Response::json(StatusCode::OK, &json!({ "floating_ip": view })));
        }
        let network = self.pool(pool).await?;
        let books = self.api.books()?;
        let new = NewFloatingIp {
            id: FloatingIpId::generate(&*books.entropy),
            project_id: context.project_id.clone(),
            description: String::new(),
            network_id: network.id,
            address: FixedIpRequest { subnet_id: None, ip_address: None },
            target: None,
            draw: books.entropy.next_u64(),
            limit: books.limit(NetworkResource::FloatingIp),
            now: books.now(),
        };
        match books.store.create_floating_ip(new).await {
            Ok(made) => self.answer(&made).await,
            Err(StoreError::Network(NetworkProblem::Exhausted { .. })) => {
                Err(ApiError::NotFound(format!("No more floating IPs in pool {}.", network.name)))
            }
            Err(StoreError::Network(NetworkProblem::OverQuota { .. })) => {
                Err(ApiError::OverQuota(format!("IP allocation over quota in pool {}.", network.name)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An outer network by its name or id; of none, the default one, or the only one.
    async fn pool(&self, named: Option<&str>) -> Result<Network, ApiError> {
        let mut outer = self.outer().await?;
        match named {
            Some(name) => outer.retain(|network| network.name == name || network.id.to_string() == name),
            None if outer.iter().any(|network| network.is_default) => outer.retain(|network| network.is_default),
            None => {}
        }
        match (outer.pop(), outer.is_empty()) {
            (Some(network), true) => Ok(network),
            _ => Err(ApiError::not_found("Floating IP pool not found.")),
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-floating-ips:delete", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            let text = request.param("id");
            let id = text.parse().map_err(|_| missing(text))?;
            return match passed.delete_floating_ip(id).await? {
                true => Ok(Response::empty(StatusCode::ACCEPTED)),
                false => Err(missing(text)),
            };
        }
        let floating = self.one(context, request.param("id")).await?;
        let books = self.api.books()?;
        match books.store.delete_floating_ip(floating.id).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        books.routers_changed(floating.router_id);
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}
