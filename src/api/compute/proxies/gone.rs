//! What is gone: 410 at every version, as Nova answers.

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::api::microversion::until;
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, ServerAction, action, route};

/// Nova's text (webob's, as its clients know it).
const TEXT: &str = "This resource is no longer available.  No forwarding address is given.";

const ROUTES: &[(Method, &str)] = &[
    (Method::GET, "/os-agents"),
    (Method::POST, "/os-agents"),
    (Method::PUT, "/os-agents/{id}"),
    (Method::DELETE, "/os-agents/{id}"),
    (Method::GET, "/os-cells"),
    (Method::POST, "/os-cells"),
    (Method::GET, "/os-cells/capacities"),
    (Method::GET, "/os-cells/detail"),
    (Method::GET, "/os-cells/info"),
    (Method::POST, "/os-cells/sync_instances"),
    (Method::GET, "/os-cells/{id}"),
    (Method::PUT, "/os-cells/{id}"),
    (Method::DELETE, "/os-cells/{id}"),
    (Method::GET, "/os-cells/{id}/capacities"),
    (Method::POST, "/os-certificates"),
    (Method::GET, "/os-certificates/{id}"),
    (Method::GET, "/os-cloudpipe"),
    (Method::POST, "/os-cloudpipe"),
    (Method::PUT, "/os-cloudpipe/{id}"),
    (Method::GET, "/os-fixed-ips/{id}"),
    (Method::POST, "/os-fixed-ips/{id}/action"),
    (Method::GET, "/os-fping"),
    (Method::GET, "/os-fping/{id}"),
    (Method::GET, "/os-floating-ip-dns"),
    (Method::PUT, "/os-floating-ip-dns/{id}"),
    (Method::DELETE, "/os-floating-ip-dns/{id}"),
    (Method::GET, "/os-floating-ip-dns/{domain}/entries/{id}"),
    (Method::PUT, "/os-floating-ip-dns/{domain}/entries/{id}"),
    (Method::DELETE, "/os-floating-ip-dns/{domain}/entries/{id}"),
    (Method::GET, "/os-floating-ips-bulk"),
    (Method::POST, "/os-floating-ips-bulk"),
    (Method::GET, "/os-floating-ips-bulk/{id}"),
    (Method::PUT, "/os-floating-ips-bulk/{id}"),
    (Method::POST, "/os-networks"),
    (Method::POST, "/os-networks/add"),
    (Method::DELETE, "/os-networks/{id}"),
    (Method::POST, "/os-networks/{id}/action"),
    (Method::GET, "/os-security-group-default-rules"),
    (Method::POST, "/os-security-group-default-rules"),
    (Method::GET, "/os-security-group-default-rules/{id}"),
    (Method::DELETE, "/os-security-group-default-rules/{id}"),
    (Method::POST, "/os-tenant-networks"),
    (Method::DELETE, "/os-tenant-networks/{id}"),
    (Method::GET, "/servers/{id}/consoles"),
    (Method::POST, "/servers/{id}/consoles"),
    (Method::GET, "/servers/{id}/consoles/{console}"),
    (Method::DELETE, "/servers/{id}/consoles/{console}"),
    (Method::GET, "/servers/{id}/os-virtual-interfaces"),
];

/// All of them.
#[derive(Debug)]
pub(in crate::api::compute) struct Gone;

impl Resource for Gone {
    fn name(&self) -> &'static str {
        "gone"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        ROUTES.iter().map(|(method, path)| route(method.clone(), path, &self, Self::tell)).collect()
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("resetNetwork", &self, Self::tell_action),
            action("os-getRDPConsole", &self, Self::tell_action).versions(until(5)),
        ]
    }
}

impl Gone {
    async fn tell(self: Arc<Self>, _: Request) -> HandlerResult {
        Err(ApiError::Gone(TEXT.to_owned()))
    }

    async fn tell_action(self: Arc<Self>, _: Request, _: Value) -> HandlerResult {
        Err(ApiError::Gone(TEXT.to_owned()))
    }
}
