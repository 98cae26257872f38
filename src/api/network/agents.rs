//! `/agents` and `/availability_zones`: the hosts that ask for their network (neutron/db/agents_db.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use nova_core::ids::NetworkAgentId;
use nova_core::network::{BOOKS_PLUMBING, NetworkAgent};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::input::{not_found, require_admin};
use super::list::{Collection, nothing, one};
use super::networks::short;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::network::NetworkManager;

/// Hosts are few enough to be filtered here.
const LIST: Collection<()> = Collection {
    name: "agents",
    attributes: &["id", "host", "agent_type", "binary", "alive", "admin_state_up", "topic", "availability_zone"],
    flags: &["alive", "admin_state_up"],
    field: |_| None,
};

/// The resource.
pub(super) struct Agents(pub(super) Arc<NetworkManager>);

impl Resource for Agents {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/agents", &self, Self::index),
            route(Method::GET, "/agents/{id}", &self, Self::show),
            route(Method::DELETE, "/agents/{id}", &self, Self::delete),
            route(Method::GET, "/availability_zones", &self, Self::zones),
        ]
    }
}

fn gone(id: &str) -> ApiError {
    not_found("AgentNotFound", "Agent", short(id))
}

impl Agents {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        require_admin(context, "get_agent")?;
        let listing = LIST.read(&request.query, context, &[], self.0.options.max_limit)?;
        let agents = self.0.store.list_network_agents(None).await?;
        LIST.answer(&request, &listing, agents.iter().map(|agent| self.view(agent)).collect())
    }

    async fn found(&self, request: &Request) -> Result<NetworkAgent, ApiError> {
        let text = request.param("id");
        let Ok(id) = text.parse::<NetworkAgentId>() else { return Err(gone(text)) };
        match self.0.store.get_network_agent(id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(text)),
            answer => Ok(answer?),
        }
    }

    /// One agent, also with what it could not make so.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "get_agent")?;
        let agent = self.found(&request).await?;
        let state = self.0.store.get_network_state(&agent.host).await?;
        let mut view = self.view(&agent);
        view["configurations"]["problems"] = json!(state.map(|state| state.problems).unwrap_or_default());
        one(StatusCode::OK, "agent", view, &request)
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "delete_agent")?;
        let agent = self.found(&request).await?;
        match self.0.store.delete_network_agent(agent.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(request.param("id"))),
            answer => answer.map(|()| nothing())?,
        }
    }

    fn view(&self, agent: &NetworkAgent) -> Value {
        let silent = self.0.now().duration_since(agent.heard_at);
        let alive = silent <= crate::conductor::signed(self.0.options.agent_down_time);
        json!({
            "id": agent.id,
            "host": agent.host,
            "agent_type": agent_type(agent),
            "binary": "nova-compute",
            "topic": "N/A",
            "alive": alive,
            "admin_state_up": true,
            "availability_zone": null,
            "description": null,
            "resources_synced": null,
            "created_at": plain(agent.created_at),
            "started_at": plain(agent.created_at),
            "heartbeat_timestamp": plain(agent.heard_at),
            "configurations": {
                "plumbing": agent.plumbing,
                "tunneling_ip": agent.tunnel_ip,
                "physical_networks": agent.physical_networks,
            },
        })
    }

    async fn zones(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let zone = |resource: &str| json!({"name": "nova", "resource": resource, "state": "available"});
        let zones = [zone("network"), zone("router")];
        Ok(Response::json(StatusCode::OK, &json!({ "availability_zones": zones })))
    }
}

fn agent_type(agent: &NetworkAgent) -> &'static str {
    if agent.plumbing == BOOKS_PLUMBING { "Books agent" } else { "Linux bridge agent" }
}

/// As Neutron writes times of agents.
fn plain(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
