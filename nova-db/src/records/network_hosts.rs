//! What carries networks, and the hosts' network agents.

use nova_core::ids::NetworkId;
use nova_core::network::{Network, NetworkAgent, NetworkState};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

/// A tag, an identifier or a whole wire that a network has: the key makes it the only one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkSegment {
    /// `vlan`, `vxlan`, `flat`.
    pub(crate) network_type: String,
    /// Which wire; empty for tunnels.
    pub(crate) physical_network: String,
    /// Tag or identifier; 0 for a whole wire.
    pub(crate) segmentation_id: u32,
    /// Whose it is.
    pub(crate) network_id: NetworkId,
}

impl NetworkSegment {
    /// What a network has, if it has something that no other may have.
    pub(crate) fn of(network: &Network) -> Option<Self> {
        let wire = || network.physical_network.clone();
        let (network_type, physical_network, segmentation_id) = match network.network_type.as_deref()? {
            "vlan" => ("vlan", wire()?, network.segmentation_id?),
            "vxlan" => ("vxlan", String::new(), network.segmentation_id?),
            "flat" | "flat_dhcp" => ("flat", wire()?, 0),
            _ => return None,
        };
        let network_type = network_type.to_owned();
        Some(Self { network_type, physical_network, segmentation_id, network_id: network.id })
    }

    pub(crate) fn key(&self) -> [Value; 3] {
        let number = i64::from(self.segmentation_id).into();
        [self.network_type.clone().into(), self.physical_network.clone().into(), number]
    }
}

impl Record for NetworkSegment {
    const TABLE: &'static Table = &Table {
        name: "network_segments",
        kind: Kind::Segment,
        columns: &[
            Column::text("network_type", 16),
            Column::text("physical_network", 64),
            Column::int("segmentation_id"),
            Column::uuid("network_id"),
        ],
        key: 3,
        unique: &[],
        indexes: &[&["network_id"]],
    };

    fn values(&self) -> Vec<Value> {
        let mut values = self.key().to_vec();
        values.push(Value::text(self.network_id));
        values
    }
}

/// When it was heard of is set without the rest.
impl Record for NetworkAgent {
    const TABLE: &'static Table = &Table {
        name: "network_agents",
        kind: Kind::NetworkAgent,
        columns: &[Column::text("host", 255), Column::uuid("id"), Column::time("heard_at")],
        key: 1,
        unique: &[&["id"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.host), Value::text(self.id), self.heard_at.into()]
    }

    fn restore(&mut self, row: &Row) {
        let heard = row.values.get(Self::TABLE.position("heard_at")).and_then(Value::as_int);
        if let Some(heard) = heard.and_then(|heard| jiff::Timestamp::from_microsecond(heard).ok()) {
            self.heard_at = heard;
        }
    }
}

/// Beside the agent: large, and read only where somebody asks how far a host is.
impl Record for NetworkState {
    const TABLE: &'static Table = &Table {
        name: "network_states",
        kind: Kind::NetworkAgent,
        columns: &[Column::text("host", 255)],
        key: 1,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.host)]
    }
}

/// How often the books were changed, in parts: who changes them raises one, so that few wait for each other. The sum of the
/// generations tells one state of the books from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BooksVersion {
    /// Which part.
    pub(crate) part: u8,
}

impl Record for BooksVersion {
    const TABLE: &'static Table = &Table {
        name: "network_versions",
        kind: Kind::Network,
        columns: &[Column::int("part")],
        key: 1,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![i64::from(self.part).into()]
    }
}
