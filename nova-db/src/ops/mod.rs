//! The store's operations, written once over rows; every backend runs these.

mod accounts;
mod aggregates;
mod archive;
mod consoles;
mod creations;
mod flavors;
mod hosts;
mod identity;
mod images;
mod instances;
mod join;
mod keypairs;
mod migrations;
mod network;
mod query;
mod quotas;
mod rebuild;
mod reset;
mod server_groups;
mod tasks;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod tokens;
mod volumes;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::rows::{
    Backend, BoxFuture, Condition, Fail, Found, Lock, Output, Record, Select, Transaction, Value, WriteOperation,
    decode, row_of,
};
use crate::{Kind, Maintenance, StoreError};

/// The store over any backend that keeps rows: [`crate::MemoryStore`], [`crate::SqliteStore`].
#[derive(Debug)]
pub struct RowStore<B> {
    backend: Arc<B>,
    ports: network::Joiner,
    creations: join::Joiner<creations::Creation>,
}

/// An operation on an input, as a plain function: it can be run again after a lost race.
type Run<I, T> = for<'a> fn(&'a mut dyn Transaction, &'a I) -> BoxFuture<'a, Result<T, Fail>>;

/// Gives a closure the type that backends take.
fn operation<F>(run: F) -> WriteOperation
where
    F: for<'a> Fn(&'a mut dyn Transaction) -> BoxFuture<'a, Result<Output, Fail>> + Send + Sync + 'static,
{
    Arc::new(run)
}

/// What an operation gave back, with its type.
fn output_of<T: 'static>(backend: &'static str, output: Output) -> Result<T, StoreError> {
    output.downcast::<T>().map(|output| *output).map_err(|_| StoreError::Unavailable {
        backend,
        source: "an operation answered with another type than it has".into(),
    })
}

#[allow(private_bounds, reason = "which backends there are is this crate's business; builders implement the traits")]
impl<B: Backend> RowStore<B> {
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    /// The store over that backend.
    pub(crate) fn over(backend: B) -> Self {
        Self { backend: Arc::new(backend), ports: network::Joiner::default(), creations: join::Joiner::default() }
    }

    async fn read<I: Sync, T>(&self, input: &I, run: Run<I, T>) -> Result<T, StoreError> {
        let mut transaction = self.backend.read().await?;
        run(&mut *transaction, input).await.map_err(Fail::into_store_error)
    }

    async fn write<I, T>(&self, input: I, run: Run<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let input = Arc::new(input);
        let operation = operation(move |tx| {
            let input = Arc::clone(&input);
            Box::pin(async move { Ok(Box::new(run(tx, &input).await?) as Output) })
        });
        output_of(self.backend.name(), self.backend.write(operation).await?)
    }
}

#[async_trait]
impl<B: Backend> Maintenance for RowStore<B> {
    fn backend(&self) -> &'static str {
        self.backend.name()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.backend.ping().await
    }

    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        self.backend.schema_version().await
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.backend.migrate().await
    }

    fn commits(&self) -> u64 {
        self.backend.commits()
    }

    async fn archive_deleted(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write((before, limit), |tx, input| Box::pin(archive::archive_deleted(tx, input.0, input.1))).await
    }
}

/// The record of that key.
async fn find<R: Record>(tx: &mut dyn Transaction, key: &[Value], lock: Lock) -> Result<Option<Found<R>>, Fail> {
    tx.get(R::TABLE, key, lock).await?.map(|row| decode(&row)).transpose()
}

/// The record of that key, which must exist.
async fn need<R: Record>(tx: &mut dyn Transaction, key: &[Value], lock: Lock) -> Result<Found<R>, Fail> {
    find(tx, key, lock).await?.ok_or_else(|| not_found::<R>(key))
}

/// There is no record of that key.
fn not_found<R: Record>(key: &[Value]) -> Fail {
    StoreError::NotFound { kind: R::TABLE.kind, id: R::TABLE.key_text(key) }.into()
}

/// The record of that key is not what the caller read.
fn conflict<R: Record>(key: &[Value]) -> Fail {
    StoreError::Conflict { kind: R::TABLE.kind, id: R::TABLE.key_text(key) }.into()
}

/// The records that fit.
async fn list<R: Record>(tx: &mut dyn Transaction, select: &Select) -> Result<Vec<R>, Fail> {
    let rows = tx.select(R::TABLE, select, Lock::None).await?;
    rows.iter().map(|row| decode(row).map(|found| found.record)).collect()
}

/// The first record that fits, in order.
async fn first<R: Record>(tx: &mut dyn Transaction, select: Select, lock: Lock) -> Result<Option<Found<R>>, Fail> {
    let rows = tx.select(R::TABLE, &select.limit(1), lock).await?;
    rows.first().map(decode).transpose()
}

/// A new record, of generation 1.
async fn add<R: Record>(tx: &mut dyn Transaction, record: &R) -> Result<(), Fail> {
    let row = row_of(record, 1)?;
    tx.insert(R::TABLE, vec![row]).await
}

/// New records, of generation 1; one that exists is a lost race.
async fn add_new<R: Record>(tx: &mut dyn Transaction, records: &[R]) -> Result<(), Fail> {
    let rows = records.iter().map(|record| row_of(record, 1)).collect::<Result<Vec<_>, _>>()?;
    tx.insert(R::TABLE, rows).await
}

/// New records, of generation 1, none of which may exist: ids that are drawn at random do not meet by chance.
async fn add_all<R: Record>(tx: &mut dyn Transaction, records: &[R]) -> Result<(), Fail> {
    add_new(tx, records).await.map_err(|fail| match fail {
        Fail::Taken { kind, id } => StoreError::Duplicate { kind, field: "id", value: id }.into(),
        other => other,
    })
}

/// Writes a record over the one of the expected generation. False: somebody else did.
async fn replace<R: Record>(tx: &mut dyn Transaction, record: &R, expected: u64) -> Result<bool, Fail> {
    let row = row_of(record, expected + 1)?;
    tx.update(R::TABLE, row, expected).await
}

/// The same for rows that the operation itself reads: a lost race is worth another try.
async fn replace_or_race<R: Record>(tx: &mut dyn Transaction, record: &R, expected: u64) -> Result<(), Fail> {
    if replace(tx, record, expected).await? {
        return Ok(());
    }
    Err(Fail::Raced { kind: R::TABLE.kind, id: R::TABLE.key_text(&record.values()) })
}

/// Writes a record, whether or not there is one of its key.
async fn put<R: Record>(tx: &mut dyn Transaction, record: &R) -> Result<(), Fail> {
    if tx.overwrite(R::TABLE, row_of(record, 1)?).await? { Ok(()) } else { add(tx, record).await }
}

/// Removes the record of that key. False: there was none.
async fn remove<R: Record>(tx: &mut dyn Transaction, key: &[Value]) -> Result<bool, Fail> {
    Ok(tx.delete(R::TABLE, &Condition::key(R::TABLE, key)).await? > 0)
}

/// Removes the record of that key, which must exist.
async fn remove_existing<R: Record>(tx: &mut dyn Transaction, key: &[Value]) -> Result<(), Fail> {
    if remove::<R>(tx, key).await? { Ok(()) } else { Err(not_found::<R>(key)) }
}

/// That id or name is taken.
fn duplicate(kind: Kind, field: &'static str, value: impl std::fmt::Display) -> Fail {
    StoreError::Duplicate { kind, field, value: value.to_string() }.into()
}
