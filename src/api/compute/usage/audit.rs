//! `/os-instance_usage_audit_log`: which hosts sent their usage notifications of the last whole month. Hosts send none, as
//! in a Nova whose `instance_usage_audit` is off: the log is empty, and says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use nova_core::ids::HostName;
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::compute::services::COMPUTE;
use crate::api::policy::enforce;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub struct UsageAudit {
    api: Arc<ComputeApi>,
}

impl UsageAudit {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-instance-usage-audit-log:list", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let log = self.log(now_of(self.api.clock.now())).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "instance_usage_audit_logs": log })))
    }

    /// Of the last period that had ended at that time.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-instance-usage-audit-log:show", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let text = request.param("id");
        let shown: String = text.chars().take(64).collect();
        let before = parse(text).ok_or_else(|| ApiError::BadRequest(format!("Invalid timestamp for date {shown}")))?;
        let log = self.log(before).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "instance_usage_audit_log": log })))
    }

    async fn log(&self, before: DateTime) -> Result<Value, ApiError> {
        let services = self.api.store.list_services().await?;
        let hosts: BTreeSet<&HostName> =
            services.iter().filter(|service| service.binary == COMPUTE).map(|service| &service.host).collect();
        let (begin, end) = last_month(before);
        let done = if hosts.is_empty() { "ALL".to_owned() } else { format!("0 of {}", hosts.len()) };
        Ok(json!({
            "period_beginning": format!("{begin} 00:00:00"),
            "period_ending": format!("{end} 00:00:00"),
            "num_hosts": hosts.len(),
            "num_hosts_done": 0,
            "num_hosts_running": 0,
            "num_hosts_not_run": hosts.len(),
            "hosts_not_run": hosts,
            "total_instances": 0,
            "total_errors": 0,
            "overall_status": format!("{done} hosts done. 0 errors."),
            "log": {},
        }))
    }
}

impl Resource for UsageAudit {
    fn name(&self) -> &'static str {
        "os-instance_usage_audit_log"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-instance_usage_audit_log", &self, Self::index),
            route(Method::GET, "/os-instance_usage_audit_log/{id}", &self, Self::show),
        ]
    }
}

fn now_of(now: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(now)
}

/// `2026-11-22 08:00:00`, with or without a fraction.
fn parse(text: &str) -> Option<DateTime> {
    let format = if text.contains('.') { "%Y-%m-%d %H:%M:%S.%f" } else { "%Y-%m-%d %H:%M:%S" };
    DateTime::strptime(format, text).ok()
}

/// The whole month before that of this time: `instance_usage_audit_period` has no other value here.
fn last_month(before: DateTime) -> (Date, Date) {
    let end = before.date().first_of_month();
    // The first month of all has none before it.
    let begin = end.yesterday().map_or(end, Date::first_of_month);
    (begin, end)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_month_before_is_whole() {
        let of = |text: &str| last_month(parse(text).unwrap());
        let (begin, end) = of("2026-01-31 08:00:00");
        assert_eq!((begin.to_string(), end.to_string()), ("2025-12-01".to_owned(), "2026-01-01".to_owned()));
        of("-9999-01-01 00:00:00.5");
        assert_eq!(parse("2026-01-31"), None);
        assert_eq!(parse("yesterday"), None);
    }
}
