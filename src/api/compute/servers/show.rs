//! `GET /servers/{id}`, and what all answers about servers need to know of the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, StatusCode};
use nova_core::context::RequestContext;
use nova_core::host::Service;
use nova_core::ids::{HostName, ServerGroupId};
use nova_core::instance::Instance;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::networks::ServerNetworks;
use super::view::{self, Place, Sight, View};
use super::{Servers, owner};
use crate::api::compute::ComputeApi;
use crate::api::validate::known_query;
use crate::api::{ApiError, HandlerResult, Request, Response, policy};
use crate::waiting::waiting_of;

/// Tells administrators what a server waits for, and since when. The body is Nova's to the letter, and strict clients refuse
/// what they do not know there.
const WAITING_FOR: HeaderName = HeaderName::from_static("x-nova-waiting-for");

impl Servers {
    pub(super) async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        if request.version.at_least(102) {
            known_query(&request.query, &[])?;
        }
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on("os_compute_api:servers:show", context, owner(&instance))?;
        let server = self.api.shown(&request, &instance, Place::Show).await?;
        let answer = Response::json(StatusCode::OK, &json!({"server": server}));
        if !context.is_admin() {
            return Ok(answer);
        }
        let waiting = waiting_of(&*self.api.store, &instance).await?;
        let waiting: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        Ok(if waiting.is_empty() { answer } else { answer.header(WAITING_FOR, &waiting.join("; ")) })
    }
}

/// Compute services by host: what host states are made of.
pub(super) struct HostStates {
    services: BTreeMap<HostName, Service>,
}

/// What an answer shows beside the server itself.
pub(super) struct Shown<'a> {
    /// Which answer it is.
    pub(super) place: Place,
    /// Host states, if the caller may see them.
    pub(super) hosts: Option<&'a HostStates>,
    /// The server's group, where it is shown.
    pub(super) group: Option<ServerGroupId>,
    /// Its interfaces and security groups.
    pub(super) networks: &'a ServerNetworks,
}

impl ComputeApi {
    /// One server, as this caller sees it in that place.
    pub(super) async fn shown(&self, request: &Request, instance: &Instance, place: Place) -> Result<Value, ApiError> {
        let context = request.context()?;
        let hosts = self.host_states(request, context).await?;
        let group = if request.version.at_least(71) { self.group_of(instance).await? } else { None };
        let networks = &self.networks_of_one(context, instance).await?;
        Ok(self.rendered(request, context, instance, Shown { place, hosts: hosts.as_ref(), group, networks }))
    }

    /// The server group that a server is in, while both exist.
    async fn group_of(&self, instance: &Instance) -> Result<Option<ServerGroupId>, ApiError> {
        let Some(id) = instance.group().filter(|_| !instance.is_deleted()) else { return Ok(None) };
        match self.store.get_server_group(id).await {
            Ok(group) => Ok(group.members.contains(&instance.id).then_some(id)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Services, if the caller may see host states at this version (2.16).
    pub(super) async fn host_states(
        &self,
        request: &Request,
        context: &RequestContext,
    ) -> Result<Option<HostStates>, ApiError> {
        let sees =
            request.version.at_least(16) && policy::enforce("os_compute_api:servers:show:host_status", context).is_ok();
        if !sees {
            return Ok(None);
        }
        let compute = self.store.list_services().await?.into_iter().filter(|service| service.binary == "nova-compute");
        Ok(Some(HostStates { services: compute.map(|service| (service.host.clone(), service)).collect() }))
    }

    pub(super) fn rendered(
        &self,
        request: &Request,
        context: &RequestContext,
        instance: &Instance,
        shown: Shown<'_>,
    ) -> Value {
        let Shown { place, hosts, group, networks } = shown;
        let may = |rule| policy::allows(rule, context, owner(instance));
        let sight = Sight {
            extended_attributes: may("os_compute_api:os-extended-server-attributes"),
            extra_specs: may("os_compute_api:servers:show:flavor-extra-specs"),
            admin: context.is_admin(),
        };
        let host_status = hosts.map(|hosts| self.host_status(hosts, instance));
        let (version, base_url, options) = (request.version, request.base_url.as_str(), self.options.get());
        let name_template = options.instance_name_template.as_str();
        view::server(instance, &View { version, base_url, name_template, sight, place, host_status, group, networks })
    }

    /// nova/compute/api.py, `get_instance_host_status`.
    fn host_status(&self, hosts: &HostStates, instance: &Instance) -> &'static str {
        let Some(host) = &instance.host else { return "" };
        let Some(service) = hosts.services.get(host) else { return "UNKNOWN" };
        if service.forced_down {
            "DOWN"
        } else if !service.is_up(self.clock.now(), self.options.get().service_down_time) {
            "UNKNOWN"
        } else if service.disabled {
            "MAINTENANCE"
        } else {
            "UP"
        }
    }
}
