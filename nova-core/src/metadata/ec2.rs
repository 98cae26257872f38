//! The tree of Amazon's EC2: `{version}/meta-data/…`, one value for each path, and `{version}/user-data`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Document, GuestDisk, InstanceMetadata, user_data};

/// The versions, oldest first.
const VERSIONS: [&str; 9] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
];
/// Those that are on config drives (`api.config_drive_skip_versions` leaves the others out).
const ON_DRIVES: [&str; 2] = ["2009-04-04", "latest"];

/// A key of a directory that is shown by another name in the directory above.
const NAME: &str = "_name";

/// The list of versions.
pub(super) fn versions() -> Document {
    Document::text(VERSIONS.iter().copied().chain(["latest"]).collect::<Vec<_>>().join("\n"))
}

/// The answer to a path, its version first.
pub(super) fn answer(about: &InstanceMetadata, tokens: &[&str]) -> Option<Document> {
    let Some((version, rest)) = tokens.split_first() else { return Some(versions()) };
    let version = known(version)?;
    match rest {
        [] => {
            let names = ["meta-data/"].into_iter().chain(about.user_data.is_some().then_some("user-data"));
            Some(Document::text(names.collect::<Vec<_>>().join("\n")))
        }
        ["user-data"] => user_data(about).map(Document::text),
        ["meta-data", path @ ..] => {
            let tree = meta_data(about, version);
            if path.contains(&NAME) {
                return None;
            }
            let found = path.iter().try_fold(&tree, |tree, token| tree.as_object()?.get(*token))?;
            Some(Document::text(print(found)))
        }
        _ => None,
    }
}

fn known(version: &str) -> Option<&'static str> {
    let version = if version == "latest" { VERSIONS[VERSIONS.len() - 1] } else { version };
    VERSIONS.into_iter().find(|known| *known == version)
}

fn since(version: &str, first: &str) -> bool {
    // Dates compare as texts, and "1.0" comes before them.
    version >= first
}

/// The tree below `meta-data`.
fn meta_data(about: &InstanceMetadata, version: &str) -> Value {
    let addresses = || about.vifs.iter().flat_map(|vif| &vif.addresses);
    let v4 = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let local = addresses().map(|one| one.address).find(IpAddr::is_ipv4);
    let public = addresses().flat_map(|one| &one.floating).copied().find(IpAddr::is_ipv4);
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("ami-id", json!(image_number(about.image_id.as_deref())));
    put("ami-launch-index", json!(about.launch_index));
    put("ami-manifest-path", json!("FIXME"));
    put("instance-id", json!(format!("i-{:08x}", about.number)));
    put("hostname", json!(about.hostname));
    put("local-ipv4", json!(v4(local)));
    put("reservation-id", json!(about.reservation_id));
    put("security-groups", json!(about.security_groups));
    // "public-keys/" lists "0=name", without a slash; the directory is called "0".
    let keys = about.keys.iter().enumerate().map(|(place, key)| {
        (place.to_string(), json!({NAME: format!("{place}={}", key.name), "openssh-key": key.data}))
    });
    let keys: Map<String, Value> = keys.collect();
    if !keys.is_empty() {
        put("public-keys", Value::Object(keys));
    }
    if since(version, "2007-01-19") {
        put("local-hostname", json!(about.hostname));
        put("public-hostname", json!(about.hostname));
        put("public-ipv4", json!(v4(public)));
    }
    if since(version, "2007-08-29") {
        put("instance-type", json!(about.flavor_name));
    }
    if since(version, "2007-12-15") {
        put("block-device-mapping", block_devices(&about.disks));
    }
    if since(version, "2008-02-01") {
        put("placement", json!({"availability-zone": about.availability_zone.as_deref().unwrap_or_default()}));
    }
    if since(version, "2008-09-01") {
        put("instance-action", json!("none"));
    }
    Value::Object(out)
}

/// EC2 numbers images; ours have none, so the first half of the id's first half stands for it.
fn image_number(image: Option<&str>) -> String {
    let digits: String = image.unwrap_or_default().chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("ami-{digits:0>8}")
}

/// Which disk is which (nova/block_device.py, `instance_block_mapping`).
fn block_devices(disks: &[GuestDisk]) -> Value {
    let mut out = Map::new();
    let mut ephemeral = 0;
    for (disk, letter) in disks.iter().zip('a'..='z') {
        match disk {
            GuestDisk::Root => {
                out.insert("ami".into(), json!(format!("vd{letter}")));
                out.insert("root".into(), json!(format!("/dev/vd{letter}")));
            }
            GuestDisk::Ephemeral => {
                out.insert(format!("ephemeral{ephemeral}"), json!(format!("/dev/vd{letter}")));
                ephemeral += 1;
            }
            GuestDisk::Swap => drop(out.insert("swap".into(), json!(format!("/dev/vd{letter}")))),
        }
    }
    Value::Object(out)
}

/// A directory as the list of what is in it, a value as it is (`ec2_md_print`).
fn print(value: &Value) -> String {
    match value {
        Value::Object(directory) => {
            let names = directory.iter().filter(|(key, _)| *key != NAME).map(|(key, value)| match value {
                Value::Object(inner) => {
                    inner.get(NAME).and_then(Value::as_str).map_or(format!("{key}/"), str::to_owned)
                }
                _ => key.clone(),
            });
            names.collect::<Vec<_>>().join("\n")
        }
        Value::Array(list) => list.iter().map(print).collect::<Vec<_>>().join("\n"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The files of a config drive.
pub(super) fn files(about: &InstanceMetadata) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ON_DRIVES {
        let Some(version) = known(name) else { continue };
        let mut tree = meta_data(about, version);
        for key in tree["public-keys"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            if let Some(key) = key.as_object_mut() {
                key.remove(NAME);
            }
        }
        if tree["public-keys"].is_null()
            && let Some(tree) = tree.as_object_mut()
        {
            tree.remove("public-keys");
        }
        files.insert(format!("ec2/{name}/meta-data.json"), tree.to_string().into_bytes());
        if let Some(data) = user_data(about) {
            files.insert(format!("ec2/{name}/user-data"), data);
        }
    }
    files
}
