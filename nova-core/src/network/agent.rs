//! What is known of the hosts' network agents (Neutron's agents).

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{HostName, NetworkAgentId};

/// The plumbing that plugs nothing in: what the books say is so at once.
pub const BOOKS_PLUMBING: &str = "books";

/// A host that asks for its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAgent {
    /// The host.
    pub host: HostName,
    /// The id.
    pub id: NetworkAgentId,
    /// What makes its network: `books`, `linux`.
    pub plumbing: String,
    /// Where tunnels to it end.
    #[serde(default)]
    pub tunnel_ip: Option<IpAddr>,
    /// Names of the physical networks that it is on.
    #[serde(default)]
    pub physical_networks: Vec<String>,
    /// When it was first heard of.
    pub created_at: Timestamp,
    /// When it was last heard of.
    pub heard_at: Timestamp,
}

impl NetworkAgent {
    /// Is anything plugged in there, so that it must be told of changes?
    pub fn plugs(&self) -> bool {
        self.plumbing != BOOKS_PLUMBING
    }

    /// Does it say the same of itself?
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.plumbing == other.plumbing
            && self.tunnel_ip == other.tunnel_ip
            && self.physical_networks == other.physical_networks
    }
}

/// How far a host's network is what it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The host.
    pub host: HostName,
    /// Digests of what is in force there: items, and ports by `port:<id>`.
    pub applied: BTreeMap<String, String>,
    /// What could not be made so, for administrators.
    #[serde(default)]
    pub problems: Vec<String>,
    /// When it said so.
    pub reported_at: Timestamp,
}
