//! `/os-aggregates`: named sets of hosts, and the availability zones that they make
//! (nova/api/openstack/compute/aggregates.py and nova/compute/api.py, `AggregateAPI`).

mod input;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::aggregate::{Aggregate, AggregateProblem, ZONE_KEY};
use nova_core::context::RequestContext;
use nova_core::contracts::ImageServiceError;
use nova_core::error::chain;
use nova_core::ids::{AggregateId, HostName};
use nova_core::image::ImageMeta;
use nova_core::rpc::conductor::CacheImageRequest;
use nova_core::rpc::scheduler::{AggregateNews, HostsChangedRequest};
use nova_db::{AggregateChange, Kind, ServiceQuery, StoreError};
use serde_json::{Value, json};

use self::input::Action;
use crate::api::compute::ComputeApi;
use crate::api::compute::input::strict_query;
use crate::api::microversion::since;
use crate::api::policy::enforce;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub struct Aggregates {
    api: Arc<ComputeApi>,
}

impl Aggregates {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-aggregates:index", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let aggregates = self.api.store.list_aggregates().await?;
        let views: Vec<Value> = aggregates.iter().map(|aggregate| view::full(request.version, aggregate)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "aggregates": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-aggregates:show", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let number = number(request.param("id"))?;
        let aggregate = self.api.store.get_aggregate(number).await.map_err(|error| missing(error, number))?;
        Ok(answer(&request, &aggregate))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-aggregates:create", request.context()?)?;
        let body = request.json().await?;
        let wanted = input::create(&body, request.lenient)?;
        let new = Aggregate {
            id: AggregateId::generate(&*self.api.entropy),
            number: 0,
            name: wanted.name.clone(),
            metadata: wanted.zone.map(|zone| (ZONE_KEY.to_owned(), zone)).into_iter().collect(),
            hosts: Default::default(),
            created_at: self.api.clock.now(),
            updated_at: None,
        };
        let made = self.api.store.create_aggregate(new).await.map_err(|error| match error {
            StoreError::Duplicate { .. } => name_taken(&wanted.name),
            other => other.into(),
        })?;
        self.tell(request.context()?, &made, false).await;
        Ok(Response::json(StatusCode::OK, &json!({"aggregate": view::created(request.version, &made)})))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-aggregates:update", request.context()?)?;
        let body = request.json().await?;
        let update = input::update(&body, request.lenient)?;
        let number = number(request.param("id"))?;
        let name = update.name.clone().unwrap_or_default();
        let metadata = update.zone.into_iter().map(|zone| (ZONE_KEY.to_owned(), zone)).collect();
        let change = AggregateChange { number, name: update.name, metadata, now: self.api.clock.now() };
        let changed = self.api.store.update_aggregate(change).await.map_err(|error| match error {
            StoreError::Aggregate(problem) => {
                ApiError::bad_request(format!("Cannot update aggregate {number}. Reason: {problem}."))
            }
            StoreError::Duplicate { .. } => name_taken(&name),
            other => missing(other, number),
        })?;
        self.tell(request.context()?, &changed, false).await;
        Ok(answer(&request, &changed))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-aggregates:delete", request.context()?)?;
        let number = number(request.param("id"))?;
        let gone = self.api.store.delete_aggregate(number).await.map_err(|error| match error {
            StoreError::Aggregate(problem) => {
                ApiError::bad_request(format!("Cannot remove host from aggregate {number}. Reason: {problem}."))
            }
            other => missing(other, number),
        })?;
        self.tell(request.context()?, &gone, true).await;
        Ok(Response::empty(StatusCode::OK))
    }

    async fn action(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let action = input::action(&body, request.lenient, |rule| {
            enforce(&format!("os_compute_api:os-aggregates:{rule}"), request.context()?)
        })?;
        let number = number(request.param("id"))?;
        let changed = match action {
            Action::AddHost(host) => self.add_host(number, &host).await?,
            Action::RemoveHost(host) => self.remove_host(number, &host).await?,
            Action::SetMetadata(metadata) => {
                let change = AggregateChange { number, name: None, metadata, now: self.api.clock.now() };
                self.api.store.update_aggregate(change).await.map_err(|error| match error {
                    StoreError::Aggregate(problem) => ApiError::bad_request(format!(
                        "Cannot update metadata of aggregate {number}. Reason: {problem}."
                    )),
                    other => missing(other, number),
                })?
            }
        };
        self.tell(request.context()?, &changed, false).await;
        Ok(answer(&request, &changed))
    }

    async fn add_host(&self, number: i64, host: &HostName) -> Result<Aggregate, ApiError> {
        if !self.has_compute_service(host).await? {
            return Err(no_host(host));
        }
        self.api.store.add_aggregate_host(number, host).await.map_err(|error| match error {
            StoreError::NotFound { kind: Kind::Service, .. } => no_host(host),
            StoreError::Aggregate(exists @ AggregateProblem::HostExists { .. }) => {
                ApiError::conflict(exists.to_string())
            }
            StoreError::Aggregate(problem) => {
                ApiError::conflict(format!("Cannot add host to aggregate {number}. Reason: {problem}."))
            }
            other => missing(other, number),
        })
    }

    /// Nova's answer to whatever is in the way does not say what it is; ours keeps its words and adds the reason.
    async fn remove_host(&self, number: i64, host: &HostName) -> Result<Aggregate, ApiError> {
        let text = format!("Cannot remove host {host} in aggregate {number}");
        if !self.has_compute_service(host).await? {
            return Err(ApiError::not_found(text));
        }
        self.api.store.remove_aggregate_host(number, host).await.map_err(|error| match error {
            StoreError::Aggregate(AggregateProblem::HostMissing { .. }) | StoreError::NotFound { .. } => {
                ApiError::not_found(text)
            }
            StoreError::Aggregate(problem) => ApiError::conflict(format!("{text}. Reason: {problem}")),
            other => other.into(),
        })
    }

    async fn has_compute_service(&self, host: &HostName) -> Result<bool, ApiError> {
        Ok(!self.api.store.find_services(&ServiceQuery::computes([host])).await?.is_empty())
    }

    /// Images ahead of their first use (2.81): accepted when all of them can be booted from and a conductor will ask the
    /// hosts; how it went is in the log, as in Nova.
    async fn images(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("compute:aggregates:images", request.context()?)?;
        let body = request.json().await?;
        let ids = input::images(&body, request.lenient)?;
        let number = number(request.param("id"))?;
        let aggregate = self.api.store.get_aggregate(number).await.map_err(|error| missing(error, number))?;
        let context = request.context()?;
        let mut images = Vec::with_capacity(ids.len());
        for id in ids {
            images.push(self.image(context, &id).await?);
        }
        let hosts: Vec<HostName> = aggregate.hosts.iter().cloned().collect();
        for image in images {
            let order = CacheImageRequest { image, hosts: hosts.clone() };
            self.api.orders.cache_image(context, order).await.map_err(|error| {
                tracing::warn!("no conductor was asked to cache an image: {}", chain(&error));
                ApiError::Unavailable { retry_after: 5 }
            })?;
        }
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    async fn image(&self, context: &RequestContext, id: &str) -> Result<ImageMeta, ApiError> {
        let missing = || ApiError::BadRequest(format!("Image {id} could not be found."));
        let id = id.parse().map_err(|_| missing())?;
        self.api.images.bootable_image(context, id).await.map_err(|error| match error {
            ImageServiceError::NotFound { .. } => missing(),
            other => other.into(),
        })
    }

    async fn tell(&self, context: &RequestContext, aggregate: &Aggregate, deleted: bool) {
        let aggregates = vec![AggregateNews { aggregate: aggregate.clone(), deleted, at: self.api.clock.now() }];
        self.api.tell_schedulers(context, HostsChangedRequest { aggregates, ..HostsChangedRequest::default() }).await;
    }
}

impl Resource for Aggregates {
    fn name(&self) -> &'static str {
        "os-aggregates"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/os-aggregates";
        const ONE: &str = "/os-aggregates/{id}";
        vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
            route(Method::POST, "/os-aggregates/{id}/action", &self, Self::action),
            route(Method::POST, "/os-aggregates/{id}/images", &self, Self::images).versions(since(81)),
        ]
    }
}

fn answer(request: &Request, aggregate: &Aggregate) -> Response {
    Response::json(StatusCode::OK, &json!({"aggregate": view::full(request.version, aggregate)}))
}

/// The number in the path. One that no aggregate can have is no mistake of form.
fn number(text: &str) -> Result<i64, ApiError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::bad_request("Invalid input received: id must be an integer"));
    }
    text.parse().map_err(|_| not_found(&text.chars().take(64).collect::<String>()))
}

fn no_host(host: &HostName) -> ApiError {
    ApiError::not_found(format!("Compute host {host} could not be found."))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Aggregate {id} could not be found."))
}

fn missing(error: StoreError, number: i64) -> ApiError {
    match error {
        StoreError::NotFound { .. } => not_found(&number.to_string()),
        other => other.into(),
    }
}

fn name_taken(name: &str) -> ApiError {
    ApiError::conflict(format!("Aggregate {name} already exists."))
}
