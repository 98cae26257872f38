//! Every store against the same list of checks, and what only SQLite has to show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod memory;
mod sqlite;
