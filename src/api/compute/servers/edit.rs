//! Changes of a server's record that need no task: decided by the state machine, written, done.

use nova_core::context::RequestContext;
use nova_core::instance::Instance;
use nova_core::state::{Action, LockChange, LockedBy, Refusal, Transition, decide};
use nova_db::StoreError;

use super::actions::refused;
use super::create::action_record;
use super::{instance_not_found, owner};
use crate::api::compute::ComputeApi;
use crate::api::{ApiError, Request, policy};

/// How often a lost race is run again.
const ATTEMPTS: usize = 5;

/// What is done, and how refusals call it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edit {
    /// The policy rule.
    pub(crate) rule: &'static str,
    /// What the state machine is asked.
    pub(crate) action: Action,
    /// The word in texts: `update metadata`, `delete tag`.
    pub(crate) word: &'static str,
}

impl ComputeApi {
    /// The request's server, if the rule lets the caller look at it.
    ///
    /// # Errors
    /// 404 for what the caller may not know of, and 403.
    pub(crate) async fn looked_at(&self, request: &Request, id: &str, rule: &str) -> Result<Instance, ApiError> {
        let context = request.context()?;
        let instance = self.visible_instance(context, id).await?;
        policy::enforce_on(rule, context, owner(&instance))?;
        Ok(instance)
    }

    /// Changes a server: looked up, allowed, decided, changed, written; again if others change it meanwhile. What Nova
    /// records as an action is recorded with it. `change` says whether there is anything to write.
    ///
    /// # Errors
    /// 404 for what the caller may not know of, 403, 409 in a state that forbids it, and what `change` has against it.
    pub(crate) async fn edit<F>(&self, request: &Request, id: &str, edit: Edit, change: F) -> Result<Instance, ApiError>
    where
        F: Fn(&mut Instance) -> Result<bool, ApiError> + Send + Sync,
    {
        let context = request.context()?;
        for _ in 0..ATTEMPTS {
            let mut instance = self.looked_at(request, id, edit.rule).await?;
            let situation = instance.situation(context.is_admin(), true, request.version.0);
            let transition = decide(edit.action, &situation).map_err(|refusal| refused_as(&refusal, edit.word, id))?;
            apply(&transition, context, &mut instance);
            if !change(&mut instance)? {
                return Ok(instance);
            }
            instance.updated_at = self.clock.now();
            match self.write(request, context, edit.action, instance).await {
                Ok(written) => return Ok(written),
                // Someone else was faster: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict(format!("Instance {id} is being changed by others; try again.")))
    }

    /// The same where Nova asks nothing of the server's state or lock.
    ///
    /// # Errors
    /// As [`ComputeApi::edit`], but for the state.
    pub(crate) async fn edit_in_any_state<F>(
        &self,
        request: &Request,
        id: &str,
        rule: &'static str,
        change: F,
    ) -> Result<Instance, ApiError>
    where
        F: Fn(&mut Instance) -> Result<bool, ApiError> + Send + Sync,
    {
        for _ in 0..ATTEMPTS {
            let mut instance = self.looked_at(request, id, rule).await?;
            if !change(&mut instance)? {
                return Ok(instance);
            }
            instance.updated_at = self.clock.now();
            match self.store.update_instance(instance).await {
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
                other => return Ok(other?),
            }
        }
        Err(ApiError::Conflict(format!("Instance {id} is being changed by others; try again.")))
    }

    async fn write(
        &self,
        request: &Request,
        context: &RequestContext,
        action: Action,
        instance: Instance,
    ) -> Result<Instance, StoreError> {
        let Some(name) = action.action_record() else { return self.store.update_instance(instance).await };
        let now = instance.updated_at;
        let context = self.own_request(request, context, instance.id).await?;
        let mut record = action_record(&context, instance.id, action, now);
        // As Nova's `wrap_instance_event(prefix='api')` names it.
        let event = format!("api_{name}");
        record.begin_event(&event, None, now);
        record.finish_event(&event, None, now);
        record.finish(None, now);
        if !matches!(action, Action::ResetState { .. }) {
            return self.store.record_change(instance, record).await;
        }
        let written = self.store.reset_state(instance, record).await?;
        // What was given up is taken back at once.
        let tasks: Vec<_> = self.store.list_tasks(Some(written.id)).await?.iter().map(|task| task.id).collect();
        self.start_tasks(&context, &tasks).await;
        Ok(written)
    }
}

fn apply(transition: &Transition, context: &RequestContext, instance: &mut Instance) {
    instance.set_states(transition.apply(&instance.states()));
    match transition.lock {
        LockChange::Keep => {}
        LockChange::Lock => {
            let own = instance.project_id == context.project_id;
            instance.locked = Some(if own { LockedBy::Owner } else { LockedBy::Admin });
        }
        LockChange::Unlock => {
            instance.locked = None;
            instance.locked_reason = None;
        }
    }
}

/// The answer for a refusal, with the word that this API has for what was asked.
fn refused_as(refusal: &Refusal, word: &str, id: &str) -> ApiError {
    match refusal {
        Refusal::InvalidState { .. } => ApiError::Conflict(refusal.message_as(word, id)),
        other => refused(other, id),
    }
}
