//! `/os-server-groups`: which servers shall share a host, and which shall not
//! (nova/api/openstack/compute/server_groups.py).

mod input;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::ServerGroupId;
use nova_core::server_group::ServerGroup;
use nova_db::{GroupLimits, Page, StoreError};
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::policy::{Target, enforce, enforce_on};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub struct ServerGroups {
    api: Arc<ComputeApi>,
}

impl ServerGroups {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:os-server-groups:index", context)?;
        strict_query(&request, 75, &["all_projects", "limit", "offset"])?;
        let page = input::page(&request.query, self.api.options.get().max_limit)?;
        let page = Page { offset: page.offset, limit: Some(page.limit) };
        // Others who ask for all get their own, as in Nova.
        let groups = if request.query.has("all_projects") && context.is_admin() {
            enforce("os_compute_api:os-server-groups:index:all_projects", context)?;
            self.api.store.list_server_groups(None, page).await?
        } else {
            self.api.store.list_server_groups(Some(&context.project_id), page).await?
        };
        let views: Vec<Value> = groups.iter().map(|group| view::full(request.version, group)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "server_groups": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 102, &[])?;
        let group = self.find(&request, "os_compute_api:os-server-groups:show").await?;
        Ok(answer(&request, &group))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-server-groups:create", request.context()?)?;
        let body = request.json().await?;
        let wanted = input::create(&body, request.version, request.lenient)?;
        let context = request.context()?;
        let new = ServerGroup {
            id: ServerGroupId::generate(&*self.api.entropy),
            number: 0,
            name: wanted.name,
            project_id: context.project_id.clone(),
            user_id: context.user_id.clone(),
            policy: wanted.policy,
            max_server_per_host: wanted.max_server_per_host,
            members: Vec::new(),
            created_at: self.api.clock.now(),
        };
        let quotas = self.api.quotas_in_force(&context.project_id, Some(&context.user_id)).await?;
        let (project, user) = (quotas.of_project("server_groups"), quotas.of_user("server_groups"));
        let limits = GroupLimits { project, user };
        let made = self.api.store.create_server_group(new, limits).await.map_err(|error| match error {
            StoreError::Quota(_) => ApiError::OverQuota("Quota exceeded, too many server groups.".to_owned()),
            other => other.into(),
        })?;
        Ok(answer(&request, &made))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let group = self.find(&request, "os_compute_api:os-server-groups:delete").await?;
        let id = group.id.to_string();
        self.api.store.delete_server_group(group.id).await.map_err(|error| missing(error, &id))?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    /// The group of the path, if the rule lets the caller at it.
    async fn find(&self, request: &Request, rule: &str) -> Result<ServerGroup, ApiError> {
        let context = request.context()?;
        // Who may do it to no group at all hears nothing of any.
        enforce(rule, context)?;
        let text = request.param("id");
        let id: ServerGroupId = text.parse().map_err(|_| not_found(text))?;
        let group = self.api.store.get_server_group(id).await.map_err(|error| missing(error, text))?;
        enforce_on(rule, context, Target { project_id: Some(&group.project_id), user_id: None })?;
        Ok(group)
    }
}

impl Resource for ServerGroups {
    fn name(&self) -> &'static str {
        "os-server-groups"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/os-server-groups";
        const ONE: &str = "/os-server-groups/{id}";
        vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::DELETE, ONE, &self, Self::delete),
        ]
    }
}

fn answer(request: &Request, group: &ServerGroup) -> Response {
    Response::json(StatusCode::OK, &json!({"server_group": view::full(request.version, group)}))
}

fn not_found(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::not_found(format!("Instance group {id} could not be found."))
}

fn missing(error: StoreError, id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => not_found(id),
        other => other.into(),
    }
}
