//! Services and compute nodes.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use nova_core::flavor::Resources;
use nova_core::host::{ComputeNode, Service};
use nova_core::host_facts::HostStats;
use nova_core::ids::{ComputeNodeId, HostName, ServiceId};

use super::accounts::node_of_host;
use super::{
    RowStore, add, aggregates, conflict, first, list, need, network, remove_existing, replace, replace_or_race,
};
use crate::rows::{
    Backend, Condition, Fail, Found, Lock, Record, Select, Sequence, Transaction, Value, decode, micros,
};
use crate::{HostStore, Kind, ServiceBeat, ServiceQuery, StoreError};

#[async_trait]
impl<B: Backend> HostStore for RowStore<B> {
    async fn record_beats(&self, beats: &[ServiceBeat]) -> Result<Vec<Service>, StoreError> {
        if beats.is_empty() {
            return Ok(Vec::new());
        }
        self.write(beats.to_vec(), |tx, beats| Box::pin(record_beats(tx, beats))).await
    }

    async fn list_services(&self) -> Result<Vec<Service>, StoreError> {
        let order = Select::all().by(&["binary_name", "host"]);
        self.read(&order, |tx, order| Box::pin(list(tx, order))).await
    }

    async fn find_services(&self, query: &ServiceQuery) -> Result<Vec<Service>, StoreError> {
        let select = services_of(query);
        self.read(&select, |tx, select| Box::pin(list(tx, select))).await
    }

    async fn get_service(&self, id: ServiceId) -> Result<Service, StoreError> {
        let key = [Value::text(id)];
        self.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }

    async fn update_service(&self, service: Service) -> Result<Service, StoreError> {
        self.write(service, |tx, service| Box::pin(update_service(tx, service))).await
    }

    async fn delete_service(&self, id: ServiceId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(delete_service(tx, key))).await
    }

    async fn put_node(&self, node: ComputeNode) -> Result<ComputeNode, StoreError> {
        // Most reports say what is known already: those do not wait for writers.
        if let Some(known) = self.read(&node, |tx, node| Box::pin(known_report(tx, node))).await? {
            return Ok(known);
        }
        self.write(node, |tx, node| Box::pin(put_node(tx, node))).await
    }

    async fn put_stats(&self, host: &HostName, stats: HostStats) -> Result<ComputeNode, StoreError> {
        let news = (host.clone(), stats);
        let known = self.read(&news.0, |tx, host| Box::pin(existing_node_of_host(tx, host))).await?;
        if known.stats == news.1 {
            return Ok(known);
        }
        self.write(news, |tx, news| Box::pin(put_stats(tx, news))).await
    }

    async fn list_nodes(&self) -> Result<Vec<ComputeNode>, StoreError> {
        let order = Select::all().by(&["host", "hypervisor_hostname"]);
        self.read(&order, |tx, order| Box::pin(list(tx, order))).await
    }

    async fn find_nodes(
        &self,
        host: Option<&HostName>,
        hypervisor: Option<&str>,
    ) -> Result<Vec<ComputeNode>, StoreError> {
        let host = host.map(|host| Condition::Is("host", Value::text(host)));
        let hypervisor = hypervisor.map(|name| Condition::Is("hypervisor_hostname", name.into()));
        let which = Condition::All(host.into_iter().chain(hypervisor).collect());
        let select = Select::new(which).by(&["host", "hypervisor_hostname"]);
        self.read(&select, |tx, select| Box::pin(list(tx, select))).await
    }

    async fn get_node(&self, id: ComputeNodeId) -> Result<ComputeNode, StoreError> {
        let key = [Value::text(id)];
        self.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }

    async fn node_of_host(&self, host: &HostName) -> Result<ComputeNode, StoreError> {
        self.read(host, |tx, host| Box::pin(existing_node_of_host(tx, host))).await
    }
}

fn services_of(query: &ServiceQuery) -> Select {
    let binary = query.binary.as_deref().map(|binary| Condition::Is("binary_name", binary.into()));
    let zone = query.zone.as_ref().map(|zone| Condition::Is("zone", Value::text(zone)));
    let hosts = query.hosts.as_ref().map(|hosts| Condition::In("host", hosts.iter().map(Value::text).collect()));
    let after = query.after.as_ref().map(|host| Condition::Above("host", Value::text(host)));
    let which = [binary, zone, hosts, after].into_iter().flatten().collect();
    let select = Select::new(Condition::All(which)).by(&["binary_name", "host"]);
    Select { limit: query.limit, ..select }
}

async fn record_beats(tx: &mut dyn Transaction, beats: &[ServiceBeat]) -> Result<Vec<Service>, Fail> {
    let mut known = known_services(tx, beats).await?;
    for beat in beats {
        let key = (beat.binary.clone(), beat.host.clone());
        if known.contains_key(&key) {
            continue;
        }
        let number = tx.advance(Sequence::Service, 1).await?;
        let service = new_service(beat, number);
        add(tx, &service).await?;
        known.insert(key, service);
    }
    touch(tx, beats, &mut known).await?;
    let answer = |beat: &ServiceBeat| known.get(&(beat.binary.clone(), beat.host.clone())).cloned();
    Ok(beats.iter().filter_map(answer).collect())
}

type Services = BTreeMap<(String, HostName), Service>;

async fn known_services(tx: &mut dyn Transaction, beats: &[ServiceBeat]) -> Result<Services, Fail> {
    let binaries: BTreeSet<Value> = beats.iter().map(|beat| beat.binary.as_str().into()).collect();
    let hosts: BTreeSet<Value> = beats.iter().map(|beat| Value::text(&beat.host)).collect();
    let which = Condition::All(vec![
        Condition::In("binary_name", binaries.into_iter().collect()),
        Condition::In("host", hosts.into_iter().collect()),
    ]);
    let rows = tx.select(Service::TABLE, &Select::new(which).by(&["binary_name", "host"]), Lock::ForUpdate).await?;
    let mut services = Services::new();
    for row in &rows {
        let service = decode::<Service>(row)?.record;
        services.insert((service.binary.clone(), service.host.clone()), service);
    }
    Ok(services)
}

fn new_service(beat: &ServiceBeat, number: i64) -> Service {
    Service {
        id: beat.new_id,
        number,
        binary: beat.binary.clone(),
        host: beat.host.clone(),
        zone: beat.zone.clone(),
        disabled: false,
        disabled_reason: None,
        forced_down: false,
        drain: None,
        last_seen_up: beat.now,
        updated_at: beat.now,
        created_at: beat.now,
        version: beat.version,
        generation: 1,
    }
}

/// Writes what the beats bring; those of the same moment, zone and version in one statement. A beat that was overtaken
/// on its way changes nothing.
async fn touch(tx: &mut dyn Transaction, beats: &[ServiceBeat], known: &mut Services) -> Result<(), Fail> {
    let mut groups: BTreeMap<(i64, Value, u32), Vec<Value>> = BTreeMap::new();
    for beat in beats {
        let Some(service) = known.get_mut(&(beat.binary.clone(), beat.host.clone())) else { continue };
        let same = service.zone == beat.zone && service.version == beat.version;
        if beat.now < service.last_seen_up || (beat.now == service.last_seen_up && same) {
            continue;
        }
        service.last_seen_up = beat.now;
        service.updated_at = service.updated_at.max(beat.now);
        service.zone = beat.zone.clone();
        service.version = beat.version;
        let group = (micros(beat.now), Value::text(&beat.zone), beat.version);
        groups.entry(group).or_default().push(Value::text(service.id));
    }
    for ((now, zone, version), ids) in groups {
        let values = [("last_seen_up", Value::Int(now)), ("zone", zone), ("version", Value::Int(i64::from(version)))];
        tx.set(Service::TABLE, &Condition::In("id", ids), &values).await?;
    }
    Ok(())
}

/// A host without a compute service is in no aggregate, and has no network agent.
async fn delete_service(tx: &mut dyn Transaction, key: &[Value]) -> Result<(), Fail> {
    let service = need::<Service>(tx, key, Lock::ForUpdate).await?.record;
    if service.binary == "nova-compute" {
        aggregates::forget_host(tx, &service.host).await?;
        network::hosts::forget(tx, &service.host).await?;
    }
    remove_existing::<Service>(tx, key).await
}

async fn update_service(tx: &mut dyn Transaction, service: &Service) -> Result<Service, Fail> {
    let key = [Value::text(service.id)];
    let old = need::<Service>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != service.generation {
        return Err(conflict::<Service>(&key));
    }
    // What beats bring is not the operator's to write.
    let mut next = service.clone();
    next.number = old.record.number;
    next.zone = old.record.zone;
    next.version = old.record.version;
    next.last_seen_up = old.record.last_seen_up;
    next.generation = old.generation + 1;
    if replace(tx, &next, old.generation).await? {
        next.updated_at = next.updated_at.max(next.last_seen_up);
        return Ok(next);
    }
    Err(conflict::<Service>(&key))
}

fn of_report(node: &ComputeNode) -> Select {
    Select::new(Condition::All(vec![
        Condition::Is("host", Value::text(&node.host)),
        Condition::Is("hypervisor_hostname", node.hypervisor_hostname.as_str().into()),
    ]))
}

/// The report with everything that is the store's to say.
fn merged(report: &ComputeNode, known: &ComputeNode) -> ComputeNode {
    ComputeNode {
        id: known.id,
        number: known.number,
        created_at: known.created_at,
        used: known.used,
        allocations: known.allocations,
        generation: known.generation,
        ..report.clone()
    }
}

/// The node as it is kept, if the report brings nothing new.
async fn known_report(tx: &mut dyn Transaction, node: &ComputeNode) -> Result<Option<ComputeNode>, Fail> {
    let known = first::<ComputeNode>(tx, of_report(node), Lock::None).await?.map(|found| found.record);
    Ok(known.filter(|known| says_nothing_new(node, known)))
}

fn says_nothing_new(report: &ComputeNode, known: &ComputeNode) -> bool {
    ComputeNode { updated_at: known.updated_at, ..merged(report, known) } == *known
}

async fn put_node(tx: &mut dyn Transaction, node: &ComputeNode) -> Result<ComputeNode, Fail> {
    if let Some(known) = first::<ComputeNode>(tx, of_report(node), Lock::ForUpdate).await? {
        if says_nothing_new(node, &known.record) {
            return Ok(known.record);
        }
        let mut next = merged(node, &known.record);
        next.generation = known.generation + 1;
        replace_or_race(tx, &next, known.generation).await?;
        return Ok(next);
    }
    let mut new = node.clone();
    new.number = tx.advance(Sequence::ComputeNode, 1).await?;
    new.used = Resources::default();
    new.allocations = 0;
    new.generation = 1;
    add(tx, &new).await?;
    Ok(new)
}

async fn put_stats(tx: &mut dyn Transaction, news: &(HostName, HostStats)) -> Result<ComputeNode, Fail> {
    let (host, stats) = news;
    let Some(Found { record: mut node, generation }) = node_of_host(tx, host, Lock::ForUpdate).await? else {
        return Err(StoreError::NotFound { kind: Kind::ComputeNode, id: host.to_string() }.into());
    };
    node.stats = stats.clone();
    node.generation = generation + 1;
    replace_or_race(tx, &node, generation).await?;
    Ok(node)
}

async fn existing_node_of_host(tx: &mut dyn Transaction, host: &HostName) -> Result<ComputeNode, Fail> {
    match node_of_host(tx, host, Lock::None).await? {
        Some(Found { record, .. }) => Ok(record),
        None => Err(StoreError::NotFound { kind: Kind::ComputeNode, id: host.to_string() }.into()),
    }
}
