//! Limits that operators set.

use nova_core::quota::{QuotaLimits, QuotaOwner};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Table, Value};

/// The limits of one class, project or user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnedQuota {
    /// Whose.
    pub(crate) owner: QuotaOwner,
    /// Which.
    pub(crate) limits: QuotaLimits,
}

impl Record for OwnedQuota {
    const TABLE: &'static Table = &Table {
        name: "quotas",
        kind: Kind::Quota,
        columns: &[Column::text("scope", 16), Column::text("name", 255), Column::text("user_id", 255)],
        key: 3,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        quota_key(&self.owner)
    }
}

/// The key of the row that keeps these limits.
pub(crate) fn quota_key(owner: &QuotaOwner) -> Vec<Value> {
    match owner {
        QuotaOwner::Class(name) => vec!["class".into(), name.as_str().into(), "".into()],
        QuotaOwner::Project(project) => vec!["project".into(), Value::text(project), "".into()],
        QuotaOwner::User(project, user) => vec!["user".into(), Value::text(project), Value::text(user)],
    }
}
