//! Volumes of servers, looked at, plugged in and out (nova/api/openstack/compute/volume_attachments.py).

mod swap;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use nova_core::ids::{BlockDeviceId, VolumeId};
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_core::task::{Event, Task, Work};
use nova_core::volume::{BlockStorage, BlockStorageError, BlockVolume, ServerVolume, VolumeStatus, next_device};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::ComputeApi;
use super::servers::{Besides, Start, fields, owner};
use crate::api::validate::{Fields, boolean, invalid, known_query};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, policy, route};

const RULE_OF_SWAP: &str = "os_compute_api:os-volumes-attachments:swap";

/// A volume is waited for that long until it is promised to the server.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked, first and later.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// `/servers/{id}/os-volume_attachments`.
pub(super) struct VolumeAttachments {
    api: Arc<ComputeApi>,
}

impl VolumeAttachments {
    /// Volumes of this cloud's servers.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for VolumeAttachments {
    fn name(&self) -> &'static str {
        "os-volume_attachments"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/servers/{id}/os-volume_attachments";
        const ONE: &str = "/servers/{id}/os-volume_attachments/{volume}";
        vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
        ]
    }
}

/// What block storage says, as Nova answers it.
pub(super) fn refused(error: BlockStorageError) -> ApiError {
    match error {
        BlockStorageError::VolumeNotFound { .. }
        | BlockStorageError::SnapshotNotFound { .. }
        | BlockStorageError::AttachmentNotFound { .. } => ApiError::NotFound(error.to_string()),
        BlockStorageError::Invalid { message } => ApiError::BadRequest(message),
        BlockStorageError::OverQuota { message } => ApiError::OverQuota(message),
        BlockStorageError::Unsupported { .. } => ApiError::BadRequest(error.to_string()),
        BlockStorageError::Unavailable { source } => {
            tracing::warn!(error = &*source as &dyn std::error::Error, "block storage does not answer");
            ApiError::Unavailable { retry_after: 1 }
        }
        other => {
            tracing::warn!(error = &other as &dyn std::error::Error, "block storage failed");
            ApiError::internal("block storage failed")
        }
    }
}

/// A natural number of a query string; 0 if it is not there.
pub(super) fn number(query: &crate::api::Query, key: &str) -> Result<usize, ApiError> {
    let Some(text) = query.get(key) else { return Ok(0) };
    let wrong = |_| ApiError::BadRequest(format!("{key} param must be an integer"));
    text.parse().map_err(wrong)
}

fn not_attached(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::NotFound(format!("No volume Block Device Mapping with id {shown}."))
}

fn view(volume: &ServerVolume, server: &Instance, version: Microversion, made: bool) -> Value {
    let mut view = json!({"volumeId": volume.volume_id, "serverId": server.id});
    if let Some(device) = &volume.device {
        view["device"] = json!(device);
    }
    let new_form = version.at_least(89) && !made;
    if new_form {
        view["attachment_id"] = json!(volume.attachment(server.host.as_ref()));
        view["bdm_uuid"] = json!(volume.id);
    } else {
        view["id"] = json!(volume.volume_id);
    }
    if version.at_least(70) {
        view["tag"] = json!(volume.tag);
    }
    if version.at_least(79) {
        view["delete_on_termination"] = json!(volume.delete_on_termination);
    }
    view
}

/// What is asked for.
#[derive(Debug, Default)]
struct Wish {
    volume: Option<VolumeId>,
    tag: Option<String>,
    delete_on_termination: Option<bool>,
    /// What only says what is so already (2.85).
    same: Vec<(&'static str, Value)>,
}

fn uuid(key: &str, value: &Value) -> Result<VolumeId, ApiError> {
    let text = value.as_str().filter(|text| fields::is_uuid(text));
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(key, value, format_args!("{value} is not a 'uuid'")))
}

/// `^/dev/x?[a-z]?d?[a-z]+[0-9]*$`, as Nova's schema has it.
fn is_device(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("/dev/") else { return false };
    let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    !letters.is_empty() && letters.chars().all(|c| c.is_ascii_lowercase()) && text.len() <= 255
}

fn device(attachment: &mut Fields<'_>) -> Result<(), ApiError> {
    // As in Nova with libvirt, a name that is wished for is not had: guests count their disks by themselves.
    match attachment.get("device") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if is_device(text) => Ok(()),
        Some(value) => Err(invalid("device", value, "it is not the name of a device")),
    }
}

fn read_new(body: &Value, version: Microversion, lenient: bool) -> Result<Wish, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let mut attachment = root.object("volumeAttachment")?;
    let mut wish = Wish { volume: Some(uuid("volumeId", attachment.required("volumeId")?)?), ..Wish::default() };
    device(&mut attachment)?;
    if version.at_least(49) {
        wish.tag = attachment.get("tag").map(|tag| fields::tag("tag", tag)).transpose()?;
    }
    if version.at_least(79) {
        let flag = attachment.get("delete_on_termination");
        wish.delete_on_termination = flag.map(|value| boolean("delete_on_termination", value)).transpose()?;
    }
    attachment.finish()?;
    root.finish()?;
    Ok(wish)
}

fn read_change(body: &Value, version: Microversion, lenient: bool) -> Result<Wish, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let mut attachment = root.object("volumeAttachment")?;
    let mut wish = Wish { volume: Some(uuid("volumeId", attachment.required("volumeId")?)?), ..Wish::default() };
    if version.at_least(85) {
        for key in ["device", "tag", "serverId", "id"] {
            wish.same.extend(attachment.get(key).map(|value| (key, value.clone())));
        }
        let flag = attachment.get("delete_on_termination");
        wish.delete_on_termination = flag.map(|value| boolean("delete_on_termination", value)).transpose()?;
    }
    attachment.finish()?;
    root.finish()?;
    Ok(wish)
}

/// How names of disks begin on the bus that its image asks for.
fn prefix_for(server: &Instance) -> &'static str {
    match server.image_properties().get("hw_disk_bus").map_or("virtio", String::as_str) {
        "scsi" | "sata" | "usb" => "sd",
        "ide" => "hd",
        "xen" => "xvd",
        _ => "vd",
    }
}

/// The name of the disk that it boots from.
pub(super) fn root_device_for(server: &Instance) -> String {
    next_device(prefix_for(server), &[])
}

/// The next name of a disk of that server: those on its host come first.
pub(super) fn device_for(server: &Instance) -> String {
    let prefix = prefix_for(server);
    let local =
        usize::from(server.root_volume().is_none()) + server.ephemerals_gb().len() + usize::from(server.swap_mb() > 0);
    let mut taken: Vec<String> = server.volumes.iter().filter_map(|volume| volume.device.clone()).collect();
    for _ in 0..local {
        let all: Vec<&str> = taken.iter().map(String::as_str).collect();
        let own = next_device(prefix, &all);
        taken.push(own);
    }
    let all: Vec<&str> = taken.iter().map(String::as_str).collect();
    next_device(prefix, &all)
}

impl ComputeApi {
    /// Whoever keeps the volumes.
    ///
    /// # Errors
    /// 501 where nobody does.
    pub(super) fn block_storage(&self) -> Result<&dyn BlockStorage, ApiError> {
        let none = || ApiError::NotImplemented("There is no block storage service.".to_owned());
        self.volumes.as_deref().ok_or_else(none)
    }

    /// Waits until that step of a task is done, or the task is over. False: it lasts longer than anybody waits.
    pub(super) async fn until_done(&self, task: &Task, step: &str) -> Result<bool, ApiError> {
        let wait = async {
            let mut pause = FIRST_LOOK;
            loop {
                match self.store.get_task(task.id).await {
                    Ok(now) if now.log.iter().any(|one| one.step == step && one.event == Event::Done) => return Ok(()),
                    Ok(_) => {}
                    Err(StoreError::NotFound { .. }) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LAST_LOOK);
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(looked) => looked.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl VolumeAttachments {
    async fn server(&self, request: &Request, rule: &str) -> Result<Instance, ApiError> {
        let context = request.context()?;
        let server = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on(rule, context, owner(&server))?;
        Ok(server)
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        if request.version.at_least(75) {
            known_query(&request.query, &["limit", "offset"])?;
        }
        let limit = request.query.paging(self.api.options.get().max_limit)?.limit;
        let offset = number(&request.query, "offset")?;
        let server = self.server(&request, "os_compute_api:os-volumes-attachments:index").await?;
        let some = server.volumes.iter().skip(offset).take(limit);
        let views = some.map(|volume| view(volume, &server, request.version, false));
        Ok(Response::json(StatusCode::OK, &json!({ "volumeAttachments": views.collect::<Vec<_>>() })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let server = self.server(&request, "os_compute_api:os-volumes-attachments:show").await?;
        let volume = volume_of(&server, request.param("volume"))?;
        let view = view(volume, &server, request.version, false);
        Ok(Response::json(StatusCode::OK, &json!({ "volumeAttachment": view })))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        const RULE: &str = "os_compute_api:os-volumes-attachments:create";
        let body = request.json().await?;
        let wish = read_new(&body, request.version, request.lenient)?;
        let server = self.server(&request, RULE).await?;
        let id = wish.volume.ok_or_else(|| ApiError::internal("no volume is named"))?;
        let found = self.api.block_storage()?.volume(request.context()?, id).await.map_err(refused)?;
        self.check(&request, &server, &found, &wish)?;
        let device = BlockDeviceId::generate(&*self.api.entropy);
        let change = |server: &mut Instance, _: &mut Work| {
            if server.volumes.iter().any(|volume| volume.is_or_becomes(id)) {
                return Err(ApiError::BadRequest(format!("Invalid volume: volume {id} already attached")));
            }
            let name = device_for(server);
            server.volumes.push(ServerVolume {
                id: device,
                volume_id: id,
                make: None,
                holds: Vec::new(),
                device: Some(name),
                tag: wish.tag.clone(),
                boot_index: None,
                delete_on_termination: wish.delete_on_termination.unwrap_or(false),
                shareable: found.multiattach,
                read_only: found.readonly,
                swap: None,
            });
            Ok(())
        };
        let work = Work::AttachVolume { device };
        let start = Start { rule: RULE, action: Action::AttachVolume, work, supersede: false };
        let besides = Besides { change: Some(&change), ..Besides::default() };
        let task = self.api.begin_with(&request, start, besides).await?;
        let task = task.ok_or_else(|| ApiError::internal("a volume is plugged in without a task"))?;
        let (server, volume) = self.promised(&server, &task, device).await?;
        if request.version.at_least(101) {
            return Ok(Response::empty(StatusCode::ACCEPTED));
        }
        let mut view = view(&volume, &server, request.version, true);
        if view.get("device").is_none() {
            view["device"] = Value::Null;
        }
        Ok(Response::json(StatusCode::OK, &json!({ "volumeAttachment": view })))
    }

    /// What can be told before anything is begun.
    fn check(&self, request: &Request, server: &Instance, volume: &BlockVolume, wish: &Wish) -> Result<(), ApiError> {
        let bad = |text: String| Err(ApiError::BadRequest(text));
        if volume.multiattach && request.version.before(60) {
            return bad("Volume multiattach is not supported below compute API version 2.60.".to_owned());
        }
        if server.vm_state == VmState::ShelvedOffloaded {
            if volume.multiattach {
                return bad(
                    "Attaching multiattach volumes is not supported for shelved-offloaded instances.".to_owned()
                );
            }
            if wish.tag.is_some() {
                return bad("Tagged volume attachment is not supported for shelved-offloaded instances.".to_owned());
            }
        }
        if server.volume(volume.id).is_some() {
            return bad(format!("Invalid volume: volume {} already attached", volume.id));
        }
        let status = volume.status.map_or("unknown", VolumeStatus::as_str);
        let free = match volume.status {
            Some(VolumeStatus::Available) => true,
            Some(VolumeStatus::InUse | VolumeStatus::Attaching | VolumeStatus::Reserved) => volume.multiattach,
            _ => false,
        };
        if !free {
            return bad(format!(
                "Invalid input received: Invalid volume: Volume {} status must be available or downloading to reserve, but \
                 the current status is {status}.",
                volume.id
            ));
        }
        Ok(())
    }

    /// Waits until the volume is the server's, or why it is not.
    async fn promised(
        &self,
        server: &Instance,
        task: &Task,
        device: BlockDeviceId,
    ) -> Result<(Instance, ServerVolume), ApiError> {
        if !self.api.until_done(task, "reserve_volume").await? {
            return Err(ApiError::Unavailable { retry_after: 1 });
        }
        let now = self.api.store.get_instance(server.id).await?;
        let volume = now.volumes.iter().find(|volume| volume.id == device).cloned();
        volume.map(|volume| (now.clone(), volume)).ok_or_else(|| why_not(&now, task, "the volume was not attached"))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let version = request.version;
        let wish = read_change(&body, version, request.lenient)?;
        let swaps =
            version.before(85) || wish.volume.map(|id| id.to_string()).as_deref() != Some(request.param("volume"));
        let rule = if swaps { RULE_OF_SWAP } else { "os_compute_api:os-volumes-attachments:update" };
        let server = self.server(&request, rule).await?;
        if swaps {
            let new = wish.volume.ok_or_else(|| ApiError::internal("no volume is named"))?;
            return self.swap(&request, &server, new).await;
        }
        for _ in 0..5 {
            let mut server = self.server(&request, rule).await?;
            let known = volume_of(&server, request.param("volume"))?.clone();
            check_same(&server, &known, &wish)?;
            let Some(flag) = wish.delete_on_termination else { break };
            for volume in server.volumes.iter_mut().filter(|volume| volume.id == known.id) {
                volume.delete_on_termination = flag;
            }
            server.updated_at = self.api.clock.now();
            match self.api.store.update_instance(server).await {
                Ok(_) => return Ok(Response::empty(StatusCode::ACCEPTED)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if wish.delete_on_termination.is_none() {
            return Ok(Response::empty(StatusCode::ACCEPTED));
        }
        Err(ApiError::Conflict(format!("Instance {} is being changed by others; try again.", server.id)))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        const RULE: &str = "os_compute_api:os-volumes-attachments:delete";
        let server = self.server(&request, RULE).await?;
        let volume = volume_of(&server, request.param("volume"))?.clone();
        if volume.is_root() && server.vm_state != VmState::ShelvedOffloaded {
            return Err(ApiError::bad_request("Cannot detach a root device volume"));
        }
        let volume_id = volume.volume_id;
        let found = self.api.block_storage()?.volume(request.context()?, volume_id).await.map_err(refused)?;
        // One that many have is detaching for one and not for the others.
        if server.host.is_some() && found.status == Some(VolumeStatus::Detaching) && !found.multiattach {
            return Err(ApiError::BadRequest(format!(
                "Invalid input received: Invalid volume: Unable to detach volume. Volume status must be 'in-use' and \
                 attach_status must be 'attached' to detach. (volume {volume_id} is detaching)"
            )));
        }
        let work = Work::DetachVolume { volume_id };
        let start = Start { rule: RULE, action: Action::DetachVolume, work, supersede: false };
        let change = |server: &mut Instance, _: &mut Work| match volume_of(server, request.param("volume"))?.swap {
            Some(_) => Err(ApiError::Conflict(format!("The volume {volume_id} is being swapped for another one."))),
            None => Ok(()),
        };
        self.api.begin_with(&request, start, Besides { change: Some(&change), ..Besides::default() }).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}

/// The server's volume of that id.
fn volume_of<'a>(server: &'a Instance, id: &str) -> Result<&'a ServerVolume, ApiError> {
    let wanted: Option<VolumeId> = id.parse().ok();
    wanted.and_then(|id| server.volume(id)).ok_or_else(|| not_attached(id))
}

/// What cannot be changed must be as it is.
fn check_same(server: &Instance, volume: &ServerVolume, wish: &Wish) -> Result<(), ApiError> {
    for (key, said) in &wish.same {
        let is = match *key {
            "device" => json!(volume.device),
            "tag" => json!(volume.tag),
            "serverId" => json!(server.id),
            _ => json!(volume.volume_id),
        };
        if *said != is {
            return Err(ApiError::BadRequest(format!(
                "The value of '{key}' cannot be changed: it is {is} and not {said}."
            )));
        }
    }
    Ok(())
}

/// Why a task failed: what the server's fault says since then. `otherwise` is for what is nobody's fault that asked.
pub(super) fn why_not(server: &Instance, task: &Task, otherwise: &str) -> ApiError {
    let fault = server.fault.as_ref().filter(|fault| fault.created >= task.created_at);
    let (code, text) = match fault {
        Some(fault) => (fault.code, fault.message.clone()),
        None => (500, String::new()),
    };
    match code {
        400 => ApiError::BadRequest(text),
        403 => ApiError::OverQuota(text),
        404 => ApiError::NotFound(text),
        409 => ApiError::Conflict(text),
        _ => ApiError::internal(otherwise.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_novas_schema_has_them() {
        for good in ["/dev/vdb", "/dev/sda1", "/dev/xvdc", "/dev/hda"] {
            assert!(is_device(good), "{good}");
        }
        for bad in ["vdb", "/dev/", "/dev/VDB", "/dev/vd b", "/dev/../a", "/dev/1"] {
            assert!(!is_device(bad), "{bad}");
        }
    }
}
