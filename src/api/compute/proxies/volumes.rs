//! `/os-volumes` and `/os-snapshots` (nova/api/openstack/compute/volumes.py, snapshots.py).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode, header};
use nova_core::clock::api_time_micros;
use nova_core::ids::{VolumeId, VolumeSnapshotId};
use nova_core::volume::{
    BlockAttachment, BlockSnapshot, BlockSource, BlockVolume, NewBlockSnapshot, NewBlockVolume, VolumeStatus,
};
use serde_json::{Value, json};

use super::PROXIED;
use crate::api::compute::ComputeApi;
use crate::api::compute::servers::fields;
use crate::api::compute::volume_attachments::{number, refused};
use crate::api::policy::enforce;
use crate::api::validate::{Fields, Text, boolean, integer, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// Both resources.
pub(in crate::api::compute) struct Volumes {
    api: Arc<ComputeApi>,
}

impl Volumes {
    /// Over this cloud's block storage.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for Volumes {
    fn name(&self) -> &'static str {
        "os-volumes"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-volumes", &self, Self::index).versions(PROXIED),
            route(Method::POST, "/os-volumes", &self, Self::create).versions(PROXIED),
            route(Method::GET, "/os-volumes/detail", &self, Self::detail).versions(PROXIED),
            route(Method::GET, "/os-volumes/{id}", &self, Self::show).versions(PROXIED),
            route(Method::DELETE, "/os-volumes/{id}", &self, Self::delete).versions(PROXIED),
            route(Method::GET, "/os-snapshots", &self, Self::snapshots).versions(PROXIED),
            route(Method::POST, "/os-snapshots", &self, Self::take_snapshot).versions(PROXIED),
            route(Method::GET, "/os-snapshots/detail", &self, Self::snapshots_detail).versions(PROXIED),
            route(Method::GET, "/os-snapshots/{id}", &self, Self::show_snapshot).versions(PROXIED),
            route(Method::DELETE, "/os-snapshots/{id}", &self, Self::delete_snapshot).versions(PROXIED),
        ]
    }
}

fn attachment(one: &BlockAttachment) -> Value {
    let mut view = json!({"id": one.volume_id, "volumeId": one.volume_id});
    if let Some(server) = one.instance_id {
        view["serverId"] = json!(server);
    }
    if let Some(device) = &one.device {
        view["device"] = json!(device);
    }
    view
}

fn text(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { json!(value) }
}

fn view(volume: &BlockVolume) -> Value {
    // As Nova shows one that nobody has.
    let attachments = match &volume.attachments[..] {
        [] => vec![json!({})],
        some => some.iter().map(attachment).collect(),
    };
    json!({
        "id": volume.id,
        "status": volume.status.map_or("unknown", VolumeStatus::as_str),
        "size": volume.size_gb,
        "availabilityZone": volume.availability_zone,
        "createdAt": volume.created_at.map(api_time_micros),
        "attachments": attachments,
        "displayName": text(&volume.name),
        "displayDescription": text(&volume.description),
        "volumeType": volume.volume_type,
        "snapshotId": volume.snapshot_id,
        "metadata": volume.metadata,
    })
}

fn snapshot_view(snapshot: &BlockSnapshot) -> Value {
    json!({
        "id": snapshot.id,
        "volumeId": snapshot.volume_id,
        "status": snapshot.status,
        "size": snapshot.size_gb,
        "createdAt": snapshot.created_at.map(api_time_micros),
        "displayName": text(&snapshot.name),
        "displayDescription": text(&snapshot.description),
    })
}

/// An id of a path; one that cannot be one is of nothing.
fn path_id<T: std::str::FromStr>(request: &Request, kind: &str) -> Result<T, ApiError> {
    let text = request.param("id");
    let shown: String = text.chars().take(64).collect();
    text.parse().map_err(|_| ApiError::NotFound(format!("{kind} {shown} could not be found.")))
}

/// `limit` and `offset` of a list.
fn page(api: &ComputeApi, request: &Request) -> Result<(usize, usize), ApiError> {
    let limit = request.query.paging(api.options.get().max_limit)?.limit;
    Ok((number(&request.query, "offset")?, limit))
}

impl Volumes {
    async fn list(&self, request: &Request, rule: &str) -> HandlerResult {
        let context = request.context()?;
        enforce(rule, context)?;
        let (offset, limit) = page(&self.api, request)?;
        let all = self.api.block_storage()?.volumes(context).await.map_err(refused)?;
        let views: Vec<Value> = all.iter().skip(offset).take(limit).map(view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "volumes": views })))
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(&request, "os_compute_api:os-volumes:list").await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(&request, "os_compute_api:os-volumes:detail").await
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:show", context)?;
        let id: VolumeId = path_id(&request, "Volume")?;
        let volume = self.api.block_storage()?.volume(context, id).await.map_err(refused)?;
        Ok(Response::json(StatusCode::OK, &json!({ "volume": view(&volume) })))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:create", context)?;
        let mut root = Fields::root(&body, request.lenient)?;
        let mut fields = root.object("volume")?;
        let size = integer("size", fields.required("size")?, 1, i64::from(i32::MAX))?;
        let new = NewBlockVolume {
            key: VolumeId::generate(&*self.api.entropy),
            source: match fields.get("snapshot_id").filter(|value| !value.is_null()) {
                None => BlockSource::Empty,
                Some(value) => BlockSource::Snapshot(uuid("snapshot_id", value)?),
            },
            size_gb: u64::try_from(size).ok(),
            name: optional(&mut fields, "display_name")?,
            description: optional(&mut fields, "display_description")?,
            volume_type: Some(optional(&mut fields, "volume_type")?).filter(|name| !name.is_empty()),
            availability_zone: Some(optional(&mut fields, "availability_zone")?).filter(|name| !name.is_empty()),
            metadata: match fields.get("metadata").filter(|value| !value.is_null()) {
                None => BTreeMap::new(),
                Some(value) => fields::metadata("metadata", value)?,
            },
            waiter: None,
        };
        fields.finish()?;
        root.finish()?;
        let made = self.api.block_storage()?.create(context, new).await.map_err(refused)?;
        let location = format!("{}/os-volumes/{}", request.base_url, made.id);
        let answer = Response::json(StatusCode::OK, &json!({ "volume": view(&made) }));
        Ok(answer.header(header::LOCATION, &location))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:delete", context)?;
        let (storage, id) = (self.api.block_storage()?, path_id(&request, "Volume")?);
        storage.volume(context, id).await.map_err(refused)?;
        storage.delete(context, id).await.map_err(refused)?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    async fn list_snapshots(&self, request: &Request, rule: &str) -> HandlerResult {
        let context = request.context()?;
        enforce(rule, context)?;
        let (offset, limit) = page(&self.api, request)?;
        let all = self.api.block_storage()?.snapshots(context).await.map_err(refused)?;
        let views: Vec<Value> = all.iter().skip(offset).take(limit).map(snapshot_view).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "snapshots": views })))
    }

    async fn snapshots(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list_snapshots(&request, "os_compute_api:os-volumes:snapshots:list").await
    }

    async fn snapshots_detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list_snapshots(&request, "os_compute_api:os-volumes:snapshots:detail").await
    }

    async fn show_snapshot(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:snapshots:show", context)?;
        let id: VolumeSnapshotId = path_id(&request, "Snapshot")?;
        let snapshot = self.api.block_storage()?.snapshot(context, id).await.map_err(refused)?;
        Ok(Response::json(StatusCode::OK, &json!({ "snapshot": snapshot_view(&snapshot) })))
    }

    async fn take_snapshot(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:snapshots:create", context)?;
        let mut root = Fields::root(&body, request.lenient)?;
        let mut fields = root.object("snapshot")?;
        let id: VolumeId = uuid("volume_id", fields.required("volume_id")?)?;
        let force = fields.get("force").map(|value| boolean("force", value)).transpose()?.unwrap_or(false);
        let (name, description) =
            (optional(&mut fields, "display_name")?, optional(&mut fields, "display_description")?);
        fields.finish()?;
        root.finish()?;
        let storage = self.api.block_storage()?;
        let volume = storage.volume(context, id).await.map_err(refused)?;
        if !force && volume.status != Some(VolumeStatus::Available) {
            return Err(ApiError::BadRequest(format!("Invalid volume: Volume {id} is in use: use force.")));
        }
        let key = VolumeSnapshotId::generate(&*self.api.entropy);
        let new = NewBlockSnapshot { key, volume_id: id, name, description };
        let taken = storage.take_snapshot(context, new).await.map_err(refused)?;
        Ok(Response::json(StatusCode::OK, &json!({ "snapshot": snapshot_view(&taken) })))
    }

    async fn delete_snapshot(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        enforce("os_compute_api:os-volumes:snapshots:delete", context)?;
        let (storage, id) = (self.api.block_storage()?, path_id(&request, "Snapshot")?);
        storage.snapshot(context, id).await.map_err(refused)?;
        storage.delete_snapshot(context, id).await.map_err(refused)?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}

fn uuid<T: std::str::FromStr>(key: &str, value: &Value) -> Result<T, ApiError> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(key, value, format_args!("{value} is not a 'uuid'")))
}

/// A text that may be missing, or null.
fn optional<'a>(fields: &mut Fields<'a>, key: &'a str) -> Result<String, ApiError> {
    let found = fields.nullable_text(key, Text::new(0, 255))?.flatten();
    Ok(found.unwrap_or_default().to_owned())
}
