//! Networks and what is on them.

use std::net::IpAddr;

use nova_core::ids::{HostName, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId};
use nova_core::network::{
    FloatingIp, IpVersion, Network, NetworkResource, Port, Router, SecurityGroup, SecurityGroupRule, Subnet,
    address_number,
};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

/// An address as columns hold it: texts of one length, in the order of the addresses.
pub(crate) fn address_key(address: IpAddr) -> Value {
    let number = address_number(address);
    Value::Text(match IpVersion::of(address) {
        IpVersion::V4 => format!("{number:08x}"),
        IpVersion::V6 => format!("{number:032x}"),
    })
}

impl Record for Network {
    const TABLE: &'static Table = &Table {
        name: "networks",
        kind: Kind::Network,
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::flag("shared"),
            Column::flag("external"),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            self.shared.into(),
            self.external.into(),
            self.admin_state_up.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// `shared` is set with the network's.
impl Record for Subnet {
    const TABLE: &'static Table = &Table {
        name: "subnets",
        kind: Kind::Subnet,
        columns: &[
            Column::uuid("id"),
            Column::uuid("network_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("cidr", 64),
            Column::int("ip_version"),
            Column::text("gateway_ip", 64),
            Column::flag("enable_dhcp"),
            Column::flag("shared"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["network_id"], &["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.network_id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            Value::text(self.cidr),
            i64::from(self.cidr.version().number()).into(),
            Value::optional(self.gateway_ip),
            self.enable_dhcp.into(),
            self.shared.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
        if let Some(shared) = row.values.get(Self::TABLE.position("shared")).and_then(Value::as_int) {
            self.shared = shared != 0;
        }
    }
}

/// Addresses of a subnet that nobody has, from `first` to `last`. A subnet begins with up to some hundred such ranges, so
/// that callers who search from different places do not wait for each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FreeRange {
    /// The subnet.
    pub(crate) subnet_id: SubnetId,
    /// The last address. Addresses are taken from the front: the key stays.
    pub(crate) last: IpAddr,
    /// The first address. In no index: databases change such a column in place, and ranges change often.
    pub(crate) first: IpAddr,
}

impl Record for FreeRange {
    const TABLE: &'static Table = &Table {
        name: "free_ranges",
        kind: Kind::Address,
        columns: &[Column::uuid("subnet_id"), Column::text("last_address", 32), Column::text("first_address", 32)],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.subnet_id), address_key(self.last), address_key(self.first)]
    }
}

/// An address that somebody has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Address {
    /// The subnet.
    pub(crate) subnet_id: SubnetId,
    /// The address.
    pub(crate) address: IpAddr,
    /// The port or floating address that has it.
    pub(crate) owner: String,
    /// Ranges of the subnet do not grow over multiples of two to this power.
    pub(crate) block_bits: u8,
}

impl Record for Address {
    const TABLE: &'static Table = &Table {
        name: "addresses",
        kind: Kind::Address,
        columns: &[Column::uuid("subnet_id"), Column::text("address", 32), Column::uuid("owner_id")],
        key: 2,
        unique: &[],
        indexes: &[&["owner_id"], &["address"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.subnet_id), address_key(self.address), self.owner.clone().into()]
    }
}

impl Record for Port {
    const TABLE: &'static Table = &Table {
        name: "ports",
        kind: Kind::Port,
        columns: &[
            Column::uuid("id"),
            Column::uuid("network_id"),
            Column::text("mac_address", 17),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("device_id", 255),
            Column::text("device_owner", 255),
            Column::text("host", 255),
            Column::text("status", 16),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["network_id", "mac_address"]],
        indexes: &[
            &["network_id", "device_owner"],
            &["device_id"],
            &["host"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
        ],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.network_id),
            Value::text(self.mac_address),
            Value::text(&self.project_id),
            self.name.clone().into(),
            self.device_id.clone().into(),
            self.device_owner.clone().into(),
            Value::optional(self.host.as_ref()),
            self.status.as_str().into(),
            self.admin_state_up.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// A security group of a port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PortGroup {
    /// The port.
    pub(crate) port_id: PortId,
    /// The group.
    pub(crate) group_id: SecurityGroupId,
}

impl Record for PortGroup {
    const TABLE: &'static Table = &Table {
        name: "port_security_groups",
        kind: Kind::Port,
        columns: &[Column::uuid("port_id"), Column::uuid("group_id")],
        key: 2,
        unique: &[],
        indexes: &[&["group_id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.port_id), Value::text(self.group_id)]
    }
}

/// A host that a port's server comes to while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PortArrival {
    /// The port.
    pub(crate) port_id: PortId,
    /// The host.
    pub(crate) host: HostName,
}

impl Record for PortArrival {
    const TABLE: &'static Table = &Table {
        name: "port_arrivals",
        kind: Kind::Port,
        columns: &[Column::uuid("port_id"), Column::text("host", 255)],
        key: 1,
        unique: &[],
        indexes: &[&["host"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.port_id), Value::text(&self.host)]
    }
}

/// What no two floating addresses share: the fixed address; or its own id, while it stands for none.
pub(crate) fn fixed_key(floating: &FloatingIp) -> String {
    match (floating.port_id, floating.fixed_ip_address) {
        (Some(port), Some(fixed)) => format!("{port}/{fixed}"),
        _ => floating.id.to_string(),
    }
}

impl Record for FloatingIp {
    const TABLE: &'static Table = &Table {
        name: "floating_ips",
        kind: Kind::FloatingIp,
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::uuid("floating_network_id"),
            Column::text("floating_ip_address", 64),
            Column::text("fixed_ip_address", 64),
            Column::uuid("port_id"),
            Column::uuid("router_id"),
            Column::text("status", 16),
            Column::text("fixed_key", 128),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["fixed_key"]],
        indexes: &[
            &["port_id"],
            &["router_id"],
            &["floating_network_id"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
        ],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(&self.project_id),
            Value::text(self.floating_network_id),
            Value::text(self.floating_ip_address),
            Value::optional(self.fixed_ip_address),
            Value::optional(self.port_id),
            Value::optional(self.router_id),
            self.status().into(),
            fixed_key(self).into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for Router {
    const TABLE: &'static Table = &Table {
        name: "routers",
        kind: Kind::Router,
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            self.admin_state_up.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// Kept without its rules: those are rows of their own. Its generation grows with each of them.
impl Record for SecurityGroup {
    const TABLE: &'static Table = &Table {
        name: "security_groups",
        kind: Kind::SecurityGroup,
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            // The project of a default group, the id of any other.
            Column::text("default_of", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["default_of"]],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        let default_of = if self.is_default { Value::text(&self.project_id) } else { Value::text(self.id) };
        vec![
            Value::text(self.id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            default_of,
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for SecurityGroupRule {
    const TABLE: &'static Table = &Table {
        name: "security_group_rules",
        kind: Kind::SecurityGroupRule,
        columns: &[
            Column::uuid("id"),
            Column::uuid("security_group_id"),
            Column::text("project_id", 255),
            Column::text("direction", 8),
            Column::text("ethertype", 8),
            Column::text("protocol", 64),
            Column::uuid("remote_group_id"),
            Column::text("remote_ip_prefix", 64),
            Column::int("port_range_min"),
            Column::int("port_range_max"),
            Column::text("fingerprint", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["security_group_id", "fingerprint"]],
        indexes: &[&["remote_group_id"], &["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        let port = |port: Option<u16>| Value::Int(port.map_or(i64::MIN, i64::from));
        vec![
            Value::text(self.id),
            Value::text(self.security_group_id),
            Value::text(&self.project_id),
            self.direction.as_str().into(),
            self.ethertype.as_str().into(),
            self.protocol.clone().unwrap_or_default().into(),
            Value::optional(self.remote_group_id),
            Value::optional(self.remote_ip_prefix),
            port(self.port_range_min),
            port(self.port_range_max),
            self.fingerprint().into(),
            self.created_at.into(),
        ]
    }
}

/// What a project has of something. Every port of a project is made and removed through this row: who must see all of a
/// project's ports locks it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkUsage {
    /// The project.
    pub(crate) project_id: ProjectId,
    /// Of what.
    pub(crate) resource: NetworkResource,
    /// So many.
    pub(crate) used: u64,
    /// The project's own limit, −1 for none.
    #[serde(default)]
    pub(crate) limit: Option<i64>,
}

impl Record for NetworkUsage {
    const TABLE: &'static Table = &Table {
        name: "network_usages",
        kind: Kind::NetworkUsage,
        columns: &[Column::text("project_id", 255), Column::text("resource", 32)],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.project_id), self.resource.as_str().into()]
    }
}

/// Ports of a network, in conditions.
pub(crate) fn of_network(network: NetworkId) -> crate::rows::Condition {
    crate::rows::Condition::Is("network_id", Value::text(network))
}
