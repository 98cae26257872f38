//! What is written when a task is over.

use std::collections::BTreeMap;

use nova_core::error::chain;
use nova_core::ids::{HostName, VolumeSnapshotId};
use nova_core::rpc::compute::{ExtendVolume, ExtendVolumeRequest};
use nova_core::rpc::conductor::{StartTask, StartTaskRequest};
use nova_core::volume::{
    AttachmentStatus, GIB, Snapshot, SnapshotEvent, Volume, VolumeEvent, VolumeRefusal, VolumeSource, VolumeTask,
    VolumeWork, next, next_snapshot,
};
use nova_db::{StoreError, VolumeCommit, Write};

use super::VolumeHost;
use super::work::Done;

/// How often an end is written again when the volume changed meanwhile.
const ATTEMPTS: usize = 32;

/// The volume as it is, with what it is to be.
struct Ending {
    volume: Volume,
    snapshots: Vec<Snapshot>,
    commit: VolumeCommit,
}

impl Ending {
    fn happen(&mut self, event: VolumeEvent) -> Result<(), VolumeRefusal> {
        self.volume.status = next(self.volume.status, self.volume.holds(), event)?;
        Ok(())
    }

    /// What happens to one snapshot; one that went on to something else stays as it is.
    fn snapshot(&mut self, id: VolumeSnapshotId, event: SnapshotEvent, fault: Option<&str>) {
        let Some(snapshot) = self.snapshots.iter().find(|snapshot| snapshot.id == id).cloned() else { return };
        if let Ok(status) = next_snapshot(snapshot.status, event) {
            let fault = fault.map(str::to_owned);
            let updated_at = self.volume.updated_at;
            self.commit.snapshots.push(Write::Update(Snapshot { status, fault, updated_at, ..snapshot }));
        }
    }
}

impl VolumeHost {
    /// Writes an end, decided from what the volume is, until nobody changes it meanwhile. A task that is not ours any more has
    /// no end to write.
    async fn end<F>(&self, task: &VolumeTask, is_ours: bool, decide: F) -> Result<(), StoreError>
    where
        F: Fn(&mut Ending) -> Result<End, VolumeRefusal> + Send + Sync,
    {
        let store = &self.inner.parts.store;
        let mut tries = 0;
        loop {
            tries += 1;
            // The volume before the task: whoever takes the task away writes the volume, too.
            let read = match store.get_volume(task.volume_id).await {
                Ok(volume) => volume,
                Err(StoreError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let held = if is_ours {
                self.claim(task.id).await.map(drop)
            } else {
                store.get_volume_task(task.id).await.map(drop)
            };
            match held {
                Ok(()) => {}
                Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            let snapshots = self.snapshots_of(task.volume_id).await?;
            let volume = Volume { updated_at: self.now(), ..read.clone() };
            let mut ending = Ending { volume, snapshots, commit: VolumeCommit::default() };
            let end = match decide(&mut ending) {
                Ok(end) => end,
                Err(refusal) => {
                    // An operator said otherwise meanwhile.
                    tracing::warn!(volume = %task.volume_id, found = %refusal.found, "an operation ended in another state");
                    ending.volume = Volume { updated_at: self.now(), ..read };
                    ending.commit = VolumeCommit::default();
                    End::Kept
                }
            };
            let mut commit = ending.commit;
            commit.volumes.push(match end {
                End::Kept => Write::Update(ending.volume),
                End::Gone => Write::Delete(ending.volume),
            });
            if let End::Gone = end {
                commit.snapshots.extend(ending.snapshots.into_iter().map(Write::Delete));
            }
            commit.tasks.push(Write::Delete(task.clone()));
            match store.commit_volumes(commit).await {
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => {}
                answer => return answer.map(drop),
            }
        }
    }

    /// Writes that a task was done.
    pub(super) async fn succeeded(&self, task: &VolumeTask, done: Done) -> Result<(), StoreError> {
        let decide = |ending: &mut Ending| {
            ending.volume.fault = None;
            match &task.work {
                VolumeWork::Create { source } => {
                    ending.happen(VolumeEvent::Built)?;
                    let volume = &mut ending.volume;
                    volume.launched_at = volume.launched_at.or(Some(volume.updated_at));
                    volume.bootable |= matches!(source, VolumeSource::Image(_));
                }
                VolumeWork::Delete => return Ok(End::Gone),
                VolumeWork::Extend { to_gb, .. } => {
                    ending.volume.size_gb = *to_gb;
                    ending.volume.growing_to_gb = None;
                    ending.happen(VolumeEvent::ExtendEnded)?;
                }
                VolumeWork::TakeSnapshot { snapshot } => ending.snapshot(*snapshot, SnapshotEvent::Taken, None),
                VolumeWork::DeleteSnapshot { snapshot } => {
                    let gone = ending.snapshots.iter().find(|one| one.id == *snapshot).cloned();
                    ending.commit.snapshots.extend(gone.map(Write::Delete));
                }
                VolumeWork::Upload { .. } => ending.happen(VolumeEvent::UploadEnded)?,
                VolumeWork::Reimage { image, remembered } => {
                    ending.happen(VolumeEvent::ReimageEnded)?;
                    let volume = &mut ending.volume;
                    volume.image_metadata.clone_from(remembered);
                    (volume.image_id, volume.bootable) = (Some(*image), true);
                }
                VolumeWork::Connect { attachment } => {
                    if let Some(attachment) = ending.volume.attachments.get_mut(attachment) {
                        attachment.connection_info.clone_from(&done.connection);
                    }
                }
                VolumeWork::Disconnect { attachment } => {
                    ending.volume.attachments.remove(attachment);
                    ending.happen(VolumeEvent::AttachmentGone)?;
                }
            }
            Ok(End::Kept)
        };
        self.end(task, true, decide).await?;
        if let VolumeWork::Extend { to_gb, .. } = &task.work {
            self.tell_guests(task, *to_gb).await;
        }
        self.wake_waiter(task).await;
        Ok(())
    }

    /// Who waits for it goes on. If the word is lost, a sweep finds that it can.
    async fn wake_waiter(&self, task: &VolumeTask) {
        let Some(waiter) = task.waiter else { return };
        let request = StartTaskRequest { tasks: vec![waiter], plugged: BTreeMap::new() };
        if let Err(error) = self.inner.parts.rpc.cast::<StartTask>(&task.context, &request).await {
            tracing::debug!(volume = %task.volume_id, task = %waiter, "who waits for it was not told: {}", chain(&error));
        }
    }

    /// The hosts of servers that have the volume have their guests see that it has grown. One that does not hear it sees it when
    /// its guest starts anew.
    async fn tell_guests(&self, task: &VolumeTask, to_gb: u64) {
        let Ok(volume) = self.inner.parts.store.get_volume(task.volume_id).await else { return };
        for attachment in volume.attachments.values().filter(|one| one.status == AttachmentStatus::Attached) {
            let (Some(instance_id), Some(host)) = (attachment.instance_id, attachment.host()) else { continue };
            let request = ExtendVolumeRequest { instance_id, volume_id: volume.id, bytes: to_gb.saturating_mul(GIB) };
            let told =
                self.inner.parts.rpc.cast_to::<ExtendVolume>(&HostName::new(host), &task.context, &request).await;
            if let Err(error) = told {
                tracing::warn!(volume = %volume.id, host, "its guest was not told that it has grown: {}", chain(&error));
            }
        }
    }

    /// Writes that a task failed.
    pub(super) async fn failed(&self, task: &VolumeTask, why: &str) -> Result<(), StoreError> {
        self.end_failed(task, why, true).await?;
        self.wake_waiter(task).await;
        if let VolumeWork::Upload { image, .. } = &task.work {
            match self.inner.parts.store.delete_image(*image).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends a task of a host that is away: it has had its time. When it comes back, its host finds what is left.
    pub(super) async fn give_up(&self, task: VolumeTask) {
        tracing::warn!(host = %task.host, volume = %task.volume_id, work = task.work.name(), "an operation is given up");
        let why = format!("the volume host {} was away until the operation's end", task.host);
        match self.end_failed(&task, &why, false).await {
            Ok(()) => self.wake_waiter(&task).await,
            Err(error) => {
                tracing::warn!(task = %task.id, "the end of an operation was not written: {}", chain(&error));
            }
        }
    }

    async fn end_failed(&self, task: &VolumeTask, why: &str, is_ours: bool) -> Result<(), StoreError> {
        let decide = |ending: &mut Ending| {
            ending.volume.fault = Some(why.chars().take(1000).collect());
            match &task.work {
                VolumeWork::Create { .. } => ending.happen(VolumeEvent::BuildFailed)?,
                VolumeWork::Delete => {
                    ending.happen(VolumeEvent::DeleteFailed)?;
                    let ids: Vec<VolumeSnapshotId> = ending.snapshots.iter().map(|snapshot| snapshot.id).collect();
                    ids.into_iter().for_each(|id| ending.snapshot(id, SnapshotEvent::DeleteFailed, Some(why)));
                }
                VolumeWork::Extend { .. } => {
                    ending.volume.growing_to_gb = None;
                    ending.happen(VolumeEvent::ExtendEnded)?;
                }
                VolumeWork::TakeSnapshot { snapshot } => {
                    ending.snapshot(*snapshot, SnapshotEvent::TakeFailed, Some(why));
                }
                VolumeWork::DeleteSnapshot { snapshot } => {
                    ending.snapshot(*snapshot, SnapshotEvent::DeleteFailed, Some(why));
                }
                VolumeWork::Upload { .. } => ending.happen(VolumeEvent::UploadEnded)?,
                // It is as it was.
                VolumeWork::Reimage { .. } => ending.happen(VolumeEvent::ReimageEnded)?,
                VolumeWork::Connect { attachment } => {
                    if let Some(attachment) = ending.volume.attachments.get_mut(attachment)
                        && attachment.status == nova_core::volume::AttachmentStatus::Attaching
                    {
                        attachment.status = nova_core::volume::AttachmentStatus::Reserved;
                        (attachment.connector, attachment.connection_info) = (None, None);
                    }
                    ending.happen(VolumeEvent::AttachmentMoved)?;
                }
                // It stays on its way: it is asked for again, or the host starts.
                VolumeWork::Disconnect { .. } => {}
            }
            Ok(End::Kept)
        };
        self.end(task, is_ours, decide).await
    }
}

/// Is the volume there afterwards?
enum End {
    Kept,
    Gone,
}
