//! `/servers/{id}/tags` (2.26): nova/api/openstack/compute/server_tags.py.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, StatusCode, header};
use nova_core::instance::Instance;
use nova_core::state::Action;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::ComputeApi;
use super::input::strict_query;
use super::servers::{Edit, fields};
use crate::api::microversion::since;
use crate::api::validate::{Fields, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// Nova's limit on tags of a server (nova/objects/instance.py, `MAX_TAG_COUNT`).
const MAX_TAGS: usize = 50;

/// The resource.
pub(super) struct ServerTags {
    api: Arc<ComputeApi>,
}

impl ServerTags {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 102, &[])?;
        let rule = "os_compute_api:os-server-tags:index";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        Ok(Response::json(StatusCode::OK, &json!({"tags": instance.tags})))
    }

    /// 204 if it is there.
    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 102, &[])?;
        let rule = "os_compute_api:os-server-tags:show";
        let instance = self.api.looked_at(&request, request.param("id"), rule).await?;
        let tag = request.param("tag");
        if instance.tags.contains(tag) {
            return Ok(Response::empty(StatusCode::NO_CONTENT));
        }
        Err(no_such_tag(&instance, tag))
    }

    /// 201 for a new one, 204 for one that was there.
    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        if let Some(body) = request.json_or_none().await?
            && !body.is_null()
        {
            return Err(invalid("body", &body, "it is not of type 'null'"));
        }
        let tag = request.param("tag").to_owned();
        fields::tag("tag", &Value::String(tag.clone())).map_err(|error| {
            ApiError::bad_request(format!(
                "Tag '{tag}' is invalid. It must be a non empty string without characters '/' and ','. Validation error \
                 message: {error}"
            ))
        })?;
        let id = request.param("id").to_owned();
        let edit = Self::edit("os_compute_api:os-server-tags:update", "update tag");
        let there = self.api.looked_at(&request, &id, edit.rule).await?.tags.contains(&tag);
        let with = |instance: &mut Instance| {
            if instance.tags.len() >= MAX_TAGS {
                return Err(ApiError::bad_request(format!(
                    "The number of tags exceeded the per-server limit {MAX_TAGS}"
                )));
            }
            Ok(instance.tags.insert(tag.clone()))
        };
        self.api.edit(&request, &id, edit, with).await?;
        if there {
            return Ok(Response::empty(StatusCode::NO_CONTENT));
        }
        let place = format!("{}/servers/{id}/tags/{}", request.base_url, utf8_percent_encode(&tag, NON_ALPHANUMERIC));
        Ok(Response::empty(StatusCode::CREATED).header(header::LOCATION, &place))
    }

    async fn update_all(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let mut root = Fields::root(&body, request.lenient)?;
        root.required("tags")?;
        let tags: BTreeSet<String> = fields::tags(&mut root)?;
        root.finish()?;
        let edit = Self::edit("os_compute_api:os-server-tags:update_all", "update tags");
        let set = |instance: &mut Instance| {
            let changed = instance.tags != tags;
            instance.tags.clone_from(&tags);
            Ok(changed)
        };
        let instance = self.api.edit(&request, request.param("id"), edit, set).await?;
        Ok(Response::json(StatusCode::OK, &json!({"tags": instance.tags})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let edit = Self::edit("os_compute_api:os-server-tags:delete", "delete tag");
        let tag = request.param("tag");
        let without = |instance: &mut Instance| match instance.tags.remove(tag) {
            true => Ok(true),
            false => Err(ApiError::not_found(format!("Instance {} has no tag '{tag}'", instance.id))),
        };
        self.api.edit(&request, request.param("id"), edit, without).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn delete_all(self: Arc<Self>, request: Request) -> HandlerResult {
        let edit = Self::edit("os_compute_api:os-server-tags:delete_all", "delete tags");
        let none = |instance: &mut Instance| Ok(!std::mem::take(&mut instance.tags).is_empty());
        self.api.edit(&request, request.param("id"), edit, none).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    fn edit(rule: &'static str, word: &'static str) -> Edit {
        Edit { rule, action: Action::UpdateTags, word }
    }
}

impl Resource for ServerTags {
    fn name(&self) -> &'static str {
        "server-tags"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/servers/{id}/tags";
        const ONE: &str = "/servers/{id}/tags/{tag}";
        let routes = vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::PUT, ALL, &self, Self::update_all),
            route(Method::DELETE, ALL, &self, Self::delete_all),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
        ];
        routes.into_iter().map(|route| route.versions(since(26))).collect()
    }
}

fn no_such_tag(instance: &Instance, tag: &str) -> ApiError {
    ApiError::not_found(format!("Server {} has no tag '{tag}'", instance.id))
}
