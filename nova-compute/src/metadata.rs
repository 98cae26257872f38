//! The metadata service of a host, for its own guests (nova/api/metadata/handler.py).
//!
//! The plumbing opens doors: listening sockets of 169.254.169.254 inside networks, each with the guest behind every address
//! that can ask there ([`MetadataDoor`]). Who asks is told by the address that the connection comes from, which the rules of
//! the ports keep true; no header is read. What is answered comes from the conductor, and is kept a few seconds.

mod cache;
mod door;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_core::entropy::Entropy;

use crate::network::{MetadataDoor, Plumbing};
use cache::Cache;
use door::Door;
pub use source::{Left, MetadataSource, RpcMetadataSource};

/// Bounds of the metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataLimits {
    /// How long an answer of the control plane is used.
    pub cache: Duration,
    /// How long it is waited for; then the guest is told to come back.
    pub source_timeout: Duration,
    /// How long a request's head may take, and a connection may idle.
    pub header_timeout: Duration,
    /// How long an answer may take to be read.
    pub connection_lifetime: Duration,
    /// Connections of one guest at once; more are closed.
    pub per_guest: usize,
    /// Connections of one door at once; more are closed.
    pub per_door: usize,
}

impl Default for MetadataLimits {
    fn default() -> Self {
        Self {
            cache: Duration::from_secs(5),
            source_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            connection_lifetime: Duration::from_secs(120),
            per_guest: 8,
            per_door: 1024,
        }
    }
}

/// Serves metadata at all doors of a host. Cheap to clone; ends with its last copy.
#[derive(Clone)]
pub struct MetadataServer {
    shared: Arc<Shared>,
    doors: Arc<Mutex<BTreeMap<String, Door>>>,
}

/// What all doors share.
struct Shared {
    cache: Cache,
    entropy: Arc<dyn Entropy>,
    limits: MetadataLimits,
}

impl MetadataServer {
    /// A server without doors. `entropy` must be fit for secrets: guests are given some of it.
    pub fn new(source: Arc<dyn MetadataSource>, entropy: Arc<dyn Entropy>, limits: MetadataLimits) -> Self {
        let cache = Cache::new(source, limits.cache, limits.source_timeout);
        Self { shared: Arc::new(Shared { cache, entropy, limits }), doors: Arc::default() }
    }

    /// Serves at the doors that the plumbing has now. To be called whenever it has converged.
    pub async fn refresh(&self, plumbing: &dyn Plumbing) {
        self.serve(plumbing.metadata_doors().await);
    }

    /// Serves at these doors and no others. A door of the same name stays open; only who is behind it may change. Must be
    /// called inside a runtime.
    pub fn serve(&self, wanted: Vec<MetadataDoor>) {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = std::mem::take(&mut *doors);
        for door in wanted {
            let MetadataDoor { name, listener, callers } = door;
            let known = open.remove(&name).filter(|known| known.is_open());
            let opened = match known {
                Some(known) => {
                    known.set_callers(callers);
                    Ok(known)
                }
                None => Door::open(self.shared.clone(), &name, listener, callers),
            };
            match opened {
                Ok(door) => drop(doors.insert(name, door)),
                // The next refresh tries again.
                Err(error) => tracing::warn!(door = name, %error, "metadata cannot be served here"),
            }
        }
    }

    /// Names of the open doors.
    pub fn doors(&self) -> Vec<String> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl std::fmt::Debug for MetadataServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataServer").field("doors", &self.doors()).finish_non_exhaustive()
    }
}
