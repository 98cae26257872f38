//! Instances: create, read, list, write.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::{HostName, InstanceId, ProjectId, RequestId, TaskId};
use nova_core::instance::Instance;
use nova_core::quota::Usage;
use nova_core::task::Task;

use super::accounts::{recount, release, usage_of};
use super::creations::{Creation, create_one};
use super::{RowStore, conflict, find, list, need, put, query, rebuild, replace, reset, server_groups, tasks};
use crate::records::ProjectUsage;
use crate::rows::{Backend, Condition, Fail, Lock, Select, Transaction, Value};
use crate::{Committed, ComputeStore, InstanceQuery, Kind, NewInstances, StoreError, TaskCommit, TaskStart};

#[async_trait]
impl<B: Backend> ComputeStore for RowStore<B> {
    async fn create_instances(&self, new: NewInstances) -> Result<Vec<Instance>, StoreError> {
        // What is counted for a user, or joins a group, looks at rows that must be there.
        if self.backend.joins() && new.user_limits.is_none() && new.group.is_none() {
            return self.creations.submit(&self.backend, Creation(Arc::new(new))).await;
        }
        self.write(new, |tx, new| Box::pin(create_one(tx, new))).await
    }

    async fn get_instance(&self, id: InstanceId) -> Result<Instance, StoreError> {
        self.read(&id, |tx, id| Box::pin(get_instance(tx, *id))).await
    }

    async fn list_instances(&self, query: &InstanceQuery) -> Result<Vec<Instance>, StoreError> {
        self.read(query, |tx, query| Box::pin(query::list_instances(tx, query))).await
    }

    async fn update_instance(&self, instance: Instance) -> Result<Instance, StoreError> {
        self.write(instance, |tx, instance| Box::pin(write_instance(tx, instance, Epoch::Keep))).await
    }

    async fn record_change(&self, instance: Instance, action: ActionRecord) -> Result<Instance, StoreError> {
        self.write((instance, action), |tx, input| Box::pin(record_change(tx, &input.0, &input.1))).await
    }

    async fn reset_state(&self, instance: Instance, action: ActionRecord) -> Result<Instance, StoreError> {
        self.write((instance, action), |tx, input| Box::pin(reset::reset(tx, &input.0, &input.1))).await
    }

    async fn start_task(&self, start: TaskStart) -> Result<Instance, StoreError> {
        self.write(start, |tx, start| Box::pin(tasks::start(tx, start))).await
    }

    async fn get_task(&self, id: TaskId) -> Result<Task, StoreError> {
        self.read(&id, |tx, id| Box::pin(tasks::get(tx, *id))).await
    }

    async fn list_due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError> {
        self.read(&(now, limit), |tx, input| Box::pin(tasks::list_due(tx, input.0, input.1))).await
    }

    async fn list_tasks(&self, instance: Option<InstanceId>) -> Result<Vec<Task>, StoreError> {
        self.read(&instance, |tx, instance| Box::pin(tasks::list_tasks(tx, *instance))).await
    }

    async fn acquire_task(
        &self,
        id: TaskId,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Task, StoreError> {
        let lease = tasks::Lease { ids: vec![id], owner: owner.to_owned(), now, until: lease_until };
        self.write(lease, |tx, lease| Box::pin(tasks::acquire(tx, lease))).await
    }

    async fn renew_leases(&self, ids: &[TaskId], owner: &str, lease_until: Timestamp) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let lease = tasks::Lease { ids: ids.to_vec(), owner: owner.to_owned(), now: lease_until, until: lease_until };
        self.write(lease, |tx, lease| Box::pin(tasks::renew(tx, lease))).await
    }

    async fn commit_task(&self, commit: TaskCommit) -> Result<Committed, StoreError> {
        self.write(commit, |tx, commit| Box::pin(tasks::commit(tx, commit))).await
    }

    async fn list_actions(&self, instance: InstanceId) -> Result<Vec<ActionRecord>, StoreError> {
        self.read(&instance, |tx, instance| Box::pin(list_actions(tx, *instance))).await
    }

    async fn get_action(&self, instance: InstanceId, request: &RequestId) -> Result<ActionRecord, StoreError> {
        let key = [Value::text(instance), Value::text(request)];
        self.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }

    async fn usage(&self, project: &ProjectId) -> Result<Usage, StoreError> {
        self.read(project, |tx, project| Box::pin(async move { Ok(usage_of(tx, project, Lock::None).await?.0) })).await
    }

    async fn list_usage(&self) -> Result<Vec<(ProjectId, Usage)>, StoreError> {
        self.read(&(), |tx, ()| Box::pin(list_usage(tx))).await
    }

    async fn list_allocations(&self, host: Option<&HostName>) -> Result<Vec<Allocation>, StoreError> {
        self.read(&host.cloned(), |tx, host| Box::pin(list_allocations(tx, host.as_ref()))).await
    }

    async fn rebuild_accounts(&self) -> Result<Vec<String>, StoreError> {
        self.write((), |tx, ()| Box::pin(rebuild::rebuild_accounts(tx))).await
    }

    async fn delete_allocation(&self, instance: InstanceId, host: &HostName) -> Result<(), StoreError> {
        self.write((instance, host.clone()), |tx, key| Box::pin(delete_allocation(tx, key.0, &key.1))).await
    }

    async fn finish_action(&self, action: ActionRecord) -> Result<(), StoreError> {
        self.write(action, |tx, action| Box::pin(tasks::finish_action(tx, action))).await
    }
}

async fn get_instance(tx: &mut dyn Transaction, id: InstanceId) -> Result<Instance, Fail> {
    Ok(need(tx, &[Value::text(id)], Lock::None).await?.record)
}

/// What becomes of the fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Epoch {
    /// It never sinks.
    Keep,
    /// A new task begins.
    Raise,
}

/// Writes an instance over the one that was read, and keeps usage true.
pub(super) async fn write_instance(
    tx: &mut dyn Transaction,
    instance: &Instance,
    epoch: Epoch,
) -> Result<Instance, Fail> {
    let (old, next) = write_over(tx, None, instance, epoch).await?;
    account(tx, &old, &next).await?;
    Ok(next)
}

/// Writes only the row, over what the caller says to have read: that is not read again, and nothing is written unless its
/// generation stands. Returns it as it was and as it is; [`account`] is to follow.
pub(super) async fn write_over(
    tx: &mut dyn Transaction,
    before: Option<&Instance>,
    instance: &Instance,
    epoch: Epoch,
) -> Result<(Instance, Instance), Fail> {
    let key = [Value::text(instance.id)];
    let known = before.filter(|old| old.id == instance.id && old.generation == instance.generation);
    let old = match known {
        Some(old) => old.clone(),
        None => need::<Instance>(tx, &key, Lock::ForUpdate).await?.record,
    };
    if old.generation != instance.generation {
        return Err(conflict::<Instance>(&key));
    }
    let mut next = instance.clone();
    next.number = old.number;
    next.generation = old.generation + 1;
    next.epoch = match epoch {
        Epoch::Keep => old.epoch.max(instance.epoch),
        Epoch::Raise => old.epoch + 1,
    };
    if !replace(tx, &next, old.generation).await? {
        return Err(conflict::<Instance>(&key));
    }
    Ok((old, next))
}

/// Keeps true what depends on an instance that was written. Everybody of its project waits for the row of its usage: what else
/// there is to do in the transaction comes before it.
pub(super) async fn account(tx: &mut dyn Transaction, old: &Instance, next: &Instance) -> Result<(), Fail> {
    if next.is_deleted() && !old.is_deleted() && next.group().is_some() {
        server_groups::leave(tx, next.id).await?;
    }
    recount(tx, old, next).await
}

async fn record_change(tx: &mut dyn Transaction, instance: &Instance, action: &ActionRecord) -> Result<Instance, Fail> {
    let written = write_instance(tx, instance, Epoch::Keep).await?;
    put(tx, action).await?;
    Ok(written)
}

async fn list_actions(tx: &mut dyn Transaction, instance: InstanceId) -> Result<Vec<ActionRecord>, Fail> {
    let which = Condition::Is("instance_id", Value::text(instance));
    list(tx, &Select::new(which).newest(&["started", "request_id"])).await
}

async fn list_usage(tx: &mut dyn Transaction) -> Result<Vec<(ProjectId, Usage)>, Fail> {
    let rows: Vec<ProjectUsage> = list(tx, &Select::all().by(&["project_id"])).await?;
    Ok(rows.into_iter().map(|row| (row.project_id, row.usage)).collect())
}

async fn list_allocations(tx: &mut dyn Transaction, host: Option<&HostName>) -> Result<Vec<Allocation>, Fail> {
    let which = host.map(|host| Condition::Is("host", Value::text(host)));
    let select = which.map_or_else(Select::all, Select::new);
    list(tx, &select.by(&["host", "instance_id"])).await
}

async fn delete_allocation(tx: &mut dyn Transaction, instance: InstanceId, host: &HostName) -> Result<(), Fail> {
    let id = format!("{instance}/{host}");
    let user = find::<Instance>(tx, &[Value::text(instance)], Lock::ForUpdate).await?;
    if user.is_some_and(|user| !user.record.is_deleted() && user.record.host.as_ref() == Some(host)) {
        return Err(StoreError::Conflict { kind: Kind::Allocation, id }.into());
    }
    if release(tx, instance, host).await?.is_some() {
        return Ok(());
    }
    Err(StoreError::NotFound { kind: Kind::Allocation, id }.into())
}
