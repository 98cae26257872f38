//! `/os-availability-zone` (nova/api/openstack/compute/availability_zone.py and nova/availability_zones.py): a zone is
//! available while a service in it is enabled.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time_micros;
use nova_core::host::Service;
use serde_json::{Map, Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::compute::services::liveness;
use crate::api::compute::services::view::Liveness;
use crate::api::policy::enforce;
use crate::api::{HandlerResult, Request, Resource, Response, Route, route};

/// Services behind HTTP belong to no zone.
const NOWHERE: [&str; 3] = ["nova-osapi_compute", "nova-metadata", "nova-api"];

/// The resource.
pub struct AvailabilityZones {
    api: Arc<ComputeApi>,
}

impl AvailabilityZones {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-availability-zone:list", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let services = self.api.zoned_services().await?;
        let options = self.api.options.get();
        let internal = options.internal_service_availability_zone.as_str();
        let views: Vec<_> = zones(&services)
            .into_iter()
            .filter(|(zone, _)| *zone != internal)
            .map(|(zone, enabled)| view(zone, !enabled.is_empty(), Value::Null))
            .collect();
        Ok(answer(views))
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-availability-zone:detail", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let services = self.api.zoned_services().await?;
        let liveness = liveness(&self.api);
        let views: Vec<_> = zones(&services)
            .into_iter()
            .map(|(zone, enabled)| match enabled.is_empty() {
                true => view(zone, false, Value::Null),
                false => view(zone, true, hosts(&enabled, &liveness)),
            })
            .collect();
        Ok(answer(views))
    }
}

impl Resource for AvailabilityZones {
    fn name(&self) -> &'static str {
        "os-availability-zone"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-availability-zone", &self, Self::index),
            route(Method::GET, "/os-availability-zone/detail", &self, Self::detail),
        ]
    }
}

/// Every zone with its enabled services: available zones first, each kind by name.
fn zones(services: &[Service]) -> Vec<(&str, Vec<&Service>)> {
    let mut zones: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in services.iter().filter(|s| !NOWHERE.contains(&s.binary.as_str())) {
        let enabled = zones.entry(service.zone.as_str()).or_default();
        if !service.disabled {
            enabled.push(service);
        }
    }
    let (mut available, mut others): (Vec<_>, Vec<_>) = zones.into_iter().partition(|(_, enabled)| !enabled.is_empty());
    available.append(&mut others);
    available
}

fn hosts(services: &[&Service], liveness: &Liveness) -> Value {
    let mut hosts: Map<String, Value> = Map::new();
    for service in services {
        let host = hosts.entry(service.host.as_str()).or_insert_with(|| json!({}));
        host[service.binary.as_str()] = json!({
            "available": liveness.is_up(service),
            "active": !service.disabled,
            "updated_at": api_time_micros(service.last_seen_up.max(service.updated_at)),
        });
    }
    Value::Object(hosts)
}

fn view(zone: &str, available: bool, hosts: Value) -> Value {
    json!({"zoneName": zone, "zoneState": {"available": available}, "hosts": hosts})
}

fn answer(views: Vec<Value>) -> Response {
    Response::json(StatusCode::OK, &json!({ "availabilityZoneInfo": views }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::compute::services::Services;
    use crate::api::compute::test_support::{ADMIN, Bench, DEMO};

    async fn bench() -> Bench {
        let bench = Bench::new(AvailabilityZones::new).add(Services::new);
        bench.service("nova-conductor", "ctl", "internal").await;
        bench.service("nova-compute", "h1", "nova").await;
        bench.service("nova-compute", "h2", "west").await;
        bench
    }

    #[tokio::test]
    async fn zones_are_available_while_a_host_is_enabled() {
        let bench = bench().await;
        let zone = |name: &str, available: bool| json!({"zoneName": name, "zoneState": {"available": available}, "hosts": null});
        let list = bench.get(DEMO, 1, "/os-availability-zone").await;
        assert_eq!(list, json!({"availabilityZoneInfo": [zone("nova", true), zone("west", true)]}));
        let out = json!({"host": "h1", "binary": "nova-compute"});
        assert_eq!(bench.call(ADMIN, 1, "PUT /os-services/disable", out).await.0, 200);
        let list = bench.get(DEMO, 1, "/os-availability-zone").await;
        assert_eq!(list, json!({"availabilityZoneInfo": [zone("west", true), zone("nova", false)]}));
        bench.get(DEMO, 101, "/os-availability-zone?foo=1").await;
        assert_eq!(bench.refused(DEMO, 102, "GET /os-availability-zone?foo=1", Value::Null).await.0, 400);
    }

    #[tokio::test]
    async fn details_are_for_administrators_and_name_hosts() {
        let bench = bench().await;
        bench.pass(61);
        bench.service("nova-compute", "h1", "nova").await;
        let detail = bench.get(ADMIN, 1, "/os-availability-zone/detail").await;
        let zones = detail["availabilityZoneInfo"].as_array().unwrap();
        assert_eq!(zones.iter().map(|z| z["zoneName"].clone()).collect::<Vec<_>>(), ["internal", "nova", "west"]);
        assert_eq!(
            zones[1]["hosts"],
            json!({"h1": {"nova-compute": {"available": true, "active": true, "updated_at": "2026-11-22T08:04:12.000000"}}})
        );
        assert_eq!(zones[2]["hosts"]["h2"]["nova-compute"]["available"], false);
        assert_eq!(zones[2]["zoneState"]["available"], true, "Nova asks only whether it is enabled");
        assert_eq!(bench.refused(DEMO, 1, "GET /os-availability-zone/detail", Value::Null).await.0, 403);
    }
}
