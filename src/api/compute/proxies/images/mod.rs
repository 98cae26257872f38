//! `/images`, until 2.35, and `/images/{id}/metadata`, until 2.38: what compute once passed on to Glance, over the images that
//! are kept here (nova/api/openstack/compute/images.py, image_metadata.py).

mod filters;
mod metadata;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::image::Image;
use serde_json::{Value, json};

pub(in crate::api::compute) use metadata::ImageMetadata;

use self::filters::Filters;
use super::PROXIED;
use crate::api::compute::ComputeApi;
use crate::api::compute::links::next_links;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::image::ImageManager;

impl ComputeApi {
    /// The images that are kept here.
    ///
    /// # Errors
    /// 501 where another service keeps them.
    fn image_books(&self) -> Result<&Arc<ImageManager>, ApiError> {
        let elsewhere = "Images are kept by another service: ask that.";
        self.image_books.as_ref().ok_or_else(|| ApiError::NotImplemented(elsewhere.to_owned()))
    }
}

/// The resource.
pub(in crate::api::compute) struct Images {
    api: Arc<ComputeApi>,
}

impl Images {
    /// Over this cloud's images.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(&request, "images", view::brief).await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(&request, "images/detail", view::full).await
    }

    async fn list(&self, request: &Request, place: &str, view: fn(&Request, &Image) -> Value) -> HandlerResult {
        let filters = Filters::read(&request.query)?;
        let paging = request.query.paging(self.api.options.get().max_limit)?;
        let mut images = self.api.image_books()?.images_of(request.context()?).await?;
        if let Some(marker) = &paging.marker {
            let position = images.iter().position(|image| image.id.to_string() == *marker);
            let position = position.ok_or_else(|| {
                ApiError::bad_request(format!(
                    "Marker {} could not be found.",
                    marker.chars().take(64).collect::<String>()
                ))
            })?;
            images.drain(..=position);
        }
        images.retain(|image| filters.accept(image));
        images.truncate(paging.limit);
        let views: Vec<Value> = images.iter().map(|image| view(request, image)).collect();
        let mut body = json!({ "images": views });
        let last = images.last().map(|image| image.id.to_string());
        // Nova's links come only where a limit was asked for.
        let asked = last.filter(|_| request.query.has("limit"));
        if let Some(links) = next_links(request, place, images.len(), paging.limit, asked.as_deref()) {
            body["images_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let found = self.api.image_books()?.image_of(request.context()?, request.param("id")).await;
        let image = found.map_err(missing)?;
        Ok(Response::json(StatusCode::OK, &json!({"image": view::full(&request, &image)})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let removed = self.api.image_books()?.remove_image(request.context()?, request.param("id")).await;
        removed.map_err(|error| match error {
            ApiError::Forbidden(_) => ApiError::forbidden("You are not allowed to delete the image."),
            other => missing(other),
        })?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }
}

impl Resource for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let routes = vec![
            route(Method::GET, "/images", &self, Self::index),
            route(Method::GET, "/images/detail", &self, Self::detail),
            route(Method::GET, "/images/{id}", &self, Self::show),
            route(Method::DELETE, "/images/{id}", &self, Self::delete),
        ];
        routes.into_iter().map(|route| route.versions(PROXIED)).collect()
    }
}

/// Compute's words for what is not there.
fn missing(error: ApiError) -> ApiError {
    match error {
        ApiError::NotFound(_) => ApiError::not_found("Image not found."),
        other => other,
    }
}
