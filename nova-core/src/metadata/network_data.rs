//! `network_data.json`: links, networks and services (nova/virt/netutils.py, `get_network_metadata`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::network::{Cidr, IpVersion, Vif, VifAddress, tap_name};

/// How a guest is to set its interfaces up. As in Nova, the first address of each version of IP of an interface is told;
/// with DHCP the guest is told to ask. Empty for a guest without addresses.
pub fn network_data(vifs: &[Vif]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for vif in vifs.iter().filter(|vif| !vif.addresses.is_empty()) {
        let link = tap_name(vif.port_id);
        links.push(json!({
            "id": link,
            "vif_id": vif.port_id,
            "type": "bridge",
            "mtu": vif.mtu,
            "ethernet_mac_address": vif.mac_address,
        }));
        for version in [IpVersion::V4, IpVersion::V6] {
            let of_version = |address: &&VifAddress| IpVersion::of(address.address) == version;
            let Some(address) = vif.addresses.iter().find(of_version) else { continue };
            networks.push(network(vif, address, networks.len(), &link));
            for service in dns(address) {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    if links.is_empty() {
        return json!({});
    }
    json!({"links": links, "networks": networks, "services": services})
}

fn network(vif: &Vif, address: &VifAddress, number: usize, link: &str) -> Value {
    let version = IpVersion::of(address.address);
    let id = format!("network{number}");
    let kind = match (&address.ipv6_address_mode, address.dhcp) {
        (Some(mode), _) => format!("ipv{}_{mode}", version.number()),
        (None, true) => {
            let kind = format!("ipv{}_dhcp", version.number());
            return json!({"id": id, "type": kind, "link": link, "network_id": vif.network_id});
        }
        (None, false) => format!("ipv{}", version.number()),
    };
    let any = match version {
        IpVersion::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpVersion::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let default = address.gateway.map(|gateway| json!({"network": any, "netmask": any, "gateway": gateway}));
    let others = address.routes.iter().map(|route| {
        let to = &route.destination;
        json!({"network": to.base(), "netmask": netmask(to), "gateway": route.nexthop})
    });
    json!({
        "id": id,
        "type": kind,
        "link": link,
        "ip_address": address.address,
        "netmask": netmask(&address.cidr),
        "routes": default.into_iter().chain(others).collect::<Vec<_>>(),
        "network_id": vif.network_id,
        "services": dns(address),
    })
}

fn dns(address: &VifAddress) -> Vec<Value> {
    address.dns.iter().map(|server| json!({"type": "dns", "address": server})).collect()
}

/// `255.255.255.0`, `ffff:ffff:ffff:ffff::`.
fn netmask(range: &Cidr) -> IpAddr {
    let ones = u32::from(range.prefix());
    match range.version() {
        IpVersion::V4 => IpAddr::V4(u32::MAX.checked_shl(32 - ones.min(32)).unwrap_or(0).into()),
        IpVersion::V6 => IpAddr::V6(u128::MAX.checked_shl(128 - ones.min(128)).unwrap_or(0).into()),
    }
}
