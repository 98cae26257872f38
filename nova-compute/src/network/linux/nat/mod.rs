//! Address translation on the host's side, what the host announces of its routers, and the way to the services on bridges.

mod announce;
mod bridge;
mod host;
mod nft;
mod reach;

pub use announce::{announcement, gratuitous_arp};
pub use bridge::{BridgeRules, bridge_table};
pub use host::{HostRules, host_table};
pub use nft::{Table, Tables};
pub(super) use reach::{reach, show_services};

/// Renders `elements = { … }`, or nothing.
pub(super) fn elements<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { String::new() } else { format!("    elements = {{ {} }}\n", items.join(", ")) }
}
