//! Bridges, and what joins them with other hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::error::chain;
use nova_core::ids::NetworkId;
use nova_core::network::{Carrier, HostNetwork, Segment, tap_name};

use super::layout::{SegmentLayout, Uplink};
use super::links::{BridgeSpec, FdbEntry, LinkKind, LinkState, Links, VlanSpec, VxlanSpec, run_in_namespace};
use super::names::{alias, fixed_mac};
use crate::network::{PlumbingError, PlumbingOptions};

const SEGMENT: &str = "segment";

/// What a tunnel adds to a packet: 14 bytes of Ethernet, 20 or 40 of IP, 8 of UDP, 8 of VXLAN.
fn tunnel_bytes(address: IpAddr) -> u32 {
    if address.is_ipv4() { 50 } else { 70 }
}

/// Makes the bridge and what joins it with other hosts. What does not work is told; the rest is done.
pub async fn converge_segment(
    links: &Links,
    options: &PlumbingOptions,
    network: NetworkId,
    segment: &Segment,
    layout: &SegmentLayout,
    underlay_mtu: Option<u32>,
) -> (Option<LinkState>, Vec<String>) {
    let mut problems = Vec::new();
    let bridge = match converge_bridge(links, options, network, segment, layout).await {
        Ok(bridge) => bridge,
        Err(e) => return (None, vec![told(network, &e)]),
    };
    if let Some(uplink) = &layout.uplink {
        if let Err(e) = converge_uplink(links, options, network, segment, uplink, &bridge).await {
            problems.push(told(network, &e));
        }
        let room = underlay_mtu.filter(|_| matches!(uplink, Uplink::Vxlan { .. }));
        if let Some(mtu) = room.filter(|mtu| segment.mtu + tunnel_bytes(options.tunnel_ip) > *mtu) {
            problems.push(format!(
                "network {network}: packets of {} bytes do not fit through a tunnel over {} with its {mtu}",
                segment.mtu, options.tunnel_ip
            ));
        }
    }
    (Some(bridge), problems)
}

async fn converge_bridge(
    links: &Links,
    options: &PlumbingOptions,
    network: NetworkId,
    segment: &Segment,
    layout: &SegmentLayout,
) -> Result<LinkState, PlumbingError> {
    if layout.ours {
        let mac = fixed_mac(&["bridge", options.host.as_str(), &network.to_string()]);
        let alias = alias(SEGMENT, &network.to_string());
        let spec = BridgeSpec { name: &layout.bridge, mac, mtu: segment.mtu, alias: &alias };
        return links.ensure_bridge(&spec).await;
    }
    let bridge = links.get(&layout.bridge).await?;
    let bridge = bridge.ok_or_else(|| PlumbingError::Unsupported(format!("there is no bridge {}", layout.bridge)))?;
    links.filter_bridge(&bridge).await?;
    Ok(bridge)
}

async fn converge_uplink(
    links: &Links,
    options: &PlumbingOptions,
    network: NetworkId,
    segment: &Segment,
    uplink: &Uplink,
    bridge: &LinkState,
) -> Result<(), PlumbingError> {
    let alias = alias(SEGMENT, &network.to_string());
    let link = match uplink {
        Uplink::Interface(name) => interface(links, name, bridge).await?,
        Uplink::Vlan { name, parent, tag } => {
            if let Some(below) = links.get(parent).await? {
                links.set_up(&below).await?;
            }
            links.ensure_vlan(&VlanSpec { name, parent, tag: *tag, mtu: segment.mtu, alias: &alias }).await?
        }
        Uplink::Vxlan { name, vni, peers } => {
            let (local, port) = (options.tunnel_ip, options.vxlan_port);
            let others = matches!(&segment.carrier, Carrier::Vxlan { peers, .. } if !peers.is_empty());
            if local.is_loopback() && others {
                let text = format!("no other host reaches tunnels at {local} (network.tunnel_ip or DEFAULT.my_ip)");
                return Err(PlumbingError::Unsupported(text));
            }
            let spec = VxlanSpec { name, vni: *vni, local, port, mtu: segment.mtu, alias: &alias };
            let link = links.ensure_vxlan(&spec).await?;
            let flood: Vec<FdbEntry> = peers.iter().map(|peer| FdbEntry::flood(*peer)).collect();
            links.ensure_fdb(&link, &flood).await?;
            link
        }
    };
    links.set_master(&link, Some(bridge.index)).await
}

/// An interface of the operator, if it may be taken.
async fn interface(links: &Links, name: &str, bridge: &LinkState) -> Result<LinkState, PlumbingError> {
    let unsupported = |text| Err(PlumbingError::Unsupported(text));
    let Some(link) = links.get(name).await? else { return unsupported(format!("there is no interface {name}")) };
    if link.master.is_some_and(|master| master != bridge.index) {
        return unsupported(format!("interface {name} is the port of another bridge"));
    }
    if link.master.is_none() && !links.addresses(&link).await?.is_empty() {
        return unsupported(format!("interface {name} has addresses of the host, which it would lose"));
    }
    links.set_up(&link).await?;
    Ok(link)
}

/// Puts the taps that are there on their bridge. Answers with those of them that are, by name.
pub async fn converge_taps(
    links: &Links,
    segment: &Segment,
    bridge: &LinkState,
    present: &BTreeMap<&str, &LinkState>,
) -> Result<BTreeSet<String>, PlumbingError> {
    let mut plugged = BTreeSet::new();
    for port in segment.ports.keys() {
        let name = tap_name(*port);
        let Some(tap) = present.get(name.as_str()) else { continue };
        links.set_mtu(tap, segment.mtu).await?;
        links.set_master(tap, Some(bridge.index)).await?;
        links.set_up(tap).await?;
        plugged.insert(name);
    }
    Ok(plugged)
}

/// Removes the bridges and uplinks of networks that have gone, or that are there in another way now.
pub async fn remove_others(
    links: &Links,
    present: &[LinkState],
    layouts: &BTreeMap<NetworkId, SegmentLayout>,
    wanted: &HostNetwork,
) -> Result<(), PlumbingError> {
    let mut keep: BTreeSet<&str> = BTreeSet::new();
    for layout in layouts.values() {
        keep.insert(&layout.bridge);
        keep.extend(layout.uplink.as_ref().map(Uplink::name));
    }
    let ours = alias(SEGMENT, "");
    for link in present {
        let Some(id) = link.alias.as_deref().and_then(|alias| alias.strip_prefix(&ours)) else { continue };
        // A network that is wanted and can't be laid out, because an option is missing, stays as it is.
        let puzzling = id.parse().is_ok_and(|id| wanted.segments.contains_key(&id) && !layouts.contains_key(&id));
        if !puzzling && !keep.contains(link.name.as_str()) {
            links.delete(link).await?;
        }
    }
    Ok(())
}

/// Taps on our networks' bridges that belong to no port: a guest that should not run any more.
pub fn strangers(
    present: &[LinkState],
    bridges: &BTreeMap<NetworkId, LinkState>,
    wanted: &HostNetwork,
) -> BTreeSet<String> {
    let bridges: BTreeSet<u32> = bridges.values().map(|bridge| bridge.index).collect();
    let ports: BTreeSet<String> =
        wanted.segments.values().flat_map(|segment| segment.ports.keys()).map(|port| tap_name(*port)).collect();
    let stranger = |link: &&LinkState| {
        link.name.starts_with("tap")
            && link.master.is_some_and(|master| bridges.contains(&master))
            && !ports.contains(&link.name)
            && matches!(link.kind, LinkKind::Tun | LinkKind::Veth | LinkKind::Other)
    };
    present.iter().filter(stranger).map(|link| link.name.clone()).collect()
}

/// The largest packet of the interface that tunnels come from; `None`: the address is on no interface.
pub async fn underlay_mtu(
    links: &Links,
    present: &[LinkState],
    tunnel_ip: IpAddr,
) -> Result<Option<u32>, PlumbingError> {
    let link = links.link_of_address(tunnel_ip).await?;
    Ok(link.and_then(|index| present.iter().find(|link| link.index == index)).map(|link| link.mtu))
}

/// The host itself takes no part in the networks of its guests: no IPv6 address by itself on what is ours.
pub async fn without_ipv6(namespace: Option<&str>, names: Vec<String>) -> Result<(), PlumbingError> {
    run_in_namespace(namespace, move || {
        for name in names {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            let off = std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
            // A kernel without IPv6 has no such file.
            if !off && let Err(e) = std::fs::write(&path, "1") {
                tracing::debug!(%path, error = %e, "IPv6 is not switched off");
            }
        }
    })
    .await
}

fn told(network: NetworkId, error: &PlumbingError) -> String {
    format!("network {network}: {}", chain(error))
}
