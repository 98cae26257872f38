//! What a new cloud begins with (`keystone-manage bootstrap`).

use nova_core::identity::{Domain, Grant, Project, Role, User};
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};
use nova_db::{IdentityStore, StoreError};

use super::manager::{IdentityManager, ManagerError};
use super::password::Password;
use super::roles::BUILT_IN_ROLES;

/// A user that was made, with the only copy of their password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub user: String,
    /// The password, shown this once.
    pub password: Password,
    /// The project on which they have a role.
    pub project: String,
    /// The domain of both.
    pub domain: String,
}

/// What bootstrap did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// The users that were not there before.
    pub accounts: Vec<Account>,
}

const DOMAIN: &str = "default";
/// User and project of that name, and the role of one on the other. The last one tells that all are done.
const ACCOUNTS: [(&str, &str); 2] = [("demo", "member"), ("admin", "admin")];

impl IdentityManager {
    /// Makes the domain Default, the built-in roles, and the users and projects `admin` (role `admin`) and `demo` (role
    /// `member`). Safe to repeat and beside another process that does the same: who is there already keeps their
    /// password, and once there is a user `admin`, no account is made again (an operator may have removed `demo`).
    ///
    /// # Errors
    /// [`ManagerError::Store`] and [`ManagerError::Password`]; what was made until then stays.
    pub async fn bootstrap(&self) -> Result<Bootstrap, ManagerError> {
        let store = &*self.store;
        let created_at = self.clock.now();
        let domain = Domain {
            id: DomainId::new(DOMAIN),
            name: "Default".to_owned(),
            description: "The default domain".to_owned(),
            enabled: true,
            created_at,
        };
        unless_there(store.create_domain(domain).await)?;
        for name in BUILT_IN_ROLES {
            let id = RoleId::new(self.entropy.hex(16));
            unless_there(
                store.create_role(Role { id, name: name.to_owned(), description: String::new(), created_at }).await,
            )?;
        }
        let mut done = Bootstrap::default();
        if !self.has_admin().await? {
            for (name, role) in ACCOUNTS {
                done.accounts.extend(self.make_account(name, role).await?);
            }
        }
        self.changed().await?;
        Ok(done)
    }

    /// Gives a user of the domain Default a new password, for an operator who lost it; their tokens are taken back.
    /// `None` if there is no such user.
    ///
    /// # Errors
    /// [`ManagerError::Store`] and [`ManagerError::Password`].
    pub async fn reset_password(&self, name: &str) -> Result<Option<Password>, ManagerError> {
        let Some(user) = find_user(&*self.store, name, &DomainId::new(DOMAIN)).await? else { return Ok(None) };
        let password = Password::generate(&*self.entropy);
        let done = self.set_password(&user.id, None, password.clone()).await?;
        Ok(done.then_some(password))
    }

    /// Is there a user `admin` with a role? From then on bootstrap makes no account.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn has_admin(&self) -> Result<bool, StoreError> {
        let Some(user) = find_user(&*self.store, "admin", &DomainId::new(DOMAIN)).await? else { return Ok(false) };
        Ok(!self.store.list_grants(Some(&user.id), None).await?.is_empty())
    }

    /// `None` if the user was there.
    async fn make_account(&self, name: &str, role: &str) -> Result<Option<Account>, ManagerError> {
        let (store, created_at) = (&*self.store, self.clock.now());
        let domain_id = DomainId::new(DOMAIN);
        let project = Project {
            id: ProjectId::new(self.entropy.hex(16)),
            domain_id: domain_id.clone(),
            name: name.to_owned(),
            description: String::new(),
            enabled: true,
            created_at,
        };
        unless_there(store.create_project(project).await)?;
        let there = find_user(store, name, &domain_id).await?;
        let mut account = None;
        if there.is_none() {
            let password = Password::generate(&*self.entropy);
            let user = User {
                id: UserId::new(self.entropy.hex(16)),
                domain_id: domain_id.clone(),
                name: name.to_owned(),
                description: String::new(),
                email: None,
                enabled: true,
                default_project_id: None,
                password_hash: Some(self.passwords.hash(password.clone()).await?),
                created_at,
                tokens_valid_from: None,
            };
            if unless_there(store.create_user(user).await)? {
                let (user, project, domain) = (name.to_owned(), name.to_owned(), "Default".to_owned());
                account = Some(Account { user, password, project, domain });
            }
        }
        self.grant(name, role, &domain_id).await?;
        Ok(account)
    }

    /// Looked up again, as another process may have been faster with any of them.
    async fn grant(&self, name: &str, role: &str, domain: &DomainId) -> Result<(), ManagerError> {
        let store = &*self.store;
        let user = find_user(store, name, domain).await?;
        let project = store.list_projects(Some(name)).await?.into_iter().find(|project| project.domain_id == *domain);
        let role = store.list_roles().await?.into_iter().find(|known| known.name == role);
        if let (Some(user), Some(project), Some(role)) = (user, project, role) {
            store.add_grant(Grant { project_id: project.id, user_id: user.id, role_id: role.id }).await?;
        }
        Ok(())
    }
}

async fn find_user(store: &dyn IdentityStore, name: &str, domain: &DomainId) -> Result<Option<User>, StoreError> {
    Ok(store.list_users(Some(name)).await?.into_iter().find(|user| user.domain_id == *domain))
}

/// Was it made just now?
fn unless_there<T>(result: Result<T, StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(_) => Ok(true),
        Err(StoreError::Duplicate { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
