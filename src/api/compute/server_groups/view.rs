//! Server groups as their owners see them.

use nova_core::server_group::ServerGroup;
use serde_json::{Value, json};

use crate::api::Microversion;

/// A whole group.
pub fn full(version: Microversion, group: &ServerGroup) -> Value {
    let mut view = json!({"id": group.id, "name": group.name, "members": group.members});
    if version.at_least(13) {
        view["project_id"] = json!(group.project_id);
        view["user_id"] = json!(group.user_id);
    }
    if version.at_least(64) {
        view["policy"] = json!(group.policy);
        view["rules"] = group.max_server_per_host.map_or_else(|| json!({}), |max| json!({"max_server_per_host": max}));
    } else {
        view["policies"] = json!([group.policy]);
        view["metadata"] = json!({});
    }
    view
}
