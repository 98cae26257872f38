//! The built-in network service: the books of networks, subnets, ports, routers, floating addresses and security groups,
//! and what servers need of them.
//!
//! [`NetworkManager`] holds the rules that need a store; the transactions are the store's
//! ([`NetworkStore`](nova_db::NetworkStore)). It implements [`NetworkService`](nova_core::contracts::NetworkService) for the
//! services beside it; an outside Neutron can stand in its place ([`NeutronClient`]). The HTTP side is
//! [`crate::api::network`]. What hosts are to make of it is [`host_network`], which [`service`] tells them. What it is not:
//! the plumbing of hosts. Nothing here makes a packet flow.

mod applied;
mod auto;
mod changes;
mod instance;
mod manager;
mod neutron;
mod notify;
mod options;
mod plan;
mod segments;
mod servers;
pub mod service;
#[cfg(test)]
mod tests;
mod view;
mod vifs;

pub(crate) use auto::AutoError;
pub use manager::NetworkManager;
pub(crate) use manager::{ATTEMPTS, may_see};
pub(crate) use neutron::Objects;
#[cfg(test)]
pub(crate) use neutron::tests::World as NeutronWorld;
pub use neutron::{NETWORK_SERVICE, NEUTRON_OPTIONS, NeutronClient, NeutronError, NeutronOptions, neutron_fits};
pub use notify::Notifier;
pub use options::{NETWORK_OPTIONS, NetworkOptions, ranges_fit};
pub use segments::{NETWORK_TYPES, SEGMENT_OPTIONS, SegmentOptions, segments_fit};
pub use view::{Gateways, host_network};
