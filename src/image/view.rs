//! An image as clients see it: everything at the top level, the client's own properties too.

use nova_core::clock::api_time;
use nova_core::image::Image;
use serde_json::{Map, Value, json};

/// Names that properties may not have, as the service gives them a meaning (glance/api/v2/images.py, `_base_properties` and
/// its kin).
pub(super) const READ_ONLY: [&str; 15] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "stores",
    "locations",
];
/// Attributes that can be set.
pub(super) const SETTABLE: [&str; 10] = [
    "name",
    "visibility",
    "owner",
    "disk_format",
    "container_format",
    "min_ram",
    "min_disk",
    "protected",
    "os_hidden",
    "tags",
];
/// Names that nothing may have.
pub(super) const RESERVED: [&str; 4] = ["location", "deleted", "deleted_at", "is_public"];

/// The body of an image. `path` is `/v2` below the client's URL.
pub(super) fn body(image: &Image) -> Value {
    let mut body = Map::new();
    for (key, value) in &image.properties {
        body.insert(key.clone(), json!(value));
    }
    let own = format!("/v2/images/{}", image.id);
    let fields = json!({
        "id": image.id,
        "name": image.name,
        "status": image.status.as_str(),
        "visibility": image.visibility.as_str(),
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": image.os_hash_value.as_ref().map(|_| "sha512"),
        "os_hash_value": image.os_hash_value,
        "min_ram": image.min_ram,
        "min_disk": image.min_disk,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "tags": image.tags,
        "created_at": api_time(image.created_at),
        "updated_at": api_time(image.updated_at),
        "self": own,
        "file": format!("{own}/file"),
        "schema": "/v2/schemas/image",
    });
    if let Value::Object(fields) = fields {
        body.extend(fields);
    }
    Value::Object(body)
}
