//! Which projects may use a private flavor (nova/api/openstack/compute/flavor_access.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::flavor::Flavor;
use nova_core::ids::ProjectId;
use nova_db::StoreError;
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::flavors::{change, visible};
use crate::api::compute::input::{strict_query, under};
use crate::api::validate::{Text, invalid};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, policy, route};

/// The resource.
pub struct FlavorAccess {
    api: Arc<ComputeApi>,
}

impl FlavorAccess {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-flavor-access", context)?;
        strict_query(&request, 102, &[])?;
        let flavor = visible(&self.api, context, request.param("flavor_id")).await?;
        if flavor.is_public {
            return Err(ApiError::not_found("Access list not available for public flavors."));
        }
        Ok(Response::json(StatusCode::OK, &view(&flavor)))
    }

    /// One key picks what is done, as for servers.
    async fn action(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let Value::Object(map) = &body else { return Err(ApiError::bad_request("Malformed request body")) };
        match map.keys().next().map(String::as_str) {
            Some("addTenantAccess") if map.len() == 1 => {
                policy::enforce("os_compute_api:os-flavor-access:add_tenant_access", request.context()?)?;
                let project = tenant(&body, "addTenantAccess", request.lenient)?;
                self.add(request.param("id"), project, request.version).await
            }
            Some("removeTenantAccess") if map.len() == 1 => {
                policy::enforce("os_compute_api:os-flavor-access:remove_tenant_access", request.context()?)?;
                let project = tenant(&body, "removeTenantAccess", request.lenient)?;
                self.remove(request.param("id"), project).await
            }
            Some(other) if map.len() == 1 => Err(ApiError::bad_request(format!(
                "There is no such action: {}",
                other.chars().take(255).collect::<String>()
            ))),
            _ => Err(ApiError::bad_request("Malformed request body")),
        }
    }

    async fn add(&self, id: &str, project: ProjectId, version: Microversion) -> HandlerResult {
        self.api.verify_project(&project).await?;
        let flavor = change(&self.api, id, |flavor| {
            if version.at_least(7) && flavor.is_public {
                return Err(ApiError::conflict("Can not add access to a public flavor."));
            }
            if flavor.access.insert(project.clone()) {
                return Ok(());
            }
            Err(ApiError::conflict(format!(
                "Flavor access already exists for flavor {} and project {project} combination.",
                flavor.id
            )))
        })
        .await?;
        Ok(Response::json(StatusCode::OK, &view(&flavor)))
    }

    /// A project that is gone can still be taken off the list.
    async fn remove(&self, id: &str, project: ProjectId) -> HandlerResult {
        let flavor = change(&self.api, id, |flavor| {
            if flavor.access.remove(&project) {
                return Ok(());
            }
            Err(ApiError::not_found(format!(
                "Flavor access not found for flavor {} / project {project} combination.",
                flavor.id
            )))
        })
        .await?;
        Ok(Response::json(StatusCode::OK, &view(&flavor)))
    }
}

impl ComputeApi {
    /// Is there such a project? Where an outside identity keeps them, which shows as no project here, it is taken as given:
    /// Nova does the same when it may not ask.
    pub(super) async fn verify_project(&self, project: &ProjectId) -> Result<(), ApiError> {
        match self.store.get_project(project).await {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound { .. }) if self.store.list_projects(None).await?.is_empty() => Ok(()),
            Err(StoreError::NotFound { .. }) => {
                Err(ApiError::bad_request(format!("Project ID {project} is not a valid project.")))
            }
            Err(other) => Err(other.into()),
        }
    }
}

impl Resource for FlavorAccess {
    fn name(&self) -> &'static str {
        "os-flavor-access"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/flavors/{flavor_id}/os-flavor-access", &self, Self::index),
            route(Method::POST, "/flavors/{id}/action", &self, Self::action),
        ]
    }
}

fn view(flavor: &Flavor) -> Value {
    let list: Vec<_> = flavor.access.iter().map(|p| json!({"flavor_id": flavor.id, "tenant_id": p})).collect();
    json!({ "flavor_access": list })
}

fn tenant(body: &Value, key: &str, lenient: bool) -> Result<ProjectId, ApiError> {
    let mut fields = under(body, key, lenient)?;
    let tenant = fields.required_text("tenant", Text::new(1, 255))?;
    fields.finish()?;
    if !tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let value = Value::String(tenant.to_owned());
        return Err(invalid("tenant", &value, format_args!("'{tenant}' does not match '^[a-zA-Z0-9-]*$'")));
    }
    Ok(ProjectId::new(tenant))
}
