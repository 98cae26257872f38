//! `/snapshots` (cinder/api/v3/snapshots.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::volume::{Snapshot, SnapshotStatus};
use nova_db::SnapshotField;
use serde_json::json;

use super::input::{Fields, accepted, body, invalid, path_id, require_admin, require_writer};
use super::list::Collection;
use super::view;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Snapshots(pub(super) Arc<VolumeManager>);

const COLLECTION: Collection<SnapshotField> = Collection {
    name: "snapshots",
    field: SnapshotField::parse,
    usual: [SnapshotField::CreatedAt, SnapshotField::Id],
    own: &["name~", "user_id", "availability_zone"],
};

impl Resource for Snapshots {
    fn name(&self) -> &'static str {
        "volume-snapshots"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/snapshots", &self, Self::index),
            route(Method::POST, "/snapshots", &self, Self::create),
            route(Method::GET, "/snapshots/detail", &self, Self::detail),
            route(Method::GET, "/snapshots/{id}", &self, Self::show),
            route(Method::PUT, "/snapshots/{id}", &self, Self::update),
            route(Method::DELETE, "/snapshots/{id}", &self, Self::delete),
            route(Method::POST, "/snapshots/{id}/action", &self, Self::act),
        ]
    }
}

impl Snapshots {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, true).await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, false).await
    }

    async fn list(&self, request: Request, brief: bool) -> HandlerResult {
        let listing = COLLECTION.read(&request, request.context()?, self.0.options().max_limit)?;
        let found = self.0.store().list_volume_snapshots(&listing.query).await?;
        let has = |snapshot: &Snapshot, key: &str, wanted: &str| match key {
            "name~" => snapshot.name.contains(wanted),
            "user_id" => snapshot.user_id.as_str() == wanted,
            _ => true,
        };
        let fits = |snapshot: &&Snapshot| {
            listing.fits(&snapshot.metadata) && listing.rest.iter().all(|(key, wanted)| has(snapshot, key, wanted))
        };
        let views = found.iter().filter(fits).map(|one| view::snapshot(&request, one, brief)).collect();
        COLLECTION.answer(&request, &listing, views)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let snapshot = self.0.snapshot(request.context()?, path_id(&request, "id", "Snapshot")?).await?;
        Ok(Response::json(StatusCode::OK, &json!({"snapshot": view::snapshot(&request, &snapshot, false)})))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "snapshot").await?;
        let context = request.context()?;
        require_writer(context, "volume:create_snapshot")?;
        let volume = fields.id("volume_id")?;
        let volume = volume.ok_or_else(|| invalid("volume_id", "'volume_id' is a required property"))?;
        let force = fields.flag("force")?;
        if request.version.at_least(66) && force == Some(false) {
            return Err(ApiError::bad_request(
                "The 'force' parameter is invalid: from 3.66 on snapshots are taken of volumes in use without it.",
            ));
        }
        let name = fields.either("name", "display_name")?.unwrap_or_default();
        let description = fields.either("description", "display_description")?.unwrap_or_default();
        let metadata = fields.labels("metadata")?.unwrap_or_default();
        let force = force.unwrap_or(false) || request.version.at_least(66);
        let snapshot = self.0.take_snapshot(context, volume, &name, &description, &metadata, force).await?;
        let view = view::snapshot(&request, &snapshot, true);
        Ok(Response::json(StatusCode::ACCEPTED, &json!({ "snapshot": view })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "snapshot").await?;
        let context = request.context()?;
        require_writer(context, "volume:update_snapshot")?;
        let name = fields.either("name", "display_name")?;
        let description = fields.either("description", "display_description")?;
        let change = |snapshot: &mut Snapshot| {
            snapshot.name = name.clone().unwrap_or(std::mem::take(&mut snapshot.name));
            snapshot.description = description.clone().unwrap_or(std::mem::take(&mut snapshot.description));
            Ok(())
        };
        let snapshot = self.0.edit_snapshot(context, path_id(&request, "id", "Snapshot")?, change).await?;
        Ok(Response::json(StatusCode::OK, &json!({"snapshot": view::snapshot(&request, &snapshot, true)})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        require_writer(context, "volume:delete_snapshot")?;
        let force = request.query.get("force").and_then(parse_bool).unwrap_or(false);
        if force {
            require_admin(context, "volume_extension:snapshot_admin_actions:force_delete")?;
        }
        self.0.delete_snapshot(context, path_id(&request, "id", "Snapshot")?, force).await?;
        accepted()
    }

    async fn act(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        let id = path_id(&request, "id", "Snapshot")?;
        if body.get("os-force_delete").is_some() {
            require_admin(context, "volume_extension:snapshot_admin_actions:force_delete")?;
            self.0.delete_snapshot(context, id, true).await?;
            return accepted();
        }
        let Some(content) = body.get("os-reset_status").and_then(|content| content.as_object()) else {
            return Err(ApiError::bad_request("There is no such action"));
        };
        require_admin(context, "volume_extension:snapshot_admin_actions:reset_status")?;
        let word = Fields(content.clone()).text("status", 255)?.unwrap_or_default();
        let status = SnapshotStatus::parse(&word.to_ascii_lowercase());
        let status =
            status.ok_or_else(|| invalid("status", format_args!("Value: {word}. It is no state of a snapshot")))?;
        self.0.reset_snapshot(context, id, status).await?;
        accepted()
    }
}
