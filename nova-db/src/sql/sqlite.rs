//! SQLite: one file, one writer, several readers (WAL).

use std::path::Path;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};

use super::dialect::{Dialect, Trouble};
use super::link::{Link, nothing};
use super::readers::Readers;
use super::transaction::SqlTransaction;
use super::writer::Writer;
use super::{migrate, migrations};
use crate::open::refused;
use crate::ops::RowStore;
use crate::rows::{Backend, Output, Transaction, WriteOperation};
use crate::{OpenOptions, StoreError};

/// Keeps rows in a SQLite file.
#[derive(Debug)]
pub struct SqliteBackend {
    options: SqliteConnectOptions,
    readers: Readers,
    writer: Writer,
}

impl RowStore<SqliteBackend> {
    /// Opens that file, or creates it, readable by its owner only; the folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Connection`] for a path that cannot be created, read and written, or is no database.
    pub async fn open(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        Ok(Self::over(SqliteBackend::open(path, options).await?))
    }
}

impl SqliteBackend {
    pub(crate) async fn open(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let url = format!("sqlite:{}", path.display());
        create(path).map_err(|problem| refused(&url, &problem))?;
        let options_of_file = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was answered survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(options.lock_timeout)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let connection = connect(&options_of_file).await.map_err(|error| match Dialect::Sqlite.trouble(&error) {
            Trouble::Hopeless => refused(&url, &error.to_string()),
            _ => Dialect::Sqlite.unavailable(error),
        })?;
        let readers = Readers::new(options_of_file.clone(), options.readers);
        let writer = Writer::start(options_of_file.clone(), connection);
        Ok(Self { options: options_of_file, readers, writer })
    }
}

/// Makes the file, and finds out whether it can be written.
fn create(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(|_| ()).map_err(|error| match (error.kind(), path.parent()) {
        (std::io::ErrorKind::NotFound, Some(folder)) => format!("the folder {} does not exist", folder.display()),
        _ => format!("cannot open the file for writing: {error}"),
    })
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    // The first statement that reads the file: what is no database shows here.
    connection.number("SELECT COUNT(*) FROM sqlite_master".to_owned(), nothing()).await?;
    Ok(connection)
}

#[async_trait]
impl Backend for SqliteBackend {
    fn name(&self) -> &'static str {
        Dialect::Sqlite.name()
    }

    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        Ok(Box::new(SqlTransaction::new(self.readers.get().await?)))
    }

    async fn write(&self, operation: WriteOperation) -> Result<Output, StoreError> {
        self.writer.run(operation).await
    }

    fn commits(&self) -> u64 {
        self.writer.commits()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.is_alive() {
            return Err(StoreError::Unavailable { backend: self.name(), source: "the writer has ended".into() });
        }
        let mut reader = self.readers.get().await?;
        // Reads a page of the file, which `SELECT 1` would not.
        let answer = reader.number("SELECT COUNT(*) FROM sqlite_master".to_owned(), nothing()).await;
        answer.map(|_| ()).map_err(|error| Dialect::Sqlite.unavailable(error))
    }

    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        let mut reader = self.readers.get().await?;
        Ok((migrate::version(&mut reader).await?, migrations::newest()))
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let connected = self.options.connect().await;
        let mut connection = connected.map_err(|error| Dialect::Sqlite.unavailable(error))?;
        migrate::migrate(&mut connection).await
    }
}
