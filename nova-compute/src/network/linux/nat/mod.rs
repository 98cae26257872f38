//! Address translation on the host's side, and what the host announces of its routers.

mod announce;
mod guard;
mod host;
mod nft;
mod reach;
mod six;

pub use announce::{announcement, gratuitous_arp, neighbour_advertisement};
pub use guard::guard_table;
pub use host::{HostRules, Sources, host_table};
pub use nft::{Table, Tables};
pub(super) use reach::reach;
pub use six::Forwarding;

/// Renders `elements = { … }`, or nothing.
pub(super) fn elements<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { String::new() } else { format!("    elements = {{ {} }}\n", items.join(", ")) }
}
