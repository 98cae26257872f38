//! OpenStack's own tree: `openstack/{version}/{document}`.

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::{Map, Value, json};

use super::devices::devices;
use super::{Document, InstanceMetadata, network_data, user_data};
use crate::entropy::Entropy;

/// The versions of the format, oldest first.
const VERSIONS: [&str; 10] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
];
const GRIZZLY: &str = "2013-04-04";
const HAVANA: &str = "2013-10-17";
const LIBERTY: &str = "2015-10-15";
const NEWTON_ONE: &str = "2016-06-30";
const NEWTON_TWO: &str = "2016-10-06";
const VICTORIA: &str = "2020-10-14";

/// Bytes of `random_seed`.
const SEED: usize = 512;

const META_DATA: &str = "meta_data.json";
const NETWORK_DATA: &str = "network_data.json";
const PASSWORD: &str = "password";
const USER_DATA: &str = "user_data";
const VENDOR_DATA: &str = "vendor_data.json";
const VENDOR_DATA_2: &str = "vendor_data2.json";

/// The documents, and the version with which each came.
const DOCUMENTS: [(&str, &str); 6] = [
    (META_DATA, "2012-08-10"),
    (USER_DATA, "2012-08-10"),
    (PASSWORD, GRIZZLY),
    (VENDOR_DATA, HAVANA),
    (NETWORK_DATA, LIBERTY),
    (VENDOR_DATA_2, NEWTON_TWO),
];

/// The answer to a path below `openstack`.
pub(super) fn answer(about: &InstanceMetadata, tokens: &[&str], entropy: &dyn Entropy) -> Option<Document> {
    let Some(version) = tokens.first() else {
        return Some(Document::text(VERSIONS.iter().copied().chain(["latest"]).collect::<Vec<_>>().join("\n")));
    };
    let version = known(version)?;
    match tokens[1..] {
        [] => {
            let there = |name: &&str| *name != USER_DATA || about.user_data.is_some();
            let names = DOCUMENTS.iter().filter(|(_, since)| *since <= version).map(|(name, _)| *name).filter(there);
            Some(Document::text(names.collect::<Vec<_>>().join("\n")))
        }
        [name] => document(about, version, name, entropy),
        _ => None,
    }
}

/// The date of a version. Dates compare as texts.
fn known(version: &str) -> Option<&'static str> {
    let version = if version == "latest" { VERSIONS[VERSIONS.len() - 1] } else { version };
    VERSIONS.into_iter().find(|known| *known == version)
}

/// Can guests of that version leave a password?
pub(super) fn has_password(version: &str) -> bool {
    known(version).is_some_and(|version| version >= GRIZZLY)
}

fn document(about: &InstanceMetadata, version: &str, name: &str, entropy: &dyn Entropy) -> Option<Document> {
    let (_, since) = DOCUMENTS.iter().find(|(known, _)| *known == name)?;
    if *since > version {
        return None;
    }
    match name {
        META_DATA => Some(Document::json(&meta_data(about, version, entropy))),
        NETWORK_DATA => Some(Document::json(&network_data(&about.vifs))),
        PASSWORD => Some(Document::text(about.password.as_str())),
        VENDOR_DATA => Some(Document::json(&Value::Object(about.vendor_data.clone()))),
        VENDOR_DATA_2 => Some(Document::json(&json!({"static": about.vendor_data}))),
        _ => user_data(about).map(Document::text),
    }
}

fn meta_data(about: &InstanceMetadata, version: &str, entropy: &dyn Entropy) -> Value {
    let mut out = Map::new();
    out.insert("uuid".into(), json!(about.instance_id));
    out.insert("name".into(), json!(about.name));
    out.insert("hostname".into(), json!(about.hostname));
    out.insert("launch_index".into(), json!(about.launch_index));
    out.insert("availability_zone".into(), json!(about.availability_zone));
    if !about.metadata.is_empty() {
        out.insert("meta".into(), json!(about.metadata));
    }
    if !about.keys.is_empty() {
        let by_name: BTreeMap<_, _> = about.keys.iter().map(|key| (&key.name, &key.data)).collect();
        out.insert("public_keys".into(), json!(by_name));
        let keys = about.keys.iter().map(|key| json!({"name": key.name, "type": key.kind(), "data": key.data}));
        out.insert("keys".into(), keys.collect());
    }
    if let Some(password) = &about.admin_password {
        out.insert("admin_pass".into(), json!(password));
    }
    if version >= GRIZZLY {
        let mut seed = vec![0; SEED];
        entropy.fill(&mut seed);
        out.insert("random_seed".into(), json!(base64::engine::general_purpose::STANDARD.encode(seed)));
    }
    if version >= LIBERTY {
        out.insert("project_id".into(), json!(about.project_id));
        out.insert("reservation_id".into(), json!(about.reservation_id));
    }
    if version >= NEWTON_ONE {
        out.insert("devices".into(), devices(about));
    }
    if version >= VICTORIA {
        out.insert("dedicated_cpus".into(), json!(about.dedicated_cpus));
    }
    Value::Object(out)
}

/// All documents in all versions, as files, but what a guest brings: a drive is written before there is a guest.
pub(super) fn files(about: &InstanceMetadata, entropy: &dyn Entropy) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for version in VERSIONS.into_iter().chain(["latest"]) {
        for (name, _) in DOCUMENTS.into_iter().filter(|(name, _)| *name != PASSWORD) {
            if let Some(document) = answer(about, &[version, name], entropy) {
                files.insert(format!("openstack/{version}/{name}"), document.body);
            }
        }
    }
    files
}
