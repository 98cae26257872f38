//! Who has which role on which project: `/v3/projects/{p}/users/{u}/roles/{r}` and `/v3/role_assignments`.

use std::sync::Arc;

use http::Method;
use nova_core::contracts::Named;
use nova_core::identity::Grant;
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};
use nova_db::{Kind, StoreError};
use serde_json::{Value, json};

use super::directory::Directory;
use super::http::{done, list};
use super::manager::IdentityManager;
use super::policy::require_admin;
use super::{projects, role_resource, users};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, parse_bool, route};

/// Grants.
pub(super) struct Grants {
    manager: Arc<IdentityManager>,
}

impl Grants {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Grants {
    fn name(&self) -> &'static str {
        "grants"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ONE: &str = "/projects/{project_id}/users/{user_id}/roles/{role_id}";
        vec![
            route(Method::PUT, ONE, &self, Self::add),
            // HEAD, which is what clients send, is answered by GET's handler.
            route(Method::GET, ONE, &self, Self::check),
            route(Method::DELETE, ONE, &self, Self::remove),
            route(Method::GET, "/projects/{project_id}/users/{user_id}/roles", &self, Self::list),
            route(Method::GET, "/role_assignments", &self, Self::assignments),
        ]
    }
}

fn grant_of(request: &Request) -> Grant {
    Grant {
        project_id: ProjectId::new(request.param("project_id")),
        user_id: UserId::new(request.param("user_id")),
        role_id: RoleId::new(request.param("role_id")),
    }
}

/// 404 for whichever of the three is not there.
fn check_parts(directory: &Directory, grant: &Grant) -> Result<(), ApiError> {
    if !directory.projects.contains_key(&grant.project_id) {
        return Err(projects::not_found(grant.project_id.as_str()));
    }
    if !directory.users.contains_key(&grant.user_id) {
        return Err(users::not_found(grant.user_id.as_str()));
    }
    if !directory.roles.contains_key(&grant.role_id) {
        return Err(role_resource::not_found(grant.role_id.as_str()));
    }
    Ok(())
}

fn no_such_grant(grant: &Grant) -> ApiError {
    ApiError::not_found(format!(
        "Could not find role assignment with role: {}, user or group: {}, project, domain, or system: {}.",
        grant.role_id, grant.user_id, grant.project_id
    ))
}

fn refused(error: StoreError, grant: &Grant) -> ApiError {
    match error {
        StoreError::NotFound { kind: Kind::Project, id } => projects::not_found(&id),
        StoreError::NotFound { kind: Kind::User, id } => users::not_found(&id),
        StoreError::NotFound { kind: Kind::Role, id } => role_resource::not_found(&id),
        StoreError::NotFound { .. } => no_such_grant(grant),
        other => other.into(),
    }
}

impl Grants {
    async fn add(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:create_grant")?;
        let grant = grant_of(&request);
        check_parts(&*self.manager.current().await?, &grant)?;
        self.manager.store.add_grant(grant.clone()).await.map_err(|error| refused(error, &grant))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn check(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:check_grant")?;
        let grant = grant_of(&request);
        let directory = self.manager.current().await?;
        check_parts(&directory, &grant)?;
        let given = directory.granted(&grant.user_id, &grant.project_id).iter().any(|role| role.id == grant.role_id);
        if given { Ok(done()) } else { Err(no_such_grant(&grant)) }
    }

    async fn remove(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:revoke_grant")?;
        let grant = grant_of(&request);
        check_parts(&*self.manager.current().await?, &grant)?;
        self.manager.store.remove_grant(&grant).await.map_err(|error| refused(error, &grant))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_grants")?;
        let directory = self.manager.current().await?;
        let (project, user) = (ProjectId::new(request.param("project_id")), UserId::new(request.param("user_id")));
        if !directory.projects.contains_key(&project) {
            return Err(projects::not_found(project.as_str()));
        }
        if !directory.users.contains_key(&user) {
            return Err(users::not_found(user.as_str()));
        }
        let roles = directory.granted(&user, &project);
        Ok(list(
            &request,
            "roles",
            roles.into_iter().map(|role| role_resource::body(&request.base_url, role)).collect(),
        ))
    }

    async fn assignments(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_role_assignments")?;
        let directory = self.manager.current().await?;
        // There are no groups, and nobody has a role on a domain or on the system.
        let elsewhere = ["group.id", "scope.domain.id", "scope.system"].iter().any(|key| request.query.has(key));
        let mut bodies = Vec::new();
        for grant in directory.grants().filter(|_| !elsewhere) {
            if !asked_for(&request, "user.id", grant.user_id.as_str())
                || !asked_for(&request, "scope.project.id", grant.project_id.as_str())
            {
                continue;
            }
            for role in self.roles_of(&directory, &request, &grant) {
                if asked_for(&request, "role.id", &role.id) {
                    bodies.extend(assignment(&request, &directory, &grant, &role));
                }
            }
        }
        bodies.dedup();
        Ok(list(&request, "role_assignments", bodies))
    }

    /// The grant's own role; with `effective`, what it implies, too.
    fn roles_of(&self, directory: &Directory, request: &Request, grant: &Grant) -> Vec<Named> {
        let Some(own) = directory.roles.get(&grant.role_id) else { return Vec::new() };
        let mut roles = vec![Named { id: own.id.to_string(), name: own.name.clone() }];
        if switch(request, "effective") {
            let implied = super::roles::implied_by(&own.name).iter().filter_map(|name| directory.role_named(name));
            roles.extend(implied.map(|role| Named { id: role.id.to_string(), name: role.name.clone() }));
        }
        roles
    }
}

/// No filter of that key, or the value that it asks for.
fn asked_for(request: &Request, key: &str, value: &str) -> bool {
    request.query.get(key).is_none_or(|wanted| wanted == value)
}

/// `?effective` and `?effective=true`, but not `?effective=0`.
fn switch(request: &Request, key: &str) -> bool {
    request.query.get(key).is_some_and(|text| text.is_empty() || parse_bool(text).unwrap_or(true))
}

fn assignment(request: &Request, directory: &Directory, grant: &Grant, role: &Named) -> Option<Value> {
    let user = directory.users.get(&grant.user_id)?;
    let project = directory.projects.get(&grant.project_id)?;
    let link = format!("{}/projects/{}/users/{}/roles/{}", request.base_url, project.id, user.id, grant.role_id);
    let mut body = json!({
        "role": {"id": role.id},
        "user": {"id": user.id},
        "scope": {"project": {"id": project.id}},
        "links": {"assignment": link},
    });
    if switch(request, "include_names") {
        body["role"]["name"] = json!(role.name);
        body["user"] = named(directory, user.id.as_str(), &user.name, &user.domain_id);
        body["scope"]["project"] = named(directory, project.id.as_str(), &project.name, &project.domain_id);
    }
    Some(body)
}

fn named(directory: &Directory, id: &str, name: &str, domain: &DomainId) -> Value {
    let domain_name = directory.domains.get(domain).map(|domain| domain.name.as_str());
    json!({"id": id, "name": name, "domain": {"id": domain, "name": domain_name}})
}
