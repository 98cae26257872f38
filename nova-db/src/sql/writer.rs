//! SQLite's one writer, with group commit.
//!
//! Operations queue up while a transaction commits; the next transaction takes all of them, each in a savepoint of its
//! own. A failing one rolls back to its savepoint and disturbs nobody. Everyone is answered after the COMMIT, that is
//! after the one fsync that they share. An operation whose caller has left runs to its end, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::dialect::Dialect;
use super::link::{Link, nothing};
use super::transaction::SqlTransaction;
use crate::StoreError;
use crate::rows::{Fail, Output, TRIES, WriteOperation};

const DIALECT: Dialect = Dialect::Sqlite;

/// At most that many operations share a commit.
const GROUP: usize = 64;

/// An operation, and who waits for it.
struct Job {
    operation: WriteOperation,
    answer: oneshot::Sender<Answer>,
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the writer on an open connection; it ends when this is dropped.
    pub(super) fn start(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let (jobs, queue) = mpsc::channel(4 * GROUP);
        let commits = Arc::new(AtomicU64::new(0));
        let task = Task { options, connection: Some(connection), commits: Arc::clone(&commits) };
        tokio::spawn(task.run(queue));
        Self { jobs, commits }
    }

    /// Runs an operation; it is durable when this returns.
    pub(super) async fn run(&self, operation: WriteOperation) -> Result<Output, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { operation, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Does it still take operations?
    pub(super) fn is_alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Operations so far that wrote and were committed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable { backend: DIALECT.name(), source: "the writer has ended".into() }
}

/// For the operations whose transaction was lost by another one's failure.
fn lost(problem: &str) -> StoreError {
    StoreError::Unavailable { backend: DIALECT.name(), source: problem.into() }
}

struct Task {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    commits: Arc<AtomicU64>,
}

type Answer = Result<Output, StoreError>;

/// What a transaction did for its callers.
#[derive(Default)]
struct Done {
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    wrote: u64,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut group, GROUP).await > 0 {
            group.retain(|job: &Job| !job.answer.is_closed());
            if !group.is_empty() {
                self.transaction(std::mem::take(&mut group)).await;
            }
        }
    }

    async fn transaction(&mut self, group: Vec<Job>) {
        let mut done = Done::default();
        let ended = match self.begin().await {
            Ok(mut connection) => match work(&mut connection, group, &mut done).await {
                Ok(()) => commit(connection).await,
                Err(error) => Err(error),
            },
            Err(error) => {
                done.answers.extend(group.into_iter().map(|job| (job.answer, Err(lost(&error.to_string())))));
                Err(error)
            }
        };
        let problem = match ended {
            Ok(connection) => {
                self.connection = Some(connection);
                self.commits.fetch_add(done.wrote, Ordering::Relaxed);
                None
            }
            // The connection is dropped, and with it whatever its transaction had written.
            Err(error) => Some(error.to_string()),
        };
        for (answer, result) in done.answers {
            let result = match &problem {
                Some(problem) => result.and_then(|_| Err(lost(problem))),
                None => result,
            };
            // The caller may have left; what was committed stays.
            let _ = answer.send(result);
        }
    }

    async fn begin(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        run(&mut connection, DIALECT.begin()).await?;
        Ok(connection)
    }
}

async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<(), sqlx::Error> {
    connection.execute(sql.to_owned(), nothing()).await.map(|_| ())
}

async fn commit(mut connection: SqliteConnection) -> Result<SqliteConnection, sqlx::Error> {
    run(&mut connection, "COMMIT").await?;
    Ok(connection)
}

/// Runs all operations. An error means that the transaction is lost; everybody is in `done` by then.
async fn work(connection: &mut SqliteConnection, group: Vec<Job>, done: &mut Done) -> Result<(), sqlx::Error> {
    let mut broken = None;
    for job in group {
        if let Some(error) = &broken {
            done.answers.push((job.answer, Err(lost(&format!("{error}")))));
            continue;
        }
        match in_savepoint(connection, &job.operation).await {
            Ok((result, wrote)) => {
                done.wrote += u64::from(wrote);
                done.answers.push((job.answer, result));
            }
            Err(error) => {
                done.answers.push((job.answer, Err(lost(&error.to_string()))));
                broken = Some(error);
            }
        }
    }
    broken.map_or(Ok(()), Err)
}

/// Runs one operation, anew after lost races. Returns what it says, and whether it wrote.
async fn in_savepoint(
    connection: &mut SqliteConnection,
    operation: &WriteOperation,
) -> Result<(Result<Output, StoreError>, bool), sqlx::Error> {
    let mut tries = 0;
    run(connection, "SAVEPOINT operation").await?;
    loop {
        tries += 1;
        let mut transaction = SqlTransaction::new(&mut *connection);
        let result = operation(&mut transaction).await;
        let wrote = transaction.wrote();
        drop(transaction);
        let fail: Fail = match result {
            Ok(output) => {
                run(connection, "RELEASE operation").await?;
                return Ok((Ok(output), wrote));
            }
            Err(fail) => fail,
        };
        if wrote {
            run(connection, "ROLLBACK TO operation").await?;
        }
        if !fail.is_race() || tries == TRIES {
            run(connection, "RELEASE operation").await?;
            return Ok((Err(fail.into_store_error()), false));
        }
    }
}
