//! Ports.

mod many;

pub(super) use many::delete as delete_all;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::ids::{HostName, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId};
use nova_core::network::{
    FixedIp, IpVersion, Network, NetworkProblem, NetworkResource, Port, PortStatus, SecurityGroup, Subnet,
};

use super::super::{add, add_all, conflict, find, list, need, put, remove_existing};
use super::{addresses, floating, networks, usage, write_over};
use crate::records::{PortArrival, PortGroup, of_network};
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{FixedIpRequest, Kind, NewPort, PortChange};

/// All or none.
pub(super) async fn create_all(tx: &mut dyn Transaction, new: &[NewPort]) -> Result<Vec<Port>, Fail> {
    match new {
        [one] => Ok(vec![create(tx, one).await?]),
        several => many::create(tx, several).await,
    }
}

/// A port with its addresses. What others wait for comes as late as can be.
pub(super) async fn create(tx: &mut dyn Transaction, new: &NewPort) -> Result<Port, Fail> {
    let network = networks::usable_by(tx, new.port.network_id, new.asked_by.as_ref()).await?;
    let subnets = subnets_of(tx, &network).await?;
    let mut port = Port { generation: 1, fixed_ips: Vec::new(), ..new.port.clone() };
    let wanted = wanted(&network, &subnets, new)?;
    if wanted.is_empty() {
        // Whoever takes an address is seen by those who remove the network; others have to show themselves.
        networks::hold(tx, network.id).await?;
    }
    port.fixed_ips = take(tx, &network, &wanted, new.draw, &port).await?;
    usage::charge(tx, &port.project_id, NetworkResource::Port, 1, new.limit).await?;
    check_groups(tx, &port).await?;
    insert(tx, &port).await?;
    link(tx, port.id, &port.security_groups).await?;
    note_arrival(tx, None, &port).await?;
    Ok(port)
}

/// What the port is to have.
fn wanted(network: &Network, subnets: &[Subnet], new: &NewPort) -> Result<Vec<Wanted>, Fail> {
    match &new.fixed_ips {
        Some(requests) => resolve(network, subnets, &new.port, requests),
        None => Ok(usual(subnets)),
    }
}

async fn subnets_of(tx: &mut dyn Transaction, network: &Network) -> Result<Vec<Subnet>, Fail> {
    list(tx, &Select::new(of_network(network.id)).by(&["id"])).await
}

/// A MAC address is drawn from few enough to meet by chance: the caller is told and draws again.
async fn insert(tx: &mut dyn Transaction, port: &Port) -> Result<(), Fail> {
    add(tx, port).await.map_err(|fail| match fail {
        Fail::Taken { kind: Kind::Port, .. } => mac_in_use(port),
        other => other,
    })
}

fn mac_in_use(port: &Port) -> Fail {
    NetworkProblem::MacInUse { network: port.network_id, mac: port.mac_address }.into()
}

/// Somewhere to take an address from: of these subnets the first that has one, or the one that is named.
struct Wanted {
    from: Vec<Subnet>,
    address: Option<IpAddr>,
}

/// What a port gets that asks for nothing: one address of each version.
fn usual(subnets: &[Subnet]) -> Vec<Wanted> {
    let of = |version| subnets.iter().filter(|s| s.cidr.version() == version).cloned().collect::<Vec<_>>();
    let both = [of(IpVersion::V4), of(IpVersion::V6)];
    both.into_iter().filter(|from| !from.is_empty()).map(|from| Wanted { from, address: None }).collect()
}

fn resolve(
    network: &Network,
    subnets: &[Subnet],
    port: &Port,
    requests: &[FixedIpRequest],
) -> Result<Vec<Wanted>, Fail> {
    let mut wanted: Vec<Wanted> = Vec::with_capacity(requests.len());
    for request in requests {
        let subnet = match (request.subnet_id, request.ip_address) {
            (Some(id), _) => {
                let found = subnets.iter().find(|subnet| subnet.id == id);
                found.ok_or(NetworkProblem::ForeignSubnet { network: network.id, subnet: id })?
            }
            (None, Some(address)) => {
                let found = subnets.iter().find(|subnet| subnet.cidr.contains(address));
                found.ok_or(NetworkProblem::AddressOutsideNetwork { network: network.id, address })?
            }
            (None, None) => {
                wanted.extend(usual(subnets));
                continue;
            }
        };
        if let Some(address) = request.ip_address {
            if wanted.iter().any(|earlier| earlier.address == Some(address)) {
                return Err(NetworkProblem::AddressTwice { address }.into());
            }
            if subnet.gateway_ip == Some(address) && !port.is_of_router() {
                let message = format!("IP address {address} is the gateway of subnet {}", subnet.id);
                return Err(NetworkProblem::Invalid { message }.into());
            }
        }
        wanted.push(Wanted { from: vec![subnet.clone()], address: request.ip_address });
    }
    Ok(wanted)
}

/// Takes what is wanted, subnet by subnet in one order, so that two callers do not hold what the other waits for.
async fn take(
    tx: &mut dyn Transaction,
    network: &Network,
    wanted: &[Wanted],
    draw: u64,
    port: &Port,
) -> Result<Vec<FixedIp>, Fail> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    // Given ones first: a chosen one must not be one of them.
    order.sort_by_key(|index| wanted.get(*index).map(|w| (w.address.is_none(), w.from.first().map(|s| s.id))));
    let mut taken = BTreeMap::new();
    for index in order {
        let Some(wanted) = wanted.get(index) else { continue };
        let draw = draw.rotate_left(u32::try_from(index).unwrap_or_default() * 7);
        taken.insert(index, take_one(tx, network, wanted, draw, port).await?);
    }
    Ok(taken.into_values().collect())
}

async fn take_one(
    tx: &mut dyn Transaction,
    network: &Network,
    wanted: &Wanted,
    draw: u64,
    port: &Port,
) -> Result<FixedIp, Fail> {
    let owner = port.id.to_string();
    for subnet in &wanted.from {
        let taken = match wanted.address {
            Some(address) => addresses::take_given(tx, subnet, address, &owner).await.map(|()| Some(address))?,
            None => addresses::take_any(tx, subnet, draw, &owner).await?,
        };
        if let Some(ip_address) = taken {
            return Ok(FixedIp { subnet_id: subnet.id, ip_address });
        }
    }
    Err(exhausted(tx, network.id, &wanted.from).await)
}

/// There is no address left; or a subnet was removed in this moment, and what there is now is another question.
async fn exhausted(tx: &mut dyn Transaction, network: NetworkId, from: &[Subnet]) -> Fail {
    for subnet in from {
        match find::<Subnet>(tx, &[Value::text(subnet.id)], Lock::None).await {
            Ok(Some(_)) => {}
            Ok(None) => return Fail::Raced { kind: Kind::Subnet, id: subnet.id.to_string() },
            Err(fail) => return fail,
        }
    }
    NetworkProblem::Exhausted { network }.into()
}

/// Are its groups there, and its project's? The project's count of ports is held by now, which is what keeps groups from
/// being removed.
async fn check_groups(tx: &mut dyn Transaction, port: &Port) -> Result<(), Fail> {
    check_groups_of(tx, std::slice::from_ref(port)).await
}

async fn check_groups_of(tx: &mut dyn Transaction, ports: &[Port]) -> Result<(), Fail> {
    let ids: BTreeSet<SecurityGroupId> = ports.iter().flat_map(|port| port.security_groups.iter().copied()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let groups: Vec<SecurityGroup> =
        list(tx, &Select::new(Condition::In("id", ids.iter().map(Value::text).collect()))).await?;
    let project: BTreeMap<_, _> = groups.iter().map(|group| (group.id, &group.project_id)).collect();
    for port in ports {
        if let Some(id) = port.security_groups.iter().find(|id| project.get(*id) != Some(&&port.project_id)) {
            return Err(NetworkProblem::NoSuchGroup { group: *id }.into());
        }
    }
    Ok(())
}

async fn link(tx: &mut dyn Transaction, port: PortId, groups: &[SecurityGroupId]) -> Result<(), Fail> {
    if groups.is_empty() {
        return Ok(());
    }
    let links: Vec<_> = groups.iter().map(|group| PortGroup { port_id: port, group_id: *group }).collect();
    add_all(tx, &links).await
}

async fn unlink(tx: &mut dyn Transaction, port: PortId) -> Result<(), Fail> {
    tx.delete(PortGroup::TABLE, &Condition::Is("port_id", Value::text(port))).await?;
    Ok(())
}

/// Which host it comes to is looked up by the host.
async fn note_arrival(tx: &mut dyn Transaction, old: Option<&Port>, port: &Port) -> Result<(), Fail> {
    let arrives = port.migrating_to();
    if old.and_then(Port::migrating_to) == arrives {
        return Ok(());
    }
    match arrives {
        Some(host) => put(tx, &PortArrival { port_id: port.id, host }).await,
        None => forget_arrival(tx, port.id).await,
    }
}

async fn forget_arrival(tx: &mut dyn Transaction, port: PortId) -> Result<(), Fail> {
    tx.delete(PortArrival::TABLE, &Condition::Is("port_id", Value::text(port))).await?;
    Ok(())
}

pub(super) async fn update(tx: &mut dyn Transaction, change: &PortChange) -> Result<Port, Fail> {
    let key = [Value::text(change.port.id)];
    let old = need::<Port>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != change.port.generation {
        return Err(conflict::<Port>(&key));
    }
    let mut next = Port {
        network_id: old.record.network_id,
        project_id: old.record.project_id.clone(),
        fixed_ips: old.record.fixed_ips.clone(),
        generation: old.generation + 1,
        ..change.port.clone()
    };
    if let Some(requests) = &change.fixed_ips {
        next.fixed_ips = move_addresses(tx, &old.record, requests, change.draw).await?;
    }
    if next.security_groups != old.record.security_groups {
        hold_project(tx, &next.project_id).await?;
        check_groups(tx, &next).await?;
        unlink(tx, next.id).await?;
        link(tx, next.id, &next.security_groups).await?;
    }
    write_over(tx, &next, old.generation, key).await.map_err(|fail| match fail {
        Fail::Taken { kind: Kind::Port, .. } => mac_in_use(&next),
        other => other,
    })?;
    note_arrival(tx, Some(&old.record), &next).await?;
    Ok(next)
}

/// In the order of their ids, so that two such calls wait for each other in one order.
pub(super) async fn set_statuses(
    tx: &mut dyn Transaction,
    host: &HostName,
    statuses: &BTreeMap<PortId, PortStatus>,
) -> Result<Vec<Port>, Fail> {
    let mut changed = Vec::new();
    for (id, status) in statuses {
        let key = [Value::text(id)];
        let Some(found) = find::<Port>(tx, &key, Lock::ForUpdate).await? else { continue };
        if found.record.status == *status || found.record.host.as_ref() != Some(host) {
            continue;
        }
        let port = Port { status: *status, generation: found.generation + 1, ..found.record };
        write_over(tx, &port, found.generation, key).await?;
        changed.push(port);
    }
    Ok(changed)
}

async fn hold_project(tx: &mut dyn Transaction, project: &ProjectId) -> Result<(), Fail> {
    usage::hold(tx, project, NetworkResource::Port).await
}

/// Gives back what is not asked for any more and takes what is new. An address that is asked for again stays; so does one
/// of a subnet from which any would do.
async fn move_addresses(
    tx: &mut dyn Transaction,
    old: &Port,
    requests: &[FixedIpRequest],
    draw: u64,
) -> Result<Vec<FixedIp>, Fail> {
    let network = networks::usable_by(tx, old.network_id, None).await?;
    let subnets = subnets_of(tx, &network).await?;
    let (stays, new) = split(&old.fixed_ips, requests);
    let goes: Vec<IpAddr> = old.fixed_ips.iter().filter(|ip| !stays.contains(ip)).map(|ip| ip.ip_address).collect();
    let wanted = resolve(&network, &subnets, old, &new)?;
    let taken = take(tx, &network, &wanted, draw, old).await?;
    if !goes.is_empty() {
        floating::forget_port(tx, old.id, Some(&goes)).await?;
        addresses::give_back(tx, &old.id.to_string(), Some(&goes)).await?;
    }
    Ok(stays.into_iter().chain(taken).collect())
}

/// What of the old addresses the requests ask for again, and the requests that ask for something new.
fn split(old: &[FixedIp], requests: &[FixedIpRequest]) -> (Vec<FixedIp>, Vec<FixedIpRequest>) {
    let fits = |ip: &FixedIp, request: &FixedIpRequest| {
        request.subnet_id.is_none_or(|id: SubnetId| ip.subnet_id == id)
            && request.ip_address.is_none_or(|address| ip.ip_address == address)
    };
    let (mut stays, mut new): (Vec<FixedIp>, Vec<FixedIpRequest>) = (Vec::new(), Vec::new());
    let (given, open): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.ip_address.is_some());
    for request in given.into_iter().chain(open) {
        match old.iter().find(|ip| !stays.contains(ip) && fits(ip, request)) {
            Some(ip) => stays.push(*ip),
            None => new.push(*request),
        }
    }
    (stays, new)
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: PortId) -> Result<Port, Fail> {
    let port = need::<Port>(tx, &[Value::text(id)], Lock::ForUpdate).await?.record;
    if port.is_of_router() {
        return Err(NetworkProblem::PortOfRouter { port: id, owner: port.device_owner }.into());
    }
    remove(tx, &port).await?;
    Ok(port)
}

/// Removes a port with all that hangs on it. First the row: of two that do it, the second finds none.
pub(super) async fn remove(tx: &mut dyn Transaction, port: &Port) -> Result<(), Fail> {
    remove_existing::<Port>(tx, &[Value::text(port.id)]).await?;
    addresses::give_back(tx, &port.id.to_string(), None).await?;
    floating::forget_port(tx, port.id, None).await?;
    if !port.security_groups.is_empty() {
        unlink(tx, port.id).await?;
    }
    if port.migrating_to().is_some() {
        forget_arrival(tx, port.id).await?;
    }
    usage::refund(tx, &port.project_id, NetworkResource::Port, 1).await
}
