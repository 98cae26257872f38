//! How a server is shown, at every version (nova/api/openstack/compute/views/servers.py). Pure: everything comes in.

use nova_core::clock::{api_time, api_time_micros};
use nova_core::fault::Fault;
use nova_core::ids::ServerGroupId;
use nova_core::instance::{Instance, hypervisor_name};
use nova_core::state::{ServerStatus, shows_fault, shows_progress, status};
use nova_core::volume::ServerVolume;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};

use super::networks::ServerNetworks;
use crate::api::Microversion;
use crate::api::compute::links;

/// Which answer the server stands in: they differ in what they leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `GET /servers/{id}`.
    Show,
    /// `GET /servers/detail`: without server groups.
    List,
    /// `PUT /servers/{id}`: reduced below 2.75.
    Update,
    /// `POST /servers/{id}/action` with `rebuild`: reduced below 2.75, but for what may have been set anew.
    Rebuild,
}

/// What policy lets this caller see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// `os_compute_api:os-extended-server-attributes`.
    pub extended_attributes: bool,
    /// `os_compute_api:servers:show:flavor-extra-specs`.
    pub extra_specs: bool,
    /// Faults with their details.
    pub admin: bool,
}

/// Everything about the answer that is not the server's.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The version that the client speaks.
    pub version: Microversion,
    /// Where links begin.
    pub base_url: &'a str,
    /// From a server's number to the hypervisor's name for it.
    pub name_template: &'a str,
    /// What the caller may see.
    pub sight: Sight,
    /// Which answer it is.
    pub place: Place,
    /// `UP`, `DOWN`, `UNKNOWN`, `MAINTENANCE` or empty, if the caller may see it (2.16).
    pub host_status: Option<&'a str>,
    /// Its server group (2.71).
    pub group: Option<ServerGroupId>,
    /// Its interfaces and security groups.
    pub networks: &'a ServerNetworks,
}

impl View<'_> {
    /// `PUT` and rebuild are reduced below 2.75.
    fn is_whole(&self) -> bool {
        !matches!(self.place, Place::Update | Place::Rebuild) || self.version.at_least(75)
    }
}

/// `{id, name, links}`: an item of `GET /servers`.
pub fn summary(instance: &Instance, base_url: &str) -> Value {
    let id = instance.id.to_string();
    json!({"id": id, "name": instance.display_name, "links": links::links(base_url, "servers", &id)})
}

/// The whole server, or as much of it as the answer has.
pub fn server(instance: &Instance, view: &View<'_>) -> Value {
    let mut out = base(instance, view);
    let whole = view.is_whole();
    if whole {
        extended(&mut out, instance, view);
    }
    if whole && view.sight.extended_attributes {
        attributes(&mut out, instance, view);
    }
    versioned(&mut out, instance, view, whole);
    if view.place == Place::Rebuild {
        if view.version.at_least(54) {
            out.insert("key_name".into(), json!(instance.key_name));
        }
        if view.version.at_least(57) {
            out.insert("user_data".into(), json!(instance.user_data));
        }
    }
    Value::Object(out)
}

/// The status that the API shows.
pub fn shown_status(instance: &Instance) -> ServerStatus {
    if instance.is_deleted() { ServerStatus::Deleted } else { status(instance.vm_state, instance.task_state) }
}

fn base(instance: &Instance, view: &View<'_>) -> Map<String, Value> {
    let id = instance.id.to_string();
    let status = shown_status(instance);
    let mut out = Map::new();
    out.insert("id".into(), json!(id));
    out.insert("name".into(), json!(instance.display_name));
    out.insert("status".into(), json!(status.as_str()));
    out.insert("tenant_id".into(), json!(instance.project_id));
    out.insert("user_id".into(), json!(instance.user_id));
    out.insert("metadata".into(), json!(instance.metadata));
    out.insert("hostId".into(), json!(host_id(instance)));
    out.insert("image".into(), image(instance, view));
    out.insert("flavor".into(), flavor(instance, view));
    out.insert("created".into(), json!(api_time(instance.created_at)));
    out.insert("updated".into(), json!(api_time(instance.updated_at)));
    out.insert("addresses".into(), view.networks.addresses(view.is_whole()));
    out.insert("accessIPv4".into(), json!(instance.access_ip_v4.as_deref().unwrap_or("")));
    out.insert("accessIPv6".into(), json!(instance.access_ip_v6.as_deref().unwrap_or("")));
    out.insert("links".into(), links::links(view.base_url, "servers", &id));
    out.insert("OS-DCF:diskConfig".into(), json!(disk_config(instance)));
    if let Some(fault) = instance.fault.as_ref().filter(|_| shows_fault(status)) {
        out.insert("fault".into(), shown_fault(fault, view.sight.admin));
    }
    if shows_progress(status) {
        out.insert("progress".into(), json!(instance.progress));
    }
    out
}

/// What `PUT` leaves out below 2.75.
fn extended(out: &mut Map<String, Value>, instance: &Instance, view: &View<'_>) {
    let zone = instance.availability_zone.as_ref().map_or("", |zone| zone.as_str());
    out.insert("OS-EXT-AZ:availability_zone".into(), json!(zone));
    out.insert("config_drive".into(), json!(if instance.config_drive { "True" } else { "" }));
    out.insert("key_name".into(), json!(instance.key_name));
    out.insert("OS-SRV-USG:launched_at".into(), json!(instance.launched_at.map(api_time_micros)));
    out.insert("OS-SRV-USG:terminated_at".into(), json!(instance.terminated_at.map(api_time_micros)));
    out.insert("OS-EXT-STS:task_state".into(), json!(instance.task_state));
    out.insert("OS-EXT-STS:vm_state".into(), json!(instance.vm_state));
    out.insert("OS-EXT-STS:power_state".into(), json!(instance.power_state));
    let attached = |volume: &ServerVolume| match view.version.at_least(3) {
        true => json!({"id": volume.volume_id, "delete_on_termination": volume.delete_on_termination}),
        false => json!({"id": volume.volume_id}),
    };
    // One that is still to be made has no id.
    let volumes = instance.volumes.iter().filter(|volume| volume.make.is_none());
    out.insert("os-extended-volumes:volumes_attached".into(), volumes.map(attached).collect());
    if !view.networks.groups.is_empty() {
        let groups: Vec<Value> = view.networks.groups.iter().map(|name| json!({ "name": name })).collect();
        out.insert("security_groups".into(), json!(groups));
    }
    if view.version.at_least(16)
        && let Some(status) = view.host_status
    {
        out.insert("host_status".into(), json!(status));
    }
    if view.version.at_least(96) {
        out.insert("pinned_availability_zone".into(), json!(instance.pinned_availability_zone));
    }
}

/// `OS-EXT-SRV-ATTR:*`, for administrators.
fn attributes(out: &mut Map<String, Value>, instance: &Instance, view: &View<'_>) {
    let version = view.version;
    let mut put = |key: &str, value: Value| out.insert(format!("OS-EXT-SRV-ATTR:{key}"), value);
    put("host", json!(instance.host));
    put("hypervisor_hostname", json!(instance.node));
    put("instance_name", json!(hypervisor_name(view.name_template, instance.number, instance.id)));
    if version.at_least(3) {
        put("hostname", json!(instance.hostname));
        put("kernel_id", json!(""));
        put("ramdisk_id", json!(""));
        put("launch_index", json!(instance.launch_index));
        put("reservation_id", json!(instance.reservation_id));
        put("root_device_name", json!(instance.host.as_ref().map(|_| "/dev/vda")));
        put("user_data", json!(instance.user_data));
    }
}

/// Keys that came one by one; `PUT` has them, too.
fn versioned(out: &mut Map<String, Value>, instance: &Instance, view: &View<'_>, whole: bool) {
    let version = view.version;
    if version.at_least(9) {
        out.insert("locked".into(), json!(instance.locked.is_some()));
    }
    if version.at_least(19) {
        out.insert("description".into(), json!(instance.display_description));
    }
    if version.at_least(26) {
        out.insert("tags".into(), json!(instance.tags));
    }
    if version.at_least(63) {
        out.insert("trusted_image_certificates".into(), json!(instance.trusted_certs()));
    }
    if version.at_least(71) && view.place != Place::List {
        let groups: Vec<ServerGroupId> = view.group.into_iter().collect();
        out.insert("server_groups".into(), json!(groups));
    }
    if version.at_least(73) {
        out.insert("locked_reason".into(), json!(instance.locked_reason));
    }
    if version.at_least(90) && !(whole && view.sight.extended_attributes) {
        out.insert("OS-EXT-SRV-ATTR:hostname".into(), json!(instance.hostname));
    }
    if version.at_least(100) {
        out.insert("scheduler_hints".into(), json!(instance.scheduler_hints));
    }
}

fn image(instance: &Instance, view: &View<'_>) -> Value {
    let Some(meta) = &instance.image else { return json!("") };
    let id = meta.id.to_string();
    let mut image = json!({"id": id, "links": links::bookmark_only(view.base_url, "images", &id)});
    if view.version.at_least(98) {
        let known = |key: &str| ["hw_", "os_", "img_"].iter().any(|p| key.starts_with(p)) || key == "architecture";
        let properties: Map<String, Value> =
            meta.properties.iter().filter(|(k, _)| known(k)).map(|(k, v)| (k.clone(), json!(v))).collect();
        image["properties"] = Value::Object(properties);
    }
    image
}

fn flavor(instance: &Instance, view: &View<'_>) -> Value {
    let flavor = &instance.flavor;
    if view.version.before(47) {
        let id = flavor.id.as_str();
        return json!({"id": id, "links": links::bookmark_only(view.base_url, "flavors", id)});
    }
    let mut out = json!({
        "original_name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "ephemeral": flavor.ephemeral_gb,
        "swap": flavor.swap_mb,
    });
    if view.sight.extra_specs {
        out["extra_specs"] = json!(flavor.extra_specs);
    }
    out
}

fn shown_fault(fault: &Fault, admin: bool) -> Value {
    let mut out = json!({"code": fault.code, "created": api_time(fault.created), "message": fault.message});
    if !fault.details.is_empty() && (admin || fault.code != 500) {
        out["details"] = json!(fault.details);
    }
    out
}

/// `AUTO` or `MANUAL`.
pub fn disk_config(instance: &Instance) -> &'static str {
    if instance.auto_disk_config { "AUTO" } else { "MANUAL" }
}

/// Tells hosts apart without naming them: the same host is another id to another project (nova/utils.py,
/// `generate_hostid`).
pub fn host_id(instance: &Instance) -> String {
    let Some(host) = &instance.host else { return String::new() };
    let mut hash = Sha224::new();
    hash.update(instance.project_id.as_str());
    hash.update(host.as_str());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
