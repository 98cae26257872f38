//! `GET /servers` and `GET /servers/detail`: filtered, sorted, page by page.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use nova_core::context::RequestContext;
use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_db::{InstanceQuery, StoreError};
use serde_json::{Value, json};

use super::Servers;
use super::filters::Filters;
use super::networks::ServerNetworks;
use super::show::Shown;
use super::sorting::sorting;
use super::view::{self, Place};
use crate::api::compute::links;
use crate::api::{ApiError, HandlerResult, Paging, Request, Response, policy};

impl Servers {
    pub(super) async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:servers:index", context)?;
        let (servers, limit) = self.page(&request, context, "os_compute_api:servers:index:get_all_tenants").await?;
        let shown = servers.iter().map(|server| view::summary(server, &request.base_url)).collect();
        Ok(answer(&request, "servers", &servers, shown, limit))
    }

    pub(super) async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:servers:detail", context)?;
        let (servers, limit) = self.page(&request, context, "os_compute_api:servers:detail:get_all_tenants").await?;
        let hosts = self.api.host_states(&request, context).await?;
        let hosts = hosts.as_ref();
        let (networks, none) = (self.api.networks_of(context, &servers).await?, ServerNetworks::default());
        let show = |server: &Instance| {
            let networks = networks.get(&server.id).unwrap_or(&none);
            self.api.rendered(&request, context, server, Shown { place: Place::List, hosts, group: None, networks })
        };
        let shown = servers.iter().map(show).collect();
        Ok(answer(&request, "servers/detail", &servers, shown, limit))
    }

    /// The servers of the page that is asked for, and how many it could hold.
    async fn page(
        &self,
        request: &Request,
        context: &RequestContext,
        all_tenants_rule: &str,
    ) -> Result<(Vec<Instance>, usize), ApiError> {
        let mut filters = Filters::read(request, context, all_tenants_rule)?;
        let Paging { limit, marker } = request.query.paging(self.api.options.get().max_limit)?;
        filters.query.sort = sorting(&request.query, context, request.version)?;
        if let Some(marker) = marker {
            filters.query.after = Some(self.marker(&filters.query, &marker).await?);
        }
        if filters.nothing || limit == 0 {
            return Ok((Vec::new(), limit));
        }
        let servers = self.collect(context, filters, limit).await?;
        Ok((servers, limit))
    }

    /// The marker must be a server that the same list could show.
    async fn marker(&self, query: &InstanceQuery, text: &str) -> Result<InstanceId, ApiError> {
        let missing = || ApiError::BadRequest(format!("marker [{text}] not found"));
        let id: InstanceId = text.parse().map_err(|_| missing())?;
        let instance = match self.api.store.get_instance(id).await {
            Ok(instance) => instance,
            Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let own = query.project_id.as_ref().is_none_or(|project| *project == instance.project_id);
        if own { Ok(id) } else { Err(missing()) }
    }

    /// Reads on until the page is full: what the store cannot select by is looked at here.
    async fn collect(
        &self,
        context: &RequestContext,
        filters: Filters,
        limit: usize,
    ) -> Result<Vec<Instance>, ApiError> {
        let mut servers = Vec::new();
        let mut query = filters.query.clone();
        query.limit = Some(if filters.exact() { limit } else { self.api.options.get().max_limit });
        loop {
            let batch = self.api.store.list_instances(&query).await?;
            let more = Some(batch.len()) == query.limit;
            query.after = batch.last().map(|server| server.id);
            let mut passed: Vec<Instance> = batch.into_iter().filter(|server| filters.accepts(server)).collect();
            if let Some(addresses) = &filters.addresses {
                let networks = self.api.networks_of(context, &passed).await?;
                passed.retain(|server| networks.get(&server.id).is_some_and(|of| addresses.accept(of)));
            }
            servers.extend(passed);
            if servers.len() >= limit || !more {
                servers.truncate(limit);
                return Ok(servers);
            }
        }
    }
}

fn answer(request: &Request, collection: &str, servers: &[Instance], shown: Vec<Value>, limit: usize) -> Response {
    let last = servers.last().map(|server| server.id.to_string());
    let mut body = json!({"servers": shown});
    if let Some(next) = links::next_links(request, collection, servers.len(), limit, last.as_deref()) {
        body["servers_links"] = next;
    }
    Response::json(StatusCode::OK, &body)
}

/// A time in one of the forms of ISO 8601 that clients send; without a zone it is UTC.
pub(in crate::api::compute) fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // A `+` that was not encoded arrives as a blank.
    let fixed = text.rfind(' ').filter(|at| *at > 15).map(|at| format!("{}+{}", &text[..at], &text[at + 1..]));
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let read = |text: &str| {
        let stamp = text.parse::<Timestamp>().ok();
        stamp
            .or_else(|| text.parse::<DateTime>().ok().and_then(utc))
            .or_else(|| text.parse::<Date>().ok().and_then(|date| utc(date.at(0, 0, 0, 0))))
    };
    read(text).or_else(|| fixed.and_then(|text| read(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_forms_that_clients_send() {
        let time: Timestamp = "2012-01-02T03:04:05Z".parse().unwrap();
        for text in [
            "2012-01-02T03:04:05Z",
            "2012-01-02T03:04:05",
            "2012-01-02 03:04:05",
            "2012-01-02T04:04:05+01:00",
            "2012-01-02T04:04:05 01:00",
        ] {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        assert!(parse_time("2012-01-02").is_some());
        for bad in ["", "yesterday", "2012-13-01T00:00:00Z", "2005-01-01T12:34", "1é"] {
            assert!(parse_time(bad).is_none() || bad == "2005-01-01T12:34", "{bad}");
        }
    }
}
