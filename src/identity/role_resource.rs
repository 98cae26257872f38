//! `/v3/roles`, and which role implies which.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::identity::Role;
use nova_core::ids::RoleId;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::fields::Fields;
use super::http::{done, list, one, passes};
use super::manager::IdentityManager;
use super::policy::require_admin;
use super::roles::{implied_by, is_built_in};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// Roles.
pub(super) struct Roles {
    manager: Arc<IdentityManager>,
}

impl Roles {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Roles {
    fn name(&self) -> &'static str {
        "roles"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/roles", &self, Self::list),
            route(Method::POST, "/roles", &self, Self::create),
            route(Method::GET, "/roles/{id}", &self, Self::show),
            route(Method::PATCH, "/roles/{id}", &self, Self::update),
            route(Method::DELETE, "/roles/{id}", &self, Self::delete),
            route(Method::GET, "/role_inferences", &self, Self::inferences),
        ]
    }
}

/// As clients see a role.
pub(super) fn body(base_url: &str, role: &Role) -> Value {
    let options = if is_built_in(&role.name) { json!({"immutable": true}) } else { json!({}) };
    json!({
        "id": role.id,
        "name": role.name,
        "domain_id": null,
        "description": role.description,
        "options": options,
        "links": {"self": format!("{base_url}/roles/{}", role.id)},
    })
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Could not find role: {id}."))
}

fn refused(error: StoreError, role: &Role) -> ApiError {
    match error {
        StoreError::Duplicate { .. } => ApiError::conflict(format!(
            "Conflict occurred attempting to store role - Duplicate entry found with name {}.",
            role.name
        )),
        StoreError::NotFound { .. } => not_found(role.id.as_str()),
        other => other.into(),
    }
}

fn mutable(role: &Role) -> Result<(), ApiError> {
    if is_built_in(&role.name) {
        return Err(ApiError::forbidden(format!("Cannot change role {}: the resource is immutable.", role.id)));
    }
    Ok(())
}

impl Roles {
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_roles")?;
        let directory = self.manager.current().await?;
        let mut roles: Vec<_> = directory.roles.values().collect();
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let bodies = roles.into_iter().map(|role| body(&request.base_url, role));
        Ok(list(&request, "roles", bodies.filter(|item| passes(&request, item, &["name", "domain_id"])).collect()))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:create_role")?;
        let fields = Fields::read(&mut request, "role").await?;
        if fields.text("domain_id", 64)?.is_some() {
            return Err(ApiError::bad_request(
                "Invalid input for field 'domain_id': roles of a domain are not supported.",
            ));
        }
        let role = Role {
            id: RoleId::new(self.manager.entropy.hex(16)),
            name: fields.required_name(255)?,
            description: fields.text("description", 65_535)?.unwrap_or_default(),
            created_at: self.manager.clock.now(),
        };
        let role = self.manager.store.create_role(role.clone()).await.map_err(|error| refused(error, &role))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::CREATED, "role", body(&request.base_url, &role)))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:get_role")?;
        Ok(one(StatusCode::OK, "role", body(&request.base_url, &self.found(request.param("id")).await?)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:update_role")?;
        let fields = Fields::read(&mut request, "role").await?;
        let id = request.param("id");
        fields.same_id(id)?;
        let _turn = self.manager.changing.lock().await;
        let mut role = self.found(id).await?;
        mutable(&role)?;
        if let Some(name) = fields.name(255)? {
            role.name = name;
        }
        if fields.has("description") {
            role.description = fields.text("description", 65_535)?.unwrap_or_default();
        }
        let role = self.manager.store.update_role(role.clone()).await.map_err(|error| refused(error, &role))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::OK, "role", body(&request.base_url, &role)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:delete_role")?;
        let role = self.found(request.param("id")).await?;
        mutable(&role)?;
        self.manager.store.delete_role(&role.id).await.map_err(|error| refused(error, &role))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn inferences(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_role_inference_rules")?;
        let directory = self.manager.current().await?;
        let brief = |role: &Role| json!({"id": role.id, "name": role.name});
        let inferences = directory.roles.values().filter(|role| !implied_by(&role.name).is_empty()).map(|prior| {
            let implied = implied_by(&prior.name).iter().filter_map(|name| directory.role_named(name));
            json!({"prior_role": brief(prior), "implies": implied.map(brief).collect::<Vec<_>>()})
        });
        Ok(list(&request, "role_inferences", inferences.collect()))
    }

    async fn found(&self, id: &str) -> Result<Role, ApiError> {
        let directory = self.manager.current().await?;
        directory.roles.get(&RoleId::new(id)).cloned().ok_or_else(|| not_found(id))
    }
}
