//! The plumbing of a Linux host: bridges, tunnels and the firewall.

pub mod dhcp;
pub mod doors;
pub mod links;
pub mod names;
pub mod namespace;
pub mod nat;
pub mod router;
pub mod services;
