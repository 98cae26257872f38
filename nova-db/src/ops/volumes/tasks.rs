//! Who works on what.

use jiff::Timestamp;
use nova_core::ids::VolumeTaskId;
use nova_core::volume::VolumeTask;

use super::super::{conflict, find, need, replace, replace_or_race};
use crate::rows::{Fail, Found, Lock, Transaction, Value};

pub(super) async fn claim(
    tx: &mut dyn Transaction,
    id: VolumeTaskId,
    owner: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<VolumeTask, Fail> {
    let key = [Value::text(id)];
    let Found { record: mut task, generation } = need::<VolumeTask>(tx, &key, Lock::ForUpdate).await?;
    let is_mine = task.owner.as_deref() == Some(owner);
    if task.lease_until > now && task.owner.is_some() && !is_mine {
        return Err(conflict::<VolumeTask>(&key));
    }
    task.attempts = task.attempts.saturating_add(u32::from(!is_mine));
    (task.owner, task.lease_until, task.generation) = (Some(owner.to_owned()), until, generation + 1);
    if replace(tx, &task, generation).await? { Ok(task) } else { Err(conflict::<VolumeTask>(&key)) }
}

pub(super) async fn release(
    tx: &mut dyn Transaction,
    id: VolumeTaskId,
    owner: &str,
    now: Timestamp,
) -> Result<(), Fail> {
    let found: Option<Found<VolumeTask>> = find(tx, &[Value::text(id)], Lock::ForUpdate).await?;
    let Some(Found { record: mut task, generation }) = found else { return Ok(()) };
    if task.owner.as_deref() != Some(owner) {
        return Ok(());
    }
    (task.owner, task.lease_until, task.generation) = (None, now, generation + 1);
    replace_or_race(tx, &task, generation).await
}
