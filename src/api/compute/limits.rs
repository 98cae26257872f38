//! `/limits`: what a project may use and what it does use (nova/api/openstack/compute/limits.py and views/limits.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::ProjectId;
use nova_core::quota::Usage;
use serde_json::{Map, Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::compute::quotas::InForce;
use crate::api::policy::{Target, enforce, enforce_on};
use crate::api::{HandlerResult, Microversion, Request, Resource, Response, Route, route};

/// The resource.
pub struct LimitsResource {
    api: Arc<ComputeApi>,
}

impl LimitsResource {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:limits", context)?;
        // `reserved` has had no effect for long, but clients send it.
        strict_query(&request, 75, &["reserved", "tenant_id"])?;
        let project = match request.query.get("tenant_id") {
            None => context.project_id.clone(),
            Some(id) => {
                let project = ProjectId::new(id);
                let target = Target { project_id: Some(&project), user_id: None };
                enforce_on("os_compute_api:limits:other_project", context, target)?;
                project
            }
        };
        let usage = self.api.store.usage(&project).await?;
        let groups = self.api.store.count_server_groups(&project).await?;
        let quotas = self.api.quotas_in_force(&project, None).await?;
        let absolute = absolute(request.version, &quotas, &usage, groups);
        Ok(Response::json(StatusCode::OK, &json!({"limits": {"rate": [], "absolute": absolute}})))
    }
}

impl Resource for LimitsResource {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::GET, "/limits", &self, Self::index)]
    }
}

/// The limits that this version shows; -1 is "without limit". Those of networks until 2.35 are what nova-network had once,
/// and never in use.
fn absolute(version: Microversion, quotas: &InForce, usage: &Usage, groups: u64) -> Map<String, Value> {
    let limit = |name: &str| quotas.get(name).map_or(json!(-1), |limit| json!(limit));
    let mut rows = vec![
        ("maxTotalInstances", limit("instances")),
        ("maxTotalCores", limit("cores")),
        ("maxTotalRAMSize", limit("ram")),
        ("maxTotalKeypairs", limit("key_pairs")),
        ("maxServerMeta", limit("metadata_items")),
        ("maxServerGroups", limit("server_groups")),
        ("maxServerGroupMembers", limit("server_group_members")),
        ("totalInstancesUsed", json!(usage.instances)),
        ("totalCoresUsed", json!(usage.cores)),
        ("totalRAMUsed", json!(usage.ram)),
        ("totalServerGroupsUsed", json!(groups)),
    ];
    if version.before(57) {
        rows.push(("maxPersonality", limit("injected_files")));
        rows.push(("maxPersonalitySize", limit("injected_file_content_bytes")));
    }
    if version.before(39) {
        rows.push(("maxImageMeta", limit("metadata_items")));
    }
    if version.before(36) {
        rows.push(("maxTotalFloatingIps", limit("floating_ips")));
        rows.push(("totalFloatingIpsUsed", json!(0)));
        rows.push(("maxSecurityGroups", limit("security_groups")));
        rows.push(("totalSecurityGroupsUsed", json!(0)));
        rows.push(("maxSecurityGroupRules", limit("security_group_rules")));
    }
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use nova_core::quota::{QuotaLimits, QuotaOwner};

    use super::*;
    use crate::api::compute::ComputeOptions;
    use crate::api::compute::test_support::{ADMIN, Bench, DEMO, keys};

    #[tokio::test]
    async fn each_version_shows_its_limits() {
        let bench = Bench::new(LimitsResource::new);
        let at = async |minor: u16| bench.get(DEMO, minor, "/limits").await["limits"]["absolute"].clone();
        let latest = [
            "maxServerGroupMembers",
            "maxServerGroups",
            "maxServerMeta",
            "maxTotalCores",
            "maxTotalInstances",
            "maxTotalKeypairs",
            "maxTotalRAMSize",
            "totalCoresUsed",
            "totalInstancesUsed",
            "totalRAMUsed",
            "totalServerGroupsUsed",
        ];
        assert_eq!(keys(&at(57).await), latest);
        assert_eq!(keys(&at(104).await), latest);
        assert_eq!(at(56).await.as_object().unwrap().len(), 13);
        assert_eq!(at(39).await.as_object().unwrap().len(), 13);
        assert_eq!(at(38).await["maxImageMeta"], 128);
        assert_eq!(at(36).await.as_object().unwrap().len(), 14);
        assert_eq!(at(35).await.as_object().unwrap().len(), 19);
        assert!(at(1).await.as_object().unwrap().values().all(Value::is_i64));
        assert_eq!(bench.get(DEMO, 1, "/limits").await["limits"]["rate"], json!([]));
    }

    #[tokio::test]
    async fn usage_is_that_of_the_project_and_others_are_for_administrators() {
        let bench = Bench::new(LimitsResource::new);
        bench.instance(DEMO, None).await;
        let used = async |caller, query: &str| {
            let limits = bench.get(caller, 75, &format!("/limits{query}")).await["limits"]["absolute"].clone();
            (limits["totalInstancesUsed"].clone(), limits["totalCoresUsed"].clone(), limits["totalRAMUsed"].clone())
        };
        let one = (json!(1), json!(2), json!(512));
        assert_eq!(used(DEMO, "").await, one);
        assert_eq!(used(DEMO, "?reserved=1").await, one);
        assert_eq!(used(ADMIN, "").await.0, 0);
        assert_eq!(used(ADMIN, "?tenant_id=p-demo").await, one);
        assert_eq!(bench.refused(DEMO, 1, "GET /limits?tenant_id=p-admin", Value::Null).await.0, 403);
        assert_eq!(bench.refused(DEMO, 75, "GET /limits?foo=1", Value::Null).await.0, 400);
        bench.get(DEMO, 74, "/limits?foo=1").await;
    }

    #[tokio::test]
    async fn no_limit_is_minus_one_and_set_ones_are_shown() {
        let options = ComputeOptions { key_pairs: None, ..ComputeOptions::default() };
        let bench = Bench::with_options(options, LimitsResource::new);
        let set = QuotaLimits::from([("cores".to_owned(), 7), ("ram".to_owned(), -1)]);
        bench.api.store.set_quotas(QuotaOwner::Project(ProjectId::new("p-demo")), set).await.unwrap();
        let limits = bench.get(DEMO, 104, "/limits").await["limits"]["absolute"].clone();
        assert_eq!(
            (&limits["maxTotalKeypairs"], &limits["maxTotalCores"], &limits["maxTotalRAMSize"]),
            (&json!(-1), &json!(7), &json!(-1))
        );
        assert_eq!(bench.get(ADMIN, 104, "/limits").await["limits"]["absolute"]["maxTotalCores"], 20);
    }
}
