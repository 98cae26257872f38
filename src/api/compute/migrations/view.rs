//! Moves as clients see them (nova/api/openstack/compute/views/migrations.py).

use nova_core::clock::api_time_micros;
use nova_core::flavor::Flavor;
use nova_core::migration::{Migration, MigrationType, Progress};
use serde_json::{Map, Value, json};

use crate::api::Request;
use crate::api::compute::links::links;

/// Nova shows the number of the flavor's row, which tenants do not see elsewhere. Here a flavor has its id alone.
fn number_of(flavor: &Flavor) -> Option<i64> {
    flavor.id.as_str().parse().ok()
}

fn common(request: &Request, migration: &Migration, hosts: bool) -> Map<String, Value> {
    let version = request.version;
    let mut view = Map::new();
    let host = |value: Option<&str>| if hosts { json!(value) } else { Value::Null };
    view.insert("id".into(), json!(migration.id));
    view.insert("source_compute".into(), host(Some(migration.source_compute.as_str())));
    view.insert("source_node".into(), host(migration.source_node.as_deref()));
    view.insert("dest_compute".into(), host(migration.dest_compute.as_ref().map(|host| host.as_str())));
    view.insert("dest_node".into(), host(migration.dest_node.as_deref()));
    view.insert("dest_host".into(), host(migration.dest_host.as_deref()));
    view.insert("status".into(), json!(migration.status.as_str()));
    if version.at_least(59) {
        view.insert("uuid".into(), json!(migration.uuid));
    }
    if version.at_least(80) {
        view.insert("user_id".into(), json!(migration.user_id));
        view.insert("project_id".into(), json!(migration.project_id));
    }
    view
}

/// In the list of all.
pub fn of_all(request: &Request, migration: &Migration, hosts: bool) -> Value {
    let mut view = common(request, migration, hosts);
    view.insert("instance_uuid".into(), json!(migration.instance_id));
    view.insert("old_instance_type_id".into(), json!(number_of(&migration.old_flavor)));
    view.insert("new_instance_type_id".into(), json!(number_of(&migration.new_flavor)));
    view.insert("created_at".into(), json!(api_time_micros(migration.created_at)));
    view.insert("updated_at".into(), json!(migration.updated_at.map(api_time_micros)));
    if request.version.at_least(23) {
        view.insert("migration_type".into(), json!(migration.migration_type.as_str()));
        let live = migration.migration_type == MigrationType::LiveMigration;
        if live && migration.status.is_in_progress() {
            let collection = format!("servers/{}/migrations", migration.instance_id);
            view.insert("links".into(), links(&request.base_url, &collection, &migration.id.to_string()));
        }
    }
    Value::Object(view)
}

/// Among those of its server.
pub fn of_server(request: &Request, migration: &Migration, hosts: bool) -> Value {
    let mut view = common(request, migration, hosts);
    view.insert("server_uuid".into(), json!(migration.instance_id));
    view.insert("created_at".into(), json!(api_time_micros(migration.created_at)));
    view.insert("updated_at".into(), json!(migration.updated_at.map(api_time_micros)));
    let known = migration.progress;
    let mut bytes = |name: &str, read: fn(&Progress) -> u64| {
        view.insert(name.into(), json!(known.as_ref().map(read)));
    };
    bytes("memory_total_bytes", |progress| progress.memory_total);
    bytes("memory_processed_bytes", |progress| progress.memory_processed);
    bytes("memory_remaining_bytes", |progress| progress.memory_remaining);
    bytes("disk_total_bytes", |progress| progress.disk_total);
    bytes("disk_processed_bytes", |progress| progress.disk_processed);
    bytes("disk_remaining_bytes", |progress| progress.disk_remaining);
    Value::Object(view)
}
