//! Moves of servers.

use nova_core::migration::Migration;

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

impl Record for Migration {
    const TABLE: &'static Table = &Table {
        name: "migrations",
        kind: Kind::Migration,
        columns: &[
            Column::uuid("uuid"),
            Column::int("id"),
            Column::uuid("instance_id"),
            Column::text("migration_type", 32),
            Column::text("status", 32),
            Column::text("source_compute", 255),
            Column::text("dest_compute", 255),
            Column::text("project_id", 255),
            Column::text("user_id", 255),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[&["id"]],
        indexes: &[
            &["instance_id", "id"],
            &["source_compute", "status"],
            &["dest_compute", "status"],
            &["status", "id"],
        ],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.uuid),
            self.id.into(),
            Value::text(self.instance_id),
            self.migration_type.as_str().into(),
            self.status.as_str().into(),
            Value::text(&self.source_compute),
            Value::optional(self.dest_compute.as_ref()),
            Value::text(&self.project_id),
            Value::text(&self.user_id),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}
