//! What hosts report of their part of a task, and what they ask about themselves.

use nova_core::ids::InstanceId;
use nova_core::rpc::conductor::{
    AssignedInstance, ConfirmStraysRequest, ListAssignedRequest, ReportStepRequest, StepOutcome, Verdict,
};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::task::{Event, Failure, Next};
use nova_db::{InstanceQuery, StoreError};
use nova_queue::{HandlerError, Incoming};

use super::engine::DriveError;
use super::manager::Conductor;
use nova_core::error::chain;

/// Tries to write a report past other writers.
const TRIES: usize = 5;

impl Conductor {
    pub(super) async fn report_step(
        &self,
        incoming: Incoming,
        request: ReportStepRequest,
    ) -> Result<Verdict, HandlerError> {
        for _ in 0..TRIES {
            match self.record_step(&incoming, &request).await {
                Ok(verdict) => {
                    // Also of a report that was heard before: its answer may be lost.
                    if let StepOutcome::Done { plugged, .. } = &request.outcome {
                        self.plugged_in(&incoming.sender.host, plugged).await?;
                    }
                    return Ok(verdict);
                }
                Err(DriveError::Overtaken) => {}
                Err(DriveError::Later(why)) => return Err(Refusal::new(RefusalKind::Unavailable, why).into()),
            }
        }
        Err(Refusal::new(RefusalKind::Unavailable, "the task is being changed by others").into())
    }

    async fn record_step(&self, incoming: &Incoming, request: &ReportStepRequest) -> Result<Verdict, DriveError> {
        let task = match self.store.get_task(request.task_id).await {
            Ok(task) => task,
            Err(StoreError::NotFound { .. }) => return Ok(Verdict::Stale),
            Err(error) => return Err(error.into()),
        };
        let mut cx = self.open(task).await?;
        let sender_has_it = cx.instance.host.as_ref() == Some(&incoming.sender.host);
        if !sender_has_it || cx.instance.id != request.instance_id || cx.task.epoch != request.epoch {
            tracing::info!(task = %request.task_id, host = %incoming.sender.host, "a late or foreign report");
            return Ok(Verdict::Stale);
        }
        // Only a step that was begun and not ended waits for a report; a repeated one finds it ended.
        let (Next::Run(step), Some(last)) = (cx.task.next(), cx.task.log.last()) else { return Ok(Verdict::Stale) };
        if last.step != step || last.event != Event::Begun {
            return Ok(Verdict::Stale);
        }
        match &request.outcome {
            StepOutcome::Done { power_state, .. } => {
                cx.reported_power = *power_state;
                cx.task.record(step, Event::Done);
            }
            StepOutcome::Failed { message, details, retryable } => {
                let failure = Failure {
                    code: 500,
                    message: message.clone(),
                    details: format!("{}: {details}", incoming.sender.host),
                    retryable: *retryable,
                };
                cx.left_nothing = *retryable;
                cx.task.record(step, Event::Failed(failure));
            }
        }
        match self.drive(cx).await {
            Ok(()) => Ok(Verdict::Recorded),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn list_assigned(
        &self,
        incoming: Incoming,
        request: ListAssignedRequest,
    ) -> Result<Vec<AssignedInstance>, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let query = InstanceQuery { host: Some(request.host), ..InstanceQuery::default() };
        let instances = self.store.list_instances(&query).await.map_err(|e| unavailable(&e))?;
        Ok(instances
            .into_iter()
            .map(|instance| AssignedInstance {
                instance_id: instance.id,
                epoch: instance.epoch,
                power_state: instance.power_state,
                resources: instance.booked_resources(),
                busy: instance.task_state.is_some(),
            })
            .collect())
    }
}

impl Conductor {
    /// Only what is known to be deleted or elsewhere is confirmed: a store that knows nothing of a guest may be the wrong
    /// store, and a removed guest does not come back.
    pub(super) async fn confirm_strays(
        &self,
        incoming: Incoming,
        request: ConfirmStraysRequest,
    ) -> Result<Vec<InstanceId>, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let mut strays = Vec::new();
        for id in request.instances {
            match self.store.get_instance(id).await {
                Ok(instance) if instance.is_deleted() || instance.host.as_ref() != Some(&request.host) => {
                    strays.push(id)
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Ok(strays)
    }
}

/// A host may speak of itself only.
pub(super) fn speaks_of_itself(incoming: &Incoming, host: &nova_core::ids::HostName) -> Result<(), Refusal> {
    if incoming.sender.host == *host {
        Ok(())
    } else {
        tracing::warn!(sender = %incoming.sender.host, %host, "a host spoke for another one");
        Err(Refusal::new(RefusalKind::Forbidden, "a host may speak of itself only"))
    }
}

pub(super) fn unavailable(error: &StoreError) -> HandlerError {
    Refusal::new(RefusalKind::Unavailable, chain(error)).into()
}
