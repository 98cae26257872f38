//! Addresses of consoles: `POST /servers/{id}/remote-consoles` (2.6), before it an action for each protocol, and what a
//! token stands for (nova/api/openstack/compute/remote_consoles.py, console_auth_tokens.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::SignedDuration;
use nova_core::console::{ConsoleType, token_hash};
use nova_core::state::{Action, decide};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::input::{strict_query, under};
use super::servers::{owner, refused};
use super::{ComputeApi, OrderError};
use crate::api::microversion::{Microversion, since, until};
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, ServerAction, action, policy, route};
use crate::console::grants::{Subject, base_url, new_grant};

const RULE: &str = "os_compute_api:os-remote-consoles";
const TOKENS_RULE: &str = "os_compute_api:os-console-auth-tokens";
/// Longer than any token that was given out.
const LONGEST_TOKEN: usize = 255;

/// The resource.
pub(super) struct RemoteConsoles {
    api: Arc<ComputeApi>,
}

impl Resource for RemoteConsoles {
    fn name(&self) -> &'static str {
        "remote-consoles"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::POST, "/servers/{id}/remote-consoles", &self, Self::create).versions(since(6)),
            route(Method::GET, "/os-console-auth-tokens/{token}", &self, Self::show_token),
        ]
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("os-getVNCConsole", &self, Self::vnc).versions(until(5)),
            action("os-getSPICEConsole", &self, Self::spice).versions(until(5)),
            action("os-getSerialConsole", &self, Self::serial).versions(until(5)),
        ]
    }
}

impl RemoteConsoles {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        strict_query(&request, 99, &[])?;
        let body = request.json().await?;
        let mut fields = under(&body, "remote_console", request.lenient)?;
        let protocol = word(&mut fields, "protocol", protocols(request.version))?.to_owned();
        let console_type = word(&mut fields, "type", types(request.version))?.to_owned();
        fields.finish()?;
        let url = self.address(&request, &protocol, &console_type).await?;
        let shown = json!({"remote_console": {"protocol": protocol, "type": console_type, "url": url}});
        Ok(Response::json(StatusCode::OK, &shown))
    }

    async fn vnc(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        self.by_action(request, "os-getVNCConsole", body, "vnc", &["novnc", "xvpvnc"]).await
    }

    async fn spice(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        self.by_action(request, "os-getSPICEConsole", body, "spice", &["spice-html5"]).await
    }

    async fn serial(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        self.by_action(request, "os-getSerialConsole", body, "serial", &["serial"]).await
    }

    async fn by_action(
        &self,
        request: Request,
        name: &str,
        body: Value,
        protocol: &str,
        known: &[&str],
    ) -> HandlerResult {
        let mut fields = Fields::of(name, &body, request.lenient)?;
        let console_type = word(&mut fields, "type", known)?.to_owned();
        fields.finish()?;
        let url = self.address(&request, protocol, &console_type).await?;
        Ok(Response::json(StatusCode::OK, &json!({"console": {"type": console_type, "url": url}})))
    }

    /// A new grant, and the address that it opens.
    async fn address(&self, request: &Request, protocol: &str, asked: &str) -> Result<String, ApiError> {
        let context = request.context()?;
        let id = request.param("id");
        let instance = self.api.visible_instance(context, id).await?;
        policy::enforce_on(RULE, context, owner(&instance))?;
        let console_type: ConsoleType =
            asked.parse().ok().filter(|one: &ConsoleType| one.protocol() == protocol).ok_or_else(|| wrong(asked))?;
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(Action::GetConsole, &situation).map_err(|refusal| refused(&refusal, id))?;
        let Some(host) = &instance.host else { return Err(not_ready(id)) };
        let urls = self.api.options.get().consoles.clone();
        let base = base_url(&urls, console_type).ok_or_else(|| unavailable(console_type))?;
        let target = self.api.orders.console(context, host, instance.id, console_type).await;
        let target = target.map_err(|error| match error {
            // The guest has no such screen; for the others, the driver has none.
            OrderError::Unsupported if console_type.protocol() == "spice" => unavailable(console_type),
            error => order_failed(error, id),
        })?;
        let subject = Subject { context, instance: &instance, host, console_type, target };
        let ttl = SignedDuration::try_from(urls.token_ttl).unwrap_or(SignedDuration::MAX);
        let new = new_grant(subject, base, ttl, self.api.clock.now(), &*self.api.entropy);
        self.api.store.add_console_grant(new.grant).await?;
        Ok(new.url)
    }

    /// What a token stands for, for proxies of others. It is not used up.
    async fn show_token(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 99, &[])?;
        policy::enforce(TOKENS_RULE, request.context()?)?;
        if request.version.before(31) {
            // Until then it was for consoles over RDP alone, and those are gone.
            return Err(ApiError::bad_request("The requested console type details are not accessible"));
        }
        let token = request.param("token");
        let missing = || ApiError::not_found("Token not found");
        if token.len() > LONGEST_TOKEN {
            return Err(missing());
        }
        let grant = match self.api.store.get_console_grant(&token_hash(token), self.api.clock.now()).await {
            Ok(grant) if grant.resumes.is_none() => grant,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let mut console = json!({
            "instance_uuid": grant.instance_id,
            "host": grant.target.host,
            "port": Some(grant.target.port).filter(|port| *port > 0),
            "internal_access_path": null,
        });
        if request.version.at_least(99) {
            console["tls_port"] = json!(grant.target.tls_port);
        }
        Ok(Response::json(StatusCode::OK, &json!({ "console": console })))
    }
}

fn protocols(version: Microversion) -> &'static [&'static str] {
    if version.at_least(8) { &["vnc", "spice", "serial", "mks"] } else { &["vnc", "spice", "serial"] }
}

fn types(version: Microversion) -> &'static [&'static str] {
    const NEWEST: [&str; 6] = ["novnc", "xvpvnc", "spice-html5", "serial", "webmks", "spice-direct"];
    match version {
        version if version.at_least(99) => &NEWEST,
        version if version.at_least(8) => &NEWEST[..5],
        _ => &NEWEST[..4],
    }
}

/// One of these words.
fn word<'a>(fields: &mut Fields<'a>, key: &'a str, known: &[&str]) -> Result<&'a str, ApiError> {
    let text = fields.required_text(key, Text::new(0, usize::MAX))?;
    if known.contains(&text) {
        return Ok(text);
    }
    Err(invalid(key, &json!(text), format_args!("'{text}' is not one of {known:?}")))
}

fn wrong(asked: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid console type {asked}"))
}

fn unavailable(console_type: ConsoleType) -> ApiError {
    ApiError::bad_request(format!("Unavailable console type {console_type}."))
}

fn not_ready(id: &str) -> ApiError {
    ApiError::Conflict(format!("Instance {id} is not ready"))
}

fn order_failed(error: OrderError, id: &str) -> ApiError {
    match error {
        // The host's guest is not there (yet), or does not run.
        OrderError::NotFound | OrderError::NotReady => not_ready(id),
        OrderError::Unsupported => ApiError::NotImplemented("The requested functionality is not supported.".to_owned()),
        OrderError::HostUnavailable { source } | OrderError::Failed { source } => {
            tracing::warn!(instance = id, error = &*source as &dyn std::error::Error, "no console");
            ApiError::Unavailable { retry_after: 5 }
        }
    }
}
