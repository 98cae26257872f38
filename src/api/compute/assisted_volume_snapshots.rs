//! `/os-assisted-volume-snapshots`: a block storage service asks that a host snapshot a volume which only it can
//! (nova/api/openstack/compute/assisted_volume_snapshots.py): Cinder's drivers of shared file systems do, for a volume whose file
//! a guest has open. No such volume is attached here (`nfs`, `glusterfs`, …): what hosts attach is snapshotted by its own service,
//! and a request for it is refused as not supported.

use std::sync::Arc;

use http::Method;
use nova_core::ids::InstanceId;
use nova_core::volume::BlockStorageError;
use serde_json::{Value, json};

use super::ComputeApi;
use super::input::{invalid_query, single_query, strict_query, under};
use super::volume_attachments::refused;
use crate::api::policy::enforce;
use crate::api::validate::{Shown, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};

/// The resource.
pub(super) struct AssistedVolumeSnapshots {
    api: Arc<ComputeApi>,
}

impl AssistedVolumeSnapshots {
    /// On these collaborators.
    pub(super) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-assisted-volume-snapshots:create", request.context()?)?;
        let body = request.json().await?;
        let mut snapshot = under(&body, "snapshot", request.lenient)?;
        let some = Text::new(1, usize::MAX);
        let volume = snapshot.required_text("volume_id", some)?;
        let mut info = snapshot.object("create_info")?;
        info.required_text("snapshot_id", some)?;
        let kind = info.required("type")?;
        if kind.as_str() != Some("qcow2") {
            return Err(invalid("type", kind, format_args!("'{}' is not one of ['qcow2']", Shown(kind))));
        }
        info.required_text("new_file", some)?;
        info.text("id", some)?;
        info.finish()?;
        snapshot.finish()?;
        Err(self.refusal(&request, volume).await)
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-assisted-volume-snapshots:delete", request.context()?)?;
        strict_query(&request, 75, &["delete_info"])?;
        single_query(&request, &["delete_info"])?;
        let text = request
            .query
            .get("delete_info")
            .ok_or_else(|| invalid_query("delete_info", "", "'delete_info' is a required property"))?;
        let info: Value = serde_json::from_str(text)
            .map_err(|_| invalid_query("delete_info", &Shown(&json!(text)).to_string(), "it is no JSON"))?;
        let volume = info.get("volume_id").and_then(Value::as_str);
        Err(self.refusal(&request, volume.ok_or_else(|| ApiError::bad_request("'volume_id'"))?).await)
    }

    /// Why nothing is done with the volume.
    async fn refusal(&self, request: &Request, volume: &str) -> ApiError {
        match self.servers_of(request, volume).await {
            Err(error) => error,
            Ok(servers) => match servers[..] {
                [] => no_such_volume(volume),
                [server] => ApiError::NotImplemented(format!(
                    "Volume {volume} of instance {server} is snapshotted by its own service; its host does not assist."
                )),
                _ => ApiError::BadRequest(format!(
                    "Block Device Mapping {volume} is a multi-attach volume and is not valid for this operation."
                )),
            },
        }
    }

    /// The servers that have the volume.
    async fn servers_of(&self, request: &Request, volume: &str) -> Result<Vec<InstanceId>, ApiError> {
        let Ok(id) = volume.parse() else { return Ok(Vec::new()) };
        let found = match self.api.block_storage()?.volume(request.context()?, id).await {
            Ok(found) => found,
            Err(BlockStorageError::VolumeNotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(refused(error)),
        };
        let mut servers: Vec<InstanceId> = found.attachments.iter().filter_map(|one| one.instance_id).collect();
        servers.sort_unstable();
        servers.dedup();
        Ok(servers)
    }
}

impl Resource for AssistedVolumeSnapshots {
    fn name(&self) -> &'static str {
        "os-assisted-volume-snapshots"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::POST, "/os-assisted-volume-snapshots", &self, Self::create),
            route(Method::DELETE, "/os-assisted-volume-snapshots/{id}", &self, Self::delete),
        ]
    }
}

fn no_such_volume(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::BadRequest(format!("No volume Block Device Mapping with id {id}."))
}
