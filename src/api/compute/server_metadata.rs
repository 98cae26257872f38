//! `/servers/{id}/metadata`: a server's labels (nova/api/openstack/compute/server_metadata.py).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::instance::Instance;
use nova_core::state::Action;
use serde_json::{Value, json};

use super::ComputeApi;
use super::input::strict_query;
use super::servers::{Edit, fields};
use crate::api::validate::{Fields, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

type Labels = BTreeMap<String, String>;

/// The resource.
pub(super) struct ServerMetadata {
    api: Arc<ComputeApi>,
}

impl ServerMetadata {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let instance = self.server(&request, "os_compute_api:server-metadata:index").await?;
        Ok(answer("metadata", &instance.metadata))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let instance = self.server(&request, "os_compute_api:server-metadata:show").await?;
        let key = request.param("key");
        let value = instance.metadata.get(key).ok_or_else(no_such_item)?;
        Ok(Response::json(StatusCode::OK, &json!({"meta": {key: value}})))
    }

    /// Sets these, and leaves the others.
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let labels = read(&request.json().await?, "metadata", request.lenient)?;
        let merged = |old: &Labels| {
            let mut all = old.clone();
            all.extend(labels.clone());
            all
        };
        let instance = self.change(&request, "os_compute_api:server-metadata:create", merged).await?;
        Ok(answer("metadata", &instance.metadata))
    }

    /// Sets these, and removes the others.
    async fn update_all(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let labels = read(&request.json().await?, "metadata", request.lenient)?;
        let instance = self.change(&request, "os_compute_api:server-metadata:update_all", |_| labels.clone()).await?;
        Ok(answer("metadata", &instance.metadata))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let labels = read(&body, "meta", request.lenient)?;
        if labels.len() != 1 {
            let what = if labels.is_empty() { "does not have enough properties" } else { "has too many properties" };
            return Err(invalid("meta", &body["meta"], format_args!("{} {what}", body["meta"])));
        }
        if !labels.contains_key(request.param("key")) {
            return Err(ApiError::bad_request("Request body and URI mismatch"));
        }
        let merged = |old: &Labels| {
            let mut all = old.clone();
            all.extend(labels.clone());
            all
        };
        self.change(&request, "os_compute_api:server-metadata:update", merged).await?;
        Ok(answer("meta", &labels))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:server-metadata:delete";
        let (id, key) = (request.param("id"), request.param("key"));
        // That it is not there is told before that the server's state forbids it.
        if !self.api.looked_at(&request, id, rule).await?.metadata.contains_key(key) {
            return Err(no_such_item());
        }
        let edit = Edit { rule, action: Action::DeleteMetadata, word: "delete metadata" };
        let without = |instance: &mut Instance| match instance.metadata.remove(key) {
            Some(_) => Ok(true),
            None => Err(no_such_item()),
        };
        self.api.edit(&request, id, edit, without).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn server(&self, request: &Request, rule: &str) -> Result<Instance, ApiError> {
        strict_query(request, 102, &[])?;
        self.api.looked_at(request, request.param("id"), rule).await
    }

    async fn change(
        &self,
        request: &Request,
        rule: &'static str,
        next: impl Fn(&Labels) -> Labels + Send + Sync,
    ) -> Result<Instance, ApiError> {
        let id = request.param("id");
        let owner = self.api.looked_at(request, id, rule).await?;
        let allowed = self.api.quotas_in_force(&owner.project_id, None).await?.get("metadata_items");
        let edit = Edit { rule, action: Action::UpdateMetadata, word: "update metadata" };
        let change = |instance: &mut Instance| {
            let next = next(&instance.metadata);
            if let Some(allowed) = allowed.filter(|allowed| next.len() as u64 > *allowed) {
                return Err(ApiError::OverQuota(format!("Maximum number of metadata items exceeds {allowed}")));
            }
            let changed = next != instance.metadata;
            instance.metadata = next;
            Ok(changed)
        };
        self.api.edit(request, id, edit, change).await
    }
}

impl Resource for ServerMetadata {
    fn name(&self) -> &'static str {
        "server-metadata"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/servers/{id}/metadata";
        const ONE: &str = "/servers/{id}/metadata/{key}";
        vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::PUT, ALL, &self, Self::update_all),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
        ]
    }
}

fn answer(key: &str, labels: &Labels) -> Response {
    Response::json(StatusCode::OK, &json!({ key: labels }))
}

fn no_such_item() -> ApiError {
    ApiError::not_found("Metadata item was not found")
}

fn read(body: &Value, key: &'static str, lenient: bool) -> Result<Labels, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let labels = fields::metadata(key, root.required(key)?)?;
    root.finish()?;
    Ok(labels)
}
