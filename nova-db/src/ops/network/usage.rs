//! What projects have, counted in the transaction that makes or removes it.

use std::collections::BTreeMap;

use nova_core::ids::ProjectId;
use nova_core::network::{NetworkProblem, NetworkResource};

use super::super::{add, add_all, find, list, replace_or_race};
use crate::NetworkAccount;
use crate::records::NetworkUsage;
use crate::rows::{Condition, Fail, Found, Lock, Record, Select, Transaction, Value, decode, row_of};

type Row = (NetworkUsage, Option<u64>);

/// The project's row, which others that write it wait for from now on.
async fn row(tx: &mut dyn Transaction, project: &ProjectId, resource: NetworkResource) -> Result<Row, Fail> {
    let key = [Value::text(project), resource.as_str().into()];
    let found: Option<Found<NetworkUsage>> = find(tx, &key, Lock::ForUpdate).await?;
    Ok(match found {
        Some(found) => (found.record, Some(found.generation)),
        None => (NetworkUsage { project_id: project.clone(), resource, used: 0, limit: None }, None),
    })
}

async fn write(tx: &mut dyn Transaction, (row, generation): &Row) -> Result<(), Fail> {
    match generation {
        Some(generation) => replace_or_race(tx, row, *generation).await,
        None => add(tx, row).await,
    }
}

/// Counts so many more, if the project may have them. What belongs to no project is not counted.
pub(super) async fn charge(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    resource: NetworkResource,
    count: u64,
    limit: Option<u64>,
) -> Result<(), Fail> {
    if project.as_str().is_empty() || count == 0 {
        return Ok(());
    }
    let mut row = row(tx, project, resource).await?;
    let limit = row.0.limit.map_or(limit, |own| u64::try_from(own).ok());
    if let Some(limit) = limit.filter(|limit| row.0.used + count > *limit) {
        return Err(NetworkProblem::OverQuota { resource, used: row.0.used, limit }.into());
    }
    row.0.used += count;
    write(tx, &row).await
}

/// Counts so many more for each of these projects, in few statements however many they are.
pub(super) async fn charge_all(
    tx: &mut dyn Transaction,
    resource: NetworkResource,
    counts: &BTreeMap<&ProjectId, (u64, Option<u64>)>,
) -> Result<(), Fail> {
    let charge = |project: &ProjectId, usage: &mut NetworkUsage| {
        let (count, limit) = counts.get(project).copied().unwrap_or_default();
        let limit = usage.limit.map_or(limit, |own| u64::try_from(own).ok());
        if let Some(limit) = limit.filter(|limit| usage.used + count > *limit) {
            return Err(NetworkProblem::OverQuota { resource, used: usage.used, limit }.into());
        }
        usage.used += count;
        Ok(())
    };
    change_all(tx, resource, counts.keys().copied(), &charge).await
}

/// Counts so many less for each of these projects.
pub(super) async fn refund_all(
    tx: &mut dyn Transaction,
    resource: NetworkResource,
    counts: &BTreeMap<&ProjectId, u64>,
) -> Result<(), Fail> {
    let refund = |project: &ProjectId, usage: &mut NetworkUsage| {
        usage.used = usage.used.saturating_sub(counts.get(project).copied().unwrap_or_default());
        Ok(())
    };
    change_all(tx, resource, counts.keys().copied(), &refund).await
}

/// A change of a project's count.
type Change<'a> = &'a (dyn Fn(&ProjectId, &mut NetworkUsage) -> Result<(), Fail> + Sync);

/// Others who write these rows wait from now on; all take them in one order. What belongs to no project is not counted.
async fn change_all<'a>(
    tx: &mut dyn Transaction,
    resource: NetworkResource,
    projects: impl Iterator<Item = &'a ProjectId>,
    change: Change<'_>,
) -> Result<(), Fail> {
    let projects: Vec<&ProjectId> = projects.filter(|project| !project.as_str().is_empty()).collect();
    if projects.is_empty() {
        return Ok(());
    }
    let which = Condition::All(vec![
        Condition::In("project_id", projects.iter().map(Value::text).collect()),
        Condition::Is("resource", resource.as_str().into()),
    ]);
    let rows = tx.select(NetworkUsage::TABLE, &Select::new(which).by(&["project_id"]), Lock::ForUpdate).await?;
    let mut known = BTreeMap::new();
    for row in &rows {
        let Found { record, generation } = decode::<NetworkUsage>(row)?;
        known.insert(record.project_id.clone(), (record, generation));
    }
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for project in projects {
        match known.remove(project) {
            Some((mut usage, generation)) => {
                change(project, &mut usage)?;
                old.push((row_of(&usage, generation + 1)?, generation));
            }
            None => {
                let mut usage = NetworkUsage { project_id: project.clone(), resource, used: 0, limit: None };
                change(project, &mut usage)?;
                new.push(usage);
            }
        }
    }
    if !new.is_empty() {
        add_all(tx, &new).await?;
    }
    if tx.update_all(NetworkUsage::TABLE, old).await? {
        return Ok(());
    }
    Err(Fail::Raced { kind: NetworkUsage::TABLE.kind, id: resource.as_str().to_owned() })
}

/// Counts so many more, whatever the limit.
pub(super) async fn record(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    resource: NetworkResource,
    count: u64,
) -> Result<(), Fail> {
    let mut row = row(tx, project, resource).await?;
    row.0.used += count;
    write(tx, &row).await
}

/// Counts so many less.
pub(super) async fn refund(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    resource: NetworkResource,
    count: u64,
) -> Result<(), Fail> {
    if project.as_str().is_empty() || count == 0 {
        return Ok(());
    }
    let mut row = row(tx, project, resource).await?;
    row.0.used = row.0.used.saturating_sub(count);
    write(tx, &row).await
}

/// Waits for those who make or remove such things of the project, and keeps others from it until the end.
pub(super) async fn hold(tx: &mut dyn Transaction, project: &ProjectId, resource: NetworkResource) -> Result<(), Fail> {
    let row = row(tx, project, resource).await?;
    write(tx, &row).await
}

pub(super) async fn accounts(
    tx: &mut dyn Transaction,
    project: &ProjectId,
) -> Result<BTreeMap<NetworkResource, NetworkAccount>, Fail> {
    let which = Condition::Is("project_id", Value::text(project));
    let rows: Vec<NetworkUsage> = list(tx, &Select::new(which)).await?;
    let account =
        |row: NetworkUsage| NetworkAccount { used: row.used, limit: row.limit.map(|own| u64::try_from(own).ok()) };
    Ok(rows.into_iter().map(|row| (row.resource, account(row))).collect())
}

pub(super) async fn set_limits(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    limits: &BTreeMap<NetworkResource, Option<Option<u64>>>,
) -> Result<(), Fail> {
    for (resource, limit) in limits {
        let mut row = row(tx, project, *resource).await?;
        let number = |limit: Option<u64>| limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        row.0.limit = limit.map(number);
        write(tx, &row).await?;
    }
    Ok(())
}
