//! `PUT /servers/{id}` (nova/api/openstack/compute/servers.py, `update`).

use std::sync::Arc;

use http::StatusCode;
use nova_core::ids::ZoneName;
use nova_core::instance::Instance;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::fields::{self, Addresses};
use super::view::Place;
use super::{Servers, instance_not_found, owner};
use crate::api::validate::{Fields, Text};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Response, policy};

/// How often a lost race is run again.
const ATTEMPTS: usize = 5;

/// What the body changes.
#[derive(Debug, Default)]
struct Changes {
    name: Option<String>,
    auto_disk_config: Option<bool>,
    addresses: Addresses,
    description: Option<Option<String>>,
    hostname: Option<String>,
    pinned_zone: Option<Option<String>>,
}

impl Servers {
    pub(super) async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let changes = parse(&body, request.version, request.lenient)?;
        let context = request.context()?;
        let id = request.param("id");
        for _ in 0..ATTEMPTS {
            let mut instance = self.api.visible_instance(context, id).await?;
            policy::enforce_on("os_compute_api:servers:update", context, owner(&instance))?;
            changes.apply(&mut instance)?;
            instance.updated_at = self.api.clock.now();
            match self.api.store.update_instance(instance).await {
                Ok(instance) => {
                    let server = self.api.shown(&request, &instance, Place::Update).await?;
                    return Ok(Response::json(StatusCode::OK, &json!({"server": server})));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict(format!("Instance {id} is being changed by others; try again.")))
    }
}

fn parse(body: &Value, version: Microversion, lenient: bool) -> Result<Changes, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let mut server = root.object("server")?;
    let mut changes = Changes {
        name: fields::name(&mut server, "name", lenient)?,
        auto_disk_config: fields::disk_config(&mut server)?,
        addresses: fields::addresses(&mut server)?,
        ..Changes::default()
    };
    if version.at_least(19) {
        changes.description = fields::description(&mut server)?;
    }
    if version.at_least(90) {
        changes.hostname = fields::hostname(&mut server, version)?;
    }
    if version.at_least(104) {
        let zone = server.nullable_text("pinned_availability_zone", Text::new(1, 255))?;
        changes.pinned_zone = zone.map(|zone| zone.map(str::to_owned));
    }
    server.finish()?;
    root.finish()?;
    Ok(changes)
}

impl Changes {
    fn apply(&self, instance: &mut Instance) -> Result<(), ApiError> {
        if let Some(name) = &self.name {
            instance.display_name.clone_from(name);
        }
        if let Some(auto) = self.auto_disk_config {
            instance.auto_disk_config = auto;
        }
        if self.addresses.v4.is_some() {
            instance.access_ip_v4.clone_from(&self.addresses.v4);
        }
        if self.addresses.v6.is_some() {
            instance.access_ip_v6.clone_from(&self.addresses.v6);
        }
        if let Some(description) = &self.description {
            instance.display_description.clone_from(description);
        }
        if let Some(hostname) = &self.hostname {
            instance.hostname.clone_from(hostname);
        }
        if let Some(zone) = &self.pinned_zone {
            pin(instance, zone.as_deref())?;
        }
        Ok(())
    }
}

/// A server can be unpinned, and pinned to where it is (2.104).
fn pin(instance: &mut Instance, zone: Option<&str>) -> Result<(), ApiError> {
    let Some(zone) = zone else {
        instance.pinned_availability_zone = None;
        return Ok(());
    };
    if let Some(pinned) = &instance.pinned_availability_zone {
        if pinned.as_str() == zone {
            return Ok(());
        }
        return Err(ApiError::conflict(
            "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null.",
        ));
    }
    let current = instance.availability_zone.as_ref().map_or("", |zone| zone.as_str());
    if current != zone {
        return Err(ApiError::Conflict(format!(
            "Server can only be pinned to its current availability zone '{current}', but '{zone}' was requested."
        )));
    }
    instance.pinned_availability_zone = Some(ZoneName::new(zone));
    Ok(())
}
