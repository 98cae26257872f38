//! Is what the books say in force where it must be? Hosts tell digests of what they have; the books' are compared with them.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::HostName;
use nova_core::network::{
    HostNetwork, ItemKey, NetworkAgent, NetworkState, Port, SecurityGroup, item_digest, port_key,
};
use nova_db::{GroupBooks, HostScope, StoreError};

use super::NetworkManager;
use super::view::{group_item, host_network, host_port, members};

/// What a host says of one thing.
fn says(state: Option<&NetworkState>, key: &str, digest: &str) -> bool {
    state.and_then(|state| state.applied.get(key)).is_some_and(|said| said == digest)
}

/// Where nothing is plugged in there is nothing to wait for. A host that was never heard of has nothing in force.
fn waits_for(agents: &BTreeMap<HostName, NetworkAgent>, host: &HostName) -> bool {
    agents.get(host).is_none_or(NetworkAgent::plugs)
}

/// Is the group in force on every host that has a port with it, or a port with a rule that names it; with each of its ports?
pub(super) fn group_is_in_force(group: &SecurityGroup, books: &GroupBooks) -> bool {
    let here = |port: &&Port| port.port_security_enabled;
    let bound: Vec<(&HostName, &Port)> =
        books.ports.iter().filter(here).filter_map(|port| Some((port.host.as_ref()?, port))).collect();
    let with_ports: BTreeSet<&HostName> = bound.iter().map(|(host, _)| *host).collect();
    let mut all = members(books.ports.iter(), &BTreeSet::from([group.id]));
    let all = all.remove(&group.id).unwrap_or_default();
    let key = ItemKey::Group(group.id).to_string();
    let item_is = |host: &HostName| {
        let members = if books.named_on.contains(host) { all.clone() } else { BTreeSet::new() };
        let item = group_item(with_ports.contains(host).then_some(group), members);
        says(books.states.get(host), &key, &item_digest(&item))
    };
    let hosts: BTreeSet<&HostName> = with_ports.iter().copied().chain(&books.named_on).collect();
    let port_is = |(host, port): &(&HostName, &Port)| {
        says(books.states.get(*host), &port_key(port.id), &item_digest(&host_port(port)))
    };
    hosts.into_iter().filter(|host| waits_for(&books.agents, host)).all(item_is)
        && bound.iter().filter(|(host, _)| waits_for(&books.agents, host)).all(port_is)
}

/// Is the port in force on its host, with its network and its groups?
pub(super) fn port_is_in_force(port: &Port, wanted: &HostNetwork, state: Option<&NetworkState>) -> bool {
    let digests = wanted.digests();
    let groups = if port.port_security_enabled { port.security_groups.as_slice() } else { &[] };
    let items = groups.iter().map(|id| ItemKey::Group(*id)).chain([ItemKey::Segment(port.network_id)]);
    let in_force = |key: ItemKey| {
        let key = key.to_string();
        digests.get(&key).is_some_and(|digest| says(state, &key, digest))
    };
    items.into_iter().all(in_force) && says(state, &port_key(port.id), &item_digest(&host_port(port)))
}

impl NetworkManager {
    /// Is what the books say of a group in force everywhere?
    pub(crate) async fn group_applied(&self, group: &SecurityGroup) -> Result<bool, StoreError> {
        Ok(group_is_in_force(group, &self.store.group_books(group.id).await?))
    }

    /// Is what the books say of a port in force on its host? On none, there is nothing to wait for.
    pub(crate) async fn port_applied(&self, port: &Port) -> Result<bool, StoreError> {
        let Some(host) = &port.host else { return Ok(true) };
        let agents = self.store.list_network_agents(Some(std::slice::from_ref(host))).await?;
        let agents = agents.into_iter().map(|agent| (agent.host.clone(), agent)).collect();
        if !waits_for(&agents, host) {
            return Ok(true);
        }
        let state = self.store.get_network_state(host).await?;
        let scope = HostScope { host: host.clone(), network_node: self.options.gateways.node().cloned() };
        let books = self.store.host_books(&scope).await?;
        let wanted = host_network(&books, host, &self.options.gateways);
        Ok(port_is_in_force(port, &wanted, state.as_ref()))
    }
}
