//! The built-in network service: the books of networks, subnets, ports, routers, floating addresses and security groups,
//! and what servers need of them.
//!
//! [`NetworkManager`] holds the rules that need a store; the transactions are the store's
//! ([`NetworkStore`](nova_db::NetworkStore)). It implements [`NetworkService`](nova_core::contracts::NetworkService) for the
//! services beside it; an outside Neutron can stand in its place. The HTTP side is [`crate::api::network`]. What it is not:
//! the plumbing of hosts. Nothing here makes a packet flow.

mod auto;
mod instance;
mod manager;
mod notify;
mod options;
mod servers;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use auto::AutoError;
pub use manager::NetworkManager;
pub(crate) use manager::{ATTEMPTS, may_see};
pub use notify::Notifier;
pub use options::{NETWORK_OPTIONS, NetworkOptions, ranges_fit};
pub use view::{Gateways, host_network};
