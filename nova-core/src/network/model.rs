//! Networks, subnets, ports, routers and floating addresses, as they are kept.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AddressPool, Cidr, MacAddress};
use crate::ids::{FloatingIpId, HostName, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId};

/// `device_owner` of the port by which a router is on a subnet.
pub const ROUTER_INTERFACE: &str = "network:router_interface";
/// `device_owner` of the port by which a router is on its outer network.
pub const ROUTER_GATEWAY: &str = "network:router_gateway";

/// 4 or 6; a number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// The version of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl From<IpVersion> for u8 {
    fn from(version: IpVersion) -> Self {
        version.number()
    }
}

impl TryFrom<u8> for IpVersion {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(format!("{other} is no version of IP")),
        }
    }
}

/// A wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The id.
    pub id: NetworkId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Off: nothing passes.
    pub admin_state_up: bool,
    /// Everybody may plug into it.
    pub shared: bool,
    /// An outer network: routers have their gateways on it, and floating addresses come from it.
    pub external: bool,
    /// The largest packet.
    pub mtu: u32,
    /// New ports have port security.
    pub port_security_enabled: bool,
    /// The domain of names on it.
    #[serde(default)]
    pub dns_domain: String,
    /// `flat`, `vlan`, `vxlan`, `local`: how it is carried.
    #[serde(default)]
    pub network_type: Option<String>,
    /// Which of the hosts' physical networks carries it.
    #[serde(default)]
    pub physical_network: Option<String>,
    /// VLAN tag or VXLAN identifier.
    #[serde(default)]
    pub segmentation_id: Option<u32>,
    /// The outer network that routers of auto-allocated topologies lead to.
    #[serde(default)]
    pub is_default: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

/// A way out of a subnet besides its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: Cidr,
    /// By whom.
    pub nexthop: IpAddr,
}

/// A range of addresses on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The id.
    pub id: SubnetId,
    /// Its network.
    pub network_id: NetworkId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The range; it tells the version, too.
    pub cidr: Cidr,
    /// Its way out.
    pub gateway_ip: Option<IpAddr>,
    /// What is given out, in order.
    pub allocation_pools: Vec<AddressPool>,
    /// Name servers, first asked first.
    pub dns_nameservers: Vec<IpAddr>,
    /// Other ways out.
    pub host_routes: Vec<HostRoute>,
    /// Guests are told their addresses by DHCP.
    pub enable_dhcp: bool,
    /// How guests learn their addresses of version 6: `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    #[serde(default)]
    pub ipv6_address_mode: Option<String>,
    /// Who sends router advertisements, and which.
    #[serde(default)]
    pub ipv6_ra_mode: Option<String>,
    /// Everybody may see it: its network is shared. The store keeps it true.
    #[serde(default)]
    pub shared: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    /// Of which subnet.
    pub subnet_id: SubnetId,
    /// The address.
    pub ip_address: IpAddr,
}

/// An address that a port may send from besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// One address or a range.
    pub ip_address: Cidr,
    /// From this MAC address; the port's own if none is named.
    pub mac_address: Option<MacAddress>,
}

/// Does it work?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortStatus {
    /// Plugged, and its host says so.
    Active,
    /// Not plugged, or not yet.
    Down,
    /// Being plugged.
    Build,
    /// It could not be.
    Error,
}

impl PortStatus {
    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
            Self::Build => "BUILD",
            Self::Error => "ERROR",
        }
    }
}

/// How a port is plugged in on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VifBinding {
    /// `normal`, `direct`, …: what its user asks for.
    pub vnic_type: String,
    /// What the host makes of it; `unbound` while there is none.
    pub vif_type: String,
    /// What the host needs to know.
    #[serde(default)]
    pub profile: Map<String, Value>,
}

impl Default for VifBinding {
    fn default() -> Self {
        Self { vnic_type: "normal".to_owned(), vif_type: "unbound".to_owned(), profile: Map::new() }
    }
}

/// A place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The id.
    pub id: PortId,
    /// Its network.
    pub network_id: NetworkId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Off: nothing passes.
    pub admin_state_up: bool,
    /// Does it work?
    pub status: PortStatus,
    /// Unique on its network.
    pub mac_address: MacAddress,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// The server or router that uses it; empty while nobody does.
    #[serde(default)]
    pub device_id: String,
    /// What that is: `compute:nova`, `network:router_interface`.
    #[serde(default)]
    pub device_owner: String,
    /// Where it is plugged in.
    #[serde(default)]
    pub host: Option<HostName>,
    /// How it is plugged in.
    #[serde(default)]
    pub binding: VifBinding,
    /// What may pass.
    pub security_groups: Vec<SecurityGroupId>,
    /// Addresses that it may send from besides its own.
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Off: anything passes, from any address.
    pub port_security_enabled: bool,
    /// Its name in the network's domain.
    #[serde(default)]
    pub dns_name: String,
    /// Made for its server, and goes with it. Others are given back to their project.
    #[serde(default)]
    pub delete_with_device: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

/// Under which key of a binding's profile a device tag is.
const DEVICE_TAG: &str = "tag";
/// Under which key is the host that the port's server comes to while it runs (nova/network/constants.py, `MIGRATING_ATTR`).
const MIGRATING_TO: &str = "migrating_to";

impl Port {
    /// Does it belong to a router? Such ports come and go with what the router does.
    pub fn is_of_router(&self) -> bool {
        [ROUTER_INTERFACE, ROUTER_GATEWAY].contains(&self.device_owner.as_str())
    }

    /// What its server's guest knows it by. It is kept with the binding: it comes and goes with the server.
    pub fn device_tag(&self) -> Option<&str> {
        self.binding.profile.get(DEVICE_TAG).and_then(|tag| tag.as_str())
    }

    /// Gives it such a tag, or takes it away.
    pub fn set_device_tag(&mut self, tag: Option<&str>) {
        match tag {
            Some(tag) => drop(self.binding.profile.insert(DEVICE_TAG.to_owned(), tag.into())),
            None => drop(self.binding.profile.remove(DEVICE_TAG)),
        }
    }

    /// The host that its server comes to while it runs: the port is to be ready there, too.
    pub fn migrating_to(&self) -> Option<HostName> {
        self.binding.profile.get(MIGRATING_TO).and_then(|host| host.as_str()).map(HostName::new)
    }

    /// Names that host, or none.
    pub fn set_migrating_to(&mut self, host: Option<&HostName>) {
        match host {
            Some(host) => drop(self.binding.profile.insert(MIGRATING_TO.to_owned(), host.as_str().into())),
            None => drop(self.binding.profile.remove(MIGRATING_TO)),
        }
    }

    /// Is its server there, or about to come?
    pub fn concerns(&self, host: &HostName) -> bool {
        self.host.as_ref() == Some(host) || self.migrating_to().as_ref() == Some(host)
    }
}

/// An address of an outer network that may stand for a fixed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// The id.
    pub id: FloatingIpId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The outer network.
    pub floating_network_id: NetworkId,
    /// Of which of its subnets the address is.
    pub subnet_id: SubnetId,
    /// The address.
    pub floating_ip_address: IpAddr,
    /// The port that it stands for, with which of the port's addresses.
    pub port_id: Option<PortId>,
    /// The fixed address.
    pub fixed_ip_address: Option<IpAddr>,
    /// The router that translates.
    pub router_id: Option<RouterId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

impl FloatingIp {
    /// `ACTIVE` while it stands for something.
    pub const fn status(&self) -> &'static str {
        if self.port_id.is_some() { "ACTIVE" } else { "DOWN" }
    }
}

/// A router's way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The outer network.
    pub network_id: NetworkId,
    /// Guests without a floating address reach the outside under the router's own.
    pub enable_snat: bool,
    /// The router's port there.
    pub port_id: PortId,
    /// The port's addresses.
    pub external_fixed_ips: Vec<FixedIp>,
}

/// Joins subnets. Its interfaces are ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// The id.
    pub id: RouterId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Off: nothing passes.
    pub admin_state_up: bool,
    /// Its way out.
    pub gateway: Option<Gateway>,
    /// Routes besides those to its subnets.
    #[serde(default)]
    pub routes: Vec<HostRoute>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

/// Tags or identifiers of which a network may get one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRange {
    /// Of which physical network; `None` for tunnels.
    pub physical_network: Option<String>,
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl SegmentRange {
    /// How many there are.
    pub fn count(&self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(u64::from(self.first))
    }
}
