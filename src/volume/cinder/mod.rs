//! A Cinder of somebody else's in the place of the built-in volume service (nova/volume/cinder.py), by its attachments API.
//!
//! [`CinderClient`] keeps nothing but its tokens. It asks as a service user with the role admin, and looks itself whether a
//! volume is of the project that asks. What is made for a project (a volume, a snapshot) is made by a token of that project:
//! the service user needs a role there, too. Cinder chooses ids; what is made twice is found by a label, or by its server.

mod options;
mod service;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::entropy::Entropy;

pub use options::{CINDER_OPTIONS, CinderOptions, VOLUME_SERVICE, cinder_fits};

use crate::outside::{OutsideError, Service, Session};

/// An outside Cinder. Cheap to clone.
#[derive(Clone)]
pub struct CinderClient {
    session: Arc<Session>,
    options: CinderOptions,
}

impl CinderClient {
    /// A client that has not asked for anything yet.
    ///
    /// # Errors
    /// [`OutsideError`] for a URL that cannot be used.
    pub fn new(options: CinderOptions, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, OutsideError> {
        let service = Service {
            name: "Cinder",
            types: &["block-storage", "volumev3"],
            options: ["cinder.auth_url", "cinder.endpoint_template"],
            base: str::to_owned,
            endpoint: options.endpoint.clone(),
        };
        let session = Session::new(service, options.account.clone(), clock, entropy)?;
        Ok(Self { session: Arc::new(session), options })
    }
}

impl std::fmt::Debug for CinderClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CinderClient").field("options", &self.options).finish_non_exhaustive()
    }
}
