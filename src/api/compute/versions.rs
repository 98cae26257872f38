//! Version documents: what clients read before anything else, without a token (nova/api/openstack/compute/versions.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, route};

/// `/`, `/v2.1/` and `/v2/`, with and without the last slash.
#[derive(Debug, Clone, Copy, Default)]
pub struct Versions;

impl Versions {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let root = root_url(&request);
        let body = json!({"versions": [summary(&root, "v2.0"), summary(&root, "v2.1")]});
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn v21(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::OK, &json!({"version": document(&root_url(&request), "v2.1")})))
    }

    async fn v20(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::OK, &json!({"version": document(&root_url(&request), "v2.0")})))
    }
}

impl Resource for Versions {
    fn name(&self) -> &'static str {
        "versions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "", &self, Self::index).public(),
            route(Method::GET, "/", &self, Self::index).public(),
            route(Method::GET, "/v2.1", &self, Self::v21).public(),
            route(Method::GET, "/v2.1/", &self, Self::v21).public(),
            route(Method::GET, "/v2", &self, Self::v20).public(),
            route(Method::GET, "/v2/", &self, Self::v20).public(),
        ]
    }
}

/// `/v2.1/versions/{id}`: the same documents, for whoever has a token (nova/api/openstack/compute/versionsV21.py).
#[derive(Debug, Clone, Copy, Default)]
pub struct VersionDocuments;

impl VersionDocuments {
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        match request.param("id") {
            id @ ("v2.0" | "v2.1") => {
                Ok(Response::json(StatusCode::OK, &json!({"version": document(&root_url(&request), id)})))
            }
            _ => Err(ApiError::no_such_resource()),
        }
    }
}

impl Resource for VersionDocuments {
    fn name(&self) -> &'static str {
        "version-documents"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::GET, "/versions/{id}", &self, Self::show)]
    }
}

/// The mount's URL, whatever version the path named.
fn root_url(request: &Request) -> String {
    let base = request.base_url.trim_end_matches('/');
    let root = base.strip_suffix("/v2.1").or_else(|| base.strip_suffix("/v2"));
    root.unwrap_or(base).to_owned()
}

fn summary(root: &str, id: &str) -> Value {
    let (path, status, version, min_version, updated) = match id {
        "v2.0" => ("v2", "SUPPORTED", String::new(), String::new(), "2011-01-21T11:33:21Z"),
        _ => ("v2.1", "CURRENT", Microversion::MAX.to_string(), Microversion::MIN.to_string(), "2013-07-23T11:33:21Z"),
    };
    json!({
        "id": id,
        "status": status,
        "version": version,
        "min_version": min_version,
        "updated": updated,
        "links": [{"rel": "self", "href": format!("{root}/{path}/")}],
    })
}

fn document(root: &str, id: &str) -> Value {
    let mut document = summary(root, id);
    let media = match id {
        "v2.0" => "application/vnd.openstack.compute+json;version=2",
        _ => "application/vnd.openstack.compute+json;version=2.1",
    };
    document["media-types"] = json!([{"base": "application/json", "type": media}]);
    if let Some(links) = document["links"].as_array_mut() {
        links.push(json!({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"}));
    }
    document
}
