//! Rows in SQL databases.
//!
//! | file | what |
//! |---|---|
//! | `statements` | statements for the row interface, the same for every database |
//! | `dialect` | everything in which databases differ |
//! | `link`, `transaction` | running them |
//! | `migrations`, `migrate` | the schema, and bringing it up to date |
//! | `sqlite`, `writer`, `readers` | SQLite: one writer with group commit, several readers |
//!
//! No type of `sqlx` or `sea_query` leaves this module.

mod dialect;
mod link;
mod migrate;
mod migrations;
mod readers;
mod sqlite;
mod statements;
mod transaction;
mod writer;

pub use sqlite::SqliteBackend;
