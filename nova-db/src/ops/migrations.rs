//! Moves of servers: numbered at their begin, compared at each write.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::ids::{InstanceId, MigrationId};
use nova_core::migration::{Migration, MigrationStatus};

use super::{RowStore, add, conflict, find, first, list, need, not_found, put, replace};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Sequence, Transaction, Value, row_of};
use crate::{Direction, MigrationQuery, MigrationStore, StoreError};

#[async_trait]
impl<B: Backend> MigrationStore for RowStore<B> {
    async fn get_migration(&self, uuid: MigrationId) -> Result<Migration, StoreError> {
        self.read(&uuid, |tx, uuid| {
            Box::pin(async move { Ok(need(tx, &[Value::text(*uuid)], Lock::None).await?.record) })
        })
        .await
    }

    async fn migration_of_number(&self, id: i64) -> Result<Migration, StoreError> {
        self.read(&id, |tx, id| Box::pin(of_number(tx, *id))).await
    }

    async fn list_migrations(&self, query: &MigrationQuery) -> Result<Vec<Migration>, StoreError> {
        self.read(query, |tx, query| Box::pin(find_all(tx, query))).await
    }

    async fn update_migration(
        &self,
        migration: Migration,
        action: Option<ActionRecord>,
    ) -> Result<Migration, StoreError> {
        self.write((migration, action), |tx, input| Box::pin(update(tx, &input.0, input.1.as_ref()))).await
    }
}

/// Writes a new move, with a number, or one over the one that was read.
pub(super) async fn write(tx: &mut dyn Transaction, migration: &Migration) -> Result<Migration, Fail> {
    if migration.generation == 0 {
        let id = tx.advance(Sequence::Migration, 1).await?;
        let new = Migration { id, generation: 1, ..migration.clone() };
        add(tx, &new).await?;
        return Ok(new);
    }
    let next = Migration { generation: migration.generation + 1, ..migration.clone() };
    if replace(tx, &next, migration.generation).await? {
        return Ok(next);
    }
    Err(conflict::<Migration>(&[Value::text(migration.uuid)]))
}

async fn update(
    tx: &mut dyn Transaction,
    migration: &Migration,
    action: Option<&ActionRecord>,
) -> Result<Migration, Fail> {
    let written = write(tx, migration).await?;
    if let Some(action) = action {
        put(tx, action).await?;
    }
    Ok(written)
}

async fn of_number(tx: &mut dyn Transaction, id: i64) -> Result<Migration, Fail> {
    let which = Select::new(Condition::Is("id", id.into()));
    let found = first::<Migration>(tx, which, Lock::None).await?;
    found
        .map(|found| found.record)
        .ok_or_else(|| StoreError::NotFound { kind: Migration::TABLE.kind, id: id.to_string() }.into())
}

fn condition(query: &MigrationQuery) -> Condition {
    let mut parts = Vec::new();
    if let Some(instance) = query.instance {
        parts.push(Condition::Is("instance_id", Value::text(instance)));
    }
    if let Some(host) = &query.host {
        let at = |column| Condition::Is(column, Value::text(host));
        parts.push(Condition::Any(vec![at("source_compute"), at("dest_compute")]));
    }
    if let Some(host) = &query.source_compute {
        parts.push(Condition::Is("source_compute", Value::text(host)));
    }
    if let Some(statuses) = &query.statuses {
        parts.push(Condition::In("status", statuses.iter().map(|status| status.as_str().into()).collect()));
    }
    if let Some(kind) = query.migration_type {
        parts.push(Condition::Is("migration_type", kind.as_str().into()));
    }
    if let Some(project) = &query.project_id {
        parts.push(Condition::Is("project_id", Value::text(project)));
    }
    if let Some(user) = &query.user_id {
        parts.push(Condition::Is("user_id", Value::text(user)));
    }
    if let Some(since) = query.changed_since {
        parts.push(Condition::AtLeast("updated_at", since.into()));
    }
    if let Some(before) = query.changed_before {
        parts.push(Condition::AtMost("updated_at", before.into()));
    }
    Condition::All(parts)
}

async fn find_all(tx: &mut dyn Transaction, query: &MigrationQuery) -> Result<Vec<Migration>, Fail> {
    let mut select = Select::new(condition(query));
    select.order = vec![("id", Direction::Descending)];
    if let Some(after) = query.after {
        let key = [Value::text(after)];
        let marker = find::<Migration>(tx, &key, Lock::None).await?.ok_or_else(|| not_found::<Migration>(&key))?;
        select = select.after(Migration::TABLE, &row_of(&marker.record, marker.generation)?);
    }
    select.limit = query.limit;
    list(tx, &select).await
}

/// Moves of an instance that are so far.
pub(super) async fn of_instance(
    tx: &mut dyn Transaction,
    instance: InstanceId,
    status: MigrationStatus,
) -> Result<Vec<Migration>, Fail> {
    let query = MigrationQuery { instance: Some(instance), statuses: Some(vec![status]), ..MigrationQuery::default() };
    find_all(tx, &query).await
}

/// The task that made the move was ended by another one.
pub(super) async fn end(tx: &mut dyn Transaction, uuid: MigrationId, now: Timestamp) -> Result<(), Fail> {
    let found = find::<Migration>(tx, &[Value::text(uuid)], Lock::ForUpdate).await?;
    let Some(open) = found.map(|found| found.record).filter(Migration::is_open) else { return Ok(()) };
    let ended = Migration { status: MigrationStatus::Error, updated_at: Some(now), ..open };
    write(tx, &ended).await.map(drop)
}
