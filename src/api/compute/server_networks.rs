//! What is done to the network of a server that runs, without its host: security groups, fixed and floating addresses
//! (nova/api/openstack/compute/security_groups.py, multinic.py, floating_ips.py).

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::{NetworkId, SecurityGroupId};
use nova_core::instance::Instance;
use nova_core::network::{FloatingIp, NetworkProblem, NetworkServiceError, Port};
use nova_db::{FixedIpRequest, FloatingIpField, FloatingTarget, ListQuery, PortChange, StoreError, SubnetField};
use serde_json::{Value, json};

use super::ComputeApi;
use super::proxies::security_groups;
use super::servers::{fields, networks, owner};
use crate::api::validate::{Fields, Text, invalid, known_query};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, ServerAction, action, policy, route};
use crate::network::{ATTEMPTS, NetworkManager};

/// The last version at which addresses are given and taken by actions.
const UNTIL: u16 = 43;

/// Actions about a server's network.
pub(super) struct ServerNetworkActions {
    api: Arc<ComputeApi>,
}

impl ServerNetworkActions {
    /// For servers of this cloud.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for ServerNetworkActions {
    fn name(&self) -> &'static str {
        "server-networks"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::GET, "/servers/{id}/os-security-groups", &self, Self::groups)]
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("addSecurityGroup", &self, Self::add_group),
            action("removeSecurityGroup", &self, Self::remove_group),
            action("addFixedIp", &self, Self::add_fixed).versions(1..=UNTIL),
            action("removeFixedIp", &self, Self::remove_fixed).versions(1..=UNTIL),
            action("addFloatingIp", &self, Self::add_floating).versions(1..=UNTIL),
            action("removeFloatingIp", &self, Self::remove_floating).versions(1..=UNTIL),
        ]
    }
}

fn accepted() -> HandlerResult {
    Ok(Response::empty(StatusCode::ACCEPTED))
}

/// The one text of an action's body.
fn only_text(action: &str, key: &'static str, body: &Value, lenient: bool) -> Result<String, ApiError> {
    let mut read = Fields::of(action, body, lenient)?;
    let text = read.required_text(key, Text::new(1, 255))?.to_owned();
    read.finish()?;
    Ok(text)
}

/// The one address of an action's body.
fn only_address(action: &str, body: &Value, lenient: bool) -> Result<IpAddr, ApiError> {
    let mut read = Fields::of(action, body, lenient)?;
    read.required("address")?;
    let address = fields::ip_address(&mut read, "address")?;
    read.finish()?;
    address.ok_or_else(|| invalid("address", body, "'address' is a required property"))
}

/// What the network service says of a group's name.
fn no_group(error: NetworkServiceError) -> ApiError {
    match error {
        NetworkServiceError::NoSecurityGroup { .. } => ApiError::NotFound(error.to_string()),
        NetworkServiceError::ManySecurityGroups { .. } => ApiError::Conflict(error.to_string()),
        NetworkServiceError::Unavailable { source } => networks::unavailable(&*source),
        other => ApiError::BadRequest(other.to_string()),
    }
}

impl ServerNetworkActions {
    async fn server(&self, request: &Request, rule: &str) -> Result<Instance, ApiError> {
        let context = request.context()?;
        let server = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on(rule, context, owner(&server))?;
        Ok(server)
    }

    async fn groups(self: Arc<Self>, request: Request) -> HandlerResult {
        if request.version.at_least(102) {
            known_query(&request.query, &[])?;
        }
        let server = self.server(&request, "os_compute_api:os-security-groups:list").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            let views = passed.groups_of(server.id).await?;
            return Ok(Response::json(StatusCode::OK, &json!({ "security_groups": views })));
        }
        let books = self.api.books()?;
        let of: std::collections::BTreeSet<SecurityGroupId> =
            books.ports_of_servers(&[server.id]).await?.into_iter().flat_map(|port| port.security_groups).collect();
        let mut views = Vec::with_capacity(of.len());
        for id in of {
            match books.store.get_security_group(id).await {
                Ok(group) => views.push(security_groups::view(books, &group).await?),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Response::json(StatusCode::OK, &json!({ "security_groups": views })))
    }

    async fn add_group(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let name = only_text("addSecurityGroup", "name", &body, request.lenient)?;
        let server = self.server(&request, "os_compute_api:os-security-groups:add").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.add_group(&server, &name).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let group = books.group_named(&server.project_id, &name).await.map_err(no_group)?;
        let mut applied = false;
        for port in self.ports(&server).await? {
            // Without port security, or without an address, groups mean nothing.
            if port.port_security_enabled && !port.fixed_ips.is_empty() {
                applied = true;
                let change = |port: &mut Port| {
                    if !port.security_groups.contains(&group.id) {
                        port.security_groups.push(group.id);
                        port.security_groups.sort_unstable();
                    }
                };
                self.change(books, &port, change).await?;
            }
        }
        match applied {
            true => accepted(),
            false => Err(ApiError::bad_request(
                "Network requires port_security_enabled and subnet associated in order to apply security groups.",
            )),
        }
    }

    async fn remove_group(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let name = only_text("removeSecurityGroup", "name", &body, request.lenient)?;
        let server = self.server(&request, "os_compute_api:os-security-groups:remove").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.remove_group(&server, &name).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let group = books.group_named(&server.project_id, &name).await.map_err(no_group)?;
        let mut found = false;
        for port in self.ports(&server).await? {
            if port.security_groups.contains(&group.id) {
                found = true;
                self.change(books, &port, |port| port.security_groups.retain(|one| *one != group.id)).await?;
            }
        }
        match found {
            true => accepted(),
            false => {
                Err(ApiError::NotFound(format!("Security group {name} not associated with the instance {}", server.id)))
            }
        }
    }

    /// The server's ports; a server without any cannot have groups.
    async fn ports(&self, server: &Instance) -> Result<Vec<Port>, ApiError> {
        let ports = self.api.books()?.ports_of_servers(&[server.id]).await?;
        if ports.is_empty() {
            let id = server.id;
            return Err(ApiError::NotFound(format!(
                "Security group: instance_id {id} could not be found as device id on any ports"
            )));
        }
        Ok(ports)
    }

    async fn change(
        &self,
        books: &NetworkManager,
        port: &Port,
        change: impl Fn(&mut Port) + Send + Sync,
    ) -> Result<(), ApiError> {
        let changed = books.change_port(port.id, |port| {
            change(port);
            Ok(())
        });
        match changed.await {
            // Gone meanwhile.
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => {
                books.ports_changed([port, &other?]);
                Ok(())
            }
        }
    }

    /// One more address on a network that the server is on.
    async fn add_fixed(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut read = Fields::of("addFixedIp", &body, request.lenient)?;
        let text = match read.required("networkId")? {
            Value::Number(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        read.finish()?;
        let server = self.server(&request, "os_compute_api:os-multinic:add").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.add_fixed_ip(&server, text.parse().ok()).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let missing = || ApiError::NotFound(format!("Network could not be found for instance {}.", server.id));
        let network: NetworkId = text.parse().map_err(|_| missing())?;
        let ports = books.ports_of_servers(&[server.id]).await?;
        let port = ports.iter().find(|port| port.network_id == network).ok_or_else(missing)?;
        let subnets = books.store.list_subnets(&ListQuery::of(SubnetField::NetworkId, network)).await?;
        let subnet = subnets.first().ok_or_else(missing)?.id;
        let more = |port: &Port| {
            let mut wanted = held(port);
            wanted.push(FixedIpRequest { subnet_id: Some(subnet), ip_address: None });
            Some(wanted)
        };
        readdress(books, port, more).await?;
        accepted()
    }

    async fn remove_fixed(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let address = only_address("removeFixedIp", &body, request.lenient)?;
        let server = self.server(&request, "os_compute_api:os-multinic:remove").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.remove_fixed_ip(&server, address).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let ports = books.ports_of_servers(&[server.id]).await?;
        let has = |port: &&Port| port.fixed_ips.iter().any(|fixed| fixed.ip_address == address);
        let missing = || ApiError::BadRequest(format!("Instance {} doesn't have fixed IP '{address}'.", server.id));
        let port = ports.iter().find(has).ok_or_else(missing)?;
        let fewer = |port: &Port| {
            let wanted: Vec<_> = held(port).into_iter().filter(|one| one.ip_address != Some(address)).collect();
            (wanted.len() < port.fixed_ips.len()).then_some(wanted)
        };
        readdress(books, port, fewer).await?;
        accepted()
    }

    async fn add_floating(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut read = Fields::of("addFloatingIp", &body, request.lenient)?;
        read.required("address")?;
        let address = fields::ip_address(&mut read, "address")?;
        let address = address.ok_or_else(|| invalid("address", &body, "'address' is a required property"))?;
        let fixed = fields::ip_address(&mut read, "fixed_address")?;
        read.finish()?;
        let server = self.server(&request, "os_compute_api:os-floating-ips:add").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.add_floating_ip(&server, address, fixed).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let ports = books.ports_of_servers(&[server.id]).await?;
        let (port, fixed) = target(&server, &ports, address, fixed)?;
        for tries in 1.. {
            let floating = floating(books, request.context()?, address).await?;
            let before = floating.router_id;
            let target = FloatingTarget { port_id: port.id, fixed_ip_address: Some(fixed) };
            match books.store.associate_floating_ip(floating, Some(target)).await {
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => {}
                Err(StoreError::Network(problem)) => {
                    return Err(ApiError::BadRequest(format!(
                        "Unable to associate floating IP {address} to fixed IP {fixed} for instance {}. Error: {problem}",
                        server.id
                    )));
                }
                other => {
                    books.routers_changed(before.into_iter().chain(other?.router_id));
                    break;
                }
            }
        }
        accepted()
    }

    async fn remove_floating(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let address = only_address("removeFloatingIp", &body, request.lenient)?;
        let server = self.server(&request, "os_compute_api:os-floating-ips:remove").await?;
        if let Some(passed) = self.api.passed_on(request.context()?) {
            passed.remove_floating_ip(&server, address).await?;
            return accepted();
        }
        let books = self.api.books()?;
        let ports = books.ports_of_servers(&[server.id]).await?;
        for tries in 1.. {
            let floating = floating(books, request.context()?, address).await?;
            if !ports.iter().any(|port| Some(port.id) == floating.port_id) {
                let id = server.id;
                return Err(ApiError::Conflict(format!("Floating IP {address} is not associated with instance {id}.")));
            }
            let before = floating.router_id;
            match books.store.associate_floating_ip(floating, None).await {
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => {}
                other => {
                    books.routers_changed(before.into_iter().chain(other?.router_id));
                    break;
                }
            }
        }
        accepted()
    }
}

/// The caller's floating address.
async fn floating(books: &NetworkManager, context: &RequestContext, address: IpAddr) -> Result<FloatingIp, ApiError> {
    let found = books.store.list_floating_ips(&ListQuery::of(FloatingIpField::FloatingIpAddress, address)).await?;
    let own = |one: &FloatingIp| context.is_admin() || one.project_id == context.project_id;
    found.into_iter().find(own).ok_or_else(|| ApiError::not_found("floating IP not found"))
}

/// What a floating address is to stand for: the named fixed address of the server, or its first of version 4.
fn target<'a>(
    server: &Instance,
    ports: &'a [Port],
    address: IpAddr,
    wanted: Option<IpAddr>,
) -> Result<(&'a Port, IpAddr), ApiError> {
    if ports.is_empty() {
        return Err(ApiError::bad_request("Instance network is not ready yet"));
    }
    let mut all =
        ports.iter().flat_map(|port| port.fixed_ips.iter().map(move |fixed| (port, fixed.ip_address))).peekable();
    if all.peek().is_none() {
        return Err(ApiError::bad_request("No fixed IPs associated to instance"));
    }
    match wanted {
        Some(wanted) => all
            .find(|(_, fixed)| *fixed == wanted)
            .ok_or_else(|| ApiError::bad_request("Specified fixed address not assigned to instance")),
        None => all.find(|(_, fixed)| fixed.is_ipv4()).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "Unable to associate floating IP {address} to any fixed IPs for instance {}. Instance has no fixed IPv4 \
                 addresses to associate.",
                server.id
            ))
        }),
    }
}

/// A port's addresses, asked for again.
fn held(port: &Port) -> Vec<FixedIpRequest> {
    let same = |fixed: &nova_core::network::FixedIp| FixedIpRequest {
        subnet_id: Some(fixed.subnet_id),
        ip_address: Some(fixed.ip_address),
    };
    port.fixed_ips.iter().map(same).collect()
}

/// Gives a port other addresses, whoever else changes it. `None`: it has them.
async fn readdress(
    books: &NetworkManager,
    port: &Port,
    wanted: impl Fn(&Port) -> Option<Vec<FixedIpRequest>>,
) -> Result<(), ApiError> {
    let mut port = port.clone();
    for tries in 1.. {
        let Some(fixed_ips) = wanted(&port) else { return Ok(()) };
        port.updated_at = books.now();
        let change = PortChange { port: port.clone(), fixed_ips: Some(fixed_ips), draw: books.entropy.next_u64() };
        match books.store.update_port(change).await {
            Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => port = books.store.get_port(port.id).await?,
            Err(StoreError::Network(problem @ NetworkProblem::Exhausted { .. })) => {
                return Err(ApiError::BadRequest(problem.to_string()));
            }
            other => {
                books.ports_changed([&port, &other?]);
                return Ok(());
            }
        }
    }
    Ok(())
}
