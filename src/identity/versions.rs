//! `GET /identity` and `GET /identity/v3`: which version there is, told without a token.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::api::{HandlerResult, Request, Resource, Response, Route, route};

/// The version documents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions;

impl Resource for Versions {
    fn name(&self) -> &'static str {
        "identity-versions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let mut routes = Vec::new();
        for path in ["", "/"] {
            routes.push(route(Method::GET, path, &self, Self::all).public());
        }
        for path in ["/v3", "/v3/"] {
            routes.push(route(Method::GET, path, &self, Self::v3).public());
        }
        routes
    }
}

impl Versions {
    /// Multiple choices, as Keystone says it.
    async fn all(self: Arc<Self>, request: Request) -> HandlerResult {
        let own = version(&request);
        let place = format!("{}/v3/", root(&request));
        let body = json!({"versions": {"values": [own]}});
        Ok(Response::json(StatusCode::MULTIPLE_CHOICES, &body).header(header::LOCATION, &place))
    }

    async fn v3(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::OK, &json!({"version": version(&request)})))
    }
}

/// The application's own URL, without version.
fn root(request: &Request) -> &str {
    request.base_url.strip_suffix("/v3").unwrap_or(&request.base_url)
}

fn version(request: &Request) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", root(request))}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}
