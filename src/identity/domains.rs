//! `/v3/domains`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::identity::Domain;
use nova_core::ids::DomainId;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::fields::Fields;
use super::http::{done, list, one, passes};
use super::manager::IdentityManager;
use super::policy::{require, require_admin};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// Domains.
pub(super) struct Domains {
    manager: Arc<IdentityManager>,
}

impl Domains {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Domains {
    fn name(&self) -> &'static str {
        "domains"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/domains", &self, Self::list),
            route(Method::POST, "/domains", &self, Self::create),
            route(Method::GET, "/domains/{id}", &self, Self::show),
            route(Method::PATCH, "/domains/{id}", &self, Self::update),
            route(Method::DELETE, "/domains/{id}", &self, Self::delete),
        ]
    }
}

/// As clients see a domain.
fn body(base_url: &str, domain: &Domain) -> Value {
    json!({
        "id": domain.id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": [],
        "options": {},
        "links": {"self": format!("{base_url}/domains/{}", domain.id)},
    })
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Could not find domain: {id}."))
}

fn refused(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::Duplicate { .. } => ApiError::conflict(format!(
            "Conflict occurred attempting to store domain - Duplicate entry found with name {name}."
        )),
        StoreError::NotFound { id, .. } => not_found(&id),
        StoreError::Conflict { .. } => ApiError::conflict("The domain still has users or projects: delete them first."),
        other => other.into(),
    }
}

impl Domains {
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_domains")?;
        let directory = self.manager.current().await?;
        let mut domains: Vec<_> = directory.domains.values().collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        let bodies = domains.into_iter().map(|domain| body(&request.base_url, domain));
        let bodies = bodies.filter(|item| passes(&request, item, &["name", "enabled"])).collect();
        Ok(list(&request, "domains", bodies))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:create_domain")?;
        let fields = Fields::read(&mut request, "domain").await?;
        let name = fields.required_name(64)?;
        let domain = Domain {
            id: DomainId::new(self.manager.entropy.hex(16)),
            description: fields.text("description", 65_535)?.unwrap_or_default(),
            enabled: fields.switch("enabled")?.unwrap_or(true),
            created_at: self.manager.clock.now(),
            name: name.clone(),
        };
        let domain = self.manager.store.create_domain(domain).await.map_err(|error| refused(error, &name))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::CREATED, "domain", body(&request.base_url, &domain)))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let id = request.param("id");
        let own = |token: &nova_core::contracts::TokenInfo| {
            token.project_domain.as_ref().is_some_and(|domain| domain.id == id)
        };
        require(&request, "identity:get_domain", own)?;
        let directory = self.manager.current().await?;
        let domain = directory.domains.get(&DomainId::new(id)).ok_or_else(|| not_found(id))?;
        Ok(one(StatusCode::OK, "domain", body(&request.base_url, domain)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:update_domain")?;
        let fields = Fields::read(&mut request, "domain").await?;
        let id = request.param("id");
        fields.same_id(id)?;
        let _turn = self.manager.changing.lock().await;
        let mut domain = self.found(id).await?;
        if let Some(name) = fields.name(64)? {
            domain.name = name;
        }
        if fields.has("description") {
            domain.description = fields.text("description", 65_535)?.unwrap_or_default();
        }
        domain.enabled = fields.switch("enabled")?.unwrap_or(domain.enabled);
        let name = domain.name.clone();
        let domain = self.manager.store.update_domain(domain).await.map_err(|error| refused(error, &name))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::OK, "domain", body(&request.base_url, &domain)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:delete_domain")?;
        let domain = self.found(request.param("id")).await?;
        if domain.enabled {
            return Err(ApiError::forbidden(
                "You are not authorized to perform the requested action: Cannot delete a domain that is enabled, please disable it first.",
            ));
        }
        self.manager.store.delete_domain(&domain.id).await.map_err(|error| refused(error, &domain.name))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn found(&self, id: &str) -> Result<Domain, ApiError> {
        let directory = self.manager.current().await?;
        directory.domains.get(&DomainId::new(id)).cloned().ok_or_else(|| not_found(id))
    }
}
