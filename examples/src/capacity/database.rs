//! Tables of a Nova database, read as rows of text, without changing anything.
//!
//! Every column is cast to text by the server, so that the three databases and their exported files give the same rows.

use std::collections::VecDeque;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Row as _};
use tokio::runtime::Runtime;

use super::records::{InputError, Record, Records};

/// Which rows to read of a database. Every statement has one column `id` that grows from row to row.
#[derive(Debug)]
pub struct Table {
    /// The table's name, for messages.
    pub name: &'static str,
    from: &'static str,
    id: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

/// The inventories of the compute hosts (cell database).
pub static COMPUTE_NODES: Table = Table {
    name: "compute_nodes",
    from: "compute_nodes",
    id: "id",
    columns: &[
        ("host", "host"),
        ("hypervisor_hostname", "hypervisor_hostname"),
        ("vcpus", "vcpus"),
        ("memory_mb", "memory_mb"),
        ("local_gb", "local_gb"),
        ("vcpus_used", "vcpus_used"),
        ("memory_mb_used", "memory_mb_used"),
        ("local_gb_used", "local_gb_used"),
        ("cpu_allocation_ratio", "cpu_allocation_ratio"),
        ("ram_allocation_ratio", "ram_allocation_ratio"),
        ("disk_allocation_ratio", "disk_allocation_ratio"),
        ("supported_instances", "supported_instances"),
        ("deleted", "deleted"),
    ],
};

/// What was asked of the scheduler (API database).
pub static REQUEST_SPECS: Table = Table {
    name: "request_specs",
    from: "request_specs",
    id: "id",
    columns: &[("created_at", "created_at"), ("instance_uuid", "instance_uuid"), ("spec", "spec")],
};

/// When instances ended (cell database).
pub static INSTANCES: Table = Table {
    name: "instances",
    from: "instances",
    id: "id",
    columns: &[("uuid", "uuid"), ("terminated_at", "terminated_at"), ("deleted_at", "deleted_at")],
};

/// Which host is in which aggregate, and the aggregates' metadata (API database), a row for each pair.
pub static AGGREGATES: Table = Table {
    name: "aggregates",
    from: "aggregate_hosts JOIN aggregates ON aggregates.id = aggregate_hosts.aggregate_id \
           JOIN aggregate_metadata ON aggregate_metadata.aggregate_id = aggregates.id",
    id: "aggregate_metadata.id * 1000000 + aggregate_hosts.id",
    columns: &[
        ("name", "aggregates.name"),
        ("host", "aggregate_hosts.host"),
        ("key", "aggregate_metadata.key"),
        ("value", "aggregate_metadata.value"),
    ],
};

/// How many rows are fetched at once.
const PAGE: usize = 1_000;

/// Whether that is the address of a database, not the name of a file.
pub fn is_url(source: &str) -> bool {
    source.contains("://") || source.starts_with("sqlite:")
}

/// Reads a table. Addresses may be written as in Nova's configuration (`mysql+pymysql://...`).
///
/// # Errors
/// The database can't be reached, or is of a kind that this program was built without.
pub fn open(url: &str, table: &'static Table) -> Result<Records, InputError> {
    let source: Arc<str> = format!("{}#{}", without_password(url), table.name).into();
    let failed = |reason: String| InputError::whole(Arc::clone(&source), reason);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    let connection = runtime.block_on(Connection::open(url)).map_err(&failed)?;
    let names = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    Ok(Box::new(Pages { source, table, names, runtime, connection, last: -1, page: VecDeque::new(), ended: false }))
}

/// A source as it may be shown: an address without its password.
pub fn shown(source: &str) -> String {
    if is_url(source) { without_password(source) } else { source.to_owned() }
}

fn without_password(url: &str) -> String {
    let plain = url.split('?').next().unwrap_or(url);
    match plain.split_once("://") {
        Some((kind, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{kind}://{host}")
        }
        None => plain.to_owned(),
    }
}

struct Pages {
    source: Arc<str>,
    table: &'static Table,
    names: Arc<[String]>,
    runtime: Runtime,
    connection: Connection,
    last: i64,
    page: VecDeque<Vec<Option<String>>>,
    ended: bool,
}

impl Pages {
    fn statement(&self) -> String {
        let text = self.connection.text_type();
        let id = self.table.id;
        let columns: Vec<String> =
            self.table.columns.iter().map(|(_, column)| format!("CAST({} AS {text})", self.quoted(column))).collect();
        let from = self.table.from;
        // Under its own name the text would be what PostgreSQL sorts by.
        format!(
            "SELECT {}, CAST({id} AS {text}) AS place FROM {from} WHERE {id} > {} ORDER BY {id} LIMIT {PAGE}",
            columns.join(", "),
            self.last
        )
    }

    /// `key` is a word of MySQL.
    fn quoted(&self, column: &str) -> String {
        let quote = self.connection.quote();
        column.split('.').map(|part| format!("{quote}{part}{quote}")).collect::<Vec<_>>().join(".")
    }

    fn fetch(&mut self) -> Result<(), InputError> {
        let statement = self.statement();
        let rows = self.runtime.block_on(self.connection.rows(statement, self.names.len() + 1));
        let rows = rows.map_err(|error| {
            InputError::whole(Arc::clone(&self.source), format!("the table cannot be read: {error}"))
        })?;
        self.ended = rows.len() < PAGE;
        self.page = rows.into();
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<Record, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && !self.ended
            && let Err(error) = self.fetch()
        {
            self.ended = true;
            return Some(Err(error));
        }
        let mut values = self.page.pop_front()?;
        let id = values.pop().flatten().and_then(|id| id.parse::<i64>().ok());
        // In any other order rows would be met twice, or never.
        let Some(id) = id.filter(|id| *id > self.last) else {
            self.ended = true;
            self.page.clear();
            return Some(Err(InputError::whole(Arc::clone(&self.source), "the rows have no growing number as id")));
        };
        self.last = id;
        Some(Ok(Record::new(Arc::clone(&self.source), id.unsigned_abs(), Arc::clone(&self.names), values)))
    }
}

/// A connection that may only read.
enum Connection {
    Sqlite(sqlx::SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgConnection),
    #[cfg(feature = "mysql")]
    MySql(sqlx::MySqlConnection),
}

/// The same for each driver; only names of types differ. The columns are texts, whatever their declared type.
macro_rules! text_rows {
    ($connection:expr, $sql:expr, $columns:expr) => {{
        let rows = sqlx::query(AssertSqlSafe($sql)).fetch_all($connection).await?;
        rows.iter().map(|row| (0..$columns).map(|index| row.try_get_unchecked(index)).collect()).collect()
    }};
}

impl Connection {
    async fn open(url: &str) -> Result<Self, String> {
        let kind = url.split([':', '+']).next().unwrap_or_default();
        match kind {
            "sqlite" => Self::open_sqlite(url).await,
            #[cfg(feature = "postgres")]
            "postgresql" | "postgres" => Self::open_postgres(url).await,
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Self::open_mysql(url).await,
            #[cfg(not(feature = "postgres"))]
            "postgresql" | "postgres" => Err(without("postgres")),
            #[cfg(not(feature = "mysql"))]
            "mysql" | "mariadb" => Err(without("mysql")),
            _ => Err(format!("databases of kind '{kind}' are not known; sqlite, postgresql and mysql are")),
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self, String> {
        use sqlx::ConnectOptions as _;
        let path = url.trim_start_matches("sqlite:");
        let path = path.strip_prefix("///").unwrap_or_else(|| path.strip_prefix("//").unwrap_or(path));
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
        options.connect().await.map(Self::Sqlite).map_err(cannot_open)
    }

    #[cfg(feature = "postgres")]
    async fn open_postgres(url: &str) -> Result<Self, String> {
        use sqlx::ConnectOptions as _;
        let options: sqlx::postgres::PgConnectOptions = plain("postgresql", url).parse().map_err(cannot_open)?;
        let options = options.application_name("capacity").options([("default_transaction_read_only", "on")]);
        options.connect().await.map(Self::Postgres).map_err(cannot_open)
    }

    #[cfg(feature = "mysql")]
    async fn open_mysql(url: &str) -> Result<Self, String> {
        use sqlx::{ConnectOptions as _, Executor as _};
        let options: sqlx::mysql::MySqlConnectOptions = plain("mysql", url).parse().map_err(cannot_open)?;
        let mut connection = options.charset("utf8mb4").connect().await.map_err(cannot_open)?;
        let read_only = sqlx::raw_sql("SET SESSION TRANSACTION READ ONLY");
        connection.execute(read_only).await.map_err(cannot_open)?;
        Ok(Self::MySql(connection))
    }

    /// The type of a text of any length, in a cast.
    fn text_type(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "TEXT",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "TEXT",
            #[cfg(feature = "mysql")]
            Self::MySql(_) => "CHAR",
        }
    }

    fn quote(&self) -> char {
        match self {
            Self::Sqlite(_) => '"',
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => '"',
            #[cfg(feature = "mysql")]
            Self::MySql(_) => '`',
        }
    }

    async fn rows(&mut self, sql: String, columns: usize) -> Result<Vec<Vec<Option<String>>>, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => text_rows!(connection, sql, columns),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => text_rows!(connection, sql, columns),
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => text_rows!(connection, sql, columns),
        }
    }
}

/// SQLAlchemy's addresses name a driver, and options that are not ours.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn plain(kind: &str, url: &str) -> String {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    format!("{kind}://{}", rest.split('?').next().unwrap_or(rest))
}

#[cfg(not(all(feature = "postgres", feature = "mysql")))]
fn without(feature: &str) -> String {
    format!("this program was built without such databases: build it with `--features {feature}`")
}

fn cannot_open(error: sqlx::Error) -> String {
    format!("cannot be opened: {error}")
}

#[cfg(test)]
mod tests;
