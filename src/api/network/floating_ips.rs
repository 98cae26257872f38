//! `/floatingips`.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{FloatingIpId, NetworkId, PortId, SubnetId};
use nova_core::network::{FloatingIp, NetworkResource};
use nova_db::{FixedIpRequest, FloatingIpField, FloatingTarget, NewFloatingIp, StoreError};
use serde_json::{Value, json};

use super::input::{Fields, named, not_found, require_admin, require_member};
use super::list::{Collection, bad_marker, nothing, one};
use super::networks::{self, short};
use super::ports;
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};
use crate::network::NetworkManager;

const LIST: Collection<FloatingIpField> = Collection {
    name: "floatingips",
    attributes: &[
        "id",
        "description",
        "tenant_id",
        "project_id",
        "floating_network_id",
        "floating_ip_address",
        "fixed_ip_address",
        "port_id",
        "router_id",
        "status",
        "created_at",
        "updated_at",
    ],
    flags: &[],
    field: FloatingIpField::parse,
};

/// The resource.
pub(super) struct FloatingIps(pub(super) Arc<NetworkManager>);

impl Resource for FloatingIps {
    fn name(&self) -> &'static str {
        "floatingips"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/floatingips", &self, Self::index),
            route(Method::POST, "/floatingips", &self, Self::create),
            route(Method::GET, "/floatingips/{id}", &self, Self::show),
            route(Method::PUT, "/floatingips/{id}", &self, Self::update),
            route(Method::DELETE, "/floatingips/{id}", &self, Self::delete),
        ]
    }
}

fn gone(id: impl std::fmt::Display) -> ApiError {
    not_found("FloatingIPNotFound", "Floating IP", id)
}

impl FloatingIps {
    async fn visible(&self, context: &RequestContext, id: &str) -> Result<FloatingIp, ApiError> {
        let Ok(parsed) = id.parse::<FloatingIpId>() else { return Err(gone(short(id))) };
        match self.0.store.get_floating_ip(parsed).await {
            Ok(found) if context.is_admin() || found.project_id == context.project_id => Ok(found),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(gone(id)),
            Err(error) => Err(error.into()),
        }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let listing = LIST.read(&request.query, request.context()?, &[], self.0.options.max_limit)?;
        let found = self.0.store.list_floating_ips(&listing.query).await;
        let found = found.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        LIST.answer(&request, &listing, found.iter().map(view).collect())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let floating = self.visible(request.context()?, request.param("id")).await?;
        one(StatusCode::OK, "floatingip", view(&floating), &request)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "floatingip").await?;
        let context = request.context()?;
        require_member(context, "create_floatingip")?;
        let network: NetworkId = fields.needed("floating_network_id", "UUID")?;
        let network = networks::visible(&self.0, context, &network.to_string()).await?;
        let address = FixedIpRequest {
            subnet_id: fields.parsed::<SubnetId>("subnet_id", "UUID")?,
            ip_address: fields.parsed::<IpAddr>("floating_ip_address", "IP address")?,
        };
        if address.ip_address.is_some() {
            require_admin(context, "create_floatingip:floating_ip_address")?;
        }
        let mut new = NewFloatingIp {
            id: FloatingIpId::generate(&*self.0.entropy),
            project_id: fields.project(context)?,
            description: String::new(),
            network_id: network.id,
            address,
            target: self.target(context, &fields).await?.flatten(),
            draw: self.0.entropy.next_u64(),
            limit: self.0.limit(NetworkResource::FloatingIp),
            now: self.0.now(),
        };
        fields.text("description", 255, &mut new.description)?;
        fields.done()?;
        let floating = self.0.store.create_floating_ip(new).await?;
        self.0.routers_changed(floating.router_id);
        one(StatusCode::CREATED, "floatingip", view(&floating), &request)
    }

    /// What a body says of its port: nothing, none, or one of the caller's.
    async fn target(
        &self,
        context: &RequestContext,
        fields: &Fields,
    ) -> Result<Option<Option<FloatingTarget>>, ApiError> {
        let fixed_ip_address = fields.parsed::<IpAddr>("fixed_ip_address", "IP address")?;
        if fields.get("port_id").is_none() {
            if fixed_ip_address.is_some() {
                let text = "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.";
                return Err(named(400, "BadRequest", text.to_owned()));
            }
            return Ok(None);
        }
        let Some(id) = fields.parsed::<PortId>("port_id", "UUID")? else { return Ok(Some(None)) };
        let port = ports::visible(&self.0, context, &id.to_string()).await?;
        Ok(Some(Some(FloatingTarget { port_id: port.id, fixed_ip_address })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "floatingip").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut floating = self.visible(context, request.param("id")).await?;
            require_member(context, "update_floatingip")?;
            fields.text("description", 255, &mut floating.description)?;
            // Without a word on the port, Neutron takes the address away from it; only its description leaves it.
            let target = match self.target(context, &fields).await? {
                None if fields.get("description").is_some() => same(&floating),
                said => said.flatten(),
            };
            fields.done()?;
            floating.updated_at = self.0.now();
            let before = floating.router_id;
            match self.0.store.associate_floating_ip(floating, target).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let floating = answer?;
                    self.0.routers_changed(before.into_iter().chain(floating.router_id));
                    return one(StatusCode::OK, "floatingip", view(&floating), &request);
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let floating = self.visible(context, request.param("id")).await?;
        require_member(context, "delete_floatingip")?;
        match self.0.store.delete_floating_ip(floating.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(floating.id)),
            answer => {
                self.0.routers_changed(answer?.router_id);
                nothing()
            }
        }
    }
}

fn same(floating: &FloatingIp) -> Option<FloatingTarget> {
    let fixed_ip_address = floating.fixed_ip_address;
    floating.port_id.map(|port_id| FloatingTarget { port_id, fixed_ip_address })
}

fn view(floating: &FloatingIp) -> Value {
    json!({
        "id": floating.id,
        "description": floating.description,
        "tenant_id": floating.project_id,
        "project_id": floating.project_id,
        "floating_network_id": floating.floating_network_id,
        "floating_ip_address": floating.floating_ip_address,
        "fixed_ip_address": floating.fixed_ip_address,
        "port_id": floating.port_id,
        "port_details": null,
        "port_forwardings": [],
        "router_id": floating.router_id,
        "status": floating.status(),
        "dns_domain": "",
        "dns_name": "",
        "qos_policy_id": null,
        "tags": [],
        "revision_number": floating.generation,
        "created_at": api_time(floating.created_at),
        "updated_at": api_time(floating.updated_at),
    })
}
