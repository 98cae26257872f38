//! Labels of volumes and snapshots (cinder/api/v3/volume_metadata.py, snapshot_metadata.py).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::volume::{Snapshot, VolumeProblem};
use serde_json::json;

use super::input::{Fields, invalid, label, path_id, require_writer, within};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::volume::{VolumeEdit, VolumeManager};

/// The resource.
pub(super) struct Metadata(pub(super) Arc<VolumeManager>);

type Labels = BTreeMap<String, String>;

impl Resource for Metadata {
    fn name(&self) -> &'static str {
        "volume-metadata"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/volumes/{id}/metadata", &self, Self::index),
            route(Method::POST, "/volumes/{id}/metadata", &self, Self::add),
            route(Method::PUT, "/volumes/{id}/metadata", &self, Self::replace),
            route(Method::GET, "/volumes/{id}/metadata/{key}", &self, Self::show),
            route(Method::PUT, "/volumes/{id}/metadata/{key}", &self, Self::set),
            route(Method::DELETE, "/volumes/{id}/metadata/{key}", &self, Self::remove),
            route(Method::GET, "/snapshots/{id}/metadata", &self, Self::snapshot_index),
            route(Method::POST, "/snapshots/{id}/metadata", &self, Self::snapshot_add),
            route(Method::PUT, "/snapshots/{id}/metadata", &self, Self::snapshot_replace),
            route(Method::GET, "/snapshots/{id}/metadata/{key}", &self, Self::snapshot_show),
            route(Method::PUT, "/snapshots/{id}/metadata/{key}", &self, Self::snapshot_set),
            route(Method::DELETE, "/snapshots/{id}/metadata/{key}", &self, Self::snapshot_remove),
        ]
    }
}

fn all(labels: &Labels) -> HandlerResult {
    Ok(Response::json(StatusCode::OK, &json!({ "metadata": labels })))
}

fn one(labels: &Labels, key: &str) -> HandlerResult {
    let value = labels.get(key).ok_or_else(|| no_label(key))?;
    Ok(Response::json(StatusCode::OK, &json!({"meta": {key: value}})))
}

fn no_label(key: &str) -> ApiError {
    ApiError::not_found(format!("Metadata item was not found: {}", key.chars().take(255).collect::<String>()))
}

/// `metadata` of a body.
async fn labels(request: &mut Request) -> Result<Labels, ApiError> {
    let body = request.json().await?;
    let fields = Fields(body.as_object().cloned().unwrap_or_default());
    fields.labels("metadata")?.ok_or_else(|| invalid("metadata", "'metadata' is a required property"))
}

/// `meta` of a body: the one label of the path.
async fn single(request: &mut Request) -> Result<Labels, ApiError> {
    let body = request.json().await?;
    let meta = within(&body, "meta")?;
    let key = request.param("key");
    match meta.0.get(key) {
        Some(value) if meta.0.len() == 1 => Ok([label("meta", key, value)?].into()),
        _ => Err(ApiError::bad_request("Request body and URI mismatch")),
    }
}

impl Metadata {
    async fn edit(&self, request: &Request, edit: VolumeEdit) -> Result<Labels, ApiError> {
        let context = request.context()?;
        require_writer(context, "volume:update_volume_metadata")?;
        Ok(self.0.edit(context, path_id(request, "id", "Volume")?, edit).await?.metadata)
    }

    async fn of(&self, request: &Request) -> Result<Labels, ApiError> {
        Ok(self.0.volume(request.context()?, path_id(request, "id", "Volume")?).await?.metadata)
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        all(&self.of(&request).await?)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        one(&self.of(&request).await?, request.param("key"))
    }

    async fn add(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let add_metadata = labels(&mut request).await?;
        all(&self.edit(&request, VolumeEdit { add_metadata, ..VolumeEdit::default() }).await?)
    }

    async fn replace(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let metadata = Some(labels(&mut request).await?);
        all(&self.edit(&request, VolumeEdit { metadata, ..VolumeEdit::default() }).await?)
    }

    async fn set(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let add_metadata = single(&mut request).await?;
        let labels = self.edit(&request, VolumeEdit { add_metadata, ..VolumeEdit::default() }).await?;
        one(&labels, request.param("key"))
    }

    async fn remove(self: Arc<Self>, request: Request) -> HandlerResult {
        let remove_metadata = Some(request.param("key").to_owned());
        self.edit(&request, VolumeEdit { remove_metadata, ..VolumeEdit::default() }).await?;
        Ok(Response::empty(StatusCode::OK))
    }

    async fn edit_snapshot<F>(&self, request: &Request, change: F) -> Result<Labels, ApiError>
    where
        F: Fn(&mut Snapshot) -> Result<(), VolumeProblem> + Send + Sync,
    {
        let context = request.context()?;
        require_writer(context, "volume:update_snapshot_metadata")?;
        Ok(self.0.edit_snapshot(context, path_id(request, "id", "Snapshot")?, change).await?.metadata)
    }

    async fn of_snapshot(&self, request: &Request) -> Result<Labels, ApiError> {
        Ok(self.0.snapshot(request.context()?, path_id(request, "id", "Snapshot")?).await?.metadata)
    }

    async fn snapshot_index(self: Arc<Self>, request: Request) -> HandlerResult {
        all(&self.of_snapshot(&request).await?)
    }

    async fn snapshot_show(self: Arc<Self>, request: Request) -> HandlerResult {
        one(&self.of_snapshot(&request).await?, request.param("key"))
    }

    async fn snapshot_add(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let new = labels(&mut request).await?;
        let add = |snapshot: &mut Snapshot| {
            snapshot.metadata.extend(new.clone());
            Ok(())
        };
        all(&self.edit_snapshot(&request, add).await?)
    }

    async fn snapshot_replace(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let new = labels(&mut request).await?;
        let replace = |snapshot: &mut Snapshot| {
            snapshot.metadata.clone_from(&new);
            Ok(())
        };
        all(&self.edit_snapshot(&request, replace).await?)
    }

    async fn snapshot_set(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let new = single(&mut request).await?;
        let add = |snapshot: &mut Snapshot| {
            snapshot.metadata.extend(new.clone());
            Ok(())
        };
        one(&self.edit_snapshot(&request, add).await?, request.param("key"))
    }

    async fn snapshot_remove(self: Arc<Self>, request: Request) -> HandlerResult {
        let key = request.param("key");
        let remove = |snapshot: &mut Snapshot| {
            let id = snapshot.id;
            let absent = || VolumeProblem::NotFound { kind: "Metadata", id: format!("key {key} of snapshot {id}") };
            snapshot.metadata.remove(key).map(drop).ok_or_else(absent)
        };
        self.edit_snapshot(&request, remove).await?;
        Ok(Response::empty(StatusCode::OK))
    }
}
