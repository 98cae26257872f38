//! Volumes, snapshots, types, attachments, transfers, pools, and the tasks of volume hosts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::ids::{
    HostName, ProjectId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId, VolumeTransferId, VolumeTypeId,
};
use nova_core::image::Image;
use nova_core::volume::{
    Attachment, Pool, Snapshot, Transfer, Volume, VolumeLimits, VolumeQuotaKey, VolumeTask, VolumeType,
};

use crate::network::{Field, fields};
use crate::{ListQuery, SecretStore, StoreError};

fields! {
    /// Of a volume.
    VolumeField {
        Id = "id", ProjectId = "project_id" | "os-vol-tenant-attr:tenant_id", UserId = "user_id",
        Name = "name" | "display_name", Status = "status", Size = "size" | "size_gb",
        AvailabilityZone = "availability_zone", Bootable = "bootable", Multiattach = "multiattach",
        VolumeTypeId = "volume_type_id", Pool = "pool" | "os-vol-host-attr:host" | "host", CreatedAt = "created_at",
        UpdatedAt = "updated_at",
    }
    /// Of a snapshot.
    SnapshotField {
        Id = "id", ProjectId = "project_id" | "os-extended-snapshot-attributes:project_id", VolumeId = "volume_id",
        Name = "name" | "display_name", Status = "status", Size = "size" | "volume_size" | "size_gb", CreatedAt = "created_at",
        UpdatedAt = "updated_at",
    }
    /// Of an attachment.
    AttachmentField {
        Id = "id", ProjectId = "project_id", VolumeId = "volume_id", InstanceId = "instance_id" | "instance_uuid",
        Host = "host" | "attached_host", Status = "status" | "attach_status", CreatedAt = "created_at",
    }
    /// Of a transfer.
    TransferField {
        Id = "id", ProjectId = "project_id", VolumeId = "volume_id", Name = "name", CreatedAt = "created_at",
    }
    /// Of a task.
    VolumeTaskField {
        Id = "id", VolumeId = "volume_id", SourceId = "source_id", Host = "host", CreatedAt = "created_at",
    }
}

/// What is done to one row.
#[derive(Debug, Clone)]
pub enum Write<T> {
    /// It is new.
    Create(T),
    /// It takes the place of the one of its generation.
    Update(T),
    /// It goes, if it is still the one of its generation.
    Delete(T),
}

impl<T> Write<T> {
    /// The row.
    pub fn row(&self) -> &T {
        match self {
            Self::Create(row) | Self::Update(row) | Self::Delete(row) => row,
        }
    }
}

/// What is written in one transaction.
///
/// A volume's row stands for all that hangs on it: whoever makes, changes or removes a snapshot, or makes a task or transfer,
/// writes the volume as well, and so does who makes something that reads it. What was read under a volume's generation
/// is therefore still so when the commit succeeds.
#[derive(Debug, Clone, Default)]
pub struct VolumeCommit {
    /// Volumes with their attachments.
    pub volumes: Vec<Write<Volume>>,
    /// Snapshots.
    pub snapshots: Vec<Write<Snapshot>>,
    /// Tasks. One that is deleted may be gone.
    pub tasks: Vec<Write<VolumeTask>>,
    /// Transfers.
    pub transfers: Vec<Write<Transfer>>,
    /// Images that are described; their data follows.
    pub images: Vec<Image>,
    /// Limits of projects that have none of their own; with them nothing grows over its limits. `None`: whatever they are.
    pub limits: Option<VolumeLimits>,
    /// Names of types, for what is said when a limit of one is met.
    pub type_names: BTreeMap<VolumeTypeId, String>,
}

/// What a project has of something, and may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeAccount {
    /// So many it has.
    pub used: u64,
    /// Its own limit; `Some(None)` is without limit, `None` that of everybody.
    pub limit: Option<Option<u64>>,
}

/// The books of volumes. Usage of projects and pools follows the rows in the transaction that writes them.
#[async_trait]
pub trait VolumeStore: SecretStore + Send + Sync {
    /// Writes all of it or nothing. Returns the volumes that were made or changed, with their generations.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where something is not what was read, [`StoreError::Volume`] where a limit or a pool is full.
    async fn commit_volumes(&self, commit: VolumeCommit) -> Result<Vec<Volume>, StoreError>;

    /// One volume.
    async fn get_volume(&self, id: VolumeId) -> Result<Volume, StoreError>;
    /// Volumes.
    async fn list_volumes(&self, query: &ListQuery<VolumeField>) -> Result<Vec<Volume>, StoreError>;
    /// One snapshot.
    async fn get_volume_snapshot(&self, id: VolumeSnapshotId) -> Result<Snapshot, StoreError>;
    /// Snapshots.
    async fn list_volume_snapshots(&self, query: &ListQuery<SnapshotField>) -> Result<Vec<Snapshot>, StoreError>;
    /// The volume that has this attachment.
    async fn volume_of_attachment(&self, id: VolumeAttachmentId) -> Result<Volume, StoreError>;
    /// Attachments, and whose volumes they are of.
    async fn list_volume_attachments(
        &self,
        query: &ListQuery<AttachmentField>,
    ) -> Result<Vec<(ProjectId, Attachment)>, StoreError>;
    /// One transfer.
    async fn get_volume_transfer(&self, id: VolumeTransferId) -> Result<Transfer, StoreError>;
    /// Transfers.
    async fn list_volume_transfers(&self, query: &ListQuery<TransferField>) -> Result<Vec<Transfer>, StoreError>;

    /// One task.
    async fn get_volume_task(&self, id: VolumeTaskId) -> Result<VolumeTask, StoreError>;
    /// Tasks.
    async fn list_volume_tasks(&self, query: &ListQuery<VolumeTaskField>) -> Result<Vec<VolumeTask>, StoreError>;
    /// Tasks of a host that nobody works on, oldest first.
    async fn due_volume_tasks(
        &self,
        host: &HostName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<VolumeTask>, StoreError>;
    /// Tasks of any host that should have ended by now and that nobody works on, oldest first.
    async fn overdue_volume_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<VolumeTask>, StoreError>;
    /// Takes a task up, or goes on with it, until then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if somebody else has it, [`StoreError::NotFound`] if it is over.
    async fn claim_volume_task(
        &self,
        id: VolumeTaskId,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<VolumeTask, StoreError>;
    /// Gives a task up: it is anyone's at once. Fine if somebody else has it.
    async fn release_volume_task(&self, id: VolumeTaskId, owner: &str, now: Timestamp) -> Result<(), StoreError>;

    /// A new type; its name is unique.
    async fn create_volume_type(&self, new: VolumeType) -> Result<VolumeType, StoreError>;
    /// One type.
    async fn get_volume_type(&self, id: VolumeTypeId) -> Result<VolumeType, StoreError>;
    /// All types, by name.
    async fn list_volume_types(&self) -> Result<Vec<VolumeType>, StoreError>;
    /// Writes a type, if the generation still stands.
    async fn update_volume_type(&self, changed: VolumeType) -> Result<VolumeType, StoreError>;
    /// Removes a type that no volume and no snapshot has.
    async fn delete_volume_type(&self, id: VolumeTypeId) -> Result<(), StoreError>;

    /// A host speaks of its pool. What is booked there stays; for a pool that is new it is counted.
    async fn report_volume_pool(&self, pool: Pool) -> Result<Pool, StoreError>;
    /// All pools, by name.
    async fn list_volume_pools(&self) -> Result<Vec<Pool>, StoreError>;

    /// What a project has, and its own limits.
    async fn volume_accounts(&self, project: &ProjectId)
    -> Result<BTreeMap<VolumeQuotaKey, VolumeAccount>, StoreError>;
    /// Sets limits of a project, or with `None` takes them away; others stay.
    async fn set_volume_limits(
        &self,
        project: &ProjectId,
        limits: BTreeMap<VolumeQuotaKey, Option<Option<u64>>>,
    ) -> Result<(), StoreError>;
    /// Repair: counts again what projects have and pools have promised. One transaction. Returns what was changed, one line
    /// each.
    async fn recount_volumes(&self) -> Result<Vec<String>, StoreError>;
}
