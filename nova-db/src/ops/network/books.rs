//! What the books say of one host.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{HostName, NetworkId, PortId, RouterId, SecurityGroupId};
use nova_core::network::{FloatingIp, Network, Port, ROUTER_INTERFACE, Router, SecurityGroup, Subnet};

use super::super::list;
use super::{groups, hosts};
use crate::records::{PortArrival, PortGroup};
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value, decode};
use crate::{HostBooks, HostScope};

/// Ids that one question names at most: databases bound the values of a statement.
pub(super) const AT_ONCE: usize = 500;

/// The records whose column has one of these values, and of which `also` holds.
pub(super) async fn having<R: Record>(
    tx: &mut dyn Transaction,
    column: &'static str,
    values: impl IntoIterator<Item = impl std::fmt::Display>,
    also: Option<Condition>,
) -> Result<Vec<R>, Fail> {
    let values: BTreeSet<Value> = values.into_iter().map(Value::text).collect();
    let values: Vec<Value> = values.into_iter().collect();
    let mut found = Vec::new();
    for some in values.chunks(AT_ONCE) {
        let of = match some {
            [one] => Condition::Is(column, one.clone()),
            some => Condition::In(column, some.to_vec()),
        };
        let which = Condition::All(std::iter::once(of).chain(also.clone()).collect());
        found.extend(list::<R>(tx, &Select::new(which)).await?);
    }
    Ok(found)
}

pub(super) fn is_interface() -> Condition {
    Condition::Is("device_owner", ROUTER_INTERFACE.into())
}

pub(super) async fn of_host(tx: &mut dyn Transaction, scope: &HostScope) -> Result<HostBooks, Fail> {
    let mut books = HostBooks::default();
    let here = first_ports(tx, scope).await?;
    if here.is_empty() {
        return Ok(books);
    }
    let first: BTreeSet<NetworkId> = here.iter().map(|port| port.network_id).collect();
    let routers = follow(tx, &mut books, first).await?;
    let networks: Vec<NetworkId> = books.ports.values().map(|port| port.network_id).collect();
    books.networks = by(having(tx, "id", &networks, None).await?, |network: &Network| network.id);
    books.routers = by(having(tx, "id", &routers, None).await?, |router: &Router| router.id);
    let outer = books.routers.values().filter_map(|router| router.gateway.as_ref()).map(|gateway| gateway.network_id);
    let wired: Vec<NetworkId> = networks.iter().copied().chain(outer).collect();
    books.subnets = by(having(tx, "network_id", wired, None).await?, |subnet: &Subnet| subnet.id);
    books.floating_ips = having::<FloatingIp>(tx, "router_id", &routers, None).await?;
    books.floating_ips.sort_by_key(|floating| floating.id);
    let own = here.iter().filter(|port| port.concerns(&scope.host));
    let ids: BTreeSet<SecurityGroupId> = own.flat_map(|port| &port.security_groups).copied().collect();
    read_groups(tx, &mut books, ids).await?;
    let others: BTreeSet<&HostName> =
        books.ports.values().filter_map(|port| port.host.as_ref()).chain(&scope.network_node).collect();
    let others: Vec<HostName> = others.into_iter().cloned().collect();
    for agent in hosts::agents(tx, Some(&others)).await? {
        books.tunnels.extend(agent.tunnel_ip.map(|address| (agent.host, address)));
    }
    Ok(books)
}

fn by<K: Ord, R>(records: Vec<R>, key: impl Fn(&R) -> K) -> BTreeMap<K, R> {
    records.into_iter().map(|record| (key(&record), record)).collect()
}

/// The ports that make networks the host's business.
async fn first_ports(tx: &mut dyn Transaction, scope: &HostScope) -> Result<Vec<Port>, Fail> {
    let host = Value::text(&scope.host);
    if !scope.is_node() {
        let mut here: Vec<Port> = list(tx, &Select::new(Condition::Is("host", host.clone()))).await?;
        let coming: Vec<PortArrival> = list(tx, &Select::new(Condition::Is("host", host))).await?;
        here.extend(having::<Port>(tx, "id", coming.iter().map(|arrival| arrival.port_id), None).await?);
        return Ok(here);
    }
    let which = Condition::Any(vec![Condition::Above("host", "".into()), is_interface()]);
    list(tx, &Select::new(which)).await
}

/// Reads all ports on these networks, and on those that routers join with them: packets to there begin here. Returns the
/// routers.
async fn follow(
    tx: &mut dyn Transaction,
    books: &mut HostBooks,
    first: BTreeSet<NetworkId>,
) -> Result<BTreeSet<RouterId>, Fail> {
    let (mut known, mut next) = (BTreeSet::new(), first);
    let mut routers: BTreeSet<RouterId> = BTreeSet::new();
    while !next.is_empty() {
        let mut new: BTreeSet<RouterId> = BTreeSet::new();
        for port in having::<Port>(tx, "network_id", &next, None).await? {
            new.extend(router_of(&port).filter(|id| !routers.contains(id)));
            books.ports.insert(port.id, port);
        }
        known.append(&mut next);
        let interfaces: Vec<Port> = having(tx, "device_id", &new, Some(is_interface())).await?;
        next = interfaces.iter().map(|port| port.network_id).filter(|id| !known.contains(id)).collect();
        routers.append(&mut new);
    }
    Ok(routers)
}

/// The router whose interface the port is.
pub(super) fn router_of(port: &Port) -> Option<RouterId> {
    (port.device_owner == ROUTER_INTERFACE).then(|| port.device_id.parse().ok()).flatten()
}

/// The groups with their rules, and the ports that have those that the rules name.
async fn read_groups(
    tx: &mut dyn Transaction,
    books: &mut HostBooks,
    ids: BTreeSet<SecurityGroupId>,
) -> Result<(), Fail> {
    let read: Vec<SecurityGroup> = having(tx, "id", &ids, None).await?;
    books.groups = by(groups::with_rules(tx, read).await?, |group| group.id);
    let named = books.groups.values().flat_map(|group| &group.rules).filter_map(|rule| rule.remote_group_id);
    let named: BTreeSet<SecurityGroupId> = named.collect();
    let members = members(tx, &named).await?;
    let missing: Vec<PortId> = members.into_iter().filter(|id| !books.ports.contains_key(id)).collect();
    books.ports.extend(having::<Port>(tx, "id", &missing, None).await?.into_iter().map(|port| (port.id, port)));
    Ok(())
}

/// The ports that have one of these groups.
pub(super) async fn members(
    tx: &mut dyn Transaction,
    groups: &BTreeSet<SecurityGroupId>,
) -> Result<BTreeSet<PortId>, Fail> {
    let mut members = BTreeSet::new();
    let ids: Vec<Value> = groups.iter().map(Value::text).collect();
    for some in ids.chunks(AT_ONCE) {
        let which = Select::new(Condition::In("group_id", some.to_vec()));
        for row in tx.select(PortGroup::TABLE, &which, Lock::None).await? {
            members.insert(decode::<PortGroup>(&row)?.record.port_id);
        }
    }
    Ok(members)
}
