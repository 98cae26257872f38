//! What compute asks for, asked of Cinder.

use async_trait::async_trait;
use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, InstanceId, ProjectId, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{AccessMode, ConnectionInfo, Connector};
use nova_core::volume::{
    BlockAttachment, BlockSnapshot, BlockSource, BlockStorage, BlockStorageError, BlockVolume, NewBlockSnapshot,
    NewBlockVolume,
};
use serde_json::{Value, json};

use super::CinderClient;
use super::wire::{AttachmentView, MARK, SnapshotView, TypeView, VolumeView};
use crate::outside::{Ask, OutsideError, Scope};

type Answer<T> = Result<T, BlockStorageError>;

/// Attachments are completed since 3.44; what was before is as it was.
const VERSION: &str = "volume 3.44";
/// An attachment says since 3.54 whether it writes.
const WITH_REIMAGE: &str = "volume 3.68";
const WITH_MODE: &str = "volume 3.54";

/// What Cinder said, about something that is meant by `what`.
fn told(what: &'static str) -> impl Fn(OutsideError) -> BlockStorageError {
    move |error| {
        if let OutsideError::Refused { status, kind, message, .. } = &error {
            if *status == StatusCode::PAYLOAD_TOO_LARGE || kind == "overLimit" {
                return BlockStorageError::OverQuota { message: message.clone() };
            }
            if *status == StatusCode::NOT_IMPLEMENTED {
                return BlockStorageError::Unsupported { what };
            }
            // It was tried: what cannot be reached answers otherwise.
            if *status == StatusCode::INTERNAL_SERVER_ERROR {
                return BlockStorageError::Failed { what, fault: message.clone() };
            }
        }
        match error.answer() {
            Some((_, message)) => BlockStorageError::Invalid { message: message.to_owned() },
            None => BlockStorageError::Unavailable { source: Box::new(error) },
        }
    }
}

/// The same where nothing is there.
fn missing(absent: BlockStorageError, what: &'static str) -> impl FnOnce(OutsideError) -> BlockStorageError {
    move |error| if error.is_not_found() { absent } else { told(what)(error) }
}

/// What is not there any more is gone.
fn gone(result: Result<Value, OutsideError>, what: &'static str) -> Answer<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(told(what)(error)),
        _ => Ok(()),
    }
}

fn no_volume(id: VolumeId) -> BlockStorageError {
    BlockStorageError::VolumeNotFound { id }
}

fn no_attachment(id: VolumeAttachmentId) -> BlockStorageError {
    BlockStorageError::AttachmentNotFound { id }
}

/// Hosts hand a volume's bytes to its guest as they are. Of an encrypted one these are not for it: it would read what nobody may
/// read, and write over it (OSSA-2018-001). So no server is promised one, however it comes by it.
fn encrypted(id: VolumeId) -> BlockStorageError {
    BlockStorageError::Invalid { message: format!("Volume {id} is encrypted, which hosts here cannot undo.") }
}

/// May whoever asks know of what is that project's? A Cinder that does not say whose it is lets us see ours only.
fn is_theirs(context: &RequestContext, project: Option<&ProjectId>) -> bool {
    context.is_admin() || project.is_none_or(|project| *project == context.project_id)
}

/// What is made is made in the project of whoever asks; the control plane by itself has none.
fn scope_of(context: &RequestContext) -> Scope {
    if context.project_id.as_str().is_empty() { Scope::Own } else { Scope::Of(context.project_id.clone()) }
}

impl CinderClient {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, OutsideError> {
        self.session.ask(Ask { version: Some(VERSION), ..Ask::default() }, method, path, body).await
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, OutsideError> {
        self.session.list(Ask { version: Some(VERSION), ..Ask::default() }, collection, key, query).await
    }

    async fn seen(&self, context: &RequestContext, id: VolumeId) -> Answer<VolumeView> {
        const WHAT: &str = "show a volume";
        let path = format!("/volumes/{id}");
        let answer = self.ask(Method::GET, &path, None).await.map_err(missing(no_volume(id), WHAT))?;
        let view: VolumeView = self.session.read(&path, answer, "volume").map_err(told(WHAT))?;
        if is_theirs(context, view.project.as_ref()) { Ok(view) } else { Err(no_volume(id)) }
    }

    async fn snapshot_seen(&self, context: &RequestContext, id: VolumeSnapshotId) -> Answer<SnapshotView> {
        const WHAT: &str = "show a snapshot";
        let absent = || BlockStorageError::SnapshotNotFound { id };
        let path = format!("/snapshots/{id}");
        let answer = self.ask(Method::GET, &path, None).await.map_err(missing(absent(), WHAT))?;
        let view: SnapshotView = self.session.read(&path, answer, "snapshot").map_err(told(WHAT))?;
        if is_theirs(context, view.project.as_ref()) { Ok(view) } else { Err(absent()) }
    }

    /// Attachments say not whose they are: their volumes do.
    async fn attachment_is_theirs(&self, context: &RequestContext, id: VolumeAttachmentId) -> Answer<()> {
        const WHAT: &str = "show an attachment";
        if context.is_admin() {
            return Ok(());
        }
        let path = format!("/attachments/{id}");
        let answer = self.ask(Method::GET, &path, None).await.map_err(missing(no_attachment(id), WHAT))?;
        let view: AttachmentView = self.session.read(&path, answer, "attachment").map_err(told(WHAT))?;
        match self.seen(context, view.volume_id).await {
            Err(BlockStorageError::VolumeNotFound { .. }) => Err(no_attachment(id)),
            seen => seen.map(drop),
        }
    }

    async fn listed(&self, query: &[(&str, &str)]) -> Answer<Vec<AttachmentView>> {
        let query: Vec<_> = query.iter().copied().chain([("all_tenants", "1")]).collect();
        self.list("attachments", "attachments", &query).await.map_err(told("list attachments"))
    }

    async fn act(&self, id: VolumeId, body: &Value, what: &'static str) -> Answer<Value> {
        let acted = self.ask(Method::POST, &format!("/volumes/{id}/action"), Some(body)).await;
        acted.map_err(missing(no_volume(id), what))
    }
}

#[async_trait]
impl BlockStorage for CinderClient {
    async fn volume(&self, context: &RequestContext, id: VolumeId) -> Answer<BlockVolume> {
        Ok(self.seen(context, id).await?.into_volume())
    }

    async fn volumes(&self, context: &RequestContext) -> Answer<Vec<BlockVolume>> {
        let query = [("all_tenants", "1"), ("project_id", context.project_id.as_str()), ("sort", "created_at:asc")];
        let found: Vec<VolumeView> =
            self.list("volumes/detail", "volumes", &query).await.map_err(told("list volumes"))?;
        // Never more than was asked for, whatever that Cinder makes of its filters.
        let theirs = found.into_iter().filter(|view| view.project.as_ref() == Some(&context.project_id));
        Ok(theirs.map(VolumeView::into_volume).collect())
    }

    async fn snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Answer<BlockSnapshot> {
        Ok(self.snapshot_seen(context, id).await?.into_snapshot())
    }

    async fn snapshots(&self, context: &RequestContext) -> Answer<Vec<BlockSnapshot>> {
        let query = [("all_tenants", "1"), ("project_id", context.project_id.as_str()), ("sort", "created_at:asc")];
        let found: Vec<SnapshotView> =
            self.list("snapshots/detail", "snapshots", &query).await.map_err(told("list snapshots"))?;
        let theirs = found.into_iter().filter(|view| view.project.as_ref() == Some(&context.project_id));
        Ok(theirs.map(SnapshotView::into_snapshot).collect())
    }

    async fn has_type(&self, context: &RequestContext, name: &str) -> Answer<bool> {
        let scope = scope_of(context);
        let how = Ask { scope: &scope, version: Some(VERSION) };
        let types: Vec<TypeView> =
            self.session.list(how, "types", "volume_types", &[]).await.map_err(told("list types of volumes"))?;
        Ok(types.iter().any(|of| of.name == name || of.id == name))
    }

    async fn create(&self, context: &RequestContext, new: NewBlockVolume) -> Answer<BlockVolume> {
        const WHAT: &str = "create a volume";
        let scope = scope_of(context);
        let how = Ask { scope: &scope, version: Some(VERSION) };
        let mark = json!({MARK: new.key}).to_string();
        let made = self.session.list::<VolumeView>(how, "volumes/detail", "volumes", &[("metadata", &mark)]).await;
        if let Some(made) = made.map_err(told(WHAT))?.into_iter().find(|view| view.is_marked(new.key)) {
            return Ok(made.into_volume());
        }
        let mut metadata = new.metadata;
        metadata.insert(MARK.to_owned(), new.key.to_string());
        let mut volume = json!({
            "size": new.size_gb,
            "name": new.name,
            "description": new.description,
            "volume_type": new.volume_type,
            "availability_zone": new.availability_zone,
            "metadata": metadata,
        });
        match new.source {
            BlockSource::Empty => {}
            BlockSource::Image(id) => volume["imageRef"] = json!(id),
            BlockSource::Snapshot(id) => volume["snapshot_id"] = json!(id),
        }
        let answer = self.session.ask(how, Method::POST, "/volumes", Some(&json!({ "volume": volume }))).await;
        let answer = answer.map_err(|error| match new.source {
            BlockSource::Snapshot(id) if error.is_not_found() => BlockStorageError::SnapshotNotFound { id },
            _ => told(WHAT)(error),
        })?;
        let view: VolumeView = self.session.read("/volumes", answer, "volume").map_err(told(WHAT))?;
        Ok(view.into_volume())
    }

    async fn reimage(&self, context: &RequestContext, volume: VolumeId, image: ImageId) -> Answer<()> {
        const WHAT: &str = "write an image onto a volume";
        if self.seen(context, volume).await?.status == "downloading" {
            return Ok(());
        }
        let body = json!({"os-reimage": {"image_id": image, "reimage_reserved": true}});
        let how = Ask { version: Some(WITH_REIMAGE), ..Ask::default() };
        let asked = self.session.ask(how, Method::POST, &format!("/volumes/{volume}/action"), Some(&body)).await;
        asked.map(drop).map_err(missing(no_volume(volume), WHAT))
    }

    async fn delete(&self, context: &RequestContext, id: VolumeId) -> Answer<()> {
        match self.seen(context, id).await {
            Err(BlockStorageError::VolumeNotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
            Ok(view) if view.status == "deleting" => return Ok(()),
            Ok(_) => {}
        }
        gone(self.ask(Method::DELETE, &format!("/volumes/{id}"), None).await, "delete a volume")
    }

    async fn reserve(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        _key: VolumeAttachmentId,
        instance: InstanceId,
        mode: AccessMode,
    ) -> Answer<BlockAttachment> {
        const WHAT: &str = "reserve a volume";
        if self.seen(context, volume).await?.encrypted {
            return Err(encrypted(volume));
        }
        let (of_volume, of_server) = (volume.to_string(), instance.to_string());
        let there = self.listed(&[("volume_id", &of_volume), ("instance_id", &of_server)]).await?;
        let promised = there.iter().filter(|view| view.status == "reserved").map(AttachmentView::to_attachment);
        let is_it = |one: &BlockAttachment| one.volume_id == volume && one.instance_id == Some(instance);
        if let Some(promised) = promised.into_iter().find(is_it) {
            return Ok(promised);
        }
        let mut body = json!({"volume_uuid": volume, "instance_uuid": instance});
        let mut version = VERSION;
        if mode == AccessMode::ReadOnly {
            (body["mode"], version) = (json!(mode.as_str()), WITH_MODE);
        }
        let how = Ask { version: Some(version), ..Ask::default() };
        let answer = self.session.ask(how, Method::POST, "/attachments", Some(&json!({ "attachment": body }))).await;
        let answer = answer.map_err(missing(no_volume(volume), WHAT))?;
        let view: AttachmentView = self.session.read("/attachments", answer, "attachment").map_err(told(WHAT))?;
        Ok(view.to_attachment())
    }

    async fn connect(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
        connector: &Connector,
    ) -> Answer<ConnectionInfo> {
        const WHAT: &str = "connecting the volume";
        self.attachment_is_theirs(context, id).await?;
        let (path, body) = (format!("/attachments/{id}"), json!({"attachment": {"connector": connector}}));
        let answer = self.ask(Method::PUT, &path, Some(&body)).await.map_err(missing(no_attachment(id), WHAT))?;
        let view: AttachmentView = self.session.read(&path, answer, "attachment").map_err(told(WHAT))?;
        connection(view)
    }

    /// Cinder learns of the device by the connector.
    async fn complete(&self, context: &RequestContext, id: VolumeAttachmentId, _device: Option<&str>) -> Answer<()> {
        self.attachment_is_theirs(context, id).await?;
        let asked =
            self.ask(Method::POST, &format!("/attachments/{id}/action"), Some(&json!({"os-complete": {}}))).await;
        asked.map(drop).map_err(missing(no_attachment(id), "complete an attachment"))
    }

    async fn release(&self, context: &RequestContext, id: VolumeAttachmentId) -> Answer<()> {
        match self.attachment_is_theirs(context, id).await {
            Err(BlockStorageError::AttachmentNotFound { .. }) => return Ok(()),
            theirs => theirs?,
        }
        gone(self.ask(Method::DELETE, &format!("/attachments/{id}"), None).await, "disconnecting the volume")
    }

    async fn attachments_of(&self, _context: &RequestContext, instance: InstanceId) -> Answer<Vec<BlockAttachment>> {
        let found = self.listed(&[("instance_id", &instance.to_string())]).await?;
        let all = found.iter().map(AttachmentView::to_attachment);
        Ok(all.filter(|one| one.instance_id == Some(instance)).collect())
    }

    async fn attachments(&self, _context: &RequestContext) -> Answer<Vec<BlockAttachment>> {
        let found = self.listed(&[]).await?;
        Ok(found.iter().map(AttachmentView::to_attachment).filter(|one| one.instance_id.is_some()).collect())
    }

    async fn begin_detaching(&self, context: &RequestContext, id: VolumeId) -> Answer<()> {
        if self.seen(context, id).await?.status == "detaching" {
            return Ok(());
        }
        self.act(id, &json!({"os-begin_detaching": null}), "begin to detach a volume").await.map(drop)
    }

    async fn roll_detaching(&self, context: &RequestContext, id: VolumeId) -> Answer<()> {
        if self.seen(context, id).await?.status != "detaching" {
            return Ok(());
        }
        self.act(id, &json!({"os-roll_detaching": null}), "keep a volume").await.map(drop)
    }

    async fn take_snapshot(&self, context: &RequestContext, new: NewBlockSnapshot) -> Answer<BlockSnapshot> {
        const WHAT: &str = "take a snapshot";
        let volume = new.volume_id;
        self.seen(context, volume).await?;
        if let Some(taken) = self.snapshot_of_key(context, volume, new.key).await? {
            return Ok(taken);
        }
        let scope = scope_of(context);
        let how = Ask { scope: &scope, version: Some(VERSION) };
        let body = json!({"snapshot": {
            "volume_id": volume, "name": new.name, "description": new.description, "force": true,
            "metadata": {MARK: new.key},
        }});
        let answer = self.session.ask(how, Method::POST, "/snapshots", Some(&body)).await;
        let answer = answer.map_err(missing(no_volume(volume), WHAT))?;
        let view: SnapshotView = self.session.read("/snapshots", answer, "snapshot").map_err(told(WHAT))?;
        Ok(view.into_snapshot())
    }

    async fn snapshot_of_key(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        key: VolumeSnapshotId,
    ) -> Answer<Option<BlockSnapshot>> {
        let id = volume.to_string();
        let query = [("all_tenants", "1"), ("volume_id", &*id)];
        let found: Vec<SnapshotView> =
            self.list("snapshots/detail", "snapshots", &query).await.map_err(told("list snapshots"))?;
        let mut theirs = found.into_iter().filter(|view| is_theirs(context, view.project.as_ref()));
        Ok(theirs.find(|view| view.is_marked(volume, key)).map(SnapshotView::into_snapshot))
    }

    async fn delete_snapshot(&self, context: &RequestContext, id: VolumeSnapshotId) -> Answer<()> {
        match self.snapshot_seen(context, id).await {
            Err(BlockStorageError::SnapshotNotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
            Ok(view) if view.status == "deleting" => return Ok(()),
            Ok(_) => {}
        }
        gone(self.ask(Method::DELETE, &format!("/snapshots/{id}"), None).await, "delete a snapshot")
    }

    async fn swapped(&self, context: &RequestContext, old: VolumeId, new: VolumeId) -> Answer<VolumeId> {
        const WHAT: &str = "swap volumes";
        self.seen(context, old).await?;
        let body = json!({"os-migrate_volume_completion": {"new_volume": new, "error": false}});
        let answer = self.act(old, &body, WHAT).await?;
        self.session.read("os-migrate_volume_completion", answer, "save_volume_id").map_err(told(WHAT))
    }
}

/// How a host comes to the volume, if that is a way that hosts here know.
fn connection(view: AttachmentView) -> Answer<ConnectionInfo> {
    let failed = |fault: String| BlockStorageError::Failed { what: "connecting the volume", fault };
    let mut info = view.connection_info.ok_or_else(|| failed("Cinder did not say how".to_owned()))?;
    // One that was promised before it was known to be: see `encrypted`.
    if info["encrypted"] == json!(true) {
        return Err(failed("it is encrypted, which hosts here cannot undo".to_owned()));
    }
    let protocol = info["driver_volume_type"].as_str().unwrap_or("none").to_owned();
    if let Some(map) = info.as_object_mut() {
        map.insert("volume_id".to_owned(), json!(view.volume_id));
    }
    // What is wrong is told without the values: passwords are among them.
    serde_json::from_value(info)
        .map_err(|_| failed(format!("hosts here do not know this way to it (driver_volume_type {protocol})")))
}
