//! Volumes and what hangs on them.

use jiff::Timestamp;
use nova_core::ids::{InstanceId, ProjectId, VolumeAttachmentId, VolumeId};
use nova_core::volume::{
    Attachment, AttachmentStatus, Pool, Snapshot, Transfer, Volume, VolumeQuotaKey, VolumeTask, VolumeType,
};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

impl Record for Volume {
    const TABLE: &'static Table = &Table {
        name: "volumes",
        kind: Kind::Volume,
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("user_id", 255),
            Column::text("name", 255),
            Column::text("status", 32),
            Column::int("size"),
            Column::text("availability_zone", 255),
            Column::flag("bootable"),
            Column::flag("multiattach"),
            Column::uuid("volume_type_id"),
            Column::text("pool", 512),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
            &["pool"],
            &["volume_type_id"],
            &["status"],
        ],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(&self.project_id),
            Value::text(&self.user_id),
            self.name.clone().into(),
            self.status.as_str().into(),
            self.size_gb.into(),
            Value::text(&self.availability_zone),
            self.bootable.into(),
            self.multiattach.into(),
            Value::optional(self.volume_type_id),
            Value::optional(self.pool.as_ref()),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for Snapshot {
    const TABLE: &'static Table = &Table {
        name: "volume_snapshots",
        kind: Kind::VolumeSnapshot,
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("status", 32),
            Column::int("size"),
            Column::uuid("volume_type_id"),
            Column::text("pool", 512),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[
            &["volume_id"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
            &["pool"],
            &["volume_type_id"],
        ],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.volume_id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            self.status.as_str().into(),
            self.size_gb.into(),
            Value::optional(self.volume_type_id),
            Value::optional(self.pool.as_ref()),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// Where an attachment is found: it is in its volume's document, and this row is written with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachmentRow {
    pub(crate) id: VolumeAttachmentId,
    pub(crate) volume_id: VolumeId,
    pub(crate) project_id: ProjectId,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) host: Option<String>,
    pub(crate) status: AttachmentStatus,
    pub(crate) created_at: Timestamp,
}

impl AttachmentRow {
    /// The row of an attachment of a project's volume.
    pub(crate) fn of(project: &ProjectId, attachment: &Attachment) -> Self {
        Self {
            id: attachment.id,
            volume_id: attachment.volume_id,
            project_id: project.clone(),
            instance_id: attachment.instance_id,
            host: attachment.host().map(str::to_owned),
            status: attachment.status,
            created_at: attachment.created_at,
        }
    }
}

impl Record for AttachmentRow {
    const TABLE: &'static Table = &Table {
        name: "volume_attachments",
        kind: Kind::VolumeAttachment,
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::uuid("instance_id"),
            Column::text("host", 255),
            Column::text("status", 32),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["volume_id"], &["instance_id"], &["host"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.volume_id),
            Value::text(&self.project_id),
            Value::optional(self.instance_id),
            self.host.clone().unwrap_or_default().into(),
            self.status.as_str().into(),
            self.created_at.into(),
        ]
    }
}

/// Types are few: all of them are read.
impl Record for VolumeType {
    const TABLE: &'static Table = &Table {
        name: "volume_types",
        kind: Kind::VolumeType,
        columns: &[Column::uuid("id"), Column::text("name", 255), Column::time("created_at")],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.id), self.name.clone().into(), self.created_at.into()]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// A volume is offered once at a time.
impl Record for Transfer {
    const TABLE: &'static Table = &Table {
        name: "volume_transfers",
        kind: Kind::VolumeTransfer,
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["volume_id"]],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.volume_id),
            Value::text(&self.project_id),
            self.name.clone().into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for VolumeTask {
    const TABLE: &'static Table = &Table {
        name: "volume_tasks",
        kind: Kind::VolumeTask,
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::uuid("source_id"),
            Column::text("host", 255),
            Column::time("lease_until"),
            Column::time("deadline"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["volume_id"], &["source_id"], &["host", "lease_until", "id"], &["deadline", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.volume_id),
            Value::optional(self.work.reads()),
            Value::text(&self.host),
            self.lease_until.into(),
            self.deadline.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

impl Record for Pool {
    const TABLE: &'static Table = &Table {
        name: "volume_pools",
        kind: Kind::VolumePool,
        columns: &[Column::text("name", 512), Column::text("host", 255), Column::time("heard_at")],
        key: 1,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.name), Value::text(&self.name.host), self.heard_at.into()]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
    }
}

/// What a project has of something, in all or of one type.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VolumeUsage {
    /// The project.
    pub(crate) project_id: ProjectId,
    /// Of what.
    pub(crate) key: VolumeQuotaKey,
    /// So many.
    pub(crate) used: u64,
    /// The project's own limit, −1 for none.
    #[serde(default)]
    pub(crate) limit: Option<i64>,
}

/// What is counted, as columns hold it.
pub(crate) fn quota_column(key: VolumeQuotaKey) -> Value {
    Value::Text(match key.volume_type {
        None => key.resource.as_str().to_owned(),
        Some(volume_type) => format!("{}/{volume_type}", key.resource.as_str()),
    })
}

impl Record for VolumeUsage {
    const TABLE: &'static Table = &Table {
        name: "volume_usages",
        kind: Kind::VolumeUsage,
        columns: &[Column::text("project_id", 255), Column::text("resource", 64)],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.project_id), quota_column(self.key)]
    }
}
