//! What was deleted long ago goes for good.

use std::collections::BTreeSet;

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::task::Task;

use super::accounts::release;
use super::{find, list, remove, replace_or_race};
use crate::records::{GroupMember, Request};
use crate::rows::{Condition, Fail, Found, Lock, Record, Select, Transaction, Value};

pub(super) async fn archive_deleted(tx: &mut dyn Transaction, before: Timestamp, limit: usize) -> Result<usize, Fail> {
    let which =
        Condition::All(vec![Condition::Is("deleted", true.into()), Condition::Below("deleted_at", before.into())]);
    let old: Vec<Instance> = list(tx, &Select::new(which).by(&["deleted_at", "id"]).limit(limit)).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Value> = old.iter().map(|instance| Value::text(instance.id)).collect();
    let of_these = Condition::In("instance_id", ids.clone());
    let left: Vec<Allocation> = list(tx, &Select::new(of_these.clone()).by(&["instance_id", "host"])).await?;
    for allocation in &left {
        release(tx, allocation.instance_id, &allocation.host).await?;
    }
    tx.delete(Task::TABLE, &of_these).await?;
    tx.delete(ActionRecord::TABLE, &of_these).await?;
    tx.delete(Migration::TABLE, &of_these).await?;
    tx.delete(GroupMember::TABLE, &of_these).await?;
    forget_requests(tx, &old).await?;
    tx.delete(Instance::TABLE, &Condition::In("id", ids)).await?;
    Ok(old.len())
}

/// A create request is remembered as long as one of its instances.
async fn forget_requests(tx: &mut dyn Transaction, gone: &[Instance]) -> Result<(), Fail> {
    let ids: BTreeSet<InstanceId> = gone.iter().map(|instance| instance.id).collect();
    let keys: BTreeSet<_> = gone.iter().map(|instance| (&instance.project_id, &instance.request_id)).collect();
    for (project, request) in keys {
        let key = [Value::text(project), Value::text(request)];
        let Some(Found { mut record, generation }) = find::<Request>(tx, &key, Lock::ForUpdate).await? else {
            continue;
        };
        record.instances.retain(|id| !ids.contains(id));
        if record.instances.is_empty() {
            remove::<Request>(tx, &key).await?;
        } else {
            replace_or_race(tx, &record, generation).await?;
        }
    }
    Ok(())
}
