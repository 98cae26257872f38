//! Leave to open consoles.

use nova_core::console::ConsoleGrant;

use crate::Kind;
use crate::rows::{Column, Record, Table, Value};

impl Record for ConsoleGrant {
    const TABLE: &'static Table = &Table {
        name: "console_auth_tokens",
        kind: Kind::ConsoleGrant,
        columns: &[Column::text("token_hash", 64), Column::uuid("instance_id"), Column::time("expires_at")],
        key: 1,
        unique: &[],
        indexes: &[&["instance_id"], &["expires_at"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![self.token_hash.as_str().into(), Value::text(self.instance_id), self.expires_at.into()]
    }
}
