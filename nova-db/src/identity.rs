//! Domains, projects, users, roles, grants; tokens taken back.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::identity::{Domain, Grant, Project, Role, User};
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};

use crate::{SecretStore, StoreError};

/// Everything that identity keeps. `create_*` refuses a taken id, or a taken name within the domain (case-insensitive,
/// as Keystone); `update_*` writes the whole row; `delete_*` removes what hangs on it in the same transaction (a user's and a
/// project's grants, a role's grants; a domain must be empty: Conflict). Lists are by name.
#[async_trait]
pub trait IdentityStore: SecretStore {
    /// New domain.
    async fn create_domain(&self, domain: Domain) -> Result<Domain, StoreError>;
    /// One domain.
    async fn get_domain(&self, id: &DomainId) -> Result<Domain, StoreError>;
    /// All domains.
    async fn list_domains(&self) -> Result<Vec<Domain>, StoreError>;
    /// Changes a domain.
    async fn update_domain(&self, domain: Domain) -> Result<Domain, StoreError>;
    /// Removes an empty domain.
    async fn delete_domain(&self, id: &DomainId) -> Result<(), StoreError>;

    /// New project.
    async fn create_project(&self, project: Project) -> Result<Project, StoreError>;
    /// One project.
    async fn get_project(&self, id: &ProjectId) -> Result<Project, StoreError>;
    /// All projects, or those of a name (case-insensitive).
    async fn list_projects(&self, name: Option<&str>) -> Result<Vec<Project>, StoreError>;
    /// Changes a project.
    async fn update_project(&self, project: Project) -> Result<Project, StoreError>;
    /// Removes a project and its grants.
    async fn delete_project(&self, id: &ProjectId) -> Result<(), StoreError>;

    /// New user.
    async fn create_user(&self, user: User) -> Result<User, StoreError>;
    /// One user.
    async fn get_user(&self, id: &UserId) -> Result<User, StoreError>;
    /// All users, or those of a name (case-insensitive).
    async fn list_users(&self, name: Option<&str>) -> Result<Vec<User>, StoreError>;
    /// Changes a user.
    async fn update_user(&self, user: User) -> Result<User, StoreError>;
    /// Removes a user and their grants.
    async fn delete_user(&self, id: &UserId) -> Result<(), StoreError>;

    /// New role.
    async fn create_role(&self, role: Role) -> Result<Role, StoreError>;
    /// One role.
    async fn get_role(&self, id: &RoleId) -> Result<Role, StoreError>;
    /// All roles.
    async fn list_roles(&self) -> Result<Vec<Role>, StoreError>;
    /// Changes a role.
    async fn update_role(&self, role: Role) -> Result<Role, StoreError>;
    /// Removes a role and its grants.
    async fn delete_role(&self, id: &RoleId) -> Result<(), StoreError>;

    /// Gives a role; all three must exist; repeating is fine.
    async fn add_grant(&self, grant: Grant) -> Result<(), StoreError>;
    /// Takes a role; NotFound if it was not given.
    async fn remove_grant(&self, grant: &Grant) -> Result<(), StoreError>;
    /// Grants of a user, of a project, or both.
    async fn list_grants(&self, user: Option<&UserId>, project: Option<&ProjectId>) -> Result<Vec<Grant>, StoreError>;

    /// Takes back a token (by its audit id) until it would have expired anyway.
    async fn revoke_token(&self, audit_id: &str, expires: Timestamp) -> Result<(), StoreError>;
    /// Tokens taken back that have not expired by `now`; older rows are removed.
    async fn list_revoked_tokens(&self, now: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError>;
    /// Grows with every change to identity: who caches compares it.
    async fn identity_version(&self) -> Result<u64, StoreError>;
}
