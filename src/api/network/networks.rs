//! `/networks`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::NetworkId;
use nova_core::network::{Network, NetworkResource};
use nova_db::{ListQuery, NetworkField, StoreError, SubnetField};
use serde_json::{Value, json};

use super::input::{Fields, invalid, named, not_found, require_admin, require_member};
use super::list::{Collection, bad_marker, made, nothing, one};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};
use crate::network::{AutoError, NetworkManager, may_see};

const LIST: Collection<NetworkField> = Collection {
    name: "networks",
    attributes: &[
        "id",
        "name",
        "description",
        "admin_state_up",
        "status",
        "shared",
        "router:external",
        "tenant_id",
        "project_id",
        "mtu",
        "port_security_enabled",
        "dns_domain",
        "created_at",
        "updated_at",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
        "is_default",
    ],
    flags: &["admin_state_up", "shared", "router:external"],
    field: NetworkField::parse,
};

/// The resource.
pub(super) struct Networks(pub(super) Arc<NetworkManager>);

impl Resource for Networks {
    fn name(&self) -> &'static str {
        "networks"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/networks", &self, Self::index),
            route(Method::POST, "/networks", &self, Self::create),
            route(Method::GET, "/networks/{id}", &self, Self::show),
            route(Method::PUT, "/networks/{id}", &self, Self::update),
            route(Method::DELETE, "/networks/{id}", &self, Self::delete),
        ]
    }
}

fn gone(id: impl std::fmt::Display) -> ApiError {
    not_found("NetworkNotFound", "Network", id)
}

/// The network of that id, if the caller may see it. What is no id is not there either: clients look names up so.
pub(super) async fn visible(manager: &NetworkManager, context: &RequestContext, id: &str) -> Result<Network, ApiError> {
    let Ok(parsed) = id.parse::<NetworkId>() else { return Err(gone(short(id))) };
    match manager.store.get_network(parsed).await {
        Ok(network) if may_see(context, &network) => Ok(network),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(gone(id)),
        Err(error) => Err(error.into()),
    }
}

/// A text from outside, as errors show it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The caller's own, or 403 for what they see but do not own.
pub(super) fn require_owner(context: &RequestContext, network: &Network, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() || network.project_id == context.project_id {
        return require_member(context, rule);
    }
    Err(named(403, "PolicyNotAuthorized", format!("rule:{rule} is disallowed by policy")))
}

impl Networks {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let listing = LIST.read(&request.query, context, &[], self.0.options.max_limit)?;
        let networks = self.0.store.list_networks(&listing.query).await;
        let networks = networks.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        let views = self.views(context, &networks).await?;
        LIST.answer(&request, &listing, views)
    }

    async fn views(&self, context: &RequestContext, networks: &[Network]) -> Result<Vec<Value>, ApiError> {
        let mut views = Vec::with_capacity(networks.len());
        for some in networks.chunks(500) {
            let ids = some.iter().map(|network| network.id.to_string()).collect();
            let query = ListQuery { filters: vec![(SubnetField::NetworkId, ids)], ..ListQuery::default() };
            let subnets = self.0.store.list_subnets(&query).await?;
            for network in some {
                let own = subnets.iter().filter(|subnet| subnet.network_id == network.id);
                views.push(view(context, network, own.map(|subnet| subnet.id.to_string()).collect()));
            }
        }
        Ok(views)
    }

    async fn answer(&self, status: StatusCode, network: &Network, request: &Request) -> HandlerResult {
        let views = self.views(request.context()?, std::slice::from_ref(network)).await?;
        one(status, "network", views.into_iter().next().unwrap_or_default(), request)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let network = visible(&self.0, request.context()?, request.param("id")).await?;
        self.answer(StatusCode::OK, &network, &request).await
    }

    /// One network, or several at once: all or none.
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let (all, several) = Fields::one_or_more(&mut request, "network", "networks").await?;
        let context = request.context()?;
        require_member(context, "create_network")?;
        let mut new = Vec::with_capacity(all.len());
        for fields in &all {
            let id = NetworkId::generate(&*self.0.entropy);
            let mut network = self.0.new_network(id, &fields.project(context)?);
            apply(context, fields, &mut network, "create_network")?;
            provider(context, fields, &mut network)?;
            fields.done()?;
            self.require_one_default(&network).await?;
            new.push(network);
        }
        let mut networks = Vec::with_capacity(new.len());
        for network in new {
            match self.0.create_network(network, self.0.limit(NetworkResource::Network)).await {
                Ok(network) => {
                    self.0.network_changed(network.id);
                    networks.push(network);
                }
                Err(error) => {
                    for made in networks {
                        self.0.store.delete_network(made.id).await?;
                        self.0.network_changed(made.id);
                    }
                    return Err(error.into());
                }
            }
        }
        made(several, "network", "networks", self.views(context, &networks).await?, &request)
    }

    /// Of outer networks, one is the default.
    async fn require_one_default(&self, network: &Network) -> Result<(), ApiError> {
        if !(network.is_default && network.external) {
            return Ok(());
        }
        match self.0.default_external().await {
            Ok(other) if other.id != network.id => {
                let text = format!("A default external network already exists: {}.", other.id);
                Err(named(409, "DefaultExternalNetworkExists", text))
            }
            Ok(_) | Err(AutoError::Deployment(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "network").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut network = visible(&self.0, context, request.param("id")).await?;
            require_owner(context, &network, "update_network")?;
            apply(context, &fields, &mut network, "update_network")?;
            fields.done()?;
            self.require_one_default(&network).await?;
            network.updated_at = self.0.now();
            match self.0.store.update_network(network).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let network = answer?;
                    self.0.network_changed(network.id);
                    return self.answer(StatusCode::OK, &network, &request).await;
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let network = visible(&self.0, context, request.param("id")).await?;
        require_owner(context, &network, "delete_network")?;
        match self.0.store.delete_network(network.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(network.id)),
            answer => {
                self.0.network_changed(answer?.id);
                nothing()
            }
        }
    }
}

/// What can be said at any time.
fn apply(context: &RequestContext, fields: &Fields, network: &mut Network, rule: &str) -> Result<(), ApiError> {
    fields.text("name", 255, &mut network.name)?;
    fields.text("description", 255, &mut network.description)?;
    fields.text("dns_domain", 255, &mut network.dns_domain)?;
    fields.flag("admin_state_up", &mut network.admin_state_up)?;
    fields.flag("port_security_enabled", &mut network.port_security_enabled)?;
    let (shared, external) = (network.shared, network.external);
    fields.flag("shared", &mut network.shared)?;
    fields.flag("router:external", &mut network.external)?;
    if network.shared && !shared {
        require_admin(context, &format!("{rule}:shared"))?;
    }
    if network.external && !external {
        require_admin(context, &format!("{rule}:router:external"))?;
    }
    if let Some(mtu) = fields.number("mtu", 68, 65535)? {
        network.mtu = u32::try_from(mtu).map_err(|_| invalid("mtu", "it is out of range"))?;
    }
    let was = network.is_default;
    fields.flag("is_default", &mut network.is_default)?;
    if network.is_default && !was {
        require_admin(context, &format!("{rule}:is_default"))?;
    }
    Ok(())
}

/// How it is carried is for administrators to say.
fn provider(context: &RequestContext, fields: &Fields, network: &mut Network) -> Result<(), ApiError> {
    let kind: Option<String> = fields.parsed("provider:network_type", "string")?;
    let physical: Option<String> = fields.parsed("provider:physical_network", "string")?;
    let segment = fields.number("provider:segmentation_id", 1, (1 << 24) - 1)?;
    if kind.is_none() && physical.is_none() && segment.is_none() {
        return Ok(());
    }
    require_admin(context, "create_network:provider:network_type")?;
    network.network_type = kind.map(|kind| short(&kind));
    network.physical_network = physical.map(|name| name.chars().take(64).collect());
    network.segmentation_id = segment.and_then(|segment| u32::try_from(segment).ok());
    Ok(())
}

fn view(context: &RequestContext, network: &Network, subnets: Vec<String>) -> Value {
    let mut view = json!({
        "id": network.id,
        "name": network.name,
        "description": network.description,
        "admin_state_up": network.admin_state_up,
        "status": "ACTIVE",
        "shared": network.shared,
        "router:external": network.external,
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "subnets": subnets,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security_enabled,
        "dns_domain": network.dns_domain,
        "is_default": network.is_default,
        "availability_zone_hints": [],
        "availability_zones": ["nova"],
        "ipv4_address_scope": null,
        "ipv6_address_scope": null,
        "tags": [],
        "revision_number": network.generation,
        "created_at": api_time(network.created_at),
        "updated_at": api_time(network.updated_at),
    });
    if context.is_admin() {
        view["provider:network_type"] = json!(network.network_type);
        view["provider:physical_network"] = json!(network.physical_network);
        view["provider:segmentation_id"] = json!(network.segmentation_id);
    }
    view
}
