//! `/auto-allocated-topology`: network, subnet and router in one (neutron/services/auto_allocate/db.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::ProjectId;
use serde_json::{Value, json};

use super::input::{named, require_member};
use super::list::nothing;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::network::{AutoError, NetworkManager};

/// The resource.
pub(super) struct AutoAllocatedTopology(pub(super) Arc<NetworkManager>);

impl Resource for AutoAllocatedTopology {
    fn name(&self) -> &'static str {
        "auto-allocated-topology"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/auto-allocated-topology/{project}", &self, Self::show),
            route(Method::DELETE, "/auto-allocated-topology/{project}", &self, Self::delete),
        ]
    }
}

impl From<AutoError> for ApiError {
    fn from(error: AutoError) -> Self {
        match error {
            AutoError::Deployment(_) => named(409, "AutoAllocationFailure", error.to_string()),
            AutoError::Store(error) => error.into(),
        }
    }
}

/// One's own project; `None`, as clients write it that name none, is that as well.
fn project(request: &Request) -> Result<ProjectId, ApiError> {
    let context = request.context()?;
    match request.param("project") {
        "None" => Ok(context.project_id.clone()),
        id if context.is_admin() || id == context.project_id.as_str() => Ok(ProjectId::from(id)),
        _ => Err(named(403, "NotAuthorized", "Not authorized.".to_owned())),
    }
}

fn answer(project: &ProjectId, id: impl std::fmt::Display) -> HandlerResult {
    let view: Value = json!({"id": id.to_string(), "tenant_id": project, "project_id": project});
    Ok(Response::json(StatusCode::OK, &json!({ "auto_allocated_topology": view })))
}

impl AutoAllocatedTopology {
    /// Makes it at the first look. `fields=dry-run` only tells whether that would work.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let project = project(&request)?;
        let fields: Vec<&str> = request.query.all("fields").collect();
        if fields.contains(&"dry-run") {
            self.0.auto_parts().await?;
            return answer(&project, "dry-run=pass");
        }
        if !fields.is_empty() {
            let text = "Bad auto_allocate request: Unrecognized field.";
            return Err(named(400, "BadRequest", text.to_owned()));
        }
        let context = request.context()?;
        if require_member(context, "create_auto_allocated_topology").is_err() {
            // Who only reads makes nothing.
            let there = self.0.auto_network(&project).await?.map(|network| network.id);
            let missing = || named(404, "HTTPNotFound", "The resource could not be found.".to_owned());
            return answer(&project, there.ok_or_else(missing)?);
        }
        answer(&project, self.0.make_auto_topology(&project).await?)
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let project = project(&request)?;
        require_member(request.context()?, "delete_auto_allocated_topology")?;
        self.0.remove_auto_topology(&project).await?;
        nothing()
    }
}
