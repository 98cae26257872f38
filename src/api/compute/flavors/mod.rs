//! `/flavors`: the sizes in which servers are sold (nova/api/openstack/compute/flavors.py).

mod input;
mod list;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;
use nova_db::{Kind, StoreError};
use serde_json::json;

use self::input::Rules;
use self::list::ListQuery;
use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::compute::links::next_links;
use crate::api::microversion::since;
use crate::api::policy::{self, Target};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// May the caller see extra specs inside of flavors?
const EXTRA_SPECS: &str = "os_compute_api:os-flavor-extra-specs:index";

/// How often a change of a flavor is tried when somebody else changes it at the same time.
const ATTEMPTS: usize = 5;

/// The resource.
pub struct Flavors {
    api: Arc<ComputeApi>,
}

impl Flavors {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, "flavors").await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, "flavors/detail").await
    }

    async fn list(&self, request: Request, collection: &str) -> HandlerResult {
        let context = request.context()?;
        let query = ListQuery::parse(&request, context, self.api.options.get().max_limit)?;
        let page = query.select(self.api.store.list_flavors().await?, context)?;
        let specs = policy::allows(EXTRA_SPECS, context, Target::default());
        let views: Vec<_> = if collection == "flavors" {
            page.iter().map(|f| view::brief(request.version, &request.base_url, f)).collect()
        } else {
            page.iter().map(|f| view::full(request.version, &request.base_url, f, specs)).collect()
        };
        let mut body = json!({ "flavors": views });
        let last = page.last().map(|f| f.id.as_str());
        if let Some(links) = next_links(&request, collection, page.len(), query.limit(), last) {
            body["flavors_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 102, &[])?;
        let context = request.context()?;
        let flavor = visible(&self.api, context, request.param("id")).await?;
        Ok(self.answer(&request, context, &flavor))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-flavor-manage:create", request.context()?)?;
        let body = request.json().await?;
        let rules = Rules { version: request.version, lenient: request.lenient };
        let flavor = input::create(&body, rules, &*self.api.entropy, self.api.clock.now())?;
        let flavor = self.api.store.create_flavor(flavor).await.map_err(taken)?;
        Ok(self.answer(&request, request.context()?, &flavor))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-flavor-manage:update", request.context()?)?;
        let body = request.json().await?;
        let description = input::update(&body, request.lenient)?;
        let flavor = change(&self.api, request.param("id"), |flavor| {
            flavor.description = description.clone();
            Ok(())
        })
        .await?;
        Ok(self.answer(&request, request.context()?, &flavor))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-flavor-manage:delete", request.context()?)?;
        let id = FlavorId::new(request.param("id"));
        self.api.store.delete_flavor(&id).await.map_err(|e| missing(e, id.as_str()))?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    fn answer(&self, request: &Request, context: &RequestContext, flavor: &Flavor) -> Response {
        let specs = policy::allows(EXTRA_SPECS, context, Target::default());
        let view = view::full(request.version, &request.base_url, flavor, specs);
        Response::json(StatusCode::OK, &json!({ "flavor": view }))
    }
}

impl Resource for Flavors {
    fn name(&self) -> &'static str {
        "flavors"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/flavors", &self, Self::index),
            route(Method::GET, "/flavors/detail", &self, Self::detail),
            route(Method::GET, "/flavors/{id}", &self, Self::show),
            route(Method::POST, "/flavors", &self, Self::create),
            route(Method::PUT, "/flavors/{id}", &self, Self::update).versions(since(55)),
            route(Method::DELETE, "/flavors/{id}", &self, Self::delete),
        ]
    }
}

/// The flavor, if this caller may know of it.
///
/// # Errors
/// 404 with Nova's text.
pub async fn visible(api: &ComputeApi, context: &RequestContext, id: &str) -> Result<Flavor, ApiError> {
    let flavor = api.store.get_flavor(&FlavorId::new(id)).await.map_err(|e| missing(e, id))?;
    if context.is_admin() || flavor.visible_to(&context.project_id) { Ok(flavor) } else { Err(not_found(id)) }
}

/// Reads, changes and writes a flavor, and does so again when someone else was faster.
///
/// # Errors
/// 404; 409 after several lost races; what the change itself says.
pub async fn change(
    api: &ComputeApi,
    id: &str,
    mut with: impl FnMut(&mut Flavor) -> Result<(), ApiError>,
) -> Result<Flavor, ApiError> {
    let key = FlavorId::new(id);
    let mut attempt = 1;
    loop {
        let mut flavor = api.store.get_flavor(&key).await.map_err(|e| missing(e, id))?;
        with(&mut flavor)?;
        flavor.updated_at = Some(api.clock.now());
        match api.store.update_flavor(flavor).await {
            Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            other => return other.map_err(|e| missing(e, id)),
        }
    }
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Flavor {id} could not be found."))
}

fn missing(error: StoreError, id: &str) -> ApiError {
    match error {
        StoreError::NotFound { kind: Kind::Flavor, .. } => not_found(id),
        other => other.into(),
    }
}

fn taken(error: StoreError) -> ApiError {
    match error {
        StoreError::Duplicate { field: "id", value, .. } => {
            ApiError::conflict(format!("Flavor with ID {value} already exists."))
        }
        StoreError::Duplicate { value, .. } => ApiError::conflict(format!("Flavor with name {value} already exists.")),
        other => other.into(),
    }
}
