//! Routers: a namespace each, with a leg on every network and a link to the host.

mod advertise;
mod link;
mod rules;
mod serve;

pub use advertise::advertisements;
pub use link::{LINKS, Pair, assign, pair_of};
pub use rules::{RouterRules, router_table};
pub use serve::Floating;
pub(super) use serve::{ROUTER_6, pairs, routed, serve};

use nova_core::ids::NetworkId;
use nova_core::network::device_name;

/// A router's end of the link to the host.
pub const OUT: &str = "out";

/// A router's end of the pair into a network's bridge.
pub fn leg_name(network: NetworkId) -> String {
    device_name("leg", &network.to_string())
}
