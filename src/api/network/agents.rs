//! `/agents` and `/availability_zones`.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::json;

use super::input::{not_found, require_admin};
use super::networks::short;
use crate::api::{HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub(super) struct Agents;

impl Resource for Agents {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/agents", &self, Self::index),
            route(Method::GET, "/agents/{id}", &self, Self::show),
            route(Method::GET, "/availability_zones", &self, Self::zones),
        ]
    }
}

impl Agents {
    /// Books need no agents.
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "get_agent")?;
        Ok(Response::json(StatusCode::OK, &json!({"agents": []})))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "get_agent")?;
        Err(not_found("AgentNotFound", "Agent", short(request.param("id"))))
    }

    async fn zones(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let zone = |resource: &str| json!({"name": "nova", "resource": resource, "state": "available"});
        let zones = [zone("network"), zone("router")];
        Ok(Response::json(StatusCode::OK, &json!({ "availability_zones": zones })))
    }
}
