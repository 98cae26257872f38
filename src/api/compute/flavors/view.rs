//! Flavors as clients see them (nova/api/openstack/compute/views/flavors.py).

use nova_core::flavor::Flavor;
use serde_json::{Map, Value, json};

use crate::api::Microversion;
use crate::api::compute::links::links;

/// The short form of lists.
pub fn brief(version: Microversion, base_url: &str, flavor: &Flavor) -> Value {
    let mut view = Map::new();
    view.insert("id".into(), json!(flavor.id));
    view.insert("name".into(), json!(flavor.name));
    view.insert("links".into(), links(base_url, "flavors", flavor.id.as_str()));
    if version.at_least(55) {
        view.insert("description".into(), json!(flavor.description));
    }
    Value::Object(view)
}

/// The whole flavor. `extra_specs` is whether the caller may see them; before 2.61 nobody does here.
pub fn full(version: Microversion, base_url: &str, flavor: &Flavor, extra_specs: bool) -> Value {
    let Value::Object(mut view) = brief(version, base_url, flavor) else { return Value::Null };
    view.insert("ram".into(), json!(flavor.memory_mb));
    view.insert("disk".into(), json!(flavor.root_gb));
    view.insert("vcpus".into(), json!(flavor.vcpus));
    let empty = flavor.swap_mb == 0 && version.before(75);
    view.insert("swap".into(), if empty { json!("") } else { json!(flavor.swap_mb) });
    view.insert("OS-FLV-EXT-DATA:ephemeral".into(), json!(flavor.ephemeral_gb));
    view.insert("os-flavor-access:is_public".into(), json!(flavor.is_public));
    if version.before(102) {
        view.insert("OS-FLV-DISABLED:disabled".into(), json!(flavor.disabled));
        view.insert("rxtx_factor".into(), json!(flavor.rxtx_factor));
    }
    if extra_specs && version.at_least(61) {
        view.insert("extra_specs".into(), json!(flavor.extra_specs));
    }
    Value::Object(view)
}
