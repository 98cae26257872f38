//! A server's volumes: made on the way, promised, connected to its host, given back (nova/compute/manager.py,
//! `_prep_block_device`, `attach_volume`, `detach_volume`, `_terminate_volume_connections`).
//!
//! Which attachments a server has is in its row; each is of one host, or of none yet. A step asks for an attachment by a key
//! that is the same when it is asked again. What was asked for and never came into a row, since its conductor died, is found by
//! the server's id and given back with the next release.

mod boot;
mod moves;
mod plug;
mod quiesce;
mod reimage;
mod snapshots;
mod swap;

use std::collections::BTreeSet;

use nova_core::context::RequestContext;
use nova_core::error::chain;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId};
use nova_core::instance::Instance;
use nova_core::rpc::compute::VolumeOrder;
use nova_core::task::{Failure, Task, Work};
use nova_core::volume::connection::{AccessMode, Connector};
use nova_core::volume::{BlockStorage, BlockStorageError, Hold, ServerVolume, attachment_key};
use nova_db::StoreError;

pub use boot::{MakeVolumes, ReleaseVolumes};
pub use moves::{LeaveVolumes, SettleVolumes, UnbindVolumes};
pub use plug::{AttachVolume, BeginDetaching, CompleteVolume, DetachVolume, ReleaseVolume, ReserveVolume};
pub use quiesce::{Quiesce, Unquiesce};
pub use reimage::{AwaitReimage, LeaveRootVolume, Reimage, StopToReimage};
pub use snapshots::{CompleteImage, SnapshotVolumes, TakeSnapshots, abandoned as abandoned_snapshots};
pub use swap::{BeginSwap, EndSwap, SwapVolume};

use super::{Services, StepError};
use crate::conductor::context::{TaskContext, Undoing};

/// The block storage of a server that has volumes.
fn storage(services: &Services) -> Result<&dyn BlockStorage, StepError> {
    services.volumes.as_deref().ok_or_else(|| StepError::fatal(500, "There is no block storage service.", ""))
}

/// The failure that it would have been as an answer to whoever asked.
fn failed(error: BlockStorageError) -> StepError {
    let code = match &error {
        BlockStorageError::Unavailable { .. } => return StepError::Later(chain(&error)),
        BlockStorageError::VolumeNotFound { .. }
        | BlockStorageError::SnapshotNotFound { .. }
        | BlockStorageError::AttachmentNotFound { .. } => 404,
        BlockStorageError::Invalid { .. } => 400,
        BlockStorageError::OverQuota { .. } => 403,
        _ => 500,
    };
    let message = match &error {
        // What an operator reads is none of the user's.
        BlockStorageError::Failed { what, .. } => format!("{what} failed"),
        other => other.to_string(),
    };
    StepError::Failed(Failure { code, message, details: chain(&error), retryable: false })
}

/// Whatever it is, it is tried again: nothing may be left in a server's hands that is not its own any more.
fn later(error: BlockStorageError) -> StepError {
    StepError::Later(chain(&error))
}

/// What the service says to something that is taken back. If it does not answer, it is waited for; what it refuses is asked for again,
/// for a while, and left then. An attachment that no server knows of is given back when that can be done.
fn refused(cx: &mut TaskContext, what: &str, error: BlockStorageError) -> Result<(), StepError> {
    match (cx.undoing, error) {
        (Undoing::No, error) | (_, error @ BlockStorageError::Unavailable { .. }) => Err(later(error)),
        (Undoing::Insists, error) => Err(failed(error)),
        (Undoing::GivesUp, error) => {
            cx.leave(&format!("{what}: {}", chain(&error)));
            Ok(())
        }
    }
}

/// Gives attachments back.
async fn release(
    storage: &dyn BlockStorage,
    cx: &mut TaskContext,
    attachments: impl IntoIterator<Item = VolumeAttachmentId> + Send,
) -> Result<(), StepError> {
    for id in attachments.into_iter().collect::<Vec<_>>() {
        if let Err(error) = storage.release(&cx.task.context, id).await {
            refused(cx, &format!("attachment {id}"), error)?;
        }
    }
    Ok(())
}

/// Gives back what the server's row does not know.
async fn release_the_unknown(storage: &dyn BlockStorage, cx: &mut TaskContext) -> Result<(), StepError> {
    match release_unknown(storage, &cx.task.context, &cx.instance).await {
        Ok(_) => Ok(()),
        Err(error) => refused(cx, "attachments of which the server does not know", error),
    }
}

/// What is not being detached any more can be begun with again.
async fn roll_detaching(storage: &dyn BlockStorage, cx: &mut TaskContext, volume: VolumeId) -> Result<(), StepError> {
    match storage.roll_detaching(&cx.task.context, volume).await {
        Ok(()) | Err(BlockStorageError::VolumeNotFound { .. }) => Ok(()),
        Err(error) => refused(cx, &format!("volume {volume}, which is still told to be detached"), error),
    }
}

fn mode(volume: &ServerVolume) -> AccessMode {
    if volume.read_only { AccessMode::ReadOnly } else { AccessMode::ReadWrite }
}

/// What the host says of itself, as far as it is known here.
async fn connector(services: &Services, host: &HostName, volume: &ServerVolume) -> Result<Connector, StepError> {
    let ip = match services.store.node_of_host(host).await {
        Ok(node) => Some(node.host_ip).filter(|ip| !ip.is_empty()),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(StepError::Later(chain(&error))),
    };
    Ok(Connector { ip, mountpoint: volume.device.clone(), ..Connector::of(host.clone()) })
}

/// Asks for an attachment of the volume to the server. A key is not used twice: what was given back may still be on its way.
async fn reserve(
    storage: &dyn BlockStorage,
    task: &Task,
    instance: &Instance,
    volume: &mut ServerVolume,
    host: Option<&HostName>,
) -> Result<(), BlockStorageError> {
    let key = attachment_key(task.id, volume.volume_id, host, task.log.len() as u64);
    let made = storage.reserve(&task.context, volume.volume_id, key, instance.id, mode(volume)).await?;
    volume.holds.push(Hold { attachment_id: made.id, host: host.cloned() });
    Ok(())
}

/// The server's volumes with the way to each from that host: what the host is not let to yet, it is now. May be repeated.
pub async fn volumes_on(
    services: &Services,
    cx: &mut TaskContext,
    host: &HostName,
) -> Result<Vec<VolumeOrder>, StepError> {
    if cx.instance.volumes.is_empty() {
        return Ok(Vec::new());
    }
    // Which of both its guest has, nobody could say.
    if cx.instance.volumes.iter().any(|volume| volume.swap.is_some()) {
        return Err(StepError::Later("a volume of the server is being swapped".to_owned()));
    }
    let storage = storage(services)?;
    let mut volumes = cx.instance.volumes.clone();
    let mut orders = Vec::new();
    for volume in &mut volumes {
        // One that is being attached or detached is that task's.
        if volume.make.is_some() || volume.holds.is_empty() {
            continue;
        }
        orders.push(way_to(services, storage, cx, volume, host).await?);
    }
    cx.instance.volumes = volumes;
    Ok(orders)
}

/// The way from a host to one volume.
async fn way_to(
    services: &Services,
    storage: &dyn BlockStorage,
    cx: &TaskContext,
    volume: &mut ServerVolume,
    host: &HostName,
) -> Result<VolumeOrder, StepError> {
    if volume.hold_of(host).is_none() {
        match volume.holds.iter_mut().find(|hold| hold.host.is_none()) {
            Some(free) => free.host = Some(host.clone()),
            None => reserve(storage, &cx.task, &cx.instance, volume, Some(host)).await.map_err(failed)?,
        }
    }
    let way = connected(services, storage, &cx.task.context, volume, host).await?;
    way.ok_or_else(|| StepError::fatal(500, "Internal error.", "no attachment is of the host"))
}

/// The way from a host to a volume that it was let to; `None`: it was not.
pub async fn way_again(
    services: &Services,
    context: &RequestContext,
    volume: &ServerVolume,
    host: &HostName,
) -> Result<Option<VolumeOrder>, StepError> {
    connected(services, storage(services)?, context, volume, host).await
}

async fn connected(
    services: &Services,
    storage: &dyn BlockStorage,
    context: &RequestContext,
    volume: &ServerVolume,
    host: &HostName,
) -> Result<Option<VolumeOrder>, StepError> {
    let Some(hold) = volume.hold_of(host).map(|hold| hold.attachment_id) else { return Ok(None) };
    let connector = connector(services, host, volume).await?;
    let connection = storage.connect(context, hold, &connector).await.map_err(failed)?;
    if connection.volume_id != volume.volume_id {
        return Err(StepError::fatal(
            500,
            "The volume could not be connected.",
            "the service answered with another volume",
        ));
    }
    Ok(Some(VolumeOrder {
        connection,
        device: volume.device.clone(),
        boot: volume.is_root(),
        shareable: volume.shareable,
        tag: volume.tag.clone(),
    }))
}

/// The server has its volumes on that host.
async fn complete(services: &Services, cx: &TaskContext, host: &HostName) -> Result<(), StepError> {
    for volume in &cx.instance.volumes {
        if let Some(hold) = volume.hold_of(host) {
            let device = volume.device.as_deref();
            let done = storage(services)?.complete(&cx.task.context, hold.attachment_id, device).await;
            done.map_err(failed)?;
        }
    }
    Ok(())
}

/// Gives back attachments of hosts; those that `keep` says stay. A volume stays the server's: before its last attachment goes,
/// it is promised anew.
async fn let_go(
    services: &Services,
    cx: &mut TaskContext,
    keep: impl Fn(&Hold) -> bool + Send + Sync,
) -> Result<(), StepError> {
    if cx.instance.volumes.is_empty() {
        return Ok(());
    }
    let storage = storage(services)?;
    let mut volumes = cx.instance.volumes.clone();
    for volume in &mut volumes {
        if volume.holds.iter().all(&keep) {
            continue;
        }
        if !volume.holds.iter().any(&keep) {
            match reserve(storage, &cx.task, &cx.instance, volume, None).await {
                Ok(()) => {}
                // Nothing is left of it that could be promised.
                Err(BlockStorageError::VolumeNotFound { .. }) => {}
                Err(error) => {
                    refused(cx, &format!("volume {} is not promised to it anew", volume.volume_id), error)?;
                    // It is the server's by what it has.
                    continue;
                }
            }
        }
        let gone = volume.holds.iter().filter(|hold| hold.host.is_some() && !keep(hold));
        release(storage, cx, gone.map(|hold| hold.attachment_id)).await?;
        volume.holds.retain(|hold| hold.host.is_none() || keep(hold));
    }
    cx.instance.volumes = volumes;
    Ok(())
}

/// No host but that one comes to the server's volumes any more.
pub async fn only_on(services: &Services, cx: &mut TaskContext, host: &HostName) -> Result<(), StepError> {
    let of_it = |hold: &Hold| hold.host.as_ref() == Some(host);
    let there = cx.instance.volumes.iter().all(|volume| volume.holds.is_empty() || volume.holds.iter().any(of_it));
    if there {
        return let_go(services, cx, of_it).await;
    }
    let_go(services, cx, |hold| hold.host.is_none() || of_it(hold)).await
}

/// The same where nothing more can be done about one that is not told to be in use.
async fn complete_all_the_same(services: &Services, cx: &TaskContext, host: &HostName) -> Result<(), StepError> {
    match complete(services, cx, host).await {
        Err(StepError::Failed(failure)) => {
            tracing::warn!(instance = %cx.instance.id, %host, "its volumes are not told to be in use: {}", failure.details);
            Ok(())
        }
        completed => completed,
    }
}

/// The server is on that host for good, whatever else failed: it has its volumes there, and nobody else comes to them.
pub async fn arrived_on(services: &Services, cx: &mut TaskContext, host: &HostName) -> Result<(), StepError> {
    complete_all_the_same(services, cx, host).await?;
    only_on(services, cx, host).await
}

/// That host does not come to the server's volumes any more; they stay promised to it.
pub async fn not_on(services: &Services, cx: &mut TaskContext, host: &HostName) -> Result<(), StepError> {
    let_go(services, cx, |hold| hold.host.as_ref() != Some(host)).await
}

/// The server stays on that host, which was shut out of its volumes: it is let in again. One that cannot be now is let in when its
/// guest is started anew.
pub async fn back_on(services: &Services, cx: &mut TaskContext, host: &HostName) -> Result<(), StepError> {
    let storage = match &services.volumes {
        Some(storage) => &**storage,
        None => return Ok(()),
    };
    let shut_out = |volume: &ServerVolume| !volume.holds.is_empty() && volume.hold_of(host).is_none();
    for place in 0..cx.instance.volumes.len() {
        let mut volume = cx.instance.volumes[place].clone();
        if volume.make.is_some() || !shut_out(&volume) {
            continue;
        }
        match way_to(services, storage, cx, &mut volume, host).await {
            Ok(_) => {}
            Err(StepError::Failed(failure)) => {
                tracing::warn!(instance = %cx.instance.id, volume = %volume.volume_id, %host,
                    "its host does not come to a volume again: {} ({})", failure.message, failure.details);
                continue;
            }
            Err(later) => return Err(later),
        }
        if let Some(hold) = volume.hold_of(host) {
            match storage.complete(&cx.task.context, hold.attachment_id, volume.device.as_deref()).await {
                Ok(()) => {}
                Err(error @ BlockStorageError::Unavailable { .. }) => return Err(later(error)),
                Err(error) => tracing::warn!(instance = %cx.instance.id, volume = %volume.volume_id, %host,
                    "a volume is not told to be in use: {}", chain(&error)),
            }
        }
        cx.instance.volumes[place] = volume;
    }
    Ok(())
}

/// Gives back attachments of the server that its row does not know: of a conductor that died, or was overtaken.
pub async fn release_unknown(
    storage: &dyn BlockStorage,
    context: &RequestContext,
    instance: &Instance,
) -> Result<usize, BlockStorageError> {
    let known: BTreeSet<VolumeAttachmentId> =
        instance.volumes.iter().flat_map(ServerVolume::all_holds).map(|hold| hold.attachment_id).collect();
    let mut found = 0;
    for attachment in storage.attachments_of(context, instance.id).await? {
        if !known.contains(&attachment.id) {
            storage.release(context, attachment.id).await?;
            found += 1;
        }
    }
    Ok(found)
}

/// May the task ask for attachments?
pub fn holds_volumes(cx: &TaskContext) -> bool {
    matches!(cx.task.work, Work::AttachVolume { .. }) || !cx.instance.volumes.is_empty()
}
