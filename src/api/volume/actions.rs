//! `POST /volumes/{id}/action` (cinder/api/contrib/volume_actions.py and admin_actions.py): the body's one key says what is to
//! be done.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time_micros;
use nova_core::context::RequestContext;
use nova_core::ids::{VolumeAttachmentId, VolumeId};
use nova_core::image::Visibility;
use nova_core::volume::{VolumeProblem, VolumeStatus};
use serde_json::json;

use super::input::{Fields, accepted, invalid, path_id, require_admin, require_writer};
use super::volumes::type_names;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::volume::{Reset, VolumeEdit, VolumeManager};

/// The resource.
pub(super) struct Actions(pub(super) Arc<VolumeManager>);

/// Known to Cinder, and not done here.
const NOT_OFFERED: [&str; 7] = [
    "os-migrate_volume",
    "os-unmanage",
    "revert",
    "os-attach",
    "os-detach",
    "os-initialize_connection",
    "os-terminate_connection",
];

impl Resource for Actions {
    fn name(&self) -> &'static str {
        "volume-actions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::POST, "/volumes/{id}/action", &self, Self::act)]
    }
}

impl Actions {
    async fn act(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let malformed = || ApiError::bad_request("Malformed request body");
        let map = body.as_object().filter(|map| map.len() == 1).ok_or_else(malformed)?;
        let (key, content) = map.iter().next().ok_or_else(malformed)?;
        let fields = Fields(content.as_object().cloned().unwrap_or_default());
        let context = request.context()?;
        require_writer(context, "volume action")?;
        let id: VolumeId = path_id(&request, "id", "Volume")?;
        match key.as_str() {
            "os-extend" => self.extend(&request, context, id, &fields).await,
            "os-set_bootable" => self.set_bootable(context, id, &fields).await,
            "os-update_readonly_flag" => self.set_readonly(context, id, &fields).await,
            "os-retype" => self.retype(context, id, &fields).await,
            "os-volume_upload_image" => self.upload(&request, context, id, &fields).await,
            "os-set_image_metadata" => self.set_image_metadata(context, id, &fields).await,
            "os-unset_image_metadata" => self.unset_image_metadata(context, id, &fields).await,
            "os-show_image_metadata" => self.show_image_metadata(context, id).await,
            "os-reimage" if request.version.at_least(68) => self.reimage(context, id, &fields).await,
            "os-reset_status" => self.reset(context, id, &fields).await,
            "os-force_delete" => {
                require_admin(context, "volume_extension:volume_admin_actions:force_delete")?;
                self.0.delete(context, id, false, true).await?;
                accepted()
            }
            "os-migrate_volume_completion" => self.complete_migration(context, id, &fields).await,
            "os-force_detach" => self.force_detach(context, id, &fields).await,
            "os-begin_detaching" => {
                self.0.begin_detaching(context, id).await?;
                accepted()
            }
            "os-roll_detaching" => {
                self.0.roll_detaching(context, id).await?;
                accepted()
            }
            "os-reserve" => {
                self.0.reserve_bare(context, id, true).await?;
                accepted()
            }
            "os-unreserve" => {
                self.0.reserve_bare(context, id, false).await?;
                accepted()
            }
            known if NOT_OFFERED.contains(&known) => {
                Err(ApiError::NotImplemented(format!("The action {known} is not offered by this service.")))
            }
            other => {
                let shown: String = other.chars().take(255).collect();
                Err(ApiError::bad_request(format!("There is no such action: {shown}")))
            }
        }
    }

    async fn extend(
        &self,
        request: &Request,
        context: &RequestContext,
        id: VolumeId,
        fields: &Fields,
    ) -> HandlerResult {
        let size = fields.number("new_size", 1)?;
        let size = size.ok_or_else(|| invalid("new_size", "'new_size' is a required property"))?;
        // While in use from 3.42 on.
        self.0.extend(context, id, size.unsigned_abs(), request.version.at_least(42)).await?;
        accepted()
    }

    async fn set_bootable(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let bootable = fields.flag("bootable")?;
        let bootable = bootable.ok_or_else(|| invalid("bootable", "'bootable' is a required property"))?;
        self.0.edit(context, id, VolumeEdit { bootable: Some(bootable), ..VolumeEdit::default() }).await?;
        Ok(Response::empty(StatusCode::OK))
    }

    async fn set_readonly(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let readonly = fields.flag("readonly")?;
        let readonly = readonly.ok_or_else(|| invalid("readonly", "'readonly' is a required property"))?;
        self.0.edit(context, id, VolumeEdit { readonly: Some(readonly), ..VolumeEdit::default() }).await?;
        accepted()
    }

    async fn retype(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let named = fields.text("new_type", 255)?;
        let named = named.ok_or_else(|| invalid("new_type", "'new_type' is a required property"))?;
        let policy = fields.text("migration_policy", 255)?;
        if policy.as_deref().is_some_and(|policy| !["never", "on-demand"].contains(&policy)) {
            return Err(invalid("migration_policy", "One of 'never', 'on-demand'"));
        }
        let to = self.0.volume_type(context, &named).await?;
        self.0.retype(context, id, &to).await?;
        accepted()
    }

    async fn upload(
        &self,
        request: &Request,
        context: &RequestContext,
        id: VolumeId,
        fields: &Fields,
    ) -> HandlerResult {
        let name = fields.text("image_name", 255)?;
        let name = name.ok_or_else(|| invalid("image_name", "'image_name' is a required property"))?;
        let disk_format = fields.text("disk_format", 255)?.unwrap_or_else(|| "raw".to_owned());
        let container = fields.text("container_format", 255)?;
        if container.as_deref().is_some_and(|container| container != "bare") {
            return Err(invalid("container_format", "Images are made with 'bare'"));
        }
        if fields.flag("protected")? == Some(true) {
            return Err(invalid("protected", "Protect the image once it is there"));
        }
        let visibility = match fields.text("visibility", 255)?.as_deref() {
            None | Some("private") => Visibility::Private,
            Some("shared") => Visibility::Shared,
            Some("community") => Visibility::Community,
            Some("public") => {
                require_admin(context, "volume_extension:volume_actions:upload_public")?;
                Visibility::Public
            }
            Some(_) => return Err(invalid("visibility", "One of 'private', 'shared', 'community', 'public'")),
        };
        let force = fields.flag("force")?.unwrap_or(false);
        let (volume, image) = self.0.upload(context, id, &name, &disk_format, visibility, force).await?;
        let names = type_names(&self.0).await?;
        let of = volume.volume_type_id.and_then(|id| names.get(&id).map(|name| json!({"id": id, "name": name})));
        let mut view = json!({
            "id": volume.id,
            "updated_at": api_time_micros(volume.updated_at),
            "status": volume.status,
            "display_description": volume.description,
            "size": volume.size_gb,
            "volume_type": of,
            "image_id": image.id,
            "container_format": "bare",
            "disk_format": disk_format,
            "image_name": name,
        });
        if request.version.at_least(1) {
            view["protected"] = json!(false);
            view["visibility"] = json!(visibility.as_str());
        }
        Ok(Response::json(StatusCode::ACCEPTED, &json!({ "os-volume_upload_image": view })))
    }

    /// 3.68; of a volume that is promised to a server only when the request says so.
    async fn reimage(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let image = fields.text("image_id", 255)?.and_then(|id| id.parse().ok());
        let image = image.ok_or_else(|| invalid("image_id", "it is not a 'uuid'"))?;
        let reserved = fields.flag("reimage_reserved")?.unwrap_or(false);
        self.0.reimage(context, id, image, reserved).await?;
        accepted()
    }

    async fn set_image_metadata(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let labels = fields.labels("metadata")?;
        let labels = labels.ok_or_else(|| invalid("metadata", "'metadata' is a required property"))?;
        let volume =
            self.0.edit(context, id, VolumeEdit { add_image_metadata: labels, ..VolumeEdit::default() }).await?;
        Ok(Response::json(StatusCode::OK, &json!({"metadata": volume.image_metadata})))
    }

    async fn unset_image_metadata(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        let key = fields.text("key", 255)?;
        let key = key.ok_or_else(|| invalid("key", "'key' is a required property"))?;
        let edit = VolumeEdit { remove_image_metadata: Some(key), ..VolumeEdit::default() };
        self.0.edit(context, id, edit).await?;
        Ok(Response::empty(StatusCode::OK))
    }

    async fn show_image_metadata(&self, context: &RequestContext, id: VolumeId) -> HandlerResult {
        let volume = self.0.volume(context, id).await?;
        Ok(Response::json(StatusCode::OK, &json!({"metadata": volume.image_metadata})))
    }

    async fn reset(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        require_admin(context, "volume_extension:volume_admin_actions:reset_status")?;
        let status = match fields.text("status", 255)? {
            Some(word) => {
                let status = VolumeStatus::parse(&word.to_ascii_lowercase());
                Some(
                    status
                        .ok_or_else(|| invalid("status", format_args!("Value: {word}. It is no state of a volume")))?,
                )
            }
            None => None,
        };
        let detached = match fields.text("attach_status", 255)?.as_deref() {
            None => false,
            Some("detached") => true,
            Some(other) => {
                return Err(invalid("attach_status", format_args!("Value: {other}. Only 'detached' can be set")));
            }
        };
        // Volumes are on no way, so that there is nothing to be taken back but that.
        let migration = fields.text("migration_status", 255)?;
        if migration.as_deref().is_some_and(|word| word != "none") {
            return Err(invalid("migration_status", "Only 'none' can be set"));
        }
        if status.is_none() && !detached && migration.is_none() {
            return Err(invalid("os-reset_status", "One of status, attach_status, migration_status is required"));
        }
        self.0.reset(context, id, Reset { status, detached }).await?;
        accepted()
    }

    /// What Nova asks once a server has the data of one volume on another (cinder/volume/manager.py): which one is its own
    /// now? Volumes are not moved here, so that it was a user's wish, and the new one is.
    async fn complete_migration(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        require_admin(context, "volume_extension:volume_admin_actions:migrate_volume_completion")?;
        let new: Option<VolumeId> = fields.id("new_volume")?;
        let new = new.ok_or_else(|| invalid("new_volume", "'new_volume' is a required property"))?;
        let failed = fields.flag("error")?.unwrap_or(false);
        let (old, new) = (self.0.volume(context, id).await?, self.0.volume(context, new).await?);
        let kept = if failed { old.id } else { new.id };
        Ok(Response::json(StatusCode::ACCEPTED, &json!({ "save_volume_id": kept })))
    }

    async fn force_detach(&self, context: &RequestContext, id: VolumeId, fields: &Fields) -> HandlerResult {
        require_admin(context, "volume_extension:volume_admin_actions:force_detach")?;
        let volume = self.0.volume(context, id).await?;
        let attachment: VolumeAttachmentId = match fields.id("attachment_id")? {
            Some(named) => named,
            None if volume.attachments.len() > 1 => {
                return Err(ApiError::bad_request(
                    "Detach volume failed: More than one attachment, but no attachment_id provided.",
                ));
            }
            None => match volume.attachments.keys().next() {
                Some(only) => *only,
                None => return Err(VolumeProblem::invalid("Volume must be attached.").into()),
            },
        };
        if !volume.attachments.contains_key(&attachment) {
            return Err(VolumeProblem::NoAttachment(attachment.to_string()).into());
        }
        self.0.release(context, attachment).await?;
        accepted()
    }
}
