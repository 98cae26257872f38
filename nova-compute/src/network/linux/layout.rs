//! Which links a network has on this host, worked out of the configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::ids::NetworkId;
use nova_core::network::{Carrier, HostNetwork, Segment, bridge_name};

use super::names;
use crate::network::PlumbingOptions;

/// What the network's bytes go through on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLayout {
    /// The bridge.
    pub bridge: String,
    /// It is made by this, and nothing is on it but what this puts there; otherwise it is the operator's.
    pub ours: bool,
    /// What joins the bridge with other hosts.
    pub uplink: Option<Uplink>,
}

/// What joins a bridge with other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// An interface of the host.
    Interface(String),
    /// A tag on an interface of the host.
    Vlan {
        /// The link with the tag.
        name: String,
        /// The interface.
        parent: String,
        /// 1 to 4094.
        tag: u16,
    },
    /// A tunnel.
    Vxlan {
        /// The tunnel's link.
        name: String,
        /// The network's identifier.
        vni: u32,
        /// The other hosts.
        peers: BTreeSet<IpAddr>,
    },
}

impl Uplink {
    /// The link that is the bridge's port.
    pub fn name(&self) -> &str {
        match self {
            Self::Interface(name) | Self::Vlan { name, .. } | Self::Vxlan { name, .. } => name,
        }
    }
}

/// Where the network is on this host; or why it can't be there.
pub fn segment_layout(
    options: &PlumbingOptions,
    network: NetworkId,
    segment: &Segment,
) -> Result<SegmentLayout, String> {
    let interface = |physical: &str| {
        let found = options.interface_mappings.get(physical).cloned();
        found.ok_or_else(|| {
            format!("network {network}: no interface of physical network {physical} (network.interface_mappings)")
        })
    };
    let ours = |uplink| SegmentLayout { bridge: bridge_name(network), ours: true, uplink };
    Ok(match &segment.carrier {
        Carrier::Local => ours(None),
        Carrier::Bridge { physical_network } => {
            let bridge = options.bridge_mappings.get(physical_network).cloned().ok_or_else(|| {
                format!("network {network}: no bridge of physical network {physical_network} (network.bridge_mappings)")
            })?;
            SegmentLayout { bridge, ours: false, uplink: None }
        }
        Carrier::Flat { physical_network: None } => ours(None),
        Carrier::Flat { physical_network: Some(physical) } => ours(Some(Uplink::Interface(interface(physical)?))),
        Carrier::Vlan { physical_network, tag } => {
            let parent = interface(physical_network)?;
            ours(Some(Uplink::Vlan { name: names::vlan(&parent, *tag), parent, tag: *tag }))
        }
        Carrier::Vxlan { vni, peers } => {
            let peers = peers.iter().filter(|peer| **peer != options.tunnel_ip).copied().collect();
            ours(Some(Uplink::Vxlan { name: names::tunnel(*vni), vni: *vni, peers }))
        }
    })
}

/// The bridge's ends of what this host keeps on a network for itself: where it is served, and its routers.
pub fn own_ends(network: NetworkId, wanted: &HostNetwork) -> Vec<String> {
    let serves = wanted.segments.get(&network).is_some_and(|segment| segment.serves);
    let service = serves.then(|| names::service_end(network));
    let routers = wanted.routers.iter().filter(|(_, router)| router.legs.iter().any(|leg| leg.network == network));
    service.into_iter().chain(routers.map(|(id, _)| names::leg_end(*id, network))).collect()
}
