//! What guests learn about themselves: read from the store and the network service, and put into the one form that the
//! config drive and the metadata service share ([`nova_core::metadata`]).
//!
//! Guests ask their own host, which knows them by the port that they ask from and asks the conductor
//! ([`answer`](MetadataManager::answer)). For an outside Neutron, whose proxies ask over the network, there is the
//! [`application`] `metadata`; it is off unless configured, and believes only what is signed with the shared secret.

mod http;
mod manager;
mod options;
#[cfg(test)]
mod tests;

pub use http::application;
pub use manager::{MetadataError, MetadataManager, security_groups};
pub use options::{GuestOptions, METADATA_OPTIONS, ProxyOptions};
