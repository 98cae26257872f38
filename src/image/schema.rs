//! `/v2/schemas/…`: descriptions of bodies that some clients read to know which attributes are the service's own.

use serde_json::{Value, json};

/// One image.
pub(super) fn image() -> Value {
    let text = |about: &str| json!({"type": ["null", "string"], "maxLength": 255, "description": about});
    let read_only = |about: &str, kind: &str| json!({"type": ["null", kind], "readOnly": true, "description": about});
    let number =
        |about: &str| json!({"type": "integer", "minimum": 0, "maximum": 2_147_483_647u32, "description": about});
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "description": "An identifier for the image",
                "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"},
            "name": text("Descriptive name for the image"),
            "status": read_only("Status of the image", "string"),
            "visibility": {"type": "string", "enum": ["community", "public", "private", "shared"],
                "description": "Scope of image accessibility"},
            "owner": text("Owner of the image"),
            "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
            "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
            "container_format": text("Format of the container"),
            "disk_format": text("Format of the disk"),
            "min_ram": number("Amount of ram (in MB) required to boot image."),
            "min_disk": number("Amount of disk space (in GB) required to boot image."),
            "size": read_only("Size of image file in bytes", "integer"),
            "virtual_size": read_only("Virtual size of image in bytes", "integer"),
            "checksum": read_only("md5 hash of image contents.", "string"),
            "os_hash_algo": read_only("Algorithm to calculate the os_hash_value", "string"),
            "os_hash_value": read_only("Hexdigest of the image contents", "string"),
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 255},
                "description": "List of strings related to the image"},
            "created_at": read_only("Date and time of image registration", "string"),
            "updated_at": read_only("Date and time of the last image modification", "string"),
            "self": read_only("An image self url", "string"),
            "file": read_only("An image file url", "string"),
            "schema": read_only("An image schema url", "string"),
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// A list of images.
pub(super) fn images() -> Value {
    json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": image()},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// A member of a shared image.
pub(super) fn member() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "name": "member",
        "properties": {
            "member_id": text("An identifier for the image member (tenantId)"),
            "image_id": text("An identifier for the image"),
            "created_at": text("Date and time of image member creation"),
            "updated_at": text("Date and time of last modification of image member"),
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"],
                "description": "The status of this image member"},
            "schema": {"type": "string", "readOnly": true},
        },
    })
}

/// A list of them.
pub(super) fn members() -> Value {
    json!({
        "name": "members",
        "properties": {
            "members": {"type": "array", "items": member()},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    })
}
