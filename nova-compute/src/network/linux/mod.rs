//! The plumbing of a Linux host: bridges, tunnels and the firewall.

pub mod links;
pub mod names;
