//! Everything in which databases differ.

use sea_query::{IndexCreateStatement, TableCreateStatement};
use sea_query_sqlx::{SqlxBinder, SqlxValues};

use crate::StoreError;
use crate::rows::ColumnType;

/// A database's own way to say things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// SQLite 3.
    #[cfg(feature = "sqlite")]
    Sqlite,
    /// PostgreSQL 12 and later.
    #[cfg(feature = "postgres")]
    Postgres,
    /// MariaDB 10.6 and later, MySQL 8.
    #[cfg(feature = "mysql")]
    Mysql,
}

/// What an error of the database means for what was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A unique key refused it.
    Unique,
    /// The table does not exist.
    MissingTable,
    /// A deadlock, or a transaction that another one overtook: rolled back, and worth another try.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Busy,
    /// The connection is gone, or the server is about to go.
    Lost,
    /// The address, login or file cannot be used, however often it is tried.
    Hopeless,
    /// Anything else.
    Other,
}

impl Dialect {
    /// Name for errors and configuration.
    pub(super) const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres => "postgresql",
            #[cfg(feature = "mysql")]
            Self::Mysql => "mysql",
        }
    }

    /// Text and values of a statement.
    pub(super) fn build(self, statement: &impl SqlxBinder) -> (String, SqlxValues) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => statement.build_sqlx(sea_query::SqliteQueryBuilder),
            #[cfg(feature = "postgres")]
            Self::Postgres => statement.build_sqlx(sea_query::PostgresQueryBuilder),
            #[cfg(feature = "mysql")]
            Self::Mysql => statement.build_sqlx(sea_query::MysqlQueryBuilder),
        }
    }

    /// Text of a table's declaration.
    pub(super) fn build_table(self, statement: &TableCreateStatement) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => statement.build(sea_query::SqliteQueryBuilder),
            #[cfg(feature = "postgres")]
            Self::Postgres => statement.build(sea_query::PostgresQueryBuilder),
            #[cfg(feature = "mysql")]
            Self::Mysql => statement.build(sea_query::MysqlQueryBuilder),
        }
    }

    /// Text of an index's declaration.
    pub(super) fn build_index(self, statement: &IndexCreateStatement) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => statement.build(sea_query::SqliteQueryBuilder),
            #[cfg(feature = "postgres")]
            Self::Postgres => statement.build(sea_query::PostgresQueryBuilder),
            #[cfg(feature = "mysql")]
            Self::Mysql => statement.build(sea_query::MysqlQueryBuilder),
        }
    }

    /// How a transaction begins that will write. SQLite must take its lock at once: one that reads first and finds
    /// another writer ahead cannot go on. PostgreSQL's level is said, whatever a server's default; MariaDB's is set
    /// when the connection is made.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "BEGIN IMMEDIATE",
            #[cfg(feature = "postgres")]
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            #[cfg(feature = "mysql")]
            Self::Mysql => "START TRANSACTION",
        }
    }

    /// The type of a declared column.
    pub(super) fn column_type(self, ty: ColumnType) -> sea_query::ColumnType {
        match ty {
            ColumnType::Text(length) => sea_query::ColumnType::string(Some(length)),
            ColumnType::Int | ColumnType::Time => sea_query::ColumnType::BigInteger,
            ColumnType::Flag => sea_query::ColumnType::SmallInteger,
        }
    }

    /// What follows the type of a text column, so that texts are compared byte by byte. MariaDB and MySQL have it at
    /// the table.
    pub(super) const fn text_collation(self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => None,
            #[cfg(feature = "postgres")]
            Self::Postgres => Some("COLLATE \"C\""),
            #[cfg(feature = "mysql")]
            Self::Mysql => None,
        }
    }

    /// The type of the document.
    pub(super) fn body_type(self) -> sea_query::ColumnType {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => sea_query::ColumnType::Text,
            #[cfg(feature = "postgres")]
            Self::Postgres => sea_query::ColumnType::Text,
            // TEXT ends at 64 KiB there.
            #[cfg(feature = "mysql")]
            Self::Mysql => sea_query::ColumnType::custom("LONGTEXT"),
        }
    }

    /// Are indexes part of a table's declaration? Where each statement about the schema is a transaction of its own,
    /// a table that is there must be there whole.
    pub(super) const fn indexes_with_table(self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => false,
            #[cfg(feature = "postgres")]
            Self::Postgres => false,
            #[cfg(feature = "mysql")]
            Self::Mysql => true,
        }
    }

    /// How many values a statement takes (SQLite: 32766, SQLITE_MAX_VARIABLE_NUMBER; the others: 65535).
    pub(super) const fn max_values(self) -> usize {
        32_000
    }

    /// What an error means.
    pub(super) fn trouble(self, error: &sqlx::Error) -> Trouble {
        let error = match error {
            sqlx::Error::Database(error) => error,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => return Trouble::Lost,
            sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => return Trouble::Hopeless,
            _ => return Trouble::Other,
        };
        if error.is_unique_violation() {
            return Trouble::Unique;
        }
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => of_sqlite(&**error),
            #[cfg(feature = "postgres")]
            Self::Postgres => of_postgres(error.code().as_deref().unwrap_or_default()),
            #[cfg(feature = "mysql")]
            Self::Mysql => {
                let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
                error.map_or(Trouble::Other, |error| of_mysql(error.number()))
            }
        }
    }

    /// The error for callers.
    pub(super) fn unavailable(self, error: sqlx::Error) -> StoreError {
        StoreError::Unavailable { backend: self.name(), source: error.into() }
    }
}

/// <https://www.sqlite.org/rescode.html>; extended codes have the primary one in the low byte.
#[cfg(feature = "sqlite")]
fn of_sqlite(error: &dyn sqlx::error::DatabaseError) -> Trouble {
    if error.message().contains("no such table") {
        return Trouble::MissingTable;
    }
    match error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        // SQLITE_PERM, READONLY, CANTOPEN, NOTADB.
        Some(3 | 8 | 14 | 26) => Trouble::Hopeless,
        _ => Trouble::Other,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
#[cfg(feature = "postgres")]
fn of_postgres(code: &str) -> Trouble {
    match code {
        "42P01" => Trouble::MissingTable,
        // serialization_failure, deadlock_detected.
        "40001" | "40P01" => Trouble::Busy,
        // admin_shutdown, crash_shutdown, cannot_connect_now, idle_in_transaction and idle session timeouts,
        // too_many_connections.
        "57P01" | "57P02" | "57P03" | "25P03" | "57P05" | "53300" => Trouble::Lost,
        // The login is refused, there is no such database or schema.
        "28000" | "28P01" | "3D000" | "3F000" => Trouble::Hopeless,
        _ if code.starts_with("08") => Trouble::Lost,
        _ => Trouble::Other,
    }
}

/// <https://mariadb.com/kb/en/mariadb-error-codes/>
#[cfg(feature = "mysql")]
fn of_mysql(number: u16) -> Trouble {
    match number {
        // ER_NO_SUCH_TABLE.
        1146 => Trouble::MissingTable,
        // ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_CHECKREAD, ER_XA_RBDEADLOCK.
        1213 | 1205 | 1020 | 1614 => Trouble::Busy,
        // ER_CON_COUNT_ERROR, ER_SERVER_SHUTDOWN, ER_ABORTING_CONNECTION, ER_NEW_ABORTING_CONNECTION,
        // ER_TOO_MANY_USER_CONNECTIONS, ER_CONNECTION_KILLED of both, ER_CLIENT_INTERACTION_TIMEOUT.
        1040 | 1053 | 1152 | 1184 | 1203 | 1927 | 3169 | 4031 => Trouble::Lost,
        // ER_DBACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_BAD_DB_ERROR, ER_HOST_NOT_PRIVILEGED.
        1044 | 1045 | 1049 | 1130 | 1698 => Trouble::Hopeless,
        _ => Trouble::Other,
    }
}
