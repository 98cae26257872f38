//! The repairs of volumes. Each writes the volume's row by the generation that was read: whatever hangs on it has not changed.

use jiff::SignedDuration;
use nova_core::context::RequestContext;
use nova_core::ids::{VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId};
use nova_core::volume::{
    AttachmentStatus, Snapshot, SnapshotStatus, Volume, VolumeEvent, VolumeStatus, VolumeTask, VolumeWork, next, rest,
};
use nova_db::{ListQuery, StoreError, VolumeCommit, VolumeTaskField, Write};

use super::Checker;

const INTERRUPTED: &str = "found without a task, by nova-manage check";
/// How long a volume host has for what a repair asks of it.
const DEADLINE: SignedDuration = SignedDuration::from_mins(10);

impl Checker {
    /// The volume, if it is as it was read and nothing works on it.
    async fn untouched_volume(&self, id: VolumeId, generation: u64) -> Result<Option<Volume>, StoreError> {
        let volume = self.store.get_volume(id).await?;
        let of_it = ListQuery::of(VolumeTaskField::VolumeId, id);
        let idle = self.store.list_volume_tasks(&of_it).await?.is_empty();
        Ok(Some(volume).filter(|volume| volume.generation == generation && idle))
    }

    async fn write_volume(&self, volume: Volume) -> Result<bool, StoreError> {
        let volumes = vec![Write::Update(Volume { updated_at: self.clock.now(), ..volume })];
        self.store.commit_volumes(VolumeCommit { volumes, ..VolumeCommit::default() }).await?;
        Ok(true)
    }

    pub(super) async fn drop_volume_task(&self, id: VolumeTaskId, generation: u64) -> Result<bool, StoreError> {
        let task = self.store.get_volume_task(id).await?;
        let lives = match self.store.get_volume(task.volume_id).await {
            Ok(_) => true,
            Err(StoreError::NotFound { .. }) => false,
            Err(error) => return Err(error),
        };
        if lives || task.generation != generation {
            return Ok(false);
        }
        let tasks = vec![Write::Delete(task)];
        self.store.commit_volumes(VolumeCommit { tasks, ..VolumeCommit::default() }).await?;
        Ok(true)
    }

    pub(super) async fn fail_volume(&self, id: VolumeId, generation: u64) -> Result<bool, StoreError> {
        let Some(mut volume) = self.untouched_volume(id, generation).await? else { return Ok(false) };
        let Some(status) = given_up(&volume) else { return Ok(false) };
        volume.fault = Some(format!("{}, {INTERRUPTED}", volume.status));
        volume.status = status;
        self.write_volume(volume).await
    }

    pub(super) async fn fail_volume_snapshot(&self, id: VolumeSnapshotId, generation: u64) -> Result<bool, StoreError> {
        let snapshot = self.store.get_volume_snapshot(id).await?;
        let status = match snapshot.status {
            SnapshotStatus::Creating => SnapshotStatus::Error,
            SnapshotStatus::Deleting => SnapshotStatus::ErrorDeleting,
            _ => return Ok(false),
        };
        let volume = self.store.get_volume(snapshot.volume_id).await?;
        let Some(volume) = self.untouched_volume(volume.id, volume.generation).await? else { return Ok(false) };
        if snapshot.generation != generation {
            return Ok(false);
        }
        let fault = Some(format!("{}, {INTERRUPTED}", snapshot.status));
        let snapshots = vec![Write::Update(Snapshot { status, fault, updated_at: self.clock.now(), ..snapshot })];
        let volumes = vec![Write::Update(volume)];
        self.store.commit_volumes(VolumeCommit { volumes, snapshots, ..VolumeCommit::default() }).await?;
        Ok(true)
    }

    /// As `DELETE /attachments/ID` would, but for the wait: the volume host does it when it is there.
    pub(super) async fn end_attachment(
        &self,
        id: VolumeId,
        attachment: VolumeAttachmentId,
        generation: u64,
    ) -> Result<bool, StoreError> {
        let Some(mut volume) = self.untouched_volume(id, generation).await? else { return Ok(false) };
        let Some(found) = volume.attachments.get_mut(&attachment) else { return Ok(false) };
        let owner = match found.instance_id {
            Some(instance) => self.store.get_instance(instance).await?,
            None => return Ok(false),
        };
        if !owner.is_deleted() {
            return Ok(false);
        }
        let connected = found.connector.is_some();
        found.status = AttachmentStatus::Detaching;
        let pool = volume.pool.clone().filter(|_| connected);
        if pool.is_none() {
            volume.attachments.remove(&attachment);
        }
        if let Ok(status) = next(volume.status, volume.holds(), VolumeEvent::AttachmentGone) {
            volume.status = status;
        }
        let now = self.clock.now();
        let task = pool.map(|pool| VolumeTask {
            // No other task has an attachment's id: who repairs twice makes one.
            id: VolumeTaskId::from_uuid(*attachment.as_uuid()),
            volume_id: id,
            host: pool.host,
            work: VolumeWork::Disconnect { attachment },
            context: RequestContext::internal(owner.request_id),
            owner: None,
            lease_until: now,
            deadline: now.saturating_add(DEADLINE).unwrap_or(jiff::Timestamp::MAX),
            attempts: 0,
            waiter: None,
            created_at: now,
            generation: 0,
        });
        let volumes = vec![Write::Update(Volume { updated_at: now, ..volume })];
        let tasks = task.into_iter().map(Write::Create).collect();
        self.store.commit_volumes(VolumeCommit { volumes, tasks, ..VolumeCommit::default() }).await?;
        Ok(true)
    }

    pub(super) async fn settle_volume(&self, id: VolumeId, generation: u64) -> Result<bool, StoreError> {
        let Some(mut volume) = self.untouched_volume(id, generation).await? else { return Ok(false) };
        volume.status = rest(volume.holds());
        self.write_volume(volume).await
    }
}

/// What a volume is whose task is lost. A volume that was read only has lost nothing.
fn given_up(volume: &Volume) -> Option<VolumeStatus> {
    use VolumeStatus as S;
    match volume.status {
        S::Creating | S::Downloading => Some(S::Error),
        S::Deleting => Some(S::ErrorDeleting),
        S::Extending => Some(S::ErrorExtending),
        S::Uploading => Some(rest(volume.holds())),
        _ => None,
    }
}
