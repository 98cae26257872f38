//! Networks: what they are made of, and the rules that need no database (nova/network as it was, with Neutron's words).
//!
//! A *network* is a wire; *subnets* are ranges of addresses on it; a *port* is a place on it with a MAC address and fixed
//! addresses; *routers* join subnets with each other and with an outer network, whose *floating addresses* stand for fixed
//! ones; *security groups* say what may pass a port.

mod agent;
mod cidr;
mod digest;
mod host;
mod mac;
mod model;
mod pool;
mod problem;
mod quota;
mod security;
mod service;

pub use agent::{BOOKS_PLUMBING, NetworkAgent, NetworkState};
pub use cidr::{Cidr, InvalidCidr, address_number, address_of};
pub use digest::{InvalidItemKey, item_digest, port_key};
pub use host::{
    Carrier, Group, GroupRule, HostNetwork, HostPort, HostRouter, HostSubnet, ItemKey, Outside, PortSecurity, Remote,
    RemotePort, RouterLeg, Segment, SourceNat, bridge_name, device_name, tap_name,
};
pub use mac::{InvalidMac, MacAddress};
pub use model::{
    AddressPair, FixedIp, FloatingIp, Gateway, HostRoute, IpVersion, Network, Port, PortStatus, ROUTER_GATEWAY,
    ROUTER_INTERFACE, Router, SegmentRange, Subnet, VifBinding,
};
pub use pool::{AddressPool, check_gateway, check_pools, check_subnet, default_gateway, default_pools, usable};
pub use problem::{NetworkProblem, ProblemClass};
pub use quota::{NetworkLimits, NetworkResource};
pub use security::{Direction, EtherType, RuleRequest, SecurityGroup, SecurityGroupRule, check_rule, default_rules};
pub use service::{
    InstanceNetworks, NetworkService, NetworkServiceError, RequestedInterface, RequestedNetworks, Vif, VifAddress,
};
