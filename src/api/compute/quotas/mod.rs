//! Limits of projects and users: what is in force, and `/os-quota-sets` and `/os-quota-class-sets`
//! (nova/quota.py, nova/api/openstack/compute/quota_sets.py, quota_classes.py).
//!
//! A limit is the configuration's, unless the default class, the project or its user has one of its own, the last of these
//! first.

mod classes;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use nova_core::ids::{ProjectId, UserId};
use nova_core::quota::{DEFAULT_CLASS, Limits, QuotaLimits, QuotaOwner};
use nova_db::StoreError;
use serde_json::{Map, Value, json};

pub use classes::QuotaClassSets;
pub use sets::QuotaSets;

use super::{ComputeApi, ComputeOptions};
use crate::api::validate::Fields;
use crate::api::{ApiError, Microversion};

/// A thing that is limited.
struct Resource {
    /// As bodies name it.
    name: &'static str,
    /// The last version that shows it in quota sets.
    until: u16,
    /// The versions that show it in quota class sets: from, to.
    in_classes: (u16, u16),
    /// What the configuration says.
    configured: fn(&ComputeOptions) -> Option<u64>,
}

const LAST: u16 = u16::MAX;

/// Nova's order. What nova-network counted once is kept in sight until it goes (2.36, in classes 2.50), and limits nothing.
const RESOURCES: [Resource; 14] = [
    resource("instances", LAST, (0, LAST), |options| options.limits.instances),
    resource("cores", LAST, (0, LAST), |options| options.limits.cores),
    resource("ram", LAST, (0, LAST), |options| options.limits.ram),
    resource("fixed_ips", 35, (0, 49), |_| None),
    resource("floating_ips", 35, (0, 49), |_| None),
    resource("metadata_items", LAST, (0, LAST), |options| options.metadata_items),
    resource("injected_files", 56, (0, 56), |options| options.injected_files),
    resource("injected_file_content_bytes", 56, (0, 56), |options| options.injected_file_content_bytes),
    resource("injected_file_path_bytes", 56, (0, 56), |options| options.injected_file_path_length),
    resource("security_groups", 35, (0, 49), |_| None),
    resource("security_group_rules", 35, (0, 49), |_| None),
    resource("key_pairs", LAST, (0, LAST), |options| options.key_pairs),
    resource("server_groups", LAST, (50, LAST), |options| options.server_groups),
    resource("server_group_members", LAST, (50, LAST), |options| options.server_group_members),
];

const fn resource(
    name: &'static str,
    until: u16,
    in_classes: (u16, u16),
    configured: fn(&ComputeOptions) -> Option<u64>,
) -> Resource {
    Resource { name, until, in_classes, configured }
}

/// Resources of quota sets at that version.
fn in_sets(version: Microversion) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |resource| version.0 <= resource.until)
}

/// Resources of quota class sets at that version.
fn in_classes(version: Microversion) -> impl Iterator<Item = &'static Resource> {
    let shown = move |resource: &&Resource| (resource.in_classes.0..=resource.in_classes.1).contains(&version.0);
    RESOURCES.iter().filter(shown)
}

/// Every limit by name; −1 is without limit.
type All = BTreeMap<&'static str, i64>;

/// What the configuration says, with the changes of the default class.
fn defaults(options: &ComputeOptions, class: &QuotaLimits) -> All {
    let configured = |resource: &Resource| match (resource.configured)(options) {
        Some(limit) => i64::try_from(limit).unwrap_or(i64::MAX),
        None => -1,
    };
    let all = RESOURCES.iter().map(|resource| (resource.name, configured(resource))).collect();
    with(all, class)
}

fn with(mut all: All, changes: &QuotaLimits) -> All {
    for (name, limit) in &mut all {
        if let Some(own) = changes.get(*name) {
            *limit = *own;
        }
    }
    all
}

/// Limits in force.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    project: All,
    /// The user's, where the user has some.
    user: Option<All>,
}

impl InForce {
    /// The user's limit, or else the project's; `None` is without limit.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        bound(self.user.as_ref().unwrap_or(&self.project), name)
    }

    /// The project's limit.
    pub(crate) fn of_project(&self, name: &str) -> Option<u64> {
        bound(&self.project, name)
    }

    /// The user's limit, where the user has limits.
    pub(crate) fn of_user(&self, name: &str) -> Option<u64> {
        self.user.as_ref().and_then(|user| bound(user, name))
    }

    /// What all servers of the project may use together.
    pub(crate) fn limits(&self) -> Limits {
        limits(&self.project)
    }

    /// What the user's servers may use, where the user has limits.
    pub(crate) fn user_limits(&self) -> Option<Limits> {
        self.user.as_ref().map(limits)
    }

    fn shown(&self) -> &All {
        self.user.as_ref().unwrap_or(&self.project)
    }
}

fn limits(all: &All) -> Limits {
    Limits { instances: bound(all, "instances"), cores: bound(all, "cores"), ram: bound(all, "ram") }
}

fn bound(all: &All, name: &str) -> Option<u64> {
    all.get(name).and_then(|limit| u64::try_from(*limit).ok())
}

impl ComputeApi {
    /// The limits of a project, and of a user in it.
    pub(crate) async fn quotas_in_force(
        &self,
        project: &ProjectId,
        user: Option<&UserId>,
    ) -> Result<InForce, StoreError> {
        let mut owners = vec![default_class(), QuotaOwner::Project(project.clone())];
        owners.extend(user.map(|user| QuotaOwner::User(project.clone(), user.clone())));
        let mut set = self.store.get_quotas(&owners).await?.into_iter();
        let mut next = || set.next().unwrap_or_default();
        let defaults = defaults(&self.options.get(), &next());
        let project = with(defaults, &next());
        let own = next();
        let user = (!own.is_empty()).then(|| with(project.clone(), &own));
        Ok(InForce { project, user })
    }
}

fn default_class() -> QuotaOwner {
    QuotaOwner::Class(DEFAULT_CLASS.to_owned())
}

/// These resources' limits as a body shows them.
fn view(resources: impl Iterator<Item = &'static Resource>, all: &All) -> Map<String, Value> {
    let shown = resources.map(|resource| (resource.name.to_owned(), json!(all.get(resource.name).unwrap_or(&-1))));
    shown.collect()
}

/// Limits of these resources, as far as a body names them: −1 or more.
fn read(fields: &mut Fields<'_>, resources: impl Iterator<Item = &'static Resource>) -> Result<QuotaLimits, ApiError> {
    let mut limits = QuotaLimits::new();
    for resource in resources {
        if let Some(limit) = fields.integer(resource.name, -1, super::input::MAX_INT)? {
            limits.insert(resource.name.to_owned(), limit);
        }
    }
    Ok(limits)
}
