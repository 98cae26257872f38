//! Services, pools, zones, extensions (cinder/api/contrib/services.py, scheduler_stats.py, availability_zones.py).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::SignedDuration;
use nova_core::clock::api_time_micros;
use nova_core::host::Service;
use nova_core::ids::HostName;
use nova_core::volume::Pool;
use nova_db::{ServiceQuery, StoreError};
use serde_json::{Value, json};

use super::input::{Fields, invalid, require_admin};
use super::view;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Operators(pub(super) Arc<VolumeManager>);

/// What clients know the service of a volume host by.
const BINARY: &str = "cinder-volume";
const OURS: &str = "nova-volume";

impl Resource for Operators {
    fn name(&self) -> &'static str {
        "volume-operators"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-services", &self, Self::services),
            route(Method::PUT, "/os-services/enable", &self, Self::enable),
            route(Method::PUT, "/os-services/disable", &self, Self::disable),
            route(Method::PUT, "/os-services/disable-log-reason", &self, Self::disable_with_reason),
            route(Method::GET, "/os-availability-zone", &self, Self::zones),
            route(Method::GET, "/scheduler-stats/get_pools", &self, Self::pools),
            route(Method::GET, "/extensions", &self, Self::extensions),
        ]
    }
}

impl Operators {
    async fn hosts(&self) -> Result<Vec<Service>, StoreError> {
        let query = ServiceQuery { binary: Some(OURS.to_owned()), ..ServiceQuery::default() };
        self.0.store().find_services(&query).await
    }

    fn is_up(&self, service: &Service) -> bool {
        let down = SignedDuration::try_from(self.0.options().down_time).unwrap_or(SignedDuration::MAX);
        service.is_up(self.0.now(), down)
    }

    async fn services(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "volume_extension:services:index")?;
        let pools = self.0.store().list_volume_pools().await?;
        let by_host: BTreeMap<&HostName, &Pool> = pools.iter().map(|pool| (&pool.name.host, pool)).collect();
        let (host, binary) = (request.query.get("host"), request.query.get("binary"));
        let view = |service: &Service| {
            let pool = by_host.get(&service.host);
            let name = pool.map_or_else(|| service.host.to_string(), |pool| pool.name.service());
            let mut view = json!({
                "binary": BINARY,
                "host": name,
                "zone": pool.map_or(&service.zone, |pool| &pool.zone),
                "status": if service.disabled { "disabled" } else { "enabled" },
                "state": if self.is_up(service) { "up" } else { "down" },
                "updated_at": api_time_micros(service.last_seen_up),
                "disabled_reason": service.disabled_reason,
                "replication_status": "disabled",
                "active_backend_id": null,
                "frozen": false,
            });
            if request.version.at_least(7) {
                view["cluster"] = Value::Null;
            }
            if request.version.at_least(49) {
                view["backend_state"] = json!(if self.is_up(service) { "up" } else { "down" });
            }
            view
        };
        let fits = |view: &Value| {
            let of_host = |host: &str| {
                view["host"] == host || view["host"].as_str().is_some_and(|name| name.split('@').next() == Some(host))
            };
            host.is_none_or(of_host) && binary.is_none_or(|binary| view["binary"] == binary)
        };
        let views: Vec<Value> = self.hosts().await?.iter().map(view).filter(fits).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "services": views })))
    }

    async fn enable(self: Arc<Self>, request: Request) -> HandlerResult {
        self.switch(request, false, false).await
    }

    async fn disable(self: Arc<Self>, request: Request) -> HandlerResult {
        self.switch(request, true, false).await
    }

    async fn disable_with_reason(self: Arc<Self>, request: Request) -> HandlerResult {
        self.switch(request, true, true).await
    }

    async fn switch(&self, mut request: Request, disabled: bool, with_reason: bool) -> HandlerResult {
        let body = request.json().await?;
        require_admin(request.context()?, "volume_extension:services:update")?;
        let fields = Fields(body.as_object().cloned().unwrap_or_default());
        let required = |name: &'static str| {
            fields.text(name, 255)?.ok_or_else(|| invalid(name, format_args!("'{name}' is a required property")))
        };
        let (named, binary) = (required("host")?, fields.text("binary", 255)?.unwrap_or_else(|| BINARY.to_owned()));
        let reason = if with_reason { Some(required("disabled_reason")?) } else { None };
        let host = named.split('@').next().unwrap_or_default();
        let found = self.hosts().await?.into_iter().find(|service| service.host.as_str() == host);
        let service = found.filter(|_| [BINARY, OURS].contains(&binary.as_str()));
        let absent = || {
            ApiError::not_found(format!("Service {} could not be found.", named.chars().take(255).collect::<String>()))
        };
        let service = service.ok_or_else(absent)?;
        let changed = Service { disabled, disabled_reason: reason.clone(), updated_at: self.0.now(), ..service };
        self.0.store().update_service(changed).await?;
        let mut view = json!({
            "host": named,
            "service": binary,
            "disabled": disabled,
            "binary": binary,
            "status": if disabled { "disabled" } else { "enabled" },
        });
        if let Some(reason) = reason {
            view["disabled_reason"] = json!(reason);
        }
        Ok(Response::json(StatusCode::OK, &view))
    }

    async fn zones(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let live = self.0.live_pools().await?;
        let mut zones: BTreeMap<String, bool> = BTreeMap::new();
        for pool in self.0.store().list_volume_pools().await? {
            let available = live.iter().any(|one| one.name == pool.name);
            *zones.entry(pool.zone.to_string()).or_default() |= available;
        }
        let view = |(name, available): (String, bool)| json!({"zoneName": name, "zoneState": {"available": available}});
        let views: Vec<Value> = zones.into_iter().map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "availabilityZoneInfo": views })))
    }

    async fn pools(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "scheduler_extension:scheduler_stats:get_pools")?;
        let detail = request.query.get("detail").and_then(parse_bool).unwrap_or(false);
        let views: Vec<Value> = self.0.live_pools().await?.iter().map(|pool| view::pool(pool, detail)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "pools": views })))
    }

    /// What clients look for before they ask.
    async fn extensions(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let known = [
            "os-admin-actions",
            "os-availability-zone",
            "os-extended-snapshot-attributes",
            "os-quota-sets",
            "os-services",
            "os-types-extra-specs",
            "os-types-manage",
            "os-vol-host-attr",
            "os-vol-image-meta",
            "os-vol-tenant-attr",
            "os-volume-actions",
            "os-volume-transfer",
            "os-volume-type-access",
            "scheduler-stats",
        ];
        let view = |alias: &&str| json!({"alias": alias, "name": alias, "description": "", "updated": "2012-01-01T00:00:00+00:00", "links": []});
        let views: Vec<Value> = known.iter().map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "extensions": views })))
    }
}
