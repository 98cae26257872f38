//! `/os-quota-sets/{project}`, for the project or with `user_id` for one of its users.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::{ProjectId, UserId};
use nova_core::quota::{QuotaLimits, QuotaOwner};
use nova_db::Page;
use serde_json::{Map, Value, json};

use super::{default_class, defaults, in_sets, read, view};
use crate::api::compute::ComputeApi;
use crate::api::compute::input::{single_query, strict_query, under};
use crate::api::policy::{Target, enforce_on};
use crate::api::validate::{Text, invalid, text};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// What of each resource is taken.
type InUse = BTreeMap<&'static str, u64>;

/// The resource.
pub struct QuotaSets {
    api: Arc<ComputeApi>,
}

/// Whose quotas a request is about.
struct Whose {
    project: ProjectId,
    user: Option<UserId>,
}

impl Whose {
    fn owner(&self) -> QuotaOwner {
        match &self.user {
            Some(user) => QuotaOwner::User(self.project.clone(), user.clone()),
            None => QuotaOwner::Project(self.project.clone()),
        }
    }
}

impl QuotaSets {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let whose = self.whose(&request, "os_compute_api:os-quota-sets:show").await?;
        let quotas = self.api.quotas_in_force(&whose.project, whose.user.as_ref()).await?;
        Ok(answer(Some(&whose.project), view(in_sets(request.version), quotas.shown())))
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        let whose = self.whose(&request, "os_compute_api:os-quota-sets:detail").await?;
        let quotas = self.api.quotas_in_force(&whose.project, whose.user.as_ref()).await?;
        let in_use = self.in_use(&whose).await?;
        let of = |name: &str| {
            let limit = quotas.shown().get(name).unwrap_or(&-1);
            json!({"limit": limit, "in_use": in_use.get(name).unwrap_or(&0), "reserved": 0})
        };
        let body = in_sets(request.version).map(|resource| (resource.name.to_owned(), of(resource.name))).collect();
        Ok(answer(Some(&whose.project), body))
    }

    /// What projects get for whom nothing is set.
    async fn defaults(self: Arc<Self>, request: Request) -> HandlerResult {
        let project = ProjectId::new(request.param("id"));
        let target = Target { project_id: Some(&project), user_id: None };
        enforce_on("os_compute_api:os-quota-sets:defaults", request.context()?, target)?;
        self.api.verify_project(&project).await?;
        let class = self.api.store.get_quotas(&[default_class()]).await?.pop().unwrap_or_default();
        let all = defaults(&self.api.options.get(), &class);
        Ok(answer(Some(&project), view(in_sets(request.version), &all)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let whose = self.whose(&request, "os_compute_api:os-quota-sets:update").await?;
        let mut fields = under(&body, "quota_set", request.lenient)?;
        let force = fields.boolean("force")?.unwrap_or(false);
        let wanted = read(&mut fields, in_sets(request.version))?;
        fields.finish()?;
        if !force {
            self.check(&whose, &wanted).await?;
        }
        if !wanted.is_empty() {
            self.api.store.set_quotas(whose.owner(), wanted).await?;
        }
        let quotas = self.api.quotas_in_force(&whose.project, whose.user.as_ref()).await?;
        // Without the id: as it always was.
        Ok(answer(None, view(in_sets(request.version), quotas.shown())))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let whose = self.whose(&request, "os_compute_api:os-quota-sets:delete").await?;
        self.api.store.delete_quotas(whose.owner()).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    /// Whose quotas, if the rule lets the caller at them and there is such a project.
    async fn whose(&self, request: &Request, rule: &str) -> Result<Whose, ApiError> {
        let project = ProjectId::new(request.param("id"));
        let target = Target { project_id: Some(&project), user_id: None };
        enforce_on(rule, request.context()?, target)?;
        strict_query(request, 75, &["user_id"])?;
        if request.version.at_least(75) {
            single_query(request, &["user_id"])?;
        }
        let bounded = |name: &'static str, id: &str| {
            let id = Value::String(id.to_owned());
            let read = text(name, &id, Text::new(1, 255))?;
            match read.chars().any(char::is_control) {
                true => Err(invalid(name, &id, "it must consist of printable characters")),
                false => Ok(read.to_owned()),
            }
        };
        bounded("id", project.as_str())?;
        let user = request.query.get("user_id").filter(|id| !id.is_empty());
        let user = user.map(|id| bounded("user_id", id)).transpose()?.map(UserId::new);
        self.api.verify_project(&project).await?;
        Ok(Whose { project, user })
    }

    /// What is taken of what is counted. Key pairs and members of groups are counted per user and group, and always shown
    /// as none.
    async fn in_use(&self, whose: &Whose) -> Result<InUse, ApiError> {
        let store = &self.api.store;
        let (usage, groups) = match &whose.user {
            None => (store.usage(&whose.project).await?, store.count_server_groups(&whose.project).await?),
            Some(user) => {
                let groups = store.list_server_groups(Some(&whose.project), Page::default()).await?;
                let own = groups.iter().filter(|group| group.user_id == *user).count();
                (store.user_usage(&whose.project, user).await?, own as u64)
            }
        };
        let rows =
            [("instances", usage.instances), ("cores", usage.cores), ("ram", usage.ram), ("server_groups", groups)];
        Ok(rows.into_iter().collect())
    }

    /// A limit must leave room for what is taken; a project's for those of its users, and a user's within the project's
    /// (nova/api/openstack/compute/quota_sets.py, `_validate_quota_limit`).
    async fn check(&self, whose: &Whose, wanted: &QuotaLimits) -> Result<(), ApiError> {
        let in_use = self.in_use(whose).await?;
        let users = match &whose.user {
            Some(_) => Vec::new(),
            None => self.api.store.list_user_quotas(&whose.project).await?,
        };
        let project = match &whose.user {
            Some(_) => Some(self.api.quotas_in_force(&whose.project, None).await?),
            None => None,
        };
        for (name, limit) in wanted {
            let given =
                users.iter().filter_map(|(_, limits)| limits.get(name)).filter_map(|own| u64::try_from(*own).ok());
            let least = in_use.get(name.as_str()).copied().unwrap_or(0).max(given.sum());
            let most = project.as_ref().and_then(|project| project.of_project(name));
            check_limit(name, *limit, least, most)?;
        }
        Ok(())
    }
}

/// −1 is more than any number.
fn check_limit(name: &str, limit: i64, least: u64, most: Option<u64>) -> Result<(), ApiError> {
    let wanted = u64::try_from(limit).ok();
    if wanted.is_some_and(|wanted| wanted < least) {
        return Err(ApiError::BadRequest(format!(
            "Quota limit {limit} for {name} must be greater than or equal to already used and reserved {least}."
        )));
    }
    match most {
        Some(most) if wanted.is_none_or(|wanted| wanted > most) => {
            Err(ApiError::BadRequest(format!("Quota limit {limit} for {name} must be less than or equal to {most}.")))
        }
        _ => Ok(()),
    }
}

impl Resource for QuotaSets {
    fn name(&self) -> &'static str {
        "os-quota-sets"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ONE: &str = "/os-quota-sets/{id}";
        vec![
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
            route(Method::GET, "/os-quota-sets/{id}/detail", &self, Self::detail),
            route(Method::GET, "/os-quota-sets/{id}/defaults", &self, Self::defaults),
        ]
    }
}

fn answer(project: Option<&ProjectId>, mut body: Map<String, Value>) -> Response {
    if let Some(project) = project {
        body.insert("id".to_owned(), json!(project));
    }
    Response::json(StatusCode::OK, &json!({ "quota_set": body }))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn limits_are_held_to_what_is_taken_and_given() {
        assert!(check_limit("cores", 4, 4, None).is_ok());
        assert!(check_limit("cores", -1, 4, None).is_ok());
        let error = check_limit("cores", 3, 4, None).unwrap_err().to_string();
        assert_eq!(error, "Quota limit 3 for cores must be greater than or equal to already used and reserved 4.");
        let error = check_limit("ram", 9, 0, Some(8)).unwrap_err().to_string();
        assert_eq!(error, "Quota limit 9 for ram must be less than or equal to 8.");
        assert!(check_limit("ram", -1, 0, Some(8)).is_err());
        assert!(check_limit("ram", 8, 0, Some(8)).is_ok());
    }
}
