//! `shelve`, `shelveOffload`, `unshelve` (nova/api/openstack/compute/shelve.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::ids::{ImageId, ZoneName};
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState, decide};
use nova_core::task::Move;
use serde_json::Value;

use super::Moves;
use super::begin::{self, Begun, spec_of};
use crate::api::compute::servers::{Servers, refused};
use crate::api::validate::{Fields, Text, text};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};
use crate::conductor::SHELVED_IMAGE;

/// Names of hosts and zones.
const NAME: Text = Text::new(1, 255);

impl Moves {
    /// Describes the image with the begin: what is not begun leaves no image.
    pub(super) async fn shelve(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let instance = self.check_policy(&request, "os_compute_api:os-shelve:shelve").await?;
        let context = request.context()?;
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(Action::Shelve, &situation).map_err(|refusal| refused(&refusal, request.param("id")))?;
        if instance.root_volume().is_some() {
            self.begin_move(&request, &begin::Wish::ShelveVolume).await?;
            return Ok(Response::empty(StatusCode::ACCEPTED));
        }
        let servers = Servers::new(Arc::clone(&self.api));
        let image = servers.shelved(context, &instance);
        self.begin_move(&request, &begin::Wish::Shelve(Box::new(image))).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn shelve_offload(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.check_policy(&request, "os_compute_api:os-shelve:shelve_offload").await?;
        self.begin_move(&request, &begin::Wish::ShelveOffload).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn unshelve(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let wish = Wish::read(&request, &body)?;
        self.check_policy(&request, "os_compute_api:os-shelve:unshelve").await?;
        if wish.host.is_some() {
            policy::enforce("os_compute_api:os-shelve:unshelve_to_host", request.context()?)?;
        }
        self.begin_move(&request, &begin::Wish::Unshelve(wish)).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn make_unshelve(&self, wish: &Wish, instance: &mut Instance) -> Result<Begun, ApiError> {
        let kept = instance.system_metadata.get(SHELVED_IMAGE);
        let image_id: Option<ImageId> = kept.and_then(|id| id.parse().ok());
        if instance.vm_state != VmState::ShelvedOffloaded {
            if wish.host.is_some() || wish.zone != Zone::Unsaid {
                let text = "A server's zone or host can be named only once it has left its host.";
                return Err(ApiError::Conflict(text.to_owned()));
            }
            return Ok(Begun { work: Move::Unshelve { spec: None, image_id }, migration: None });
        }
        match &wish.zone {
            Zone::Unsaid => {}
            Zone::Unpinned => instance.pinned_availability_zone = None,
            Zone::Named(zone) => {
                let known = self.api.zones().await?.hosts_in(zone).next().is_some()
                    || self.api.store.list_nodes().await?.iter().any(|node| node.zone == *zone);
                if !known {
                    let text = format!("The requested availability zone is not available: {zone}");
                    return Err(ApiError::BadRequest(text));
                }
                instance.pinned_availability_zone = Some(zone.clone());
            }
        }
        let named = wish.host.as_deref().unwrap_or_default();
        let unknown = || format!("Compute host {named} could not be found.");
        let host = self.api.named_host(instance, wish.host.as_deref(), String::new, unknown).await?;
        let spec = Some(spec_of(instance, &instance.flavor.clone(), host, false));
        Ok(Begun { work: Move::Unshelve { spec, image_id }, migration: None })
    }
}

/// Which zone it is to come back in.
#[derive(Debug, PartialEq)]
enum Zone {
    /// Where it was, if it was bound to one.
    Unsaid,
    /// Any, from now on (2.91).
    Unpinned,
    /// That one, from now on.
    Named(ZoneName),
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wish {
    zone: Zone,
    host: Option<String>,
}

impl Wish {
    fn read(request: &Request, body: &Value) -> Result<Self, ApiError> {
        let version = request.version;
        if version.before(77) || body.is_null() {
            return Ok(Self { zone: Zone::Unsaid, host: None });
        }
        let mut fields = Fields::of("unshelve", body, request.lenient)?;
        let zone = match fields.get("availability_zone") {
            None => Zone::Unsaid,
            Some(Value::Null) if version.at_least(91) => Zone::Unpinned,
            Some(value) => Zone::Named(ZoneName::new(text("availability_zone", value, NAME)?)),
        };
        let host = match fields.get("host").filter(|_| version.at_least(91)) {
            None => None,
            Some(value) => Some(text("host", value, NAME)?.to_owned()),
        };
        if zone == Zone::Unsaid && host.is_none() {
            let wanted = if version.before(91) {
                "'availability_zone' is a required property"
            } else {
                "{} does not have enough properties"
            };
            return Err(fields.refuse(wanted));
        }
        fields.finish()?;
        Ok(Self { zone, host })
    }
}
