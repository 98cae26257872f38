//! What of Cinder's JSON is read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nova_core::ids::{InstanceId, ProjectId, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::{BlockAttachment, BlockSnapshot, BlockVolume, VolumeStatus};
use serde::Deserialize;
use serde_json::Value;

/// The label of a volume by which whoever asked for it finds it.
pub(super) const MARK: &str = "nova_request";

#[derive(Debug, Deserialize)]
pub(super) struct VolumeView {
    id: VolumeId,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    size: u64,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    availability_zone: Option<String>,
    #[serde(default)]
    volume_type: Option<String>,
    /// `"true"` or `"false"`.
    #[serde(default)]
    bootable: String,
    #[serde(default)]
    multiattach: bool,
    #[serde(default)]
    pub(super) encrypted: bool,
    #[serde(default)]
    snapshot_id: Option<VolumeSnapshotId>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    volume_image_metadata: BTreeMap<String, String>,
    #[serde(default)]
    attachments: Vec<HeldView>,
    #[serde(default)]
    migration_status: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default, rename = "os-vol-tenant-attr:tenant_id")]
    pub(super) project: Option<ProjectId>,
}

/// An attachment as a volume shows it.
#[derive(Debug, Deserialize)]
struct HeldView {
    attachment_id: VolumeAttachmentId,
    #[serde(default)]
    server_id: Option<String>,
    #[serde(default)]
    host_name: Option<String>,
    #[serde(default)]
    device: Option<String>,
}

/// An attachment by itself.
#[derive(Debug, Deserialize)]
pub(super) struct AttachmentView {
    pub(super) id: VolumeAttachmentId,
    pub(super) volume_id: VolumeId,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) connection_info: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SnapshotView {
    id: VolumeSnapshotId,
    volume_id: VolumeId,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    size: u64,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default, rename = "os-extended-snapshot-attributes:project_id")]
    pub(super) project: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TypeView {
    pub(super) id: String,
    pub(super) name: String,
}

/// Cinder's times have no zone, and are of UTC.
fn time(text: Option<&str>) -> Option<Timestamp> {
    let civil: DateTime = text?.trim_end_matches('Z').parse().ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// A server's id; attachments may be of hosts that are no servers.
fn server(text: Option<&str>) -> Option<InstanceId> {
    text?.parse().ok()
}

impl VolumeView {
    /// Was it made for that request?
    pub(super) fn is_marked(&self, key: VolumeId) -> bool {
        self.metadata.get(MARK).is_some_and(|mark| *mark == key.to_string())
    }

    pub(super) fn into_volume(self) -> BlockVolume {
        let Self { id, mut metadata, .. } = self;
        metadata.remove(MARK);
        let readonly = metadata.get("readonly").is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
        let held = |one: HeldView| BlockAttachment {
            id: one.attachment_id,
            volume_id: id,
            instance_id: server(one.server_id.as_deref()),
            host: one.host_name,
            device: one.device,
        };
        BlockVolume {
            id,
            name: self.name.unwrap_or_default(),
            description: self.description.unwrap_or_default(),
            size_gb: self.size,
            status: VolumeStatus::parse(&self.status),
            availability_zone: self.availability_zone.unwrap_or_default(),
            volume_type: self.volume_type,
            bootable: self.bootable.eq_ignore_ascii_case("true"),
            multiattach: self.multiattach,
            readonly,
            encrypted: self.encrypted,
            snapshot_id: self.snapshot_id,
            metadata,
            image_metadata: self.volume_image_metadata,
            attachments: self.attachments.into_iter().map(held).collect(),
            migrating: self
                .migration_status
                .is_some_and(|word| matches!(&*word, "starting" | "migrating" | "completing")),
            fault: None,
            created_at: time(self.created_at.as_deref()),
        }
    }
}

impl AttachmentView {
    /// Whose host and device it is, Cinder tells of one attachment only.
    pub(super) fn to_attachment(&self) -> BlockAttachment {
        BlockAttachment {
            id: self.id,
            volume_id: self.volume_id,
            instance_id: server(self.instance.as_deref()),
            host: None,
            device: None,
        }
    }
}

impl SnapshotView {
    /// Was it taken of that volume for that request?
    pub(super) fn is_marked(&self, volume: VolumeId, key: VolumeSnapshotId) -> bool {
        self.volume_id == volume && self.metadata.get(MARK).is_some_and(|mark| *mark == key.to_string())
    }

    pub(super) fn into_snapshot(self) -> BlockSnapshot {
        BlockSnapshot {
            id: self.id,
            volume_id: self.volume_id,
            name: self.name.unwrap_or_default(),
            description: self.description.unwrap_or_default(),
            size_gb: self.size,
            status: self.status,
            created_at: time(self.created_at.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_is_read_as_cinder_writes_it() {
        let view = json!({
            "id": "00000000-0000-4000-8000-00000000000a", "name": null, "size": 3, "status": "in-use",
            "bootable": "true", "encrypted": true, "multiattach": false, "metadata": {"readonly": "True", MARK: "x"},
            "attachments": [{"attachment_id": "00000000-0000-4000-8000-00000000000b", "server_id": "no-uuid",
                             "host_name": "c1", "device": "/dev/vdb", "id": "x"}],
            "created_at": "2026-11-23T05:00:01.000002", "os-vol-tenant-attr:tenant_id": "p", "unknown": [1],
        });
        let view: VolumeView = serde_json::from_value(view).unwrap();
        assert_eq!(view.project, Some("p".into()));
        let volume = view.into_volume();
        assert!(volume.readonly && volume.bootable && volume.encrypted && volume.name.is_empty());
        assert_eq!(volume.status, Some(VolumeStatus::InUse));
        assert_eq!(volume.metadata.keys().collect::<Vec<_>>(), ["readonly"]);
        assert_eq!(volume.created_at.unwrap().to_string(), "2026-11-23T05:00:01.000002Z");
        assert_eq!((volume.attachments[0].instance_id, volume.attachments[0].host.as_deref()), (None, Some("c1")));
        let migrating = json!({"id": "00000000-0000-4000-8000-00000000000a", "size": 1, "status": "backing-up"});
        assert_eq!(serde_json::from_value::<VolumeView>(migrating).unwrap().into_volume().status, None);
    }
}
