//! Create requests, several at once: quota, instances, actions and tasks in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use nova_core::action::ActionRecord;
use nova_core::ids::{InstanceId, ProjectId, RequestId};
use nova_core::instance::Instance;
use nova_core::quota::{Usage, check};
use nova_core::task::Task;

use super::accounts::{share, sum, usage_of, write_usage};
use super::{add_all, add_new, conflict, join, list, quotas, server_groups};
use crate::records::Request;
use crate::rows::{Condition, Fail, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{NewInstance, NewInstances, StoreError};

/// A create request that may be carried out together with others.
#[derive(Clone)]
pub(super) struct Creation(pub(super) Arc<NewInstances>);

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

pub(super) async fn create_one(tx: &mut dyn Transaction, new: &NewInstances) -> Result<Vec<Instance>, Fail> {
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
    none_twice(all)?;
    let known = earlier(tx, all).await?;
    let mut accounts = accounts_of(tx, all, &known).await?;
    let (mut plans, mut new) = (Vec::with_capacity(all.len()), Vec::new());
    for request in all {
        let plan = plan(tx, request, &mut accounts, &known).await?;
        if matches!(plan, Plan::New(_)) {
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

/// The same request twice: which of them came first is found out one by one.
fn none_twice(all: &[&NewInstances]) -> Result<(), Fail> {
    let mut seen = BTreeSet::new();
    for NewInstance { instance: one, .. } in all.iter().filter_map(|new| new.instances.first()) {
        if !seen.insert((&one.project_id, &one.request_id)) {
            return Err(conflict::<Request>(&[Value::text(&one.project_id), Value::text(&one.request_id)]));
        }
    }
    Ok(())
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
