//! `/v3/users`, with the change of one's own password and the projects of a user.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::identity::User;
use nova_core::ids::{ProjectId, UserId};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::fields::Fields;
use super::http::{done, list, one, passes};
use super::manager::IdentityManager;
use super::password::Password;
use super::policy::{caller, require, require_admin};
use super::{domains, projects};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// Keystone's `[identity] max_password_length`, characters.
const LONGEST_PASSWORD: usize = 4096;

/// Users.
pub(super) struct Users {
    manager: Arc<IdentityManager>,
}

impl Users {
    pub(super) fn new(manager: Arc<IdentityManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/users", &self, Self::list),
            route(Method::POST, "/users", &self, Self::create),
            route(Method::GET, "/users/{id}", &self, Self::show),
            route(Method::PATCH, "/users/{id}", &self, Self::update),
            route(Method::DELETE, "/users/{id}", &self, Self::delete),
            // The old password is the proof, as in Keystone.
            route(Method::POST, "/users/{id}/password", &self, Self::change_password).public(),
            route(Method::GET, "/users/{id}/projects", &self, Self::projects),
            route(Method::GET, "/users/{id}/groups", &self, Self::groups),
        ]
    }
}

/// As clients see a user.
fn body(base_url: &str, user: &User) -> Value {
    let mut body = json!({
        "id": user.id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": null,
        "options": {},
        "links": {"self": format!("{base_url}/users/{}", user.id)},
    });
    if !user.description.is_empty() {
        body["description"] = json!(user.description);
    }
    if let Some(email) = &user.email {
        body["email"] = json!(email);
    }
    if let Some(project) = &user.default_project_id {
        body["default_project_id"] = json!(project);
    }
    body
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Could not find user: {id}."))
}

fn refused(error: StoreError, user: &User) -> ApiError {
    match error {
        StoreError::Duplicate { .. } => ApiError::conflict(format!(
            "Conflict occurred attempting to store user - Duplicate entry found with name {} at domain ID {}.",
            user.name, user.domain_id
        )),
        StoreError::NotFound { .. } => not_found(user.id.as_str()),
        other => other.into(),
    }
}

fn password(fields: &Fields, key: &str) -> Result<Option<Password>, ApiError> {
    match fields.text(key, LONGEST_PASSWORD)? {
        Some(text) if text.is_empty() => {
            Err(ApiError::bad_request(format!("Invalid input for field '{key}': it is empty.")))
        }
        text => Ok(text.map(Password::new)),
    }
}

fn default_project(fields: &Fields) -> Result<Option<ProjectId>, ApiError> {
    Ok(fields.text("default_project_id", 64)?.map(ProjectId::new))
}

impl Users {
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:list_users")?;
        let directory = self.manager.current().await?;
        let mut users: Vec<_> = directory.users.values().collect();
        users.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let bodies = users.into_iter().map(|user| body(&request.base_url, user));
        Ok(list(
            &request,
            "users",
            bodies.filter(|item| passes(&request, item, &["name", "domain_id", "enabled"])).collect(),
        ))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:create_user")?;
        let fields = Fields::read(&mut request, "user").await?;
        let domain_id = projects::domain_for(&fields, caller(&request)?)?;
        let name = fields.required_name(255)?;
        let password = password(&fields, "password")?;
        let mut user = User {
            id: UserId::new(self.manager.entropy.hex(16)),
            domain_id,
            name,
            description: fields.text("description", 65_535)?.unwrap_or_default(),
            email: fields.text("email", 255)?,
            enabled: fields.switch("enabled")?.unwrap_or(true),
            default_project_id: default_project(&fields)?,
            password_hash: None,
            created_at: self.manager.clock.now(),
            tokens_valid_from: None,
        };
        if !self.manager.current().await?.domains.contains_key(&user.domain_id) {
            return Err(domains::not_found(user.domain_id.as_str()));
        }
        if let Some(password) = password {
            user.password_hash = Some(self.manager.passwords.hash(password).await?);
        }
        let user = self.manager.store.create_user(user.clone()).await.map_err(|error| refused(error, &user))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::CREATED, "user", body(&request.base_url, &user)))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let id = request.param("id");
        require(&request, "identity:get_user", |token| token.user.id == id)?;
        Ok(one(StatusCode::OK, "user", body(&request.base_url, &self.found(id).await?)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        require_admin(&request, "identity:update_user")?;
        let fields = Fields::read(&mut request, "user").await?;
        let id = request.param("id");
        fields.same_id(id)?;
        let password_hash = match password(&fields, "password")? {
            Some(password) => Some(self.manager.passwords.hash(password).await?),
            None => None,
        };
        let _turn = self.manager.changing.lock().await;
        let mut user = self.found(id).await?;
        if fields.text("domain_id", 64)?.is_some_and(|domain| domain != user.domain_id.as_str()) {
            return Err(ApiError::bad_request(
                "Invalid input for field 'domain_id': a user cannot change their domain.",
            ));
        }
        if let Some(name) = fields.name(255)? {
            user.name = name;
        }
        if fields.has("description") {
            user.description = fields.text("description", 65_535)?.unwrap_or_default();
        }
        if fields.has("email") {
            user.email = fields.text("email", 255)?;
        }
        if fields.has("default_project_id") {
            user.default_project_id = default_project(&fields)?;
        }
        let enabled = fields.switch("enabled")?.unwrap_or(user.enabled);
        if user.enabled && !enabled {
            user.tokens_valid_from = Some(self.manager.clock.now());
        }
        user.enabled = enabled;
        if password_hash.is_some() {
            user.password_hash = password_hash;
            user.tokens_valid_from = Some(self.manager.clock.now());
        }
        let user = self.manager.store.update_user(user.clone()).await.map_err(|error| refused(error, &user))?;
        self.manager.changed().await?;
        Ok(one(StatusCode::OK, "user", body(&request.base_url, &user)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(&request, "identity:delete_user")?;
        let user = self.found(request.param("id")).await?;
        self.manager.store.delete_user(&user.id).await.map_err(|error| refused(error, &user))?;
        self.manager.changed().await?;
        Ok(done())
    }

    async fn change_password(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::read(&mut request, "user").await?;
        let missing = |key: &str| ApiError::bad_request(format!("'{key}' is a required property"));
        let original = password(&fields, "original_password")?.ok_or_else(|| missing("original_password"))?;
        let new = password(&fields, "password")?.ok_or_else(|| missing("password"))?;
        let directory = self.manager.current().await?;
        // Who does not exist costs as much work as who does.
        let user = directory.users.get(&UserId::new(request.param("id")));
        let hash = user.and_then(|user| user.password_hash.as_deref());
        let proved = self.manager.passwords.verify(original, hash).await?;
        let user = user.filter(|user| proved && directory.user_counts(user)).ok_or(ApiError::Unauthorized)?;
        let changed = self.manager.set_password(&user.id, hash, new).await?;
        if changed { Ok(done()) } else { Err(ApiError::Unauthorized) }
    }

    async fn projects(self: Arc<Self>, request: Request) -> HandlerResult {
        let id = request.param("id");
        require(&request, "identity:list_user_projects", |token| token.user.id == id)?;
        let user = self.found(id).await?;
        let directory = self.manager.current().await?;
        let bodies =
            directory.projects_of(&user.id).into_iter().map(|project| projects::body(&request.base_url, project));
        Ok(list(
            &request,
            "projects",
            bodies.filter(|item| passes(&request, item, &["name", "domain_id", "enabled"])).collect(),
        ))
    }

    /// There are no groups; dashboards ask for them all the same.
    async fn groups(self: Arc<Self>, request: Request) -> HandlerResult {
        let id = request.param("id");
        require(&request, "identity:list_groups_for_user", |token| token.user.id == id)?;
        self.found(id).await?;
        Ok(list(&request, "groups", Vec::new()))
    }

    async fn found(&self, id: &str) -> Result<User, ApiError> {
        let directory = self.manager.current().await?;
        directory.users.get(&UserId::new(id)).cloned().ok_or_else(|| not_found(id))
    }
}
