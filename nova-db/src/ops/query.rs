//! Which instances, as a question about columns.

use nova_core::ids::InstanceId;
use nova_core::instance::Instance;

use super::{list, not_found};
use crate::records::sort_column;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{Deleted, Direction, InstanceQuery, StateFilter};

/// One statement for a page, and one more for where it begins.
pub(super) async fn list_instances(tx: &mut dyn Transaction, query: &InstanceQuery) -> Result<Vec<Instance>, Fail> {
    let mut select = Select { which: which(query), order: order(query), limit: query.limit };
    if let Some(after) = query.after {
        select = after_instance(tx, select, after).await?;
    }
    list(tx, &select).await
}

async fn after_instance(tx: &mut dyn Transaction, select: Select, after: InstanceId) -> Result<Select, Fail> {
    let key = [Value::text(after)];
    let marker = tx.get(Instance::TABLE, &key, Lock::None).await?.ok_or_else(|| not_found::<Instance>(&key))?;
    Ok(select.after(Instance::TABLE, &marker))
}

fn order(query: &InstanceQuery) -> Vec<(&'static str, Direction)> {
    if query.sort.is_empty() {
        return vec![("created_at", Direction::Descending), ("id", Direction::Descending)];
    }
    let mut order: Vec<(&'static str, Direction)> = Vec::with_capacity(query.sort.len() + 1);
    let keys = query.sort.iter().map(|(key, direction)| (sort_column(*key), *direction));
    for (column, direction) in keys.chain([("id", Direction::Ascending)]) {
        // What was sorted by already decides nothing more.
        if !order.iter().any(|(earlier, _)| *earlier == column) {
            order.push((column, direction));
        }
    }
    order
}

fn which(query: &InstanceQuery) -> Condition {
    let mut all = Vec::new();
    match query.deleted {
        Deleted::No => all.push(Condition::Is("deleted", false.into())),
        Deleted::Only => all.push(Condition::Is("deleted", true.into())),
        Deleted::Any => {}
    }
    let texts = [
        ("project_id", query.project_id.as_ref().map(Value::text)),
        ("user_id", query.user_id.as_ref().map(Value::text)),
        ("host", query.host.as_ref().map(Value::text)),
        ("reservation_id", query.reservation_id.map(Value::text)),
        ("image_id", query.image_id.map(Value::text)),
        ("flavor_id", query.flavor_id.as_ref().map(Value::text)),
    ];
    all.extend(texts.into_iter().filter_map(|(column, value)| Some(Condition::Is(column, value?))));
    if let Some(ids) = &query.ids {
        all.push(Condition::In("id", ids.iter().map(Value::text).collect()));
    }
    if let Some(states) = &query.states {
        all.push(Condition::Any(states.iter().map(in_state).collect()));
    }
    if let Some(since) = query.changed_since {
        all.push(Condition::AtLeast("updated_at", since.into()));
    }
    if let Some(before) = query.changed_before {
        all.push(Condition::AtMost("updated_at", before.into()));
    }
    Condition::All(all)
}

fn in_state((vm_state, task_states): &StateFilter) -> Condition {
    let vm_state = Condition::Is("vm_state", vm_state.as_str().into());
    match task_states {
        None => vm_state,
        Some(tasks) => {
            let tasks = tasks.iter().map(|task| Value::optional(*task)).collect();
            Condition::All(vec![vm_state, Condition::In("task_state", tasks)])
        }
    }
}
