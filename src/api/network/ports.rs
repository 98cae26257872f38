//! `/ports`.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, NetworkId, PortId, SecurityGroupId, SubnetId};
use nova_core::network::{
    AddressPair, Cidr, MacAddress, Network, NetworkProblem, Port, ROUTER_GATEWAY, ROUTER_INTERFACE,
};
use nova_db::{FixedIpRequest, NewPort, PortChange, PortField, PortQuery, StoreError};
use serde_json::{Value, json};

use super::input::{Fields, invalid, named, not_found, require_member};
use super::list::{Collection, bad_marker, made, nothing, one};
use super::networks::{self, short};
use crate::api::{ApiError, HandlerResult, Query, Request, Resource, Route, route};
use crate::network::NetworkManager;

const LIST: Collection<PortField> = Collection {
    name: "ports",
    attributes: &[
        "id",
        "name",
        "description",
        "network_id",
        "tenant_id",
        "project_id",
        "mac_address",
        "admin_state_up",
        "status",
        "device_id",
        "device_owner",
        "binding:host_id",
        "binding:vnic_type",
        "binding:vif_type",
        "port_security_enabled",
        "dns_name",
        "created_at",
        "updated_at",
    ],
    flags: &["admin_state_up", "port_security_enabled"],
    field: PortField::parse,
};

/// Filters that are more than a comparison.
const OWN: &[&str] = &["fixed_ips", "security_groups", "security_group_ids", "ip_allocation"];
/// Address pairs of a port at most (`max_allowed_address_pair`).
const MOST_PAIRS: usize = 10;
/// Fixed addresses of a port at most (`max_fixed_ips_per_port`).
const MOST_ADDRESSES: usize = 5;

/// The resource.
pub(super) struct Ports(pub(super) Arc<NetworkManager>);

impl Resource for Ports {
    fn name(&self) -> &'static str {
        "ports"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/ports", &self, Self::index),
            route(Method::POST, "/ports", &self, Self::create),
            route(Method::GET, "/ports/{id}", &self, Self::show),
            route(Method::PUT, "/ports/{id}", &self, Self::update),
            route(Method::DELETE, "/ports/{id}", &self, Self::delete),
        ]
    }
}

pub(super) fn gone(id: impl std::fmt::Display) -> ApiError {
    not_found("PortNotFound", "Port", id)
}

/// The port of that id, if it is the caller's.
pub(super) async fn visible(manager: &NetworkManager, context: &RequestContext, id: &str) -> Result<Port, ApiError> {
    let Ok(parsed) = id.parse::<PortId>() else { return Err(gone(short(id))) };
    match manager.store.get_port(parsed).await {
        Ok(port) if context.is_admin() || port.project_id == context.project_id => Ok(port),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(gone(id)),
        Err(error) => Err(error.into()),
    }
}

/// `fixed_ips=ip_address=10.0.0.5`, `fixed_ips=subnet_id=…`, `security_groups=…`.
fn more(query: &Query, list: &mut PortQuery) -> Result<(), ApiError> {
    let parsed = |value: &str, key: &str| invalid(key, format_args!("'{}' is not valid", short(value)));
    for value in query.all("fixed_ips") {
        match value.split_once('=') {
            Some(("ip_address", text)) => {
                list.ip_addresses.push(text.parse().map_err(|_| parsed(text, "fixed_ips"))?);
            }
            Some(("subnet_id", text)) => list.subnets.push(text.parse().map_err(|_| parsed(text, "fixed_ips"))?),
            _ => return Err(parsed(value, "fixed_ips")),
        }
    }
    for key in ["security_groups", "security_group_ids"] {
        for value in query.all(key) {
            list.security_groups.push(value.parse().map_err(|_| parsed(value, key))?);
        }
    }
    Ok(())
}

impl Ports {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let listing = LIST.read(&request.query, context, OWN, self.0.options.max_limit)?;
        let mut query = PortQuery { list: listing.query.clone(), ..PortQuery::default() };
        more(&request.query, &mut query)?;
        let ports = self.0.store.list_ports(&query).await;
        let ports = ports.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        LIST.answer(&request, &listing, ports.iter().map(|port| view(context, port)).collect())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let port = visible(&self.0, context, request.param("id")).await?;
        let mut shown = view(context, &port);
        shown["applied"] = self.0.port_applied(&port).await?.into();
        one(StatusCode::OK, "port", shown, &request)
    }

    /// One port, or several at once: all or none.
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let (all, several) = Fields::one_or_more(&mut request, "port", "ports").await?;
        let context = request.context()?;
        require_member(context, "create_port")?;
        let (mut new, mut draws) = (Vec::new(), Vec::new());
        for fields in &all {
            new.push(self.new_port(context, fields).await?);
            draws.push(fields.get("mac_address").is_none_or(Value::is_null));
            fields.done()?;
        }
        let ports = self.0.create_ports(new, &draws).await?;
        self.0.ports_changed(&ports);
        made(several, "port", "ports", ports.iter().map(|port| view(context, port)).collect(), &request)
    }

    async fn new_port(&self, context: &RequestContext, fields: &Fields) -> Result<NewPort, ApiError> {
        let network_id: NetworkId = fields.needed("network_id", "UUID")?;
        let network = networks::visible(&self.0, context, &network_id.to_string()).await?;
        let project = fields.project(context)?;
        let mut new = self.0.new_port(network_id, &project);
        new.asked_by = (!context.is_admin()).then(|| context.project_id.clone());
        new.port.port_security_enabled = network.port_security_enabled;
        apply(context, fields, &mut new.port, &network)?;
        new.fixed_ips = fixed_ips(context, fields, &network)?;
        if fields.get("security_groups").is_none() && new.port.port_security_enabled && !new.port.is_of_router() {
            new.port.security_groups = vec![self.0.default_group(&project).await?.id];
        }
        check_security(&new.port)?;
        Ok(new)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "port").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut port = visible(&self.0, context, request.param("id")).await?;
            let before = port.clone();
            require_member(context, "update_port")?;
            let network = self.0.store.get_network(port.network_id).await?;
            apply(context, &fields, &mut port, &network)?;
            let fixed_ips = fixed_ips(context, &fields, &network)?;
            check_security(&port)?;
            fields.done()?;
            port.updated_at = self.0.now();
            let draw = self.0.entropy.next_u64();
            match self.0.store.update_port(PortChange { port, fixed_ips, draw }).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let port = answer?;
                    self.0.ports_changed([&before, &port]);
                    return one(StatusCode::OK, "port", view(context, &port), &request);
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let port = visible(&self.0, context, request.param("id")).await?;
        require_member(context, "delete_port")?;
        match self.0.store.delete_port(port.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(port.id)),
            answer => {
                self.0.ports_changed([&answer?]);
                nothing()
            }
        }
    }
}

/// What can be said of a port. On a network of somebody else, guests stay behind their walls: who does not own it names no
/// address, and does not open the port.
fn apply(context: &RequestContext, fields: &Fields, port: &mut Port, network: &Network) -> Result<(), ApiError> {
    let privileged = context.is_admin() || context.has_role("service");
    let owner = privileged || network.project_id == context.project_id;
    fields.text("name", 255, &mut port.name)?;
    fields.text("description", 255, &mut port.description)?;
    fields.text("dns_name", 63, &mut port.dns_name)?;
    fields.flag("admin_state_up", &mut port.admin_state_up)?;
    device(privileged, fields, port)?;
    let security = port.port_security_enabled;
    fields.flag("port_security_enabled", &mut port.port_security_enabled)?;
    allowed(owner || security == port.port_security_enabled, "port_security_enabled")?;
    if let Some(mac) = fields.parsed::<MacAddress>("mac_address", "MAC address")? {
        if !mac.is_unicast() {
            return Err(invalid("mac_address", format_args!("'{mac}' is not a valid MAC address")));
        }
        allowed(owner || mac == port.mac_address, "mac_address")?;
        port.mac_address = mac;
    }
    if let Some(groups) = fields.list::<SecurityGroupId>("security_groups", "UUID")? {
        port.security_groups = groups;
        port.security_groups.sort_unstable();
        port.security_groups.dedup();
    }
    if let Some(pairs) = pairs(fields)? {
        allowed(owner || pairs.is_empty(), "allowed_address_pairs")?;
        port.allowed_address_pairs = pairs;
    }
    binding(privileged, fields, port)
}

fn allowed(allowed: bool, what: &str) -> Result<(), ApiError> {
    match allowed {
        true => Ok(()),
        false => Err(named(403, "PolicyNotAuthorized", format!("rule:create_port:{what} is disallowed by policy"))),
    }
}

/// Who uses it. What compute and routers use stays theirs: a guest is known by its port, a network's gateway by its router.
fn device(privileged: bool, fields: &Fields, port: &mut Port) -> Result<(), ApiError> {
    let of_service = |owner: &str| owner.starts_with("network:") || owner.starts_with("compute:");
    let (device, owner) = (port.device_id.clone(), port.device_owner.clone());
    fields.text("device_id", 255, &mut port.device_id)?;
    fields.text("device_owner", 255, &mut port.device_owner)?;
    let free = privileged || !of_service(&owner);
    allowed(free || device == port.device_id, "device_id")?;
    if owner != port.device_owner {
        // Whoever could speak for routers would have every address of the network; for compute, others' servers.
        let router = port.is_of_router() || [ROUTER_INTERFACE, ROUTER_GATEWAY].contains(&owner.as_str());
        allowed(!router && free && (privileged || !of_service(&port.device_owner)), "device_owner")?;
    }
    Ok(())
}

/// Where and how it is plugged in is for administrators and services to say.
fn binding(privileged: bool, fields: &Fields, port: &mut Port) -> Result<(), ApiError> {
    fields.text("binding:vnic_type", 64, &mut port.binding.vnic_type)?;
    let host: Option<&Value> = fields.get("binding:host_id");
    let profile = fields.object("binding:profile")?;
    if host.is_none() && profile.is_none() {
        return Ok(());
    }
    if !privileged {
        return Err(named(
            403,
            "PolicyNotAuthorized",
            "rule:create_port:binding:host_id is disallowed by policy".to_owned(),
        ));
    }
    if host.is_some() {
        let mut name = String::new();
        if host.is_some_and(|host| !host.is_null()) {
            fields.text("binding:host_id", 255, &mut name)?;
        }
        port.host = Some(HostName::from(name)).filter(|host| !host.as_str().is_empty());
        port.binding.vif_type = if port.host.is_some() { "bridge" } else { "unbound" }.to_owned();
    }
    if let Some(profile) = profile {
        port.binding.profile = profile.map(Fields::into_map).unwrap_or_default();
    }
    Ok(())
}

/// Groups and address pairs mean nothing to a port that lets everything through.
fn check_security(port: &Port) -> Result<(), ApiError> {
    if port.port_security_enabled {
        return Ok(());
    }
    if !port.security_groups.is_empty() {
        return Err(NetworkProblem::NeedsPortSecurity { what: "security groups" }.into());
    }
    if !port.allowed_address_pairs.is_empty() {
        return Err(NetworkProblem::NeedsPortSecurity { what: "allowed address pairs" }.into());
    }
    Ok(())
}

fn pairs(fields: &Fields) -> Result<Option<Vec<AddressPair>>, ApiError> {
    let Some(objects) = fields.objects("allowed_address_pairs")? else { return Ok(None) };
    if objects.len() > MOST_PAIRS {
        return Err(invalid("allowed_address_pairs", format_args!("there are more than {MOST_PAIRS}")));
    }
    let mut pairs = Vec::with_capacity(objects.len());
    for object in objects {
        let text: String = object.needed("ip_address", "IP address")?;
        let ip_address = Cidr::parse_loosely(&text).map_err(|error| invalid("ip_address", error))?;
        let pair = AddressPair { ip_address, mac_address: object.parsed("mac_address", "MAC address")? };
        object.done()?;
        if pairs.contains(&pair) {
            return Err(named(
                400,
                "DuplicateAddressPairInRequest",
                "Request contains duplicate address pair".to_owned(),
            ));
        }
        pairs.push(pair);
    }
    Ok(Some(pairs))
}

fn fixed_ips(
    context: &RequestContext,
    fields: &Fields,
    network: &Network,
) -> Result<Option<Vec<FixedIpRequest>>, ApiError> {
    let Some(objects) = fields.objects("fixed_ips")? else { return Ok(None) };
    if objects.len() > MOST_ADDRESSES {
        return Err(named(400, "InvalidInput", "Exceeded maximum amount of fixed ips per port".to_owned()));
    }
    let mut requests = Vec::with_capacity(objects.len());
    for object in objects {
        let request = FixedIpRequest {
            subnet_id: object.parsed::<SubnetId>("subnet_id", "UUID")?,
            ip_address: object.parsed::<IpAddr>("ip_address", "IP address")?,
        };
        object.done()?;
        if request.subnet_id.is_none() && request.ip_address.is_none() {
            return Err(invalid("fixed_ips", "an entry names neither subnet_id nor ip_address"));
        }
        requests.push(request);
    }
    let foreign = !context.is_admin() && network.project_id != context.project_id;
    if foreign && requests.iter().any(|request| request.ip_address.is_some()) {
        let text = "rule:create_port:fixed_ips:ip_address is disallowed by policy";
        return Err(named(403, "PolicyNotAuthorized", text.to_owned()));
    }
    Ok(Some(requests))
}

/// The port as callers see it.
pub(super) fn view(context: &RequestContext, port: &Port) -> Value {
    let pairs: Vec<Value> = port
        .allowed_address_pairs
        .iter()
        .map(|pair| {
            let alone = pair.ip_address.host_bits() == 0;
            let ip = if alone { pair.ip_address.base().to_string() } else { pair.ip_address.to_string() };
            json!({"ip_address": ip, "mac_address": pair.mac_address.unwrap_or(port.mac_address)})
        })
        .collect();
    let mut view = json!({
        "id": port.id,
        "name": port.name,
        "description": port.description,
        "network_id": port.network_id,
        "tenant_id": port.project_id,
        "project_id": port.project_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "fixed_ips": port.fixed_ips,
        "security_groups": port.security_groups,
        "allowed_address_pairs": pairs,
        "extra_dhcp_opts": [],
        "port_security_enabled": port.port_security_enabled,
        "dns_name": port.dns_name,
        "dns_assignment": [],
        "binding:vnic_type": port.binding.vnic_type,
        "qos_policy_id": null,
        "tags": [],
        "revision_number": port.generation,
        "created_at": api_time(port.created_at),
        "updated_at": api_time(port.updated_at),
    });
    if context.is_admin() || context.has_role("service") {
        view["binding:host_id"] = json!(port.host.as_ref().map_or("", HostName::as_str));
        view["binding:vif_type"] = json!(port.binding.vif_type);
        view["binding:profile"] = json!(port.binding.profile);
        view["binding:vif_details"] = json!({});
    }
    view
}
