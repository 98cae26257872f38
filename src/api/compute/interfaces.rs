//! Interfaces of servers, looked at, plugged in and out (nova/api/openstack/compute/attach_interfaces.py).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use nova_core::context::RequestContext;
use nova_core::fault::Fault;
use nova_core::ids::{PortId, TaskId};
use nova_core::instance::Instance;
use nova_core::network::{NetworkServiceError, RequestedInterface, RequestedNetworks, Vif, VifAddress};
use nova_core::state::Action;
use nova_core::task::Work;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::ComputeApi;
use super::servers::{Start, fields, networks, owner};
use crate::api::validate::{Fields, Text, invalid, known_query};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, policy, route};

/// An interface is waited for that long (`rpc_response_timeout`): Nova's clients expect it in the answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked, first and later.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// `/servers/{id}/os-interface`.
pub(super) struct Interfaces {
    api: Arc<ComputeApi>,
}

impl Interfaces {
    /// Interfaces of this cloud's servers.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for Interfaces {
    fn name(&self) -> &'static str {
        "os-interface"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/servers/{id}/os-interface", &self, Self::index),
            route(Method::POST, "/servers/{id}/os-interface", &self, Self::create),
            route(Method::GET, "/servers/{id}/os-interface/{port}", &self, Self::show),
            route(Method::DELETE, "/servers/{id}/os-interface/{port}", &self, Self::delete),
        ]
    }
}

/// Reads `interfaceAttachment`. Without a body, or with an empty one: the network that there is.
fn parse(body: Option<&Value>, version: Microversion, lenient: bool) -> Result<RequestedInterface, ApiError> {
    let mut wanted = RequestedInterface::default();
    let Some(body) = body else { return Ok(wanted) };
    let mut root = Fields::root(body, lenient)?;
    let Some(mut attachment) = root.optional_object("interfaceAttachment")? else {
        root.finish()?;
        return Ok(wanted);
    };
    let mut id =
        |key: &'static str| -> Result<Option<&str>, ApiError> { attachment.text(key, Text::new(0, usize::MAX)) };
    let wrong = |key: &str, text: &str| invalid(key, &json!(text), format_args!("'{text}' is not a 'uuid'"));
    if let Some(text) = id("net_id")? {
        wanted.network_id = Some(text.parse().map_err(|_| wrong("net_id", text))?);
    }
    if let Some(text) = id("port_id")? {
        wanted.port_id = Some(text.parse().map_err(|_| wrong("port_id", text))?);
    }
    if let Some(list) = attachment.list("fixed_ips", 1)? {
        let item = list.first().ok_or_else(|| invalid("fixed_ips", &json!([]), "[] is too short"))?;
        let mut fixed = Fields::of("fixed_ips", item, lenient)?;
        fixed.required("ip_address")?;
        wanted.fixed_ip = fields::ip_address(&mut fixed, "ip_address")?;
        fixed.finish()?;
    }
    if version.at_least(49) {
        wanted.tag = attachment.get("tag").map(|tag| fields::tag("tag", tag)).transpose()?;
    }
    attachment.finish()?;
    root.finish()?;
    if wanted.network_id.is_some() && wanted.port_id.is_some() {
        return Err(ApiError::bad_request("Must not input both network_id and port_id"));
    }
    if wanted.fixed_ip.is_some() && wanted.network_id.is_none() {
        return Err(ApiError::bad_request("Must input network_id when request IP address"));
    }
    Ok(wanted)
}

/// What the network service says, as Nova answers it when an interface is plugged in.
fn refused(error: NetworkServiceError) -> ApiError {
    match error {
        NetworkServiceError::NetworkNotFound { .. } | NetworkServiceError::PortNotFound { .. } => {
            ApiError::NotFound(error.to_string())
        }
        NetworkServiceError::PortInUse { .. } | NetworkServiceError::AddressInUse { .. } => {
            ApiError::Conflict(error.to_string())
        }
        NetworkServiceError::OverQuota => ApiError::OverQuota(error.to_string()),
        NetworkServiceError::External { .. } => ApiError::Forbidden(error.to_string()),
        NetworkServiceError::Unavailable { source } => networks::unavailable(&*source),
        other => ApiError::BadRequest(other.to_string()),
    }
}

fn view(vif: &Vif, version: Microversion) -> Value {
    let fixed = |address: &VifAddress| json!({"subnet_id": address.subnet_id, "ip_address": address.address});
    let mut view = json!({
        "port_state": vif.status,
        "port_id": vif.port_id,
        "net_id": vif.network_id,
        "mac_addr": vif.mac_address,
        "fixed_ips": vif.addresses.iter().map(fixed).collect::<Vec<_>>(),
    });
    if version.at_least(70) {
        view["tag"] = json!(vif.tag);
    }
    view
}

impl Interfaces {
    async fn server(&self, request: &Request, rule: &str) -> Result<Instance, ApiError> {
        if request.version.at_least(102) && request.method == Method::GET {
            known_query(&request.query, &[])?;
        }
        let context = request.context()?;
        let server = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on(rule, context, owner(&server))?;
        Ok(server)
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let server = self.server(&request, "os_compute_api:os-attach-interfaces:list").await?;
        let vifs = self.vifs(request.context()?, &server).await?;
        let views: Vec<Value> = vifs.iter().map(|vif| view(vif, request.version)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "interfaceAttachments": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let server = self.server(&request, "os_compute_api:os-attach-interfaces:show").await?;
        let vif = self.vif(request.context()?, &server, request.param("port")).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "interfaceAttachment": view(&vif, request.version) })))
    }

    /// The server's interfaces, in order.
    async fn vifs(&self, context: &RequestContext, server: &Instance) -> Result<Vec<Vif>, ApiError> {
        let found = self.api.network.interfaces(context, &[server.id]).await.map_err(refused)?;
        Ok(found.into_iter().map(|(_, vif)| vif).collect())
    }

    /// The server's interface by the port of that id.
    async fn vif(&self, context: &RequestContext, server: &Instance, id: &str) -> Result<Vif, ApiError> {
        let vifs = self.vifs(context, server).await?;
        let wanted: Option<PortId> = id.parse().ok();
        let missing = || {
            let shown: String = id.chars().take(64).collect();
            ApiError::NotFound(format!("Instance {} does not have a port with id {shown}", server.id))
        };
        vifs.into_iter().find(|vif| Some(vif.port_id) == wanted).ok_or_else(missing)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        const RULE: &str = "os_compute_api:os-attach-interfaces:create";
        let body = request.json_or_none().await?;
        let interface = parse(body.as_ref(), request.version, request.lenient)?;
        let server = self.server(&request, RULE).await?;
        self.check(request.context()?, &server, &interface).await?;
        let work = Work::AttachInterface { interface };
        let start = Start { rule: RULE, action: Action::AttachInterface, work, supersede: false };
        let task = self.api.begin(&request, start).await?;
        let task = task.ok_or_else(|| ApiError::internal("an interface is plugged in without a task"))?;
        self.ended(&server, task.id).await?;
        let made = self.vifs(request.context()?, &server).await?;
        match made.iter().find(|vif| task.port_id().is_some_and(|id| vif.is(id))) {
            Some(vif) => {
                Ok(Response::json(StatusCode::OK, &json!({ "interfaceAttachment": view(vif, request.version) })))
            }
            None => Err(self.why_not(&server, task.created_at).await),
        }
    }

    /// Why an interface was not plugged in: what the server's fault says since then.
    async fn why_not(&self, server: &Instance, since: Timestamp) -> ApiError {
        let plain = format!("Failed to attach network adapter device to {}", server.id);
        let now = self.api.store.get_instance(server.id).await.ok();
        let is_it = |fault: &Fault| fault.created >= since && fault.message.starts_with(&plain);
        let (code, text) = match now.and_then(|now| now.fault).filter(is_it) {
            Some(fault) => (fault.code, fault.message),
            None => (500, plain.clone()),
        };
        // Without what was tried, where it says by itself what is wrong.
        let why = text.strip_prefix(&plain).map_or(&*text, |rest| rest.trim_start_matches(": ")).to_owned();
        match code {
            400 => ApiError::BadRequest(why),
            403 => ApiError::Forbidden(why),
            404 => ApiError::NotFound(why),
            409 => ApiError::Conflict(why),
            _ => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                ApiError::Network { status, name: "InterfaceAttachFailed", text }
            }
        }
    }

    /// Nothing is begun that cannot be, as far as that can be told now.
    async fn check(
        &self,
        context: &RequestContext,
        server: &Instance,
        interface: &RequestedInterface,
    ) -> Result<(), ApiError> {
        // It is the server's project that gets the port, whoever asks.
        let context = RequestContext { project_id: server.project_id.clone(), ..context.clone() };
        let unsaid = interface.network_id.is_none() && interface.port_id.is_none();
        if unsaid && !self.api.network.has_network(&context, &server.project_id).await.map_err(refused)? {
            return Err(ApiError::BadRequest(format!(
                "No specific network was requested and none are available for project '{}'.",
                server.project_id
            )));
        }
        let requested = match unsaid {
            true => RequestedNetworks::Unsaid,
            false => RequestedNetworks::These(vec![interface.clone()]),
        };
        self.api.network.validate(&context, &requested, 1).await.map_err(refused)
    }

    /// Waits until a task of the server has ended, however.
    async fn ended(&self, server: &Instance, task: TaskId) -> Result<(), ApiError> {
        let wait = async {
            let mut pause = FIRST_LOOK;
            loop {
                let tasks = match self.api.store.list_tasks(Some(server.id)).await {
                    Ok(tasks) => tasks,
                    Err(StoreError::NotFound { .. }) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                if tasks.iter().all(|other| other.id != task) {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LAST_LOOK);
            }
        };
        let late = |_| ApiError::Unavailable { retry_after: 1 };
        tokio::time::timeout(PATIENCE, wait).await.map_err(late)?
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        const RULE: &str = "os_compute_api:os-attach-interfaces:delete";
        let server = self.server(&request, RULE).await?;
        let port_id = self.vif(request.context()?, &server, request.param("port")).await?.port_id;
        let work = Work::DetachInterface { port_id };
        let start = Start { rule: RULE, action: Action::DetachInterface, work, supersede: false };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}
