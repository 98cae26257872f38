//! `/v3/projects`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::contracts::TokenInfo;
use nova_core::identity::Project;
use nova_core::ids::{DomainId, ProjectId};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::domains;
use super::fields::Fields;
use super::http::{done, list, one, passes};
use super::manager::IdentityManager;
use super::policy::{require, require_admin};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// Projects.
pub(super) struct Projects {
    manager: Arc<IdentityManager>,
}

impl Projects {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Projects {
    fn name(&self) -> &'static str {
        "projects"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/projects", &self, Self::list),
            route(Method::POST, "/projects", &self, Self::create),
            route(Method::GET, "/projects/{id}", &self, Self::show),
            route(Method::PATCH, "/projects/{id}", &self, Self::update),
            route(Method::DELETE, "/projects/{id}", &self, Self::delete),
        ]
    }
}

/// As clients see a project.
pub(super) fn body(base_url: &str, project: &Project) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "domain_id": project.domain_id,
        "parent_id": project.domain_id,
        "description": project.description,
        "enabled": project.enabled,
        "is_domain": false,
        "tags": [],
        "options": {},
        "links": {"self": format!("{base_url}/projects/{}", project.id)},
    })
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Could not find project: {id}."))
}

fn refused(error: StoreError, project: &Project) -> ApiError {
    match error {
        StoreError::Duplicate { .. } => ApiError::conflict(format!(
            "Conflict occurred attempting to store project - it is not permitted to have two projects with the same name \
             in the same domain: {}.",
            project.name
        )),
        StoreError::NotFound { .. } => not_found(project.id.as_str()),
        other => other.into(),
    }
}

/// The domain of something new: the one that the body names, or the caller's.
pub(super) fn domain_for(fields: &Fields, token: &TokenInfo) -> Result<DomainId, ApiError> {
    let named = fields.text("domain_id", 64)?;
    let own = || token.project_domain.as_ref().unwrap_or(&token.user_domain).id.clone();
    Ok(DomainId::new(named.unwrap_or_else(own)))
}

impl Projects {
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_projects")?;
        let directory = self.manager.current().await?;
        let mut projects: Vec<_> = directory.projects.values().collect();
        projects.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let bodies = projects.into_iter().map(|project| body(&request.base_url, project));
        let attributes = ["name", "domain_id", "enabled", "parent_id", "is_domain"];
        Ok(list(&request, "projects", bodies.filter(|item| passes(&request, item, &attributes)).collect()))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:create_project")?;
        let fields = Fields::read(&mut request, "project").await?;
        if fields.switch("is_domain")?.unwrap_or(false) {
            return Err(ApiError::bad_request(
                "Invalid input for field 'is_domain': domains are made by POST /v3/domains.",
            ));
        }
        let domain_id = domain_for(&fields, require_admin(&request, "identity:create_project")?)?;
        let directory = self.manager.current().await?;
        if !directory.domains.contains_key(&domain_id) {
            return Err(domains::not_found(domain_id.as_str()));
        }
        if fields.text("parent_id", 64)?.is_some_and(|parent| parent != domain_id.as_str()) {
            return Err(ApiError::bad_request("Invalid input for field 'parent_id': projects cannot be nested."));
        }
        let project = Project {
            id: ProjectId::new(self.manager.entropy.hex(16)),
            domain_id,
            name: fields.required_name(64)?,
            description: fields.text("description", 65_535)?.unwrap_or_default(),
            enabled: fields.switch("enabled")?.unwrap_or(true),
            created_at: self.manager.clock.now(),
        };
        let project =
            self.manager.store.create_project(project.clone()).await.map_err(|error| refused(error, &project))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::CREATED, "project", body(&request.base_url, &project)))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let id = request.param("id");
        require(&request, "identity:get_project", |token| token.project.as_ref().is_some_and(|own| own.id == id))?;
        Ok(one(StatusCode::OK, "project", body(&request.base_url, &self.found(id).await?)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:update_project")?;
        let fields = Fields::read(&mut request, "project").await?;
        let id = request.param("id");
        fields.same_id(id)?;
        let _turn = self.manager.changing.lock().await;
        let mut project = self.found(id).await?;
        if fields.text("domain_id", 64)?.is_some_and(|domain| domain != project.domain_id.as_str()) {
            return Err(ApiError::bad_request(
                "Invalid input for field 'domain_id': a project cannot change its domain.",
            ));
        }
        if let Some(name) = fields.name(64)? {
            project.name = name;
        }
        if fields.has("description") {
            project.description = fields.text("description", 65_535)?.unwrap_or_default();
        }
        project.enabled = fields.switch("enabled")?.unwrap_or(project.enabled);
        let project =
            self.manager.store.update_project(project.clone()).await.map_err(|error| refused(error, &project))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::OK, "project", body(&request.base_url, &project)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:delete_project")?;
        let project = self.found(request.param("id")).await?;
        self.manager.store.delete_project(&project.id).await.map_err(|error| refused(error, &project))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn found(&self, id: &str) -> Result<Project, ApiError> {
        let directory = self.manager.current().await?;
        directory.projects.get(&ProjectId::new(id)).cloned().ok_or_else(|| not_found(id))
    }
}
