//! `/v2/images/{id}/members`: projects that a shared image is shown to (glance/api/v2/image_members.py). Its owner says which,
//! each says for itself whether it wants the image in its lists.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, ProjectId};
use nova_core::image::{Image, ImageMember, MemberStatus, Visibility};
use serde_json::{Value, json};

use super::manager::ImageManager;
use super::policy::require_owner;
use super::schema;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// Glance's `image_member_quota`.
const MOST: usize = 128;

/// Members of images.
pub(super) struct Members {
    manager: Arc<ImageManager>,
}

impl Members {
    pub(super) fn new(manager: Arc<ImageManager>) -> Self {
        Self { manager }
    }

    /// All to the owner, itself to a member.
    async fn list(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let image = self.shared(&request).await?;
        let all = image.members.iter().filter(|(project, _)| sees(context, &image, project));
        let views: Vec<Value> = all.map(|(project, member)| view(image.id, project, member)).collect();
        Ok(Response::json(StatusCode::OK, &json!({"members": views, "schema": "/v2/schemas/members"})))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let image = self.shared(&request).await?;
        let project = ProjectId::new(request.param("member"));
        let member = image.members.get(&project).filter(|_| sees(context, &image, &project));
        Ok(answer(image.id, &project, member.ok_or_else(missing)?))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let project = body.get("member").and_then(Value::as_str).filter(|id| (1..=255).contains(&id.len()));
        let project = ProjectId::new(
            project
                .ok_or_else(|| ApiError::bad_request("Expected a dict in the form: {\"member\": \"project_id\"}"))?,
        );
        let now = self.manager.clock.now();
        let member = ImageMember { status: MemberStatus::Pending, created_at: now, updated_at: now };
        let add = |image: &mut Image| {
            if image.members.contains_key(&project) {
                return Err(ApiError::Conflict(format!("Member {project} is duplicated for image {}", image.id)));
            }
            if image.members.len() >= MOST {
                return Err(ApiError::TooLarge);
            }
            image.members.insert(project.clone(), member.clone());
            Ok(())
        };
        let image = self.change(&request, add).await?;
        Ok(answer(image.id, &project, &member))
    }

    /// Members say what they make of it; the owner cannot say it for them.
    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let status = match body.get("status").and_then(Value::as_str) {
            Some("pending") => MemberStatus::Pending,
            Some("accepted") => MemberStatus::Accepted,
            Some("rejected") => MemberStatus::Rejected,
            _ => {
                return Err(ApiError::bad_request(
                    "Expected a status: {\"status\": \"status\"}, one of pending, accepted, rejected",
                ));
            }
        };
        let context = request.context()?;
        let image = self.shared(&request).await?;
        let project = ProjectId::new(request.param("member"));
        if !image.members.contains_key(&project) || !sees(context, &image, &project) {
            return Err(missing());
        }
        if !context.is_admin() && (project != context.project_id || !context.has_role("member")) {
            return Err(ApiError::forbidden("You are not permitted to modify 'status' on this image member."));
        }
        let now = self.manager.clock.now();
        let say = |image: &mut Image| {
            let member = image.members.get_mut(&project).ok_or_else(missing)?;
            if member.status != status {
                *member = ImageMember { status, updated_at: now, ..member.clone() };
            }
            Ok(())
        };
        let image = self.manager.change(context, request.param("id"), say).await?;
        let member = image.members.get(&project).ok_or_else(missing)?;
        Ok(answer(image.id, &project, member))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let project = ProjectId::new(request.param("member"));
        self.change(&request, |image| image.members.remove(&project).map(drop).ok_or_else(missing)).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn schema(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        Ok(Response::json(StatusCode::OK, &schema::member()))
    }

    async fn schemas(self: Arc<Self>, request: Request) -> HandlerResult {
        request.context()?;
        Ok(Response::json(StatusCode::OK, &schema::members()))
    }

    /// The image, if the caller sees it and it can have members.
    async fn shared(&self, request: &Request) -> Result<Image, ApiError> {
        let image = self.manager.show(request.context()?, request.param("id")).await?;
        only_shared(&image)?;
        Ok(image)
    }

    /// What the owner makes of the image's members.
    async fn change(
        &self,
        request: &Request,
        change: impl Fn(&mut Image) -> Result<(), ApiError> + Send + Sync,
    ) -> Result<Image, ApiError> {
        let context = request.context()?;
        let checked = |image: &mut Image| {
            require_owner(context, image, "change members of")?;
            only_shared(image)?;
            change(image)
        };
        self.manager.change(context, request.param("id"), checked).await
    }
}

impl Resource for Members {
    fn name(&self) -> &'static str {
        "image-members"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/images/{id}/members";
        const ONE: &str = "/images/{id}/members/{member}";
        vec![
            route(Method::GET, ALL, &self, Self::list),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
            route(Method::GET, "/schemas/member", &self, Self::schema),
            route(Method::GET, "/schemas/members", &self, Self::schemas),
        ]
    }
}

fn only_shared(image: &Image) -> Result<(), ApiError> {
    match image.visibility {
        Visibility::Shared => Ok(()),
        _ => Err(ApiError::forbidden("Only shared images have members.")),
    }
}

fn sees(context: &RequestContext, image: &Image, project: &ProjectId) -> bool {
    context.is_admin() || image.owner == context.project_id || *project == context.project_id
}

fn missing() -> ApiError {
    ApiError::not_found("Image member not found.")
}

fn answer(image: ImageId, project: &ProjectId, member: &ImageMember) -> Response {
    Response::json(StatusCode::OK, &view(image, project, member))
}

fn view(image: ImageId, project: &ProjectId, member: &ImageMember) -> Value {
    json!({
        "image_id": image,
        "member_id": project,
        "status": member.status.as_str(),
        "created_at": api_time(member.created_at),
        "updated_at": api_time(member.updated_at),
        "schema": "/v2/schemas/member",
    })
}
