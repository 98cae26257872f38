//! What compute once passed on to the network, image and volume services, until 2.35, over the books that are kept here
//! (nova/api/openstack/compute/networks.py, tenant_networks.py, floating_ips.py, floating_ip_pools.py, security_groups.py);
//! and what came with nova-network and is gone. Where an outside Neutron keeps the networks, they are passed on to it.

mod baremetal;
mod floating_ips;
mod gone;
mod images;
mod networks;
mod neutron;
pub(super) mod security_groups;
mod volumes;

use std::ops::RangeInclusive;
use std::sync::Arc;

pub(super) use baremetal::BaremetalNodes;
pub(super) use floating_ips::FloatingIps;
pub(super) use gone::Gone;
pub(super) use images::{ImageMetadata, Images};
pub(super) use networks::Networks;
pub(super) use neutron::Passed;
pub(super) use security_groups::SecurityGroups;
pub(super) use volumes::Volumes;

use nova_core::context::RequestContext;

use super::ComputeApi;
use crate::api::ApiError;
use crate::network::NetworkManager;

/// The versions at which compute passes things on.
const PROXIED: RangeInclusive<u16> = 1..=35;

impl ComputeApi {
    /// The way to an outside Neutron, where that keeps the networks.
    pub(super) fn passed_on<'a>(&'a self, context: &'a RequestContext) -> Option<Passed<'a>> {
        self.neutron.as_ref().map(|neutron| Passed::on(neutron, context))
    }

    /// The books of networks.
    ///
    /// # Errors
    /// 501 where another service keeps them.
    pub(super) fn books(&self) -> Result<&Arc<NetworkManager>, ApiError> {
        let elsewhere = "Networks are kept by another service: ask that.";
        self.books.as_ref().ok_or_else(|| ApiError::NotImplemented(elsewhere.to_owned()))
    }
}
