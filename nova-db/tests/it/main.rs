//! Every store against the same list of checks, and what only SQLite has to show.

mod memory;
mod sqlite;
