//! New volumes.

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, TaskId, VolumeId, VolumeSnapshotId};
use nova_core::image::ImageMeta;
use nova_core::volume::{
    GIB, PoolName, SnapshotEvent, Volume, VolumeEvent, VolumeProblem, VolumeSource, VolumeStatus, VolumeTask,
    VolumeType, VolumeWork, next, next_snapshot,
};
use nova_db::{StoreError, VolumeCommit, Write};

use super::place::{Wanted, place};
use super::{VolumeError, VolumeManager};

/// How often a source that changes meanwhile is read again.
const ATTEMPTS: usize = 16;

/// What a new volume is to be made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MadeOf {
    /// Nothing.
    #[default]
    Nothing,
    /// An image that the caller may see.
    Image(ImageId),
    /// A snapshot of the caller's.
    Snapshot(VolumeSnapshotId),
    /// A volume of the caller's.
    Volume(VolumeId),
}

/// A volume that is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateVolume {
    /// Its id, where the caller must know it before: a second request of the same id makes no second volume.
    pub id: Option<VolumeId>,
    /// GiB; of something that has a size it may be left out.
    pub size_gb: Option<u64>,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// In this zone.
    pub availability_zone: Option<String>,
    /// Of the type of this name or id.
    pub volume_type: Option<String>,
    /// Made of this.
    pub made_of: MadeOf,
    /// For several hands, whatever the type says.
    pub multiattach: bool,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// The server's task that is woken once it is made, or cannot be.
    pub waiter: Option<TaskId>,
}

/// What is known of what it is made of.
#[derive(Default)]
struct Origin {
    source: Option<VolumeSource>,
    size_gb: u64,
    volume_type: Option<VolumeType>,
    pool: Option<PoolName>,
    image: Option<ImageMeta>,
    bootable: bool,
    multiattach: bool,
    image_metadata: BTreeMap<String, String>,
    /// The volume that stays as it is until this one is made.
    read: Option<Volume>,
}

impl VolumeManager {
    /// A new volume. It is there when this returns, and being made; where no pool can take it, it is in error at once, as in
    /// Cinder.
    ///
    /// # Errors
    /// What it is to be made of is not there or not ready, sizes do not fit, the project may not have more.
    pub async fn create(&self, context: &RequestContext, new: CreateVolume) -> Result<Volume, VolumeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_create(context, &new).await {
                Err(VolumeError::Store(StoreError::Conflict { .. })) if tries < ATTEMPTS => {}
                Err(VolumeError::Store(StoreError::Duplicate { .. })) if new.id.is_some() => {
                    return match new.id {
                        Some(id) => self.volume(context, id).await,
                        None => Err(VolumeProblem::invalid("it is there already").into()),
                    };
                }
                answer => return answer,
            }
        }
    }

    async fn try_create(&self, context: &RequestContext, new: &CreateVolume) -> Result<Volume, VolumeError> {
        let origin = self.origin(context, new).await?;
        let size_gb = new.size_gb.unwrap_or(origin.size_gb);
        if size_gb == 0 {
            return Err(VolumeProblem::input("Volume size '0' must be an integer and greater than 0").into());
        }
        if size_gb < origin.size_gb {
            let text = format!(
                "Volume size '{size_gb}'GB cannot be smaller than the original {} size {}GB. They must be >= original size.",
                origin_word(new.made_of),
                origin.size_gb
            );
            return Err(VolumeProblem::input(text).into());
        }
        let volume_type = match (&new.volume_type, &origin.volume_type) {
            (Some(named), _) => Some(self.volume_type(context, named).await?),
            (None, Some(of_source)) => Some(of_source.clone()),
            (None, None) => self.default_type().await?,
        };
        let multiattach =
            new.multiattach || origin.multiattach || volume_type.as_ref().is_some_and(VolumeType::is_multiattach);
        let volume = self.new_volume(context, new, &origin, size_gb, multiattach, volume_type.as_ref());
        let pools = match self.pools_for(new, &origin, &volume, volume_type.as_ref()).await? {
            Ok(pools) => pools,
            Err(problem) => return self.keep_failed(volume, volume_type.as_ref(), &problem).await,
        };
        let mut last = VolumeProblem::NoPool { reason: String::new() };
        for (pool, zone) in pools {
            let volume = Volume { pool: Some(pool.clone()), availability_zone: zone.as_str().into(), ..volume.clone() };
            let task = self.building(context, new, &origin, volume.id, &pool);
            match self.commit_new(volume, task, &origin, volume_type.as_ref()).await {
                Err(VolumeError::Store(StoreError::Volume(full @ VolumeProblem::NoRoom { .. }))) => last = full,
                answer => return answer,
            }
        }
        self.keep_failed(volume, volume_type.as_ref(), &last).await
    }

    async fn origin(&self, context: &RequestContext, new: &CreateVolume) -> Result<Origin, VolumeError> {
        match new.made_of {
            MadeOf::Nothing => Ok(Origin { source: Some(VolumeSource::Empty), ..Origin::default() }),
            MadeOf::Image(id) => self.of_image(context, id).await,
            MadeOf::Snapshot(id) => {
                let snapshot = self.snapshot(context, id).await?;
                if let Err(needs) = next_snapshot(snapshot.status, SnapshotEvent::CopyFrom) {
                    return Err(VolumeProblem::SnapshotStatus { snapshot: id, needs, found: snapshot.status }.into());
                }
                let read = self.volume(context, snapshot.volume_id).await?;
                Ok(Origin {
                    source: Some(VolumeSource::Snapshot { id, volume_id: read.id }),
                    size_gb: snapshot.size_gb,
                    ..self.of_volume(read).await?
                })
            }
            MadeOf::Volume(id) => {
                let read = self.volume(context, id).await?;
                next(read.status, read.holds(), VolumeEvent::CopyFrom).map_err(VolumeProblem::from)?;
                let can = self.pool_of(&read).await?.is_some_and(|pool| pool.live_copy);
                if read.status == VolumeStatus::InUse && !can {
                    return Err(VolumeProblem::invalid(format!(
                        "Volume {id} is in use, and its pool copies only volumes that are not."
                    ))
                    .into());
                }
                self.of_volume(read).await
            }
        }
    }

    async fn of_volume(&self, read: Volume) -> Result<Origin, VolumeError> {
        let volume_type = match read.volume_type_id {
            Some(id) => Some(self.parts.store.get_volume_type(id).await?),
            None => None,
        };
        Ok(Origin {
            source: Some(VolumeSource::Volume(read.id)),
            size_gb: read.size_gb,
            volume_type,
            pool: read.pool.clone(),
            image: None,
            bootable: read.bootable,
            multiattach: read.multiattach,
            image_metadata: read.image_metadata.clone(),
            read: Some(read),
        })
    }

    async fn of_image(&self, context: &RequestContext, id: ImageId) -> Result<Origin, VolumeError> {
        let Some(images) = &self.parts.images else {
            return Err(VolumeProblem::input("Volumes are not made of images here").into());
        };
        let image = images.bootable_image(context, id).await?;
        let needed = image.min_disk.max(image.virtual_size.div_ceil(GIB)).max(1);
        Ok(Origin {
            source: Some(VolumeSource::Image(id)),
            size_gb: needed,
            bootable: true,
            image_metadata: image.remembered(),
            image: Some(image),
            ..Origin::default()
        })
    }

    fn new_volume(
        &self,
        context: &RequestContext,
        new: &CreateVolume,
        origin: &Origin,
        size_gb: u64,
        multiattach: bool,
        volume_type: Option<&VolumeType>,
    ) -> Volume {
        let now = self.now();
        Volume {
            id: new.id.unwrap_or_else(|| VolumeId::generate(&*self.parts.entropy)),
            project_id: context.project_id.clone(),
            user_id: context.user_id.clone(),
            name: new.name.clone(),
            description: new.description.clone(),
            size_gb,
            growing_to_gb: None,
            status: if origin.image.is_some() { VolumeStatus::Downloading } else { VolumeStatus::Creating },
            pool: None,
            availability_zone: new.availability_zone.as_deref().unwrap_or("nova").into(),
            volume_type_id: volume_type.map(|of| of.id),
            bootable: origin.bootable,
            multiattach,
            readonly: false,
            metadata: new.metadata.clone(),
            image_metadata: origin.image_metadata.clone(),
            snapshot_id: match new.made_of {
                MadeOf::Snapshot(id) => Some(id),
                _ => None,
            },
            source_volid: match new.made_of {
                MadeOf::Volume(id) => Some(id),
                _ => None,
            },
            image_id: origin.image.as_ref().map(|image| image.id),
            fault: None,
            attachments: BTreeMap::new(),
            created_at: now,
            updated_at: now,
            launched_at: None,
            generation: 0,
        }
    }

    /// Pools with their zones, the best first. What is made of something is made where that is.
    async fn pools_for(
        &self,
        new: &CreateVolume,
        origin: &Origin,
        volume: &Volume,
        volume_type: Option<&VolumeType>,
    ) -> Result<Result<Vec<(PoolName, String)>, VolumeProblem>, VolumeError> {
        let mut pools = self.live_pools().await?;
        let zone = new.availability_zone.as_deref();
        let known = self.parts.store.list_volume_pools().await?;
        if let Some(zone) = zone.filter(|zone| known.iter().all(|pool| pool.zone.as_str() != *zone)) {
            return Err(VolumeProblem::input(format!("Availability zone '{zone}' is invalid.")).into());
        }
        if let Some(there) = &origin.pool {
            pools.retain(|pool| pool.name == *there);
        }
        let none = BTreeMap::new();
        let wanted = Wanted {
            size_gb: volume.size_gb,
            zone,
            specs: volume_type.map_or(&none, |of| &of.extra_specs),
            multiattach: volume.multiattach,
        };
        let placed = place(&pools, wanted, self.parts.entropy.next_u64());
        let with_zone = |name: PoolName| {
            let zone = pools.iter().find(|pool| pool.name == name).map(|pool| pool.zone.to_string());
            zone.map(|zone| (name, zone))
        };
        Ok(placed.map(|names| names.into_iter().filter_map(with_zone).collect()))
    }

    fn new_commit(&self, volume: Volume, volume_type: Option<&VolumeType>) -> VolumeCommit {
        VolumeCommit {
            volumes: vec![Write::Create(volume)],
            limits: Some(self.parts.options.limits.clone()),
            type_names: volume_type.map(|of| (of.id, of.name.clone())).into_iter().collect(),
            ..VolumeCommit::default()
        }
    }

    fn building(
        &self,
        context: &RequestContext,
        new: &CreateVolume,
        origin: &Origin,
        volume: VolumeId,
        pool: &PoolName,
    ) -> VolumeTask {
        let source = origin.source.unwrap_or(VolumeSource::Empty);
        VolumeTask { waiter: new.waiter, ..self.task(context, volume, pool, VolumeWork::Create { source }) }
    }

    async fn commit_new(
        &self,
        volume: Volume,
        task: VolumeTask,
        origin: &Origin,
        volume_type: Option<&VolumeType>,
    ) -> Result<Volume, VolumeError> {
        let mut commit = self.new_commit(volume, volume_type);
        commit.volumes.extend(origin.read.clone().map(Write::Update));
        commit.tasks.push(Write::Create(task.clone()));
        let mut written = self.parts.store.commit_volumes(commit).await?;
        written.retain(|volume| volume.id == task.volume_id);
        self.tell(&task).await;
        written.pop().ok_or_else(|| VolumeProblem::no_volume(task.volume_id).into())
    }

    /// Accepted, and failed at once: nothing is left to be done but to be looked at and deleted.
    async fn keep_failed(
        &self,
        volume: Volume,
        volume_type: Option<&VolumeType>,
        problem: &VolumeProblem,
    ) -> Result<Volume, VolumeError> {
        tracing::warn!(volume = %volume.id, "no pool takes a new volume: {problem}");
        let failed = Volume { status: VolumeStatus::Error, fault: Some(problem.to_string()), ..volume };
        let mut written = self.parts.store.commit_volumes(self.new_commit(failed, volume_type)).await?;
        written.pop().ok_or_else(|| problem.clone().into())
    }
}

fn origin_word(made_of: MadeOf) -> &'static str {
    match made_of {
        MadeOf::Snapshot(_) => "snapshot",
        MadeOf::Volume(_) => "volume",
        MadeOf::Image(_) | MadeOf::Nothing => "image",
    }
}
