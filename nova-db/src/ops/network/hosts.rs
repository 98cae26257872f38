//! What hosts say of themselves.

use std::collections::BTreeMap;

use async_trait::async_trait;
use nova_core::ids::{HostName, NetworkAgentId, PortId, SecurityGroupId};
use nova_core::network::{NetworkAgent, NetworkState, Port, PortStatus};
use nova_core::rpc::network::BooksChangedRequest;

use super::super::{RowStore, add, find, first, list, not_found, put, remove, remove_existing, replace_or_race};
use super::{books, concerned, version};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Transaction, Value, decode, micros};
use crate::{GroupBooks, HostBooks, HostScope, NetworkHostStore, StoreError};

type Answer<T> = Result<T, StoreError>;

#[async_trait]
impl<B: Backend> NetworkHostStore for RowStore<B> {
    async fn host_books(&self, scope: &HostScope) -> Answer<HostBooks> {
        self.read(scope, |tx, scope| Box::pin(books::of_host(tx, scope))).await
    }

    async fn hosts_concerned(&self, change: &BooksChangedRequest) -> Answer<std::collections::BTreeSet<HostName>> {
        self.read(change, |tx, change| Box::pin(concerned::hosts(tx, change))).await
    }

    async fn group_books(&self, id: SecurityGroupId) -> Answer<GroupBooks> {
        self.read(&id, |tx, id| Box::pin(concerned::of_group(tx, *id))).await
    }

    async fn hear_network_agent(&self, agent: NetworkAgent) -> Answer<(NetworkAgent, bool)> {
        self.write(agent, |tx, agent| Box::pin(hear(tx, agent))).await
    }

    async fn report_network(&self, state: NetworkState, ports: BTreeMap<PortId, PortStatus>) -> Answer<Vec<Port>> {
        self.write((state, ports), |tx, (state, ports)| Box::pin(report(tx, state, ports))).await
    }

    async fn list_network_agents(&self, hosts: Option<&[HostName]>) -> Answer<Vec<NetworkAgent>> {
        self.read(&hosts, |tx, hosts| Box::pin(agents(tx, *hosts))).await
    }

    async fn get_network_agent(&self, id: NetworkAgentId) -> Answer<NetworkAgent> {
        self.read(&id, |tx, id| Box::pin(by_id(tx, *id))).await
    }

    async fn get_network_state(&self, host: &HostName) -> Answer<Option<NetworkState>> {
        let key = [Value::text(host)];
        self.read(&key, |tx, key| {
            Box::pin(async move { Ok(find::<NetworkState>(tx, key, Lock::None).await?.map(|found| found.record)) })
        })
        .await
    }

    async fn delete_network_agent(&self, id: NetworkAgentId) -> Answer<()> {
        self.change(version::part_of(id), id, |tx, id| {
            Box::pin(async move {
                let agent = by_id(tx, *id).await?;
                remove_existing::<NetworkAgent>(tx, &[Value::text(&agent.host)]).await?;
                remove::<NetworkState>(tx, &[Value::text(&agent.host)]).await.map(drop)
            })
        })
        .await
    }

    async fn books_version(&self) -> Answer<u64> {
        self.read(&(), |tx, ()| Box::pin(version::current(tx))).await
    }
}

/// A host that is no more has no network.
pub(in crate::ops) async fn forget(tx: &mut dyn Transaction, host: &HostName) -> Result<(), Fail> {
    let key = [Value::text(host)];
    if remove::<NetworkAgent>(tx, &key).await? {
        version::raise(tx, 0).await?;
    }
    remove::<NetworkState>(tx, &key).await.map(drop)
}

async fn by_id(tx: &mut dyn Transaction, id: NetworkAgentId) -> Result<NetworkAgent, Fail> {
    let which = Condition::Is("id", Value::text(id));
    let found = first::<NetworkAgent>(tx, Select::new(which), Lock::None).await?;
    found.map(|found| found.record).ok_or_else(|| not_found::<NetworkAgent>(&[Value::text(id)]))
}

/// Nearly always it says what is known, and only the time is written.
async fn hear(tx: &mut dyn Transaction, agent: &NetworkAgent) -> Result<(NetworkAgent, bool), Fail> {
    let key = [Value::text(&agent.host)];
    let Some(known) = find::<NetworkAgent>(tx, &key, Lock::ForUpdate).await? else {
        add(tx, agent).await?;
        version::raise(tx, version::part_of(agent.id)).await?;
        return Ok((agent.clone(), true));
    };
    let heard_at = known.record.heard_at.max(agent.heard_at);
    let next = NetworkAgent { id: known.record.id, created_at: known.record.created_at, heard_at, ..agent.clone() };
    if next.says_the_same(&known.record) {
        let which = Condition::key(NetworkAgent::TABLE, &key);
        tx.set(NetworkAgent::TABLE, &which, &[("heard_at", Value::Int(micros(heard_at)))]).await?;
        return Ok((next, false));
    }
    replace_or_race(tx, &next, known.generation).await?;
    // Where tunnels to it end is in the books of others.
    version::raise(tx, version::part_of(next.id)).await?;
    Ok((next, true))
}

async fn report(
    tx: &mut dyn Transaction,
    state: &NetworkState,
    ports: &BTreeMap<PortId, PortStatus>,
) -> Result<Vec<Port>, Fail> {
    let mut changed = Vec::new();
    let ids: Vec<Value> = ports.keys().map(Value::text).collect();
    for some in ids.chunks(books::AT_ONCE) {
        let which = Condition::In("id", some.to_vec());
        for row in tx.select(Port::TABLE, &Select::new(which).by(&["id"]), Lock::ForUpdate).await? {
            let found = decode::<Port>(&row)?;
            let (mut port, generation) = (found.record, found.generation);
            let Some(status) = ports.get(&port.id).filter(|status| **status != port.status) else { continue };
            if port.host.as_ref() != Some(&state.host) {
                continue;
            }
            port.status = *status;
            port.updated_at = port.updated_at.max(state.reported_at);
            port.generation = generation + 1;
            replace_or_race(tx, &port, generation).await?;
            changed.push(port);
        }
    }
    put(tx, state).await?;
    Ok(changed)
}

pub(super) async fn agents(tx: &mut dyn Transaction, hosts: Option<&[HostName]>) -> Result<Vec<NetworkAgent>, Fail> {
    let Some(hosts) = hosts else {
        return list(tx, &Select::all().by(&["host"])).await;
    };
    let mut agents = Vec::new();
    for some in hosts.chunks(books::AT_ONCE) {
        let which = Condition::In("host", some.iter().map(Value::text).collect());
        agents.extend(list::<NetworkAgent>(tx, &Select::new(which).by(&["host"])).await?);
    }
    Ok(agents)
}

pub(super) async fn states(tx: &mut dyn Transaction, hosts: &[HostName]) -> Result<Vec<NetworkState>, Fail> {
    let mut states = Vec::new();
    for some in hosts.chunks(books::AT_ONCE) {
        let which = Condition::In("host", some.iter().map(Value::text).collect());
        states.extend(list::<NetworkState>(tx, &Select::new(which).by(&["host"])).await?);
    }
    Ok(states)
}
