//! Instances: create, read, list, write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::{HostName, InstanceId, ProjectId, RequestId, TaskId};
use nova_core::instance::Instance;
use nova_core::quota::{Usage, check};
use nova_core::task::Task;

use super::accounts::{recount, release, share, sum, usage_of, write_usage};
use super::{
    RowStore, add_all, add_new, conflict, find, join, list, need, put, query, quotas, rebuild, replace, reset,
    server_groups, tasks,
};
use crate::records::{ProjectUsage, Request};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{
    Committed, ComputeStore, InstanceQuery, Kind, NewInstance, NewInstances, StoreError, TaskCommit, TaskStart,
};

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

/// A create request that may be carried out together with others.
#[derive(Clone)]
pub(super) struct Creation(Arc<NewInstances>);

#[async_trait]
impl join::Job for Creation {
    type Done = Vec<Instance>;

    // Each count is a statement of its own to a database, which keeps the plans of a few hundred.
    const TOGETHER: usize = 16;

    async fn carry_out(jobs: &[Self], tx: &mut dyn Transaction) -> Result<Vec<Made>, Fail> {
        let all: Vec<&NewInstances> = jobs.iter().map(|job| &*job.0).collect();
        create_all(tx, &all).await
    }
}

async fn create_one(tx: &mut dyn Transaction, new: &NewInstances) -> Result<Vec<Instance>, Fail> {
    let made = create_all(tx, &[new]).await?;
    Ok(made.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))?)
}

/// What comes of one create request.
type Made = Result<Vec<Instance>, StoreError>;

/// What is to come of one, once all have been looked at.
enum Plan {
    /// It was carried out before.
    Earlier(Vec<InstanceId>),
    /// So many instances.
    New(usize),
    Refused(StoreError),
}

/// What a project uses, as it changes from request to request.
struct Account {
    used: Usage,
    generation: Option<u64>,
    changed: bool,
}

/// Several create requests, each as if it came after the one before it. Those with limits of a user or with a group come alone.
async fn create_all(tx: &mut dyn Transaction, all: &[&NewInstances]) -> Result<Vec<Made>, Fail> {
    let mut known = earlier(tx, all).await?;
    let mut accounts = accounts_of(tx, all, &known).await?;
    let (mut plans, mut new) = (Vec::with_capacity(all.len()), Vec::new());
    for request in all {
        let plan = plan(tx, request, &mut accounts, &known).await?;
        if let (Plan::New(_), Some(one)) = (&plan, request.instances.first()) {
            let key = (one.instance.project_id.clone(), one.instance.request_id.clone());
            if known.insert(key, Vec::new()).is_some() {
                return Err(conflict::<Request>(&[Value::text(&one.instance.request_id)]));
            }
            new.push(*request);
        }
        plans.push(plan);
    }
    let mut made = write_all(tx, &new, accounts).await?.into_iter();
    let mut answers = Vec::with_capacity(plans.len());
    for plan in plans {
        answers.push(match plan {
            Plan::Earlier(ids) => Ok(in_order(tx, &ids).await?),
            Plan::New(count) => Ok(made.by_ref().take(count).collect()),
            Plan::Refused(error) => Err(error),
        });
    }
    Ok(answers)
}

/// The requests of these that were carried out before, and what they made.
type Earlier = BTreeMap<(ProjectId, RequestId), Vec<InstanceId>>;

async fn earlier(tx: &mut dyn Transaction, all: &[&NewInstances]) -> Result<Earlier, Fail> {
    let ones = all.iter().filter_map(|new| new.instances.first()).map(|new| &new.instance);
    let keys = ones.map(|one| [Value::text(&one.project_id), Value::text(&one.request_id)]);
    let which = Condition::Any(keys.map(|key| Condition::key(Request::TABLE, &key)).collect());
    let requests: Vec<Request> = list(tx, &Select::new(which)).await?;
    Ok(requests.into_iter().map(|known| ((known.project_id, known.request_id), known.instances)).collect())
}

/// What the projects of these requests use, with their rows locked, in one order for all.
async fn accounts_of(
    tx: &mut dyn Transaction,
    all: &[&NewInstances],
    known: &Earlier,
) -> Result<BTreeMap<ProjectId, Account>, Fail> {
    let ones = all.iter().filter_map(|new| new.instances.first()).map(|new| &new.instance);
    let unknown = ones.filter(|one| !known.contains_key(&(one.project_id.clone(), one.request_id.clone())));
    let projects: BTreeSet<&ProjectId> = unknown.map(|one| &one.project_id).collect();
    let mut accounts = BTreeMap::new();
    for project in projects {
        let (used, generation) = usage_of(tx, project, Lock::ForUpdate).await?;
        accounts.insert(project.clone(), Account { used, generation, changed: false });
    }
    Ok(accounts)
}

async fn plan(
    tx: &mut dyn Transaction,
    new: &NewInstances,
    accounts: &mut BTreeMap<ProjectId, Account>,
    known: &Earlier,
) -> Result<Plan, Fail> {
    let Some(NewInstance { instance: one, .. }) = new.instances.first() else { return Ok(Plan::New(0)) };
    if let Some(ids) = known.get(&(one.project_id.clone(), one.request_id.clone())) {
        return Ok(Plan::Earlier(ids.clone()));
    }
    let Some(account) = accounts.get_mut(&one.project_id) else { return Ok(Plan::New(0)) };
    let wanted = new.instances.iter().map(|new| share(&new.instance)).fold(Usage::default(), sum);
    if let Err(exceeded) = check(&new.limits, &account.used, &wanted) {
        return Ok(Plan::Refused(StoreError::Quota(exceeded)));
    }
    if let Some(limits) = &new.user_limits {
        // Whoever else makes one in this project waits for the row of its usage.
        let used = quotas::usage_of_user(tx, &one.project_id, &one.user_id).await?;
        if let Err(exceeded) = check(limits, &used, &wanted) {
            return Ok(Plan::Refused(StoreError::Quota(exceeded)));
        }
    }
    account.used = sum(account.used, wanted);
    account.changed = true;
    Ok(Plan::New(new.instances.len()))
}

/// The rows of all these requests. Returns the instances in order.
async fn write_all(
    tx: &mut dyn Transaction,
    all: &[&NewInstances],
    accounts: BTreeMap<ProjectId, Account>,
) -> Result<Vec<Instance>, Fail> {
    let new: Vec<&NewInstance> = all.iter().flat_map(|request| &request.instances).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let instances = numbered(tx, &new).await?;
    let (mut requests, mut rest) = (Vec::with_capacity(all.len()), instances.as_slice());
    for request in all {
        let (own, others) = rest.split_at_checked(request.instances.len()).unwrap_or((rest, &[]));
        rest = others;
        let Some(one) = own.first() else { continue };
        if let Some(join) = &request.group {
            server_groups::join(tx, join, own).await?;
        }
        let (project_id, request_id) = (one.project_id.clone(), one.request_id.clone());
        requests.push(Request { project_id, request_id, instances: own.iter().map(|one| one.id).collect() });
    }
    for (project, account) in accounts.into_iter().filter(|(_, account)| account.changed) {
        write_usage(tx, &project, account.used, account.generation).await?;
    }
    add_new(tx, &requests).await?;
    add_all(tx, &instances).await?;
    let actions: Vec<ActionRecord> = new.iter().map(|new| new.action.clone()).collect();
    add_all(tx, &actions).await?;
    let tasks: Vec<Task> = new.iter().map(|new| Task { epoch: 1, generation: 1, ..new.task.clone() }).collect();
    add_all(tx, &tasks).await?;
    Ok(instances)
}

/// The instances with what the store gives them.
async fn numbered(tx: &mut dyn Transaction, new: &[&NewInstance]) -> Result<Vec<Instance>, Fail> {
    let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
    let last = tx.advance(Sequence::Instance, count).await?;
    let numbers = last - i64::from(count) + 1..;
    let with_number =
        |(new, number): (&&NewInstance, i64)| Instance { number, epoch: 1, generation: 1, ..new.instance.clone() };
    Ok(new.iter().zip(numbers).map(with_number).collect())
}

/// What an earlier call made, as far as it still exists.
async fn in_order(tx: &mut dyn Transaction, ids: &[InstanceId]) -> Result<Vec<Instance>, Fail> {
    let which = Condition::In("id", ids.iter().map(Value::text).collect());
    let found: Vec<Instance> = list(tx, &Select::new(which)).await?;
    let mut by_id: BTreeMap<InstanceId, Instance> = found.into_iter().map(|i| (i.id, i)).collect();
    Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
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
