//! Images.

use nova_core::image::Image;

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

impl Record for Image {
    const TABLE: &'static Table = &Table {
        name: "images",
        kind: Kind::Image,
        columns: &[Column::uuid("id"), Column::time("created_at")],
        key: 1,
        unique: &[],
        indexes: &[&["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.id), self.created_at.into()]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}
