//! What the network of one host is to be. The network service makes it from its books; the host's plumbing makes it so.
//!
//! All of it is data, and all of it is said: a host compares it with what its kernel has and closes the gap, however wide.
//! It travels in *items* (a segment, a group, a router), each known by a digest of its content, so that a host that has
//! most of it is told the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AddressPair, Cidr, Direction, EtherType, HostRoute, MacAddress};
use crate::ids::{InstanceId, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId};

/// The network of one host: its segments, the groups that their ports need, the routers that run here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// Networks with a port here.
    #[serde(default)]
    pub segments: BTreeMap<NetworkId, Segment>,
    /// Groups that a port here has, or that a rule of such a group names.
    #[serde(default)]
    pub groups: BTreeMap<SecurityGroupId, Group>,
    /// Routers that this host is, for its own guests (multi-host) or for those of others (network node).
    #[serde(default)]
    pub routers: BTreeMap<RouterId, HostRouter>,
}

/// How the frames of a network go from host to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Carrier {
    /// They do not: guests of one host reach each other.
    Local,
    /// Over a bridge that the operator made: that of the physical network of this name (`bridge_mappings`).
    Bridge {
        /// The physical network.
        physical_network: String,
    },
    /// Over a bridge of ours, joined with the interface of the physical network of this name, if there is one
    /// (`interface_mappings`).
    Flat {
        /// The physical network.
        physical_network: Option<String>,
    },
    /// With a tag (802.1q) over the interface of the physical network.
    Vlan {
        /// The physical network.
        physical_network: String,
        /// 1 to 4094.
        tag: u16,
    },
    /// In UDP packets between the hosts (RFC 7348).
    Vxlan {
        /// The identifier, 24 bits.
        vni: u32,
        /// Tunnel addresses of the other hosts that have the network.
        peers: BTreeSet<IpAddr>,
    },
}

/// A network, as far as it concerns a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// How its frames go from host to host.
    pub carrier: Carrier,
    /// The largest packet.
    pub mtu: u32,
    /// Off: nothing passes.
    pub admin_state_up: bool,
    /// The domain of its servers' names; empty: the host's option says.
    #[serde(default)]
    pub dns_domain: String,
    /// Its ranges of addresses.
    pub subnets: BTreeMap<SubnetId, HostSubnet>,
    /// This host answers DHCP, names and metadata, for its own guests or for all.
    pub serves: bool,
    /// Ports that are plugged in here.
    pub ports: BTreeMap<PortId, HostPort>,
    /// Ports that are plugged in elsewhere.
    #[serde(default)]
    pub elsewhere: Vec<RemotePort>,
}

/// A range of addresses, as its guests are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSubnet {
    /// The range.
    pub cidr: Cidr,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// Guests are told their addresses by DHCP.
    pub dhcp: bool,
    /// Name servers besides the host's own.
    pub dns: Vec<IpAddr>,
    /// Other ways out.
    pub routes: Vec<HostRoute>,
    /// Router advertisements: `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    #[serde(default)]
    pub ra_mode: Option<String>,
}

/// A port that is plugged in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its addresses.
    pub addresses: Vec<(SubnetId, IpAddr)>,
    /// Its server's name on the network.
    pub hostname: String,
    /// Its server: who asks, when metadata is asked for from here.
    pub instance: Option<InstanceId>,
    /// Off: nothing passes.
    pub admin_state_up: bool,
    /// What may pass; `None`: anything, from any address.
    pub security: Option<PortSecurity>,
}

/// What may pass a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSecurity {
    /// Its groups; what none of them lets through is dropped.
    pub groups: BTreeSet<SecurityGroupId>,
    /// What it may send from besides its own addresses.
    pub pairs: Vec<AddressPair>,
}

/// A port of another host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemotePort {
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The tunnel address of its host, where the network has tunnels.
    pub tunnel: Option<IpAddr>,
    /// Its server's name on the network.
    #[serde(default)]
    pub hostname: String,
    /// Its server and its own id, where this host answers for its metadata, too (network node).
    #[serde(default)]
    pub asks: Option<(InstanceId, PortId)>,
}

/// A security group, as far as it concerns a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its rules; none where only its members are of interest.
    pub rules: BTreeSet<GroupRule>,
    /// Addresses of its ports on all hosts, pairs included; only where a rule names the group.
    pub members: BTreeSet<Cidr>,
    /// Answers to what was let through pass by themselves.
    pub stateful: bool,
}

/// Something that may pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupRule {
    /// Which way.
    pub direction: Direction,
    /// Which packets.
    pub ethertype: EtherType,
    /// The protocol's number; `None`: all.
    pub protocol: Option<u8>,
    /// First and last port, or ICMP type and code.
    pub ports: (Option<u16>, Option<u16>),
    /// The other side.
    pub remote: Remote,
}

/// The other side of what may pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    Any,
    /// Whoever is in this range.
    Prefix(Cidr),
    /// Whoever is in this group.
    Group(SecurityGroupId),
}

/// A router, as far as it concerns a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRouter {
    /// Its places on the host's networks.
    pub legs: Vec<RouterLeg>,
    /// Routes besides those to its subnets.
    #[serde(default)]
    pub routes: Vec<HostRoute>,
    /// Its way to the world, if it has one.
    pub outside: Option<Outside>,
}

/// A router's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterLeg {
    /// The network; it is one of the host's segments.
    pub network: NetworkId,
    /// Its MAC address. Where several hosts are the same router, each host has one of its own.
    pub mac: MacAddress,
    /// Its addresses with the ranges that they are in.
    pub addresses: Vec<(IpAddr, Cidr)>,
    /// Other hosts are this router, too: nothing of it may leave the host but what it forwards.
    pub distributed: bool,
}

/// A router's way to the world: over the host, which forwards, announces the addresses, and hides guests that have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The outer network's range and its gateway, one for each subnet.
    pub subnets: Vec<(Cidr, Option<IpAddr>)>,
    /// How guests without a floating address appear outside.
    pub source_nat: SourceNat,
    /// Floating addresses with the fixed ones that they stand for.
    pub floating: BTreeMap<IpAddr, IpAddr>,
    /// The same of guests that are on their way here: what they send is theirs from their first packet on, and leads nowhere
    /// else until they are announced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coming: BTreeMap<IpAddr, IpAddr>,
}

/// How guests without a floating address appear outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceNat {
    /// As they are.
    None,
    /// Under the router's own address, which this host announces.
    Address(IpAddr),
    /// Under the host's.
    Host,
}

/// Names an item of a [`HostNetwork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKey {
    /// A segment.
    Segment(NetworkId),
    /// A group.
    Group(SecurityGroupId),
    /// A router.
    Router(RouterId),
}

/// The name of a port's end on its host: `tap` and the first eleven characters of the id, as Neutron's agents name it.
pub fn tap_name(port: PortId) -> String {
    device_name("tap", &port.to_string())
}

/// The name of a network's bridge on a host, where the operator has not made it.
pub fn bridge_name(network: NetworkId) -> String {
    device_name("brq", &network.to_string())
}

/// A name for something of that id: at most the 15 bytes that the kernel takes.
pub fn device_name(prefix: &str, id: &str) -> String {
    let rest = 14_usize.saturating_sub(prefix.len());
    prefix.chars().chain(id.chars().take(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_those_of_neutrons_agents() {
        let port: PortId = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        assert_eq!(tap_name(port), "tapa01b23c4-d5");
        assert_eq!(device_name("brq", "a01b23c4-d5e6-47f8"), "brqa01b23c4-d5");
    }
}
