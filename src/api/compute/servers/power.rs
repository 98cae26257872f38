//! Pause, suspend, deferred deletion, crash dumps: actions without content, each with its own policy
//! (nova/api/openstack/compute/pause_server.py, suspend_server.py, deferred_delete.py, servers.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::state::Action;
use nova_core::task::Work;
use serde_json::Value;

use super::Servers;
use super::actions::{Besides, Start};
use crate::api::validate::wrong_type;
use crate::api::{HandlerResult, Request, Response};

impl Servers {
    /// Whatever stands beside such an action's key is not looked at, as in Nova.
    async fn plain(&self, request: Request, rule: &'static str, action: Action, work: Work) -> HandlerResult {
        let supersede = action == Action::ForceDelete;
        // What comes back counts again.
        let limits = match action {
            Action::Restore => {
                let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
                Some(self.api.quotas_in_force(&instance.project_id, None).await?.limits())
            }
            _ => None,
        };
        let besides = Besides { limits, ..Besides::default() };
        self.api.begin_with(&request, Start { rule, action, work, supersede }, besides).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn pause(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-pause-server:pause", Action::Pause, Work::Pause).await
    }

    pub(super) async fn unpause(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-pause-server:unpause", Action::Unpause, Work::Unpause).await
    }

    pub(super) async fn suspend(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-suspend-server:suspend", Action::Suspend, Work::Suspend).await
    }

    pub(super) async fn resume(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-suspend-server:resume", Action::Resume, Work::Resume).await
    }

    pub(super) async fn restore(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-deferred-delete:restore", Action::Restore, Work::Restore).await
    }

    pub(super) async fn force_delete(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.plain(request, "os_compute_api:os-deferred-delete:force", Action::ForceDelete, Work::Delete).await
    }

    pub(super) async fn trigger_crash_dump(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        if !body.is_null() {
            return Err(wrong_type("trigger_crash_dump", &body, "null"));
        }
        let rule = "os_compute_api:servers:trigger_crash_dump";
        self.plain(request, rule, Action::TriggerCrashDump, Work::TriggerCrashDump).await
    }
}
