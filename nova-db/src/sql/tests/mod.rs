//! Databases as they are: what servers have to show beyond the list of checks, and their speed
//! (`cargo test -p nova-db --features postgres,mysql speed -- --ignored --nocapture`; SQLite's is a benchmark).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod checks;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod race;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod speed;
#[cfg(feature = "sqlite")]
mod sqlite;
