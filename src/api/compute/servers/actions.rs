//! What is done to a server that exists: decided by the state machine, written in one transaction, carried out later.

use std::sync::Arc;

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_core::ids::{InstanceId, RequestId};
use nova_core::image::Image;
use nova_core::instance::Instance;
use nova_core::quota::Limits;
use nova_core::state::{Action, HostRule, Refusal, TaskState, decide, rule};
use nova_core::task::{Task, Work};
use nova_db::{ServiceQuery, StoreError, TaskStart};
use serde_json::Value;

use super::create::action_record;
use super::{Servers, instance_not_found, owner};
use crate::api::compute::ComputeApi;
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

/// How often a lost race is run again.
const ATTEMPTS: usize = 5;

/// A server action that becomes a task.
pub(crate) struct Start {
    /// The policy rule.
    pub(crate) rule: &'static str,
    /// What the state machine is asked.
    pub(crate) action: Action,
    /// What the task does.
    pub(crate) work: Work,
    /// End every other task of the server.
    pub(crate) supersede: bool,
}

impl Servers {
    pub(super) async fn start(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let rule = "os_compute_api:servers:start";
        let start = Start { rule, action: Action::Start, work: Work::Start, supersede: false };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn stop(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let rule = "os_compute_api:servers:stop";
        let start = Start { rule, action: Action::Stop, work: Work::Stop, supersede: false };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn reboot(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let hard = reboot_type(&body, request.lenient)?;
        let action = if hard { Action::RebootHard } else { Action::RebootSoft };
        let rule = "os_compute_api:servers:reboot";
        // A hard reboot takes a soft one's place; on the host it waits until that has ended.
        let start = Start { rule, action, work: Work::Reboot { hard }, supersede: hard };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:servers:delete";
        let deferred = !self.api.options.get().reclaim_instance_interval.is_zero();
        let start = if deferred {
            Start { rule, action: Action::SoftDelete, work: Work::SoftDelete, supersede: true }
        } else {
            Start { rule, action: Action::Delete, work: Work::Delete, supersede: true }
        };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }
}

/// `{"type": "HARD"}`: is it hard?
fn reboot_type(body: &Value, lenient: bool) -> Result<bool, ApiError> {
    let mut fields = Fields::of("reboot", body, lenient)?;
    let word = fields.required_text("type", Text::new(0, usize::MAX))?;
    let hard = match word {
        "HARD" | "Hard" | "hard" => true,
        "SOFT" | "Soft" | "soft" => false,
        _ => {
            let problem = format!("'{word}' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']");
            return Err(invalid("type", &Value::String(word.to_owned()), problem));
        }
    };
    fields.finish()?;
    Ok(hard)
}

/// What an action's begin has besides.
#[derive(Default)]
pub(crate) struct Besides<'a> {
    /// What the server counts for more than before must fit into these.
    pub(crate) limits: Option<Limits>,
    /// The image that it makes, which is described with it or not at all.
    pub(crate) image: Option<Image>,
    /// What else changes in its row. It may refuse, and it may be made again on what others left.
    pub(crate) change: Option<Change<'a>>,
}

/// A change of a row that goes with the begin of an action.
pub(crate) type Change<'a> = &'a (dyn Fn(&mut Instance, &mut Work) -> Result<(), ApiError> + Send + Sync);

impl ComputeApi {
    /// Begins an action on the request's server: looked up, allowed, decided, written, announced. What is accepted
    /// already (a second delete) counts as success, and begins no task.
    ///
    /// # Errors
    /// 404 for what the caller may not know of, 403, and 409 in a state that forbids it.
    pub(crate) async fn begin(&self, request: &Request, start: Start) -> Result<Option<Task>, ApiError> {
        self.begin_with(request, start, Besides::default()).await
    }

    /// The same, with what else is written and checked in the same transaction.
    ///
    /// # Errors
    /// As of [`Self::begin`], those of the change, and 403 over quota.
    pub(crate) async fn begin_with(
        &self,
        request: &Request,
        start: Start,
        besides: Besides<'_>,
    ) -> Result<Option<Task>, ApiError> {
        let context = request.context()?;
        let id = request.param("id");
        for _ in 0..ATTEMPTS {
            let mut instance = self.visible_instance(context, id).await?;
            policy::enforce_on(start.rule, context, owner(&instance))?;
            let host_up = self.host_is_up(start.action, &instance).await?;
            let situation = instance.situation(context.is_admin(), host_up, request.version.0);
            // What is on no host has nothing to be kept.
            let deferred = start.action == Action::SoftDelete && instance.host.is_some();
            let action = if start.action == Action::SoftDelete && !deferred { Action::Delete } else { start.action };
            let transition = match decide(action, &situation) {
                Ok(transition) => transition,
                Err(Refusal::AlreadyDeleting) => return Ok(None),
                Err(refusal) => return Err(refused(&refusal, id)),
            };
            let mut work = start.work.clone();
            if transition.first_task_state() == Some(TaskState::Deleting) {
                work = Work::Delete;
            }
            let context = &self.own_request(request, context, instance.id).await?;
            let now = self.clock.now();
            let before = Some(Box::new(instance.clone()));
            if let Some(change) = besides.change {
                change(&mut instance, &mut work)?;
            }
            instance.set_states(transition.apply(&instance.states()));
            instance.updated_at = now;
            let task = self.new_task(context, instance.id, work, self.options.get().operation_timeout, now);
            let begun = task.clone();
            let action = action_record(context, instance.id, start.action, now);
            let (supersede, limits, image) = (start.supersede, besides.limits, besides.image.clone());
            let begin = TaskStart { before, supersede, limits, image, ..TaskStart::of(instance, action, task) };
            match self.store.start_task(begin).await {
                Ok(_) => {
                    self.start_tasks(context, &[begun.id]).await;
                    return Ok(Some(begun));
                }
                // Someone else was faster: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
                Err(StoreError::Quota(exceeded)) => return Err(ApiError::OverQuota(exceeded.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict(format!("Instance {id} is being changed by others; try again.")))
    }

    /// The caller, under a new request id if the one that they sent was used on this server before: some clients send one
    /// id with all that they do, and an action's record must not take the place of another's.
    pub(in crate::api::compute) async fn own_request(
        &self,
        request: &Request,
        context: &RequestContext,
        instance: InstanceId,
    ) -> Result<RequestContext, StoreError> {
        let mut context = context.clone();
        if request.header("x-openstack-request-id").is_some() {
            match self.store.get_action(instance, &context.request_id).await {
                Ok(_) => context.request_id = RequestId::generate(&*self.entropy),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(context)
    }

    /// Is the compute service of the server's host up? Looked up only for actions that ask for it.
    pub(in crate::api::compute) async fn host_is_up(
        &self,
        action: Action,
        instance: &Instance,
    ) -> Result<bool, ApiError> {
        let asked = match rule(action).host {
            HostRule::None | HostRule::Assigned => false,
            HostRule::Up | HostRule::UpUnlessOffloaded | HostRule::Down => true,
        };
        let Some(host) = instance.host.as_ref().filter(|_| asked) else { return Ok(true) };
        let now = self.clock.now();
        let services = self.store.find_services(&ServiceQuery::computes([host])).await?;
        Ok(services.first().is_some_and(|service| service.is_up(now, self.options.get().service_down_time)))
    }
}

/// The answer for a refusal of the state machine.
pub(crate) fn refused(refusal: &Refusal, id: &str) -> ApiError {
    let text = refusal.message(id);
    match refusal {
        Refusal::Gone => ApiError::NotFound(text),
        Refusal::UnlockNeedsOverride => ApiError::Forbidden(text),
        Refusal::HostUp | Refusal::VolumeBacked { .. } => ApiError::BadRequest(text),
        _ => ApiError::Conflict(text),
    }
}
