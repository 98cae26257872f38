//! Actions and their events as clients see them.

use nova_core::action::{ActionEvent, ActionRecord};
use nova_core::clock::api_time_micros;
use nova_core::ids::ProjectId;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};

use crate::api::Microversion;

/// What the caller may see of events.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    /// The version.
    pub version: Microversion,
    /// All of them, traceback and host included: administrators.
    pub events: bool,
    /// What went wrong (2.84): administrators.
    pub details: bool,
}

/// An action without its events.
pub fn action(version: Microversion, action: &ActionRecord) -> Map<String, Value> {
    let mut view = Map::new();
    view.insert("action".into(), json!(action.action));
    view.insert("instance_uuid".into(), json!(action.instance_id));
    view.insert("request_id".into(), json!(action.request_id));
    view.insert("user_id".into(), json!(action.user_id));
    view.insert("project_id".into(), json!(action.project_id));
    view.insert("start_time".into(), json!(api_time_micros(action.started)));
    view.insert("message".into(), json!(action.message));
    if version.at_least(58) {
        view.insert("updated_at".into(), json!(api_time_micros(action.updated)));
    }
    view
}

/// The events, newest first; `None` where this caller sees none: before 2.51 only administrators do.
pub fn events(sight: &Sight, action: &ActionRecord, project: &ProjectId) -> Option<Vec<Value>> {
    let shown = sight.events || sight.version.at_least(51);
    shown.then(|| action.events.iter().rev().map(|e| event(sight, e, project)).collect())
}

fn event(sight: &Sight, event: &ActionEvent, project: &ProjectId) -> Value {
    let mut view = Map::new();
    view.insert("event".into(), json!(event.event));
    view.insert("start_time".into(), json!(api_time_micros(event.started)));
    view.insert("finish_time".into(), json!(event.finished.map(api_time_micros)));
    view.insert("result".into(), json!(event.result));
    if sight.events {
        // There are no tracebacks here; what went wrong is in the details.
        view.insert("traceback".into(), Value::Null);
    }
    if sight.version.at_least(62) {
        if sight.events {
            view.insert("host".into(), json!(event.host));
        }
        view.insert("hostId".into(), json!(host_id(event.host.as_deref(), project)));
    }
    if sight.version.at_least(84) && sight.details {
        view.insert("details".into(), json!(event.details));
    }
    Value::Object(view)
}

/// A host's name as tenants may know it: the same for one project, another for the next (nova/utils.py,
/// `generate_hostid`).
fn host_id(host: Option<&str>, project: &ProjectId) -> String {
    let Some(host) = host.filter(|h| !h.is_empty()) else { return String::new() };
    let digest = Sha224::digest(format!("{project}{host}"));
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
