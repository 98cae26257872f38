//! What else hangs on a server: its cells (2.78), the password that its guest encrypted, and file shares (2.97)
//! (nova/api/openstack/compute/server_topology.py, server_password.py, server_shares.py).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::instance::Instance;
use nova_core::metadata::{keep_password, kept_password};
use nova_core::state::VmState;
use nova_core::topology::{CpuPolicy, GuestCell, GuestTopology, PageSize, PlacedCell, Placement};
use serde_json::{Value, json};

use super::ComputeApi;
use super::input::strict_query;
use super::servers::{fields, owner};
use crate::api::microversion::since;
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, policy, route};

/// The resource.
pub(super) struct ServerFacts {
    api: Arc<ComputeApi>,
}

impl ServerFacts {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    /// Where its CPUs and memory are; which of the host's they have is for administrators.
    async fn topology(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 78, &[])?;
        let rule = "compute:server:topology:index";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        let Some(asked) = instance.topology() else {
            return Ok(Response::json(StatusCode::OK, &json!({"nodes": [], "pagesize_kb": null})));
        };
        let placement = self.placement(&instance).await?;
        let sees_host = policy::allows("compute:server:topology:host:index", request.context()?, owner(&instance));
        Ok(Response::json(StatusCode::OK, &topology_view(&asked, placement.as_ref(), sees_host)))
    }

    /// What the server was given of its host's cells.
    async fn placement(&self, instance: &Instance) -> Result<Option<Placement>, ApiError> {
        let Some(host) = &instance.host else { return Ok(None) };
        let allocations = self.api.store.list_allocations(Some(host)).await?;
        let own = allocations.into_iter().find(|allocation| allocation.instance_id == instance.id);
        Ok(own.and_then(|allocation| allocation.placement))
    }

    /// As the guest left it with the metadata service, encrypted for the owner's key; empty if it did not.
    async fn password(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 102, &[])?;
        let rule = "os_compute_api:os-server-password:show";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        let password = kept_password(&instance.system_metadata);
        Ok(Response::json(StatusCode::OK, &json!({ "password": password })))
    }

    /// Forgets it; the guest keeps its own.
    async fn clear_password(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:os-server-password:clear";
        let id = request.param("id");
        let forget = |instance: &mut Instance| {
            let before = instance.system_metadata.len();
            keep_password(&mut instance.system_metadata, "");
            Ok(instance.system_metadata.len() < before)
        };
        self.api.edit_in_any_state(&request, id, rule, forget).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    /// No share can be attached: there is no share service.
    async fn shares(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:os-server-shares:index";
        self.api.looked_at(&request, request.param("id"), rule).await?;
        Ok(Response::json(StatusCode::OK, &json!({"shares": []})))
    }

    async fn show_share(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:os-server-shares:show";
        self.api.looked_at(&request, request.param("id"), rule).await?;
        Err(no_share(request.param("share")))
    }

    async fn attach_share(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let mut root = Fields::root(&body, request.lenient)?;
        let mut share = root.object("share")?;
        let id = share.required_text("share_id", Text::new(0, usize::MAX))?;
        if !fields::is_uuid(id) {
            return Err(invalid("share_id", &json!(id), format_args!("'{id}' is not a 'uuid'")));
        }
        share.text("tag", Text::new(1, 255))?;
        share.finish()?;
        root.finish()?;
        let rule = "os_compute_api:os-server-shares:create";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        if instance.vm_state != VmState::Stopped {
            return Err(wrong_state(&instance, "create share"));
        }
        Err(no_share(id))
    }

    async fn detach_share(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = "os_compute_api:os-server-shares:delete";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        if !matches!(instance.vm_state, VmState::Stopped | VmState::Error) {
            return Err(wrong_state(&instance, "delete share"));
        }
        Err(no_share(request.param("share")))
    }
}

impl Resource for ServerFacts {
    fn name(&self) -> &'static str {
        "server-facts"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const PASSWORD: &str = "/servers/{id}/os-server-password";
        const SHARES: &str = "/servers/{id}/shares";
        const SHARE: &str = "/servers/{id}/shares/{share}";
        vec![
            route(Method::GET, "/servers/{id}/topology", &self, Self::topology).versions(since(78)),
            route(Method::GET, PASSWORD, &self, Self::password),
            route(Method::DELETE, PASSWORD, &self, Self::clear_password),
            route(Method::GET, SHARES, &self, Self::shares).versions(since(97)),
            route(Method::POST, SHARES, &self, Self::attach_share).versions(since(97)),
            route(Method::GET, SHARE, &self, Self::show_share).versions(since(97)),
            route(Method::DELETE, SHARE, &self, Self::detach_share).versions(since(97)),
        ]
    }
}

fn wrong_state(instance: &Instance, word: &str) -> ApiError {
    ApiError::Conflict(format!(
        "Cannot '{word}' instance {} while it is in vm_state {}",
        instance.id, instance.vm_state
    ))
}

fn no_share(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::not_found(format!("Share {id} could not be found."))
}

/// Cells of the guest, with what they got of the host's where that is shown and known.
fn topology_view(asked: &GuestTopology, placement: Option<&Placement>, sees_host: bool) -> Value {
    let placed = |index: usize| placement.and_then(|placement| placement.cells.get(index));
    let page_kb = placement.into_iter().flat_map(|placement| &placement.cells).find_map(|cell| cell.page_kb);
    let page_kb = page_kb.or(match asked.pages {
        Some(PageSize::Kib(size)) => Some(size),
        _ => None,
    });
    let nodes: Vec<Value> = asked
        .cells
        .iter()
        .enumerate()
        .map(|(index, cell)| cell_view(cell, asked.cpu_policy, placed(index), sees_host))
        .collect();
    json!({"nodes": nodes, "pagesize_kb": page_kb})
}

fn cell_view(cell: &GuestCell, policy: CpuPolicy, placed: Option<&PlacedCell>, sees_host: bool) -> Value {
    let mut view = json!({"vcpu_set": cell.cpus, "siblings": [], "memory_mb": cell.memory_mb});
    if sees_host {
        let pins: serde_json::Map<String, Value> = match (policy, placed) {
            (CpuPolicy::Dedicated, Some(placed)) => {
                placed.pins.iter().map(|(guest, host)| (guest.to_string(), json!(host))).collect()
            }
            _ => serde_json::Map::new(),
        };
        view["host_node"] = json!(placed.map(|placed| placed.host_cell));
        view["cpu_pinning"] = Value::Object(pins);
    }
    view
}
