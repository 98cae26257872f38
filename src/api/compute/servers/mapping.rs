//! Disks that a create request names (`block_device_mapping`, `block_device_mapping_v2`; nova/block_device.py, `from_api`,
//! `from_legacy`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields;
use crate::api::validate::{Fields, Text, boolean, integer, invalid};
use crate::api::{ApiError, Microversion};

/// What a disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image, by id.
    Image(String),
    /// A volume that is there, by id.
    Volume(String),
    /// A snapshot of a volume, by id.
    Snapshot(String),
    /// Nothing.
    Blank,
}

/// One disk that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// What it is made of.
    pub source: Source,
    /// It is a volume; otherwise a disk on the host.
    pub volume: bool,
    /// A blank disk on the host is swap space, and its size in MiB.
    pub swap: bool,
    /// Its place in the boot order; `None`: not booted from.
    pub boot_index: Option<u32>,
    /// GiB.
    pub size_gb: Option<u64>,
    /// It is deleted with the server.
    pub delete_on_termination: bool,
    /// The user's word for it.
    pub tag: Option<String>,
    /// The type of a volume that is made.
    pub volume_type: Option<String>,
    /// The name that it is wished to have.
    pub device_name: Option<String>,
}

impl Mapping {
    /// The name that it is wished to have, without `/dev/`.
    fn device(&self) -> Option<&str> {
        self.device_name.as_deref().map(short)
    }

    /// Is it the image's own root disk, on the host: what every server has anyway? The CLI always names it.
    pub fn is_image_root(&self) -> bool {
        !self.volume && matches!(self.source, Source::Image(_))
    }
}

fn short(device: &str) -> &str {
    device.strip_prefix("/dev/").unwrap_or(device)
}

/// The device of an item that is checked, where the item says that nothing is to be there (`no_device`).
pub fn nothing_at(item: &Value) -> Option<String> {
    let says = item.get("no_device").is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
    item.get("device_name").and_then(Value::as_str).filter(|_| says).map(|device| short(device).to_owned())
}

/// A mapping that cannot be, in Nova's words.
pub fn wrong(details: &str) -> ApiError {
    ApiError::BadRequest(format!("Block Device Mapping is Invalid: {details}"))
}

/// An item of `block_device_mapping_v2`; `has_image`: the request names an image, too. `None`: the disk is not to be.
pub fn current(item: &Value, version: Microversion, has_image: bool) -> Result<Option<Mapping>, ApiError> {
    let mut disk = Fields::of("block_device_mapping_v2", item, false)?;
    let common = common(&mut disk)?;
    let source = word(&mut disk, "source_type", &["volume", "image", "snapshot", "blank"])?;
    let destination = word(&mut disk, "destination_type", &["local", "volume"])?;
    let uuid = disk.text("uuid", Text::new(1, 255))?;
    if uuid.is_some_and(|uuid| !uuid.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return Err(invalid("uuid", item, "it does not match '^[a-zA-Z0-9._-]*$'"));
    }
    let image = disk.text("image_id", Text::new(1, 255))?;
    let guest_format = disk.text("guest_format", Text::new(0, 255))?;
    for key in ["device_type", "disk_bus"] {
        disk.text(key, Text::new(0, 255))?;
    }
    let boot_index = boot_index(&mut disk)?.and_then(|index| u32::try_from(index).ok());
    let mut tag = None;
    if version.0 == 32 || version.at_least(42) {
        tag = disk.get("tag").map(|tag| fields::tag("tag", tag)).transpose()?;
    }
    let mut volume_type = None;
    if version.at_least(67) {
        volume_type = disk.nullable_text("volume_type", Text::new(0, 255))?.flatten();
    }
    let (volume, snapshot) = (disk.get("volume_id"), disk.get("snapshot_id"));
    disk.finish()?;
    if common.no_device {
        return Ok(None);
    }
    let id = |value: Option<&Value>| value.and_then(Value::as_str).or(uuid).map(str::to_owned);
    let missing = || wrong("Missing device UUID.");
    let (source, default_volume) = match source {
        Some("image") => (Source::Image(image.or(uuid).map(str::to_owned).ok_or_else(missing)?), false),
        Some("volume") => (Source::Volume(id(volume).ok_or_else(missing)?), true),
        Some("snapshot") => (Source::Snapshot(id(snapshot).ok_or_else(missing)?), true),
        Some(_) if uuid.is_some() => return Err(wrong("Invalid device UUID.")),
        Some(_) => (Source::Blank, false),
        None if volume.is_some() => (Source::Volume(id(volume).ok_or_else(missing)?), true),
        None if snapshot.is_some() => (Source::Snapshot(id(snapshot).ok_or_else(missing)?), true),
        None => return Err(wrong("Invalid source_type field.")),
    };
    let is_volume = destination.map_or(default_volume, |word| word == "volume");
    match source {
        Source::Image(_) if !(is_volume || has_image && boot_index == Some(0)) => {
            return Err(wrong("Mapping image to local is not supported."));
        }
        Source::Volume(_) | Source::Snapshot(_) if !is_volume => {
            return Err(wrong("Invalid destination_type field."));
        }
        _ => {}
    }
    Ok(Some(Mapping {
        swap: source == Source::Blank && !is_volume && guest_format == Some("swap"),
        source,
        volume: is_volume,
        boot_index,
        size_gb: common.size_gb,
        delete_on_termination: common.delete_on_termination,
        tag,
        volume_type: volume_type.map(str::to_owned).filter(|name| !name.is_empty()),
        device_name: common.device_name,
    }))
}

/// An item of the first `block_device_mapping`: a volume, a snapshot of one, or by its `virtual_name` a blank disk on the host. The
/// one that is called `vda` is booted from.
pub fn legacy(item: &Value) -> Result<Option<Mapping>, ApiError> {
    let mut disk = Fields::of("block_device_mapping", item, false)?;
    let common = common(&mut disk)?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let (volume, snapshot) = (text(disk.get("volume_id")), text(disk.get("snapshot_id")));
    disk.finish()?;
    let source = match (volume, snapshot) {
        (Some(id), _) => Source::Volume(id),
        (None, Some(id)) => Source::Snapshot(id),
        (None, None) if common.no_device => return Ok(None),
        (None, None) if common.swap || common.ephemeral => Source::Blank,
        (None, None) => return Err(wrong("Missing device UUID.")),
    };
    let name = common.device_name.as_deref().map(|name| name.strip_prefix("/dev/").unwrap_or(name));
    Ok(Some(Mapping {
        volume: source != Source::Blank,
        swap: common.swap && source == Source::Blank,
        source,
        boot_index: (name == Some("vda")).then_some(0),
        size_gb: common.size_gb,
        delete_on_termination: common.delete_on_termination,
        tag: None,
        volume_type: None,
        device_name: common.device_name,
    }))
}

/// The disks that an image says it is made of (`block_device_mapping`, as `createImage` of a server that boots from a volume
/// leaves it; nova/compute/api.py, `_get_image_defined_bdms`).
///
/// # Errors
/// 400 for what cannot be read: anybody can write properties of images.
pub fn of_image(properties: &BTreeMap<String, String>) -> Result<Vec<Mapping>, ApiError> {
    let Some(text) = properties.get("block_device_mapping") else { return Ok(Vec::new()) };
    let unreadable = || wrong("the image's block_device_mapping cannot be read.");
    let items: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(|_| unreadable())?;
    let is_new = properties.get("bdm_v2").is_some_and(|flag| is_true(flag));
    let known = if is_new { KEYS } else { LEGACY_KEYS };
    let mut found = Vec::new();
    for mut item in items {
        item.retain(|key, value| known.contains(&key.as_str()) && !value.is_null());
        let item = Value::Object(item);
        found.extend(if is_new { current(&item, Microversion(67), true)? } else { legacy(&item)? });
    }
    Ok(found)
}

/// What is read of an image's own mappings; Nova writes down all that its records have.
const KEYS: &[&str] = &[
    "source_type",
    "destination_type",
    "uuid",
    "image_id",
    "volume_id",
    "snapshot_id",
    "volume_size",
    "boot_index",
    "device_name",
    "delete_on_termination",
    "guest_format",
    "no_device",
    "tag",
    "volume_type",
];
const LEGACY_KEYS: &[&str] =
    &["volume_id", "snapshot_id", "volume_size", "device_name", "delete_on_termination", "no_device", "virtual_name"];

fn is_true(flag: &str) -> bool {
    matches!(flag.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "on" | "y" | "yes")
}

/// The disks of a request and those of its image (nova/compute/api.py, `_merge_bdms_lists`): what the request says of a
/// device name holds, also that nothing is to be there, and the image's own root disk is none where its mappings have one.
pub fn merged(mut of_image: Vec<Mapping>, asked: &[Mapping], nothing_at: &[String]) -> Vec<Mapping> {
    of_image.retain(|mapping| !mapping.device().is_some_and(|device| nothing_at.iter().any(|name| name == device)));
    let has_root = of_image.iter().any(|mapping| mapping.boot_index == Some(0));
    let is_base = |mapping: &Mapping| mapping.boot_index == Some(0) && matches!(mapping.source, Source::Image(_));
    let mut asked: Vec<Mapping> = asked.iter().filter(|mapping| !(has_root && is_base(mapping))).cloned().collect();
    let mut all = Vec::new();
    for mapping in of_image {
        let same = |other: &Mapping| mapping.device().is_some() && other.device() == mapping.device();
        match asked.iter().position(same) {
            Some(place) => all.push(asked.remove(place)),
            None => all.push(mapping),
        }
    }
    all.extend(asked);
    all
}

/// What both forms say.
struct Common {
    size_gb: Option<u64>,
    device_name: Option<String>,
    delete_on_termination: bool,
    no_device: bool,
    /// By its virtual name.
    swap: bool,
    ephemeral: bool,
}

fn common(disk: &mut Fields<'_>) -> Result<Common, ApiError> {
    let virtual_name = disk.text("virtual_name", Text::new(0, 255))?.unwrap_or_default();
    let numbered = virtual_name.strip_prefix("ephemeral").filter(|number| !number.is_empty());
    for key in ["volume_id", "snapshot_id"] {
        if let Some(value) = disk.get(key)
            && !value.as_str().is_some_and(fields::is_uuid)
        {
            return Err(invalid(key, value, "it is not a 'uuid'"));
        }
    }
    let volume_size = disk.get("volume_size").filter(|value| !matches!(value, Value::String(text) if text.is_empty()));
    let volume_size = volume_size.map(|value| integer("volume_size", value, 1, 0x7fff_ffff)).transpose()?;
    let device = disk.text("device_name", Text::new(1, 255))?;
    if device.is_some_and(|d| !d.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-'))) {
        return Err(disk.refuse("device_name does not match '^[a-zA-Z0-9._/-]*$'"));
    }
    let flag = disk.get("delete_on_termination").map(|value| boolean("delete_on_termination", value)).transpose()?;
    let no_device = disk.get("no_device").is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
    disk.text("connection_info", Text::new(0, 16_777_215))?;
    Ok(Common {
        size_gb: volume_size.and_then(|size| u64::try_from(size).ok()),
        device_name: device.map(str::to_owned),
        delete_on_termination: flag.unwrap_or(false),
        no_device,
        swap: virtual_name == "swap",
        ephemeral: numbered.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit())),
    })
}

fn word<'a>(disk: &mut Fields<'a>, key: &'static str, words: &[&str]) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = disk.get(key) else { return Ok(None) };
    match value.as_str() {
        Some(word) if words.contains(&word) => Ok(Some(word)),
        _ => Err(invalid(key, value, format_args!("it is not one of {words:?}"))),
    }
}

/// A number, its text, or null; null and negative numbers mean that it is not booted from.
fn boot_index(disk: &mut Fields<'_>) -> Result<Option<i64>, ApiError> {
    match disk.get("boot_index") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => integer("boot_index", value, i64::MIN, i64::MAX).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "70a599e0-31e7-49b7-b260-868f441e862b";

    #[test]
    fn what_the_cli_always_sends_is_the_root_disk() {
        let item = json!({"uuid": ID, "boot_index": 0, "source_type": "image", "destination_type": "local",
            "delete_on_termination": true});
        let read = current(&item, Microversion(100), true).unwrap().unwrap();
        assert!(read.is_image_root() && read.boot_index == Some(0) && read.delete_on_termination);
        assert!(current(&item, Microversion(100), false).is_err(), "of no image");
    }

    fn image(mappings: &Value) -> BTreeMap<String, String> {
        [("bdm_v2".to_owned(), "True".to_owned()), ("block_device_mapping".to_owned(), mappings.to_string())].into()
    }

    #[test]
    fn images_say_of_which_volumes_they_are() {
        let root = json!({"source_type": "snapshot", "destination_type": "volume", "snapshot_id": ID, "boot_index": 0,
            "device_name": "/dev/vda", "volume_size": 2, "no_device": null, "image_id": null, "encrypted": null});
        let data = json!({"source_type": "snapshot", "destination_type": "volume", "snapshot_id": ID,
            "boot_index": null, "device_name": "/dev/vdb"});
        let read = of_image(&image(&json!([root, data]))).unwrap();
        assert_eq!((read.len(), read[0].boot_index, read[0].size_gb), (2, Some(0), Some(2)));
        // What the CLI always sends is none, and what is said of a device name holds.
        let base = json!({"uuid": ID, "boot_index": 0, "source_type": "image", "destination_type": "local"});
        let other =
            json!({"source_type": "blank", "destination_type": "volume", "volume_size": 7, "device_name": "vdb"});
        let asked: Vec<Mapping> =
            [base, other].iter().filter_map(|item| current(item, Microversion(100), true).unwrap()).collect();
        let all = merged(read.clone(), &asked, &[]);
        let sources: Vec<&Source> = all.iter().map(|mapping| &mapping.source).collect();
        assert_eq!(sources, [&Source::Snapshot(ID.into()), &Source::Blank]);
        assert_eq!(merged(read.clone(), &[], &[]), read);
        assert_eq!(merged(Vec::new(), &asked, &[]), asked);
        let without = |item: Value| merged(read.clone(), &[], &nothing_at(&item).into_iter().collect::<Vec<_>>()).len();
        assert_eq!(without(json!({"device_name": "/dev/vdb", "no_device": true})), read.len() - 1);
        assert_eq!(without(json!({"device_name": "vdb", "no_device": ""})), read.len() - 1);
        assert_eq!(without(json!({"device_name": "vdb", "no_device": false})), read.len());
        assert_eq!(without(json!({"device_name": "vdz", "no_device": true})), read.len());
        assert_eq!(of_image(&BTreeMap::new()).unwrap(), []);
        for bad in [json!("x"), json!([1]), json!([{"source_type": "nowhere"}]), json!([{"source_type": "snapshot"}])] {
            assert!(of_image(&image(&bad)).is_err(), "{bad}");
        }
        let old = json!([{"device_name": "vda", "snapshot_id": ID, "volume_size": "", "virtual_name": "root"}]);
        let old = BTreeMap::from([("block_device_mapping".to_owned(), old.to_string())]);
        assert_eq!(of_image(&old).unwrap()[0].boot_index, Some(0));
    }

    #[test]
    fn volumes_are_told_by_source_destination_or_id() {
        for (item, source) in [
            (
                json!({"uuid": ID, "source_type": "volume", "destination_type": "volume", "boot_index": "0"}),
                Source::Volume(ID.into()),
            ),
            (json!({"volume_id": ID}), Source::Volume(ID.into())),
            (json!({"uuid": ID, "source_type": "snapshot", "boot_index": -1}), Source::Snapshot(ID.into())),
            (
                json!({"uuid": ID, "source_type": "image", "destination_type": "volume", "volume_size": 1}),
                Source::Image(ID.into()),
            ),
            (json!({"source_type": "blank", "destination_type": "volume", "volume_size": "7"}), Source::Blank),
        ] {
            let read = current(&item, Microversion(1), false).unwrap().unwrap();
            assert!(read.volume && read.source == source, "{item}: {read:?}");
        }
        assert_eq!(current(&json!({"no_device": true}), Microversion(1), false).unwrap(), None);
        for item in [
            json!({"source_type": "nowhere"}),
            json!({"source_type": "volume"}),
            json!({"source_type": "blank", "uuid": ID, "destination_type": "volume"}),
            json!({"uuid": ID, "source_type": "volume", "destination_type": "local"}),
            json!({"uuid": ID, "source_type": "image", "destination_type": "local", "boot_index": 1}),
            json!({"volume_type": "x", "volume_id": ID}),
        ] {
            assert!(current(&item, Microversion(66), true).is_err(), "{item}");
        }
        assert!(legacy(&json!({"volume_id": "x"})).is_err());
        assert!(legacy(&json!({"virtual_name": "ephemeral"})).is_err());
        for (item, swap, size) in [
            (json!({"source_type": "blank", "destination_type": "local"}), false, None),
            (json!({"source_type": "blank", "volume_size": 3, "guest_format": "ext4"}), false, Some(3)),
            (json!({"source_type": "blank", "destination_type": "local", "guest_format": "swap"}), true, None),
        ] {
            let read = current(&item, Microversion(1), true).unwrap().unwrap();
            assert_eq!((&read.source, read.volume, read.swap, read.size_gb), (&Source::Blank, false, swap, size));
        }
        for (name, swap) in [("ephemeral0", false), ("swap", true)] {
            let read = legacy(&json!({"virtual_name": name, "device_name": "vdb"})).unwrap().unwrap();
            assert_eq!((&read.source, read.volume, read.swap), (&Source::Blank, false, swap));
        }
        let root = legacy(&json!({"volume_id": ID, "device_name": "/dev/vda"})).unwrap().unwrap();
        assert_eq!(root.boot_index, Some(0));
    }
}
