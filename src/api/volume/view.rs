//! Things as clients read them (cinder/api/v3/views/).

use std::collections::BTreeMap;

use nova_core::clock::api_time_micros;
use nova_core::context::RequestContext;
use nova_core::ids::VolumeTypeId;
use nova_core::volume::{Attachment, AttachmentStatus, Pool, Snapshot, SnapshotStatus, Transfer, Volume, VolumeType};
use serde_json::{Value, json};

use crate::api::Request;

/// Names of types by id.
pub(super) type TypeNames = BTreeMap<VolumeTypeId, String>;

/// `self` and `bookmark`.
fn links(request: &Request, collection: &str, id: &str) -> Value {
    let base = request.base_url.trim_end_matches('/');
    let root = base.rsplit_once("/v3").map_or(base.to_owned(), |(root, rest)| format!("{root}{rest}"));
    json!([
        {"rel": "self", "href": format!("{base}/{collection}/{id}")},
        {"rel": "bookmark", "href": format!("{root}/{collection}/{id}")},
    ])
}

fn capital(flag: bool) -> &'static str {
    if flag { "True" } else { "False" }
}

/// `id`, `name`, `links`.
pub(super) fn brief_volume(request: &Request, volume: &Volume) -> Value {
    let id = volume.id.to_string();
    json!({"id": id, "name": volume.name, "links": links(request, "volumes", &id)})
}

/// One of a volume's attachments, as it shows them: those by which a server has it.
fn shown_attachment(attachment: &Attachment, sees_hosts: bool) -> Option<Value> {
    if attachment.status != AttachmentStatus::Attached {
        return None;
    }
    Some(json!({
        "id": attachment.volume_id,
        "attachment_id": attachment.id,
        "volume_id": attachment.volume_id,
        "server_id": attachment.instance_id,
        "host_name": attachment.host().filter(|_| sees_hosts),
        "device": attachment.mountpoint,
        "attached_at": attachment.attached_at.map(api_time_micros),
    }))
}

/// A volume. `made`: the answer to its creation, which says less.
pub(super) fn volume(
    request: &Request,
    context: &RequestContext,
    volume: &Volume,
    names: &TypeNames,
    made: bool,
) -> Value {
    let id = volume.id.to_string();
    let mut metadata = json!(volume.metadata);
    if volume.readonly {
        metadata["readonly"] = json!("True");
    }
    let attachments: Vec<Value> =
        volume.attachments.values().filter_map(|one| shown_attachment(one, context.is_admin())).collect();
    let mut view = json!({
        "id": id,
        "name": volume.name,
        "description": volume.description,
        "status": volume.status,
        "size": volume.size_gb,
        "attachments": attachments,
        "links": links(request, "volumes", &id),
        "availability_zone": volume.availability_zone,
        "bootable": if volume.bootable { "true" } else { "false" },
        "encrypted": false,
        "multiattach": volume.multiattach,
        "metadata": metadata,
        "replication_status": null,
        "consistencygroup_id": null,
        "migration_status": null,
        "snapshot_id": volume.snapshot_id,
        "source_volid": volume.source_volid,
        "user_id": volume.user_id,
        "volume_type": volume.volume_type_id.and_then(|id| names.get(&id)),
        "created_at": api_time_micros(volume.created_at),
        "updated_at": api_time_micros(volume.updated_at),
    });
    let since = |minor| request.version.at_least(minor);
    if since(13) {
        view["group_id"] = Value::Null;
    }
    if since(48) {
        view["service_uuid"] = Value::Null;
        // From 3.69 on `null` says that nothing is shared; before it was `false`.
        view["shared_targets"] = if since(69) { Value::Null } else { json!(false) };
    }
    if since(63) {
        view["volume_type_id"] = json!(volume.volume_type_id);
    }
    if since(65) {
        view["consumes_quota"] = json!(true);
    }
    if context.is_admin() && since(21) {
        view["provider_id"] = Value::Null;
    }
    if context.is_admin() && since(61) {
        view["cluster_name"] = Value::Null;
    }
    if made {
        return view;
    }
    view["os-vol-tenant-attr:tenant_id"] = json!(volume.project_id);
    if context.is_admin() {
        view["os-vol-host-attr:host"] = json!(volume.pool);
        view["os-vol-mig-status-attr:migstat"] = Value::Null;
        view["os-vol-mig-status-attr:name_id"] = Value::Null;
    }
    if !volume.image_metadata.is_empty() {
        view["volume_image_metadata"] = json!(volume.image_metadata);
    }
    view
}

/// A snapshot. `brief`: as lists without details and answers to its creation have it.
pub(super) fn snapshot(request: &Request, snapshot: &Snapshot, brief: bool) -> Value {
    let mut view = json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "description": snapshot.description,
        "volume_id": snapshot.volume_id,
        "status": snapshot.status,
        "size": snapshot.size_gb,
        "metadata": snapshot.metadata,
        "created_at": api_time_micros(snapshot.created_at),
        "updated_at": api_time_micros(snapshot.updated_at),
    });
    if brief {
        return view;
    }
    let progress = if snapshot.status == SnapshotStatus::Available { "100%" } else { "0%" };
    view["os-extended-snapshot-attributes:progress"] = json!(progress);
    view["os-extended-snapshot-attributes:project_id"] = json!(snapshot.project_id);
    if request.version.at_least(14) {
        view["group_snapshot_id"] = Value::Null;
    }
    if request.version.at_least(41) {
        view["user_id"] = json!(snapshot.user_id);
    }
    if request.version.at_least(65) {
        view["consumes_quota"] = json!(true);
    }
    view
}

/// A type; what it asks of pools is for administrators, except what users must know.
pub(super) fn volume_type(context: &RequestContext, of: &VolumeType) -> Value {
    const FOR_USERS: [&str; 3] = ["multiattach", "replication_enabled", "RESKEY:availability_zones"];
    let seen = |key: &str| context.is_admin() || FOR_USERS.contains(&key);
    let specs: BTreeMap<&String, &String> = of.extra_specs.iter().filter(|(key, _)| seen(key)).collect();
    let mut view = json!({
        "id": of.id,
        "name": of.name,
        "description": of.description,
        "is_public": of.is_public,
        "extra_specs": specs,
        "os-volume-type-access:is_public": of.is_public,
    });
    if context.is_admin() {
        view["qos_specs_id"] = Value::Null;
    }
    view
}

/// An attachment in a list: `detail` with how it is come to, for whoever connects it.
pub(super) fn attachment(attachment: &Attachment, detail: bool) -> Value {
    let mut view = json!({
        "id": attachment.id,
        "status": attachment.status.as_str(),
        "instance": attachment.instance_id,
        "volume_id": attachment.volume_id,
    });
    if detail {
        view["attached_at"] = json!(attachment.attached_at.map(api_time_micros));
        view["detached_at"] = Value::Null;
        view["attach_mode"] = json!(attachment.mode.as_str());
        view["connection_info"] = attachment.connection_info.as_ref().map_or(json!({}), |info| json!(info));
    }
    view
}

/// A transfer.
pub(super) fn transfer(request: &Request, transfer: &Transfer, detail: bool) -> Value {
    let id = transfer.id.to_string();
    let mut view = json!({
        "id": id,
        "name": transfer.name,
        "volume_id": transfer.volume_id,
        "links": links(request, "os-volume-transfer", &id),
    });
    if detail {
        view["created_at"] = json!(api_time_micros(transfer.created_at));
        if request.version.at_least(55) {
            view["no_snapshots"] = json!(transfer.no_snapshots);
        }
        if request.version.at_least(57) {
            view["source_project_id"] = json!(transfer.project_id);
            view["destination_project_id"] = Value::Null;
            view["accepted"] = json!(false);
        }
    }
    view
}

/// A pool (`scheduler-stats/get_pools`).
pub(super) fn pool(pool: &Pool, detail: bool) -> Value {
    let mut view = json!({"name": pool.name});
    if detail {
        let mut capabilities = json!(pool.capabilities);
        capabilities["pool_name"] = json!(pool.name.pool);
        capabilities["total_capacity_gb"] = json!(pool.total_gb);
        capabilities["free_capacity_gb"] = json!(pool.free_gb);
        capabilities["provisioned_capacity_gb"] = json!(pool.booked_gb);
        capabilities["allocated_capacity_gb"] = json!(pool.booked_gb);
        capabilities["total_volumes"] = json!(pool.volumes);
        capabilities["multiattach"] = json!(pool.multiattach);
        capabilities["thin_provisioning_support"] = json!(pool.thin);
        capabilities["thick_provisioning_support"] = json!(!pool.thin);
        capabilities["timestamp"] = json!(api_time_micros(pool.heard_at));
        capabilities["QoS_support"] = json!(capital(false));
        view["capabilities"] = capabilities;
    }
    view
}
