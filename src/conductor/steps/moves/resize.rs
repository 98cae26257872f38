//! Resize and cold migration (nova/compute/manager.py, `prep_resize`, `resize_instance`, `finish_resize`,
//! `confirm_resize`, `revert_resize`).
//!
//! The guest at the source is set aside before the one at the destination is made, and taken back only once that one is
//! known to be gone: of an instance never two run. What fails on the way is undone, and the server is what it was.

use async_trait::async_trait;
use nova_core::migration::MigrationStatus;
use nova_core::rpc::compute::{DiskGrant, MoveOrder};
use nova_core::state::TaskState;

use super::{
    End, begin, destination, end, guest_at, is_declared_dead, is_up, order_at, ordered, ran_before, record, set_status,
    stays, was_abandoned,
};
use crate::conductor::context::TaskContext;
use crate::conductor::steps::{Ran, Services, Step, StepError};

/// Lets the destination hold what the guest will take, and say that it can.
pub struct PrepareMove;

#[async_trait]
impl Step for PrepareMove {
    fn name(&self) -> &'static str {
        "prepare_move"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        begin(cx, "compute_prep_resize", &host);
        let guest = Box::new(order_at(services, cx, End::Destination)?);
        Ok(ordered(cx, host, MoveOrder::Prepare(guest)))
    }

    async fn undo(&self, _services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        // What it holds there goes with its booking.
        end(cx, "compute_prep_resize", Some("undone".into()));
        Ok(())
    }
}

/// Has the source stop the guest and set it aside.
pub struct StashSource;

/// The grant of this task: a secret that is drawn once, and kept in the record while the task lasts.
fn grant(services: &Services, cx: &TaskContext) -> DiskGrant {
    let grant = services.image_grants.disk_grant(cx.task.id, cx.task.deadline);
    DiskGrant { secret: grant, until: cx.task.deadline }
}

#[async_trait]
impl Step for StashSource {
    fn name(&self) -> &'static str {
        "stash_source"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = record(cx)?.source_compute.clone();
        end(cx, "compute_prep_resize", None);
        begin(cx, "compute_resize_instance", &host);
        cx.instance.task_state = Some(TaskState::ResizeMigrating);
        set_status(cx, MigrationStatus::Migrating);
        let (graceful, grant) = (services.options.get().shutdown_timeout, grant(services, cx));
        let stays = stays(cx);
        Ok(ordered(cx, host, MoveOrder::Stash { graceful, grant, stays }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = record(cx)?.source_compute.clone();
        end(cx, "compute_resize_instance", Some("undone".into()));
        // With the destination unknown, the guest may run there: it is not started here.
        let running = ran_before(cx)? && !was_abandoned(cx);
        let guest = guest_at(services, cx, End::Source).await?;
        Ok(ordered(cx, host, MoveOrder::Return { guest, running }))
    }
}

/// Has the destination fetch the disks and make the guest.
pub struct FinishMove;

#[async_trait]
impl Step for FinishMove {
    fn name(&self) -> &'static str {
        "finish_move"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        end(cx, "compute_resize_instance", None);
        begin(cx, "compute_finish_resize", &host);
        cx.instance.task_state = Some(TaskState::ResizeFinish);
        set_status(cx, MigrationStatus::PostMigrating);
        let guest = guest_at(services, cx, End::Destination).await?;
        let disks = record(cx)?.answers.get("stash_source").cloned();
        let (grant, running) = (Some(grant(services, cx)), ran_before(cx)?);
        let stays = stays(cx);
        Ok(ordered(cx, host, MoveOrder::Finish { guest, disks, grant, running, stays }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        end(cx, "compute_finish_resize", Some("undone".into()));
        Ok(ordered(cx, host, MoveOrder::Leave))
    }
}

/// Confirmed: what the source has set aside goes. A source that is down finds out by itself.
pub struct DropSource;

#[async_trait]
impl Step for DropSource {
    fn name(&self) -> &'static str {
        "drop_source"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = record(cx)?.source_compute.clone();
        if !is_up(services, cx, &host).await? {
            tracing::warn!(instance = %cx.instance.id, %host, "confirmed without the host that it left, which is down");
            return Ok(Ran::Done);
        }
        begin(cx, "compute_confirm_resize", &host);
        // One that stayed holds from now on what it is.
        let holds = stays(cx).then(|| cx.instance.booked_resources());
        Ok(ordered(cx, host, MoveOrder::DropStash { holds }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// On the way back: the destination removes its guest. While the source is down, it stays there. Nobody goes back while a
/// guest may run at the destination: one that does not answer is waited for, unless its operator has declared it dead.
pub struct LeaveDestination;

#[async_trait]
impl Step for LeaveDestination {
    fn name(&self) -> &'static str {
        "leave_destination"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (host, source) = (destination(cx)?, record(cx)?.source_compute.clone());
        if !cx.repeated && !is_up(services, cx, &source).await? {
            let details = format!("{source} is down, which has the server as it was");
            return Err(StepError::fatal(500, "The server could not be taken back.", details));
        }
        if is_declared_dead(services, &host).await? {
            // As for an evacuation: its operator says that nothing runs there, and it removes what it has when it comes back.
            tracing::warn!(instance = %cx.instance.id, %host, "it goes back without the host that it was moved to");
            return Ok(Ran::Done);
        }
        begin(cx, "compute_revert_resize", &host);
        Ok(ordered(cx, host, MoveOrder::Leave))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was removed is gone; the source still has the server as it was.
        Ok(())
    }
}

/// On the way back: the source takes its guest back.
pub struct ReturnToSource;

#[async_trait]
impl Step for ReturnToSource {
    fn name(&self) -> &'static str {
        "return_to_source"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = record(cx)?.source_compute.clone();
        end(cx, "compute_revert_resize", None);
        begin(cx, "compute_finish_revert_resize", &host);
        let (guest, running) = (guest_at(services, cx, End::Source).await?, ran_before(cx)?);
        Ok(ordered(cx, host, MoveOrder::Return { guest, running }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
