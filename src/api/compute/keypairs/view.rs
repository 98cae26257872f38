//! Key pairs as clients see them (nova/api/openstack/compute/views/keypairs.py).

use nova_core::clock::api_time_micros;
use nova_core::keypair::Keypair;
use serde_json::{Map, Value, json};

use crate::api::Microversion;

/// The form of lists.
pub fn brief(version: Microversion, keypair: &Keypair) -> Map<String, Value> {
    let mut view = Map::new();
    view.insert("name".into(), json!(keypair.name));
    view.insert("public_key".into(), json!(keypair.public_key));
    view.insert("fingerprint".into(), json!(keypair.fingerprint));
    if version.at_least(2) {
        view.insert("type".into(), json!(keypair.kind));
    }
    view
}

/// What create answers; the private half is shown this once.
pub fn created(version: Microversion, keypair: &Keypair, private_key: Option<&str>) -> Map<String, Value> {
    let mut view = brief(version, keypair);
    view.insert("user_id".into(), json!(keypair.user_id));
    if let Some(private_key) = private_key {
        view.insert("private_key".into(), json!(private_key));
    }
    view
}

/// The whole key pair. Nova's columns of soft deletion have been constants for years.
pub fn full(version: Microversion, keypair: &Keypair) -> Map<String, Value> {
    let mut view = brief(version, keypair);
    view.insert("id".into(), json!(keypair.id));
    view.insert("user_id".into(), json!(keypair.user_id));
    view.insert("created_at".into(), json!(api_time_micros(keypair.created_at)));
    view.insert("updated_at".into(), Value::Null);
    view.insert("deleted".into(), json!(false));
    view.insert("deleted_at".into(), Value::Null);
    view
}
