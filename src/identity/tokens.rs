//! `/v3/auth/…`: tokens, and what their holder can see.

use std::sync::Arc;

use http::{HeaderName, Method, StatusCode};
use nova_core::contracts::{IdentityError, IdentityService, TokenInfo};
use nova_core::ids::UserId;
use serde_json::{Value, json};

use super::http::{done, list, time};
use super::login::Login;
use super::manager::IdentityManager;
use super::policy::{caller, require};
use super::projects;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

/// Tokens.
pub(super) struct Tokens {
    manager: Arc<IdentityManager>,
}

impl Tokens {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::POST, "/auth/tokens", &self, Self::create).public(),
            // The pipeline answers HEAD with this, less its body.
            route(Method::GET, "/auth/tokens", &self, Self::show),
            route(Method::DELETE, "/auth/tokens", &self, Self::revoke),
            route(Method::GET, "/auth/catalog", &self, Self::catalog),
            route(Method::GET, "/auth/projects", &self, Self::projects),
            route(Method::GET, "/auth/domains", &self, Self::domains),
            route(Method::GET, "/auth/system", &self, Self::system),
        ]
    }
}

impl Tokens {
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let login = Login::parse(&request.json().await?)?;
        let (token, info) = self.manager.login(login).await?;
        let body = self.body(&info, !request.query.has("nocatalog"));
        Ok(Response::json(StatusCode::CREATED, &body).header(SUBJECT, &token))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let with_catalog = !request.query.has("nocatalog");
        let (text, info) = self.subject(request, "identity:validate_token").await?;
        let body = self.body(&info, with_catalog);
        Ok(Response::json(StatusCode::OK, &body).header(SUBJECT, &text))
    }

    async fn revoke(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, info) = self.subject(request, "identity:revoke_token").await?;
        self.manager.revoke(&info).await?;
        Ok(done())
    }

    async fn catalog(self: Arc<Self>, request: Request) -> HandlerResult {
        if caller(&request)?.project.is_none() {
            return Err(ApiError::forbidden(
                "You are not authorized to perform the requested action: identity:get_auth_catalog.",
            ));
        }
        Ok(list_of(&request, "catalog", self.manager.catalog.body()))
    }

    async fn projects(self: Arc<Self>, request: Request) -> HandlerResult {
        let user = UserId::new(caller(&request)?.user.id.clone());
        let directory = self.manager.current().await?;
        let projects = directory.projects_of(&user).into_iter().filter(|project| directory.project_counts(project));
        Ok(list(&request, "projects", projects.map(|project| projects::body(&request.base_url, project)).collect()))
    }

    async fn domains(self: Arc<Self>, request: Request) -> HandlerResult {
        caller(&request)?;
        Ok(list(&request, "domains", Vec::new()))
    }

    async fn system(self: Arc<Self>, request: Request) -> HandlerResult {
        caller(&request)?;
        Ok(list(&request, "system", Vec::new()))
    }

    /// The token in `X-Subject-Token`: one's own, or any for an administrator and for services.
    async fn subject(&self, request: Request, action: &str) -> Result<(String, TokenInfo), ApiError> {
        let text = request.header(SUBJECT.as_str()).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| ApiError::bad_request("The header X-Subject-Token is missing."))?.to_owned();
        let info = self.manager.validate(&text).await;
        let audit_id = info.as_ref().ok().and_then(|info| info.audit_ids.first());
        require(&request, action, |caller| {
            let own = audit_id.is_some() && audit_id == caller.audit_ids.first();
            own || caller.roles.iter().any(|role| role.name == "service")
        })?;
        match info {
            Ok(info) => Ok((text, info)),
            Err(IdentityError::Unauthorized) => Err(ApiError::not_found("Could not find token.")),
            Err(other) => Err(other.into()),
        }
    }

    fn body(&self, info: &TokenInfo, with_catalog: bool) -> Value {
        let mut token = json!({
            "methods": info.methods,
            "user": {
                "id": info.user.id,
                "name": info.user.name,
                "domain": info.user_domain,
                "password_expires_at": null,
            },
            "audit_ids": info.audit_ids,
            "issued_at": time(info.issued_at),
            "expires_at": time(info.expires_at),
        });
        if let (Some(project), Some(domain)) = (&info.project, &info.project_domain) {
            token["project"] = json!({"id": project.id, "name": project.name, "domain": domain});
            token["is_domain"] = json!(false);
            token["roles"] = json!(info.roles);
            if with_catalog {
                token["catalog"] = self.manager.catalog.body();
            }
        }
        json!({ "token": token })
    }
}

fn list_of(request: &Request, key: &str, items: Value) -> Response {
    match items {
        Value::Array(items) => list(request, key, items),
        _ => list(request, key, Vec::new()),
    }
}
