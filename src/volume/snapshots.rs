//! Snapshots.

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::ids::{VolumeId, VolumeSnapshotId};
use nova_core::volume::{
    Snapshot, SnapshotEvent, SnapshotStatus, VolumeEvent, VolumeProblem, VolumeStatus, VolumeWork, next_snapshot,
};
use nova_db::{StoreError, Write};

use super::change::{deleting, happen, in_a_pool, names};
use super::manager::{Intent, Look, Seen};
use super::{VolumeError, VolumeManager};

impl VolumeManager {
    /// Takes a snapshot; of a volume in use only by `force`, and where its pool can.
    ///
    /// # Errors
    /// Not in this state, or the project may not have more.
    pub async fn take_snapshot(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        name: &str,
        description: &str,
        metadata: &BTreeMap<String, String>,
        force: bool,
    ) -> Result<Snapshot, VolumeError> {
        let id = VolumeSnapshotId::generate(&*self.parts.entropy);
        self.take_snapshot_as(context, id, volume, (name, description), metadata, force).await
    }

    /// The same with the id that it is to have; `words`: its name and description. A second one of that id is not taken.
    ///
    /// # Errors
    /// As of [`take_snapshot`](Self::take_snapshot).
    pub async fn take_snapshot_as(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
        volume: VolumeId,
        words: (&str, &str),
        metadata: &BTreeMap<String, String>,
        force: bool,
    ) -> Result<Snapshot, VolumeError> {
        match self.parts.store.get_volume_snapshot(id).await {
            Ok(there) if there.volume_id == volume => return Ok(there),
            Ok(_) => return Err(VolumeProblem::invalid(format!("Snapshot {id} is of another volume.")).into()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let types = self.parts.store.list_volume_types().await?;
        let (name, description) = words;
        let describe = |seen: &Seen| Snapshot {
            id,
            volume_id: volume,
            project_id: seen.volume.project_id.clone(),
            user_id: context.user_id.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            size_gb: seen.volume.size_gb,
            status: SnapshotStatus::Creating,
            pool: seen.volume.pool.clone(),
            volume_type_id: seen.volume.volume_type_id,
            metadata: metadata.clone(),
            fault: None,
            created_at: self.now(),
            updated_at: self.now(),
            generation: 0,
        };
        let decide = |mut seen: Seen| {
            happen(&mut seen.volume, VolumeEvent::TakeSnapshot { force })?;
            let can = seen.pool.as_ref().is_some_and(|pool| pool.live_snapshot);
            if seen.volume.status == VolumeStatus::InUse && !can {
                let text =
                    format!("Volume {volume} is in use, and its pool takes snapshots only of volumes that are not.");
                return Err(VolumeProblem::invalid(text));
            }
            let pool = in_a_pool(&seen.volume)?;
            let snapshot = describe(&seen);
            let mut intent = Intent::of(seen.volume);
            intent.commit.snapshots.push(Write::Create(snapshot));
            intent.commit.limits = Some(self.parts.options.limits.clone());
            intent.commit.type_names = names(&types);
            intent.task = Some(self.task(context, volume, &pool, VolumeWork::TakeSnapshot { snapshot: id }));
            Ok(intent)
        };
        self.change(context, volume, Look::Whole, decide).await?;
        Ok(self.parts.store.get_volume_snapshot(id).await?)
    }

    /// Changes a snapshot by itself: name, text, labels, or what an operator says that it is.
    ///
    /// # Errors
    /// There is no such snapshot, or what `change` says.
    pub async fn edit_snapshot<F>(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
        change: F,
    ) -> Result<Snapshot, VolumeError>
    where
        F: Fn(&mut Snapshot) -> Result<(), VolumeProblem> + Send + Sync,
    {
        let snapshot = self.snapshot(context, id).await?;
        let decide = |seen: Seen| {
            let mut snapshot = of(&seen, id)?;
            change(&mut snapshot)?;
            snapshot.updated_at = self.now();
            let mut intent = Intent::of(seen.volume);
            intent.commit.snapshots.push(Write::Update(snapshot));
            Ok(intent)
        };
        self.change(context, snapshot.volume_id, Look::Whole, decide).await?;
        self.snapshot(context, id).await
    }

    /// Removes a snapshot; `force` whatever state it is in.
    ///
    /// # Errors
    /// Not in this state, or something is being made of it.
    pub async fn delete_snapshot(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
        force: bool,
    ) -> Result<(), VolumeError> {
        let snapshot = self.snapshot(context, id).await?;
        let decide = |seen: Seen| {
            if seen.readers > 0 {
                return Err(VolumeProblem::Copied { volume: seen.volume.id });
            }
            let snapshot = deleting(of(&seen, id)?, force)?;
            let Some(pool) = snapshot.pool.clone() else {
                let mut intent = Intent::of(seen.volume);
                intent.commit.snapshots.push(Write::Delete(snapshot));
                return Ok(intent);
            };
            let volume = seen.volume.id;
            let superseded = seen
                .tasks
                .into_iter()
                .filter(|task| matches!(task.work, VolumeWork::TakeSnapshot { snapshot } if snapshot == id));
            let superseded: Vec<_> = superseded.map(Write::Delete).collect();
            let mut intent = Intent::of(seen.volume);
            intent.commit.snapshots.push(Write::Update(snapshot));
            intent.commit.tasks.extend(superseded);
            intent.task = Some(self.task(context, volume, &pool, VolumeWork::DeleteSnapshot { snapshot: id }));
            Ok(intent)
        };
        self.change(context, snapshot.volume_id, Look::Whole, decide).await.map(drop)
    }

    /// An operator says what a snapshot is.
    ///
    /// # Errors
    /// There is no such snapshot.
    pub async fn reset_snapshot(
        &self,
        context: &RequestContext,
        id: VolumeSnapshotId,
        status: SnapshotStatus,
    ) -> Result<(), VolumeError> {
        let reset = |snapshot: &mut Snapshot| {
            let next = next_snapshot(snapshot.status, SnapshotEvent::Reset(status));
            snapshot.status = next.unwrap_or(snapshot.status);
            Ok(())
        };
        self.edit_snapshot(context, id, reset).await.map(drop)
    }
}

/// The snapshot among those of its volume.
fn of(seen: &Seen, id: VolumeSnapshotId) -> Result<Snapshot, VolumeProblem> {
    let found = seen.snapshots.iter().find(|snapshot| snapshot.id == id);
    found.cloned().ok_or_else(|| VolumeProblem::no_snapshot(id))
}
