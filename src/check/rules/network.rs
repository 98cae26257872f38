//! I1, I8 for the network: each port has an owner that is where it is, each address one port, and none is lost.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nova_core::ids::{FloatingIpId, InstanceId, PortId, SubnetId};
use nova_core::instance::Instance;
use nova_core::network::{FloatingIp, Port, Subnet, address_number, usable};
use nova_core::state::VmState;

use super::View;
use crate::check::{Repair, Violation};

fn of_port(invariant: &'static str, port: &Port, owner: u128, text: String) -> Violation {
    let subject = vec![("port", port.id.to_string()), ("device", port.device_id.clone())];
    Violation::new(invariant, subject, text).stamped([u128::from(port.generation), owner])
}

/// I8: each port that a server has is a live server's, and is where the server is.
pub(super) fn ports(view: &View<'_>) -> Vec<Violation> {
    let store = &view.facts.store;
    let of_servers = store.ports.iter().filter(|port| port.device_owner.starts_with("compute:"));
    of_servers.filter_map(|port| misplaced(view, port)).collect()
}

fn misplaced(view: &View<'_>, port: &Port) -> Option<Violation> {
    let id: Option<InstanceId> = port.device_id.parse().ok();
    let release = Repair::ReleasePort { port: port.id, generation: port.generation };
    let Some(owner) = id.and_then(|id| view.live_one(id)) else {
        let known = id.is_some_and(|id| view.instances.contains_key(&id));
        let text = format!("its server is {}", if known { "deleted" } else { "unknown" });
        let stamp = id.map_or(0, |id| view.generation(id));
        return Some(of_port("I8", port, stamp, text).mended_by(release));
    };
    let stamp = u128::from(owner.generation);
    match (&owner.host, &port.host) {
        _ if !view.is_settled(owner) => None,
        (Some(at), there) if there.as_ref() != Some(at) => {
            let there = there.as_ref().map_or_else(|| "nowhere".to_owned(), |host| format!("on host {host}"));
            let text = format!("it is plugged in {there}, its server is on host {at}");
            let repair = Repair::BindPort { port: port.id, generation: port.generation };
            Some(of_port("I8", port, stamp, text).mended_by(repair))
        }
        (None, _) if ended(owner) => {
            let text = "its server is on no host, and comes to none".to_owned();
            Some(of_port("I8", port, stamp, text).mended_by(release))
        }
        _ => None,
    }
}

/// A build that failed: it has no use for ports.
fn ended(owner: &Instance) -> bool {
    owner.host.is_none() && owner.vm_state == VmState::Error
}

/// I1: on a network each address and each MAC address is one port's.
pub(super) fn doubles(view: &View<'_>) -> Vec<Violation> {
    let mut users: BTreeMap<(String, String), Vec<&Port>> = BTreeMap::new();
    for port in &view.facts.store.ports {
        let of = |text: String| (port.network_id.to_string(), text);
        users.entry(of(port.mac_address.to_string())).or_default().push(port);
        for fixed in &port.fixed_ips {
            users.entry(of(fixed.ip_address.to_string())).or_default().push(port);
        }
    }
    let doubled = users.into_iter().filter(|(_, ports)| ports.len() > 1);
    doubled
        .map(|((network, address), ports)| {
            let ids: Vec<_> = ports.iter().map(|port| port.id.to_string()).collect();
            let text = format!("ports {} have it: one of them must go", ids.join(" and "));
            let subject = vec![("network", network), ("address", address)];
            Violation::new("I1", subject, text).stamped(ports.iter().map(|port| u128::from(port.generation)))
        })
        .collect()
}

/// I1: each address of a subnet is free, or taken by something that is there.
pub(super) fn addresses(view: &View<'_>) -> Vec<Violation> {
    let store = &view.facts.store;
    let mut users: BTreeMap<SubnetId, (u64, u128)> = BTreeMap::new();
    let ports = store.ports.iter().flat_map(|port| port.fixed_ips.iter().map(|ip| (ip.subnet_id, port.generation)));
    let floating = store.floating_ips.iter().map(|one| (one.subnet_id, one.generation));
    for (subnet, generation) in ports.chain(floating) {
        let (count, stamp) = users.entry(subnet).or_default();
        *count += 1;
        *stamp += u128::from(generation);
    }
    let of = |subnet: &Subnet| {
        let (free, taken) = store.addresses.get(&subnet.id).copied()?;
        let (used, stamp) = users.get(&subnet.id).copied().unwrap_or_default();
        let (from, to) = usable(&subnet.cidr);
        let all = (to - from).saturating_add(1);
        let lost = match (taken.cmp(&used), free.saturating_add(u128::from(taken)) == all) {
            (std::cmp::Ordering::Equal, true) => return None,
            (std::cmp::Ordering::Greater, _) => {
                format!("{taken} addresses of {} are taken, {used} by something that is there", subnet.cidr)
            }
            (std::cmp::Ordering::Less, _) => {
                format!("{used} addresses of {} are in use, {taken} are written as taken", subnet.cidr)
            }
            (_, false) => {
                format!("of {all} addresses of {}, {free} are free and {taken} are taken", subnet.cidr)
            }
        };
        let stamp = [free, u128::from(taken), u128::from(used), stamp];
        let violation = Violation::new("I1", vec![("subnet", subnet.id.to_string())], lost).stamped(stamp);
        Some(violation.mended_by(Repair::MendAddresses { subnet: subnet.id }))
    };
    store.subnets.iter().filter_map(of).collect()
}

/// I8: a floating address stands for an address that a port has, by a router that is there, or for nothing.
pub(super) fn floating_ips(view: &View<'_>) -> Vec<Violation> {
    let store = &view.facts.store;
    let ports: BTreeMap<PortId, &Port> = store.ports.iter().map(|port| (port.id, port)).collect();
    let has = |port: &Port, address: IpAddr| {
        port.fixed_ips.iter().any(|fixed| address_number(fixed.ip_address) == address_number(address))
    };
    let wrong = |one: &FloatingIp| {
        let id = one.port_id?;
        let (text, stamp) = match ports.get(&id) {
            None => (format!("it stands for port {id}, which is not there"), 0),
            Some(port) if one.fixed_ip_address.is_none_or(|address| !has(port, address)) => {
                let address = one.fixed_ip_address.map_or_else(|| "no address".to_owned(), |ip| ip.to_string());
                (format!("it stands for {address}, which port {id} does not have"), port.generation)
            }
            Some(port) if one.router_id.is_none_or(|router| !store.routers.contains(&router)) => {
                ("no router translates it".to_owned(), port.generation)
            }
            Some(_) => return None,
        };
        Some(of_floating(one.id, one.floating_ip_address, text, [one.generation, stamp]))
    };
    store.floating_ips.iter().filter_map(wrong).collect()
}

fn of_floating(id: FloatingIpId, address: IpAddr, text: String, stamp: [u64; 2]) -> Violation {
    let [generation, _] = stamp;
    let subject = vec![("floating_ip", id.to_string()), ("address", address.to_string())];
    let violation = Violation::new("I8", subject, text).stamped(stamp.map(u128::from));
    violation.mended_by(Repair::DisassociateFloatingIp { floating_ip: id, generation })
}
