//! `/os-hosts`, until 2.42: hosts as they were managed before services and hypervisors had resources of their own
//! (nova/api/openstack/compute/hosts.py).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::host::Service;
use nova_core::ids::{HostName, ProjectId};
use nova_core::instance::Instance;
use nova_db::{Deleted, InstanceQuery, ServiceQuery};
use serde_json::{Value, json};

use super::ComputeApi;
use super::services::{COMPUTE, Change, HIDDEN, Services, Status};
use crate::api::microversion::until;
use crate::api::policy::enforce;
use crate::api::validate::{Fields, Shown, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub(super) struct Hosts {
    api: Arc<ComputeApi>,
    services: Services,
}

/// What an operator does to a host.
struct Order {
    /// In or out of scheduling.
    enable: Option<bool>,
    /// Guests move away, or may come again.
    maintenance: Option<bool>,
}

impl Hosts {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { services: Services::new(Arc::clone(&api)), api }
    }

    /// Enabled services; `zone` narrows them, and `service` was never looked at.
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hosts:list", request.context()?)?;
        let zone = request.query.get("zone").filter(|zone| !zone.is_empty());
        let services = self.api.zoned_services().await?;
        let shown = |service: &&Service| {
            let hidden = service.disabled || HIDDEN.contains(&service.binary.as_str());
            !hidden && zone.is_none_or(|zone| service.zone.as_str() == zone)
        };
        let view = |service: &Service| {
            let topic = service.binary.strip_prefix("nova-").unwrap_or(&service.binary);
            json!({"host_name": service.host, "service": topic, "zone": service.zone})
        };
        let hosts: Vec<Value> = services.iter().filter(shown).map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "hosts": hosts })))
    }

    /// What the host has, what of it is taken, and by whom.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hosts:show", request.context()?)?;
        let host = HostName::new(request.param("id"));
        let node = self.api.store.find_nodes(Some(&host), None).await?.into_iter().next();
        let node = node.ok_or_else(|| no_such_host(&host))?;
        let query = InstanceQuery { host: Some(host.clone()), deleted: Deleted::No, ..InstanceQuery::default() };
        let instances = self.api.store.list_instances(&query).await?;
        let (total, used, reserved) = (node.inventory.total, node.used, node.inventory.reserved);
        let row = |project: &str, cpu: u64, memory_mb: u64, disk_gb: u64| {
            json!({"resource": {
                "host": host, "project": project, "cpu": cpu, "memory_mb": memory_mb, "disk_gb": disk_gb,
            }})
        };
        let now = used.plus(reserved);
        let sum = Sum::of(instances.iter());
        let mut rows = vec![
            row("(total)", total.vcpus, total.memory_mb, total.disk_gb),
            row("(used_now)", used.vcpus, now.memory_mb, used.disk_gb),
            row("(used_max)", sum.cpu, sum.memory_mb, sum.disk_gb),
        ];
        let mut projects: BTreeMap<&ProjectId, Vec<&Instance>> = BTreeMap::new();
        for instance in &instances {
            projects.entry(&instance.project_id).or_default().push(instance);
        }
        rows.extend(projects.into_iter().map(|(project, instances)| {
            let sum = Sum::of(instances.into_iter());
            row(project.as_str(), sum.cpu, sum.memory_mb, sum.disk_gb)
        }));
        Ok(Response::json(StatusCode::OK, &json!({ "host": rows })))
    }

    /// Maintenance mode was a thing of one hypervisor that is gone; hosts are drained otherwise.
    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-hosts:update", request.context()?)?;
        let body = request.json().await?;
        let order = read(&body, request.lenient)?;
        let service = self.compute_service(&request).await?;
        if order.maintenance.is_some() {
            return Err(not_supported());
        }
        let mut answer = json!({"host": service.host});
        if let Some(enable) = order.enable {
            let status = if enable { Status::Enabled } else { Status::Disabled { reason: None } };
            let change = Change { status: Some(status), forced_down: None };
            self.services.apply(request.context()?, service.id, &change).await?;
            answer["status"] = json!(if enable { "enabled" } else { "disabled" });
        }
        Ok(Response::json(StatusCode::OK, &answer))
    }

    async fn startup(self: Arc<Self>, request: Request) -> HandlerResult {
        self.power(&request, "os_compute_api:os-hosts:start").await
    }

    async fn shutdown(self: Arc<Self>, request: Request) -> HandlerResult {
        self.power(&request, "os_compute_api:os-hosts:shutdown").await
    }

    async fn reboot(self: Arc<Self>, request: Request) -> HandlerResult {
        self.power(&request, "os_compute_api:os-hosts:reboot").await
    }

    /// No driver switches its own machine, as Nova's libvirt driver does not.
    async fn power(&self, request: &Request, rule: &str) -> HandlerResult {
        enforce(rule, request.context()?)?;
        self.compute_service(request).await?;
        Err(not_supported())
    }

    async fn compute_service(&self, request: &Request) -> Result<Service, ApiError> {
        let host = HostName::new(request.param("id"));
        let found = self.api.store.find_services(&ServiceQuery::computes([&host])).await?;
        found.into_iter().find(|service| service.binary == COMPUTE).ok_or_else(|| no_such_host(&host))
    }
}

impl Resource for Hosts {
    fn name(&self) -> &'static str {
        "os-hosts"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ONE: &str = "/os-hosts/{id}";
        let routes = vec![
            route(Method::GET, "/os-hosts", &self, Self::index),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::GET, "/os-hosts/{id}/startup", &self, Self::startup),
            route(Method::GET, "/os-hosts/{id}/shutdown", &self, Self::shutdown),
            route(Method::GET, "/os-hosts/{id}/reboot", &self, Self::reboot),
        ];
        routes.into_iter().map(|route| route.versions(until(42))).collect()
    }
}

/// What servers' flavors say.
#[derive(Default)]
struct Sum {
    cpu: u64,
    memory_mb: u64,
    disk_gb: u64,
}

impl Sum {
    fn of<'a>(instances: impl Iterator<Item = &'a Instance>) -> Self {
        instances.fold(Self::default(), |sum, instance| Self {
            cpu: sum.cpu + u64::from(instance.flavor.vcpus),
            memory_mb: sum.memory_mb + instance.flavor.memory_mb,
            disk_gb: sum.disk_gb + instance.flavor.root_gb + instance.flavor.ephemeral_gb,
        })
    }
}

/// `{"status": "enable", "maintenance_mode": "disable"}`, at least one of them.
fn read(body: &Value, lenient: bool) -> Result<Order, ApiError> {
    let mut fields = Fields::root(body, lenient)?;
    let status = fields.get("status").map(|value| switch("status", value)).transpose()?;
    let maintenance = fields.get("maintenance_mode").map(|value| switch("maintenance_mode", value)).transpose()?;
    if status.is_none() && maintenance.is_none() {
        return Err(fields.refuse(format_args!("{} is not valid under any of the given schemas", Shown(body))));
    }
    fields.finish()?;
    Ok(Order { enable: status, maintenance })
}

fn switch(key: &str, value: &Value) -> Result<bool, ApiError> {
    match value.as_str() {
        Some("enable" | "Enable" | "ENABLE") => Ok(true),
        Some("disable" | "Disable" | "DISABLE") => Ok(false),
        _ => {
            let words = "['enable', 'disable', 'Enable', 'Disable', 'ENABLE', 'DISABLE']";
            Err(invalid(key, value, format_args!("{} is not one of {words}", Shown(value))))
        }
    }
}

fn no_such_host(host: &HostName) -> ApiError {
    let shown: String = host.as_str().chars().take(255).collect();
    ApiError::not_found(format!("Compute host {shown} could not be found."))
}

fn not_supported() -> ApiError {
    ApiError::NotImplemented("The requested functionality is not supported.".to_owned())
}
