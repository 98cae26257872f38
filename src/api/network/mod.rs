//! Neutron's v2.0 API, as far as clients of compute need it, over the built-in network service.
//!
//! One resource per file. What all share: `input` reads bodies and names the attribute that is wrong, `list` filters,
//! sorts, pages and selects fields. Foreign things are not there; errors are `NeutronError`s with a type.

mod agents;
mod auto_allocated_topology;
mod dialect;
mod extensions;
mod floating_ips;
mod input;
mod list;
mod networks;
mod ports;
mod quotas;
mod routers;
mod security_groups;
mod subnets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use dialect::NeutronDialect;

use crate::api::{Application, Resource};
use crate::network::NetworkManager;

/// The network API over this manager, mounted at `/network`.
pub fn application(manager: Arc<NetworkManager>) -> Application {
    let mut application = Application::new("network", "/network", Arc::new(NeutronDialect))
        .prefixes(&["/v2.0"])
        .root(Arc::new(dialect::Versions));
    for resource in resources(manager) {
        application = application.resource(resource);
    }
    application
}

/// The resources of the network API, for an application that is put together otherwise.
pub fn resources(manager: Arc<NetworkManager>) -> Vec<Arc<dyn Resource>> {
    vec![
        Arc::new(networks::Networks(Arc::clone(&manager))),
        Arc::new(subnets::Subnets(Arc::clone(&manager))),
        Arc::new(ports::Ports(Arc::clone(&manager))),
        Arc::new(routers::Routers(Arc::clone(&manager))),
        Arc::new(floating_ips::FloatingIps(Arc::clone(&manager))),
        Arc::new(security_groups::SecurityGroups(Arc::clone(&manager))),
        Arc::new(auto_allocated_topology::AutoAllocatedTopology(Arc::clone(&manager))),
        Arc::new(quotas::Quotas(Arc::clone(&manager))),
        Arc::new(agents::Agents(manager)),
        Arc::new(extensions::Extensions),
    ]
}
