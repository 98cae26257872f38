//! Which hosts a change concerns.

use std::collections::BTreeSet;

use nova_core::ids::{HostName, NetworkId, RouterId, SecurityGroupId};
use nova_core::network::{Port, SecurityGroupRule};
use nova_core::rpc::network::BooksChangedRequest;

use super::books::{having, is_interface, members, router_of};
use super::hosts;
use crate::GroupBooks;
use crate::rows::{Condition, Fail, Transaction};

/// Bound to a host.
fn is_bound() -> Condition {
    Condition::Above("host", "".into())
}

pub(super) async fn hosts(tx: &mut dyn Transaction, change: &BooksChangedRequest) -> Result<BTreeSet<HostName>, Fail> {
    let mut hosts: BTreeSet<HostName> = change.hosts.iter().cloned().collect();
    let networks = joined(tx, &change.networks, &change.routers).await?;
    let on: Vec<Port> = having(tx, "network_id", &networks, Some(is_bound())).await?;
    hosts.extend(on.into_iter().filter_map(|port| port.host));
    let of: Vec<Port> = having(tx, "project_id", &change.projects, Some(is_bound())).await?;
    hosts.extend(of.into_iter().filter_map(|port| port.host));
    let groups: BTreeSet<SecurityGroupId> = change.groups.iter().copied().collect();
    let mut all = naming(tx, &groups).await?;
    all.extend(groups);
    hosts.extend(hosts_with(tx, &all).await?);
    Ok(hosts)
}

/// These networks, those of these routers, and all that routers join with them.
async fn joined(
    tx: &mut dyn Transaction,
    networks: &[NetworkId],
    routers: &[RouterId],
) -> Result<BTreeSet<NetworkId>, Fail> {
    let mut known: BTreeSet<NetworkId> = BTreeSet::new();
    let mut next: BTreeSet<NetworkId> = networks.iter().copied().collect();
    let (mut passed, mut new) = (BTreeSet::new(), routers.iter().copied().collect::<BTreeSet<RouterId>>());
    while !next.is_empty() || !new.is_empty() {
        let on: Vec<Port> = having(tx, "network_id", &next, Some(is_interface())).await?;
        new.extend(on.iter().filter_map(router_of).filter(|id| !passed.contains(id)));
        known.append(&mut next);
        let interfaces: Vec<Port> = having(tx, "device_id", &new, Some(is_interface())).await?;
        next.extend(interfaces.iter().map(|port| port.network_id).filter(|id| !known.contains(id)));
        passed.append(&mut new);
    }
    Ok(known)
}

/// The groups with a rule that names one of these.
async fn naming(
    tx: &mut dyn Transaction,
    groups: &BTreeSet<SecurityGroupId>,
) -> Result<BTreeSet<SecurityGroupId>, Fail> {
    let rules: Vec<SecurityGroupRule> = having(tx, "remote_group_id", groups, None).await?;
    Ok(rules.into_iter().map(|rule| rule.security_group_id).collect())
}

/// The hosts with a port that has one of these groups.
async fn hosts_with(tx: &mut dyn Transaction, groups: &BTreeSet<SecurityGroupId>) -> Result<BTreeSet<HostName>, Fail> {
    let ids = members(tx, groups).await?;
    let ports: Vec<Port> = having(tx, "id", &ids, Some(is_bound())).await?;
    Ok(ports.into_iter().filter_map(|port| port.host).collect())
}

pub(super) async fn of_group(tx: &mut dyn Transaction, id: SecurityGroupId) -> Result<GroupBooks, Fail> {
    let own = BTreeSet::from([id]);
    let ids = members(tx, &own).await?;
    let ports: Vec<Port> = having(tx, "id", &ids, None).await?;
    let naming = naming(tx, &own).await?;
    let named_on = hosts_with(tx, &naming).await?;
    let all: BTreeSet<&HostName> = ports.iter().filter_map(|port| port.host.as_ref()).chain(&named_on).collect();
    let all: Vec<HostName> = all.into_iter().cloned().collect();
    let agents = hosts::agents(tx, Some(&all)).await?.into_iter().map(|agent| (agent.host.clone(), agent)).collect();
    let states = hosts::states(tx, &all).await?.into_iter().map(|state| (state.host.clone(), state)).collect();
    Ok(GroupBooks { ports, named_on, agents, states })
}
