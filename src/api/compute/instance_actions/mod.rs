//! `/servers/{id}/os-instance-actions`: what was done to a server (nova/api/openstack/compute/instance_actions.py).

#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::ids::{InstanceId, RequestId};
use nova_core::instance::Instance;
use nova_db::StoreError;
use serde_json::{Value, json};

use self::view::Sight;
use crate::api::compute::ComputeApi;
use crate::api::compute::input::{invalid_query, single_query, strict_query};
use crate::api::compute::links::next_links;
use crate::api::policy::{Target, allows, enforce_on};
use crate::api::{ApiError, HandlerResult, Microversion, Paging, Request, Resource, Response, Route, route};

/// The resource.
pub struct InstanceActions {
    api: Arc<ComputeApi>,
}

impl InstanceActions {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let instance = self.instance(request.context()?, request.param("server_id"), request.version).await?;
        enforce_on("os_compute_api:os-instance-actions:list", request.context()?, target(&instance))?;
        let mut actions = self.api.store.list_actions(instance.id).await?;
        if request.version.before(58) {
            return Ok(answer(&request, &actions));
        }
        let query = ListQuery::parse(&request, self.api.options.get().max_limit)?;
        query.select(&mut actions)?;
        let views: Vec<_> = actions.iter().map(|a| view::action(request.version, a)).collect();
        let mut body = json!({ "instanceActions": views });
        let collection = format!("servers/{}/os-instance-actions", instance.id);
        let last = actions.last().map(|a| a.request_id.as_str());
        if let Some(links) = next_links(&request, &collection, actions.len(), query.paging.limit, last) {
            body["links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let instance = self.instance(request.context()?, request.param("server_id"), request.version).await?;
        enforce_on("os_compute_api:os-instance-actions:show", request.context()?, target(&instance))?;
        strict_query(&request, 102, &[])?;
        let id = request.param("id");
        let absent = || ApiError::not_found(format!("Action {id} not found"));
        let request_id = RequestId::parse(id).ok_or_else(absent)?;
        let action = match self.api.store.get_action(instance.id, &request_id).await {
            Ok(action) => action,
            Err(StoreError::NotFound { .. }) => return Err(absent()),
            Err(other) => return Err(other.into()),
        };
        let context = request.context()?;
        let target = target(&instance);
        let sight = Sight {
            version: request.version,
            events: allows("os_compute_api:os-instance-actions:events", context, target),
            details: allows("os_compute_api:os-instance-actions:events:details", context, target),
        };
        let mut view = view::action(request.version, &action);
        if let Some(events) = view::events(&sight, &action, &instance.project_id) {
            view.insert("events".into(), Value::Array(events));
        }
        Ok(Response::json(StatusCode::OK, &json!({ "instanceAction": view })))
    }

    /// The server, deleted ones included from 2.21 on, if the caller may know of it.
    async fn instance(&self, context: &RequestContext, id: &str, version: Microversion) -> Result<Instance, ApiError> {
        let absent = || ApiError::not_found(format!("Instance {id} could not be found."));
        let key: InstanceId = id.parse().map_err(|_| absent())?;
        let instance = match self.api.store.get_instance(key).await {
            Ok(instance) => instance,
            Err(StoreError::NotFound { .. }) => return Err(absent()),
            Err(other) => return Err(other.into()),
        };
        let foreign = instance.project_id != context.project_id && !context.is_admin();
        if foreign || (instance.is_deleted() && version.before(21)) {
            return Err(absent());
        }
        Ok(instance)
    }
}

impl Resource for InstanceActions {
    fn name(&self) -> &'static str {
        "os-instance-actions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/servers/{server_id}/os-instance-actions", &self, Self::index),
            route(Method::GET, "/servers/{server_id}/os-instance-actions/{id}", &self, Self::show),
        ]
    }
}

fn target(instance: &Instance) -> Target<'_> {
    Target { project_id: Some(&instance.project_id), user_id: None }
}

fn answer(request: &Request, actions: &[ActionRecord]) -> Response {
    let views: Vec<_> = actions.iter().map(|a| view::action(request.version, a)).collect();
    Response::json(StatusCode::OK, &json!({ "instanceActions": views }))
}

/// What a list from 2.58 on may ask for.
struct ListQuery {
    paging: Paging,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl ListQuery {
    fn parse(request: &Request, max_limit: usize) -> Result<Self, ApiError> {
        let mut known = vec!["limit", "marker", "changes-since"];
        if request.version.at_least(66) {
            known.push("changes-before");
        }
        strict_query(request, 58, &known)?;
        single_query(request, &known)?;
        let paging = request.query.paging(max_limit)?;
        let time = |key: &str| request.query.get(key).map(|text| parse_time(key, text)).transpose();
        let since = time("changes-since")?;
        let before = if request.version.at_least(66) { time("changes-before")? } else { None };
        if let (Some(since), Some(before)) = (since, before)
            && since > before
        {
            return Err(ApiError::bad_request(
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        Ok(Self { paging, since, before })
    }

    /// Leaves the page that was asked for, of actions newest first.
    fn select(&self, actions: &mut Vec<ActionRecord>) -> Result<(), ApiError> {
        if let Some(marker) = &self.paging.marker {
            let position = actions.iter().position(|a| a.request_id.as_str() == marker);
            let position =
                position.ok_or_else(|| ApiError::bad_request(format!("Marker {marker} could not be found.")))?;
            actions.drain(..=position);
        }
        actions.retain(|a| {
            self.since.is_none_or(|since| a.updated >= since) && self.before.is_none_or(|before| a.updated <= before)
        });
        actions.truncate(self.paging.limit);
        Ok(())
    }
}

/// ISO 8601 with or without an offset; without one it is UTC (oslo_utils.timeutils.parse_isotime).
pub(super) fn parse_time(key: &str, text: &str) -> Result<Timestamp, ApiError> {
    let with_offset = text.parse::<Timestamp>().ok();
    let without = || Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    with_offset.or_else(without).ok_or_else(|| invalid_query(key, text, &format!("'{text}' is not a 'date-time'")))
}
