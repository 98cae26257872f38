//! Aggregates as administrators see them.

use nova_core::aggregate::Aggregate;
use nova_core::clock::api_time_micros;
use serde_json::{Value, json};

use crate::api::Microversion;

/// A whole aggregate.
pub fn full(version: Microversion, aggregate: &Aggregate) -> Value {
    let mut view = created(version, aggregate);
    view["hosts"] = json!(aggregate.hosts);
    view["metadata"] = json!(aggregate.metadata);
    view
}

/// The answer to `POST`, which has neither hosts nor metadata.
pub fn created(version: Microversion, aggregate: &Aggregate) -> Value {
    let mut view = json!({
        "id": aggregate.number,
        "name": aggregate.name,
        "availability_zone": aggregate.availability_zone(),
        "created_at": api_time_micros(aggregate.created_at),
        "updated_at": aggregate.updated_at.map(api_time_micros),
        "deleted": false,
        "deleted_at": null,
    });
    if version.at_least(41) {
        view["uuid"] = json!(aggregate.id);
    }
    view
}
