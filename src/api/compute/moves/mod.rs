//! Actions that move a server between hosts (nova/api/openstack/compute/servers.py `resize`, migrate_server.py, evacuate.py).
//!
//! Each is decided by the state machine and written in one transaction: task state, action, task and the record of the move.

mod begin;
mod evacuate;
mod migrate;
mod resize;
mod shelve;

pub(crate) use begin::spec_of;

use std::sync::Arc;

use crate::api::compute::ComputeApi;
use crate::api::{Resource, Route, ServerAction, action};

/// The actions.
pub struct Moves {
    api: Arc<ComputeApi>,
}

impl Moves {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for Moves {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        Vec::new()
    }

    fn actions(self: Arc<Self>) -> Vec<ServerAction> {
        vec![
            action("resize", &self, Self::resize),
            action("confirmResize", &self, Self::confirm_resize),
            action("revertResize", &self, Self::revert_resize),
            action("migrate", &self, Self::migrate),
            action("os-migrateLive", &self, Self::migrate_live),
            action("evacuate", &self, Self::evacuate),
            action("shelve", &self, Self::shelve),
            action("shelveOffload", &self, Self::shelve_offload),
            action("unshelve", &self, Self::unshelve),
        ]
    }
}
