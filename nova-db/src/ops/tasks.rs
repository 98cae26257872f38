//! Tasks: begin, lease, commit.

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::ComputeNode;
use nova_core::ids::{ImageId, InstanceId, TaskId};
use nova_core::image::{Image, ImageStatus};
use nova_core::instance::Instance;
use nova_core::task::{Task, Work};

use super::accounts::{book, check_growth, release};
use super::aggregates::zone_of;
use super::instances::{Epoch, account, write_instance, write_over};
use super::{add_all, conflict, find, list, need, put, replace, replace_or_race};
use super::{images, migrations};
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{Committed, TaskCommit, TaskStart};

pub(super) async fn start(tx: &mut dyn Transaction, start: &TaskStart) -> Result<Instance, Fail> {
    let (old, instance) = write_over(tx, start.before.as_deref(), &start.instance, Epoch::Raise).await?;
    account(tx, &old, &instance).await?;
    if let Some(limits) = &start.limits {
        check_growth(tx, limits, start.user_limits.as_ref(), &old, &instance).await?;
    }
    if start.supersede {
        supersede(tx, instance.id, &start.task).await?;
    }
    if let Some(migration) = &start.migration {
        migrations::write(tx, migration).await?;
    }
    if let Some(image) = &start.image {
        images::create(tx, image).await?;
    }
    put(tx, &start.action).await?;
    add_all(tx, &[Task { epoch: instance.epoch, generation: 1, ..start.task.clone() }]).await?;
    Ok(instance)
}

/// The tasks of an instance go, and what they were to do has failed. What is done to its interfaces and volumes only a deletion
/// ends: it would be left half done.
async fn supersede(tx: &mut dyn Transaction, instance: InstanceId, by: &Task) -> Result<(), Fail> {
    let now = by.created_at;
    for task in list_tasks(tx, Some(instance)).await? {
        if task.work.plugs() && !matches!(by.work, Work::Delete) {
            continue;
        }
        end(tx, &task, now).await?;
    }
    Ok(())
}

/// The task goes, and what it was to do has failed.
pub(super) async fn end(tx: &mut dyn Transaction, task: &Task, now: Timestamp) -> Result<(), Fail> {
    if let Some(migration) = task.work.migration() {
        migrations::end(tx, migration, now).await?;
    }
    let key = [Value::text(task.instance_id), Value::text(&task.context.request_id)];
    let action = find::<ActionRecord>(tx, &key, Lock::ForUpdate).await?;
    if let Some(mut action) = action.filter(|action| action.record.finished.is_none()) {
        action.record.finish(Some("Error"), now);
        replace_or_race(tx, &action.record, action.generation).await?;
    }
    tx.delete(Task::TABLE, &Condition::key(Task::TABLE, &[Value::text(task.id)])).await?;
    if let Some(id) = task.work.image_in_making() {
        drop_unfinished_image(tx, id).await?;
    }
    Ok(())
}

/// An image that will never get its data goes with the task that was to make it. Whoever is bringing data finds it gone.
async fn drop_unfinished_image(tx: &mut dyn Transaction, id: ImageId) -> Result<(), Fail> {
    let key = [Value::text(id)];
    let found = find::<Image>(tx, &key, Lock::ForUpdate).await?;
    let unfinished = |image: &Image| matches!(image.status, ImageStatus::Queued | ImageStatus::Saving);
    if found.is_some_and(|found| unfinished(&found.record)) {
        tx.delete(Image::TABLE, &Condition::key(Image::TABLE, &key)).await?;
    }
    Ok(())
}

pub(super) async fn get(tx: &mut dyn Transaction, id: TaskId) -> Result<Task, Fail> {
    Ok(need(tx, &[Value::text(id)], Lock::None).await?.record)
}

pub(super) async fn list_due(tx: &mut dyn Transaction, now: Timestamp, limit: usize) -> Result<Vec<Task>, Fail> {
    let which = Condition::AtMost("lease_until", now.into());
    list(tx, &Select::new(which).by(&["lease_until", "id"]).limit(limit)).await
}

pub(super) async fn list_tasks(tx: &mut dyn Transaction, instance: Option<InstanceId>) -> Result<Vec<Task>, Fail> {
    let which = instance.map(|id| Condition::Is("instance_id", Value::text(id)));
    let select = which.map_or_else(Select::all, Select::new);
    list(tx, &select.by(&["created_at", "id"])).await
}

/// Whose lease on what.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) ids: Vec<TaskId>,
    pub(super) owner: String,
    pub(super) now: Timestamp,
    pub(super) until: Timestamp,
}

/// Taking a lease raises the generation: whoever held it before can commit nothing any more.
pub(super) async fn acquire(tx: &mut dyn Transaction, lease: &Lease) -> Result<Task, Fail> {
    let key: Vec<Value> = lease.ids.iter().map(Value::text).collect();
    let mut found = need::<Task>(tx, &key, Lock::ForUpdate).await?;
    if !found.record.free_for(&lease.owner, lease.now) {
        return Err(conflict::<Task>(&key));
    }
    found.record.owner = Some(lease.owner.clone());
    found.record.lease_until = lease.until;
    found.record.generation = found.generation + 1;
    if !replace(tx, &found.record, found.generation).await? {
        return Err(conflict::<Task>(&key));
    }
    Ok(found.record)
}

/// Renewing one leaves the generation, so that it never fails the commit of a step that runs meanwhile.
pub(super) async fn renew(tx: &mut dyn Transaction, lease: &Lease) -> Result<(), Fail> {
    let which = Condition::All(vec![
        Condition::In("id", lease.ids.iter().map(Value::text).collect()),
        Condition::Is("owner", lease.owner.as_str().into()),
    ]);
    tx.set(Task::TABLE, &which, &[("lease_until", lease.until.into())]).await?;
    Ok(())
}

pub(super) async fn commit(tx: &mut dyn Transaction, commit: &TaskCommit) -> Result<Committed, Fail> {
    let task = write_task(tx, &commit.task, commit.done).await?;
    let (mut instance, mut old) = (None, None);
    if let Some(new) = &commit.instance {
        let (was, is) = write_over(tx, commit.before.as_deref(), new, Epoch::Keep).await?;
        (instance, old) = (Some(is), Some(was));
    }
    // Giving back comes first: it may be what makes room.
    let mut nodes = Vec::new();
    for host in &commit.release {
        let released = release(tx, task.instance_id, host).await?;
        nodes.extend(released.map(|version| (host.clone(), version)));
    }
    let booked = match &commit.book {
        Some(booking) => {
            let (booked, node) = book(tx, booking).await?;
            if let Some(node) = node {
                nodes.push((booked.host.clone(), node.version()));
                instance = match instance {
                    Some(instance) if booking.zone.is_none() => Some(in_zone_of(tx, instance, &node).await?),
                    other => other,
                };
            }
            Some(booked)
        }
        None => None,
    };
    if let Some(action) = &commit.action {
        put(tx, action).await?;
    }
    let migration = match &commit.migration {
        Some(migration) => Some(migrations::write(tx, migration).await?),
        None => None,
    };
    if let (Some(old), Some(instance)) = (&old, &instance) {
        account(tx, old, instance).await?;
    }
    Ok(Committed { task, instance, nodes, booked, migration })
}

/// An instance that asked for no zone is in that of its host, which whoever chose the host may not know yet.
async fn in_zone_of(tx: &mut dyn Transaction, instance: Instance, node: &ComputeNode) -> Result<Instance, Fail> {
    if instance.host.as_ref() != Some(&node.host) {
        return Ok(instance);
    }
    let zone = zone_of(tx, &node.host, &node.zone).await?;
    if instance.availability_zone.as_ref() == Some(&zone) {
        return Ok(instance);
    }
    write_instance(tx, &Instance { availability_zone: Some(zone), ..instance }, Epoch::Keep).await
}

async fn write_task(tx: &mut dyn Transaction, task: &Task, done: bool) -> Result<Task, Fail> {
    let key = [Value::text(task.id)];
    let lost = || conflict::<Task>(&key);
    if done {
        let gone = tx.delete_one(Task::TABLE, &key, task.generation).await?;
        return if gone { Ok(Task { generation: task.generation + 1, ..task.clone() }) } else { Err(lost()) };
    }
    let old = find::<Task>(tx, &key, Lock::ForUpdate).await?.ok_or_else(lost)?;
    if old.generation != task.generation {
        return Err(lost());
    }
    let mut next = task.clone();
    // A claim raises it: the order to each host carries a token of its own.
    next.epoch = old.record.epoch.max(task.epoch);
    next.generation = old.generation + 1;
    // The lease may have been renewed since the task was read; only giving up the task shortens it.
    if next.owner.is_some() && next.owner == old.record.owner {
        next.lease_until = next.lease_until.max(old.record.lease_until);
    }
    if replace(tx, &next, old.generation).await? { Ok(next) } else { Err(lost()) }
}

/// The end of an action whose task was lost. The instance is locked, so that no task of the same request begins
/// meanwhile.
pub(super) async fn finish_action(tx: &mut dyn Transaction, action: &ActionRecord) -> Result<(), Fail> {
    find::<Instance>(tx, &[Value::text(action.instance_id)], Lock::ForUpdate).await?;
    let values = action.values();
    let key = values.get(..ActionRecord::TABLE.key).unwrap_or(&values);
    let old = need::<ActionRecord>(tx, key, Lock::ForUpdate).await?;
    let carries_out = |task: &Task| task.context.request_id == action.request_id;
    if list_tasks(tx, Some(action.instance_id)).await?.iter().any(carries_out) {
        return Err(conflict::<ActionRecord>(key));
    }
    replace_or_race(tx, action, old.generation).await
}
