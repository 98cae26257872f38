//! Evacuation: the host is down, and the server is made anew elsewhere, from its image (nova/conductor/manager.py,
//! `rebuild_instance`; nova/compute/manager.py, `_do_rebuild_instance`).

use async_trait::async_trait;
use nova_core::migration::MigrationStatus;
use nova_core::rpc::compute::{BuildOrder, MoveOrder};
use nova_core::state::TaskState;
use nova_core::task::Move;

use super::{End, begin, destination, end, guest_at, only_on, ordered, record, set_status, the_move};
use crate::conductor::context::TaskContext;
use crate::conductor::steps::{Ran, Services, Step, StepError};

/// Has the destination make the guest.
pub struct RebuildThere;

#[async_trait]
impl Step for RebuildThere {
    fn name(&self) -> &'static str {
        "rebuild_there"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Move::Evacuate { stays_off, admin_password, .. } = the_move(cx)?.clone() else {
            return Err(StepError::fatal(500, "This task does not evacuate.", ""));
        };
        let host = destination(cx)?;
        begin(cx, "compute_rebuild_instance", &host);
        cx.instance.task_state = Some(TaskState::RebuildSpawning);
        set_status(cx, MigrationStatus::PreMigrating);
        let off = stays_off || record(cx)?.old_vm_state == nova_core::state::VmState::Stopped;
        let guest = Box::new(BuildOrder { admin_password, ..*guest_at(services, cx, End::Destination).await? });
        // Whatever became of its old host: a guest there writes on its volumes no more.
        only_on(services, cx, &host).await?;
        Ok(ordered(cx, host, MoveOrder::Finish { guest, disks: None, grant: None, running: !off, stays: false }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        end(cx, "compute_rebuild_instance", Some("undone".into()));
        Ok(ordered(cx, host, MoveOrder::Leave))
    }
}
