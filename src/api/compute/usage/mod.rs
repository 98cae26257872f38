//! Who used how much for how long: `/os-simple-tenant-usage` and `/os-instance_usage_audit_log`
//! (nova/api/openstack/compute/simple_tenant_usage.py, instance_usage_audit_log.py).

mod audit;
mod period;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::{InstanceId, ProjectId};
use nova_core::instance::Instance;
use nova_db::{Deleted, InstanceQuery};
use serde_json::{Value, json};

pub use audit::UsageAudit;
use period::Period;

use super::ComputeApi;
use super::input::strict_query;
use super::links::next_links;
use crate::api::policy::{Target, enforce, enforce_on};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// Servers that are read at once.
const AT_ONCE: usize = 1000;

/// The resource.
pub struct TenantUsage {
    api: Arc<ComputeApi>,
}

/// The servers of a page, and the link to the next.
struct Page {
    instances: Vec<Instance>,
    links: Option<Value>,
}

impl TenantUsage {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    /// Every project that used anything.
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-simple-tenant-usage:list", request.context()?)?;
        let mut known = vec!["start", "end", "detailed"];
        if request.version.at_least(40) {
            known.extend(["limit", "marker"]);
        }
        strict_query(&request, 75, &known)?;
        let period = Period::read(&request.query, self.api.clock.now())?;
        let detailed = request.query.get("detailed") == Some("1");
        let page = self.page(&request, &period, None, "os-simple-tenant-usage").await?;
        let mut projects: BTreeMap<&ProjectId, Vec<&Instance>> = BTreeMap::new();
        for instance in &page.instances {
            projects.entry(&instance.project_id).or_default().push(instance);
        }
        let now = self.api.clock.now();
        let usages: Vec<Value> = projects
            .into_iter()
            .map(|(project, instances)| view::usage(project, &instances, &period, now, detailed))
            .collect();
        let mut body = json!({ "tenant_usages": usages });
        if let Some(links) = page.links {
            body["tenant_usages_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    /// One project, server by server.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let project = ProjectId::new(request.param("id"));
        let target = Target { project_id: Some(&project), user_id: None };
        enforce_on("os_compute_api:os-simple-tenant-usage:show", request.context()?, target)?;
        let mut known = vec!["start", "end"];
        if request.version.at_least(40) {
            known.extend(["limit", "marker"]);
        }
        strict_query(&request, 75, &known)?;
        let period = Period::read(&request.query, self.api.clock.now())?;
        let place = format!("os-simple-tenant-usage/{project}");
        let page = self.page(&request, &period, Some(&project), &place).await?;
        let instances: Vec<&Instance> = page.instances.iter().collect();
        // A project without servers has no usage, not one of nothing.
        let usage = match instances.is_empty() {
            true => json!({}),
            false => view::usage(&project, &instances, &period, self.api.clock.now(), true),
        };
        let mut body = json!({ "tenant_usage": usage });
        if let Some(links) = page.links {
            body["tenant_usage_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    /// Servers that ran in the period, by project and id; from 2.40 on page by page.
    async fn page(
        &self,
        request: &Request,
        period: &Period,
        project: Option<&ProjectId>,
        place: &str,
    ) -> Result<Page, ApiError> {
        let mut instances = self.ran_in(period, project).await?;
        instances.sort_by(|a, b| (&a.project_id, a.id).cmp(&(&b.project_id, b.id)));
        if request.version.before(40) {
            return Ok(Page { instances, links: None });
        }
        let paging = request.query.paging(self.api.options.get().max_limit)?;
        if let Some(marker) = &paging.marker {
            let wanted: Option<InstanceId> = marker.parse().ok();
            let position = instances.iter().position(|instance| Some(instance.id) == wanted);
            let position = position.ok_or_else(|| ApiError::bad_request(format!("marker [{marker}] not found")))?;
            instances.drain(..=position);
        }
        instances.truncate(paging.limit);
        let last = instances.last().map(|instance| instance.id.to_string());
        let links = next_links(request, place, instances.len(), paging.limit, last.as_deref());
        Ok(Page { instances, links })
    }

    /// Live servers, and those that were deleted since the period began.
    async fn ran_in(&self, period: &Period, project: Option<&ProjectId>) -> Result<Vec<Instance>, ApiError> {
        let mut all = Vec::new();
        for (deleted, changed_since) in [(Deleted::No, None), (Deleted::Only, Some(period.start))] {
            let project_id = project.cloned();
            let limit = Some(AT_ONCE);
            let mut query = InstanceQuery { project_id, deleted, changed_since, limit, ..InstanceQuery::default() };
            loop {
                let batch = self.api.store.list_instances(&query).await?;
                let full = batch.len() == AT_ONCE;
                query.after = batch.last().map(|last| last.id);
                all.extend(batch.into_iter().filter(|instance| period.saw(instance)));
                if !full {
                    break;
                }
            }
        }
        // One that was deleted between the two questions is in both.
        all.sort_by_key(|instance| instance.id);
        all.dedup_by_key(|instance| instance.id);
        Ok(all)
    }
}

impl Resource for TenantUsage {
    fn name(&self) -> &'static str {
        "os-simple-tenant-usage"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-simple-tenant-usage", &self, Self::index),
            route(Method::GET, "/os-simple-tenant-usage/{id}", &self, Self::show),
        ]
    }
}
