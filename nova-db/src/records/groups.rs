//! Aggregates with their hosts, server groups with their members.

use nova_core::aggregate::Aggregate;
use nova_core::ids::{HostName, InstanceId, ServerGroupId, UserId};
use nova_core::server_group::ServerGroup;
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Table, Value};

/// Kept without its hosts: those are rows of their own.
impl Record for Aggregate {
    const TABLE: &'static Table = &Table {
        name: "aggregates",
        kind: Kind::Aggregate,
        columns: &[Column::int("number"), Column::text("name", 255)],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![self.number.into(), self.name.clone().into()]
    }
}

/// A host in an aggregate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AggregateHost {
    /// Number of the aggregate.
    pub(crate) aggregate: i64,
    /// The host.
    pub(crate) host: HostName,
}

impl Record for AggregateHost {
    const TABLE: &'static Table = &Table {
        name: "aggregate_hosts",
        kind: Kind::Aggregate,
        columns: &[Column::int("aggregate_number"), Column::text("host", 255)],
        key: 2,
        unique: &[],
        indexes: &[&["host", "aggregate_number"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![self.aggregate.into(), Value::text(&self.host)]
    }
}

/// Kept without its members: those are rows of their own. Its generation grows whenever a member joins or is booked
/// under its rule, so that of two who do so at once one tries again and sees the other.
impl Record for ServerGroup {
    const TABLE: &'static Table = &Table {
        name: "server_groups",
        kind: Kind::ServerGroup,
        columns: &[Column::uuid("id"), Column::text("project_id", 255), Column::int("number")],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "number"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.id), Value::text(&self.project_id), self.number.into()]
    }
}

/// A server in a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupMember {
    /// The group.
    pub(crate) group_id: ServerGroupId,
    /// The server.
    pub(crate) instance_id: InstanceId,
    /// Its user: the limit of members counts per user.
    pub(crate) user_id: UserId,
    /// The server's number: members are listed in its order.
    pub(crate) number: i64,
}

impl Record for GroupMember {
    const TABLE: &'static Table = &Table {
        name: "server_group_members",
        kind: Kind::ServerGroup,
        columns: &[Column::uuid("group_id"), Column::uuid("instance_id")],
        key: 2,
        unique: &[],
        indexes: &[&["instance_id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.group_id), Value::text(self.instance_id)]
    }
}
