//! Another volume in a volume's place (nova/compute/api.py, `swap_volume`).
//!
//! Since 2025 Nova does it for Cinder alone, while that moves a volume: what a caller of its own left behind was a server whose
//! record and guest could differ. Here both are written by one task, so that whom policy trusts may have it done.

use http::StatusCode;
use nova_core::ids::VolumeId;
use nova_core::instance::Instance;
use nova_core::state::{Action, decide};
use nova_core::task::Work;
use nova_core::volume::{BlockStorageError, BlockVolume, VolumeStatus, VolumeSwap};

use super::{RULE_OF_SWAP, VolumeAttachments, refused, volume_of};
use crate::api::compute::servers::{self, Besides, Start};
use crate::api::{ApiError, HandlerResult, Request, Response};

fn invalid(reason: &str) -> ApiError {
    ApiError::BadRequest(format!("Invalid volume: {reason}"))
}

impl VolumeAttachments {
    pub(super) async fn swap(&self, request: &Request, server: &Instance, new: VolumeId) -> HandlerResult {
        let (storage, context) = (self.api.block_storage()?, request.context()?);
        let known = volume_of(server, request.param("volume"))?;
        let old = storage.volume(context, known.volume_id).await.map_err(refused)?;
        let new = storage.volume(context, new).await;
        // The new one is of the body.
        let new = new.map_err(|error| match error {
            BlockStorageError::VolumeNotFound { .. } => ApiError::BadRequest(error.to_string()),
            other => refused(other),
        })?;
        let situation = server.situation(context.is_admin(), true, request.version.0);
        decide(Action::SwapVolume, &situation).map_err(|refusal| servers::refused(&refusal, request.param("id")))?;
        check(server, &old, &new)?;
        let device = known.id;
        let change = |server: &mut Instance, _: &mut Work| {
            if server.volumes.iter().any(|volume| volume.is_or_becomes(new.id)) {
                return Err(invalid("New volume must be detached in order to swap."));
            }
            let mapping = server.volumes.iter_mut().find(|volume| volume.id == device && volume.volume_id == old.id);
            let mapping = mapping.ok_or_else(|| super::not_attached(&old.id.to_string()))?;
            if mapping.swap.is_some() {
                return Err(invalid(&format!("volume {} is being swapped already", old.id)));
            }
            mapping.swap = Some(VolumeSwap {
                volume_id: new.id,
                holds: Vec::new(),
                shareable: new.multiattach,
                read_only: new.readonly,
            });
            Ok(())
        };
        let work = Work::SwapVolume { device };
        let start = Start { rule: RULE_OF_SWAP, action: Action::SwapVolume, work, supersede: false };
        self.api.begin_with(request, start, Besides { change: Some(&change), ..Besides::default() }).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}

/// What can be told before anything is begun.
fn check(server: &Instance, old: &BlockVolume, new: &BlockVolume) -> Result<(), ApiError> {
    if old.migrating || new.migrating {
        // What that service expects at its end (`os-migrate_volume_completion`) gives a volume another one's id.
        return Err(ApiError::Conflict(format!("The volume {} is being moved by the block storage service.", old.id)));
    }
    if old.of(server.id).next().is_none() {
        return Err(invalid("Old volume is attached to a different instance."));
    }
    if old.multiattach && old.attachments.len() > 1 {
        return Err(ApiError::bad_request(
            "Swapping multi-attach volumes with more than one read/write attachment is not supported.",
        ));
    }
    if new.status != Some(VolumeStatus::Available) {
        return Err(invalid("New volume must be detached in order to swap."));
    }
    if new.size_gb < old.size_gb {
        return Err(invalid("New volume must be the same size or larger."));
    }
    if old.status != Some(VolumeStatus::InUse) {
        return Err(invalid(&format!("volume {} must be in-use to be swapped", old.id)));
    }
    Ok(())
}
