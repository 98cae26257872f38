//! Disks that a create request names (`block_device_mapping`, `block_device_mapping_v2`; nova/block_device.py, `from_api`,
//! `from_legacy`).

use serde_json::Value;

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
    /// Is it the image's own root disk, on the host: what every server has anyway? The CLI always names it.
    pub fn is_image_root(&self) -> bool {
        !self.volume && matches!(self.source, Source::Image(_))
    }
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
    for key in ["guest_format", "device_type", "disk_bus"] {
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
        Source::Blank if !is_volume => return Err(wrong("blank disks are not supported.")),
        _ => {}
    }
    Ok(Some(Mapping {
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

/// An item of the first `block_device_mapping`: always a volume or a snapshot of one. The one that is called `vda` is booted
/// from.
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
        (None, None) => return Err(wrong("Missing device UUID.")),
    };
    let name = common.device_name.as_deref().map(|name| name.strip_prefix("/dev/").unwrap_or(name));
    Ok(Some(Mapping {
        source,
        volume: true,
        boot_index: (name == Some("vda")).then_some(0),
        size_gb: common.size_gb,
        delete_on_termination: common.delete_on_termination,
        tag: None,
        volume_type: None,
        device_name: common.device_name,
    }))
}

/// What both forms say.
struct Common {
    size_gb: Option<u64>,
    device_name: Option<String>,
    delete_on_termination: bool,
    no_device: bool,
}

fn common(disk: &mut Fields<'_>) -> Result<Common, ApiError> {
    disk.text("virtual_name", Text::new(0, 255))?;
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
            json!({"source_type": "blank", "destination_type": "local"}),
            json!({"uuid": ID, "source_type": "volume", "destination_type": "local"}),
            json!({"uuid": ID, "source_type": "image", "destination_type": "local", "boot_index": 1}),
            json!({"volume_type": "x", "volume_id": ID}),
        ] {
            assert!(current(&item, Microversion(66), true).is_err(), "{item}");
        }
        assert!(legacy(&json!({"volume_id": "x"})).is_err());
        let root = legacy(&json!({"volume_id": ID, "device_name": "/dev/vda"})).unwrap().unwrap();
        assert_eq!(root.boot_index, Some(0));
    }
}
