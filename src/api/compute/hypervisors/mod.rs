//! `/os-hypervisors`: compute nodes and what is on them (nova/api/openstack/compute/hypervisors.py).

#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::host::{ComputeNode, Service};
use nova_core::ids::ComputeNodeId;
use nova_core::instance::Instance;
use nova_db::{Deleted, InstanceQuery};
use serde_json::{Map, Value, json};

use self::view::Hypervisor;
use crate::api::compute::ComputeApi;
use crate::api::compute::input::{invalid_query, single_query, strict_query};
use crate::api::compute::links::next_links;
use crate::api::compute::services::view::Liveness;
use crate::api::compute::services::{COMPUTE, liveness};
use crate::api::microversion::until;
use crate::api::policy::enforce;
use crate::api::{
    ApiError, HandlerResult, Microversion, Paging, Request, Resource, Response, Route, parse_bool, route,
};

/// How much of each node is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Brief,
    Full,
}

/// The resource.
pub struct Hypervisors {
    api: Arc<ComputeApi>,
}

/// A node, the service that manages it, and its servers where they are wanted.
struct Row {
    node: ComputeNode,
    service: Service,
    servers: Option<Vec<Instance>>,
    name_template: String,
}

impl Hypervisors {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:list", request.context()?)?;
        self.list(request, Form::Brief).await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:list-detail", request.context()?)?;
        self.list(request, Form::Full).await
    }

    async fn list(&self, request: Request, form: Form) -> HandlerResult {
        let uuids = request.version.at_least(53);
        let paging = self.read_paging(&request)?;
        let with_servers = with_servers(&request)?;
        let mut nodes = self.nodes().await?;
        match request.query.get("hypervisor_hostname_pattern").filter(|_| uuids) {
            Some(pattern) => {
                hostname("hypervisor_hostname_pattern", pattern)?;
                if request.query.has("limit") || request.query.has("marker") {
                    return Err(ApiError::bad_request(
                        "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
                    ));
                }
                nodes = matching(nodes, pattern)?;
            }
            None => nodes = page(nodes, &paging, &request)?,
        }
        let last = nodes.last().map(|node| node_id(&request, node));
        let size = nodes.len();
        let rows = self.rows(nodes, with_servers).await?;
        let mut body = json!({ "hypervisors": self.views(&request, &rows, form) });
        let linked = request.version.at_least(33) && !request.query.has("hypervisor_hostname_pattern");
        let collection = if form == Form::Full { "os-hypervisors/detail" } else { "os-hypervisors" };
        let last = last.as_deref().filter(|_| linked);
        if let Some(links) = next_links(&request, collection, size, paging.limit, last) {
            body["hypervisors_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:show", request.context()?)?;
        if request.version.at_least(53) {
            strict_query(&request, 53, &["with_servers"])?;
            single_query(&request, &["with_servers"])?;
        }
        let with_servers = with_servers(&request)?;
        let row = self.find(request.version, request.param("id"), with_servers).await?;
        let view = view::full(request.version, &liveness(&self.api), &row.hypervisor());
        Ok(Response::json(StatusCode::OK, &json!({ "hypervisor": view })))
    }

    /// Until 2.87; from 2.88 on it is a part of show.
    async fn uptime(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:uptime", request.context()?)?;
        let row = self.find(request.version, request.param("id"), false).await?;
        let liveness = liveness(&self.api);
        if !liveness.is_up(&row.service) {
            let text = format!("Compute service of {} is unavailable at this time.", row.node.host);
            return Err(ApiError::bad_request(text));
        }
        let Some(uptime) = &row.node.uptime else {
            return Err(ApiError::NotImplemented("The requested functionality is not supported.".to_owned()));
        };
        let mut view = view::brief(request.version, &liveness, &row.hypervisor());
        view.insert("uptime".into(), json!(uptime));
        Ok(Response::json(StatusCode::OK, &json!({ "hypervisor": view })))
    }

    /// Until 2.52.
    async fn search(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:search", request.context()?)?;
        let rows = self.by_name(request.param("id"), false).await?;
        Ok(Response::json(StatusCode::OK, &json!({"hypervisors": self.views(&request, &rows, Form::Brief)})))
    }

    /// Until 2.52.
    async fn servers(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:servers", request.context()?)?;
        let rows = self.by_name(request.param("id"), true).await?;
        Ok(Response::json(StatusCode::OK, &json!({"hypervisors": self.views(&request, &rows, Form::Brief)})))
    }

    async fn by_name(&self, pattern: &str, with_servers: bool) -> Result<Vec<Row>, ApiError> {
        let nodes = matching(self.nodes().await?, pattern)?;
        self.rows(nodes, with_servers).await
    }

    /// Until 2.87: sums over the nodes of enabled services.
    async fn statistics(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hypervisors:statistics", request.context()?)?;
        let rows = self.rows(self.nodes().await?, false).await?;
        let enabled = rows.iter().filter(|row| !row.service.disabled).map(|row| &row.node);
        Ok(Response::json(StatusCode::OK, &json!({"hypervisor_statistics": view::statistics(enabled)})))
    }

    /// All nodes, oldest first.
    async fn nodes(&self) -> Result<Vec<ComputeNode>, ApiError> {
        let mut nodes = self.api.store.list_nodes().await?;
        nodes.sort_by_key(|node| (node.number, node.id));
        Ok(nodes)
    }

    /// Nodes with their services. A node whose service was deleted is not shown.
    async fn rows(&self, nodes: Vec<ComputeNode>, with_servers: bool) -> Result<Vec<Row>, ApiError> {
        let services = self.api.store.list_services().await?;
        let by_host: BTreeMap<&str, &Service> =
            services.iter().filter(|s| s.binary == COMPUTE).map(|s| (s.host.as_str(), s)).collect();
        let name_template = self.api.options.get().instance_name_template.clone();
        let mut rows = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(service) = by_host.get(node.host.as_str()) else { continue };
            let servers = if with_servers { Some(self.servers_on(&node).await?) } else { None };
            rows.push(Row { service: (*service).clone(), node, servers, name_template: name_template.clone() });
        }
        Ok(rows)
    }

    async fn servers_on(&self, node: &ComputeNode) -> Result<Vec<Instance>, ApiError> {
        let query = InstanceQuery { host: Some(node.host.clone()), deleted: Deleted::No, ..InstanceQuery::default() };
        Ok(self.api.store.list_instances(&query).await?)
    }

    /// The node that a path names.
    async fn find(&self, version: Microversion, id: &str, with_servers: bool) -> Result<Row, ApiError> {
        if version.at_least(53) && id.parse::<ComputeNodeId>().is_err() {
            return Err(ApiError::bad_request(format!("Invalid uuid {id}")));
        }
        let wanted: Option<ComputeNodeId> = id.parse().ok();
        let is_it = |node: &ComputeNode| match version.at_least(53) {
            true => Some(node.id) == wanted,
            false => node.number.to_string() == id,
        };
        let node = self.nodes().await?.into_iter().find(is_it);
        let rows = self.rows(node.into_iter().collect(), with_servers).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| ApiError::not_found(format!("Hypervisor with ID '{id}' could not be found.")))
    }

    fn views(&self, request: &Request, rows: &[Row], form: Form) -> Vec<Map<String, Value>> {
        let liveness: Liveness = liveness(&self.api);
        let view = if form == Form::Full { view::full } else { view::brief };
        rows.iter().map(|row| view(request.version, &liveness, &row.hypervisor())).collect()
    }

    fn read_paging(&self, request: &Request) -> Result<Paging, ApiError> {
        if request.version.before(33) {
            return Ok(Paging { limit: usize::MAX, marker: None });
        }
        if request.version.at_least(53) {
            const KNOWN: [&str; 4] = ["limit", "marker", "hypervisor_hostname_pattern", "with_servers"];
            strict_query(request, 53, &KNOWN)?;
            single_query(request, &KNOWN)?;
        }
        request.query.paging(self.api.options.get().max_limit)
    }
}

impl Row {
    fn hypervisor(&self) -> Hypervisor<'_> {
        let (servers, name_template) = (self.servers.as_deref(), self.name_template.as_str());
        Hypervisor { node: &self.node, service: &self.service, servers, name_template }
    }
}

impl Resource for Hypervisors {
    fn name(&self) -> &'static str {
        "os-hypervisors"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-hypervisors", &self, Self::index),
            route(Method::GET, "/os-hypervisors/detail", &self, Self::detail),
            route(Method::GET, "/os-hypervisors/statistics", &self, Self::statistics).versions(until(87)),
            route(Method::GET, "/os-hypervisors/{id}", &self, Self::show),
            route(Method::GET, "/os-hypervisors/{id}/uptime", &self, Self::uptime).versions(until(87)),
            route(Method::GET, "/os-hypervisors/{id}/search", &self, Self::search).versions(until(52)),
            route(Method::GET, "/os-hypervisors/{id}/servers", &self, Self::servers).versions(until(52)),
        ]
    }
}

fn node_id(request: &Request, node: &ComputeNode) -> String {
    if request.version.at_least(53) { node.id.to_string() } else { node.number.to_string() }
}

/// `with_servers`, from 2.53 on.
fn with_servers(request: &Request) -> Result<bool, ApiError> {
    match request.query.get("with_servers").filter(|_| request.version.at_least(53)) {
        None => Ok(false),
        Some(text) => {
            parse_bool(text).ok_or_else(|| invalid_query("with_servers", text, &format!("'{text}' is not a boolean")))
        }
    }
}

fn page(nodes: Vec<ComputeNode>, paging: &Paging, request: &Request) -> Result<Vec<ComputeNode>, ApiError> {
    let start = match &paging.marker {
        None => 0,
        Some(marker) => {
            let position = nodes.iter().position(|node| node_id(request, node) == *marker);
            1 + position.ok_or_else(|| ApiError::bad_request(format!("marker [{marker}] not found")))?
        }
    };
    Ok(nodes.into_iter().skip(start).take(paging.limit).collect())
}

/// Nodes whose name contains the text, whatever its case.
fn matching(nodes: Vec<ComputeNode>, pattern: &str) -> Result<Vec<ComputeNode>, ApiError> {
    let wanted = pattern.to_lowercase();
    let found: Vec<_> =
        nodes.into_iter().filter(|node| node.hypervisor_hostname.to_lowercase().contains(&wanted)).collect();
    if found.is_empty() {
        return Err(ApiError::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
    }
    Ok(found)
}

fn hostname(key: &str, text: &str) -> Result<(), ApiError> {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if good && (1..=255).contains(&text.len()) {
        return Ok(());
    }
    Err(invalid_query(key, text, &format!("'{text}' does not match '^[a-zA-Z0-9-._]*$'")))
}
