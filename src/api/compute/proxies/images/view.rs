//! An image as compute showed it (nova/api/openstack/compute/views/images.py).

use nova_core::clock::api_time;
use nova_core::image::{Image, ImageStatus};
use serde_json::{Value, json};

use crate::api::compute::links;
use crate::api::{Request, parse_bool};

/// Compute's word for a status.
pub(super) const fn shown_status(status: ImageStatus) -> &'static str {
    match status {
        ImageStatus::Active => "ACTIVE",
        ImageStatus::Queued | ImageStatus::Saving => "SAVING",
        ImageStatus::Deleted => "DELETED",
        ImageStatus::Killed => "ERROR",
        ImageStatus::Deactivated => "UNKNOWN",
    }
}

const fn progress(status: ImageStatus) -> u8 {
    match status {
        ImageStatus::Queued => 25,
        ImageStatus::Saving => 50,
        ImageStatus::Active => 100,
        ImageStatus::Killed | ImageStatus::Deactivated | ImageStatus::Deleted => 0,
    }
}

/// `{id, name, links}`.
pub(super) fn brief(request: &Request, image: &Image) -> Value {
    let id = image.id.to_string();
    let mut links = links::links(&request.base_url, "images", &id);
    if let Some(list) = links.as_array_mut() {
        let root = request.base_url.split("/compute").next().unwrap_or_default();
        list.push(json!({
            "rel": "alternate",
            "type": "application/vnd.openstack.image",
            "href": format!("{root}/image/images/{id}"),
        }));
    }
    json!({"id": id, "name": image.name, "links": links})
}

/// All of it.
pub(super) fn full(request: &Request, image: &Image) -> Value {
    let mut view = brief(request, image);
    view["minRam"] = json!(image.min_ram);
    view["minDisk"] = json!(image.min_disk);
    view["metadata"] = json!(image.properties);
    view["created"] = json!(api_time(image.created_at));
    view["updated"] = json!(api_time(image.updated_at));
    view["status"] = json!(shown_status(image.status));
    view["progress"] = json!(progress(image.status));
    view["OS-EXT-IMG-SIZE:size"] = json!(image.size.unwrap_or(0));
    if let Some(server) = image.properties.get("instance_uuid") {
        view["server"] = json!({"id": server, "links": links::links(&request.base_url, "servers", server)});
    }
    if let Some(auto) = image.properties.get("auto_disk_config").and_then(|text| parse_bool(text)) {
        view["OS-DCF:diskConfig"] = json!(if auto { "AUTO" } else { "MANUAL" });
    }
    view
}
