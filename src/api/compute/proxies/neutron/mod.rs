//! The same calls where an outside Neutron keeps the networks: passed on to it, as Nova does
//! (nova/network/neutron.py, nova/network/security_group_api.py).
//!
//! Neutron is asked as the service and not as the user: whose an object is is looked at here.

mod floating_ips;
mod security_groups;
mod servers;
#[cfg(test)]
mod tests;

use nova_core::context::RequestContext;
use nova_core::ids::NetworkId;
use serde_json::{Value, json};

use crate::api::ApiError;
use crate::api::compute::servers::networks::unavailable;
use crate::network::{NeutronClient, NeutronError, Objects};

/// One caller's way to it.
#[derive(Clone, Copy)]
pub(in crate::api::compute) struct Passed<'a> {
    neutron: &'a NeutronClient,
    context: &'a RequestContext,
}

/// What Neutron refuses: over quota 403, not there 404, anything else that is about the request 400, as Nova tells it.
fn refused(error: NeutronError) -> ApiError {
    match error {
        NeutronError::Refused { kind, message, .. } if kind == "OverQuota" => ApiError::OverQuota(message),
        NeutronError::Refused { status, message, .. } if status == http::StatusCode::NOT_FOUND => {
            ApiError::NotFound(message)
        }
        // What it does not let us do is our account's fault, not the caller's.
        NeutronError::Refused { status, message, .. } if [400, 409].contains(&status.as_u16()) => {
            ApiError::BadRequest(message)
        }
        other => unavailable(&other),
    }
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object[key].as_str().unwrap_or_default()
}

fn list<'v>(object: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    object[key].as_array().into_iter().flatten()
}

fn is_of(object: &Value, project: &str) -> bool {
    [&object["project_id"], &object["tenant_id"]].into_iter().any(|owner| owner == project)
}

impl<'a> Passed<'a> {
    /// On behalf of that caller.
    pub(in crate::api::compute) fn on(neutron: &'a NeutronClient, context: &'a RequestContext) -> Self {
        Self { neutron, context }
    }

    fn may_see(&self, object: &Value) -> bool {
        self.context.is_admin() || is_of(object, self.context.project_id.as_str())
    }

    async fn find(&self, of: Objects, query: &[(&str, &str)]) -> Result<Vec<Value>, ApiError> {
        self.neutron.find(of, query).await.map_err(refused)
    }

    /// Networks that servers of the caller's project may be plugged into.
    pub(in crate::api::compute) async fn networks(&self) -> Result<Vec<Value>, ApiError> {
        let mut all = self.find(Objects::NETWORKS, &[("project_id", self.context.project_id.as_str())]).await?;
        for shared in self.find(Objects::NETWORKS, &[("shared", "True")]).await? {
            if !all.iter().any(|known| known["id"] == shared["id"]) {
                all.push(shared);
            }
        }
        Ok(all.iter().map(name_of).collect())
    }

    /// One of them, or an outer one.
    pub(in crate::api::compute) async fn network(&self, id: NetworkId) -> Result<Option<Value>, ApiError> {
        let found = self.neutron.show(Objects::NETWORKS, id).await.map_err(refused)?;
        let open = |one: &Value| self.may_see(one) || one["shared"] == true || one["router:external"] == true;
        Ok(found.filter(open).as_ref().map(name_of))
    }
}

fn name_of(network: &Value) -> Value {
    json!({"id": network["id"], "label": network["name"]})
}
