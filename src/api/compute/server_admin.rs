//! `lock`, `unlock`, `os-resetState` and `injectNetworkInfo` (nova/api/openstack/compute/lock_server.py,
//! admin_actions.py): what is done to a server without its host.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::StatusCode;
use nova_core::state::{Action, ResetTarget};
use serde_json::Value;

use super::ComputeApi;
use super::servers::Edit;
use crate::api::validate::{Fields, Shown, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, ServerAction, action};

/// The actions.
pub(super) struct ServerAdmin {
    api: Arc<ComputeApi>,
}

impl ServerAdmin {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    /// Who may lock it may lock it again: the owner's changes nothing, an administrator's takes its place (nova/compute/
    /// api.py, `lock`).
    async fn lock(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let reason = lock_reason(&body, &request)?;
        let context = request.context()?.clone();
        let edit = Edit { rule: "os_compute_api:os-lock-server:lock", action: Action::Lock, word: "lock" };
        let id = request.param("id");
        let before = self.api.looked_at(&request, id, edit.rule).await?;
        if before.locked.is_some() && before.project_id == context.project_id {
            return accepted();
        }
        let with_reason = |instance: &mut nova_core::instance::Instance| {
            if reason.is_some() {
                instance.locked_reason.clone_from(&reason);
            }
            Ok(true)
        };
        self.api.edit(&request, id, edit, with_reason).await?;
        accepted()
    }

    async fn unlock(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let edit = Edit { rule: "os_compute_api:os-lock-server:unlock", action: Action::Unlock, word: "unlock" };
        self.api.edit(&request, request.param("id"), edit, |_| Ok(true)).await?;
        accepted()
    }

    /// The state is set, and what is done with the server ends: builds and moves are taken back, which may take a while in
    /// which the server is still in its task.
    async fn reset_state(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let to = reset_target(&body, request.lenient)?;
        let rule = "os_compute_api:os-admin-actions:reset_state";
        let edit = Edit { rule, action: Action::ResetState { to }, word: "resetState" };
        self.api.edit(&request, request.param("id"), edit, |_| Ok(true)).await?;
        accepted()
    }

    /// Guests learn of their network from DHCP and metadata, and what is shown of it is asked for when it is shown: as with
    /// Nova's libvirt driver, there is nothing to inject.
    async fn inject_network_info(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let rule = "os_compute_api:os-admin-actions:inject_network_info";
        let edit = Edit { rule, action: Action::InjectNetworkInfo, word: "injectNetworkInfo" };
        self.api.edit(&request, request.param("id"), edit, |_| Ok(false)).await?;
        accepted()
    }
}

impl Resource for ServerAdmin {
    fn name(&self) -> &'static str {
        "server-admin"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        Vec::new()
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("lock", &self, Self::lock),
            action("unlock", &self, Self::unlock),
            action("os-resetState", &self, Self::reset_state),
            action("injectNetworkInfo", &self, Self::inject_network_info),
        ]
    }
}

fn accepted() -> HandlerResult {
    Ok(Response::empty(StatusCode::ACCEPTED))
}

/// Null, or from 2.73 on `{"locked_reason": "…"}`. Before, what stands under the key was never looked at.
fn lock_reason(body: &Value, request: &Request) -> Result<Option<String>, ApiError> {
    if request.version.before(73) || body.is_null() {
        return Ok(None);
    }
    let mut fields = Fields::of("lock", body, request.lenient)?;
    let reason = fields.text("locked_reason", Text::new(1, 255))?.map(str::to_owned);
    fields.finish()?;
    Ok(reason)
}

fn reset_target(body: &Value, lenient: bool) -> Result<ResetTarget, ApiError> {
    let mut fields = Fields::of("os-resetState", body, lenient)?;
    let state = fields.required("state")?;
    let to = match state.as_str() {
        Some("active") => ResetTarget::Active,
        Some("error") => ResetTarget::Error,
        _ => {
            let problem = format!("'{}' is not one of ['active', 'error']", Shown(state));
            return Err(invalid("state", state, problem));
        }
    };
    fields.finish()?;
    Ok(to)
}
