//! One connection, whatever the database.

use async_trait::async_trait;
use sea_query_sqlx::SqlxValues;
use sqlx::{AssertSqlSafe, Row as _, Sqlite, SqliteConnection};

use super::dialect::Dialect;
use crate::StoreError;
use crate::rows::{ColumnType, Row, Table, Value};

/// Runs statements. All texts come from `statements` and `migrations`; what comes from outside is always a value.
#[async_trait]
pub(super) trait Link: Send {
    /// Which database it is.
    fn dialect(&self) -> Dialect;

    /// Runs a statement and tells how many rows it met.
    async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error>;

    /// Rows of a table. The inner error is a row that cannot be read.
    async fn rows(
        &mut self,
        table: &'static Table,
        sql: String,
        values: SqlxValues,
    ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error>;

    /// The number in the first column of the first row.
    async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error>;
}

/// No values.
pub(super) fn nothing() -> SqlxValues {
    SqlxValues(sea_query::Values(Vec::new()))
}

#[async_trait]
impl Link for SqliteConnection {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error> {
        let done = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(sql), values).execute(self).await?;
        Ok(done.rows_affected())
    }

    async fn rows(
        &mut self,
        table: &'static Table,
        sql: String,
        values: SqlxValues,
    ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error> {
        let rows = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(sql), values).fetch_all(self).await?;
        Ok(rows.iter().map(|row| read_row(table, row)).collect())
    }

    async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error> {
        let row = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(sql), values).fetch_optional(self).await?;
        row.map(|row| row.try_get::<i64, _>(0)).transpose()
    }
}

#[async_trait]
impl<L: Link + ?Sized> Link for &mut L {
    fn dialect(&self) -> Dialect {
        (**self).dialect()
    }

    async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error> {
        (**self).execute(sql, values).await
    }

    async fn rows(
        &mut self,
        table: &'static Table,
        sql: String,
        values: SqlxValues,
    ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error> {
        (**self).rows(table, sql, values).await
    }

    async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error> {
        (**self).number(sql, values).await
    }
}

fn read_row(table: &'static Table, row: &sqlx::sqlite::SqliteRow) -> Result<Row, StoreError> {
    let count = table.columns.len();
    let mut values = Vec::with_capacity(count);
    for (index, column) in table.columns.iter().enumerate() {
        let value = match column.ty {
            ColumnType::Text(_) => row.try_get::<String, _>(index).map(Value::Text),
            ColumnType::Int | ColumnType::Time | ColumnType::Flag => row.try_get::<i64, _>(index).map(Value::Int),
        };
        match value {
            Ok(value) => values.push(value),
            Err(error) => return Err(damaged(table, &values, error)),
        }
    }
    let rest = || -> Result<(u64, String), sqlx::Error> {
        let generation = row.try_get::<i64, _>(count)?;
        Ok((generation.unsigned_abs(), row.try_get::<String, _>(count + 1)?))
    };
    match rest() {
        Ok((generation, body)) => Ok(Row { values, generation, body }),
        Err(error) => Err(damaged(table, &values, error)),
    }
}

fn damaged(table: &'static Table, values: &[Value], error: sqlx::Error) -> StoreError {
    StoreError::Corrupt { kind: table.kind, id: table.key_text(values), source: error.into() }
}
