//! Limits that operators set.

use std::collections::BTreeMap;

use async_trait::async_trait;
use nova_core::ids::{ProjectId, UserId};
use nova_core::instance::Instance;
use nova_core::quota::{QuotaLimits, QuotaOwner, Usage};

use super::accounts::{share, sum};
use super::{RowStore, add, find, list, replace_or_race};
use crate::records::{OwnedQuota, quota_key};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{QuotaStore, StoreError};

#[async_trait]
impl<B: Backend> QuotaStore for RowStore<B> {
    async fn get_quotas(&self, owners: &[QuotaOwner]) -> Result<Vec<QuotaLimits>, StoreError> {
        self.read(&owners.to_vec(), |tx, owners| Box::pin(get(tx, owners))).await
    }

    async fn list_user_quotas(&self, project: &ProjectId) -> Result<Vec<(UserId, QuotaLimits)>, StoreError> {
        self.read(project, |tx, project| Box::pin(list_users(tx, project))).await
    }

    async fn set_quotas(&self, owner: QuotaOwner, limits: QuotaLimits) -> Result<QuotaLimits, StoreError> {
        self.write((owner, limits), |tx, input| Box::pin(set(tx, &input.0, &input.1))).await
    }

    async fn delete_quotas(&self, owner: QuotaOwner) -> Result<(), StoreError> {
        self.write(owner, |tx, owner| Box::pin(delete(tx, owner))).await
    }

    async fn user_usage(&self, project: &ProjectId, user: &UserId) -> Result<Usage, StoreError> {
        let input = (project.clone(), user.clone());
        self.read(&input, |tx, input| Box::pin(usage_of_user(tx, &input.0, &input.1))).await
    }
}

async fn get(tx: &mut dyn Transaction, owners: &[QuotaOwner]) -> Result<Vec<QuotaLimits>, Fail> {
    let keys = owners.iter().map(|owner| Condition::key(OwnedQuota::TABLE, &quota_key(owner))).collect();
    let rows: Vec<OwnedQuota> = list(tx, &Select::new(Condition::Any(keys))).await?;
    let by_owner: BTreeMap<QuotaOwner, QuotaLimits> = rows.into_iter().map(|row| (row.owner, row.limits)).collect();
    Ok(owners.iter().map(|owner| by_owner.get(owner).cloned().unwrap_or_default()).collect())
}

/// Rows of the users of a project.
fn users_of(project: &ProjectId) -> Condition {
    Condition::All(vec![Condition::Is("scope", "user".into()), Condition::Is("name", Value::text(project))])
}

async fn list_users(tx: &mut dyn Transaction, project: &ProjectId) -> Result<Vec<(UserId, QuotaLimits)>, Fail> {
    let rows: Vec<OwnedQuota> = list(tx, &Select::new(users_of(project)).by(&["user_id"])).await?;
    let of_user = |row: OwnedQuota| match row.owner {
        QuotaOwner::User(_, user) => Some((user, row.limits)),
        QuotaOwner::Class(_) | QuotaOwner::Project(_) => None,
    };
    Ok(rows.into_iter().filter_map(of_user).collect())
}

async fn set(tx: &mut dyn Transaction, owner: &QuotaOwner, limits: &QuotaLimits) -> Result<QuotaLimits, Fail> {
    let Some(mut found) = find::<OwnedQuota>(tx, &quota_key(owner), Lock::ForUpdate).await? else {
        add(tx, &OwnedQuota { owner: owner.clone(), limits: limits.clone() }).await?;
        return Ok(limits.clone());
    };
    found.record.limits.extend(limits.clone());
    replace_or_race(tx, &found.record, found.generation).await?;
    Ok(found.record.limits)
}

async fn delete(tx: &mut dyn Transaction, owner: &QuotaOwner) -> Result<(), Fail> {
    tx.delete(OwnedQuota::TABLE, &Condition::key(OwnedQuota::TABLE, &quota_key(owner))).await?;
    if let QuotaOwner::Project(project) = owner {
        tx.delete(OwnedQuota::TABLE, &users_of(project)).await?;
    }
    Ok(())
}

/// Counted anew: few users have limits of their own.
pub(super) async fn usage_of_user(tx: &mut dyn Transaction, project: &ProjectId, user: &UserId) -> Result<Usage, Fail> {
    let which = Condition::All(vec![
        Condition::Is("project_id", Value::text(project)),
        Condition::Is("deleted", false.into()),
        Condition::Is("user_id", Value::text(user)),
    ]);
    let instances: Vec<Instance> = list(tx, &Select::new(which)).await?;
    Ok(instances.iter().map(share).fold(Usage::default(), sum))
}
