//! The small interface between the store's operations and what keeps the rows.
//!
//! Every operation of the store is written once (`crate::ops`) over [`Transaction`]; a backend implements that and
//! [`Backend`] and nothing else, so that memory and every SQL database do the same. A row is a key, the columns that
//! are asked about or sorted by, a generation, and a JSON document that holds the rest.

mod record;
mod select;
mod table;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use record::{Found, Record, decode, row_of};
pub(crate) use select::{Condition, Select};
pub(crate) use table::{Column, ColumnType, Row, Sequence, Table, Value, micros};

use crate::{Kind, StoreError};

/// A future in a box, as `async_trait` makes them.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why an operation stopped. Whatever it had written is rolled back.
#[derive(Debug)]
pub(crate) enum Fail {
    /// For the caller.
    Store(StoreError),
    /// Another writer was faster: the whole operation is worth another try from the beginning.
    Raced {
        /// What it was about.
        kind: Kind,
        /// Which.
        id: String,
    },
    /// An insert met a unique key that is taken. Operations look before they insert, so this too is a lost race.
    Taken {
        /// What it was about.
        kind: Kind,
        /// The key of the row that was to be written.
        id: String,
    },
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How often an operation is run before a lost race is told to the caller.
pub(crate) const TRIES: usize = 16;

impl Fail {
    /// Another try may end differently.
    pub(crate) fn is_race(&self) -> bool {
        matches!(self, Self::Raced { .. } | Self::Taken { .. })
    }

    /// What the caller hears when no further try is made.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Raced { kind, id } => StoreError::Conflict { kind, id },
            Self::Taken { kind, id } => StoreError::Duplicate { kind, field: "id", value: id },
        }
    }
}

/// Whether a row that is read is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Only read.
    None,
    /// Databases with row locks take one, which saves lost races; correctness never rests on it.
    ForUpdate,
}

/// One transaction, or, for reads, a series of statements that each see the latest commit.
#[async_trait]
pub(crate) trait Transaction: Send {
    /// The row of that key.
    async fn get(&mut self, table: &'static Table, key: &[Value], lock: Lock) -> Result<Option<Row>, Fail>;

    /// The rows that fit, in order.
    async fn select(&mut self, table: &'static Table, select: &Select, lock: Lock) -> Result<Vec<Row>, Fail>;

    /// New rows; [`Fail::Taken`] if a unique key exists.
    async fn insert(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<(), Fail>;

    /// Replaces the row of that key if it has the expected generation; the row brings its new one.
    async fn update(&mut self, table: &'static Table, row: Row, expected: u64) -> Result<bool, Fail>;

    /// The same for several rows of a table, none of them twice. False: one did not have its expected generation, and
    /// which of the others were replaced is not known.
    async fn update_all(&mut self, table: &'static Table, rows: Vec<(Row, u64)>) -> Result<bool, Fail> {
        for (row, expected) in rows {
            if !self.update(table, row, expected).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Replaces the row of that key, whatever its generation, and raises that by one. False: there is none.
    async fn overwrite(&mut self, table: &'static Table, row: Row) -> Result<bool, Fail> {
        let Some(old) = self.get(table, row.key(table), Lock::ForUpdate).await? else { return Ok(false) };
        self.update(table, Row { generation: old.generation + 1, ..row }, old.generation).await
    }

    /// Removes the row of that key if it has the expected generation.
    async fn delete_one(&mut self, table: &'static Table, key: &[Value], expected: u64) -> Result<bool, Fail> {
        let old = self.get(table, key, Lock::ForUpdate).await?;
        if old.is_none_or(|old| old.generation != expected) {
            return Ok(false);
        }
        Ok(self.delete(table, &Condition::key(table, key)).await? > 0)
    }

    /// Sets single columns, without touching documents and generations. Returns how many rows it met.
    async fn set(
        &mut self,
        table: &'static Table,
        which: &Condition,
        values: &[(&'static str, Value)],
    ) -> Result<u64, Fail>;

    /// Removes the rows that fit. Returns how many.
    async fn delete(&mut self, table: &'static Table, which: &Condition) -> Result<u64, Fail>;

    /// Raises a sequence and returns its new value. Rolled back like everything else; other writers of the same
    /// sequence wait for this transaction's end.
    async fn advance(&mut self, sequence: Sequence, by: u32) -> Result<i64, Fail>;

    /// Where a sequence stands; 0 before its first number.
    async fn current(&mut self, sequence: Sequence) -> Result<i64, Fail>;
}

/// What an operation gives back, before its type is restored.
pub(crate) type Output = Box<dyn Any + Send>;

/// An operation that writes. It may run several times: after a lost race everything of it is rolled back first.
pub(crate) type WriteOperation =
    Arc<dyn for<'a> Fn(&'a mut dyn Transaction) -> BoxFuture<'a, Result<Output, Fail>> + Send + Sync>;

/// Where rows are kept.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Name for errors and configuration.
    fn name(&self) -> &'static str;

    /// Something to read from.
    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError>;

    /// Runs an operation in a transaction: its error rolls back all of it, its success is durable when this returns.
    async fn write(&self, operation: WriteOperation) -> Result<Output, StoreError>;

    /// Is a transaction of many dear enough that what several callers ask for at once is better done in one?
    fn joins(&self) -> bool {
        false
    }

    /// Transactions so far that wrote something, each operation counted as one.
    fn commits(&self) -> u64;

    /// Does it answer?
    async fn ping(&self) -> Result<(), StoreError>;

    /// The schema that is there, and the one that is needed.
    async fn schema_version(&self) -> Result<(u32, u32), StoreError>;

    /// Brings the schema up to date.
    async fn migrate(&self) -> Result<(), StoreError>;
}
