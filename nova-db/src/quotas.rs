//! Limits that operators set.

use async_trait::async_trait;
use nova_core::ids::{ProjectId, UserId};
use nova_core::quota::{QuotaLimits, QuotaOwner, Usage};

use crate::StoreError;

/// Limits of classes, projects and users, where operators set some in the place of the configured ones. What counts
/// against them is kept with instances.
#[async_trait]
pub trait QuotaStore: Send + Sync {
    /// What was set for each of these, in their order, read at one moment; nothing for those for whom nothing was.
    async fn get_quotas(&self, owners: &[QuotaOwner]) -> Result<Vec<QuotaLimits>, StoreError>;

    /// Users of a project with limits of their own, by user.
    async fn list_user_quotas(&self, project: &ProjectId) -> Result<Vec<(UserId, QuotaLimits)>, StoreError>;

    /// Sets these limits in one transaction; others of the same owner stay. Returns all that are set then.
    async fn set_quotas(&self, owner: QuotaOwner, limits: QuotaLimits) -> Result<QuotaLimits, StoreError>;

    /// Removes what was set, of a project together with what was set for its users. Fine if nothing was.
    async fn delete_quotas(&self, owner: QuotaOwner) -> Result<(), StoreError>;

    /// What a user's live instances in a project use.
    async fn user_usage(&self, project: &ProjectId, user: &UserId) -> Result<Usage, StoreError>;
}
