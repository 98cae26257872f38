//! `/os-server-external-events`: what an outside Neutron tells of the interfaces of servers
//! (nova/api/openstack/compute/server_external_events.py).
//!
//! What is shown of a server's interfaces is asked for when it is shown. So a `network-changed` has nothing to refresh;
//! `network-vif-plugged` and `-unplugged` say whether a port works, where its books are kept here, and a build that waits for
//! that hears it; `network-vif-deleted` unplugs the interface; `volume-extended` has the guest see its volume's new size. Events
//! about power and accelerators are accepted and have no effect.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::error::chain;
use nova_core::ids::{InstanceId, PortId};
use nova_core::instance::Instance;
use nova_core::network::PortStatus;
use nova_core::rpc::compute::ExtendVolumeRequest;
use nova_core::state::Action;
use nova_core::task::{Task, Work};
use nova_core::volume::GIB;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::servers::Start;
use super::volume_attachments::refused;
use crate::api::compute::ComputeApi;
use crate::api::policy::enforce;
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, route};

const RULE: &str = "os_compute_api:os-server-external-events:create";

/// Names of events, and since which minor version they are known.
const NAMES: [(&str, u16); 8] = [
    ("network-changed", 1),
    ("network-vif-plugged", 1),
    ("network-vif-unplugged", 1),
    ("network-vif-deleted", 1),
    ("volume-extended", 51),
    ("power-update", 76),
    ("accelerator-request-bound", 82),
    ("volume-reimaged", 93),
];
const STATUSES: [&str; 3] = ["failed", "completed", "in-progress"];

/// The resource.
pub struct ServerExternalEvents {
    api: Arc<ComputeApi>,
}

/// One event as it was told.
struct Event {
    name: String,
    server: InstanceId,
    tag: Option<String>,
    status: Option<String>,
    /// The same, to be repeated in the answer.
    body: Value,
}

impl Event {
    fn read(value: &Value, version: Microversion, lenient: bool) -> Result<Self, ApiError> {
        let mut fields = Fields::of("events", value, lenient)?;
        let name = fields.required_text("name", Text::new(0, usize::MAX))?;
        if !NAMES.iter().any(|(known, since)| *known == name && !version.before(*since)) {
            let known: Vec<_> =
                NAMES.iter().filter(|(_, since)| !version.before(*since)).map(|(name, _)| *name).collect();
            return Err(invalid("name", &json!(name), format_args!("'{name}' is not one of {known:?}")));
        }
        let server = fields.required_text("server_uuid", Text::new(0, usize::MAX))?;
        let wrong = || invalid("server_uuid", &json!(server), format_args!("'{server}' is not a 'uuid'"));
        let server = server.parse().map_err(|_| wrong())?;
        let tag = fields.text("tag", Text::new(0, 255))?;
        let status = fields.text("status", Text::new(0, usize::MAX))?;
        if let Some(status) = status.filter(|status| !STATUSES.contains(status)) {
            return Err(invalid("status", &json!(status), format_args!("'{status}' is not one of {STATUSES:?}")));
        }
        let (name, tag, status) = (name.to_owned(), tag.map(str::to_owned), status.map(str::to_owned));
        fields.finish()?;
        Ok(Self { name, server, tag, status, body: value.clone() })
    }

    /// What becomes of it: its code in the answer.
    fn code(&self, server: Option<&Instance>) -> u16 {
        match server {
            None => 404,
            Some(_) if self.name == "power-update" && self.tag.is_none() => 400,
            // Nobody can be told.
            Some(server) if server.host.is_none() => 422,
            Some(_) => 200,
        }
    }

    fn answer(&self, code: u16) -> Value {
        let mut body = self.body.clone();
        body["code"] = json!(code);
        if code != 200 {
            body["status"] = json!("failed");
        }
        body
    }
}

impl ServerExternalEvents {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        enforce(RULE, request.context()?)?;
        let mut fields = Fields::root(&body, request.lenient)?;
        let list = fields.required("events")?;
        let events = list.as_array().filter(|events| !events.is_empty());
        let events = events.ok_or_else(|| invalid("events", list, "it must be a list of one item at least"))?;
        let read = |value| Event::read(value, request.version, request.lenient);
        let events = events.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        fields.finish()?;
        let servers = self.servers(&events).await?;
        let coded: Vec<_> = events.iter().map(|event| (event, event.code(servers.get(&event.server)))).collect();
        if coded.iter().all(|(_, code)| *code != 200) {
            return Err(ApiError::not_found("No instances found for any event"));
        }
        for (event, _) in coded.iter().filter(|(_, code)| *code == 200) {
            self.take(&mut request, event).await?;
        }
        let all = coded.iter().all(|(_, code)| *code == 200);
        let status = if all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
        let answers: Vec<_> = coded.iter().map(|(event, code)| event.answer(*code)).collect();
        Ok(Response::json(status, &json!({ "events": answers })))
    }

    /// The servers that the events are about, as far as there are.
    async fn servers(&self, events: &[Event]) -> Result<BTreeMap<InstanceId, Instance>, ApiError> {
        let mut servers = BTreeMap::new();
        for event in events {
            if servers.contains_key(&event.server) {
                continue;
            }
            match self.api.store.get_instance(event.server).await {
                Ok(instance) if instance.is_deleted() => {}
                Ok(instance) => drop(servers.insert(event.server, instance)),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(servers)
    }

    /// What an event changes. Who tells it is not told of what goes wrong with that: the next event, or the next look at
    /// the server, finds it as it is.
    async fn take(&self, request: &mut Request, event: &Event) -> Result<(), ApiError> {
        let (server, name) = (event.server, event.name.as_str());
        let tag = event.tag.as_deref().unwrap_or_default();
        tracing::info!(instance = %server, event = name, tag, status = event.status, "an event from outside");
        if name == "volume-extended" {
            self.extend(request.context()?, server, tag).await;
            return Ok(());
        }
        let Ok(port) = tag.parse::<PortId>() else { return Ok(()) };
        let context = request.context()?.clone();
        let status = match (name, event.status.as_deref().unwrap_or("completed")) {
            ("network-vif-plugged", "completed") => Some(PortStatus::Active),
            ("network-vif-plugged", "failed") => Some(PortStatus::Error),
            ("network-vif-unplugged", "completed") => Some(PortStatus::Down),
            ("network-vif-deleted", _) => None,
            _ => return Ok(()),
        };
        let interfaces = match self.api.network.interfaces(&context, &[server]).await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::warn!(instance = %server, "the event has no effect: {}", chain(&error));
                return Ok(());
            }
        };
        if !interfaces.iter().any(|(_, vif)| vif.port_id == port) {
            tracing::info!(instance = %server, %port, "it is none of the server's ports, or no longer");
            return Ok(());
        }
        let done = match status {
            Some(status) => {
                let told = self.api.network.set_status(&context, port, status).await;
                self.tell_waiting(&context, server, port, name, status).await;
                told.map_err(|error| chain(&error))
            }
            None => self.unplug(request, server, port).await.map_err(|error| error.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!(instance = %server, %port, "the event has no effect: {error}");
        }
        Ok(())
    }

    /// Has the builds go on, or fail, that wait for the interface. One that does not hear it asks by itself.
    async fn tell_waiting(
        &self,
        context: &RequestContext,
        server: InstanceId,
        port: PortId,
        name: &str,
        status: PortStatus,
    ) {
        if name != "network-vif-plugged" {
            return;
        }
        let waits = |task: &Task| task.awaited.as_ref().is_some_and(|awaited| awaited.ports.contains(&port));
        let tasks = match self.api.store.list_tasks(Some(server)).await {
            Ok(tasks) => tasks.into_iter().filter(waits).map(|task| task.id).collect::<Vec<_>>(),
            Err(error) => return tracing::warn!(instance = %server, "nobody is told: {}", chain(&error)),
        };
        if tasks.is_empty() {
            return;
        }
        let told = self.api.orders.tell_plugged(context, &tasks, port, status == PortStatus::Active).await;
        if let Err(error) = told {
            tracing::warn!(instance = %server, "who waits for {port} finds out later: {}", chain(&error));
        }
    }

    /// The guest is to see that the volume has grown.
    async fn extend(&self, context: &RequestContext, server: InstanceId, tag: &str) {
        let told = async {
            let server = self.api.store.get_instance(server).await?;
            let volume = tag.parse().ok().and_then(|id| server.volume(id));
            let (Some(volume), Some(host)) = (volume, &server.host) else {
                return Err(ApiError::bad_request("it is none of the server's volumes"));
            };
            let found = self.api.block_storage()?.volume(context, volume.volume_id).await.map_err(refused)?;
            let (instance_id, volume_id) = (server.id, volume.volume_id);
            let request = ExtendVolumeRequest { instance_id, volume_id, bytes: found.size_gb.saturating_mul(GIB) };
            self.api.orders.extend_volume(context, host, request).await.map_err(ApiError::internal)
        };
        if let Err(error) = told.await {
            tracing::warn!(instance = %server, volume = tag, "the event has no effect: {error}");
        }
    }

    /// Has the interface unplugged, on behalf of whoever told that its port goes.
    async fn unplug(&self, request: &mut Request, server: InstanceId, port: PortId) -> Result<(), ApiError> {
        request.params.insert("id".to_owned(), server.to_string());
        // Several ports of a server may go with one request: the second action gets a request id of its own.
        let id = HeaderValue::from_str(request.request_id.as_str());
        if let Ok(id) = id {
            request.headers.entry("x-openstack-request-id").or_insert(id);
        }
        let whole = request.context.clone();
        if let Some(context) = &mut request.context {
            // The rule of this resource has let them: services speak of everybody's servers.
            context.roles.push("admin".to_owned());
        }
        let work = Work::DetachInterface { port_id: port };
        let start = Start { rule: RULE, action: Action::DetachInterface, work, supersede: false };
        let begun = self.api.begin(request, start).await;
        request.context = whole;
        begun.map(drop)
    }
}

impl Resource for ServerExternalEvents {
    fn name(&self) -> &'static str {
        "os-server-external-events"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::POST, "/os-server-external-events", &self, Self::create)]
    }
}
