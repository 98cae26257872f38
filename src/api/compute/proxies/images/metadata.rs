//! What clients attach to images.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::image::Image;
use serde_json::{Value, json};

use super::missing;
use crate::api::compute::ComputeApi;
use crate::api::compute::servers::fields;
use crate::api::microversion::until;
use crate::api::validate::{Fields, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::image::Properties;

/// The resource.
pub(in crate::api::compute) struct ImageMetadata {
    api: Arc<ComputeApi>,
}

impl ImageMetadata {
    /// Over this cloud's images.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let image = self.image(&request).await?;
        Ok(answer("metadata", &json!(image.properties)))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let key = request.param("key");
        let image = self.image(&request).await?;
        let value = image.properties.get(key).ok_or_else(ApiError::no_such_resource)?;
        Ok(answer("meta", &json!({ key: value })))
    }

    /// Sets these, and leaves the others.
    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let wanted = read(&request.json().await?, "metadata", request.lenient)?;
        let all = self.change(&request, |old| Ok(merged(old, &wanted))).await?;
        Ok(answer("metadata", &json!(all)))
    }

    /// Sets these, and removes the others.
    async fn update_all(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let wanted = read(&request.json().await?, "metadata", request.lenient)?;
        let all = self.change(&request, |_| Ok(wanted.clone())).await?;
        Ok(answer("metadata", &json!(all)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let wanted = read(&body, "meta", request.lenient)?;
        if wanted.len() != 1 {
            let what = if wanted.is_empty() { "does not have enough properties" } else { "has too many properties" };
            return Err(invalid("meta", &body["meta"], format_args!("{} {what}", body["meta"])));
        }
        if !wanted.contains_key(request.param("key")) {
            return Err(ApiError::bad_request("Request body and URI mismatch"));
        }
        self.change(&request, |old| Ok(merged(old, &wanted))).await?;
        Ok(answer("meta", &json!(wanted)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let key = request.param("key");
        let without = |old: &Properties| {
            let mut rest = old.clone();
            rest.remove(key).ok_or_else(|| ApiError::bad_request("Invalid metadata key"))?;
            Ok(rest)
        };
        // Asked first, so that it is told as compute tells it.
        if !self.image(&request).await?.properties.contains_key(key) {
            return Err(ApiError::not_found("Invalid metadata key"));
        }
        self.change(&request, without).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn image(&self, request: &Request) -> Result<Image, ApiError> {
        let found = self.api.image_books()?.image_of(request.context()?, request.param("id")).await;
        found.map_err(missing)
    }

    async fn change(
        &self,
        request: &Request,
        next: impl Fn(&Properties) -> Result<Properties, ApiError> + Send + Sync,
    ) -> Result<Properties, ApiError> {
        let (context, id) = (request.context()?, request.param("id"));
        let allowed = self.api.quotas_in_force(&context.project_id, None).await?.get("metadata_items");
        let checked = |old: &Properties| {
            let next = next(old)?;
            match allowed.filter(|allowed| next.len() as u64 > *allowed) {
                Some(_) => Err(ApiError::OverQuota("Image metadata limit exceeded".to_owned())),
                None => Ok(next),
            }
        };
        let changed = self.api.image_books()?.change_properties(context, id, checked).await;
        changed.map_err(missing)
    }
}

impl Resource for ImageMetadata {
    fn name(&self) -> &'static str {
        "image-metadata"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/images/{id}/metadata";
        const ONE: &str = "/images/{id}/metadata/{key}";
        let routes = vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::PUT, ALL, &self, Self::update_all),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
        ];
        routes.into_iter().map(|route| route.versions(until(38))).collect()
    }
}

fn merged(old: &Properties, new: &Properties) -> Properties {
    let mut all = old.clone();
    all.extend(new.clone());
    all
}

fn answer(key: &str, value: &Value) -> Response {
    Response::json(StatusCode::OK, &json!({ key: value }))
}

fn read(body: &Value, key: &'static str, lenient: bool) -> Result<Properties, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let properties = fields::metadata(key, root.required(key)?)?;
    root.finish()?;
    Ok(properties)
}
