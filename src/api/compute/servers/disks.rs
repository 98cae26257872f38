//! The volumes that a create request asks for (nova/compute/api.py, `_check_and_transform_bdm`, `_validate_bdm`).

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{BlockDeviceId, ImageId, VolumeId, VolumeSnapshotId};
use nova_core::image::ImageMeta;
use nova_core::volume::{BlockSource, BlockStorage, BlockStorageError, ServerVolume, VolumeStatus, VolumeToMake};

use super::body::CreateBody;
use super::local_disks::AskedDisks;
use super::mapping::{self, Mapping, Source, wrong};
use crate::api::compute::ComputeApi;
use crate::api::compute::volume_attachments::refused;
use crate::api::{ApiError, policy};

/// A volume of a server that is to be, without what is each server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedVolume {
    /// The one that is there; `None`: one is made.
    there: Option<VolumeId>,
    make: Option<VolumeToMake>,
    boot_index: Option<u32>,
    delete_on_termination: bool,
    tag: Option<String>,
    shareable: bool,
    read_only: bool,
}

/// All disks of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Disks {
    /// Its volumes, in order.
    pub(crate) volumes: Vec<WantedVolume>,
    /// Its blank disks on the host.
    pub(crate) asked: AskedDisks,
    /// The image that its root volume is made of.
    pub(crate) root_image: Option<ImageId>,
    /// What its root volume, or the one that this is made of, remembers of an image.
    pub(crate) root_remembers: BTreeMap<String, String>,
}

impl Disks {
    /// Does the server boot from a volume?
    pub(crate) fn boots_from_volume(&self) -> bool {
        self.root().is_some()
    }

    fn root(&self) -> Option<&WantedVolume> {
        self.volumes.iter().find(|volume| volume.boot_index == Some(0))
    }

    /// How large the root volume is to be made, where the request says so.
    pub(crate) fn root_gb(&self) -> Option<u64> {
        self.root().and_then(|root| root.make.as_ref()).and_then(|make| make.size_gb)
    }

    /// The volumes of one server.
    pub(crate) fn of_server(&self, entropy: &dyn Entropy) -> Vec<ServerVolume> {
        let own = |wanted: &WantedVolume| ServerVolume {
            id: BlockDeviceId::generate(entropy),
            volume_id: wanted.there.unwrap_or_else(|| VolumeId::generate(entropy)),
            make: wanted.make.clone(),
            holds: Vec::new(),
            device: None,
            tag: wanted.tag.clone(),
            boot_index: wanted.boot_index,
            delete_on_termination: wanted.delete_on_termination,
            shareable: wanted.shareable,
            read_only: wanted.read_only,
            swap: None,
        };
        self.volumes.iter().map(own).collect()
    }
}

fn boot_sequence() -> ApiError {
    wrong("Boot sequence for the instance and image/block device mapping combination is not valid.")
}

/// The places in the boot order are 0, 1, …, each once. The image's own disk is at 0 where no mapping is.
fn check_boot_order(body: &CreateBody, mappings: &[Mapping]) -> Result<(), ApiError> {
    let mut places: Vec<u32> = mappings.iter().filter_map(|mapping| mapping.boot_index).collect();
    let image = body.image_ref.as_deref().is_some_and(|image| !image.is_empty());
    if image && !places.contains(&0) {
        places.push(0);
    }
    places.sort_unstable();
    let in_order = places.iter().enumerate().all(|(number, place)| usize::try_from(*place) == Ok(number));
    if places.is_empty() || !in_order {
        return Err(boot_sequence());
    }
    Ok(())
}

/// Looks the disks of a request up; `image`: the one that it names.
///
/// # Errors
/// 400 for what is not there, not ready, not bootable or has no size.
pub(crate) async fn disks(
    api: &ComputeApi,
    context: &RequestContext,
    body: &CreateBody,
    image: Option<&ImageMeta>,
) -> Result<Disks, ApiError> {
    let mut found = Disks::default();
    let of_image = image.map(|image| mapping::of_image(&image.properties)).transpose()?.unwrap_or_default();
    let mappings = mapping::merged(of_image, &body.mappings, &body.nothing_at);
    if mappings.is_empty() {
        return Ok(found);
    }
    check_boot_order(body, &mappings)?;
    for mapping in &mappings {
        if mapping.is_image_root() {
            let Source::Image(image) = &mapping.source else { continue };
            if body.image_ref.as_deref() != Some(image.as_str()) {
                return Err(boot_sequence());
            }
            continue;
        }
        if !mapping.volume && mapping.source == Source::Blank {
            // An empty disk boots nothing.
            if mapping.boot_index.is_some() {
                return Err(boot_sequence());
            }
            let of_kind = if mapping.swap { &mut found.asked.swaps } else { &mut found.asked.ephemerals };
            of_kind.push(mapping.size_gb);
            continue;
        }
        policy::enforce("os_compute_api:servers:create:attach_volume", context)?;
        let storage = api.block_storage()?;
        if let (Some(0), Source::Image(image)) = (mapping.boot_index, &mapping.source) {
            found.root_image = image.parse().ok();
        }
        let (wanted, remembers) = wanted(storage, context, body, mapping).await?;
        if wanted.boot_index == Some(0) {
            found.root_remembers = remembers;
        }
        found.volumes.push(wanted);
    }
    Ok(found)
}

async fn wanted(
    storage: &dyn BlockStorage,
    context: &RequestContext,
    body: &CreateBody,
    mapping: &Mapping,
) -> Result<(WantedVolume, BTreeMap<String, String>), ApiError> {
    let mut remembers = BTreeMap::new();
    let mut wanted = WantedVolume {
        there: None,
        make: None,
        boot_index: mapping.boot_index,
        delete_on_termination: mapping.delete_on_termination,
        tag: mapping.tag.clone(),
        shareable: false,
        read_only: false,
    };
    let source = match &mapping.source {
        Source::Volume(id) => {
            let remembers = volume(storage, context, body, id, &mut wanted).await?;
            return Ok((wanted, remembers));
        }
        Source::Snapshot(id) => {
            let (snapshot, of_volume) = snapshot(storage, context, id, mapping).await?;
            remembers = of_volume;
            BlockSource::Snapshot(snapshot)
        }
        Source::Image(id) => {
            let missing = |_| wrong(&format!("failed to get image {id}."));
            if mapping.size_gb.unwrap_or(0) == 0 {
                return Err(wrong("Images with destination_type 'volume' need to have a non-zero size specified"));
            }
            BlockSource::Image(id.parse().map_err(missing)?)
        }
        Source::Blank => {
            if mapping.size_gb.unwrap_or(0) == 0 {
                let text = "Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size";
                return Err(wrong(text));
            }
            if mapping.boot_index == Some(0) {
                return Err(boot_sequence());
            }
            BlockSource::Empty
        }
    };
    if let Some(name) = &mapping.volume_type
        && !storage.has_type(context, name).await.map_err(refused)?
    {
        return Err(ApiError::BadRequest(format!("Volume type {name} could not be found.")));
    }
    wanted.make = Some(VolumeToMake {
        source,
        size_gb: mapping.size_gb,
        volume_type: mapping.volume_type.clone(),
        availability_zone: None,
    });
    Ok((wanted, remembers))
}

/// A volume that is there; what it remembers of an image.
async fn volume(
    storage: &dyn BlockStorage,
    context: &RequestContext,
    body: &CreateBody,
    id: &str,
    wanted: &mut WantedVolume,
) -> Result<BTreeMap<String, String>, ApiError> {
    let missing = || wrong(&format!("failed to get volume {id}."));
    let found = match storage.volume(context, id.parse().map_err(|_| missing())?).await {
        Ok(found) => found,
        Err(BlockStorageError::VolumeNotFound { .. }) => return Err(missing()),
        Err(error) => return Err(refused(error)),
    };
    if wanted.boot_index == Some(0) && !found.bootable {
        return Err(ApiError::BadRequest(format!("Block Device {id} is not bootable.")));
    }
    let free = match found.status {
        Some(VolumeStatus::Available) => true,
        Some(VolumeStatus::Reserved | VolumeStatus::Attaching | VolumeStatus::InUse) => found.multiattach,
        _ => false,
    };
    if !free || (body.max_count > 1 && !found.multiattach) {
        return Err(missing());
    }
    wanted.there = Some(found.id);
    wanted.shareable = found.multiattach;
    wanted.read_only = found.readonly;
    Ok(found.image_metadata)
}

/// A snapshot that is there, of which the volume is made; what its volume remembers of an image, if it is booted from.
async fn snapshot(
    storage: &dyn BlockStorage,
    context: &RequestContext,
    id: &str,
    mapping: &Mapping,
) -> Result<(VolumeSnapshotId, BTreeMap<String, String>), ApiError> {
    let missing = || wrong(&format!("failed to get snapshot {id}."));
    let parsed: VolumeSnapshotId = id.parse().map_err(|_| missing())?;
    let found = match storage.snapshot(context, parsed).await {
        Ok(found) if found.status == "available" => found,
        Ok(_) | Err(BlockStorageError::SnapshotNotFound { .. }) => return Err(missing()),
        Err(error) => return Err(refused(error)),
    };
    if mapping.boot_index == Some(0) {
        let of = storage.volume(context, found.volume_id).await.map_err(|_| missing())?;
        if !of.bootable {
            return Err(ApiError::BadRequest(format!("Block Device {id} is not bootable.")));
        }
        return Ok((parsed, of.image_metadata));
    }
    Ok((parsed, BTreeMap::new()))
}
