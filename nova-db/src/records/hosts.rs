//! Services, compute nodes, flavors, key pairs.

use jiff::Timestamp;
use nova_core::flavor::Flavor;
use nova_core::host::{ComputeNode, Service};
use nova_core::ids::ZoneName;
use nova_core::keypair::Keypair;

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

/// What a sign of life brings is kept in columns: it is written often, and never in the way of an operator's change.
impl Record for Service {
    const TABLE: &'static Table = &Table {
        name: "services",
        kind: Kind::Service,
        columns: &[
            Column::uuid("id"),
            Column::text("binary_name", 255),
            Column::text("host", 255),
            Column::text("zone", 255),
            Column::time("last_seen_up"),
            Column::int("version"),
        ],
        key: 1,
        unique: &[&["binary_name", "host"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            self.binary.clone().into(),
            Value::text(&self.host),
            Value::text(&self.zone),
            self.last_seen_up.into(),
            i64::from(self.version).into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
        let value = |column| row.values.get(Self::TABLE.position(column));
        if let Some(zone) = value("zone").and_then(Value::as_text) {
            self.zone = ZoneName::from(zone);
        }
        if let Some(version) = value("version").and_then(Value::as_int).and_then(|v| u32::try_from(v).ok()) {
            self.version = version;
        }
        let seen = value("last_seen_up").and_then(Value::as_int);
        if let Some(seen) = seen.and_then(|micros| Timestamp::from_microsecond(micros).ok()) {
            self.last_seen_up = seen;
            self.updated_at = self.updated_at.max(seen);
        }
    }
}

impl Record for ComputeNode {
    const TABLE: &'static Table = &Table {
        name: "compute_nodes",
        kind: Kind::ComputeNode,
        columns: &[Column::uuid("id"), Column::text("host", 255), Column::text("hypervisor_hostname", 255)],
        key: 1,
        unique: &[&["host", "hypervisor_hostname"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.id), Value::text(&self.host), self.hypervisor_hostname.clone().into()]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for Flavor {
    const TABLE: &'static Table = &Table {
        name: "flavors",
        kind: Kind::Flavor,
        columns: &[Column::text("id", 255), Column::text("name", 255)],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.id), self.name.clone().into()]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for Keypair {
    const TABLE: &'static Table = &Table {
        name: "keypairs",
        kind: Kind::Keypair,
        columns: &[Column::text("user_id", 255), Column::text("name", 255)],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.user_id), self.name.clone().into()]
    }
}
