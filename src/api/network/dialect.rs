//! How Neutron writes: errors, versions.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{ApiError, Dialect, HandlerResult, Request, Resource, Response, Route, route};

/// Neutron's manners.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeutronDialect;

/// Neutron's name for an error that has none of its own.
fn name_of(error: &ApiError) -> &'static str {
    match error {
        ApiError::Network { name, .. } => name,
        ApiError::OverQuota(_) => "OverQuota",
        other => match other.status().as_u16() {
            400 => "HTTPBadRequest",
            401 => "HTTPUnauthorized",
            403 => "HTTPForbidden",
            404 => "HTTPNotFound",
            405 => "HTTPMethodNotAllowed",
            409 => "HTTPConflict",
            413 => "HTTPRequestEntityTooLarge",
            415 => "HTTPUnsupportedMediaType",
            429 => "HTTPTooManyRequests",
            501 => "HTTPNotImplemented",
            503 => "HTTPServiceUnavailable",
            _ => "HTTPInternalServerError",
        },
    }
}

impl Dialect for NeutronDialect {
    fn render(&self, error: &ApiError) -> Response {
        let fault = json!({"type": name_of(error), "message": error.to_string(), "detail": ""});
        Response::json(error.status(), &json!({ "NeutronError": fault }))
    }
}

/// `GET /network` and `GET /network/v2.0`: told without a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions;

impl Resource for Versions {
    fn name(&self) -> &'static str {
        "network-versions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let mut routes = Vec::new();
        for path in ["", "/"] {
            routes.push(route(Method::GET, path, &self, Self::versions).public());
        }
        for path in ["/v2.0", "/v2.0/"] {
            routes.push(route(Method::GET, path, &self, Self::collections).public());
        }
        routes
    }
}

/// Without the version, whether or not the path has it.
fn root(request: &Request) -> &str {
    request.base_url.strip_suffix("/v2.0").unwrap_or(&request.base_url)
}

impl Versions {
    async fn versions(self: Arc<Self>, request: Request) -> HandlerResult {
        let link = json!({"rel": "self", "href": format!("{}/v2.0/", root(&request))});
        let version = json!({"id": "v2.0", "status": "CURRENT", "links": [link]});
        Ok(Response::json(StatusCode::OK, &json!({"versions": [version]})))
    }

    async fn collections(self: Arc<Self>, request: Request) -> HandlerResult {
        let kinds =
            ["network", "subnet", "port", "router", "floatingip", "security-group", "security-group-rule", "quota"];
        let resource = |name: &&str| -> Value {
            let link = json!({"rel": "self", "href": format!("{}/v2.0/{name}s", root(&request))});
            json!({"name": name, "collection": format!("{name}s"), "links": [link]})
        };
        let resources: Vec<_> = kinds.iter().map(resource).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "resources": resources })))
    }
}
