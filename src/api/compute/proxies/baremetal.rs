//! `/os-baremetal-nodes`, until 2.35: what compute passed on to Ironic (nova/api/openstack/compute/baremetal_nodes.py).
//! There is none here: reading answers 501, as Nova's does without it, and writing was always refused.

use std::sync::Arc;

use http::Method;

use super::PROXIED;
use crate::api::policy::enforce;
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// The resource.
#[derive(Debug)]
pub(in crate::api::compute) struct BaremetalNodes;

impl BaremetalNodes {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-baremetal-nodes:list", request.context()?)?;
        Err(not_supported())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-baremetal-nodes:show", request.context()?)?;
        Err(not_supported())
    }

    async fn create(self: Arc<Self>, _: Request) -> HandlerResult {
        Err(refused("node-create"))
    }

    async fn delete(self: Arc<Self>, _: Request) -> HandlerResult {
        Err(refused("node-delete"))
    }

    async fn action(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let key = body.as_object().filter(|map| map.len() == 1).and_then(|map| map.keys().next());
        match key.map(String::as_str) {
            Some("add_interface") => Err(refused("port-create")),
            Some("remove_interface") => Err(refused("port-delete")),
            Some(other) => {
                let shown: String = other.chars().take(255).collect();
                Err(ApiError::bad_request(format!("There is no such action: {shown}")))
            }
            None => Err(ApiError::bad_request("Malformed request body")),
        }
    }
}

impl Resource for BaremetalNodes {
    fn name(&self) -> &'static str {
        "os-baremetal-nodes"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/os-baremetal-nodes";
        const ONE: &str = "/os-baremetal-nodes/{id}";
        let routes = vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::DELETE, ONE, &self, Self::delete),
            route(Method::POST, "/os-baremetal-nodes/{id}/action", &self, Self::action),
        ];
        routes.into_iter().map(|route| route.versions(PROXIED)).collect()
    }
}

fn not_supported() -> ApiError {
    ApiError::NotImplemented("The requested functionality is not supported.".to_owned())
}

fn refused(command: &str) -> ApiError {
    ApiError::BadRequest(format!("Command Not supported. Please use Ironic command {command} to perform this action."))
}
