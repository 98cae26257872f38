//! Several ports at once: as few statements as for one, where they are alike.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{NetworkId, PortId, ProjectId, SubnetId};
use nova_core::network::{FixedIp, FloatingIp, MacAddress, Network, NetworkProblem, NetworkResource, Port, Subnet};

use super::{
    Wanted, addresses, check_groups_of, exhausted, floating, forget_arrival, mac_in_use, networks, note_arrival,
    take_one, usage, wanted,
};
use crate::NewPort;
use crate::ops::{add_all, list, not_found};
use crate::records::PortGroup;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value, decode, row_of};

/// All or none. Networks, addresses and projects are taken in one order, so that two such calls wait for each other and
/// not in a circle.
pub(in crate::ops::network) async fn create(tx: &mut dyn Transaction, new: &[NewPort]) -> Result<Vec<Port>, Fail> {
    let networks = networks_of(tx, new).await?;
    let mut ports: Vec<Port> =
        new.iter().map(|new| Port { generation: 1, fixed_ips: Vec::new(), ..new.port.clone() }).collect();
    let wishes = wishes(tx, new, &networks).await?;
    take(tx, new, &wishes, &mut ports).await?;
    charge(tx, new).await?;
    check_groups_of(tx, &ports).await?;
    check_macs(tx, &ports).await?;
    let rows = ports.iter().map(|port| row_of(port, 1)).collect::<Result<Vec<_>, _>>()?;
    tx.insert(Port::TABLE, rows).await?;
    let group = |port: &Port| {
        let id = port.id;
        port.security_groups.clone().into_iter().map(move |group_id| PortGroup { port_id: id, group_id })
    };
    let links: Vec<PortGroup> = ports.iter().flat_map(group).collect();
    if !links.is_empty() {
        add_all(tx, &links).await?;
    }
    for port in &ports {
        note_arrival(tx, None, port).await?;
    }
    Ok(ports)
}

type Networks = BTreeMap<NetworkId, (Network, Vec<Subnet>)>;

/// The networks of new ports with their subnets. Who asks must be allowed to use them.
async fn networks_of(tx: &mut dyn Transaction, new: &[NewPort]) -> Result<Networks, Fail> {
    let ids: BTreeSet<NetworkId> = new.iter().map(|new| new.port.network_id).collect();
    let ids: Vec<Value> = ids.iter().map(Value::text).collect();
    let found: Vec<Network> = list(tx, &Select::new(Condition::In("id", ids.clone()))).await?;
    let subnets: Vec<Subnet> = list(tx, &Select::new(Condition::In("network_id", ids)).by(&["id"])).await?;
    let mut networks: Networks = found.into_iter().map(|network| (network.id, (network, Vec::new()))).collect();
    for subnet in subnets {
        if let Some((_, known)) = networks.get_mut(&subnet.network_id) {
            known.push(subnet);
        }
    }
    for new in new {
        let network = networks.get(&new.port.network_id).map(|(network, _)| network);
        let usable = |network: &Network| {
            new.asked_by.as_ref().is_none_or(|project| network.project_id == *project || network.shared)
        };
        if !network.is_some_and(usable) {
            return Err(not_found::<Network>(&[Value::text(new.port.network_id)]));
        }
    }
    Ok(networks)
}

/// Which port, as a place in the list, and as which of its addresses.
type Place = (usize, usize);

/// What the ports are to have.
struct Wishes<'a> {
    /// Certain addresses.
    given: Vec<(Place, &'a Network, Wanted)>,
    /// Any of some subnets.
    any: BTreeMap<Vec<SubnetId>, Alike<'a>>,
}

/// Ports that take from the same subnets.
struct Alike<'a> {
    network: &'a Network,
    from: Vec<Subnet>,
    places: Vec<Place>,
}

async fn wishes<'a>(tx: &mut dyn Transaction, new: &[NewPort], networks: &'a Networks) -> Result<Wishes<'a>, Fail> {
    let mut wishes = Wishes { given: Vec::new(), any: BTreeMap::new() };
    let mut held = BTreeSet::new();
    for (index, new) in new.iter().enumerate() {
        let Some((network, subnets)) = networks.get(&new.port.network_id) else { continue };
        let wanted = wanted(network, subnets, new)?;
        if wanted.is_empty() && held.insert(network.id) {
            // Whoever takes an address is seen by those who remove the network; others have to show themselves.
            networks::hold(tx, network.id).await?;
        }
        for (nth, wanted) in wanted.into_iter().enumerate() {
            if wanted.address.is_some() {
                wishes.given.push(((index, nth), network, wanted));
                continue;
            }
            let key = wanted.from.iter().map(|subnet| subnet.id).collect();
            let alike =
                wishes.any.entry(key).or_insert_with(|| Alike { network, from: wanted.from, places: Vec::new() });
            alike.places.push((index, nth));
        }
    }
    wishes.given.sort_by_key(|(_, _, wanted)| (wanted.from.first().map(|subnet| subnet.id), wanted.address));
    Ok(wishes)
}

/// Certain addresses first: one that is chosen must not be one of them.
async fn take(tx: &mut dyn Transaction, new: &[NewPort], wishes: &Wishes<'_>, ports: &mut [Port]) -> Result<(), Fail> {
    let mut taken: BTreeMap<Place, FixedIp> = BTreeMap::new();
    let draw = new.first().map_or(0, |new| new.draw);
    for (place, network, wanted) in &wishes.given {
        let Some(port) = ports.get(place.0) else { continue };
        taken.insert(*place, take_one(tx, network, wanted, draw, port).await?);
    }
    for Alike { network, from, places } in wishes.any.values() {
        let mut rest = places.as_slice();
        for subnet in from {
            let owners: Vec<String> =
                rest.iter().filter_map(|place| ports.get(place.0)).map(|port| port.id.to_string()).collect();
            let found = addresses::take_many(tx, subnet, draw, &owners).await?;
            let (served, left) = rest.split_at(found.len().min(rest.len()));
            let fixed = found.into_iter().map(|ip_address| FixedIp { subnet_id: subnet.id, ip_address });
            taken.extend(served.iter().copied().zip(fixed));
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            return Err(exhausted(tx, network.id, from).await);
        }
    }
    for ((index, _), fixed) in taken {
        if let Some(port) = ports.get_mut(index) {
            port.fixed_ips.push(fixed);
        }
    }
    Ok(())
}

/// Counts the ports for their projects. Of several limits the strictest holds.
async fn charge(tx: &mut dyn Transaction, new: &[NewPort]) -> Result<(), Fail> {
    let mut counts: BTreeMap<&ProjectId, (u64, Option<u64>)> = BTreeMap::new();
    for new in new {
        let (count, limit) = counts.entry(&new.port.project_id).or_default();
        *count += 1;
        *limit = [*limit, new.limit].into_iter().flatten().min();
    }
    usage::charge_all(tx, NetworkResource::Port, &counts).await
}

/// Is a MAC address taken on its network? Asked ahead, since a refused insert of many does not say which.
async fn check_macs(tx: &mut dyn Transaction, ports: &[Port]) -> Result<(), Fail> {
    let mut wanted: BTreeMap<NetworkId, BTreeMap<MacAddress, &Port>> = BTreeMap::new();
    for port in ports {
        if wanted.entry(port.network_id).or_default().insert(port.mac_address, port).is_some() {
            return Err(mac_in_use(port));
        }
    }
    for (network, macs) in wanted {
        let one_of = Condition::In("mac_address", macs.keys().map(Value::text).collect());
        let which = Condition::All(vec![Condition::Is("network_id", Value::text(network)), one_of]);
        let taken: Vec<Port> = list(tx, &Select::new(which).limit(1)).await?;
        if let Some(port) = taken.first() {
            return Err(mac_in_use(port));
        }
    }
    Ok(())
}

/// Removes ports with all that hangs on them, all or none. One that is named twice can only be removed once.
pub(in crate::ops::network) async fn delete(tx: &mut dyn Transaction, ids: &[PortId]) -> Result<Vec<Port>, Fail> {
    let mut once = BTreeSet::new();
    if let Some(twice) = ids.iter().find(|id| !once.insert(**id)) {
        return Err(not_found::<Port>(&[Value::text(twice)]));
    }
    let which = Condition::In("id", ids.iter().map(Value::text).collect());
    let rows = tx.select(Port::TABLE, &Select::new(which.clone()).by(&["id"]), Lock::ForUpdate).await?;
    let ports = rows.iter().map(|row| decode(row).map(|found| found.record)).collect::<Result<Vec<Port>, _>>()?;
    for id in ids {
        match ports.iter().find(|port| port.id == *id) {
            Some(port) if port.is_of_router() => {
                return Err(NetworkProblem::PortOfRouter { port: *id, owner: port.device_owner.clone() }.into());
            }
            Some(_) => {}
            None => return Err(not_found::<Port>(&[Value::text(id)])),
        }
    }
    if tx.delete(Port::TABLE, &which).await? != ports.len() as u64 {
        return Err(Fail::Raced { kind: Port::TABLE.kind, id: "one of several".to_owned() });
    }
    let owners: Vec<String> = ids.iter().map(PortId::to_string).collect();
    addresses::give_back_all(tx, &owners).await?;
    let of_ports = Condition::In("port_id", ids.iter().map(Value::text).collect());
    let stood: Vec<FloatingIp> = list(tx, &Select::new(of_ports)).await?;
    let stood: BTreeSet<PortId> = stood.iter().filter_map(|floating| floating.port_id).collect();
    for port in stood {
        floating::forget_port(tx, port, None).await?;
    }
    let grouped = ports.iter().filter(|port| !port.security_groups.is_empty());
    let grouped: Vec<Value> = grouped.map(|port| Value::text(port.id)).collect();
    if !grouped.is_empty() {
        tx.delete(PortGroup::TABLE, &Condition::In("port_id", grouped)).await?;
    }
    for port in ports.iter().filter(|port| port.migrating_to().is_some()) {
        forget_arrival(tx, port.id).await?;
    }
    let mut counts: BTreeMap<&ProjectId, u64> = BTreeMap::new();
    for port in &ports {
        *counts.entry(&port.project_id).or_default() += 1;
    }
    usage::refund_all(tx, NetworkResource::Port, &counts).await?;
    Ok(ids.iter().filter_map(|id| ports.iter().find(|port| port.id == *id).cloned()).collect())
}
