//! What a move leaves when it is over: the one commit that says where the server is now.

use nova_core::ids::HostName;
use nova_core::migration::{Migration, MigrationStatus};
use nova_core::request::Destination;
use nova_core::state::{FailurePhase, History, PowerState, VmState};
use nova_core::task::{Event, Move, Work};

use super::{has_left, was_abandoned};
use crate::conductor::context::TaskContext;

/// Where the image of a shelved server is kept (Nova's `system_metadata`).
pub(crate) const SHELVED_IMAGE: &str = "shelved_image_id";
/// A host that was to take it off the shelf and did not say in time that nothing of it is left there.
pub(super) const DOUBTFUL_HOST: &str = "unshelve_doubtful_host";
/// When it was shelved.
pub(crate) const SHELVED_AT: &str = "shelved_at";

/// What an operation must remember of its begin to know where the server ends.
pub(in crate::conductor) fn history_of(cx: &TaskContext) -> History {
    let old_vm_state = match &cx.migration {
        Some(migration) => Some(migration.old_vm_state),
        None => cx.instance.previous_vm_state,
    };
    let evacuated_stays_off = matches!(&cx.task.work, Work::Move(Move::Evacuate { stays_off: true, .. }));
    History { old_vm_state, volume_backed: cx.instance.image.is_none(), evacuated_stays_off }
}

/// The move is done: the server is at its destination, or back.
pub(in crate::conductor) fn moved(cx: &mut TaskContext) {
    let Work::Move(one) = cx.task.work.clone() else { return };
    match &one {
        Move::Shelve { offload, .. } => return shelved(cx, *offload),
        Move::ShelveOffload | Move::ShelveVolume => return shelved(cx, true),
        Move::Unshelve { .. } => return unshelved(cx),
        _ => {}
    }
    cx.instance.set_resizing_to(None);
    let Some(migration) = cx.migration.clone() else { return };
    match one {
        Move::Resize { .. } => {
            arrive(cx, &migration);
            cx.instance.flavor = migration.new_flavor.clone();
            cx.instance.previous_vm_state = Some(migration.old_vm_state);
            close(cx, MigrationStatus::Finished);
        }
        Move::ConfirmResize { .. } => {
            leave(cx, &migration.source_compute);
            cx.instance.previous_vm_state = None;
            close(cx, MigrationStatus::Confirmed);
        }
        Move::RevertResize { .. } => {
            return_to_source(cx, &migration);
            close(cx, MigrationStatus::Reverted);
        }
        Move::Evacuate { .. } => {
            arrive(cx, &migration);
            leave(cx, &migration.source_compute);
            close(cx, MigrationStatus::Done);
        }
        Move::LiveMigrate { .. } => {
            arrive(cx, &migration);
            leave(cx, &migration.source_compute);
            close(cx, MigrationStatus::Completed);
        }
        Move::Shelve { .. } | Move::ShelveVolume | Move::ShelveOffload | Move::Unshelve { .. } => {}
    }
}

/// The move failed, and what could be taken back was: how far had it come?
pub(in crate::conductor) fn not_moved(cx: &mut TaskContext) -> FailurePhase {
    let Work::Move(one) = cx.task.work.clone() else { return FailurePhase::BeforeDiskMove };
    // One that was on no host is on none: what it is kept as was not touched.
    let shelved = matches!(one, Move::Unshelve { spec: Some(_), .. });
    let touched = !shelved && (was_abandoned(cx) || has_left(cx));
    let phase = if touched { FailurePhase::AfterDiskMove } else { FailurePhase::BeforeDiskMove };
    cx.instance.set_resizing_to(None);
    let Some(migration) = cx.migration.clone() else { return phase };
    match one {
        Move::ConfirmResize { .. } => {
            // What is at the source stays, until it is confirmed again.
            close(cx, MigrationStatus::Finished);
            FailurePhase::BeforeDiskMove
        }
        Move::RevertResize { .. } => {
            let gone = cx.task.log.iter().any(|e| e.step == "leave_destination" && e.event == Event::Done);
            if gone {
                return_to_source(cx, &migration);
                close(cx, MigrationStatus::Error);
                return FailurePhase::AfterDiskMove;
            }
            close(cx, MigrationStatus::Finished);
            // The destination was told to remove the guest, and did not say that it has.
            let told = migration.ordered_of.is_some() || migration.must_go_back();
            if let Some(migration) = cx.migration.as_mut().filter(|_| told) {
                migration.set_must_go_back();
            }
            FailurePhase::BeforeDiskMove
        }
        Move::LiveMigrate { .. } if has_left(cx) => {
            arrive(cx, &migration);
            leave(cx, &migration.source_compute);
            close(cx, MigrationStatus::Error);
            phase
        }
        Move::LiveMigrate { .. } => {
            close(cx, if migration.aborted { MigrationStatus::Cancelled } else { MigrationStatus::Error });
            phase
        }
        Move::Evacuate { .. } => {
            close(cx, MigrationStatus::Failed);
            phase
        }
        Move::Resize { .. }
        | Move::Shelve { .. }
        | Move::ShelveVolume
        | Move::ShelveOffload
        | Move::Unshelve { .. } => {
            close(cx, MigrationStatus::Error);
            phase
        }
    }
}

/// It is an image now; off its host, nothing of it is anywhere else (nova/compute/manager.py, `_shelve_instance`).
fn shelved(cx: &mut TaskContext, offloaded: bool) {
    let keep = &mut cx.instance.system_metadata;
    if let Some(image) = cx.task.work.image_in_making() {
        keep.insert(SHELVED_IMAGE.to_owned(), image.to_string());
        keep.insert(SHELVED_AT.to_owned(), cx.now.to_string());
    }
    if !offloaded {
        return;
    }
    cx.instance.vm_state = VmState::ShelvedOffloaded;
    cx.instance.power_state = PowerState::NoState;
    cx.instance.node = None;
    cx.instance.availability_zone = cx.instance.pinned_availability_zone.clone();
    if let Some(host) = cx.instance.host.take() {
        cx.stage_release(host);
    }
}

/// It runs again, and has no use for that image.
fn unshelved(cx: &mut TaskContext) {
    for key in [SHELVED_IMAGE, SHELVED_AT, DOUBTFUL_HOST] {
        cx.instance.system_metadata.remove(key);
    }
}

/// The server is at its destination.
fn arrive(cx: &mut TaskContext, migration: &Migration) {
    let Some(host) = migration.dest_compute.clone() else { return };
    let zone = cx.task.destination.as_ref().filter(|there| there.host == host).map(|there| there.zone.clone());
    cx.instance.host = Some(host);
    cx.instance.node.clone_from(&migration.dest_node);
    if let Some(zone) = zone {
        cx.instance.availability_zone = Some(zone);
    }
}

/// Nothing of the server is on that host any more. Of one that has not left it, what it needs there stays booked.
fn leave(cx: &mut TaskContext, host: &HostName) {
    if cx.instance.host.as_ref() != Some(host) {
        return cx.stage_release(host.clone());
    }
    let (node, zone) = (cx.instance.node.clone().unwrap_or_default(), cx.instance.availability_zone.clone());
    if let Some(zone) = zone {
        cx.stage_booking(&Destination { host: host.clone(), node, zone });
    }
}

/// The server is where it was, as it was.
fn return_to_source(cx: &mut TaskContext, migration: &Migration) {
    cx.instance.host = Some(migration.source_compute.clone());
    cx.instance.node.clone_from(&migration.source_node);
    if migration.source_zone.is_some() {
        cx.instance.availability_zone.clone_from(&migration.source_zone);
    }
    cx.instance.flavor = migration.old_flavor.clone();
    cx.instance.previous_vm_state = None;
    if let Some(there) = migration.dest_compute.clone() {
        leave(cx, &there);
    }
}

fn close(cx: &mut TaskContext, status: MigrationStatus) {
    if let Some(migration) = &mut cx.migration {
        migration.status = status;
        migration.ordered_of = None;
        migration.answers.clear();
    }
}

/// A server that is deleted ends the move that it is in, wherever its parts are.
pub(in crate::conductor) fn ended_by_deletion(cx: &mut TaskContext) {
    let Some(migration) = cx.migration.clone() else { return };
    for host in std::iter::once(&migration.source_compute).chain(&migration.dest_compute) {
        if cx.instance.host.as_ref() != Some(host) {
            cx.stage_release(host.clone());
            cx.stage_removal(host.clone());
        }
    }
    if !migration.is_open() {
        return;
    }
    let finished = cx.migration.as_ref().is_some_and(|migration| migration.status == MigrationStatus::Finished);
    // As Nova says it: a deletion confirms.
    close(cx, if finished { MigrationStatus::Confirmed } else { MigrationStatus::Error });
}
