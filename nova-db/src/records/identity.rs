//! Domains, projects, users, roles, grants, secrets, tokens taken back.

use jiff::Timestamp;
use nova_core::identity::{Domain, Grant, Project, Role, User};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Table, Value};

/// A name as it is compared: Keystone's names differ in more than case.
pub(crate) fn folded(name: &str) -> String {
    name.to_lowercase()
}

impl Record for Domain {
    const TABLE: &'static Table = &Table {
        name: "domains",
        kind: Kind::Domain,
        columns: &[Column::text("id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["folded_name"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.id), folded(&self.name).into()]
    }
}

impl Record for Project {
    const TABLE: &'static Table = &Table {
        name: "projects",
        kind: Kind::Project,
        columns: &[Column::text("id", 255), Column::text("domain_id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["domain_id", "folded_name"]],
        indexes: &[&["folded_name"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.id), Value::text(&self.domain_id), folded(&self.name).into()]
    }
}

impl Record for User {
    const TABLE: &'static Table = &Table {
        name: "users",
        kind: Kind::User,
        columns: &[Column::text("id", 255), Column::text("domain_id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["domain_id", "folded_name"]],
        indexes: &[&["folded_name"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.id), Value::text(&self.domain_id), folded(&self.name).into()]
    }
}

impl Record for Role {
    const TABLE: &'static Table = &Table {
        name: "roles",
        kind: Kind::Role,
        columns: &[Column::text("id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["folded_name"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.id), folded(&self.name).into()]
    }
}

impl Record for Grant {
    const TABLE: &'static Table = &Table {
        name: "grants",
        kind: Kind::Grant,
        columns: &[Column::text("project_id", 255), Column::text("user_id", 255), Column::text("role_id", 64)],
        key: 3,
        unique: &[],
        indexes: &[&["user_id"], &["role_id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.project_id), Value::text(&self.user_id), Value::text(&self.role_id)]
    }
}

/// Bytes that all services of a deployment share.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    /// What it is for.
    pub(crate) name: String,
    /// The bytes.
    pub(crate) value: Vec<u8>,
}

impl Record for Secret {
    const TABLE: &'static Table = &Table {
        name: "secrets",
        kind: Kind::Secret,
        columns: &[Column::text("name", 255)],
        key: 1,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![self.name.clone().into()]
    }
}

/// A token that is no longer good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RevokedToken {
    /// Which.
    pub(crate) audit_id: String,
    /// When it would have ended anyway.
    pub(crate) expires: Timestamp,
}

impl Record for RevokedToken {
    const TABLE: &'static Table = &Table {
        name: "revoked_tokens",
        kind: Kind::Secret,
        columns: &[Column::text("audit_id", 255), Column::time("expires")],
        key: 1,
        unique: &[],
        indexes: &[&["expires", "audit_id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![self.audit_id.clone().into(), self.expires.into()]
    }
}
