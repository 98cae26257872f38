//! Who asks, and on whose behalf: travels with every request and message.

use serde::{Deserialize, Serialize};

use crate::ids::{DomainId, ProjectId, RequestId, UserId};

/// The caller of a request, as authentication established it (nova/context.py).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    /// The id of the API call that all of this began with.
    pub request_id: RequestId,
    /// The user.
    pub user_id: UserId,
    /// The project that the token is scoped to.
    pub project_id: ProjectId,
    /// The user's domain.
    #[serde(default)]
    pub user_domain_id: Option<DomainId>,
    /// The project's domain.
    #[serde(default)]
    pub project_domain_id: Option<DomainId>,
    /// Names of the roles on that project, implied ones included.
    pub roles: Vec<String>,
    /// A W3C trace context `traceparent`, where the caller sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
}

impl RequestContext {
    /// The context of work that no user asked for: periodic tasks and repair.
    pub fn internal(request_id: RequestId) -> Self {
        Self {
            request_id,
            user_id: UserId::new(""),
            project_id: ProjectId::new(""),
            user_domain_id: None,
            project_domain_id: None,
            roles: vec!["admin".into(), "service".into()],
            trace_parent: None,
        }
    }

    /// Has the user this role here?
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r.eq_ignore_ascii_case(role))
    }

    /// `context_is_admin` of Nova's policy: `role:admin`.
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }
}
