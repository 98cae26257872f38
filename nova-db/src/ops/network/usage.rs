//! What projects have, counted in the transaction that makes or removes it.

use std::collections::BTreeMap;

use nova_core::ids::ProjectId;
use nova_core::network::{NetworkProblem, NetworkResource};

use super::super::{add, find, list, replace_or_race};
use crate::NetworkAccount;
use crate::records::NetworkUsage;
use crate::rows::{Condition, Fail, Found, Lock, Select, Transaction, Value};

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
