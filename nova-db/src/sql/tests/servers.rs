//! Places on a server for tests, and servers of their own.

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::conformance::Opened;
use crate::{OpenOptions, Store, open};

/// A name that no other test has, of this run or an earlier one.
pub(super) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("t_{}_{}_{nanos}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a statement at a URL.
type Remove = fn(String, String);

/// An empty place on a server: what is opened there meets no other test. It is removed at the end.
pub(super) struct Place {
    /// For [`open`].
    pub(super) url: String,
    /// For whoever does things behind the store's back.
    pub(super) admin: String,
    /// What removes it.
    pub(super) removal: Option<(Remove, String)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((remove, sql)) = self.removal.take() else { return };
        let admin = self.admin.clone();
        // The test's own runtime is in the middle of ending.
        let _ = std::thread::spawn(move || remove(admin, sql)).join();
    }
}

/// Runs something to its end on a thread of its own.
pub(super) fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

pub(super) async fn store_at(url: &str) -> Arc<dyn Store> {
    open(url, &OpenOptions::default()).await.unwrap()
}

/// A migrated store.
pub(super) async fn opened(place: Place) -> Opened {
    let store = store_at(&place.url).await;
    store.migrate().await.unwrap();
    Opened { store, keep: Some(Box::new(place)) }
}

/// A server that only one test has, so that it can be stopped.
pub(super) struct Private {
    script: PathBuf,
    folder: tempfile::TempDir,
}

impl Private {
    /// Starts it: `postgresql` or `mariadb`.
    pub(super) fn start(name: &str) -> (Self, String) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dev").join(name);
        let folder = tempfile::Builder::new().prefix("nova-db-").tempdir_in("/tmp").unwrap();
        let server = Self { script, folder };
        let url = server.run("start");
        (server, url.trim().to_owned())
    }

    /// `start`, `stop`, `kill`.
    pub(super) fn run(&self, verb: &str) -> String {
        let done = Command::new(&self.script).arg(verb).arg(self.folder.path()).output().unwrap();
        assert!(done.status.success(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.run("kill");
    }
}
