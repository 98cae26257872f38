//! The network service's interface: hosts ask what their network is to be, and say how far they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{HostName, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId};
use crate::network::{Group, HostRouter, ItemKey, PortStatus, Segment};
use crate::rpc_method;

rpc_method! {
    /// The books changed there. Only shortens the wait: hosts ask now and then anyway.
    BooksChanged = "network"."books_changed": Cast from [Api, Conductor, Network], BooksChangedRequest => ()
}
rpc_method! {
    /// What is this host's network to be?
    SyncHost = "network"."sync_host": Call from [Compute], SyncHostRequest => SyncHostReply
}
rpc_method! {
    /// This is what the host's network is now.
    ReportHost = "network"."report_host": Call from [Compute], ReportHostRequest => ()
}
rpc_method! {
    /// Are you there?
    Ping = "network"."ping": Call from [Api, Conductor, Compute, Network], () => ()
}

/// What changed: hosts with ports on these networks, with these groups, or behind these routers are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksChangedRequest {
    /// Networks, with their subnets and ports.
    #[serde(default)]
    pub networks: Vec<NetworkId>,
    /// Groups, with their rules and members.
    #[serde(default)]
    pub groups: Vec<SecurityGroupId>,
    /// Routers, with their floating addresses.
    #[serde(default)]
    pub routers: Vec<RouterId>,
    /// Hosts that a port has come to or gone from.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// Projects all of whose ports are concerned.
    #[serde(default)]
    pub projects: Vec<ProjectId>,
}

/// What a host is, for its network, and what it has of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncHostRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// What makes its network: `books`, `linux`.
    pub plumbing: String,
    /// Where the other hosts' tunnels end when they lead here.
    #[serde(default)]
    pub tunnel_ip: Option<IpAddr>,
    /// Names of the physical networks that it is on.
    #[serde(default)]
    pub physical_networks: Vec<String>,
    /// Digests of the items that it has.
    #[serde(default)]
    pub have: BTreeMap<String, String>,
}

/// What its network is to be, as far as it does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncHostReply {
    /// Segments that are new or otherwise.
    #[serde(default)]
    pub segments: BTreeMap<NetworkId, Segment>,
    /// Groups that are new or otherwise.
    #[serde(default)]
    pub groups: BTreeMap<SecurityGroupId, Group>,
    /// Routers that are new or otherwise.
    #[serde(default)]
    pub routers: BTreeMap<RouterId, HostRouter>,
    /// Items that are no more.
    #[serde(default)]
    pub gone: Vec<ItemKey>,
    /// When the books were read, by the service's clock.
    pub as_of: Timestamp,
}

/// What a host's network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportHostRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Digests of the items that are in force.
    pub applied: BTreeMap<String, String>,
    /// Ports whose state is another than before.
    #[serde(default)]
    pub ports: BTreeMap<PortId, PortStatus>,
    /// What could not be made so, for administrators.
    #[serde(default)]
    pub problems: Vec<String>,
}
