//! Volumes in somebody's hands (cinder/volume/api.py, the attachments API): promised, connected, in use, given back.

use nova_core::context::RequestContext;
use nova_core::ids::{InstanceId, VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::Connector;
use nova_core::volume::{
    AccessMode, Attachment, AttachmentStatus, Volume, VolumeEvent, VolumeProblem, VolumeStatus, VolumeTask, VolumeWork,
};
use nova_db::StoreError;

use super::change::{happen, in_a_pool};
use super::manager::{Intent, Look, Seen, absent};
use super::{VolumeError, VolumeManager};

fn none(id: VolumeAttachmentId) -> VolumeProblem {
    VolumeProblem::NoAttachment(id.to_string())
}

fn found(volume: &mut Volume, id: VolumeAttachmentId) -> Result<&mut Attachment, VolumeProblem> {
    volume.attachments.get_mut(&id).ok_or_else(|| none(id))
}

impl VolumeManager {
    /// The volume that has the attachment, and the attachment.
    ///
    /// # Errors
    /// There is none, or it is another project's.
    pub async fn attachment(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
    ) -> Result<(Volume, Attachment), VolumeError> {
        let volume = self.parts.store.volume_of_attachment(id).await.map_err(|error| absent(error, none(id)))?;
        let is_theirs = volume.project_id == context.project_id || context.is_admin();
        match volume.attachments.get(&id).filter(|_| is_theirs) {
            Some(attachment) => Ok((volume.clone(), attachment.clone())),
            None => Err(none(id).into()),
        }
    }

    /// Promises a volume to a server. The same server may have it a second time: on the way from host to host.
    ///
    /// # Errors
    /// Not in this state: others have it.
    pub async fn reserve(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        instance: Option<InstanceId>,
        mode: AccessMode,
    ) -> Result<(Volume, Attachment), VolumeError> {
        let id = VolumeAttachmentId::generate(&*self.parts.entropy);
        self.reserve_as(context, volume, id, instance, mode).await
    }

    /// The same by an id that the caller knows before: a repetition finds what was promised.
    ///
    /// # Errors
    /// As [`VolumeManager::reserve`].
    pub async fn reserve_as(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        id: VolumeAttachmentId,
        instance: Option<InstanceId>,
        mode: AccessMode,
    ) -> Result<(Volume, Attachment), VolumeError> {
        let decide = |mut seen: Seen| {
            let volume = &mut seen.volume;
            if volume.attachments.contains_key(&id) {
                return Ok(Intent::of(seen.volume));
            }
            if volume.readonly && mode == AccessMode::ReadWrite {
                return Err(VolumeProblem::invalid(format!(
                    "Volume {} is read-only: attach it with mode 'ro'.",
                    volume.id
                )));
            }
            let same = instance.is_some() && volume.attachments.values().any(|one| one.instance_id == instance);
            let shared = volume.multiattach || same;
            let attachment = Attachment {
                id,
                volume_id: volume.id,
                instance_id: instance,
                status: AttachmentStatus::Reserved,
                mode,
                mountpoint: None,
                connector: None,
                connection_info: None,
                attached_at: None,
                created_at: self.now(),
            };
            volume.attachments.insert(id, attachment);
            happen(volume, VolumeEvent::Reserve { shared })?;
            Ok(Intent::of(seen.volume))
        };
        let (volume, _) = self.change(context, volume, Look::Bare, decide).await?;
        let attachment = volume.attachments.get(&id).cloned().ok_or_else(|| none(id))?;
        Ok((volume, attachment))
    }

    /// Lets a host come to the volume, and says how. May be repeated by the same host; another one needs an attachment of its
    /// own.
    ///
    /// # Errors
    /// Another host has this attachment, or the volume host does not manage it.
    pub async fn connect(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
        connector: &Connector,
    ) -> Result<(Volume, Attachment), VolumeError> {
        let (volume, _) = self.attachment(context, id).await?;
        let decide = |mut seen: Seen| {
            let attachment = found(&mut seen.volume, id)?;
            if attachment.status == AttachmentStatus::Detaching {
                return Err(VolumeProblem::AttachmentStatus { attachment: id, found: attachment.status.as_str() });
            }
            if attachment.host().is_some_and(|host| host != connector.host.as_str()) {
                let text = format!("attachment {id} is of another host");
                return Err(VolumeProblem::invalid(text));
            }
            if attachment.status == AttachmentStatus::Reserved {
                attachment.status = AttachmentStatus::Attaching;
            }
            attachment.mountpoint = connector.mountpoint.clone().or(attachment.mountpoint.take());
            attachment.connector = Some(connector.clone());
            happen(&mut seen.volume, VolumeEvent::AttachmentMoved)?;
            let pool = in_a_pool(&seen.volume)?;
            let task = self.task(context, seen.volume.id, &pool, VolumeWork::Connect { attachment: id });
            let mut intent = Intent::of(seen.volume);
            intent.task = Some(task);
            Ok(intent)
        };
        let (_, task) = self.change(context, volume.id, Look::Bare, decide).await?;
        self.wait_for(task.as_ref()).await?;
        let (volume, attachment) = self.attachment(context, id).await?;
        if attachment.connection_info.is_none() {
            let fault = volume.fault.clone().unwrap_or_else(|| "it is not told why".to_owned());
            return Err(VolumeError::Failed { what: "connecting the volume", fault });
        }
        Ok((volume, attachment))
    }

    /// The server has it. May be repeated.
    ///
    /// # Errors
    /// No host has been let to it.
    pub async fn complete(
        &self,
        context: &RequestContext,
        id: VolumeAttachmentId,
        mountpoint: Option<&str>,
    ) -> Result<Volume, VolumeError> {
        let (volume, _) = self.attachment(context, id).await?;
        let decide = |mut seen: Seen| {
            let now = self.now();
            let attachment = found(&mut seen.volume, id)?;
            match attachment.status {
                AttachmentStatus::Attached => {}
                AttachmentStatus::Attaching if attachment.connection_info.is_some() => {
                    attachment.status = AttachmentStatus::Attached;
                    attachment.attached_at = Some(now);
                }
                other => return Err(VolumeProblem::AttachmentStatus { attachment: id, found: other.as_str() }),
            }
            if let Some(mountpoint) = mountpoint {
                attachment.mountpoint = Some(mountpoint.to_owned());
            }
            happen(&mut seen.volume, VolumeEvent::AttachmentMoved)?;
            Ok(Intent::of(seen.volume))
        };
        Ok(self.change(context, volume.id, Look::Bare, decide).await?.0)
    }

    /// Gives a volume back: no host comes to it by this attachment when this returns. May be repeated; an attachment that is
    /// gone is not found.
    ///
    /// # Errors
    /// The volume host does not manage it: it is seen to, and may be asked again.
    pub async fn release(&self, context: &RequestContext, id: VolumeAttachmentId) -> Result<Volume, VolumeError> {
        let (volume, _) = self.attachment(context, id).await?;
        let volume_id = volume.id;
        let decide = |mut seen: Seen| {
            let attachment = found(&mut seen.volume, id)?;
            let connected = attachment.connector.is_some();
            attachment.status = AttachmentStatus::Detaching;
            if !connected {
                seen.volume.attachments.remove(&id);
            }
            happen(&mut seen.volume, VolumeEvent::AttachmentGone)?;
            let pool = seen.volume.pool.clone().filter(|_| connected);
            let task = pool.map(|pool| self.task(context, volume_id, &pool, VolumeWork::Disconnect { attachment: id }));
            let superseded: Vec<VolumeTask> = seen.tasks.into_iter().filter(|task| is_about(task, id)).collect();
            let mut intent = Intent::of(seen.volume);
            intent.commit.tasks.extend(superseded.into_iter().map(nova_db::Write::Delete));
            intent.task = task;
            Ok(intent)
        };
        let (volume, task) = self.change(context, volume_id, Look::Whole, decide).await?;
        if task.is_none() {
            return Ok(volume);
        }
        self.wait_for(task.as_ref()).await?;
        let volume = self.parts.store.get_volume(volume_id).await?;
        if volume.attachments.contains_key(&id) {
            let fault = volume.fault.clone().unwrap_or_else(|| "it is not told why".to_owned());
            return Err(VolumeError::Failed { what: "disconnecting the volume", fault });
        }
        Ok(volume)
    }

    /// Reserves a volume for whoever has no attachment of its own (`os-reserve`), or gives that up.
    ///
    /// # Errors
    /// Not in this state.
    pub async fn reserve_bare(
        &self,
        context: &RequestContext,
        id: VolumeId,
        is_reserved: bool,
    ) -> Result<(), VolumeError> {
        let decide = |mut seen: Seen| {
            let bare = |one: &Attachment| one.instance_id.is_none() && one.status == AttachmentStatus::Reserved;
            let held = seen.volume.attachments.values().find(|one| bare(one)).map(|one| one.id);
            match (is_reserved, held) {
                (true, _) => {
                    let attachment = VolumeAttachmentId::generate(&*self.parts.entropy);
                    let attachment = Attachment {
                        id: attachment,
                        volume_id: id,
                        instance_id: None,
                        status: AttachmentStatus::Reserved,
                        mode: AccessMode::ReadWrite,
                        mountpoint: None,
                        connector: None,
                        connection_info: None,
                        attached_at: None,
                        created_at: self.now(),
                    };
                    seen.volume.attachments.insert(attachment.id, attachment);
                    let shared = seen.volume.multiattach;
                    happen(&mut seen.volume, VolumeEvent::Reserve { shared })?;
                }
                (false, Some(held)) => {
                    seen.volume.attachments.remove(&held);
                    happen(&mut seen.volume, VolumeEvent::AttachmentGone)?;
                }
                (false, None) if seen.volume.status == VolumeStatus::Reserved => {
                    return Err(VolumeProblem::invalid("It is reserved by an attachment: delete that."));
                }
                (false, None) => {}
            }
            Ok(Intent::of(seen.volume))
        };
        self.change(context, id, Look::Bare, decide).await.map(drop)
    }

    async fn wait_for(&self, task: Option<&VolumeTask>) -> Result<(), VolumeError> {
        match task {
            Some(task) => self.finish(task).await,
            None => Ok(()),
        }
    }

    /// All attachments of a server's, with their volumes.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn attachments_of(&self, instance: InstanceId) -> Result<Vec<Attachment>, StoreError> {
        let of_it = nova_db::ListQuery::of(nova_db::AttachmentField::InstanceId, instance);
        let found = self.parts.store.list_volume_attachments(&of_it).await?;
        Ok(found.into_iter().map(|(_, attachment)| attachment).collect())
    }
}

/// Is the task about connecting or disconnecting by this attachment?
fn is_about(task: &VolumeTask, id: VolumeAttachmentId) -> bool {
    matches!(task.work, VolumeWork::Connect { attachment } | VolumeWork::Disconnect { attachment } if attachment == id)
}
