//! The store in memory.

use std::sync::Arc;

use nova_db::{MemoryStore, Store};

async fn open_memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

nova_db::store_conformance!(open_memory());
