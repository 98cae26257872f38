//! `/v3/regions`, `/v3/services` and `/v3/endpoints`: the catalog, which is configured and so can only be read.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::Value;

use super::http::{list, one, passes};
use super::manager::IdentityManager;
use super::policy::{caller, require_admin};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// Regions, services, endpoints.
pub(super) struct Endpoints {
    manager: Arc<IdentityManager>,
}

impl Endpoints {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/regions", &self, Self::list_regions),
            route(Method::GET, "/regions/{id}", &self, Self::show_region),
            route(Method::GET, "/services", &self, Self::list_services),
            route(Method::GET, "/services/{id}", &self, Self::show_service),
            route(Method::GET, "/endpoints", &self, Self::list_endpoints),
            route(Method::GET, "/endpoints/{id}", &self, Self::show_endpoint),
        ]
    }
}

fn filtered(request: &Request, key: &str, items: Vec<Value>, attributes: &[&str]) -> HandlerResult {
    let items = items.into_iter().filter(|item| passes(request, item, attributes)).collect();
    Ok(list(request, key, items))
}

fn by_id(request: &Request, key: &str, items: Vec<Value>) -> HandlerResult {
    let id = request.param("id");
    let found = items.into_iter().find(|item| item["id"] == id);
    let item = found.ok_or_else(|| ApiError::not_found(format!("Could not find {key}: {id}.")))?;
    Ok(one(StatusCode::OK, key, item))
}

impl Endpoints {
    async fn list_regions(self: Arc<Self>, request: Request) -> HandlerResult {
        caller(&request)?;
        filtered(&request, "regions", self.manager.catalog.region_bodies(&request.base_url), &["parent_region_id"])
    }

    async fn show_region(self: Arc<Self>, request: Request) -> HandlerResult {
        caller(&request)?;
        by_id(&request, "region", self.manager.catalog.region_bodies(&request.base_url))
    }

    async fn list_services(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_services")?;
        filtered(&request, "services", self.manager.catalog.service_bodies(&request.base_url), &["type", "name"])
    }

    async fn show_service(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:get_service")?;
        by_id(&request, "service", self.manager.catalog.service_bodies(&request.base_url))
    }

    async fn list_endpoints(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_endpoints")?;
        let attributes = ["interface", "service_id", "region_id", "region"];
        filtered(&request, "endpoints", self.manager.catalog.endpoint_bodies(&request.base_url), &attributes)
    }

    async fn show_endpoint(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:get_endpoint")?;
        by_id(&request, "endpoint", self.manager.catalog.endpoint_bodies(&request.base_url))
    }
}
