//! Network namespaces to play hosts and guests in, and the frames that guests send.

pub mod frames;
mod guest;
mod host;
mod namespace;
mod scene;

pub use guest::{Guest, Guests, send_on};
pub use host::{Host, underlay};
pub use namespace::Namespace;
pub use scene::{Scene, group_id, ip4, ip6, mac, network_id, port_id};
