//! `/attachments` (cinder/api/v3/attachments.py): promised, connected, in use, given back.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::VolumeAttachmentId;
use nova_core::volume::connection::Connector;
use nova_core::volume::{AccessMode, Attachment, VolumeProblem};
use nova_db::AttachmentField;
use serde_json::{Value, json};

use super::input::{Fields, body, invalid, require_writer};
use super::list::Collection;
use super::view;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Attachments(pub(super) Arc<VolumeManager>);

const COLLECTION: Collection<AttachmentField> = Collection {
    name: "attachments",
    field: AttachmentField::parse,
    usual: [AttachmentField::CreatedAt, AttachmentField::Id],
    own: &[],
};

/// Since 3.27.
const SINCE: std::ops::RangeInclusive<u16> = 27..=u16::MAX;

impl Resource for Attachments {
    fn name(&self) -> &'static str {
        "volume-attachments"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let routes = vec![
            route(Method::GET, "/attachments", &self, Self::index),
            route(Method::POST, "/attachments", &self, Self::create),
            route(Method::GET, "/attachments/detail", &self, Self::detail),
            route(Method::GET, "/attachments/{id}", &self, Self::show),
            route(Method::PUT, "/attachments/{id}", &self, Self::update),
            route(Method::DELETE, "/attachments/{id}", &self, Self::delete),
            route(Method::POST, "/attachments/{id}/action", &self, Self::act),
        ];
        routes.into_iter().map(|route| route.versions(SINCE)).collect()
    }
}

fn id(request: &Request) -> Result<VolumeAttachmentId, ApiError> {
    let text = request.param("id");
    text.parse().map_err(|_| VolumeProblem::NoAttachment(text.chars().take(255).collect()).into())
}

/// What a host says of itself; `None`: nothing yet.
fn connector(fields: &Fields) -> Result<Option<Connector>, ApiError> {
    let Some(value) = fields.get("connector") else { return Ok(None) };
    if value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let wrong = |error| invalid("connector", format_args!("It says not whose it is: {error}"));
    serde_json::from_value(value.clone()).map(Some).map_err(wrong)
}

fn mode(fields: &Fields) -> Result<AccessMode, ApiError> {
    match fields.text("mode", 16)?.as_deref() {
        None | Some("rw") => Ok(AccessMode::ReadWrite),
        Some("ro") => Ok(AccessMode::ReadOnly),
        Some(_) => Err(invalid("mode", "One of 'rw', 'ro'")),
    }
}

fn one(attachment: &Attachment) -> HandlerResult {
    Ok(Response::json(StatusCode::OK, &json!({"attachment": view::attachment(attachment, true)})))
}

impl Attachments {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request).await
    }

    /// The same: how a volume is come to is told of one attachment at a time.
    async fn detail(self: Arc<Self>, request: Request) -> HandlerResult {
        self.list(request).await
    }

    async fn list(&self, request: Request) -> HandlerResult {
        let listing = COLLECTION.read(&request, request.context()?, self.0.options().max_limit)?;
        let found = self.0.store().list_volume_attachments(&listing.query).await?;
        let views = found.iter().map(|(_, attachment)| view::attachment(attachment, false)).collect();
        COLLECTION.answer(&request, &listing, views)
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, attachment) = self.0.attachment(request.context()?, id(&request)?).await?;
        one(&attachment)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "attachment").await?;
        let context = request.context()?;
        require_writer(context, "volume:attachment_create")?;
        let volume = fields.id("volume_uuid")?;
        let volume = volume.ok_or_else(|| invalid("volume_uuid", "'volume_uuid' is a required property"))?;
        let instance = fields.id("instance_uuid")?;
        let connector = connector(&fields)?;
        let mode = mode(&fields)?;
        let (_, mut attachment) = self.0.reserve(context, volume, instance, mode).await?;
        if let Some(connector) = connector {
            let connected = self.0.connect(context, attachment.id, &connector).await;
            attachment = match connected {
                Ok((_, attachment)) => attachment,
                Err(error) => {
                    // Nobody was told of it: it is given back.
                    if let Err(left) = self.0.release(context, attachment.id).await {
                        tracing::warn!(attachment = %attachment.id, "an attachment is left that nobody knows: {left}");
                    }
                    return Err(error.into());
                }
            };
        }
        one(&attachment)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "attachment").await?;
        let context = request.context()?;
        require_writer(context, "volume:attachment_update")?;
        let connector = connector(&fields)?;
        let connector = connector.ok_or_else(|| invalid("connector", "'connector' is a required property"))?;
        let (_, attachment) = self.0.connect(context, id(&request)?, &connector).await?;
        one(&attachment)
    }

    /// Answers with the attachments that the volume has besides.
    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        require_writer(context, "volume:attachment_delete")?;
        let volume = self.0.release(context, id(&request)?).await?;
        let views: Vec<Value> = volume.attachments.values().map(|one| view::attachment(one, false)).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "attachments": views })))
    }

    /// `os-complete` (3.44).
    async fn act(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        require_writer(context, "volume:attachment_complete")?;
        let is_known = body.get("os-complete").is_some() && request.version.at_least(44);
        if !is_known {
            return Err(ApiError::bad_request("There is no such action"));
        }
        self.0.complete(context, id(&request)?, None).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }
}
