//! `/types` (cinder/api/v3/types.py, contrib/types_manage.py, types_extra_specs.py, volume_type_access.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::{ProjectId, VolumeTypeId};
use nova_core::volume::{VolumeProblem, VolumeType};
use serde_json::{Value, json};

use super::input::{Fields, accepted, body, invalid, require_admin};
use super::view;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Types(pub(super) Arc<VolumeManager>);

/// How often a change is tried again when somebody else changed the type meanwhile.
const ATTEMPTS: usize = 8;

impl Resource for Types {
    fn name(&self) -> &'static str {
        "volume-types"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/types", &self, Self::index),
            route(Method::POST, "/types", &self, Self::create),
            route(Method::GET, "/types/{id}", &self, Self::show),
            route(Method::PUT, "/types/{id}", &self, Self::update),
            route(Method::DELETE, "/types/{id}", &self, Self::delete),
            route(Method::GET, "/types/{id}/encryption", &self, Self::encryption),
            route(Method::GET, "/types/{id}/extra_specs", &self, Self::specs),
            route(Method::POST, "/types/{id}/extra_specs", &self, Self::add_specs),
            route(Method::GET, "/types/{id}/extra_specs/{key}", &self, Self::spec),
            route(Method::PUT, "/types/{id}/extra_specs/{key}", &self, Self::set_spec),
            route(Method::DELETE, "/types/{id}/extra_specs/{key}", &self, Self::remove_spec),
            route(Method::GET, "/types/{id}/os-volume-type-access", &self, Self::access),
            route(Method::POST, "/types/{id}/action", &self, Self::act),
        ]
    }
}

fn one(context: &RequestContext, of: &VolumeType) -> HandlerResult {
    Ok(Response::json(StatusCode::OK, &json!({"volume_type": view::volume_type(context, of)})))
}

fn name(fields: &Fields) -> Result<Option<String>, ApiError> {
    let name = fields.text("name", 255)?.map(|name| name.trim().to_owned());
    if name.as_deref() == Some("") {
        return Err(invalid("name", "It is empty"));
    }
    Ok(name)
}

impl Types {
    /// The type of a path, which the caller may use.
    async fn find(&self, request: &Request) -> Result<VolumeType, ApiError> {
        let context = request.context()?;
        let text = request.param("id");
        if text == "default" {
            let default = self.0.default_type().await?;
            return default
                .ok_or_else(|| VolumeProblem::NotFound { kind: "Default volume type", id: String::new() }.into());
        }
        let absent = || VolumeProblem::no_type(text.chars().take(255).collect::<String>());
        let id: VolumeTypeId = text.parse().map_err(|_| absent())?;
        let found = self.0.store().get_volume_type(id).await;
        let found = found.map_err(|error| match error {
            nova_db::StoreError::NotFound { .. } => ApiError::from(absent()),
            other => other.into(),
        })?;
        if context.is_admin() || found.is_for(&context.project_id) { Ok(found) } else { Err(absent().into()) }
    }

    async fn change<F>(&self, request: &Request, change: F) -> Result<VolumeType, ApiError>
    where
        F: Fn(&mut VolumeType) -> Result<(), ApiError> + Send + Sync,
    {
        require_admin(request.context()?, "volume_extension:types_manage")?;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut of = self.find(request).await?;
            change(&mut of)?;
            of.updated_at = self.0.now();
            match self.0.store().update_volume_type(of).await {
                Err(nova_db::StoreError::Conflict { .. }) if tries < ATTEMPTS => {}
                answer => return Ok(answer?),
            }
        }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        // There is always one.
        self.0.default_type().await?;
        let public = match request.query.get("is_public") {
            // Only administrators choose (cinder/api/v3/types.py).
            Some(_) if !context.is_admin() => Some(true),
            Some(text) if text.eq_ignore_ascii_case("none") => None,
            Some(text) => Some(parse_bool(text).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "Invalid is_public filter [{}]",
                    text.chars().take(64).collect::<String>()
                ))
            })?),
            None => Some(true),
        };
        let named = request.query.get("name");
        let fits = |of: &&VolumeType| {
            let visible = match public {
                None => true,
                Some(true) => of.is_for(&context.project_id),
                Some(false) => !of.is_public && (context.is_admin() || of.is_for(&context.project_id)),
            };
            visible && named.is_none_or(|named| of.name == named)
        };
        let all = self.0.store().list_volume_types().await?;
        let views: Vec<Value> = all.iter().filter(fits).map(|of| view::volume_type(context, of)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "volume_types": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let of = self.find(&request).await?;
        one(request.context()?, &of)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "volume_type").await?;
        let context = request.context()?;
        require_admin(context, "volume_extension:type_create")?;
        let now = self.0.now();
        let new = VolumeType {
            id: VolumeTypeId::generate(&*self.0.parts.entropy),
            name: name(&fields)?.ok_or_else(|| invalid("name", "'name' is a required property"))?,
            description: fields.text("description", 255)?,
            is_public: fields.flag("os-volume-type-access:is_public")?.unwrap_or(true),
            extra_specs: fields.labels("extra_specs")?.unwrap_or_default(),
            projects: Default::default(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let made = self.0.store().create_volume_type(new).await?;
        one(context, &made)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "volume_type").await?;
        let name = name(&fields)?;
        let description = fields.text("description", 255)?;
        let is_public = fields.flag("is_public")?;
        if name.is_none() && description.is_none() && is_public.is_none() {
            return Err(ApiError::bad_request(
                "Specify volume type name, description, is_public or a combination thereof.",
            ));
        }
        let change = |of: &mut VolumeType| {
            of.name = name.clone().unwrap_or(std::mem::take(&mut of.name));
            of.description = description.clone().or(of.description.take());
            of.is_public = is_public.unwrap_or(of.is_public);
            Ok(())
        };
        let of = self.change(&request, change).await?;
        one(request.context()?, &of)
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "volume_extension:type_delete")?;
        let of = self.find(&request).await?;
        if of.name == self.0.options().default_type {
            let text = format!("The volume type {} is the default type and cannot be deleted.", of.id);
            return Err(ApiError::bad_request(text));
        }
        self.0.store().delete_volume_type(of.id).await?;
        accepted()
    }

    /// Volumes are not encrypted here: no type says how.
    async fn encryption(self: Arc<Self>, request: Request) -> HandlerResult {
        self.find(&request).await?;
        Ok(Response::json(StatusCode::OK, &json!({})))
    }

    async fn specs(self: Arc<Self>, request: Request) -> HandlerResult {
        let of = self.find(&request).await?;
        let view = view::volume_type(request.context()?, &of);
        Ok(Response::json(StatusCode::OK, &json!({"extra_specs": view["extra_specs"]})))
    }

    async fn spec(self: Arc<Self>, request: Request) -> HandlerResult {
        let of = self.find(&request).await?;
        let (view, key) = (view::volume_type(request.context()?, &of), request.param("key"));
        match view["extra_specs"].get(key) {
            Some(value) => Ok(Response::json(StatusCode::OK, &json!({key: value}))),
            None => Err(no_spec(&of, key).into()),
        }
    }

    async fn add_specs(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let fields = Fields(body.as_object().cloned().unwrap_or_default());
        let specs = fields.labels("extra_specs")?;
        let specs = specs.ok_or_else(|| invalid("extra_specs", "'extra_specs' is a required property"))?;
        let change = |of: &mut VolumeType| {
            of.extra_specs.extend(specs.clone());
            Ok(())
        };
        self.change(&request, change).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "extra_specs": specs })))
    }

    async fn set_spec(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let key = request.param("key").to_owned();
        let value = body.get(&key).and_then(Value::as_str).filter(|value| value.chars().count() <= 255);
        let value = value.ok_or_else(|| ApiError::bad_request("Request body and URI mismatch"))?.to_owned();
        let change = |of: &mut VolumeType| {
            of.extra_specs.insert(key.clone(), value.clone());
            Ok(())
        };
        self.change(&request, change).await?;
        Ok(Response::json(StatusCode::OK, &json!({ key: value })))
    }

    async fn remove_spec(self: Arc<Self>, request: Request) -> HandlerResult {
        let key = request.param("key").to_owned();
        let change = |of: &mut VolumeType| match of.extra_specs.remove(&key) {
            Some(_) => Ok(()),
            None => Err(no_spec(of, &key).into()),
        };
        self.change(&request, change).await?;
        accepted()
    }

    async fn access(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "volume_extension:volume_type_access")?;
        let of = self.find(&request).await?;
        if of.is_public {
            return Err(ApiError::not_found("Access list not available for public volume types."));
        }
        let access: Vec<Value> =
            of.projects.iter().map(|project| json!({"volume_type_id": of.id, "project_id": project})).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "volume_type_access": access })))
    }

    async fn act(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let project = |key: &str| -> Option<ProjectId> {
            let project = body.get(key)?.get("project")?.as_str()?;
            (!project.is_empty() && project.len() <= 255).then(|| ProjectId::from(project))
        };
        let (add, project) = match (project("addProjectAccess"), project("removeProjectAccess")) {
            (Some(project), None) => (true, project),
            (None, Some(project)) => (false, project),
            _ => return Err(ApiError::bad_request("There is no such action")),
        };
        let change = |of: &mut VolumeType| {
            if of.is_public {
                return Err(ApiError::conflict("Type access modification is not applicable to public volume type."));
            }
            let changed = if add { of.projects.insert(project.clone()) } else { of.projects.remove(&project) };
            match (changed, add) {
                (true, _) => Ok(()),
                (false, true) => Err(ApiError::conflict(format!(
                    "Volume type access for {} / {project} combination already exists.",
                    of.id
                ))),
                (false, false) => Err(ApiError::not_found(format!(
                    "Volume type access not found for {} / {project} combination.",
                    of.id
                ))),
            }
        };
        self.change(&request, change).await?;
        accepted()
    }
}

fn no_spec(of: &VolumeType, key: &str) -> VolumeProblem {
    let id = format!("{} has no extra spec {}", of.id, key.chars().take(255).collect::<String>());
    VolumeProblem::NotFound { kind: "Volume type", id }
}
