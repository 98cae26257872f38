//! Why the network cannot be as asked, in Neutron's words.

use std::net::IpAddr;

use super::{AddressPool, Cidr, MacAddress, NetworkResource};
use crate::ids::{FloatingIpId, NetworkId, PortId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId};

/// What kind of answer a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemClass {
    /// What was asked makes no sense.
    BadRequest,
    /// Something that it names is not there.
    NotFound,
    /// It makes sense, but not now.
    Conflict,
    /// The cloud has none left.
    Exhausted,
}

/// Why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are what the texts say of them")]
pub enum NetworkProblem {
    /// A value that cannot be.
    #[error("Invalid input for operation: {message}.")]
    Invalid { message: String },
    /// Ends before it begins, or is of another version.
    #[error("The allocation pool {pool} is not valid.")]
    BadPool { pool: AddressPool },
    /// Not in the subnet.
    #[error("The allocation pool {pool} spans beyond the subnet cidr {cidr}.")]
    PoolOutside { pool: AddressPool, cidr: Cidr },
    /// One address in two pools.
    #[error("Found overlapping allocation pools: {one} {other} for subnet {cidr}.")]
    PoolsOverlap { one: AddressPool, other: AddressPool, cidr: Cidr },
    /// It would be given to a guest.
    #[error("Gateway ip {gateway} conflicts with allocation pool {pool}.")]
    GatewayInPool { gateway: IpAddr, pool: AddressPool },
    /// Somebody has it.
    #[error("Gateway ip {gateway} of subnet {subnet} is in use by port {port} and cannot be changed.")]
    GatewayInUse { gateway: IpAddr, subnet: SubnetId, port: String },
    /// One network, one meaning of an address.
    #[error(
        "Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network} overlaps with another subnet."
    )]
    SubnetsOverlap { cidr: Cidr, network: NetworkId },
    /// Every address is taken.
    #[error("No more IP addresses available on network {network}.")]
    Exhausted { network: NetworkId },
    /// The address is taken.
    #[error("Unable to complete operation for network {network}. The IP address {address} is in use.")]
    AddressInUse { network: NetworkId, address: IpAddr },
    /// Not an address that an interface on that subnet can have.
    #[error("IP address {address} is not a valid IP for the specified subnet.")]
    AddressOutsideSubnet { subnet: SubnetId, address: IpAddr },
    /// Of none of the network's subnets.
    #[error("IP address {address} is not a valid IP for any of the subnets on the specified network.")]
    AddressOutsideNetwork { network: NetworkId, address: IpAddr },
    /// Another network's subnet.
    #[error(
        "Invalid input for operation: Failed to create port on network {network}, because fixed_ips included invalid subnet {subnet}."
    )]
    ForeignSubnet { network: NetworkId, subnet: SubnetId },
    /// One address, twice.
    #[error("Invalid input for operation: Duplicate IP address {address} in fixed_ips.")]
    AddressTwice { address: IpAddr },
    /// The MAC address is taken.
    #[error("Unable to complete operation for network {network}. The mac address {mac} is in use.")]
    MacInUse { network: NetworkId, mac: MacAddress },
    /// Another network has the tag.
    #[error("Unable to create the network. The VLAN {tag} on physical network {physical_network} is in use.")]
    VlanInUse { physical_network: String, tag: u32 },
    /// Another network has the identifier.
    #[error("Unable to create the network. The tunnel ID {vni} is in use.")]
    TunnelInUse { vni: u32 },
    /// Another network has all of it.
    #[error("Unable to create the flat network. Physical network {physical_network} is in use.")]
    FlatInUse { physical_network: String },
    /// Every tag or identifier that projects may have is taken.
    #[error("Unable to create the network. No tenant network is available for allocation.")]
    NoSegmentLeft,
    /// Ports or floating addresses are on it.
    #[error(
        "Unable to complete operation on network {network}. There are one or more ports still in use on the network."
    )]
    NetworkInUse { network: NetworkId },
    /// Addresses of it are taken.
    #[error(
        "Unable to complete operation on subnet {subnet}: One or more ports have an IP allocation from this subnet."
    )]
    SubnetInUse { subnet: SubnetId },
    /// Floating addresses are of version 4.
    #[error("Network {network} does not contain any IPv4 subnet.")]
    NoV4Subnet { network: NetworkId },
    /// Floating addresses are of version 4.
    #[error("Invalid input for operation: Floating IPs are IPv4 addresses, and {address} is not.")]
    FloatingV6 { address: IpAddr },
    /// Others use it by now.
    #[error("Unable to reconfigure sharing settings for network {network}. Multiple tenants are using it.")]
    SharingInUse { network: NetworkId },
    /// Gateways or floating addresses are on it.
    #[error(
        "External network {network} cannot be updated to be made non-external, since it has existing gateway ports."
    )]
    ExternalInUse { network: NetworkId },
    /// It is not an outer network.
    #[error("Network {network} is not a valid external network.")]
    NotExternal { network: NetworkId },
    /// It belongs to something that gives it back by itself.
    #[error("Port {port} cannot be deleted directly via the port API: has device owner {owner}.")]
    PortOfRouter { port: PortId, owner: String },
    /// The port has a user.
    #[error("Port {port} is still in use by {device}.")]
    PortInUse { port: PortId, device: String },
    /// An interface is its router's project's.
    #[error("Bad router request: Port {port} is not of the project of router {router}.")]
    PortOfOther { port: PortId, router: RouterId },
    /// It has interfaces.
    #[error("Router {router} still has ports.")]
    RouterInUse { router: RouterId },
    /// The router is there already.
    #[error("Invalid input for operation: Router already has a port on subnet {subnet}.")]
    RouterOnSubnet { subnet: SubnetId },
    /// Two of its subnets would overlap.
    #[error(
        "Invalid input for operation: Cidr {cidr} of subnet {subnet} overlaps with cidr {other} of another subnet of router {router}."
    )]
    RouterSubnetsOverlap { router: RouterId, subnet: SubnetId, cidr: Cidr, other: Cidr },
    /// Nothing to be an interface with.
    #[error("Invalid input for operation: Subnet {subnet} for router interface must have a gateway IP.")]
    NoGatewayForInterface { subnet: SubnetId },
    /// A route's next hop is on none of the router's networks.
    #[error("Invalid format for routes: {nexthop}, the nexthop is not connected with router.")]
    NexthopElsewhere { nexthop: IpAddr },
    /// A route's next hop is the router itself.
    #[error("Invalid format for routes: {nexthop}, the nexthop is used by router.")]
    NexthopOwn { nexthop: IpAddr },
    /// It would take a route's next hop away.
    #[error(
        "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more routes."
    )]
    InterfaceOfRoute { router: RouterId, subnet: SubnetId },
    /// There is none.
    #[error("Router {router} has no interface on subnet {subnet}.")]
    NoInterfaceOnSubnet { router: RouterId, subnet: SubnetId },
    /// There is none.
    #[error("Router {router} does not have an interface with id {port}.")]
    NoInterface { router: RouterId, port: PortId },
    /// It would cut floating addresses off.
    #[error(
        "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more floating IPs."
    )]
    InterfaceInUse { router: RouterId, subnet: SubnetId },
    /// It would cut floating addresses off.
    #[error(
        "Gateway cannot be updated for router {router}, since a gateway to external network {network} is required by one or more floating IPs."
    )]
    GatewayOfFloatingIps { router: RouterId, network: NetworkId },
    /// One floating address for a fixed one.
    #[error(
        "Cannot associate floating IP {address} ({id}) with port {port} using fixed IP {fixed}, as that fixed IP already has a floating IP on external network {network}."
    )]
    FixedIpHasFloating { address: IpAddr, id: FloatingIpId, port: PortId, fixed: IpAddr, network: NetworkId },
    /// No router joins the two.
    #[error(
        "External network {network} is not reachable from subnet {subnet}.  Therefore, cannot associate Port {port} with a Floating IP."
    )]
    NotReachable { network: NetworkId, subnet: SubnetId, port: PortId },
    /// The port has no such address.
    #[error("Invalid input for operation: Port {port} does not have fixed ip {address}.")]
    NoSuchFixedIp { port: PortId, address: IpAddr },
    /// The port has nothing that a floating address of version 4 can stand for.
    #[error("Invalid input for operation: Cannot add floating IP to port {port} that has no fixed IPv4 addresses.")]
    NoFixedIp { port: PortId },
    /// More than one would do.
    #[error(
        "Invalid input for operation: Port {port} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP."
    )]
    ManyFixedIps { port: PortId },
    /// Ports or rules name it.
    #[error("Security Group {group} in use.")]
    GroupInUse { group: SecurityGroupId },
    /// Every project has one.
    #[error("Insufficient rights for removing default security group.")]
    DefaultGroup,
    /// Its name is how it is known.
    #[error("Updating default security group not allowed.")]
    DefaultGroupName,
    /// No such group, for this project.
    #[error("Security group {group} does not exist.")]
    NoSuchGroup { group: SecurityGroupId },
    /// The same rule again.
    #[error("Security group rule already exists. Rule id is {rule}.")]
    RuleExists { rule: SecurityGroupRuleId },
    /// A rule that cannot be.
    #[error("{message}")]
    BadRule { kind: &'static str, message: String },
    /// Rules and address pairs mean nothing without it.
    #[error("Port Security must be enabled in order to have {what} on a port.")]
    NeedsPortSecurity { what: &'static str },
    /// The project may not have more.
    #[error("Quota exceeded for resources: ['{}'].", .resource.as_str())]
    OverQuota { resource: NetworkResource, used: u64, limit: u64 },
}

impl NetworkProblem {
    /// What kind of answer it is.
    pub fn class(&self) -> ProblemClass {
        self.named().1
    }

    /// Neutron's name for it.
    pub fn name(&self) -> &'static str {
        self.named().0
    }

    fn named(&self) -> (&'static str, ProblemClass) {
        use ProblemClass::{BadRequest, Conflict, Exhausted, NotFound};
        match self {
            Self::Invalid { .. }
            | Self::SubnetsOverlap { .. }
            | Self::ForeignSubnet { .. }
            | Self::AddressTwice { .. } => ("InvalidInput", BadRequest),
            Self::BadPool { .. } => ("InvalidAllocationPool", BadRequest),
            Self::PoolOutside { .. } => ("OutOfBoundsAllocationPool", BadRequest),
            Self::PoolsOverlap { .. } => ("OverlappingAllocationPools", Conflict),
            Self::GatewayInPool { .. } => ("GatewayConflictWithAllocationPools", Conflict),
            Self::GatewayInUse { .. } => ("GatewayIpInUse", Conflict),
            Self::Exhausted { .. } => ("IpAddressGenerationFailure", Conflict),
            Self::AddressInUse { .. } => ("IpAddressInUse", Conflict),
            Self::AddressOutsideSubnet { .. } => ("InvalidIpForSubnet", BadRequest),
            Self::AddressOutsideNetwork { .. } => ("InvalidIpForNetwork", BadRequest),
            Self::VlanInUse { .. } => ("VlanIdInUse", Conflict),
            Self::TunnelInUse { .. } => ("TunnelIdInUse", Conflict),
            Self::FlatInUse { .. } => ("FlatNetworkInUse", Conflict),
            Self::NoSegmentLeft => ("NoNetworkAvailable", Exhausted),
            Self::MacInUse { .. } => ("MacAddressInUse", Conflict),
            Self::NetworkInUse { .. } => ("NetworkInUse", Conflict),
            Self::SubnetInUse { .. } => ("SubnetInUse", Conflict),
            Self::SharingInUse { .. } => ("InvalidSharedSetting", Conflict),
            Self::ExternalInUse { .. } => ("ExternalNetworkInUse", Conflict),
            Self::NotExternal { .. } => ("BadRequest", BadRequest),
            Self::PortOfRouter { .. } => ("ServicePortInUse", Conflict),
            Self::PortInUse { .. } => ("PortInUse", Conflict),
            Self::RouterInUse { .. } => ("RouterInUse", Conflict),
            Self::NoV4Subnet { .. } | Self::FloatingV6 { .. } | Self::PortOfOther { .. } => ("BadRequest", BadRequest),
            Self::RouterOnSubnet { .. }
            | Self::RouterSubnetsOverlap { .. }
            | Self::NoGatewayForInterface { .. }
            | Self::NoSuchFixedIp { .. }
            | Self::NoFixedIp { .. }
            | Self::ManyFixedIps { .. } => ("BadRequest", BadRequest),
            Self::NoInterfaceOnSubnet { .. } => ("RouterInterfaceNotFoundForSubnet", NotFound),
            Self::NoInterface { .. } => ("RouterInterfaceNotFound", NotFound),
            Self::NexthopElsewhere { .. } | Self::NexthopOwn { .. } => ("InvalidRoutes", BadRequest),
            Self::InterfaceOfRoute { .. } => ("RouterInterfaceInUseByRoute", Conflict),
            Self::InterfaceInUse { .. } => ("RouterInterfaceInUseByFloatingIP", Conflict),
            Self::GatewayOfFloatingIps { .. } => ("RouterExternalGatewayInUseByFloatingIp", Conflict),
            Self::FixedIpHasFloating { .. } => ("FloatingIPPortAlreadyAssociated", Conflict),
            Self::NotReachable { .. } => ("ExternalGatewayForFloatingIPNotFound", NotFound),
            Self::GroupInUse { .. } => ("SecurityGroupInUse", Conflict),
            Self::DefaultGroup => ("SecurityGroupCannotRemoveDefault", Conflict),
            Self::DefaultGroupName => ("SecurityGroupCannotUpdateDefault", Conflict),
            Self::NoSuchGroup { .. } => ("SecurityGroupNotFound", NotFound),
            Self::RuleExists { .. } => ("SecurityGroupRuleExists", Conflict),
            Self::BadRule { kind, .. } => (kind, BadRequest),
            Self::NeedsPortSecurity { what: "security groups" } => {
                ("PortSecurityAndIPRequiredForSecurityGroups", BadRequest)
            }
            Self::NeedsPortSecurity { .. } => ("AddressPairAndPortSecurityRequired", Conflict),
            Self::OverQuota { .. } => ("OverQuota", Conflict),
        }
    }
}
