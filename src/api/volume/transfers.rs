//! `/os-volume-transfer`, and `/volume-transfers` from 3.55 on (cinder/api/v3/volume_transfer.py).

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_db::TransferField;
use serde_json::json;

use super::input::{accepted, body, invalid, path_id, require_writer};
use super::list::Collection;
use super::view;
use crate::api::{HandlerResult, Request, Resource, Response, Route, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Transfers(pub(super) Arc<VolumeManager>);

const COLLECTION: Collection<TransferField> = Collection {
    name: "transfers",
    field: TransferField::parse,
    usual: [TransferField::CreatedAt, TransferField::Id],
    own: &[],
};

impl Resource for Transfers {
    fn name(&self) -> &'static str {
        "volume-transfers"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let of = |paths: [&'static str; 4]| {
            let [all, detail, one, accept] = paths;
            vec![
                route(Method::GET, all, &self, Self::index),
                route(Method::POST, all, &self, Self::create),
                route(Method::GET, detail, &self, Self::detail),
                route(Method::GET, one, &self, Self::show),
                route(Method::DELETE, one, &self, Self::delete),
                route(Method::POST, accept, &self, Self::accept),
            ]
        };
        let mut routes = of([
            "/os-volume-transfer",
            "/os-volume-transfer/detail",
            "/os-volume-transfer/{id}",
            "/os-volume-transfer/{id}/accept",
        ]);
        let newer = of([
            "/volume-transfers",
            "/volume-transfers/detail",
            "/volume-transfers/{id}",
            "/volume-transfers/{id}/accept",
        ]);
        routes.extend(newer.into_iter().map(|route| route.versions(55..=u16::MAX)));
        routes
    }
}

impl Transfers {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, false).await
    }

    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request, true).await
    }

    async fn list(&self, request: Request, detail: bool) -> HandlerResult {
        let listing = COLLECTION.read(&request, request.context()?, self.0.options().max_limit)?;
        let found = self.0.store().list_volume_transfers(&listing.query).await?;
        let views = found.iter().map(|one| view::transfer(&request, one, detail)).collect();
        COLLECTION.answer(&request, &listing, views)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let transfer = self.0.transfer(request.context()?, path_id(&request, "id", "Transfer")?).await?;
        Ok(Response::json(StatusCode::OK, &json!({"transfer": view::transfer(&request, &transfer, true)})))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "transfer").await?;
        let context = request.context()?;
        require_writer(context, "volume:create_transfer")?;
        let volume = fields.id("volume_id")?;
        let volume = volume.ok_or_else(|| invalid("volume_id", "'volume_id' is a required property"))?;
        let no_snapshots = fields.flag("no_snapshots")?.unwrap_or(false);
        if no_snapshots && request.version.before(55) {
            return Err(invalid("no_snapshots", "It is known from 3.55 on"));
        }
        let name = fields.text("name", 255)?.unwrap_or_default();
        let offered = self.0.offer(context, volume, &name, no_snapshots).await?;
        let mut view = view::transfer(&request, &offered.transfer, true);
        view["auth_key"] = json!(offered.auth_key);
        Ok(Response::json(StatusCode::ACCEPTED, &json!({ "transfer": view })))
    }

    async fn accept(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "accept").await?;
        let context = request.context()?;
        require_writer(context, "volume:accept_transfer")?;
        let key = fields.text("auth_key", 255)?;
        let key = key.ok_or_else(|| invalid("auth_key", "'auth_key' is a required property"))?;
        let transfer = self.0.accept(context, path_id(&request, "id", "Transfer")?, &key).await?;
        Ok(Response::json(StatusCode::ACCEPTED, &json!({"transfer": view::transfer(&request, &transfer, false)})))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        require_writer(context, "volume:delete_transfer")?;
        self.0.withdraw(context, path_id(&request, "id", "Transfer")?).await?;
        accepted()
    }
}
