//! The network as hosts need it: what the books say of one host, which hosts a change concerns, and what hosts say of
//! themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use nova_core::ids::{HostName, NetworkAgentId, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId};
use nova_core::network::{
    FloatingIp, Network, NetworkAgent, NetworkState, Port, PortStatus, Router, SecurityGroup, Subnet,
};
use nova_core::rpc::network::BooksChangedRequest;

use crate::StoreError;

/// Whose network is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostScope {
    /// The host.
    pub host: HostName,
    /// The one network node, if there is one: every network with a port anywhere or with a router is its business.
    pub network_node: Option<HostName>,
}

impl HostScope {
    /// Is the host the network node?
    pub fn is_node(&self) -> bool {
        self.network_node.as_ref() == Some(&self.host)
    }
}

/// The rows from which a host's network is made. Each is there once; what they refer to is there, too, unless it was
/// removed while they were read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostBooks {
    /// Networks with a port on the host, and those that routers join with them.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Their subnets, and those of outer networks of [`HostBooks::routers`].
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// All ports on [`HostBooks::networks`], and those that have a group that a rule names.
    pub ports: BTreeMap<PortId, Port>,
    /// Groups of the host's ports, with their rules.
    pub groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    /// Routers with an interface on [`HostBooks::networks`].
    pub routers: BTreeMap<RouterId, Router>,
    /// Floating addresses behind those.
    pub floating_ips: Vec<FloatingIp>,
    /// Where tunnels to hosts with ports end.
    pub tunnels: BTreeMap<HostName, IpAddr>,
}

/// What tells where a group must be in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupBooks {
    /// The ports that have it.
    pub ports: Vec<Port>,
    /// Hosts with a port that has a group with a rule that names it.
    pub named_on: BTreeSet<HostName>,
    /// What of these hosts and those of the ports is known.
    pub agents: BTreeMap<HostName, NetworkAgent>,
    /// How far they are.
    pub states: BTreeMap<HostName, NetworkState>,
}

/// What hosts are to be, and what they say of themselves.
#[async_trait]
pub trait NetworkHostStore: Send + Sync {
    /// What the books say of a host's network. Some dozen questions at most, however many ports there are up to some
    /// hundred each; one for a host without ports. Not a transaction: what changes meanwhile is told as a change.
    async fn host_books(&self, scope: &HostScope) -> Result<HostBooks, StoreError>;

    /// How often the books were changed, so far as hosts could be told of it: a number that is higher after each change, in the
    /// same transaction. While it is the same, so is every host's [`host_books`](Self::host_books). One question.
    async fn books_version(&self) -> Result<u64, StoreError>;

    /// The hosts with a port that a change concerns, or that are behind a router that it concerns.
    async fn hosts_concerned(&self, change: &BooksChangedRequest) -> Result<BTreeSet<HostName>, StoreError>;

    /// Where a group must be in force, and how far it is.
    async fn group_books(&self, id: SecurityGroupId) -> Result<GroupBooks, StoreError>;

    /// A host was heard of. Its row is made, or takes over what it says of itself; the id stays. Returns the row, and
    /// whether it says something new.
    async fn hear_network_agent(&self, agent: NetworkAgent) -> Result<(NetworkAgent, bool), StoreError>;

    /// A host's report, in one transaction: what is in force, and the states of ports that are bound there. What it says of
    /// other ports is not believed. Returns the ports whose state is another than before.
    async fn report_network(
        &self,
        state: NetworkState,
        ports: BTreeMap<PortId, PortStatus>,
    ) -> Result<Vec<Port>, StoreError>;

    /// Agents by host: of these hosts, or all.
    async fn list_network_agents(&self, hosts: Option<&[HostName]>) -> Result<Vec<NetworkAgent>, StoreError>;

    /// One agent.
    async fn get_network_agent(&self, id: NetworkAgentId) -> Result<NetworkAgent, StoreError>;

    /// How far a host said that it is.
    async fn get_network_state(&self, host: &HostName) -> Result<Option<NetworkState>, StoreError>;

    /// Forgets an agent; it is known again when it is heard of.
    async fn delete_network_agent(&self, id: NetworkAgentId) -> Result<(), StoreError>;
}
