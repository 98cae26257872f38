//! What hosts report of their part of a task, and what they ask about themselves.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::rpc::conductor::{
    AssignedInstance, ConfirmStraysRequest, ListAssignedRequest, ReportStepRequest, ReportUploadRequest, StepOutcome,
    Verdict,
};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::state::{Edge, PowerAction, PowerState, TaskState, VmState, edge_of, sync_power_state};
use nova_core::task::{Event, Failure, Next, Work};
use nova_db::{InstanceQuery, StoreError};
use nova_queue::{HandlerError, Incoming};

use super::context::TaskContext;
use super::engine::{DriveError, later};
use super::manager::Conductor;
use super::steps;
use nova_core::error::chain;

/// How long a destination has for a guest that came although its migration was given up.
const TIME_TO_ARRIVE: Duration = Duration::from_secs(300);
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
                    return Ok(self.heard_of(&incoming, &request, verdict));
                }
                Err(DriveError::Overtaken) => {}
                Err(DriveError::Later(why)) => return Err(Refusal::new(RefusalKind::Unavailable, why).into()),
            }
        }
        Err(Refusal::new(RefusalKind::Unavailable, "the task is being changed by others").into())
    }

    /// Whoever reports lives. That is written soon, as others' signs of life are; nobody waits for it.
    fn heard_of(&self, incoming: &Incoming, request: &ReportStepRequest, verdict: Verdict) -> Verdict {
        match &request.alive {
            Some(zone) if verdict == Verdict::Recorded => {
                self.note_beat(self.beat_of(incoming.sender.host.clone(), zone.clone()));
                Verdict::RecordedAlive
            }
            _ => verdict,
        }
    }

    async fn record_step(&self, incoming: &Incoming, request: &ReportStepRequest) -> Result<Verdict, DriveError> {
        let known = self.recent.take(request.task_id, self.clock.now());
        // What follows a failure is done elsewhere, too, before anything is written: it wants to know for certain.
        let mut cx = match known.filter(|cx| is_of(cx, incoming, request) && succeeded(request)) {
            Some(cx) => cx,
            None => match self.store.get_task(request.task_id).await {
                Ok(task) => self.open(task).await?,
                Err(StoreError::NotFound { .. }) => return Ok(Verdict::Stale),
                Err(error) => return Err(error.into()),
            },
        };
        if !is_of(&cx, incoming, request) {
            tracing::info!(task = %request.task_id, host = %incoming.sender.host, "a late or foreign report");
            return Ok(Verdict::Stale);
        }
        // Only a step that was begun and not ended waits for a report; a repeated one finds it ended.
        let (next, Some(last)) = (cx.task.next(), cx.task.log.last()) else { return Ok(Verdict::Stale) };
        let (step, undoes) = match next {
            Next::Run(step) => (step, false),
            Next::Undo(step) => (step, true),
            Next::Succeeded | Next::Failed(_) => return Ok(Verdict::Stale),
        };
        if last.step != step || last.event != if undoes { Event::Undoing } else { Event::Begun } {
            return Ok(Verdict::Stale);
        }
        if undoes {
            return self.record_undo(cx, step, &request.outcome).await;
        }
        match &request.outcome {
            StepOutcome::Done { power_state, devices, .. } => {
                cx.reported_power = *power_state;
                if let Some(devices) = devices {
                    cx.instance.device_places.clone_from(devices);
                }
                cx.task.record(step, Event::Done);
            }
            StepOutcome::Answered { power_state, answer } => {
                cx.reported_power = *power_state;
                if let Some(migration) = &mut cx.migration {
                    migration.answers.insert(step.to_owned(), answer.clone());
                }
                cx.task.record(step, Event::Done);
            }
            StepOutcome::Failed { message, details, .. } if steps::must_be_done(step) => {
                tracing::warn!(task = %cx.task.id, step, "{message} ({details}); it will be tried again");
                return self.again(cx).await;
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

    /// What a host says of the undo of a step.
    async fn record_undo(
        &self,
        mut cx: TaskContext,
        step: &'static str,
        outcome: &StepOutcome,
    ) -> Result<Verdict, DriveError> {
        match outcome {
            // It is too late to take it back: the guest has left, or has come. So it goes on.
            StepOutcome::Answered { answer, .. } if answer["left"] == true || answer["came"] == true => {
                let sent = if step == "prepare_incoming" { "live_migrate" } else { step };
                // So it is with a volume that has taken another one's place.
                while cx.task.log.last().is_some_and(|last| last.step != sent || last.event != Event::Begun) {
                    cx.task.log.pop();
                }
                cx.task.record(sent, Event::Done);
                cx.task.deadline = cx.task.deadline.max(later(cx.now, TIME_TO_ARRIVE));
                self.drive(cx).await.map(|()| Verdict::Recorded)
            }
            StepOutcome::Done { power_state, .. } | StepOutcome::Answered { power_state, .. } => {
                cx.reported_power = *power_state;
                if let StepOutcome::Done { devices: Some(devices), .. } = outcome {
                    cx.instance.device_places.clone_from(devices);
                }
                cx.task.record(step, Event::Undone);
                self.drive(cx).await.map(|()| Verdict::Recorded)
            }
            StepOutcome::Failed { message, details, .. } => {
                tracing::warn!(task = %cx.task.id, step, "not taken back: {message} ({details}); it will be tried again");
                self.again(cx).await
            }
        }
    }

    /// Users see how far an image of their server is (nova/compute/manager.py, `update_task_state` of `_snapshot_instance`).
    /// Whoever was faster knows more.
    pub(super) async fn report_upload(
        &self,
        incoming: Incoming,
        request: ReportUploadRequest,
    ) -> Result<(), HandlerError> {
        let task = match self.store.get_task(request.task_id).await {
            Ok(task) if task.instance_id == request.instance_id && task.epoch == request.epoch => task,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(unavailable(&error)),
        };
        let instance = self.store.get_instance(task.instance_id).await.map_err(|error| unavailable(&error))?;
        let shelves = matches!(task.work, Work::Move(_));
        let next = match (shelves, request.uploading) {
            (false, false) => TaskState::ImagePendingUpload,
            (false, true) => TaskState::ImageUploading,
            (true, false) => TaskState::ShelvingImagePendingUpload,
            (true, true) => TaskState::ShelvingImageUploading,
        };
        let states = instance.states();
        let goes_on = matches!(edge_of(&states, &states.with_task(Some(next))), Some(Edge::Advance(_)));
        let makes_image = task.work.image_in_making().is_some() && matches!(task.next(), Next::Run("snapshot"));
        if instance.host.as_ref() != Some(&incoming.sender.host) || !makes_image || !goes_on {
            return Ok(());
        }
        let written = Instance { task_state: Some(next), updated_at: self.clock.now(), ..instance };
        match self.store.update_instance(written).await {
            Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The order is given again under another token, once the task's lease has run out.
    async fn again(&self, mut cx: TaskContext) -> Result<Verdict, DriveError> {
        cx.repeated = false;
        cx.renew_epoch();
        self.store.commit_task(cx.commit(false)).await?;
        Ok(Verdict::Recorded)
    }

    pub(super) async fn list_assigned(
        &self,
        incoming: Incoming,
        request: ListAssignedRequest,
    ) -> Result<Vec<AssignedInstance>, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let query = InstanceQuery { host: Some(request.host.clone()), ..InstanceQuery::default() };
        let instances = self.store.list_instances(&query).await.map_err(|e| unavailable(&e))?;
        let assigned = |instance: Instance, moving: bool| AssignedInstance {
            instance_id: instance.id,
            epoch: instance.epoch,
            power_state: instance.power_state,
            runs: !moving && instance.vm_state == VmState::Active && instance.power_state == PowerState::Running,
            amiss: is_amiss(&instance),
            resources: instance.booked_resources(),
            busy: moving || instance.task_state.is_some(),
            moving,
        };
        let in_error = instances.iter().filter(|instance| instance.vm_state == VmState::Error);
        let in_error: Vec<InstanceId> = in_error.map(|instance| instance.id).collect();
        let mut all: Vec<_> = instances.into_iter().map(|instance| assigned(instance, false)).collect();
        for (instance, resources) in self.moving(&request.host).await.map_err(|e| unavailable(&e))? {
            match all.iter_mut().find(|known| known.instance_id == instance.id) {
                Some(known) => (known.busy, known.moving, known.resources) = (true, true, resources),
                None => all.push(AssignedInstance { resources, ..assigned(instance, true) }),
            }
        }
        for id in in_error {
            if self.was_lost_where_it_is(id, &request.host).await.map_err(|e| unavailable(&e))? {
                all.iter_mut().filter(|known| known.instance_id == id).for_each(|known| known.busy = true);
            }
        }
        Ok(all)
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
        let moving = self.moving(&request.host).await.map_err(|error| unavailable(&error))?;
        let mut strays = Vec::new();
        for id in request.instances {
            match self.store.get_instance(id).await {
                Ok(instance) if instance.is_deleted() || instance.host.as_ref() != Some(&request.host) => {
                    let moving = moving.iter().any(|(one, _)| one.id == id) && !instance.is_deleted();
                    if !moving {
                        self.has_left(id, &request.host).await.map_err(|error| unavailable(&error))?;
                        strays.push(id);
                    }
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Ok(strays)
    }
}

/// Is this the task, as far as the host that speaks has to do with it?
fn is_of(cx: &TaskContext, incoming: &Incoming, request: &ReportStepRequest) -> bool {
    let sender_has_it = cx.executor() == Some(&incoming.sender.host);
    sender_has_it && cx.instance.id == request.instance_id && cx.task.epoch == request.epoch
}

fn succeeded(request: &ReportStepRequest) -> bool {
    matches!(request.outcome, StepOutcome::Done { .. })
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

/// Would something follow if its host told what the store has? An operation that failed half-way may leave a server so.
fn is_amiss(instance: &Instance) -> bool {
    !matches!(
        sync_power_state(&instance.states(), instance.power_state).action,
        PowerAction::None | PowerAction::Log(_)
    )
}
