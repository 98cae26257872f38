//! Limits per project, and what counts against them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ProjectId, UserId};

/// Limits that operators set in the place of the configured ones, by resource as the API names it (`cores`); −1 is without
/// limit.
pub type QuotaLimits = BTreeMap<String, i64>;

/// The class whose limits stand in the place of the configured ones for everybody (nova/db, `_DEFAULT_QUOTA_NAME`).
pub const DEFAULT_CLASS: &str = "default";

/// Whose limits they are. A user's count before the project's, the project's before the default class's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaOwner {
    /// A class: only [`DEFAULT_CLASS`] has an effect.
    Class(String),
    /// A project as a whole.
    Project(ProjectId),
    /// One user in a project.
    User(ProjectId, UserId),
}

/// What a project's instances use; kept in the same transaction that creates or deletes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Servers that are not deleted.
    pub instances: u64,
    /// Their virtual processors.
    pub cores: u64,
    /// Their memory in MiB.
    pub ram: u64,
}

/// Limits of one project; `None` is without limit (−1 in Nova's configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Servers.
    pub instances: Option<u64>,
    /// Virtual processors.
    pub cores: Option<u64>,
    /// Memory in MiB.
    pub ram: Option<u64>,
}

/// A request that does not fit: every resource that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("Quota exceeded for {}: Requested {}, but already used {} of {} {}", join(.0, |o| o.resource.clone()), join(.0, |o| o.requested.to_string()), join(.0, |o| o.used.to_string()), join(.0, |o| o.limit.to_string()), join(.0, |o| o.resource.clone()))]
pub struct QuotaExceeded(pub Vec<Over>);

/// One resource that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// `instances`, `cores`, `ram`, `key_pairs`, `server_groups`, `server_group_members`.
    pub resource: String,
    /// How much was asked for.
    pub requested: u64,
    /// How much is in use.
    pub used: u64,
    /// How much may be.
    pub limit: u64,
}

fn join(over: &[Over], text: impl Fn(&Over) -> String) -> String {
    over.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Does `wanted` on top of `used` fit into the limits? (nova/quota.py; the text is Nova's.)
///
/// # Errors
/// [`QuotaExceeded`] with every resource that does not.
pub fn check(limits: &Limits, used: &Usage, wanted: &Usage) -> Result<(), QuotaExceeded> {
    let rows = [
        ("instances", limits.instances, used.instances, wanted.instances),
        ("cores", limits.cores, used.cores, wanted.cores),
        ("ram", limits.ram, used.ram, wanted.ram),
    ];
    let over: Vec<Over> = rows
        .into_iter()
        .filter_map(|(resource, limit, used, requested)| {
            let limit = limit?;
            let fits = requested == 0 || used.saturating_add(requested) <= limit;
            (!fits).then(|| Over { resource: resource.to_owned(), requested, used, limit })
        })
        .collect();
    if over.is_empty() { Ok(()) } else { Err(QuotaExceeded(over)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unit_fits_and_one_more_names_every_resource() {
        let limits = Limits { instances: Some(10), cores: Some(20), ram: None };
        let used = Usage { instances: 9, cores: 18, ram: 1 << 40 };
        assert_eq!(check(&limits, &used, &Usage { instances: 1, cores: 2, ram: 1 }), Ok(()));
        let text = check(&limits, &used, &Usage { instances: 2, cores: 4, ram: 1 }).unwrap_err().to_string();
        assert_eq!(
            text,
            "Quota exceeded for instances, cores: Requested 2, 4, but already used 9, 18 of 10, 20 instances, cores"
        );
    }
}
