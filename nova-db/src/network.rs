//! Networks, subnets, ports, routers, floating addresses, security groups.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::ids::{
    FloatingIpId, HostName, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
use nova_core::network::{
    FloatingIp, Network, NetworkResource, Port, PortStatus, Router, SecurityGroup, SecurityGroupRule, Subnet,
};

use crate::{Direction, NetworkHostStore, SegmentRange, StoreError};

/// What lists are asked and sorted by.
pub(crate) trait Field: Copy + Send + Sync + 'static {
    /// The column that holds it.
    fn column(self) -> &'static str;
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $column:literal $(| $alias:literal)*),+ $(,)? })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the attribute that it names")]
        pub enum $name { $($variant),+ }

        impl $name {
            /// The field that clients know under that name.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($column $(| $alias)* => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl Field for $name {
            fn column(self) -> &'static str {
                match self { $(Self::$variant => $column),+ }
            }
        }
    )+ };
}

pub(crate) use fields;

fields! {
    /// Of a network.
    NetworkField {
        Id = "id", ProjectId = "project_id" | "tenant_id", Name = "name", Shared = "shared",
        External = "external" | "router:external", AdminStateUp = "admin_state_up", CreatedAt = "created_at",
    }
    /// Of a subnet.
    SubnetField {
        Id = "id", NetworkId = "network_id", ProjectId = "project_id" | "tenant_id", Name = "name", Cidr = "cidr",
        IpVersion = "ip_version", GatewayIp = "gateway_ip", EnableDhcp = "enable_dhcp", Shared = "shared",
        CreatedAt = "created_at",
    }
    /// Of a port.
    PortField {
        Id = "id", NetworkId = "network_id", MacAddress = "mac_address", ProjectId = "project_id" | "tenant_id",
        Name = "name", DeviceId = "device_id", DeviceOwner = "device_owner", Host = "host" | "binding:host_id",
        Status = "status", AdminStateUp = "admin_state_up", CreatedAt = "created_at",
    }
    /// Of a floating address.
    FloatingIpField {
        Id = "id", ProjectId = "project_id" | "tenant_id", FloatingNetworkId = "floating_network_id",
        FloatingIpAddress = "floating_ip_address", FixedIpAddress = "fixed_ip_address", PortId = "port_id",
        RouterId = "router_id", Status = "status", CreatedAt = "created_at",
    }
    /// Of a router.
    RouterField {
        Id = "id", ProjectId = "project_id" | "tenant_id", Name = "name", AdminStateUp = "admin_state_up",
        CreatedAt = "created_at",
    }
    /// Of a security group.
    SecurityGroupField {
        Id = "id", ProjectId = "project_id" | "tenant_id", Name = "name", CreatedAt = "created_at",
    }
    /// Of a rule.
    RuleField {
        Id = "id", SecurityGroupId = "security_group_id", ProjectId = "project_id" | "tenant_id",
        Direction = "direction", EtherType = "ethertype", Protocol = "protocol",
        RemoteGroupId = "remote_group_id", RemoteIpPrefix = "remote_ip_prefix",
        PortRangeMin = "port_range_min", PortRangeMax = "port_range_max", CreatedAt = "created_at",
    }
}

/// Which of a kind, in which order, how many.
#[derive(Debug, Clone)]
pub struct ListQuery<F> {
    /// What this project may see: its own, and what is shared with everybody. `None`: all there is.
    pub visible_to: Option<ProjectId>,
    /// Each field has one of its values. Flags are `true` and `false`.
    pub filters: Vec<(F, Vec<String>)>,
    /// First the most important; the id decides the rest. Without any: oldest first.
    pub sort: Vec<(F, Direction)>,
    /// At most that many.
    pub limit: Option<usize>,
    /// Only what comes after the one of this id.
    pub after: Option<String>,
}

impl<F> Default for ListQuery<F> {
    fn default() -> Self {
        Self { visible_to: None, filters: Vec::new(), sort: Vec::new(), limit: None, after: None }
    }
}

impl<F> ListQuery<F> {
    /// All whose field has that value.
    pub fn of(field: F, value: impl std::fmt::Display) -> Self {
        Self { filters: vec![(field, vec![value.to_string()])], ..Self::default() }
    }
}

/// Ports, also by their addresses and groups.
#[derive(Debug, Clone, Default)]
pub struct PortQuery {
    /// What every list can be asked.
    pub list: ListQuery<PortField>,
    /// One of the port's addresses is one of these.
    pub ip_addresses: Vec<IpAddr>,
    /// One of the port's addresses is of one of these.
    pub subnets: Vec<SubnetId>,
    /// The port has one of these.
    pub security_groups: Vec<SecurityGroupId>,
}

/// An address that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedIpRequest {
    /// Of this subnet; without it, of the one that the address is in.
    pub subnet_id: Option<SubnetId>,
    /// This one; without it, any that is free.
    pub ip_address: Option<IpAddr>,
}

/// A port that is to be.
#[derive(Debug, Clone)]
pub struct NewPort {
    /// The port; its addresses are the store's to fill in.
    pub port: Port,
    /// Its addresses. `None`: one of each version that the network has.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// Who asks; it must be theirs or shared. `None`: somebody who may use every network.
    pub asked_by: Option<ProjectId>,
    /// Where to begin the search for free addresses. Drawn at random, callers stay out of each other's way.
    pub draw: u64,
    /// How many ports a project has that has no limit of its own.
    pub limit: Option<u64>,
}

/// A port that is to be otherwise.
#[derive(Debug, Clone)]
pub struct PortChange {
    /// What it is to be, at the generation that was read; network and addresses stay what they are.
    pub port: Port,
    /// The addresses that it is to have.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// Where to begin the search for free addresses.
    pub draw: u64,
}

/// What a floating address is to stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatingTarget {
    /// The port.
    pub port_id: PortId,
    /// Which of its addresses, where it has several.
    pub fixed_ip_address: Option<IpAddr>,
}

/// A floating address that is to be.
#[derive(Debug, Clone)]
pub struct NewFloatingIp {
    /// Its id.
    pub id: FloatingIpId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    pub description: String,
    /// The outer network.
    pub network_id: NetworkId,
    /// Which address.
    pub address: FixedIpRequest,
    /// What it is to stand for.
    pub target: Option<FloatingTarget>,
    /// Where to begin the search for a free address.
    pub draw: u64,
    /// How many a project has that has no limit of its own.
    pub limit: Option<u64>,
    /// When.
    pub now: Timestamp,
}

/// A router's way out that is to be.
#[derive(Debug, Clone)]
pub enum GatewayChange {
    /// As it is.
    Keep,
    /// None.
    Clear,
    /// By this port, if it is not there already.
    Set {
        /// Guests reach the outside under the router's address.
        enable_snat: bool,
        /// The port, on the outer network.
        port: Box<NewPort>,
    },
}

/// By what a router joins a subnet.
#[derive(Debug, Clone)]
pub enum NewInterface {
    /// A port of its own, at the subnet's gateway.
    Subnet {
        /// The subnet.
        subnet_id: SubnetId,
        /// The port.
        port: Box<NewPort>,
    },
    /// A port that is there.
    Port(PortId),
}

/// Which of a router's interfaces; where both are named, both must fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceRef {
    /// The one on that subnet.
    pub subnet_id: Option<SubnetId>,
    /// That port.
    pub port_id: Option<PortId>,
}

/// What a project has of something, and may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkAccount {
    /// So many it has.
    pub used: u64,
    /// Its own limit; `Some(None)` is without limit, `None` that of everybody.
    pub limit: Option<Option<u64>>,
}

/// The books of the network. Every address has one owner at most, and is free or taken, never both: a subnet's free ranges
/// and its taken addresses are rows, and each operation moves addresses from one to the other in its one transaction. What
/// fails has changed nothing; [`StoreError::Network`] says why.
#[async_trait]
pub trait NetworkStore: NetworkHostStore + Send + Sync {
    /// A new network. The tag, identifier or physical network that it says is its alone.
    async fn create_network(&self, network: Network, limit: Option<u64>) -> Result<Network, StoreError>;
    /// A new network with a tag or identifier out of these ranges: the first that is free from a drawn place on.
    async fn create_network_in(
        &self,
        network: Network,
        ranges: Vec<SegmentRange>,
        draw: u64,
        limit: Option<u64>,
    ) -> Result<Network, StoreError>;
    /// One network.
    async fn get_network(&self, id: NetworkId) -> Result<Network, StoreError>;
    /// Networks.
    async fn list_networks(&self, query: &ListQuery<NetworkField>) -> Result<Vec<Network>, StoreError>;
    /// Writes a network, if the generation still stands. What carries it stays; so does sharing, and being external, while
    /// others rely on that.
    async fn update_network(&self, network: Network) -> Result<Network, StoreError>;
    /// Removes a network with its subnets; not while ports or floating addresses are on it.
    async fn delete_network(&self, id: NetworkId) -> Result<Network, StoreError>;

    /// A new subnet; it overlaps with none of its network. `asked_by`: who must own the network.
    async fn create_subnet(
        &self,
        subnet: Subnet,
        asked_by: Option<ProjectId>,
        limit: Option<u64>,
    ) -> Result<Subnet, StoreError>;
    /// One subnet.
    async fn get_subnet(&self, id: SubnetId) -> Result<Subnet, StoreError>;
    /// Subnets.
    async fn list_subnets(&self, query: &ListQuery<SubnetField>) -> Result<Vec<Subnet>, StoreError>;
    /// Writes a subnet, if the generation still stands. Network and range stay; so does a gateway that a router has.
    async fn update_subnet(&self, subnet: Subnet) -> Result<Subnet, StoreError>;
    /// Removes a subnet none of whose addresses is taken.
    async fn delete_subnet(&self, id: SubnetId) -> Result<Subnet, StoreError>;

    /// New ports with their addresses, all or none.
    async fn create_ports(&self, ports: Vec<NewPort>) -> Result<Vec<Port>, StoreError>;
    /// One port.
    async fn get_port(&self, id: PortId) -> Result<Port, StoreError>;
    /// Ports.
    async fn list_ports(&self, query: &PortQuery) -> Result<Vec<Port>, StoreError>;
    /// Writes a port, if the generation still stands; takes and gives back addresses.
    async fn update_port(&self, change: PortChange) -> Result<Port, StoreError>;
    /// Removes a port: its addresses are free, floating ones stand for nothing. Of two that do it, one is told
    /// [`StoreError::NotFound`]. Ports of routers go with what the router does.
    async fn delete_port(&self, id: PortId) -> Result<Port, StoreError>;
    /// Writes how ports of a host work, in one transaction; those that are gone or elsewhere are passed over. Returns those
    /// that it changed.
    async fn set_port_statuses(
        &self,
        host: &HostName,
        statuses: &BTreeMap<PortId, PortStatus>,
    ) -> Result<Vec<Port>, StoreError>;

    /// A new floating address.
    async fn create_floating_ip(&self, new: NewFloatingIp) -> Result<FloatingIp, StoreError>;
    /// One floating address.
    async fn get_floating_ip(&self, id: FloatingIpId) -> Result<FloatingIp, StoreError>;
    /// Floating addresses.
    async fn list_floating_ips(&self, query: &ListQuery<FloatingIpField>) -> Result<Vec<FloatingIp>, StoreError>;
    /// Makes it stand for something else or for nothing, if the generation still stands. A fixed address has one at most.
    async fn associate_floating_ip(
        &self,
        floating: FloatingIp,
        target: Option<FloatingTarget>,
    ) -> Result<FloatingIp, StoreError>;
    /// Gives a floating address back.
    async fn delete_floating_ip(&self, id: FloatingIpId) -> Result<FloatingIp, StoreError>;

    /// A new router.
    async fn create_router(
        &self,
        router: Router,
        gateway: GatewayChange,
        limit: Option<u64>,
    ) -> Result<Router, StoreError>;
    /// One router.
    async fn get_router(&self, id: RouterId) -> Result<Router, StoreError>;
    /// Routers.
    async fn list_routers(&self, query: &ListQuery<RouterField>) -> Result<Vec<Router>, StoreError>;
    /// Writes a router, if the generation still stands, and its way out; not while floating addresses need that.
    async fn update_router(&self, router: Router, gateway: GatewayChange) -> Result<Router, StoreError>;
    /// Removes a router without interfaces, with its way out.
    async fn delete_router(&self, id: RouterId) -> Result<Router, StoreError>;
    /// Joins a subnet, once; a router's subnets do not overlap. Returns the interface.
    async fn add_router_interface(&self, id: RouterId, interface: NewInterface) -> Result<Port, StoreError>;
    /// Leaves a subnet; not while floating addresses need that. Returns the interface as it was.
    async fn remove_router_interface(&self, id: RouterId, which: InterfaceRef) -> Result<Port, StoreError>;

    /// The default group of the given one's project: the one that is there, or the given one with its rules.
    async fn default_security_group(&self, group: SecurityGroup) -> Result<SecurityGroup, StoreError>;
    /// A new group with its rules.
    async fn create_security_group(
        &self,
        group: SecurityGroup,
        limit: Option<u64>,
        rule_limit: Option<u64>,
    ) -> Result<SecurityGroup, StoreError>;
    /// One group with its rules.
    async fn get_security_group(&self, id: SecurityGroupId) -> Result<SecurityGroup, StoreError>;
    /// Groups with their rules.
    async fn list_security_groups(
        &self,
        query: &ListQuery<SecurityGroupField>,
    ) -> Result<Vec<SecurityGroup>, StoreError>;
    /// Groups without their rules, for those who want to know names: a group may have thousands.
    async fn list_bare_security_groups(
        &self,
        query: &ListQuery<SecurityGroupField>,
    ) -> Result<Vec<SecurityGroup>, StoreError>;
    /// Writes a group, if the generation still stands; its rules stay.
    async fn update_security_group(&self, group: SecurityGroup) -> Result<SecurityGroup, StoreError>;
    /// Removes a group that no port has, with its rules and those that name it. A project's default group only
    /// `with_default`.
    async fn delete_security_group(&self, id: SecurityGroupId, with_default: bool)
    -> Result<SecurityGroup, StoreError>;
    /// New rules of one group, all or none; no rule twice.
    async fn create_security_group_rules(
        &self,
        rules: Vec<SecurityGroupRule>,
        limit: Option<u64>,
    ) -> Result<Vec<SecurityGroupRule>, StoreError>;
    /// One rule.
    async fn get_security_group_rule(&self, id: SecurityGroupRuleId) -> Result<SecurityGroupRule, StoreError>;
    /// Rules.
    async fn list_security_group_rules(
        &self,
        query: &ListQuery<RuleField>,
    ) -> Result<Vec<SecurityGroupRule>, StoreError>;
    /// Removes a rule.
    async fn delete_security_group_rule(&self, id: SecurityGroupRuleId) -> Result<(), StoreError>;

    /// What a project has, and its own limits.
    async fn network_accounts(
        &self,
        project: &ProjectId,
    ) -> Result<BTreeMap<NetworkResource, NetworkAccount>, StoreError>;
    /// Sets limits of a project, or with `None` takes them away; others stay.
    async fn set_network_limits(
        &self,
        project: &ProjectId,
        limits: BTreeMap<NetworkResource, Option<Option<u64>>>,
    ) -> Result<(), StoreError>;
    /// Addresses of a subnet that are free, and those that are taken: together, all that there are.
    async fn count_addresses(&self, subnet: SubnetId) -> Result<(u128, u64), StoreError>;
    /// Repair: writes the addresses of a subnet as its ports and floating addresses have them. What nobody has is free, what
    /// somebody has is taken; of an address that two have, one of them is written. One transaction. Returns what was
    /// changed, one line each.
    async fn mend_addresses(&self, subnet: SubnetId) -> Result<Vec<String>, StoreError>;
}
