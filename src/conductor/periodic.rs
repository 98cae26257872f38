//! What is due by itself: soft-deleted servers that nobody restored, rescues and reboots that take too long
//! (nova/compute/manager.py, `_reclaim_queued_deletes`, `_poll_rescued_instances`, `_poll_rebooting_instances`).
//!
//! Twice equals once: whoever comes second finds the server changed.

use std::time::Duration;

use jiff::Timestamp;
use nova_core::error::chain;
use nova_core::instance::Instance;
use nova_core::state::{TaskState, VmState};
use nova_core::task::{Move, Work};
use nova_db::{Deleted, Direction, InstanceQuery, SortKey, StoreError};
use tokio_util::sync::CancellationToken;

use super::ConductorOptions;
use super::engine::earlier;
use super::manager::Conductor;
use super::power::Begin;
use super::steps::SHELVED_AT;

/// How often it is looked (Nova's base tick).
const TICK: Duration = Duration::from_secs(60);
/// Servers that are looked at together.
const BATCH: usize = 500;
/// How long such an operation may take.
const ALLOWED: Duration = Duration::from_secs(3600);

/// Soft reboots in the making.
const REBOOTING: [TaskState; 3] = [TaskState::Rebooting, TaskState::RebootPending, TaskState::RebootStarted];

/// What is due of a server.
#[derive(Debug, Clone, PartialEq)]
struct Due {
    first: TaskState,
    work: Work,
    supersede: bool,
    why: &'static str,
}

/// What is to be done with a server by now, if anything.
fn due(instance: &Instance, options: &ConductorOptions, now: Timestamp) -> Option<Due> {
    let over = |since: Option<Timestamp>, limit: Duration| {
        !limit.is_zero() && since.is_some_and(|since| since <= earlier(now, limit))
    };
    match (instance.vm_state, instance.task_state) {
        (VmState::SoftDelete, None) if over(instance.soft_deleted_at, options.reclaim_instance_interval) => {
            let why = "it was deleted long ago, and nobody restored it";
            Some(Due { first: TaskState::Deleting, work: Work::Delete, supersede: true, why })
        }
        (VmState::Rescued, None) if over(instance.launched_at, options.rescue_timeout) => {
            let why = "its rescue has taken long enough";
            Some(Due { first: TaskState::Unrescuing, work: Work::Unrescue, supersede: false, why })
        }
        (VmState::Shelved, None) if is_long_shelved(instance, options, now) => {
            let (first, work) = (TaskState::ShelvingOffloading, Work::Move(Move::ShelveOffload));
            Some(Due { first, work, supersede: false, why: "it was shelved a while ago, and leaves its host" })
        }
        (VmState::Active, Some(task))
            if REBOOTING.contains(&task) && over(Some(instance.updated_at), options.reboot_timeout) =>
        {
            let (first, work) = (TaskState::RebootingHard, Work::Reboot { hard: true });
            Some(Due { first, work, supersede: true, why: "its soft reboot takes too long; the plug is pulled" })
        }
        _ => None,
    }
}

/// Has it been shelved for `shelved_offload_time`?
fn is_long_shelved(instance: &Instance, options: &ConductorOptions, now: Timestamp) -> bool {
    let since = instance.system_metadata.get(SHELVED_AT).and_then(|text| text.parse::<Timestamp>().ok());
    let since = since.unwrap_or(instance.updated_at);
    options.moves.shelved_offload_time.is_some_and(|time| since <= earlier(now, time))
}

impl Conductor {
    pub(super) async fn look_for_due_until(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if let Err(error) = self.begin_what_is_due().await {
                tracing::warn!("looking for what is due failed: {}", chain(&error));
            }
        }
    }

    /// Begins what is due; returns how much that was.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(super) async fn begin_what_is_due(&self) -> Result<usize, StoreError> {
        let options = self.services.options.get();
        let mut states = Vec::new();
        if !options.reclaim_instance_interval.is_zero() {
            states.push((VmState::SoftDelete, Some(vec![None])));
        }
        if !options.rescue_timeout.is_zero() {
            states.push((VmState::Rescued, Some(vec![None])));
        }
        if !options.reboot_timeout.is_zero() {
            states.push((VmState::Active, Some(REBOOTING.map(Some).to_vec())));
        }
        if options.moves.shelved_offload_time.is_some() {
            states.push((VmState::Shelved, Some(vec![None])));
        }
        let confirmed = self.confirm_what_is_due().await?;
        if states.is_empty() {
            return Ok(confirmed);
        }
        let sort = vec![(SortKey::CreatedAt, Direction::Ascending)];
        let mut query = InstanceQuery {
            states: Some(states),
            deleted: Deleted::No,
            sort,
            limit: Some(BATCH),
            ..InstanceQuery::default()
        };
        let mut begun = confirmed;
        loop {
            let found = self.store.list_instances(&query).await?;
            let last = found.last().map(|instance| instance.id);
            let more = found.len() == BATCH;
            for instance in found {
                if let Some(due) = due(&instance, &options, self.clock.now()) {
                    tracing::info!(instance = %instance.id, work = due.work.kind(), "{}", due.why);
                    let begin = Begin { allowed: ALLOWED, supersede: due.supersede, ..Begin::default() };
                    match self.begin(instance, due.first, due.work, begin).await {
                        Ok(()) => begun += 1,
                        // Somebody else was faster.
                        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if !more {
                return Ok(begun);
            }
            query.after = last;
        }
    }
}
