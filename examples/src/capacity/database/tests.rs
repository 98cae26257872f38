//! Tables of the three databases, and what is told when they can't be read.

use super::*;

fn database(path: &std::path::Path, statements: &str) {
    use sqlx::{ConnectOptions as _, Executor as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.unwrap();
    });
}

/// Whether a connection as the tool opens it can't delete rows.
fn refuses_to_delete(url: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut connection = runtime.block_on(Connection::open(url)).unwrap();
    runtime.block_on(connection.rows("DELETE FROM instances".to_owned(), 0)).is_err()
}

#[test]
fn a_table_is_read_page_by_page_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nova.db");
    let rows: Vec<String> = (1..=2_500).map(|id| format!("({id}, 'u{id}', '2026-01-01 00:00:00', NULL)")).collect();
    database(
        &path,
        &format!(
            "CREATE TABLE instances (id INTEGER PRIMARY KEY, uuid TEXT, terminated_at DATETIME, deleted_at DATETIME);
             INSERT INTO instances VALUES {}",
            rows.join(", ")
        ),
    );
    let before = std::fs::read(&path).unwrap();
    let url = format!("sqlite:{}", path.display());
    let read: Vec<Record> = open(&url, &INSTANCES).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read.len(), 2_500);
    assert_eq!(read[2_499].text("uuid"), Some("u2500"));
    assert_eq!(read[0].moment_ms("terminated_at").unwrap(), Some(1_767_225_600_000));
    assert_eq!(read[0].text("deleted_at"), None);
    assert_eq!(std::fs::read(&path).unwrap(), before);

    assert!(refuses_to_delete(&url), "the connection may write");

    let error = open(&url, &COMPUTE_NODES).unwrap().next().unwrap().unwrap_err().to_string();
    assert!(error.contains("nova.db#compute_nodes: the table cannot be read: "), "{error}");
}

#[test]
fn aggregates_are_joined_with_their_hosts_and_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    database(
        &path,
        "CREATE TABLE aggregates (id INTEGER PRIMARY KEY, name TEXT);
         CREATE TABLE aggregate_hosts (id INTEGER PRIMARY KEY, host TEXT, aggregate_id INTEGER);
         CREATE TABLE aggregate_metadata (id INTEGER PRIMARY KEY, aggregate_id INTEGER, \"key\" TEXT, value TEXT);
         INSERT INTO aggregates VALUES (1, 'fast'), (2, 'other');
         INSERT INTO aggregate_hosts VALUES (1, 'h1', 1), (2, 'h2', 1);
         INSERT INTO aggregate_metadata VALUES (1, 1, 'availability_zone', 'east'), (2, 1, 'ssd', 'true')",
    );
    let rows = open(&format!("sqlite:{}", path.display()), &AGGREGATES).unwrap();
    let cell = |row: &Record, column: &str| row.text(column).unwrap().to_owned();
    let pairs: Vec<[String; 3]> =
        rows.map(|row| row.map(|row| ["host", "key", "value"].map(|column| cell(&row, column))).unwrap()).collect();
    assert_eq!(pairs.len(), 4);
    assert_eq!(pairs[0], ["h1", "availability_zone", "east"]);
    assert_eq!(pairs[3], ["h2", "ssd", "true"]);
}

#[test]
fn what_cannot_be_opened_is_said_without_the_password() {
    let error = |url: &str| open(url, &INSTANCES).err().unwrap().to_string();
    let missing = error("sqlite:/nonexistent/nova.db");
    assert!(missing.starts_with("sqlite:/nonexistent/nova.db#instances: cannot be opened: "), "{missing}");
    let unknown = error("oracle://me:secret@db/nova?x=1");
    assert!(unknown.starts_with("oracle://db/nova#instances: databases of kind 'oracle'"), "{unknown}");
    assert!(!unknown.contains("secret"));
    assert!(is_url("mysql+pymysql://a/b") && !is_url("specs.csv"));
}

/// Makes a database of its own on a server, with tables as Nova's, and reads them.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! server {
    ($name:ident, $connection:ty, $variable:literal, $ignore:literal, $time:literal, $quote:literal) => {
        #[test]
        #[ignore = $ignore]
        fn $name() {
            use sqlx::{Connection as _, Executor as _};
            let server = std::env::var($variable).expect(concat!($variable, " says where"));
            let name = format!("capacity_{}", std::process::id());
            let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
            let rows: Vec<String> =
                (1..=2_500).map(|id| format!("({id}, 'u{id}', '2026-01-01 00:00:00', NULL)")).collect();
            let tables = format!(
                "CREATE TABLE instances (id INTEGER PRIMARY KEY, uuid VARCHAR(36), terminated_at {time}, deleted_at {time});
                 CREATE TABLE aggregates (id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE aggregate_hosts (id INTEGER PRIMARY KEY, host TEXT, aggregate_id INTEGER);
                 CREATE TABLE aggregate_metadata (id INTEGER PRIMARY KEY, aggregate_id INTEGER, {quote}key{quote} TEXT, value TEXT);
                 INSERT INTO instances VALUES {};
                 INSERT INTO aggregates VALUES (1, 'fast');
                 INSERT INTO aggregate_hosts VALUES (1, 'h1', 1);
                 INSERT INTO aggregate_metadata VALUES (1, 1, 'ssd', 'true')",
                rows.join(", "),
                time = $time,
                quote = $quote,
            );
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut admin = runtime.block_on(<$connection>::connect(&server)).unwrap();
            let create = format!("CREATE DATABASE {name}");
            runtime.block_on(admin.execute(sqlx::raw_sql(AssertSqlSafe(create)))).unwrap();
            let mut inside = runtime.block_on(<$connection>::connect(&url)).unwrap();
            runtime.block_on(inside.execute(sqlx::raw_sql(AssertSqlSafe(tables)))).unwrap();
            runtime.block_on(inside.close()).unwrap();

            let read: Vec<Record> = open(&url, &INSTANCES).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(read.len(), 2_500);
            assert_eq!(read[1_999].text("uuid"), Some("u2000"));
            assert_eq!(read[0].moment_ms("terminated_at").unwrap(), Some(1_767_225_600_000));
            assert_eq!(read[0].text("deleted_at"), None);
            let member = open(&url, &AGGREGATES).unwrap().next().unwrap().unwrap();
            assert_eq!(["host", "key", "value"].map(|column| member.text(column).unwrap()), ["h1", "ssd", "true"]);
            assert!(refuses_to_delete(&url), "the connection may write");

            let drop = format!("DROP DATABASE {name}");
            runtime.block_on(admin.execute(sqlx::raw_sql(AssertSqlSafe(drop)))).unwrap();
        }
    };
}

#[cfg(feature = "postgres")]
server!(
    postgresql_gives_the_same_rows,
    sqlx::PgConnection,
    "NOVA_TEST_POSTGRES_URL",
    "needs NOVA_TEST_POSTGRES_URL",
    "TIMESTAMP",
    "\""
);

#[cfg(feature = "mysql")]
server!(
    mysql_gives_the_same_rows,
    sqlx::MySqlConnection,
    "NOVA_TEST_MYSQL_URL",
    "needs NOVA_TEST_MYSQL_URL",
    "DATETIME",
    "`"
);
