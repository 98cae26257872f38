//! How Glance writes: errors, versions.

use std::sync::Arc;

use ::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{ApiError, Dialect, HandlerResult, Request, Resource, Response, Route, route};

/// Glance's manners. Its own errors are pages for browsers; clients take the same in JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct GlanceDialect;

impl Dialect for GlanceDialect {
    fn render(&self, error: &ApiError) -> Response {
        let status = error.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let code = format!("{} {title}", status.as_u16());
        let body = json!({"message": error.to_string(), "code": code, "title": title});
        Response::json(status, &body)
    }
}

/// `GET /image` and its kin: which version there is, told without a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions;

impl Resource for Versions {
    fn name(&self) -> &'static str {
        "image-versions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let mut routes = vec![
            route(Method::GET, "", &self, Self::choices).public(),
            route(Method::GET, "/", &self, Self::choices).public(),
        ];
        for path in ["/versions", "/versions/", "/v2", "/v2/"] {
            routes.push(route(Method::GET, path, &self, Self::list).public());
        }
        routes
    }
}

impl Versions {
    async fn choices(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::MULTIPLE_CHOICES, &versions(&request)))
    }

    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::OK, &versions(&request)))
    }
}

fn versions(request: &Request) -> Value {
    let root = request.base_url.strip_suffix("/v2").unwrap_or(&request.base_url);
    let link = json!({"rel": "self", "href": format!("{root}/v2/")});
    json!({"versions": [{"id": "v2.16", "status": "CURRENT", "links": [link]}]})
}
