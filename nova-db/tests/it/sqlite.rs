//! The store on SQLite.

use std::sync::Arc;

use nova_db::conformance::Opened;
use nova_db::{OpenOptions, Store, open};
use tempfile::TempDir;

async fn store_in(folder: &TempDir) -> Arc<dyn Store> {
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    open(&url, &OpenOptions::default()).await.unwrap()
}

async fn open_sqlite() -> Opened {
    let folder = TempDir::new().unwrap();
    let store = store_in(&folder).await;
    store.migrate().await.unwrap();
    Opened { store, keep: Some(Box::new(folder)) }
}

nova_db::store_conformance!(open_sqlite());
