//! Databases as they are: their speed, and what servers have to show beyond the list of checks.
//!
//! `cargo test -p nova-db speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod checks;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
mod speed;

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and asserts nothing"]
async fn speed_of_sqlite() {
    use crate::Maintenance as _;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("nova.db");
    let store = crate::SqliteStore::open(&path, &crate::OpenOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    speed::measure(std::sync::Arc::new(store)).await;
}
