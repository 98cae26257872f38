//! Servers (nova/api/openstack/compute/servers.py).
//!
//! | file | what |
//! |---|---|
//! | `body`, `fields`, `mapping` | reading of bodies, as strict as Nova's schemas |
//! | `networks` | what a create request asks of the network; addresses and groups of servers |
//! | `resolve` | what a create request refers to |
//! | `disks` | its volumes: looked up, or to be made
//! | `create` | the write of a create request |
//! | `filters`, `list` | lists |
//! | `view` | how a server is shown at every version |
//! | `actions` | start, stop, reboot, delete; how any action begins |
//! | `edit` | changes that need no task |
//! | `rescue`, `rebuild` | from another image, or made anew; passwords |
//! | `snapshot` | images of servers |
//! | `power` | pause, suspend, deferred deletion, crash dumps |
//! | `update`, `console`, `diagnostics`, `ips` | the rest |

mod actions;
mod body;
mod console;
mod create;
mod diagnostics;
mod disks;
mod edit;
pub(super) mod fields;
mod filters;
mod ips;
mod list;
mod local_disks;
mod mapping;
pub(super) mod networks;
mod power;
mod rebuild;
mod rescue;
mod resolve;
mod show;
mod snapshot;
mod sorting;
mod update;
pub mod view;

use std::sync::Arc;

pub(super) use actions::{Besides, Start, refused};
pub(super) use create::{action_record, new_password};
pub(super) use edit::Edit;
pub(super) use list::parse_time;
pub use networks::ServerNetworks;

use http::Method;
use nova_core::context::RequestContext;
use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_db::StoreError;

use super::ComputeApi;
use crate::api::microversion::until;
use crate::api::{ApiError, Resource, Route, ServerAction, action, policy, route};

/// `/servers` and below.
pub struct Servers {
    api: Arc<ComputeApi>,
}

impl Servers {
    /// Servers of this cloud.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for Servers {
    fn name(&self) -> &'static str {
        "servers"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALIAS: &str = "/os-volumes_boot";
        const ONE_ALIAS: &str = "/os-volumes_boot/{id}";
        let alias = vec![
            route(Method::POST, ALIAS, &self, Self::create),
            route(Method::GET, ALIAS, &self, Self::index),
            route(Method::GET, "/os-volumes_boot/detail", &self, Self::detail),
            route(Method::GET, ONE_ALIAS, &self, Self::show),
            route(Method::PUT, ONE_ALIAS, &self, Self::update),
            route(Method::DELETE, ONE_ALIAS, &self, Self::delete),
        ];
        // The other name of servers, until 2.102.
        let alias = alias.into_iter().map(|route| route.versions(until(102)));
        let routes = vec![
            route(Method::POST, "/servers", &self, Self::create),
            route(Method::GET, "/servers", &self, Self::index),
            route(Method::GET, "/servers/detail", &self, Self::detail),
            route(Method::GET, "/servers/{id}", &self, Self::show),
            route(Method::PUT, "/servers/{id}", &self, Self::update),
            route(Method::DELETE, "/servers/{id}", &self, Self::delete),
            route(Method::GET, "/servers/{id}/diagnostics", &self, Self::diagnostics),
            route(Method::GET, "/servers/{id}/ips", &self, Self::list_addresses),
            route(Method::GET, "/servers/{id}/ips/{network}", &self, Self::show_addresses),
        ];
        routes.into_iter().chain(alias).collect()
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("reboot", &self, Self::reboot),
            action("os-start", &self, Self::start),
            action("os-stop", &self, Self::stop),
            action("os-getConsoleOutput", &self, Self::console_output),
            action("pause", &self, Self::pause),
            action("unpause", &self, Self::unpause),
            action("suspend", &self, Self::suspend),
            action("resume", &self, Self::resume),
            action("restore", &self, Self::restore),
            action("forceDelete", &self, Self::force_delete),
            action("rescue", &self, Self::rescue),
            action("unrescue", &self, Self::unrescue),
            action("changePassword", &self, Self::change_password),
            action("rebuild", &self, Self::rebuild),
            action("createImage", &self, Self::create_image),
            action("createBackup", &self, Self::create_backup),
            action("trigger_crash_dump", &self, Self::trigger_crash_dump).versions(17..=u16::MAX),
        ]
    }
}

impl ComputeApi {
    /// A live server that this caller may know of.
    ///
    /// # Errors
    /// 404 for everything else.
    pub async fn visible_instance(&self, context: &RequestContext, id: &str) -> Result<Instance, ApiError> {
        let instance = self.visible_or_deleted_instance(context, id).await?;
        if instance.is_deleted() { Err(instance_not_found(id)) } else { Ok(instance) }
    }

    /// The same, deleted ones included, as actions are shown of them (2.21).
    ///
    /// # Errors
    /// 404 for everything else.
    pub async fn visible_or_deleted_instance(&self, context: &RequestContext, id: &str) -> Result<Instance, ApiError> {
        let parsed: InstanceId = id.parse().map_err(|_| instance_not_found(id))?;
        let instance = match self.store.get_instance(parsed).await {
            Ok(instance) => instance,
            Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
            Err(error) => return Err(error.into()),
        };
        let visible = context.is_admin() || instance.project_id == context.project_id;
        if visible { Ok(instance) } else { Err(instance_not_found(id)) }
    }
}

/// Nova's 404 about a server.
pub(crate) fn instance_not_found(id: &str) -> ApiError {
    let shown: String = id.chars().take(255).collect();
    ApiError::NotFound(format!("Instance {shown} could not be found."))
}

/// Whose a server is, as rules see it.
pub(super) fn owner(instance: &Instance) -> policy::Target<'_> {
    policy::Target { project_id: Some(&instance.project_id), user_id: Some(&instance.user_id) }
}
