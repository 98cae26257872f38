//! Domains, projects, users, roles and who has which: the words of identity (Keystone v3).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DomainId, ProjectId, RoleId, UserId};

/// A name space of users and projects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The id; the first one is `default`.
    pub id: DomainId,
    /// Unique name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Users of a disabled domain get no tokens.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A tenant: what owns servers and is limited by quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// The id.
    pub id: ProjectId,
    /// Its domain.
    pub domain_id: DomainId,
    /// Unique in its domain.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// No tokens for a disabled project.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A person or a program.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// Its domain.
    pub domain_id: DomainId,
    /// Unique in its domain.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Free text; never used to send anything.
    #[serde(default)]
    pub email: Option<String>,
    /// A disabled user gets no tokens.
    pub enabled: bool,
    /// Scope where none is asked for.
    #[serde(default)]
    pub default_project_id: Option<ProjectId>,
    /// Argon2id in PHC form; `None`: no login by password.
    #[serde(default)]
    pub password_hash: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Tokens issued before are no longer good: set when password or enablement change.
    #[serde(default)]
    pub tokens_valid_from: Option<Timestamp>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A role: `admin`, `manager`, `member`, `reader`, `service` and what operators add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The id.
    pub id: RoleId,
    /// Unique name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A role of a user on a project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// On what.
    pub project_id: ProjectId,
    /// To whom.
    pub user_id: UserId,
    /// What.
    pub role_id: RoleId,
}
