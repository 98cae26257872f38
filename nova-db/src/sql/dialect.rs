//! Everything in which databases differ.

use sea_query::{SqliteQueryBuilder, TableCreateStatement};
use sea_query_sqlx::{SqlxBinder, SqlxValues};

use crate::StoreError;
use crate::rows::ColumnType;

/// A database's own way to say things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// SQLite 3.
    Sqlite,
}

impl Dialect {
    /// Name for errors and configuration.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
        }
    }

    /// Text and values of a statement.
    pub(super) fn build(self, statement: &impl SqlxBinder) -> (String, SqlxValues) {
        match self {
            Self::Sqlite => statement.build_sqlx(SqliteQueryBuilder),
        }
    }

    /// Text of a table's declaration.
    pub(super) fn build_table(self, statement: &TableCreateStatement) -> String {
        match self {
            Self::Sqlite => statement.build(SqliteQueryBuilder),
        }
    }

    /// Text of an index's declaration.
    pub(super) fn build_index(self, statement: &sea_query::IndexCreateStatement) -> String {
        match self {
            Self::Sqlite => statement.build(SqliteQueryBuilder),
        }
    }

    /// How a transaction begins that will write. SQLite must take its lock at once: one that reads first and finds
    /// another writer ahead cannot go on.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// The type of a declared column.
    pub(super) fn column_type(self, ty: ColumnType) -> sea_query::ColumnType {
        match (self, ty) {
            (Self::Sqlite, ColumnType::Text(length)) => sea_query::ColumnType::string(Some(length)),
            (Self::Sqlite, ColumnType::Int | ColumnType::Time) => sea_query::ColumnType::BigInteger,
            (Self::Sqlite, ColumnType::Flag) => sea_query::ColumnType::SmallInteger,
        }
    }

    /// The type of the document.
    pub(super) fn body_type(self) -> sea_query::ColumnType {
        match self {
            Self::Sqlite => sea_query::ColumnType::Text,
        }
    }

    /// How many values a statement takes (SQLite: 32766, SQLITE_MAX_VARIABLE_NUMBER).
    pub(super) const fn max_values(self) -> usize {
        match self {
            Self::Sqlite => 32_000,
        }
    }

    /// Did a unique key refuse it?
    pub(super) fn is_unique_violation(self, error: &sqlx::Error) -> bool {
        match self {
            Self::Sqlite => error.as_database_error().is_some_and(|error| error.is_unique_violation()),
        }
    }

    /// Does a table not exist?
    pub(super) fn is_missing_table(self, error: &sqlx::Error) -> bool {
        match self {
            Self::Sqlite => error.as_database_error().is_some_and(|error| error.message().contains("no such table")),
        }
    }

    /// Can the file or address not be a database at all, however often it is tried?
    pub(super) fn is_hopeless(self, error: &sqlx::Error) -> bool {
        match self {
            // SQLITE_PERM, READONLY, CANTOPEN, NOTADB; extended codes have them in the low byte.
            Self::Sqlite => error
                .as_database_error()
                .and_then(|error| error.code())
                .is_some_and(|code| code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 3 | 8 | 14 | 26))),
        }
    }

    /// The error for callers.
    pub(super) fn unavailable(self, error: sqlx::Error) -> StoreError {
        StoreError::Unavailable { backend: self.name(), source: error.into() }
    }
}
