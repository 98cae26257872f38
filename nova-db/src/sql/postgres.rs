//! PostgreSQL: how it is reached.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use super::dialect::Dialect;
use super::pool::Server;
use super::server::ServerRows;
use crate::open::refused;
use crate::ops::RowStore;
use crate::rows::{Backend, Output, Transaction, WriteOperation};
use crate::{OpenOptions, StoreError};

/// Keeps rows in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    rows: ServerRows<Reached>,
}

impl RowStore<PostgresBackend> {
    /// Connects to that database, which must exist: `postgresql://USER:PASSWORD@HOST:PORT/NAME`. A driver's name after a plus
    /// sign, as SQLAlchemy writes it, is ignored.
    ///
    /// # Errors
    /// [`StoreError::Connection`] for a URL, login or name of a database that cannot be used,
    /// [`StoreError::Unavailable`] while the server does not answer.
    pub async fn connect(url: &str, options: &OpenOptions) -> Result<Self, StoreError> {
        let reached = reached(url, options)?;
        let rows = ServerRows::open(url, reached, options).await?;
        Ok(Self::over(PostgresBackend { rows }))
    }
}

#[async_trait]
impl Backend for PostgresBackend {
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
    options: PgConnectOptions,
}

fn reached(url: &str, options: &OpenOptions) -> Result<Reached, StoreError> {
    let rest = url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
    let parsed = PgConnectOptions::from_str(&format!("postgresql://{rest}"));
    let parsed = parsed.map_err(|error| refused(url, &error.to_string()))?;
    if parsed.get_database().is_none_or(str::is_empty) {
        return Err(refused(url, "the name of the database is missing"));
    }
    let options = parsed
        .application_name("nova")
        .statement_cache_capacity(256)
        .options([
            ("lock_timeout", milliseconds(options.lock_timeout)),
            // What a program that hangs holds locked is set free.
            ("idle_in_transaction_session_timeout", "60000".to_owned()),
        ])
        .disable_statement_logging();
    Ok(Reached { options })
}

fn milliseconds(time: Duration) -> String {
    // 0 would mean no bound.
    time.as_millis().max(1).to_string()
}

#[async_trait]
impl Server for Reached {
    type Connection = PgConnection;

    const DIALECT: Dialect = Dialect::Postgres;

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.options.connect().await
    }
}
