//! MariaDB or MySQL: how it is reached.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions, MySqlConnection};

use super::dialect::Dialect;
use super::link::{Link, nothing};
use super::pool::Server;
use super::server::ServerRows;
use crate::open::refused;
use crate::ops::RowStore;
use crate::rows::{Backend, Output, Transaction, WriteOperation};
use crate::{OpenOptions, StoreError};

/// Keeps rows in a MariaDB or MySQL database.
#[derive(Debug)]
pub struct MysqlBackend {
    rows: ServerRows<Reached>,
}

impl RowStore<MysqlBackend> {
    /// Connects to that database, which must exist: `mysql://USER:PASSWORD@HOST:PORT/NAME`. A driver's name after a plus
    /// sign, as SQLAlchemy writes it, is ignored.
    ///
    /// # Errors
    /// [`StoreError::Connection`] for a URL, login or name of a database that cannot be used,
    /// [`StoreError::Unavailable`] while the server does not answer.
    pub async fn connect(url: &str, options: &OpenOptions) -> Result<Self, StoreError> {
        let reached = reached(url, options)?;
        let rows = ServerRows::open(url, reached, options).await?;
        Ok(Self::over(MysqlBackend { rows }))
    }
}

#[async_trait]
impl Backend for MysqlBackend {
    fn name(&self) -> &'static str {
        self.rows.name()
    }

    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        self.rows.read().await
    }

    async fn write(&self, operation: WriteOperation) -> Result<Output, StoreError> {
        self.rows.write(operation).await
    }

    fn joins(&self) -> bool {
        self.rows.joins()
    }

    fn commits(&self) -> u64 {
        self.rows.commits()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.rows.ping().await
    }

    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        self.rows.schema_version().await
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.rows.migrate().await
    }
}

/// Address and settings of a server.
struct Reached {
    options: MySqlConnectOptions,
    lock_timeout: Duration,
}

fn reached(url: &str, options: &OpenOptions) -> Result<Reached, StoreError> {
    let rest = url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
    let parsed = MySqlConnectOptions::from_str(&format!("mysql://{rest}"));
    let parsed = parsed.map_err(|error| refused(url, &error.to_string()))?;
    if parsed.get_database().is_none_or(str::is_empty) {
        return Err(refused(url, "the name of the database is missing"));
    }
    let parsed = parsed
        // SQLAlchemy's URLs may name MySQL's older one, of three bytes.
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .statement_cache_capacity(256)
        .disable_statement_logging();
    Ok(Reached { options: parsed, lock_timeout: options.lock_timeout })
}

#[async_trait]
impl Server for Reached {
    type Connection = MySqlConnection;

    const DIALECT: Dialect = Dialect::Mysql;

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let seconds = self.lock_timeout.as_secs().max(1);
        for setting in [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
            // A text that is too long is an error and not cut, whatever the server's default.
            format!(
                "SET SESSION autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
                 innodb_lock_wait_timeout = {seconds}"
            ),
        ] {
            connection.execute(setting, nothing()).await?;
        }
        Ok(connection)
    }
}
