//! `sort_key` and `sort_dir` of lists (nova/api/openstack/common.py, `get_sort_params`).

use nova_core::context::RequestContext;
use nova_db::{Direction, SortKey};

use crate::api::{ApiError, Microversion, Query};

/// Keys that Nova sorts by; `None`: taken, but nothing here is sorted by it.
const KEYS: &[(&str, Option<SortKey>)] = &[
    ("access_ip_v4", None),
    ("access_ip_v6", None),
    ("auto_disk_config", None),
    ("availability_zone", Some(SortKey::AvailabilityZone)),
    ("config_drive", None),
    ("created_at", Some(SortKey::CreatedAt)),
    ("display_description", None),
    ("display_name", Some(SortKey::DisplayName)),
    ("host", Some(SortKey::Host)),
    ("hostname", Some(SortKey::Hostname)),
    ("image_ref", Some(SortKey::ImageRef)),
    ("instance_type_id", Some(SortKey::FlavorId)),
    ("kernel_id", None),
    ("key_name", Some(SortKey::KeyName)),
    ("launch_index", Some(SortKey::LaunchIndex)),
    ("launched_at", Some(SortKey::LaunchedAt)),
    ("locked_by", Some(SortKey::Locked)),
    ("node", Some(SortKey::Node)),
    ("power_state", Some(SortKey::PowerState)),
    ("progress", Some(SortKey::Progress)),
    ("project_id", Some(SortKey::ProjectId)),
    ("ramdisk_id", None),
    ("root_device_name", None),
    ("task_state", Some(SortKey::TaskState)),
    ("terminated_at", None),
    ("updated_at", Some(SortKey::UpdatedAt)),
    ("user_id", Some(SortKey::UserId)),
    ("uuid", Some(SortKey::Id)),
    ("vm_state", Some(SortKey::VmState)),
];

/// Keys that Nova takes until 2.74 and then passes over.
const IGNORED: &[&str] = &[
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "deleted_at",
    "disable_terminate",
    "ephemeral_gb",
    "ephemeral_key_uuid",
    "id",
    "key_data",
    "launched_on",
    "locked",
    "memory_mb",
    "os_type",
    "reservation_id",
    "root_gb",
    "shutdown_terminate",
    "user_data",
    "vcpus",
    "vm_mode",
];

/// The order that a query asks for; empty for the default.
///
/// # Errors
/// 400 for unknown keys and directions, 403 for keys that are for administrators.
pub fn sorting(
    query: &Query,
    context: &RequestContext,
    version: Microversion,
) -> Result<Vec<(SortKey, Direction)>, ApiError> {
    let directions = query.all("sort_dir").map(direction).collect::<Result<Vec<_>, _>>()?;
    let default = directions.first().copied().unwrap_or(Direction::Descending);
    let mut sort = Vec::new();
    for (index, key) in query.all("sort_key").enumerate() {
        if let Some(key) = sort_key(key.trim(), context, version)? {
            sort.push((key, directions.get(index).copied().unwrap_or(default)));
        }
    }
    if sort.is_empty() && !directions.is_empty() {
        sort.push((SortKey::CreatedAt, default));
    }
    Ok(sort)
}

fn direction(text: &str) -> Result<Direction, ApiError> {
    match text.trim() {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        _ => Err(ApiError::bad_request("Unknown sort direction, must be 'desc' or 'asc'")),
    }
}

fn sort_key(key: &str, context: &RequestContext, version: Microversion) -> Result<Option<SortKey>, ApiError> {
    if key == "locked" && version.at_least(73) {
        return Ok(Some(SortKey::Locked));
    }
    if IGNORED.contains(&key) && version.before(75) {
        return Ok(None);
    }
    let Some((_, known)) = KEYS.iter().find(|(name, _)| *name == key) else {
        let text = format!("Invalid input for query parameters sort_key. Value: {key}. '{key}' is not a sort key");
        return Err(ApiError::BadRequest(text));
    };
    if matches!(key, "host" | "node") && !context.is_admin() {
        return Err(ApiError::Forbidden(format!("Only administrators can sort servers by {key}")));
    }
    Ok(*known)
}
