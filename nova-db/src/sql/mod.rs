//! Rows in SQL databases.
//!
//! | file | what |
//! |---|---|
//! | `statements` | statements for the row interface, the same for every database |
//! | `dialect` | everything in which databases differ |
//! | `link`, `transaction` | running them |
//! | `migrations`, `migrate` | the schema, and bringing it up to date |
//! | `sqlite`, `writer`, `readers` | SQLite: one writer with group commit, several readers |
//! | `server`, `pool`, `patience` | database servers: connections, transactions, what is tried again |
//! | `postgres`, `mysql` | how each of them is reached |
//!
//! No type of `sqlx` or `sea_query` leaves this module.

mod dialect;
mod link;
mod migrate;
mod migrations;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod patience;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod readers;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod transaction;
#[cfg(feature = "sqlite")]
mod writer;

#[cfg(feature = "mysql")]
pub use mysql::MysqlBackend;
#[cfg(feature = "postgres")]
pub use postgres::PostgresBackend;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteBackend;
