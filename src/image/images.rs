//! `/v2/images` and what hangs on one image but its data.

use std::sync::Arc;

use ::http::{Method, StatusCode, header};
use nova_core::context::RequestContext;
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageStatus, Visibility};
use serde_json::{Value, json};

use super::list::Listing;
use super::manager::ImageManager;
use super::policy::{require_member, require_owner};
use super::{attributes, list, patch, schema, view};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

const PATCH_TYPE: &str = "application/openstack-images-v2.1-json-patch";

/// Images.
pub(super) struct Images {
    manager: Arc<ImageManager>,
}

impl Images {
    pub(super) fn new(manager: Arc<ImageManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/images", &self, Self::list),
            route(Method::POST, "/images", &self, Self::create),
            route(Method::GET, "/images/{id}", &self, Self::show),
            route(Method::PATCH, "/images/{id}", &self, Self::update),
            route(Method::DELETE, "/images/{id}", &self, Self::delete),
            route(Method::PUT, "/images/{id}/tags/{tag}", &self, Self::add_tag),
            route(Method::DELETE, "/images/{id}/tags/{tag}", &self, Self::remove_tag),
            route(Method::POST, "/images/{id}/actions/deactivate", &self, Self::deactivate),
            route(Method::POST, "/images/{id}/actions/reactivate", &self, Self::reactivate),
            route(Method::GET, "/images/{id}/tasks", &self, Self::tasks),
            route(Method::GET, "/schemas/image", &self, Self::schema),
            route(Method::GET, "/schemas/images", &self, Self::schemas),
            route(Method::GET, "/info/import", &self, Self::import_methods),
        ]
    }
}

fn no_content() -> HandlerResult {
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

impl Images {
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let listing = Listing::parse(&request.query, &self.manager.options)?;
        let (images, next) = listing.page(context, self.manager.store.list_images().await?)?;
        let mut body = json!({
            "images": images.iter().map(view::body).collect::<Vec<_>>(),
            "first": list::link(&request.query, None),
            "schema": "/v2/schemas/images",
        });
        if let Some(marker) = next {
            body["next"] = json!(list::link(&request.query, Some(marker)));
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        require_member(context)?;
        let image = self.new_image(context, &body)?;
        let image = self.manager.create(image).await?;
        let place = format!("{}/images/{}", request.base_url, image.id);
        Ok(Response::json(StatusCode::CREATED, &view::body(&image)).header(header::LOCATION, &place))
    }

    fn new_image(&self, context: &RequestContext, body: &Value) -> Result<Image, ApiError> {
        let fields = body.as_object().ok_or_else(|| ApiError::bad_request("The body is not a JSON object."))?;
        let now = self.manager.clock.now();
        let id = match fields.get("id") {
            None | Some(Value::Null) => ImageId::generate(&*self.manager.entropy),
            Some(Value::String(text)) if text.len() == 36 => {
                text.parse().map_err(|_| ApiError::bad_request("Invalid image id format"))?
            }
            Some(_) => return Err(ApiError::bad_request("Invalid image id format")),
        };
        let mut image = Image {
            id,
            name: None,
            status: ImageStatus::Queued,
            visibility: Visibility::Shared,
            owner: context.project_id.clone(),
            disk_format: None,
            container_format: None,
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_value: None,
            min_ram: 0,
            min_disk: 0,
            protected: false,
            os_hidden: false,
            tags: Default::default(),
            properties: Default::default(),
            members: Default::default(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        for (key, value) in fields.iter().filter(|(key, _)| *key != "id") {
            attributes::set(&mut image, context, key, value)?;
        }
        attributes::check_limits(&image, &self.manager.options)?;
        Ok(image)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let image = self.manager.show(request.context()?, request.param("id")).await?;
        Ok(Response::json(StatusCode::OK, &view::body(&image)))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let kind = request.header("content-type").unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PATCH_TYPE) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let bytes = request.read_body().await?;
        let body = serde_json::from_slice(&bytes).map_err(|_| ApiError::bad_request("Malformed request body"))?;
        let operations = patch::parse(&body)?;
        let context = request.context()?;
        let image = self
            .manager
            .change(context, request.param("id"), |image| {
                require_owner(context, image, "modify")?;
                patch::apply(image, context, operations.clone())?;
                attributes::check_limits(image, &self.manager.options)
            })
            .await?;
        Ok(Response::json(StatusCode::OK, &view::body(&image)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        self.manager.delete(request.context()?, request.param("id")).await?;
        no_content()
    }

    async fn add_tag(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let tag = attributes::check_text("tag", request.param("tag"))?;
        let change = |image: &mut Image| {
            require_owner(context, image, "modify")?;
            image.tags.insert(tag.clone());
            attributes::check_limits(image, &self.manager.options)
        };
        self.manager.change(context, request.param("id"), change).await?;
        no_content()
    }

    async fn remove_tag(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let tag = request.param("tag");
        let change = |image: &mut Image| {
            require_owner(context, image, "modify")?;
            let found = image.tags.remove(tag);
            if found { Ok(()) } else { Err(ApiError::not_found(format!("Tag {tag} could not be found."))) }
        };
        self.manager.change(context, request.param("id"), change).await?;
        no_content()
    }

    async fn deactivate(self: Arc<Self>, request: Request) -> HandlerResult {
        self.switch(request, ImageStatus::Active, ImageStatus::Deactivated).await
    }

    async fn reactivate(self: Arc<Self>, request: Request) -> HandlerResult {
        self.switch(request, ImageStatus::Deactivated, ImageStatus::Active).await
    }

    async fn switch(&self, request: Request, from: ImageStatus, to: ImageStatus) -> HandlerResult {
        let context = request.context()?;
        if !context.is_admin() {
            self.manager.show(context, request.param("id")).await?;
            return Err(ApiError::forbidden("You are not authorized to complete this action."));
        }
        let change = |image: &mut Image| {
            if image.status != from && image.status != to {
                let (now, to) = (image.status.as_str(), to.as_str());
                return Err(ApiError::forbidden(format!("Image status transition from {now} to {to} is not allowed")));
            }
            image.status = to;
            Ok(())
        };
        self.manager.change(context, request.param("id"), change).await?;
        no_content()
    }

    /// Uploads are no tasks.
    async fn tasks(self: Arc<Self>, request: Request) -> HandlerResult {
        self.manager.show(request.context()?, request.param("id")).await?;
        Ok(Response::json(StatusCode::OK, &json!({"tasks": []})))
    }

    async fn schema(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        Ok(Response::json(StatusCode::OK, &schema::image()))
    }

    async fn schemas(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        Ok(Response::json(StatusCode::OK, &schema::images()))
    }

    async fn import_methods(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        let methods = json!({"description": "Import methods available.", "type": "array", "value": []});
        Ok(Response::json(StatusCode::OK, &json!({"import-methods": methods})))
    }
}
