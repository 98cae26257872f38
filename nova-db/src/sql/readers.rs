//! A few connections for reading.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sea_query_sqlx::SqlxValues;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::dialect::Dialect;
use super::link::Link;
use crate::StoreError;
use crate::rows::{Row, Table};

/// Opened when needed and kept. It has no timers, so that it works under a virtual clock.
#[derive(Debug)]
pub(super) struct Readers {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions, count: u32) -> Self {
        let permits = Semaphore::new(count.max(1) as usize);
        Self { options: options.pragma("query_only", "1"), idle: Mutex::new(Vec::new()), permits }
    }

    /// A connection, once one is free.
    pub(super) async fn get(&self) -> Result<Reader<'_>, StoreError> {
        let closed = |error: tokio::sync::AcquireError| StoreError::Unavailable {
            backend: Dialect::Sqlite.name(),
            source: error.into(),
        };
        let permit = self.permits.acquire().await.map_err(closed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(|error| Dialect::Sqlite.unavailable(error))?,
        };
        Ok(Reader { readers: self, connection: Some(connection), _permit: permit })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan. While a statement runs it is taken out, so that a caller that leaves in the middle does not
/// hand a half-read connection to the next.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<SqliteConnection>,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.idle().push(connection);
        }
    }
}

impl Reader<'_> {
    async fn take(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.readers.options.connect().await,
        }
    }
}

#[async_trait]
impl Link for Reader<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error> {
        let mut connection = self.take().await?;
        let answer = connection.execute(sql, values).await;
        self.connection = Some(connection);
        answer
    }

    async fn rows(
        &mut self,
        table: &'static Table,
        sql: String,
        values: SqlxValues,
    ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error> {
        let mut connection = self.take().await?;
        let answer = connection.rows(table, sql, values).await;
        self.connection = Some(connection);
        answer
    }

    async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error> {
        let mut connection = self.take().await?;
        let answer = connection.number(sql, values).await;
        self.connection = Some(connection);
        answer
    }
}
