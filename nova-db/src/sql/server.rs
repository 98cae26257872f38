//! Rows on a database server, whichever it is.
//!
//! Transactions are READ COMMITTED: rows that an operation means to write are locked as they are read, and every update
//! names the generation that it replaces. What the server rolled back for another one's sake (a deadlock) is run again,
//! and so is what was lost with its connection before COMMIT was sent. A COMMIT without an answer is not repeated: it
//! may have been carried out.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::dialect::Trouble;
use super::link::{Link, nothing};
use super::patience::step_aside;
use super::pool::{Loan, Pool, Server};
use super::transaction::SqlTransaction;
use super::{migrate, migrations};
use crate::open::refused;
use crate::rows::{Backend, Fail, Output, TRIES, Transaction, WriteOperation};
use crate::{OpenOptions, StoreError};

/// How often an operation is run that others' locks undo.
const BUSY_TRIES: usize = 4 * TRIES;

/// A store's share of a server.
pub(super) struct ServerRows<S: Server> {
    pool: Pool<S>,
    commits: AtomicU64,
}

impl<S: Server> std::fmt::Debug for ServerRows<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the server: its address has the password in it.
        f.debug_struct("ServerRows").field("pool", &self.pool).field("commits", &self.commits).finish_non_exhaustive()
    }
}

/// How one run of an operation ended. Nothing was written unless it says so.
enum Ended {
    /// Committed; whether it wrote anything.
    Done(Output, bool),
    /// The operation's own word, or an error that another run would not change.
    Failed(Fail),
    /// Rolled back by the server: a deadlock, or a write that another one overtook.
    Busy(Fail),
    /// The connection was lost before anything was committed.
    Lost(Fail),
    /// The connection was lost after COMMIT was sent.
    Unknown(sqlx::Error),
}

impl<S: Server> ServerRows<S> {
    /// Connects once, so that what cannot work is told at once.
    pub(super) async fn open(url: &str, server: S, options: &OpenOptions) -> Result<Self, StoreError> {
        let rows = Self { pool: Pool::new(server, options), commits: AtomicU64::new(0) };
        rows.probe().await.map_err(|error| match S::DIALECT.trouble(&error) {
            Trouble::Hopeless => refused(url, &error.to_string()),
            _ => S::DIALECT.unavailable(error),
        })?;
        Ok(rows)
    }

    async fn probe(&self) -> Result<(), sqlx::Error> {
        let closed = |_| sqlx::Error::PoolClosed;
        let mut loan = self.pool.loan().await.map_err(closed)?.impatient();
        loan.number("SELECT 1".to_owned(), nothing()).await.map(|_| ())
    }

    async fn attempt(&self, loan: &mut Loan<'_, S>, operation: &WriteOperation) -> Ended {
        let unavailable = |error| Fail::from(S::DIALECT.unavailable(error));
        if let Err(error) = loan.begin().await {
            return match S::DIALECT.trouble(&error) {
                Trouble::Lost => Ended::Lost(unavailable(error)),
                _ => Ended::Failed(unavailable(error)),
            };
        }
        let mut transaction = SqlTransaction::new(&mut *loan);
        let result = operation(&mut transaction).await;
        let (wrote, trouble) = (transaction.wrote(), transaction.trouble());
        drop(transaction);
        match result {
            Ok(output) => match loan.end("COMMIT").await {
                Ok(()) => Ended::Done(output, wrote),
                Err(error) => match S::DIALECT.trouble(&error) {
                    Trouble::Busy => Ended::Busy(unavailable(error)),
                    Trouble::Lost if wrote => Ended::Unknown(error),
                    Trouble::Lost => Ended::Lost(unavailable(error)),
                    _ => Ended::Failed(unavailable(error)),
                },
            },
            Err(fail) => {
                // If this fails, the connection ends, which rolls back as well.
                let _ = loan.end("ROLLBACK").await;
                match trouble {
                    Some(Trouble::Busy) => Ended::Busy(fail),
                    Some(Trouble::Lost) => Ended::Lost(fail),
                    _ => Ended::Failed(fail),
                }
            }
        }
    }
}

/// The answer to a COMMIT that nobody heard.
fn unknown(backend: &'static str, error: &sqlx::Error) -> StoreError {
    let problem = format!("the connection was lost while it committed, which may or may not have happened: {error}");
    StoreError::Unavailable { backend, source: problem.into() }
}

#[async_trait]
impl<S: Server> Backend for ServerRows<S> {
    fn name(&self) -> &'static str {
        S::DIALECT.name()
    }

    fn joins(&self) -> bool {
        true
    }

    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        Ok(Box::new(SqlTransaction::new(self.pool.loan().await?)))
    }

    async fn write(&self, operation: WriteOperation) -> Result<Output, StoreError> {
        let mut loan = self.pool.loan().await?;
        let mut patience = self.pool.patience();
        let (mut races, mut busy) = (0, 0);
        loop {
            match self.attempt(&mut loan, &operation).await {
                Ended::Done(output, wrote) => {
                    self.commits.fetch_add(u64::from(wrote), Ordering::Relaxed);
                    return Ok(output);
                }
                Ended::Failed(fail) => {
                    races += 1;
                    if !fail.is_race() || races >= TRIES {
                        return Err(fail.into_store_error());
                    }
                    step_aside(races).await;
                }
                Ended::Busy(fail) => {
                    busy += 1;
                    if busy >= BUSY_TRIES {
                        return Err(fail.into_store_error());
                    }
                    tracing::debug!(backend = self.name(), tries = busy, "transaction rolled back for another one");
                    step_aside(busy).await;
                }
                Ended::Lost(fail) => {
                    if !patience.wait().await {
                        return Err(fail.into_store_error());
                    }
                }
                Ended::Unknown(error) => return Err(unknown(self.name(), &error)),
            }
        }
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.probe().await.map_err(|error| S::DIALECT.unavailable(error))
    }

    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        let mut loan = self.pool.loan().await?;
        Ok((migrate::version(&mut loan).await?, migrations::newest()))
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        // A connection of its own, without a bound on its answers: a step over a large table may take its time.
        let connected = self.pool.connect().await;
        let mut connection = connected.map_err(|error| S::DIALECT.unavailable(error))?;
        migrate::migrate(&mut connection).await
    }
}
