//! Records of moves: `/os-migrations` and `/servers/{id}/migrations` (nova/api/openstack/compute/migrations.py,
//! server_migrations.py).

mod of_server;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::Timestamp;
use nova_core::ids::{HostName, InstanceId, MigrationId, ProjectId, UserId};
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_db::{MigrationQuery, StoreError};
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::{invalid_query, single_query, strict_query};
use crate::api::compute::instance_actions::parse_time;
use crate::api::compute::links::next_links;
use crate::api::microversion::since;
use crate::api::policy::{Target, allows, enforce_on};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub struct Migrations {
    api: Arc<ComputeApi>,
}

impl Migrations {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let own = Target { project_id: Some(&context.project_id), user_id: None };
        enforce_on("os_compute_api:os-migrations:index", context, own)?;
        let mut query = self.query(&request)?;
        let everybody = allows("os_compute_api:os-migrations:index:all_projects", context, Target::default());
        if !everybody {
            match &query.project_id {
                Some(project) if *project != context.project_id => return Ok(self.page(&request, &[], None)),
                _ => query.project_id = Some(context.project_id.clone()),
            }
        }
        let found = match self.api.store.list_migrations(&query).await {
            Ok(found) => found,
            Err(StoreError::NotFound { id, .. }) => {
                return Err(ApiError::BadRequest(format!("Marker {id} could not be found.")));
            }
            Err(error) => return Err(error.into()),
        };
        let limit = query.limit.filter(|_| request.version.at_least(59));
        Ok(self.page(&request, &found, limit))
    }

    fn page(&self, request: &Request, found: &[Migration], limit: Option<usize>) -> Response {
        let hosts = request
            .context()
            .is_ok_and(|context| allows("os_compute_api:os-migrations:index:host", context, Target::default()));
        let views: Vec<Value> = found.iter().map(|one| view::of_all(request, one, hosts)).collect();
        let mut body = json!({"migrations": views});
        if let Some(limit) = limit {
            let last = found.last().map(|one| one.uuid.to_string());
            if let Some(links) = next_links(request, "os-migrations", found.len(), limit, last.as_deref()) {
                body["migrations_links"] = links;
            }
        }
        Response::json(StatusCode::OK, &body)
    }

    /// What the caller asks for. An unknown word for status or type fits nothing, as in Nova.
    fn query(&self, request: &Request) -> Result<MigrationQuery, ApiError> {
        let version = request.version;
        let mut known = vec!["hidden", "host", "instance_uuid", "source_compute", "status", "migration_type"];
        if version.at_least(59) {
            known.extend(["limit", "marker", "changes-since"]);
        }
        if version.at_least(66) {
            known.push("changes-before");
        }
        if version.at_least(80) {
            known.extend(["user_id", "project_id"]);
        }
        strict_query(request, 59, &known)?;
        if version.at_least(59) {
            single_query(request, &known)?;
        }
        let given = |key: &str| request.query.get(key).filter(|_| known.contains(&key));
        let mut query = MigrationQuery {
            host: given("host").map(HostName::new),
            source_compute: given("source_compute").map(HostName::new),
            project_id: given("project_id").map(ProjectId::from),
            user_id: given("user_id").map(UserId::from),
            ..MigrationQuery::default()
        };
        if let Some(word) = given("status") {
            query.statuses = Some(MigrationStatus::ALL.iter().copied().filter(|s| s.as_str() == word).collect());
        }
        if let Some(word) = given("migration_type") {
            query.migration_type = MigrationType::ALL.iter().copied().find(|kind| kind.as_str() == word);
            if query.migration_type.is_none() {
                query.statuses = Some(Vec::new());
            }
        }
        if let Some(id) = given("instance_uuid") {
            match id.parse::<InstanceId>() {
                Ok(id) => query.instance = Some(id),
                Err(_) if version.at_least(59) => {
                    return Err(invalid_query("instance_uuid", id, &format!("'{id}' is not a 'uuid'")));
                }
                Err(_) => query.statuses = Some(Vec::new()),
            }
        }
        if version.at_least(59) {
            let paging = request.query.paging(self.api.options.get().max_limit)?;
            query.limit = Some(paging.limit);
            if let Some(marker) = paging.marker {
                let missing = || ApiError::BadRequest(format!("Marker {marker} could not be found."));
                query.after = Some(marker.parse::<MigrationId>().map_err(|_| missing())?);
            }
        } else {
            query.limit = Some(self.api.options.get().max_limit);
        }
        let time = |key: &str| -> Result<Option<Timestamp>, ApiError> {
            given(key).map(|text| parse_time(key, text)).transpose()
        };
        query.changed_since = time("changes-since")?;
        query.changed_before = time("changes-before")?;
        if let (Some(since), Some(before)) = (query.changed_since, query.changed_before)
            && since > before
        {
            let text = "The value of changes-since must be less than or equal to changes-before.";
            return Err(ApiError::bad_request(text));
        }
        Ok(query)
    }
}

impl Resource for Migrations {
    fn name(&self) -> &'static str {
        "os-migrations"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/servers/{server_id}/migrations";
        const ONE: &str = "/servers/{server_id}/migrations/{id}";
        const ACTION: &str = "/servers/{server_id}/migrations/{id}/action";
        vec![
            route(Method::GET, "/os-migrations", &self, Self::index),
            route(Method::GET, ALL, &self, Self::index_of_server).versions(since(23)),
            route(Method::GET, ONE, &self, Self::show_of_server).versions(since(23)),
            route(Method::DELETE, ONE, &self, Self::abort).versions(since(24)),
            route(Method::POST, ACTION, &self, Self::force_complete).versions(since(22)),
        ]
    }
}
