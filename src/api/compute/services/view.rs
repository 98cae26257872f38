//! Services as administrators see them (nova/api/openstack/compute/services.py, `_get_service_detail`).

use jiff::{SignedDuration, Timestamp};
use nova_core::clock::api_time_micros;
use nova_core::host::Service;
use serde_json::{Map, Value, json};

use crate::api::Microversion;

/// When it is, and how long a silent service still counts as up.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    /// Now.
    pub now: Timestamp,
    /// `DEFAULT.service_down_time`.
    pub down_time: SignedDuration,
}

impl Liveness {
    /// `up` or `down`.
    pub fn state(&self, service: &Service) -> &'static str {
        if self.is_up(service) { "up" } else { "down" }
    }

    /// Is it there?
    pub fn is_up(&self, service: &Service) -> bool {
        service.is_up(self.now, self.down_time)
    }
}

/// `enabled` or `disabled`.
pub fn status(service: &Service) -> &'static str {
    if service.disabled { "disabled" } else { "enabled" }
}

/// The id that this version shows: a number before 2.53, a UUID from then on.
pub fn id(version: Microversion, service: &Service) -> Value {
    if version.at_least(53) { json!(service.id) } else { json!(service.number) }
}

/// A whole service.
pub fn full(version: Microversion, liveness: &Liveness, service: &Service) -> Value {
    let mut view = Map::new();
    view.insert("id".into(), id(version, service));
    view.insert("binary".into(), json!(service.binary));
    view.insert("host".into(), json!(service.host));
    view.insert("zone".into(), json!(service.zone));
    view.insert("status".into(), json!(status(service)));
    view.insert("state".into(), json!(liveness.state(service)));
    view.insert("updated_at".into(), json!(api_time_micros(service.last_seen_up.max(service.updated_at))));
    view.insert("disabled_reason".into(), json!(service.disabled_reason));
    if version.at_least(11) {
        view.insert("forced_down".into(), json!(service.forced_down));
    }
    Value::Object(view)
}
