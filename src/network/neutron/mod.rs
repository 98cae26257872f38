//! A Neutron of somebody else's in the place of the built-in network service (nova/network/neutron.py).
//!
//! [`NeutronClient`] keeps nothing but its token: whose port is whose is what Neutron says. A port that was made for its
//! server is marked in its `binding:profile`, which only services may write, so that a user's own port is given back when
//! the server goes and is not deleted. Calls that may be repeated are; a port is made by one request for all interfaces of
//! a server, all or none, and looked for before it is made.
//!
//! What it is not: a driver of the hosts' plumbing. With an outside Neutron that is the business of Neutron's own agents.

mod options;
mod ports;
mod raw;
mod service;
mod session;
#[cfg(test)]
pub(super) mod tests;
mod wire;

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::entropy::Entropy;

pub use options::{NETWORK_SERVICE, NEUTRON_OPTIONS, NeutronOptions, neutron_fits};
pub(crate) use raw::Objects;
pub use session::NeutronError;
use session::Session;

/// An outside Neutron. Cheap to clone.
#[derive(Clone)]
pub struct NeutronClient {
    session: Arc<Session>,
}

impl NeutronClient {
    /// A client that has not asked for anything yet.
    ///
    /// # Errors
    /// [`NeutronError`] for a URL that cannot be used.
    pub fn new(
        options: NeutronOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, NeutronError> {
        Ok(Self { session: Arc::new(Session::new(options, clock, entropy)?) })
    }
}

impl std::fmt::Debug for NeutronClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NeutronClient").field("options", self.session.options()).finish_non_exhaustive()
    }
}
