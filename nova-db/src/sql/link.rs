//! One connection, whatever the database.

use async_trait::async_trait;
use sea_query_sqlx::SqlxValues;
use sqlx::{AssertSqlSafe, Row as _};

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

/// The same for each driver; only names of types differ, and how strictly it looks at the type of a column: the file of
/// SQLite may hold a text where a number belongs, and the strict way tells. The servers hold what was declared, which
/// their drivers look at too strictly: a SMALLINT is no i64 to one, a text of a binary collation no String to another.
macro_rules! link {
    ($connection:ty, $database:ty, $row:ty, $dialect:expr, $get:ident, $prepare_all:expr) => {
        #[async_trait]
        impl Link for $connection {
            fn dialect(&self) -> Dialect {
                $dialect
            }

            async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error> {
                // Not every statement can be prepared on a server: BEGIN, SET and the like go as they are.
                let done = if $prepare_all || !values.0.0.is_empty() {
                    sqlx::query_with::<$database, _>(AssertSqlSafe(sql), values).execute(self).await?
                } else {
                    sqlx::Executor::execute(self, sqlx::raw_sql(AssertSqlSafe(sql))).await?
                };
                Ok(done.rows_affected())
            }

            async fn rows(
                &mut self,
                table: &'static Table,
                sql: String,
                values: SqlxValues,
            ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error> {
                fn read(table: &'static Table, row: &$row) -> Result<Row, StoreError> {
                    let text = |index: usize| row.$get::<String, _>(index);
                    let number = |index: usize| row.$get::<i64, _>(index);
                    read_row(table, &text, &number)
                }
                let rows = sqlx::query_with::<$database, _>(AssertSqlSafe(sql), values).fetch_all(self).await?;
                Ok(rows.iter().map(|row| read(table, row)).collect())
            }

            async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error> {
                let row = sqlx::query_with::<$database, _>(AssertSqlSafe(sql), values).fetch_optional(self).await?;
                row.map(|row| row.$get::<i64, _>(0)).transpose()
            }
        }
    };
}

#[cfg(feature = "sqlite")]
link!(sqlx::SqliteConnection, sqlx::Sqlite, sqlx::sqlite::SqliteRow, Dialect::Sqlite, try_get, true);
#[cfg(feature = "postgres")]
link!(sqlx::PgConnection, sqlx::Postgres, sqlx::postgres::PgRow, Dialect::Postgres, try_get_unchecked, false);
#[cfg(feature = "mysql")]
link!(sqlx::MySqlConnection, sqlx::MySql, sqlx::mysql::MySqlRow, Dialect::Mysql, try_get_unchecked, false);

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

/// Reads a column of the row at hand.
type Get<'a, T> = &'a dyn Fn(usize) -> Result<T, sqlx::Error>;

fn read_row(table: &'static Table, text: Get<'_, String>, number: Get<'_, i64>) -> Result<Row, StoreError> {
    let count = table.columns.len();
    let mut values = Vec::with_capacity(count);
    for (index, column) in table.columns.iter().enumerate() {
        let value = match column.ty {
            ColumnType::Text(_) => text(index).map(Value::Text),
            ColumnType::Int | ColumnType::Time | ColumnType::Flag => number(index).map(Value::Int),
        };
        match value {
            Ok(value) => values.push(value),
            Err(error) => return Err(damaged(table, &values, error)),
        }
    }
    let rest = || -> Result<(u64, String), sqlx::Error> { Ok((number(count)?.unsigned_abs(), text(count + 1)?)) };
    match rest() {
        Ok((generation, body)) => Ok(Row { values, generation, body }),
        Err(error) => Err(damaged(table, &values, error)),
    }
}

fn damaged(table: &'static Table, values: &[Value], error: sqlx::Error) -> StoreError {
    StoreError::Corrupt { kind: table.kind, id: table.key_text(values), source: error.into() }
}
