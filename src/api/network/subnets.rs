//! `/subnets`.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{NetworkId, SubnetId};
use nova_core::network::{
    AddressPool, Cidr, IpVersion, NetworkResource, Subnet, check_gateway, check_pools, check_subnet, default_gateway,
    default_pools,
};
use nova_db::{StoreError, SubnetField};
use serde_json::{Value, json};

use super::input::{Fields, invalid, missing, named, not_found, require_member};
use super::list::{Collection, bad_marker, made, nothing, one};
use super::networks::{self, short};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};
use crate::network::NetworkManager;

const LIST: Collection<SubnetField> = Collection {
    name: "subnets",
    attributes: &[
        "id",
        "name",
        "description",
        "network_id",
        "tenant_id",
        "project_id",
        "cidr",
        "ip_version",
        "gateway_ip",
        "enable_dhcp",
        "ipv6_address_mode",
        "ipv6_ra_mode",
        "created_at",
        "updated_at",
        "subnetpool_id",
        "segment_id",
    ],
    flags: &["enable_dhcp", "shared"],
    field: SubnetField::parse,
};

/// Name servers and routes that a subnet may have (`max_dns_nameservers`, `max_subnet_host_routes`).
const MOST_NAMESERVERS: usize = 5;
const MOST_ROUTES: usize = 20;

/// The resource.
pub(super) struct Subnets(pub(super) Arc<NetworkManager>);

impl Resource for Subnets {
    fn name(&self) -> &'static str {
        "subnets"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/subnets", &self, Self::index),
            route(Method::POST, "/subnets", &self, Self::create),
            route(Method::GET, "/subnets/{id}", &self, Self::show),
            route(Method::PUT, "/subnets/{id}", &self, Self::update),
            route(Method::DELETE, "/subnets/{id}", &self, Self::delete),
        ]
    }
}

fn gone(id: impl std::fmt::Display) -> ApiError {
    not_found("SubnetNotFound", "Subnet", id)
}

/// The subnet of that id, if the caller may see it.
pub(super) async fn visible(manager: &NetworkManager, context: &RequestContext, id: &str) -> Result<Subnet, ApiError> {
    let Ok(parsed) = id.parse::<SubnetId>() else { return Err(gone(short(id))) };
    match manager.store.get_subnet(parsed).await {
        Ok(subnet) if context.is_admin() || subnet.project_id == context.project_id || subnet.shared => Ok(subnet),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(gone(id)),
        Err(error) => Err(error.into()),
    }
}

/// The caller's own, or 403 for what they see but do not own.
pub(super) fn require_owner(context: &RequestContext, subnet: &Subnet, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() || subnet.project_id == context.project_id {
        return require_member(context, rule);
    }
    Err(named(403, "PolicyNotAuthorized", format!("rule:{rule} is disallowed by policy")))
}

impl Subnets {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let listing = LIST.read(&request.query, request.context()?, &[], self.0.options.max_limit)?;
        let subnets = self.0.store.list_subnets(&listing.query).await;
        let subnets = subnets.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        LIST.answer(&request, &listing, subnets.iter().map(view).collect())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let subnet = visible(&self.0, request.context()?, request.param("id")).await?;
        one(StatusCode::OK, "subnet", view(&subnet), &request)
    }

    /// One subnet, or several at once: all or none.
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let (all, several) = Fields::one_or_more(&mut request, "subnet", "subnets").await?;
        let context = request.context()?;
        require_member(context, "create_subnet")?;
        let mut new = Vec::with_capacity(all.len());
        for fields in &all {
            let network_id: NetworkId = fields.needed("network_id", "UUID")?;
            let network = networks::visible(&self.0, context, &network_id.to_string()).await?;
            networks::require_owner(context, &network, "create_subnet")?;
            new.push(self.new_subnet(context, fields, network_id)?);
            fields.done()?;
        }
        let asked_by = (!context.is_admin()).then(|| context.project_id.clone());
        let mut subnets = Vec::with_capacity(new.len());
        for subnet in new {
            let limit = self.0.limit(NetworkResource::Subnet);
            match self.0.store.create_subnet(subnet, asked_by.clone(), limit).await {
                Ok(subnet) => {
                    self.0.network_changed(subnet.network_id);
                    subnets.push(subnet);
                }
                Err(error) => {
                    for made in subnets {
                        self.0.store.delete_subnet(made.id).await?;
                        self.0.network_changed(made.network_id);
                    }
                    return Err(error.into());
                }
            }
        }
        made(several, "subnet", "subnets", subnets.iter().map(view).collect(), &request)
    }

    fn new_subnet(&self, context: &RequestContext, fields: &Fields, network_id: NetworkId) -> Result<Subnet, ApiError> {
        let Some(version) = fields.number("ip_version", 4, 6)? else { return Err(missing("ip_version")) };
        let cidr = cidr(fields)?;
        if i64::from(cidr.version().number()) != version {
            return Err(invalid("cidr", format_args!("ip_version {version} does not match cidr '{cidr}'")));
        }
        let now = self.0.now();
        let mut subnet = Subnet {
            id: SubnetId::generate(&*self.0.entropy),
            network_id,
            project_id: fields.project(context)?,
            name: String::new(),
            description: String::new(),
            cidr,
            gateway_ip: None,
            allocation_pools: Vec::new(),
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: true,
            ipv6_address_mode: mode(fields, "ipv6_address_mode", &cidr)?,
            ipv6_ra_mode: mode(fields, "ipv6_ra_mode", &cidr)?,
            shared: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        apply(fields, &mut subnet)?;
        check_subnet(&cidr, subnet.enable_dhcp)?;
        subnet.gateway_ip = match fields.get("gateway_ip") {
            // A subnet of one address has none to spare.
            None => Some(default_gateway(&cidr)).filter(|_| cidr.host_bits() > 0),
            Some(_) => fields.parsed::<IpAddr>("gateway_ip", "IP address")?,
        };
        subnet.allocation_pools = match pools(fields)? {
            Some(pools) => check_pools(&cidr, &pools)?,
            None => default_pools(&cidr, subnet.gateway_ip),
        };
        if let Some(gateway) = subnet.gateway_ip {
            check_gateway(&cidr, gateway, &subnet.allocation_pools)?;
        }
        Ok(subnet)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "subnet").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut subnet = visible(&self.0, context, request.param("id")).await?;
            require_owner(context, &subnet, "update_subnet")?;
            apply(&fields, &mut subnet)?;
            check_subnet(&subnet.cidr, subnet.enable_dhcp)?;
            fields.settable::<IpAddr>("gateway_ip", "IP address", &mut subnet.gateway_ip)?;
            if let Some(pools) = pools(&fields)? {
                subnet.allocation_pools = check_pools(&subnet.cidr, &pools)?;
            }
            if let Some(gateway) = subnet.gateway_ip {
                check_gateway(&subnet.cidr, gateway, &subnet.allocation_pools)?;
            }
            fields.done()?;
            subnet.updated_at = self.0.now();
            match self.0.store.update_subnet(subnet).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let subnet = answer?;
                    self.0.network_changed(subnet.network_id);
                    return one(StatusCode::OK, "subnet", view(&subnet), &request);
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let subnet = visible(&self.0, context, request.param("id")).await?;
        require_owner(context, &subnet, "delete_subnet")?;
        match self.0.store.delete_subnet(subnet.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(subnet.id)),
            answer => {
                self.0.network_changed(answer?.network_id);
                nothing()
            }
        }
    }
}

fn cidr(fields: &Fields) -> Result<Cidr, ApiError> {
    let text: String = fields.needed("cidr", "IP subnet")?;
    text.parse().map_err(|error| invalid("cidr", error))
}

fn mode(fields: &Fields, name: &str, cidr: &Cidr) -> Result<Option<String>, ApiError> {
    const MODES: [&str; 3] = ["dhcpv6-stateful", "dhcpv6-stateless", "slaac"];
    let Some(mode) = fields.parsed::<String>(name, "string")? else { return Ok(None) };
    if cidr.version() == IpVersion::V4 {
        return Err(invalid(name, "it is not valid when ip_version is 4"));
    }
    if MODES.contains(&mode.as_str()) {
        return Ok(Some(mode));
    }
    Err(invalid(name, format_args!("'{}' is not in {MODES:?}", short(&mode))))
}

fn apply(fields: &Fields, subnet: &mut Subnet) -> Result<(), ApiError> {
    fields.text("name", 255, &mut subnet.name)?;
    fields.text("description", 255, &mut subnet.description)?;
    fields.flag("enable_dhcp", &mut subnet.enable_dhcp)?;
    if let Some(servers) = fields.list::<IpAddr>("dns_nameservers", "IP address")? {
        if servers.len() > MOST_NAMESERVERS {
            return Err(invalid("dns_nameservers", format_args!("there are more than {MOST_NAMESERVERS}")));
        }
        subnet.dns_nameservers = servers;
    }
    if let Some(routes) = fields.routes("host_routes")? {
        if routes.len() > MOST_ROUTES {
            return Err(invalid("host_routes", format_args!("there are more than {MOST_ROUTES}")));
        }
        subnet.host_routes = routes;
    }
    Ok(())
}

fn pools(fields: &Fields) -> Result<Option<Vec<AddressPool>>, ApiError> {
    let Some(objects) = fields.objects("allocation_pools")? else { return Ok(None) };
    let mut pools = Vec::with_capacity(objects.len());
    for object in objects {
        let pool =
            AddressPool { start: object.needed("start", "IP address")?, end: object.needed("end", "IP address")? };
        object.done()?;
        pools.push(pool);
    }
    Ok(Some(pools))
}

fn view(subnet: &Subnet) -> Value {
    json!({
        "id": subnet.id,
        "name": subnet.name,
        "description": subnet.description,
        "network_id": subnet.network_id,
        "tenant_id": subnet.project_id,
        "project_id": subnet.project_id,
        "cidr": subnet.cidr,
        "ip_version": subnet.cidr.version(),
        "gateway_ip": subnet.gateway_ip,
        "allocation_pools": subnet.allocation_pools,
        "dns_nameservers": subnet.dns_nameservers,
        "host_routes": subnet.host_routes,
        "enable_dhcp": subnet.enable_dhcp,
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "subnetpool_id": null,
        "segment_id": null,
        "service_types": [],
        "dns_publish_fixed_ip": false,
        "tags": [],
        "revision_number": subnet.generation,
        "created_at": api_time(subnet.created_at),
        "updated_at": api_time(subnet.updated_at),
    })
}
