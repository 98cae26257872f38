//! `/routers`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{NetworkId, PortId, RouterId, SubnetId};
use nova_core::network::{NetworkProblem, NetworkResource, Port, Router};
use nova_db::{FixedIpRequest, GatewayChange, InterfaceRef, NewInterface, RouterField, StoreError};
use serde_json::{Value, json};

use super::input::{Fields, missing, named, not_found, require_member};
use super::list::{Collection, bad_marker, nothing, one};
use super::networks::{self, short};
use super::{ports, subnets};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::network::NetworkManager;

const LIST: Collection<RouterField> = Collection {
    name: "routers",
    attributes: &[
        "id",
        "name",
        "description",
        "tenant_id",
        "project_id",
        "admin_state_up",
        "status",
        "created_at",
        "updated_at",
        "distributed",
        "ha",
    ],
    flags: &["admin_state_up", "distributed", "ha"],
    field: RouterField::parse,
};

/// The resource.
pub(super) struct Routers(pub(super) Arc<NetworkManager>);

impl Resource for Routers {
    fn name(&self) -> &'static str {
        "routers"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/routers", &self, Self::index),
            route(Method::POST, "/routers", &self, Self::create),
            route(Method::GET, "/routers/{id}", &self, Self::show),
            route(Method::PUT, "/routers/{id}", &self, Self::update),
            route(Method::DELETE, "/routers/{id}", &self, Self::delete),
            route(Method::PUT, "/routers/{id}/add_router_interface", &self, Self::add_interface),
            route(Method::PUT, "/routers/{id}/remove_router_interface", &self, Self::remove_interface),
        ]
    }
}

fn gone(id: impl std::fmt::Display) -> ApiError {
    not_found("RouterNotFound", "Router", id)
}

async fn visible(manager: &NetworkManager, context: &RequestContext, id: &str) -> Result<Router, ApiError> {
    let Ok(parsed) = id.parse::<RouterId>() else { return Err(gone(short(id))) };
    match manager.store.get_router(parsed).await {
        Ok(router) if context.is_admin() || router.project_id == context.project_id => Ok(router),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(gone(id)),
        Err(error) => Err(error.into()),
    }
}

impl Routers {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let listing = LIST.read(&request.query, request.context()?, &[], self.0.options.max_limit)?;
        let routers = self.0.store.list_routers(&listing.query).await;
        let routers = routers.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        LIST.answer(&request, &listing, routers.iter().map(view).collect())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let router = visible(&self.0, request.context()?, request.param("id")).await?;
        one(StatusCode::OK, "router", view(&router), &request)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "router").await?;
        let context = request.context()?;
        require_member(context, "create_router")?;
        let now = self.0.now();
        let mut router = Router {
            id: RouterId::generate(&*self.0.entropy),
            project_id: fields.project(context)?,
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            gateway: None,
            routes: Vec::new(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        apply(&fields, &mut router)?;
        let gateway = self.gateway(context, &fields).await?;
        fields.done()?;
        let router = self.0.store.create_router(router, gateway, self.0.limit(NetworkResource::Router)).await?;
        self.0.routers_changed([router.id]);
        one(StatusCode::CREATED, "router", view(&router), &request)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "router").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut router = visible(&self.0, context, request.param("id")).await?;
            require_member(context, "update_router")?;
            apply(&fields, &mut router)?;
            let gateway = self.gateway(context, &fields).await?;
            fields.done()?;
            router.updated_at = self.0.now();
            match self.0.store.update_router(router, gateway).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let router = answer?;
                    self.0.routers_changed([router.id]);
                    return one(StatusCode::OK, "router", view(&router), &request);
                }
            }
        }
    }

    /// `external_gateway_info`: null or empty for none.
    async fn gateway(&self, context: &RequestContext, fields: &Fields) -> Result<GatewayChange, ApiError> {
        let info = match fields.object("external_gateway_info")? {
            None => return Ok(GatewayChange::Keep),
            Some(None) => return Ok(GatewayChange::Clear),
            Some(Some(info)) => info,
        };
        let Some(id) = info.parsed::<NetworkId>("network_id", "UUID")? else { return Ok(GatewayChange::Clear) };
        let network = networks::visible(&self.0, context, &id.to_string()).await?;
        let mut enable_snat = true;
        if let Some(wanted) = info.optional_flag("enable_snat")? {
            super::input::require_admin(context, "create_router:external_gateway_info:enable_snat")?;
            enable_snat = wanted;
        }
        let mut port = self.0.new_port(network.id, &"".into());
        port.fixed_ips = addresses(context, &info)?;
        info.done()?;
        Ok(GatewayChange::Set { enable_snat, port: Box::new(port) })
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let router = visible(&self.0, context, request.param("id")).await?;
        require_member(context, "delete_router")?;
        match self.0.store.delete_router(router.id).await {
            Err(StoreError::NotFound { .. }) => Err(gone(router.id)),
            answer => {
                self.0.routers_changed([answer?.id]);
                nothing()
            }
        }
    }

    /// The interface that a body names: its subnet, its port, or both.
    async fn named(&self, request: &mut Request) -> Result<InterfaceRef, ApiError> {
        let body = json!({"interface": request.json().await?});
        let fields = Fields::within(&body, "interface")?;
        let which = InterfaceRef {
            subnet_id: fields.parsed::<SubnetId>("subnet_id", "UUID")?,
            port_id: fields.parsed::<PortId>("port_id", "UUID")?,
        };
        fields.done()?;
        if which == InterfaceRef::default() {
            let text = "Either subnet_id or port_id must be specified";
            return Err(named(400, "BadRequest", format!("Bad router request: {text}.")));
        }
        Ok(which)
    }

    async fn add_interface(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let which = self.named(&mut request).await?;
        let context = request.context()?;
        let router = visible(&self.0, context, request.param("id")).await?;
        require_member(context, "add_router_interface")?;
        let interface = match (which.subnet_id, which.port_id) {
            (Some(_), Some(_)) => {
                let text = "Bad router request: Cannot specify both subnet-id and port-id.";
                return Err(named(400, "BadRequest", text.to_owned()));
            }
            (None, Some(port)) => NewInterface::Port(ports::visible(&self.0, context, &port.to_string()).await?.id),
            (Some(subnet), None) => {
                let subnet = subnets::visible(&self.0, context, &subnet.to_string()).await?;
                // A shared network's gateway address is for its owner to give.
                subnets::require_owner(context, &subnet, "add_router_interface")?;
                let mut port = self.0.new_port(subnet.network_id, &router.project_id);
                port.port.port_security_enabled = false;
                NewInterface::Subnet { subnet_id: subnet.id, port: Box::new(port) }
            }
            (None, None) => return Err(missing("subnet_id")),
        };
        let port = self.0.store.add_router_interface(router.id, interface).await?;
        self.0.routers_changed([router.id]);
        self.0.network_changed(port.network_id);
        Ok(Response::json(StatusCode::OK, &interface_view(&router, &port)))
    }

    async fn remove_interface(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let which = self.named(&mut request).await?;
        let context = request.context()?;
        let router = visible(&self.0, context, request.param("id")).await?;
        require_member(context, "remove_router_interface")?;
        if let (Some(id), Some(port)) = (which.subnet_id, which.port_id) {
            let port = ports::visible(&self.0, context, &port.to_string()).await?;
            if !port.fixed_ips.iter().any(|fixed| fixed.subnet_id == id) {
                return Err(NetworkProblem::NoInterfaceOnSubnet { router: router.id, subnet: id }.into());
            }
        }
        let port = self.0.store.remove_router_interface(router.id, which).await?;
        self.0.routers_changed([router.id]);
        self.0.network_changed(port.network_id);
        Ok(Response::json(StatusCode::OK, &interface_view(&router, &port)))
    }
}

fn apply(fields: &Fields, router: &mut Router) -> Result<(), ApiError> {
    fields.text("name", 255, &mut router.name)?;
    fields.text("description", 255, &mut router.description)?;
    fields.flag("admin_state_up", &mut router.admin_state_up)?;
    if let Some(routes) = fields.routes("routes")? {
        router.routes = routes;
    }
    // There is one kind of router; a wish for another is an error, none is not.
    for name in ["distributed", "ha"] {
        if fields.optional_flag(name)? == Some(true) {
            return Err(named(501, "NotImplemented", format!("Routers with '{name}' are not offered here.")));
        }
    }
    Ok(())
}

/// The router's addresses outside are for administrators to choose.
fn addresses(context: &RequestContext, info: &Fields) -> Result<Option<Vec<FixedIpRequest>>, ApiError> {
    let Some(objects) = info.objects("external_fixed_ips")? else { return Ok(None) };
    if objects.is_empty() {
        return Ok(None);
    }
    super::input::require_admin(context, "create_router:external_gateway_info:external_fixed_ips")?;
    let mut requests = Vec::with_capacity(objects.len());
    for object in objects {
        requests.push(FixedIpRequest {
            subnet_id: object.parsed("subnet_id", "UUID")?,
            ip_address: object.parsed("ip_address", "IP address")?,
        });
        object.done()?;
    }
    Ok(Some(requests))
}

fn interface_view(router: &Router, port: &Port) -> Value {
    let subnets: Vec<_> = port.fixed_ips.iter().map(|fixed| fixed.subnet_id).collect();
    json!({
        "id": router.id,
        "tenant_id": router.project_id,
        "project_id": router.project_id,
        "port_id": port.id,
        "network_id": port.network_id,
        "subnet_id": subnets.first(),
        "subnet_ids": subnets,
    })
}

fn view(router: &Router) -> Value {
    let gateway = router.gateway.as_ref().map(|gateway| {
        json!({
            "network_id": gateway.network_id,
            "enable_snat": gateway.enable_snat,
            "external_fixed_ips": gateway.external_fixed_ips,
        })
    });
    json!({
        "id": router.id,
        "name": router.name,
        "description": router.description,
        "tenant_id": router.project_id,
        "project_id": router.project_id,
        "admin_state_up": router.admin_state_up,
        "status": "ACTIVE",
        "external_gateway_info": gateway,
        "routes": router.routes,
        "distributed": false,
        "ha": false,
        "availability_zone_hints": [],
        "availability_zones": ["nova"],
        "flavor_id": null,
        "tags": [],
        "revision_number": router.generation,
        "created_at": api_time(router.created_at),
        "updated_at": api_time(router.updated_at),
    })
}
