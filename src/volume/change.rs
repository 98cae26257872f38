//! What is done to volumes that are there.

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, VolumeId};
use nova_core::image::{Image, ImageStatus, Visibility};
use nova_core::volume::{
    AttachmentStatus, Snapshot, SnapshotEvent, Volume, VolumeEvent, VolumeProblem, VolumeStatus, VolumeType,
    VolumeWork, next, next_snapshot, type_allows,
};
use nova_db::{VolumeCommit, Write};

use super::manager::{Intent, Look, Seen};
use super::{VolumeError, VolumeManager};

/// Attributes that users change; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeEdit {
    /// Display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// All labels.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Labels that are added or changed.
    pub add_metadata: BTreeMap<String, String>,
    /// A label that goes; it must be there.
    pub remove_metadata: Option<String>,
    /// Servers can boot from it.
    pub bootable: Option<bool>,
    /// Nobody may write to it; only while nobody has it.
    pub readonly: Option<bool>,
    /// What is remembered of its image: added or changed.
    pub add_image_metadata: BTreeMap<String, String>,
    /// What is to be forgotten of its image; it must be there.
    pub remove_image_metadata: Option<String>,
}

/// What an operator says of a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reset {
    /// Its state.
    pub status: Option<VolumeStatus>,
    /// Nobody has it, whatever the books say. Attachments that are connected are disconnected by their host first: they stay
    /// until then.
    pub detached: bool,
}

/// The event happens to the volume.
pub(super) fn happen(volume: &mut Volume, event: VolumeEvent) -> Result<(), VolumeProblem> {
    volume.status = next(volume.status, volume.holds(), event)?;
    Ok(())
}

impl VolumeManager {
    /// Changes what users may.
    ///
    /// # Errors
    /// There is no such volume, or no such label.
    pub async fn edit(&self, context: &RequestContext, id: VolumeId, edit: VolumeEdit) -> Result<Volume, VolumeError> {
        let (volume, _) =
            self.change(context, id, Look::Bare, |seen| edited(seen.volume, &edit).map(Intent::of)).await?;
        Ok(volume)
    }

    /// Removes a volume, with `cascade` its snapshots first. `force` whatever state it is in; callers may be administrators only.
    ///
    /// # Errors
    /// It is in somebody's hands, in another state, has snapshots, or something is being made of it.
    pub async fn delete(
        &self,
        context: &RequestContext,
        id: VolumeId,
        cascade: bool,
        force: bool,
    ) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            if seen.readers > 0 {
                return Err(VolumeProblem::Copied { volume: id });
            }
            if !cascade && !seen.snapshots.is_empty() {
                return Err(VolumeProblem::HasSnapshots { volume: id, count: seen.snapshots.len() });
            }
            happen(&mut seen.volume, VolumeEvent::Delete { force })?;
            let snapshots = seen.snapshots.into_iter().map(|snapshot| deleting(snapshot, force));
            let snapshots = snapshots.collect::<Result<Vec<_>, _>>()?;
            // What is being done to it otherwise is over.
            let tasks = seen.tasks.into_iter().map(Write::Delete).collect();
            let Some(pool) = seen.volume.pool.clone() else {
                let volumes = vec![Write::Delete(seen.volume)];
                return Ok(Intent { commit: VolumeCommit { volumes, tasks, ..VolumeCommit::default() }, task: None });
            };
            let task = self.task(context, id, &pool, VolumeWork::Delete);
            let volumes = vec![Write::Update(Volume { fault: None, growing_to_gb: None, ..seen.volume })];
            let snapshots = snapshots.into_iter().map(Write::Update).collect();
            let commit = VolumeCommit { volumes, snapshots, tasks, ..VolumeCommit::default() };
            Ok(Intent { commit, task: Some(task) })
        };
        self.change(context, id, Look::Whole, decide).await.map(drop)
    }

    /// Makes a volume larger.
    ///
    /// # Errors
    /// Not in this state, not larger, or more than pool and project have.
    pub async fn extend(
        &self,
        context: &RequestContext,
        id: VolumeId,
        to_gb: u64,
        online: bool,
    ) -> Result<(), VolumeError> {
        let types = self.parts.store.list_volume_types().await?;
        let decide = |mut seen: Seen| {
            let volume = &mut seen.volume;
            if to_gb <= volume.size_gb {
                return Err(VolumeProblem::input(format!(
                    "New size for extend must be greater than current size. (current: {}, extended: {to_gb}).",
                    volume.size_gb
                )));
            }
            let can = online && seen.pool.as_ref().is_some_and(|pool| pool.online_extend);
            happen(volume, VolumeEvent::Extend { online: can })?;
            let pool = in_a_pool(volume)?;
            let work = VolumeWork::Extend { from_gb: volume.size_gb, to_gb };
            volume.growing_to_gb = Some(to_gb);
            let task = self.task(context, id, &pool, work);
            let mut intent = Intent::of(seen.volume);
            intent.commit.limits = Some(self.parts.options.limits.clone());
            intent.commit.type_names = names(&types);
            intent.task = Some(task);
            Ok(intent)
        };
        self.change(context, id, Look::Whole, decide).await.map(drop)
    }

    /// Makes an image of a volume: it is described at once, and its data follows.
    ///
    /// # Errors
    /// Not in this state, or an image format that is not made here.
    pub async fn upload(
        &self,
        context: &RequestContext,
        id: VolumeId,
        name: &str,
        disk_format: &str,
        visibility: Visibility,
        force: bool,
    ) -> Result<(Volume, Image), VolumeError> {
        if !["raw", "qcow2"].contains(&disk_format) {
            let text = format!("Invalid disk_format '{disk_format}': one of raw, qcow2");
            return Err(VolumeProblem::input(text).into());
        }
        if self.parts.images.is_none() {
            return Err(VolumeProblem::input("Images are not made of volumes here").into());
        }
        let image_id = ImageId::generate(&*self.parts.entropy);
        let describe = |volume: &Volume| {
            let now = self.now();
            let dropped = [
                "image_id",
                "image_name",
                "checksum",
                "disk_format",
                "container_format",
                "min_disk",
                "min_ram",
                "size",
            ];
            let mut properties = volume.image_metadata.clone();
            properties.retain(|key, _| !dropped.contains(&key.as_str()));
            let number =
                |key: &str| volume.image_metadata.get(key).and_then(|text| text.parse().ok()).unwrap_or_default();
            Image {
                id: image_id,
                name: Some(name.to_owned()),
                status: ImageStatus::Queued,
                visibility,
                owner: context.project_id.clone(),
                disk_format: Some(disk_format.to_owned()),
                container_format: Some("bare".to_owned()),
                size: None,
                virtual_size: None,
                checksum: None,
                os_hash_value: None,
                min_ram: number("min_ram"),
                min_disk: number("min_disk"),
                protected: false,
                os_hidden: false,
                tags: Default::default(),
                properties,
                members: BTreeMap::new(),
                created_at: now,
                updated_at: now,
                generation: 0,
            }
        };
        let decide = |mut seen: Seen| {
            let can = force && seen.pool.as_ref().is_some_and(|pool| pool.live_copy);
            happen(&mut seen.volume, VolumeEvent::Upload { force: can })?;
            let pool = in_a_pool(&seen.volume)?;
            let work = VolumeWork::Upload { image: image_id, disk_format: disk_format.to_owned() };
            let task = self.task(context, id, &pool, work);
            let image = describe(&seen.volume);
            let mut intent = Intent::of(seen.volume);
            intent.commit.images.push(image);
            intent.task = Some(task);
            Ok(intent)
        };
        let (volume, _) = self.change(context, id, Look::Whole, decide).await?;
        let image = self.parts.store.get_image(image_id).await?;
        Ok((volume, image))
    }

    /// Gives a volume another type, if its pool does for that one. Volumes are not moved: one that would have to be is refused.
    ///
    /// # Errors
    /// Not in this state, or another pool would be needed.
    pub async fn retype(&self, context: &RequestContext, id: VolumeId, to: &VolumeType) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            happen(&mut seen.volume, VolumeEvent::Retype)?;
            if seen.volume.volume_type_id == Some(to.id) {
                return Err(VolumeProblem::input(format!("Volume is already of type {}.", to.name)));
            }
            let multiattach = to.is_multiattach();
            if multiattach != seen.volume.multiattach && seen.volume.holds().total() > 0 {
                let text =
                    "Changing between multiattach and other types is only supported while the volume is available.";
                return Err(VolumeProblem::input(text));
            }
            if !seen.pool.as_ref().is_some_and(|pool| type_allows(&to.extra_specs, pool)) {
                let text = "Retype requires migration but is not allowed.";
                return Err(VolumeProblem::invalid(text));
            }
            if !seen.snapshots.is_empty() {
                return Err(VolumeProblem::invalid("Volume must not have snapshots."));
            }
            seen.volume.volume_type_id = Some(to.id);
            seen.volume.multiattach = multiattach;
            let mut intent = Intent::of(seen.volume);
            intent.commit.limits = Some(self.parts.options.limits.clone());
            intent.commit.type_names.insert(to.id, to.name.clone());
            Ok(intent)
        };
        self.change(context, id, Look::Whole, decide).await.map(drop)
    }

    /// An operator says what a volume is. What is being done to it goes on, and says so when it is over.
    ///
    /// # Errors
    /// It is connected to a host and cannot be called free.
    pub async fn reset(&self, context: &RequestContext, id: VolumeId, reset: Reset) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            if reset.detached {
                if seen.volume.attachments.values().any(|attachment| attachment.connector.is_some()) {
                    return Err(VolumeProblem::invalid("It is connected to a host: delete its attachments."));
                }
                seen.volume.attachments.clear();
            }
            if let Some(status) = reset.status {
                happen(&mut seen.volume, VolumeEvent::Reset(status))?;
            }
            Ok(Intent::of(seen.volume))
        };
        self.change(context, id, Look::Bare, decide).await.map(drop)
    }

    /// Its server is to give it back; refused where a server has it not.
    ///
    /// # Errors
    /// Not in this state.
    pub async fn begin_detaching(&self, context: &RequestContext, id: VolumeId) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            if !seen.volume.attachments.values().any(|one| one.status == AttachmentStatus::Attached) {
                return Err(VolumeProblem::invalid(format!(
                    "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach, but the status is {}.",
                    seen.volume.status
                )));
            }
            happen(&mut seen.volume, VolumeEvent::BeginDetaching)?;
            Ok(Intent::of(seen.volume))
        };
        self.change(context, id, Look::Bare, decide).await.map(drop)
    }

    /// Its server keeps it. Fine if nobody asked for it.
    ///
    /// # Errors
    /// There is no such volume.
    pub async fn roll_detaching(&self, context: &RequestContext, id: VolumeId) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            if seen.volume.status == VolumeStatus::Detaching {
                happen(&mut seen.volume, VolumeEvent::RollDetaching)?;
            }
            Ok(Intent::of(seen.volume))
        };
        self.change(context, id, Look::Bare, decide).await.map(drop)
    }
}

fn edited(mut volume: Volume, edit: &VolumeEdit) -> Result<Volume, VolumeProblem> {
    if let Some(name) = &edit.name {
        volume.name.clone_from(name);
    }
    if let Some(description) = &edit.description {
        volume.description.clone_from(description);
    }
    if let Some(metadata) = &edit.metadata {
        volume.metadata.clone_from(metadata);
    }
    volume.metadata.extend(edit.add_metadata.clone());
    volume.image_metadata.extend(edit.add_image_metadata.clone());
    let gone =
        [(&edit.remove_metadata, &mut volume.metadata), (&edit.remove_image_metadata, &mut volume.image_metadata)];
    for (key, from) in gone {
        if let Some(key) = key.as_ref().filter(|key| from.remove(*key).is_none()) {
            let id = volume.id;
            return Err(VolumeProblem::NotFound { kind: "Metadata", id: format!("key {key} of volume {id}") });
        }
    }
    volume.bootable = edit.bootable.unwrap_or(volume.bootable);
    if let Some(readonly) = edit.readonly {
        if volume.holds().total() > 0 {
            let text = format!(
                "Updating volume readonly attribute requires an available volume, but the status is {}.",
                volume.status
            );
            return Err(VolumeProblem::invalid(text));
        }
        volume.readonly = readonly;
    }
    Ok(volume)
}

/// A snapshot that is to go.
pub(super) fn deleting(snapshot: Snapshot, force: bool) -> Result<Snapshot, VolumeProblem> {
    let status = next_snapshot(snapshot.status, SnapshotEvent::Delete { force })
        .map_err(|needs| VolumeProblem::SnapshotStatus { snapshot: snapshot.id, needs, found: snapshot.status })?;
    Ok(Snapshot { status, fault: None, ..snapshot })
}

/// The pool of a volume on which something is to be done.
pub(super) fn in_a_pool(volume: &Volume) -> Result<nova_core::volume::PoolName, VolumeProblem> {
    volume.pool.clone().ok_or_else(|| VolumeProblem::invalid("It is in no pool."))
}

/// Names of types by id.
pub(super) fn names(types: &[VolumeType]) -> BTreeMap<nova_core::ids::VolumeTypeId, String> {
    types.iter().map(|of| (of.id, of.name.clone())).collect()
}
