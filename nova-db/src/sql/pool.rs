//! A bounded number of connections to a server.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sea_query_sqlx::SqlxValues;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::dialect::{Dialect, Trouble};
use super::link::{Link, nothing};
use super::patience::Patience;
use crate::rows::{BoxFuture, Row, Table};
use crate::{OpenOptions, StoreError};

/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take over a statement, waiting for locks included, before the connection is held to be dead: one
/// to a machine that lost its power says nothing, ever.
const ANSWER: Duration = Duration::from_secs(60);

/// How a server is reached.
#[async_trait]
pub(super) trait Server: Send + Sync + 'static {
    /// Its driver's connection.
    type Connection: Link + 'static;

    /// What it speaks.
    const DIALECT: Dialect;

    /// Opens a connection, set up for use.
    async fn connect(&self) -> Result<Self::Connection, sqlx::Error>;
}

/// Connections are opened when needed and kept. Whoever wants one beyond the bound waits in line.
pub(super) struct Pool<S: Server> {
    server: S,
    idle: Mutex<Vec<S::Connection>>,
    permits: Semaphore,
    patience: Duration,
}

impl<S: Server> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = self.idle().len();
        f.debug_struct("Pool").field("idle", &idle).field("free", &self.permits.available_permits()).finish()
    }
}

impl<S: Server> Pool<S> {
    pub(super) fn new(server: S, options: &OpenOptions) -> Self {
        let permits = Semaphore::new(options.connections.max(1) as usize);
        Self { server, idle: Mutex::new(Vec::new()), permits, patience: options.patience }
    }

    /// The right to a connection, once it is our turn. Statements outside of a transaction outlast a lost one.
    pub(super) async fn loan(&self) -> Result<Loan<'_, S>, StoreError> {
        let closed = |error: tokio::sync::AcquireError| StoreError::Unavailable {
            backend: S::DIALECT.name(),
            source: error.into(),
        };
        let permit = self.permits.acquire().await.map_err(closed)?;
        Ok(Loan { pool: self, connection: None, open: false, patience: self.patience, _permit: permit })
    }

    /// A new connection, which stays the caller's.
    pub(super) async fn connect(&self) -> Result<S::Connection, sqlx::Error> {
        in_time(CONNECT, self.server.connect()).await
    }

    /// How long a server may be away.
    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.patience)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<S::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time<T>(time: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(time, work).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", time.as_secs()),
        ))),
    }
}

/// A connection on loan. While a statement runs it is taken out, and in a transaction it is not given back: a caller
/// that leaves in the middle ends the connection, and with it what the transaction had written.
pub(super) struct Loan<'a, S: Server> {
    pool: &'a Pool<S>,
    connection: Option<S::Connection>,
    open: bool,
    patience: Duration,
    _permit: SemaphorePermit<'a>,
}

impl<S: Server> Drop for Loan<'_, S> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| !self.open) {
            self.pool.idle().push(connection);
        }
    }
}

impl<S: Server> Loan<'_, S> {
    /// Fails at once where the server does not answer.
    pub(super) fn impatient(mut self) -> Self {
        self.patience = Duration::ZERO;
        self
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = self.take().await?;
        let begun = in_time(ANSWER, connection.execute(S::DIALECT.begin().to_owned(), nothing())).await;
        self.open = begun.is_ok();
        self.put_back(connection, begun).map(|_| ())
    }

    /// Ends it. After an error of the connection nobody knows whether it was committed.
    pub(super) async fn end(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let Some(mut connection) = self.connection.take() else {
            self.open = false;
            return Err(sqlx::Error::Io(std::io::ErrorKind::NotConnected.into()));
        };
        let ended = in_time(ANSWER, connection.execute(sql.to_owned(), nothing())).await;
        self.open = false;
        // A connection that cannot end its transaction is not used any further.
        if ended.is_ok() {
            self.connection = Some(connection);
        }
        ended.map(|_| ())
    }

    async fn take(&mut self) -> Result<S::Connection, sqlx::Error> {
        let known = self.connection.take().or_else(|| if self.open { None } else { self.pool.idle().pop() });
        match known {
            Some(connection) => Ok(connection),
            // What the transaction had done before is lost with its connection.
            None if self.open => Err(sqlx::Error::Io(std::io::ErrorKind::NotConnected.into())),
            None => self.pool.connect().await,
        }
    }

    /// Keeps the connection unless that answer says that it is dead: then all that are idle are suspects.
    fn put_back<T>(&mut self, connection: S::Connection, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &answer {
            Err(error) if S::DIALECT.trouble(error) == Trouble::Lost => self.pool.idle().clear(),
            _ => self.connection = Some(connection),
        }
        answer
    }

    async fn run<T, F>(&mut self, statement: F) -> Result<T, sqlx::Error>
    where
        T: Send,
        F: for<'c> Fn(&'c mut S::Connection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
    {
        let mut patience = Patience::new(self.patience);
        loop {
            let answer = match self.take().await {
                Ok(mut connection) => {
                    let answer = in_time(ANSWER, statement(&mut connection)).await;
                    self.put_back(connection, answer)
                }
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if !self.open && S::DIALECT.trouble(&error) == Trouble::Lost => {
                    if !patience.wait().await {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }
}

#[async_trait]
impl<S: Server> Link for Loan<'_, S> {
    fn dialect(&self) -> Dialect {
        S::DIALECT
    }

    async fn execute(&mut self, sql: String, values: SqlxValues) -> Result<u64, sqlx::Error> {
        self.run(|connection| connection.execute(sql.clone(), values.clone())).await
    }

    async fn rows(
        &mut self,
        table: &'static Table,
        sql: String,
        values: SqlxValues,
    ) -> Result<Result<Vec<Row>, StoreError>, sqlx::Error> {
        self.run(|connection| connection.rows(table, sql.clone(), values.clone())).await
    }

    async fn number(&mut self, sql: String, values: SqlxValues) -> Result<Option<i64>, sqlx::Error> {
        self.run(|connection| connection.number(sql.clone(), values.clone())).await
    }
}
