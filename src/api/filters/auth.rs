//! Who asks (keystonemiddleware's `authtoken`, nova/api/auth.py).

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use nova_core::context::RequestContext;
use nova_core::contracts::{IdentityService, TokenInfo};
use nova_core::ids::{DomainId, ProjectId, UserId};

use crate::api::{ApiError, Filter, HandlerResult, Next, Request};

/// Checks `X-Auth-Token`, or what the route takes in its place. No answer is remembered: a token that is taken back stops counting at once.
pub struct AuthFilter {
    identity: Arc<dyn IdentityService>,
}

impl AuthFilter {
    /// Asks this service what tokens are worth.
    pub fn new(identity: Arc<dyn IdentityService>) -> Self {
        Self { identity }
    }
}

#[async_trait]
impl Filter for AuthFilter {
    async fn call(&self, mut request: Request, next: Next<'_>) -> HandlerResult {
        strip_identity_headers(&mut request.headers);
        if next.public() {
            return next.run(request).await;
        }
        if let Some(token) = request.header("x-auth-token").filter(|token| !token.is_empty()) {
            request.token = Some(Arc::new(self.identity.validate(token).await?));
        } else if next.proof().and_then(|proof| proof.holds(&request)) == Some(true) {
            request.proven = true;
        } else {
            return Err(ApiError::Unauthorized);
        }
        next.run(request).await
    }
}

/// Turns the token into the caller that handlers see.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContextFilter;

#[async_trait]
impl Filter for ContextFilter {
    async fn call(&self, mut request: Request, next: Next<'_>) -> HandlerResult {
        request.context = request.token.as_deref().and_then(|token| context_of(token, &request));
        next.run(request).await
    }
}

/// The caller that a token makes; `None` where it is scoped to no project.
fn context_of(token: &TokenInfo, request: &Request) -> Option<RequestContext> {
    let project = token.project.as_ref()?;
    Some(RequestContext {
        request_id: request.request_id.clone(),
        user_id: UserId::new(token.user.id.clone()),
        project_id: ProjectId::new(project.id.clone()),
        user_domain_id: Some(DomainId::new(token.user_domain.id.clone())),
        project_domain_id: token.project_domain.as_ref().map(|domain| DomainId::new(domain.id.clone())),
        roles: token.roles.iter().map(|role| role.name.clone()).collect(),
        trace_parent: request.header("traceparent").filter(|text| text.len() <= 128).map(str::to_owned),
    })
}

/// What a proxy in front of Nova would set after it checked the token. From a client it can only be a lie.
const CLAIMS: &[&str] = &[
    "x-identity-status",
    "x-service-identity-status",
    "x-user",
    "x-tenant",
    "x-role",
    "x-roles",
    "x-is-admin-project",
    "x-service-catalog",
    "x-service-roles",
    "x-service-token-roles",
    "x-domain-id",
    "x-domain-name",
    "x-system-scope",
    "openstack-system-scope",
    "x-auth-user",
    "x-auth-project-id",
];
const CLAIM_PREFIXES: &[&str] =
    &["x-user-", "x-tenant-", "x-project-", "x-trust-", "x-service-user", "x-service-project", "x-domain-"];

/// Removes headers that claim an identity, in any case and with underscores as well.
fn strip_identity_headers(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    CLAIMS.contains(&name.as_str()) || CLAIM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_identity_are_removed_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in
            ["X-User-Id", "x_user_id", "X-ROLES", "x-project_id", "X-Tenant", "X-Is-Admin-Project", "x-auth-token"]
        {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), "admin".parse().unwrap());
        }
        strip_identity_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-auth-token"]);
    }
}
