//! No plumbing: the books say what is, and no packet flows.

use async_trait::async_trait;
use nova_core::network::{HostNetwork, PortStatus, Vif, tap_name};
use nova_virt::InterfaceSpec;

use super::{Converged, MetadataDoor, Plumbing, PlumbingError};

/// Every port is in force at once, and leads nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct BooksPlumbing;

#[async_trait]
impl Plumbing for BooksPlumbing {
    fn name(&self) -> &'static str {
        "books"
    }

    async fn converge(&self, wanted: &HostNetwork) -> Result<Converged, PlumbingError> {
        let ports = wanted.segments.values().flat_map(|segment| segment.ports.keys());
        Ok(Converged { ports: ports.map(|port| (*port, PortStatus::Active)).collect(), problems: Vec::new() })
    }

    fn interface(&self, _wanted: &HostNetwork, vif: &Vif) -> Result<InterfaceSpec, PlumbingError> {
        Ok(InterfaceSpec {
            mac_address: vif.mac_address.to_string(),
            bridge: None,
            tap_name: tap_name(vif.port_id),
            mtu: Some(vif.mtu),
        })
    }

    async fn metadata_doors(&self) -> Vec<MetadataDoor> {
        Vec::new()
    }
}
