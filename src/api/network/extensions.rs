//! `/extensions`: what this service offers of Neutron's extensions. Clients look aliases up before they use them.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::input::named;
use super::networks::short;
use crate::api::{HandlerResult, Request, Resource, Response, Route, route};

/// Aliases and names, by alias.
const EXTENSIONS: [(&str, &str); 18] = [
    ("agent", "agent"),
    ("allowed-address-pairs", "Allowed Address Pairs"),
    // Of this service: `applied` of a port or security group that is shown says that hosts have what the books say.
    ("applied-state", "State of ports and security groups on hosts"),
    ("auto-allocated-topology", "Auto Allocated Topology Services"),
    ("availability_zone", "Availability Zone"),
    ("binding", "Port Binding"),
    ("ext-gw-mode", "Neutron L3 Configurable external gateway mode"),
    ("external-net", "Neutron external network"),
    ("extraroute", "Neutron Extra Route"),
    ("net-mtu", "Network MTU"),
    ("pagination", "Pagination support"),
    ("port-security", "Port Security"),
    ("provider", "Provider Network"),
    ("quotas", "Quota management support"),
    ("quota_details", "Quota details management support"),
    ("router", "Neutron L3 Router"),
    ("security-group", "security-group"),
    ("sorting", "Sorting support"),
];

/// The resource.
#[derive(Debug)]
pub(super) struct Extensions;

impl Resource for Extensions {
    fn name(&self) -> &'static str {
        "network-extensions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/extensions", &self, Self::index),
            route(Method::GET, "/extensions/{alias}", &self, Self::show),
        ]
    }
}

fn view((alias, name): &(&str, &str)) -> Value {
    json!({"alias": alias, "name": name, "description": name, "updated": "2015-01-01T10:00:00-00:00", "links": []})
}

impl Extensions {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let list: Vec<Value> = EXTENSIONS.iter().map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "extensions": list })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let alias = request.param("alias");
        let found = EXTENSIONS.iter().find(|(known, _)| *known == alias);
        let text = format!("Extension with alias {} does not exist", short(alias));
        let extension = found.ok_or_else(|| named(404, "HTTPNotFound", text))?;
        Ok(Response::json(StatusCode::OK, &json!({"extension": view(extension)})))
    }
}
