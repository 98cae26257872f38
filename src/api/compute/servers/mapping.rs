//! Disks that a create request names (`block_device_mapping`, `block_device_mapping_v2`).

use serde_json::Value;

use super::fields;
use crate::api::validate::{Fields, Text, boolean, integer, invalid};
use crate::api::{ApiError, Microversion};

/// One disk, as far as this cloud can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapping {
    /// The image's own root disk, on the host: what every server has anyway. The CLI always names it.
    ImageRoot {
        /// The image.
        image: String,
    },
    /// A volume, by id.
    Volume {
        /// The volume; empty where one was to be made.
        id: String,
    },
    /// A snapshot of a volume, by id.
    Snapshot {
        /// The snapshot.
        id: String,
    },
    /// Anything else, in words.
    Other {
        /// What it is.
        what: &'static str,
    },
}

/// An item of `block_device_mapping_v2`.
pub fn current(item: &Value, version: Microversion) -> Result<Mapping, ApiError> {
    let mut disk = Fields::of("block_device_mapping_v2", item, false)?;
    common(&mut disk)?;
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
    let boot_index = boot_index(&mut disk)?;
    if version.0 == 32 || version.at_least(42) {
        let _ = disk.get("tag").map(|tag| fields::tag("tag", tag)).transpose()?;
    }
    if version.at_least(67) {
        disk.nullable_text("volume_type", Text::new(0, 255))?;
    }
    let (volume, snapshot) = (disk.get("volume_id"), disk.get("snapshot_id"));
    let id = |value: Option<&Value>| value.and_then(Value::as_str).or(uuid).unwrap_or_default().to_owned();
    disk.finish()?;
    Ok(match (source, destination) {
        (Some("image"), Some("local") | None) if boot_index == Some(0) => {
            Mapping::ImageRoot { image: image.or(uuid).unwrap_or_default().to_owned() }
        }
        (Some("volume"), _) => Mapping::Volume { id: id(volume) },
        (Some("snapshot"), _) => Mapping::Snapshot { id: id(snapshot) },
        (None, _) if volume.is_some() => Mapping::Volume { id: id(volume) },
        (_, Some("volume")) => Mapping::Volume { id: String::new() },
        (Some("blank"), _) => Mapping::Other { what: "blank disks are not supported" },
        _ => Mapping::Other { what: "only the image's own root disk can be local" },
    })
}

/// An item of the first `block_device_mapping`: always a volume or a snapshot of one.
pub fn legacy(item: &Value) -> Result<Mapping, ApiError> {
    let mut disk = Fields::of("block_device_mapping", item, false)?;
    common(&mut disk)?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (volume, snapshot) = (disk.get("volume_id"), disk.get("snapshot_id"));
    disk.finish()?;
    Ok(match (volume, snapshot) {
        (None, Some(id)) => Mapping::Snapshot { id: text(Some(id)) },
        (id, _) => Mapping::Volume { id: text(id) },
    })
}

fn common(disk: &mut Fields<'_>) -> Result<(), ApiError> {
    disk.text("virtual_name", Text::new(0, 255))?;
    for key in ["volume_id", "snapshot_id"] {
        if let Some(value) = disk.get(key)
            && !value.as_str().is_some_and(fields::is_uuid)
        {
            return Err(invalid(key, value, "it is not a 'uuid'"));
        }
    }
    let volume_size = disk.get("volume_size").filter(|value| !matches!(value, Value::String(text) if text.is_empty()));
    let _ = volume_size.map(|value| integer("volume_size", value, 1, 0x7fff_ffff)).transpose()?;
    let device = disk.text("device_name", Text::new(1, 255))?;
    if device.is_some_and(|d| !d.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-'))) {
        return Err(disk.refuse("device_name does not match '^[a-zA-Z0-9._/-]*$'"));
    }
    let _ = disk.get("delete_on_termination").map(|value| boolean("delete_on_termination", value)).transpose()?;
    let _ = disk.get("no_device");
    disk.text("connection_info", Text::new(0, 16_777_215))?;
    Ok(())
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
        assert_eq!(current(&item, Microversion(100)).unwrap(), Mapping::ImageRoot { image: ID.into() });
    }

    #[test]
    fn volumes_are_told_by_source_destination_or_id() {
        for item in [
            json!({"uuid": ID, "source_type": "volume", "destination_type": "volume", "boot_index": "0"}),
            json!({"volume_id": ID}),
            json!({"uuid": ID, "source_type": "image", "destination_type": "volume", "volume_size": 1}),
        ] {
            assert!(matches!(current(&item, Microversion(1)), Ok(Mapping::Volume { .. })), "{item}");
        }
        assert!(current(&json!({"source_type": "nowhere"}), Microversion(1)).is_err());
        assert!(current(&json!({"volume_type": "x"}), Microversion(66)).is_err());
        assert!(legacy(&json!({"volume_id": "x"})).is_err());
    }
}
