//! `/volumes` (cinder/api/v3/volumes.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::VolumeId;
use nova_core::volume::Volume;
use nova_db::VolumeField;
use serde_json::{Map, Value, json};

use super::input::{accepted, body, invalid, path_id, require_admin, require_writer};
use super::list::Collection;
use super::view::{self, TypeNames};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, route};
use crate::volume::{CreateVolume, MadeOf, VolumeEdit, VolumeManager};

/// The resource.
pub(super) struct Volumes(pub(super) Arc<VolumeManager>);

const COLLECTION: Collection<VolumeField> = Collection {
    name: "volumes",
    field: VolumeField::parse,
    usual: [VolumeField::CreatedAt, VolumeField::Id],
    own: &["name~", "volume_type", "migration_status", "group_id", "status~", "description", "description~"],
};

impl Resource for Volumes {
    fn name(&self) -> &'static str {
        "volumes"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/volumes", &self, Self::index),
            route(Method::POST, "/volumes", &self, Self::create),
            route(Method::GET, "/volumes/detail", &self, Self::detail),
            route(Method::GET, "/volumes/summary", &self, Self::summary),
            route(Method::GET, "/volumes/{id}", &self, Self::show),
            route(Method::PUT, "/volumes/{id}", &self, Self::update),
            route(Method::DELETE, "/volumes/{id}", &self, Self::delete),
        ]
    }
}

/// Names of all types.
pub(super) async fn type_names(manager: &VolumeManager) -> Result<TypeNames, ApiError> {
    let types = manager.store().list_volume_types().await?;
    Ok(types.into_iter().map(|of| (of.id, of.name)).collect())
}

impl Volumes {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, false).await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, true).await
    }

    async fn list(&self, request: Request, detail: bool) -> HandlerResult {
        let context = request.context()?;
        let listing = COLLECTION.read(&request, context, self.0.options().max_limit)?;
        let names = type_names(&self.0).await?;
        let found = self.0.store().list_volumes(&listing.query).await?;
        let has = |volume: &Volume, key: &str, wanted: &str| match key {
            "name~" => volume.name.contains(wanted),
            "status~" => volume.status.as_str().contains(wanted),
            "description" => volume.description == wanted,
            "description~" => volume.description.contains(wanted),
            "volume_type" => {
                let of = volume.volume_type_id;
                of.is_some_and(|id| id.to_string() == wanted || names.get(&id).is_some_and(|name| name == wanted))
            }
            // Volumes are in no group, and on no way.
            _ => wanted.is_empty(),
        };
        let fits = |volume: &&Volume| {
            listing.fits(&volume.metadata) && listing.rest.iter().all(|(key, wanted)| has(volume, key, wanted))
        };
        let view = |volume: &Volume| {
            if detail {
                view::volume(&request, context, volume, &names, false)
            } else {
                view::brief_volume(&request, volume)
            }
        };
        let views = found.iter().filter(fits).map(view).collect();
        COLLECTION.answer(&request, &listing, views)
    }

    /// How many and how large all are together (3.12); from 3.36 on also which labels they have.
    async fn summary(self: Arc<Self>, request: Request) -> HandlerResult {
        if request.version.before(12) {
            return Err(ApiError::no_such_resource());
        }
        let context = request.context()?;
        let listing = COLLECTION.read(&request, context, usize::MAX - 1)?;
        let found = self.0.store().list_volumes(&listing.query).await?;
        let size: u64 = found.iter().map(|volume| volume.size_gb).sum();
        let mut summary = json!({"total_count": found.len(), "total_size": size});
        if request.version.at_least(36) {
            let mut labels: Map<String, Value> = Map::new();
            for (key, value) in found.iter().flat_map(|volume| &volume.metadata) {
                let values = labels.entry(key.clone()).or_insert_with(|| json!([]));
                if let Some(values) = values.as_array_mut().filter(|values| !values.contains(&json!(value))) {
                    values.push(json!(value));
                }
            }
            summary["metadata"] = Value::Object(labels);
        }
        Ok(Response::json(StatusCode::OK, &json!({ "volume-summary": summary })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let volume = self.0.volume(context, path_id(&request, "id", "Volume")?).await?;
        let names = type_names(&self.0).await?;
        Ok(Response::json(StatusCode::OK, &json!({"volume": view::volume(&request, context, &volume, &names, false)})))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "volume").await?;
        let context = request.context()?;
        require_writer(context, "volume:create")?;
        for absent in ["consistencygroup_id", "group_id", "backup_id"] {
            if fields.get(absent).is_some() {
                return Err(invalid(absent, "There are none here"));
            }
        }
        if let Some(project) = fields.text("project_id", 255)?
            && project != context.project_id.as_str()
        {
            return Err(invalid("project_id", "Volumes are made in the project of the token"));
        }
        let image = match fields.text("imageRef", 255)?.or(fields.text("image_id", 255)?) {
            // A reference may be a whole URL.
            Some(text) if !text.is_empty() => {
                let id = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                Some(id.parse().map_err(|_| {
                    ApiError::bad_request("Invalid image identifier or unable to access requested image.")
                })?)
            }
            _ => None,
        };
        let sources = [
            image.map(MadeOf::Image),
            fields.id("snapshot_id")?.map(MadeOf::Snapshot),
            fields.id("source_volid")?.map(MadeOf::Volume),
        ];
        let mut sources = sources.into_iter().flatten();
        let made_of = sources.next().unwrap_or_default();
        if sources.next().is_some() {
            return Err(ApiError::bad_request(
                "Invalid input received: only one of imageRef, snapshot_id, source_volid may be given.",
            ));
        }
        if fields.flag("multiattach")? == Some(true) {
            let text = "multiattach parameter has been removed. Use a volume type with the extra spec multiattach='<is> True'.";
            // Cinder took the parameter until 3.49.
            if request.version.at_least(50) {
                return Err(ApiError::bad_request(text));
            }
        }
        let size = fields.number("size", 1)?;
        if size.is_none() && made_of == MadeOf::Nothing {
            return Err(invalid("size", "'size' is a required property"));
        }
        let new = CreateVolume {
            id: None,
            size_gb: size.and_then(|size| u64::try_from(size).ok()),
            name: fields.either("name", "display_name")?.unwrap_or_default(),
            description: fields.either("description", "display_description")?.unwrap_or_default(),
            availability_zone: fields.text("availability_zone", 255)?.filter(|text| !text.is_empty()),
            volume_type: fields.text("volume_type", 255)?.filter(|text| !text.is_empty()),
            made_of,
            multiattach: fields.flag("multiattach")?.unwrap_or(false),
            metadata: fields.labels("metadata")?.unwrap_or_default(),
            waiter: None,
        };
        let volume = self.0.create(context, new).await?;
        let names = type_names(&self.0).await?;
        let view = view::volume(&request, context, &volume, &names, true);
        Ok(Response::json(StatusCode::ACCEPTED, &json!({ "volume": view })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "volume").await?;
        let context = request.context()?;
        require_writer(context, "volume:update")?;
        let edit = VolumeEdit {
            name: fields.either("name", "display_name")?,
            description: fields.either("description", "display_description")?,
            metadata: fields.labels("metadata")?,
            ..VolumeEdit::default()
        };
        let volume = self.0.edit(context, path_id(&request, "id", "Volume")?, edit).await?;
        let names = type_names(&self.0).await?;
        Ok(Response::json(StatusCode::OK, &json!({"volume": view::volume(&request, context, &volume, &names, false)})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        require_writer(context, "volume:delete")?;
        let id: VolumeId = path_id(&request, "id", "Volume")?;
        let flag = |key| request.query.get(key).and_then(parse_bool).unwrap_or(false);
        let force = flag("force");
        if force {
            require_admin(context, "volume:force_delete")?;
        }
        self.0.delete(context, id, flag("cascade"), force).await?;
        accepted()
    }
}
