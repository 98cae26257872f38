//! Everything that identity knows, in memory, as of one version of the store. Answers, logins and tokens are made from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::contracts::{Named, TokenInfo};
use nova_core::identity::{Domain, Grant, Project, Role, User};
use nova_core::ids::{DomainId, ProjectId, RoleId, UserId};
use nova_db::{IdentityStore, StoreError};

use super::roles::implied_by;
use super::token::Claims;

/// A picture of the store.
#[derive(Debug)]
pub(super) struct Directory {
    pub version: u64,
    pub loaded_at: Timestamp,
    pub domains: BTreeMap<DomainId, Domain>,
    pub projects: BTreeMap<ProjectId, Project>,
    pub users: BTreeMap<UserId, User>,
    pub roles: BTreeMap<RoleId, Role>,
    grants: BTreeMap<(UserId, ProjectId), BTreeSet<RoleId>>,
    revoked: BTreeSet<String>,
}

/// Why a token that was signed well does not count.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It does not, whatever changed meanwhile.
    Final,
    /// It names something that is not here; a newer picture may have it.
    Unknown,
}

impl Directory {
    /// Reads the whole store. The version is read first: what changes while the rest is read is read again next time.
    pub(super) async fn load(store: &dyn IdentityStore, now: Timestamp) -> Result<Self, StoreError> {
        let version = store.identity_version().await?;
        let mut grants: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for grant in store.list_grants(None, None).await? {
            grants.entry((grant.user_id, grant.project_id)).or_default().insert(grant.role_id);
        }
        Ok(Self {
            version,
            loaded_at: now,
            domains: store.list_domains().await?.into_iter().map(|domain| (domain.id.clone(), domain)).collect(),
            projects: store
                .list_projects(None)
                .await?
                .into_iter()
                .map(|project| (project.id.clone(), project))
                .collect(),
            users: store.list_users(None).await?.into_iter().map(|user| (user.id.clone(), user)).collect(),
            roles: store.list_roles().await?.into_iter().map(|role| (role.id.clone(), role)).collect(),
            grants,
            revoked: store.list_revoked_tokens(now).await?.into_iter().map(|(audit_id, _)| audit_id).collect(),
        })
    }

    pub(super) fn domain_named(&self, name: &str) -> Option<&Domain> {
        self.domains.values().find(|domain| same_name(&domain.name, name))
    }

    pub(super) fn user_named(&self, name: &str, domain: &DomainId) -> Option<&User> {
        self.users.values().find(|user| user.domain_id == *domain && same_name(&user.name, name))
    }

    pub(super) fn project_named(&self, name: &str, domain: &DomainId) -> Option<&Project> {
        self.projects.values().find(|project| project.domain_id == *domain && same_name(&project.name, name))
    }

    pub(super) fn role_named(&self, name: &str) -> Option<&Role> {
        self.roles.values().find(|role| same_name(&role.name, name))
    }

    /// May the user use any token now?
    pub(super) fn user_counts(&self, user: &User) -> bool {
        user.enabled && self.domains.get(&user.domain_id).is_some_and(|domain| domain.enabled)
    }

    /// May anybody have a token for the project now?
    pub(super) fn project_counts(&self, project: &Project) -> bool {
        project.enabled && self.domains.get(&project.domain_id).is_some_and(|domain| domain.enabled)
    }

    /// All grants, in the order of user, project, role.
    pub(super) fn grants(&self) -> impl Iterator<Item = Grant> + '_ {
        self.grants.iter().flat_map(|((user_id, project_id), roles)| {
            roles.iter().map(|role_id| Grant {
                project_id: project_id.clone(),
                user_id: user_id.clone(),
                role_id: role_id.clone(),
            })
        })
    }

    /// The roles that the user was given on the project.
    pub(super) fn granted(&self, user: &UserId, project: &ProjectId) -> Vec<&Role> {
        let ids = self.grants.get(&(user.clone(), project.clone()));
        ids.into_iter().flatten().filter_map(|id| self.roles.get(id)).collect()
    }

    /// The roles that the user has on the project, implied ones included, by name.
    pub(super) fn effective_roles(&self, user: &UserId, project: &ProjectId) -> Vec<Named> {
        let mut roles: BTreeMap<&str, &Role> = BTreeMap::new();
        for role in self.granted(user, project) {
            roles.insert(&role.name, role);
            for name in implied_by(&role.name) {
                if let Some(implied) = self.role_named(name) {
                    roles.insert(&implied.name, implied);
                }
            }
        }
        roles.into_values().map(|role| Named { id: role.id.to_string(), name: role.name.clone() }).collect()
    }

    /// The projects on which the user has a role and could have a token, by name.
    pub(super) fn projects_of(&self, user: &UserId) -> Vec<&Project> {
        let from = (user.clone(), ProjectId::new(""));
        let mut projects: Vec<_> = self
            .grants
            .range(from..)
            .take_while(|((owner, _), _)| owner == user)
            .filter_map(|((_, project), _)| self.projects.get(project))
            .collect();
        projects.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        projects
    }

    /// Holds a token's claims against what is known now.
    pub(super) fn check(&self, claims: &Claims, now: Timestamp) -> Result<TokenInfo, Rejected> {
        let revoked = claims.audit_ids.first().is_none_or(|id| self.revoked.contains(id));
        if revoked || claims.expires_at <= now {
            return Err(Rejected::Final);
        }
        let user = self.users.get(&claims.user_id).ok_or(Rejected::Unknown)?;
        if !self.user_counts(user) || user.tokens_valid_from.is_some_and(|from| claims.issued_at < from) {
            return Err(Rejected::Unknown);
        }
        let scope = match &claims.project_id {
            None => None,
            Some(id) => {
                Some(self.projects.get(id).filter(|project| self.project_counts(project)).ok_or(Rejected::Unknown)?)
            }
        };
        self.describe(claims, user, scope).ok_or(Rejected::Unknown)
    }

    /// The claims in full; `None` if the user has no role on the project.
    fn describe(&self, claims: &Claims, user: &User, project: Option<&Project>) -> Option<TokenInfo> {
        let roles = project.map(|project| self.effective_roles(&user.id, &project.id)).unwrap_or_default();
        if project.is_some() && roles.is_empty() {
            return None;
        }
        Some(TokenInfo {
            user: Named { id: user.id.to_string(), name: user.name.clone() },
            user_domain: self.named_domain(&user.domain_id)?,
            project: project.map(|project| Named { id: project.id.to_string(), name: project.name.clone() }),
            project_domain: match project {
                Some(project) => Some(self.named_domain(&project.domain_id)?),
                None => None,
            },
            roles,
            methods: claims.methods.clone(),
            audit_ids: claims.audit_ids.clone(),
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
        })
    }

    fn named_domain(&self, id: &DomainId) -> Option<Named> {
        self.domains.get(id).map(|domain| Named { id: domain.id.to_string(), name: domain.name.clone() })
    }
}

/// Names are compared as Keystone's databases do.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
