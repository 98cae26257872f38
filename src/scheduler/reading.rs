//! Readings of the store. The table is compared with them host by host, so that decisions go on meanwhile; what was told
//! since a reading began is newer than the reading.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nova_core::aggregate::Aggregate;
use nova_core::host::{Allocation, ComputeNode, NodeVersion, Service};
use nova_core::ids::{HostName, InstanceId};
use nova_db::{Store, StoreError};
use nova_sched::{HostInventory, ResourceVector};

use super::Hosts;
use super::inventory::inventory_of;
use super::request::vector;
use super::table::{DISABLED, Told, copy_state};

/// What is read of the store for the table.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// All aggregates.
    pub aggregates: Vec<Aggregate>,
    /// All nodes, by host and hypervisor.
    pub nodes: Vec<ComputeNode>,
    /// All services.
    pub services: Vec<Service>,
    /// All allocations.
    pub allocations: Vec<Allocation>,
}

impl Stored {
    /// Reads all of it; allocations last, so that what a node's generation counts is among them.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self {
            aggregates: store.list_aggregates().await?,
            nodes: store.list_nodes().await?,
            services: store.list_services().await?,
            allocations: store.list_allocations(None).await?,
        })
    }
}

/// What a reading that begins now cannot know better.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    /// What had been heard.
    heard: u64,
    /// The instances that were promised a place.
    promised: BTreeSet<InstanceId>,
}

/// A reading in the order in which the table is compared with it.
pub(super) struct Reading {
    /// What had been heard when it began.
    began: u64,
    aggregates: Vec<Aggregate>,
    hosts: BTreeMap<HostName, HostReading>,
    /// Where those instances are that were promised a place.
    placed: BTreeMap<InstanceId, Vec<HostName>>,
}

/// What was read of a host.
struct HostReading {
    inventory: HostInventory,
    version: NodeVersion,
    /// The generation of its service.
    service: u64,
    /// In the order of instances.
    allocations: Vec<(InstanceId, ResourceVector)>,
}

impl Reading {
    /// Sorts what was read since the mark.
    pub(super) fn new(stored: &Stored, mark: &Mark, now: Timestamp, down_time: SignedDuration) -> Self {
        let services = stored.services.iter().filter(|service| service.binary == "nova-compute");
        let services: BTreeMap<&HostName, &Service> = services.map(|service| (&service.host, service)).collect();
        let mut hosts = BTreeMap::new();
        // Of several nodes of a host the first one counts, as at the booking.
        for node in &stored.nodes {
            let read = || host_reading(node, services.get(&node.host).copied(), now, down_time);
            hosts.entry(node.host.clone()).or_insert_with(read);
        }
        let mut placed: BTreeMap<InstanceId, Vec<HostName>> = BTreeMap::new();
        for of_host in stored.allocations.chunk_by(|one, other| one.host == other.host) {
            if let Some(read) = of_host.first().and_then(|first| hosts.get_mut(&first.host)) {
                read.allocations.extend(of_host.iter().map(|held| (held.instance_id, vector(held.resources))));
                read.allocations.sort_unstable_by_key(|(instance, _)| *instance);
            }
            for held in of_host.iter().filter(|held| mark.promised.contains(&held.instance_id)) {
                placed.entry(held.instance_id).or_default().push(held.host.clone());
            }
        }
        Self { began: mark.heard, aggregates: stored.aggregates.clone(), hosts, placed }
    }

    /// The hosts, so many at a time.
    pub(super) fn parts(&self, size: usize) -> Vec<Vec<&HostName>> {
        let names: Vec<&HostName> = self.hosts.keys().collect();
        names.chunks(size.max(1)).map(<[&HostName]>::to_vec).collect()
    }
}

fn host_reading(
    node: &ComputeNode,
    service: Option<&Service>,
    now: Timestamp,
    down_time: SignedDuration,
) -> HostReading {
    let mut inventory = inventory_of(node, &node.zone);
    inventory.up = service.is_some_and(|service| service.is_up(now, down_time));
    inventory.enabled = service.is_some_and(|service| !service.disabled);
    inventory.disabled_reason = match service {
        Some(service) if service.disabled => {
            Some(service.disabled_reason.clone().unwrap_or_else(|| DISABLED.to_owned()))
        }
        Some(_) => None,
        None => Some("has no compute service".to_owned()),
    };
    let service = service.map_or(0, |service| service.generation);
    HostReading { inventory, version: node.version(), service, allocations: Vec::new() }
}

impl Hosts {
    /// Makes the table what the store says, promises aside.
    pub fn read_from(&mut self, stored: &Stored, now: Timestamp, down_time: SignedDuration) {
        let reading = Reading::new(stored, &self.mark(), now, down_time);
        self.begin_reading(&reading, now);
        for part in reading.parts(usize::MAX) {
            self.follow_reading(&reading, &part);
        }
        self.end_reading();
        self.read_topologies(stored);
    }

    /// To be taken before a reading begins.
    pub(super) fn mark(&self) -> Mark {
        Mark { heard: self.heard, promised: self.promised.iter().map(|(instance, ..)| instance).collect() }
    }

    /// What a reading says of aggregates, of promises, and of hosts that are gone.
    pub(super) fn begin_reading(&mut self, reading: &Reading, now: Timestamp) {
        self.aggregates.replace(reading.aggregates.clone(), reading.began);
        self.tell_aggregates();
        self.expire_promises(now);
        for (instance, host) in self.ended_promises(reading) {
            // What is held for it is released with whatever else the host does not show.
            self.promised.remove(instance, &host);
        }
        let names = self.table.hosts().map(|host| HostName::new(host.name()));
        let gone: Vec<HostName> = names.filter(|name| !reading.hosts.contains_key(name)).collect();
        for host in gone {
            let heard = self.known.get(&host).map_or(0, |known| known.node_heard);
            if heard <= reading.began {
                self.remove_host(&host);
            }
        }
    }

    /// The promises that the reading shows to be over: their instance has a place that it had not then.
    fn ended_promises(&self, reading: &Reading) -> Vec<(InstanceId, HostName)> {
        let over = self.promised.iter().filter(|(instance, _, promise)| {
            let placed = reading.placed.get(instance).into_iter().flatten();
            promise.heard <= reading.began && placed.into_iter().any(|host| !promise.before.contains(host))
        });
        over.map(|(instance, host, _)| (instance, host.clone())).collect()
    }

    /// Makes these hosts what a reading says of them.
    pub(super) fn follow_reading(&mut self, reading: &Reading, hosts: &[&HostName]) {
        for host in hosts {
            if let Some(read) = reading.hosts.get(*host) {
                self.follow_host(reading, host, read);
                self.follow_allocations(host, read);
            }
        }
    }

    fn follow_host(&mut self, reading: &Reading, host: &HostName, read: &HostReading) {
        let known = self.known.get(host).copied().unwrap_or_default();
        let present = self.table.host(host.as_str()).map(|view| view.inventory());
        let (node_told, service_told) = (known.node_heard > reading.began, known.service_heard > reading.began);
        let mut wanted = read.inventory.clone();
        if let Some(present) = present {
            if node_told && known.described > read.version {
                let own = self.aggregates.own_zone(host, &present.zone);
                wanted = present.clone();
                wanted.zone = own.to_string();
                copy_state(&read.inventory, &mut wanted);
            }
            if service_told {
                copy_state(&present, &mut wanted);
            }
        }
        wanted.zone = self.aggregates.settle(host, &wanted.zone.as_str().into()).to_string();
        self.describe(wanted);
        let known = self.known.entry(host.clone()).or_default();
        known.read = read.version;
        known.described = if node_told { known.described.max(read.version) } else { read.version };
        known.service = if service_told { known.service.max(read.service) } else { read.service };
    }

    /// Walks what was read and what is held side by side, both in the order of instances.
    fn follow_allocations(&mut self, host: &HostName, read: &HostReading) {
        let newer = |told: &Told| told.version.number == read.version.number && told.version > read.version;
        let mut told = self.told.remove(host).unwrap_or_default();
        told.retain(|_, told| newer(told));
        let mut held = self.table.consumers_on(host.as_str()).into_iter().peekable();
        for (instance, resources) in &read.allocations {
            while let Some(other) = held.next_if(|held| *held < instance.as_u128()) {
                self.drop_unread(other, host, &told);
            }
            held.next_if_eq(&instance.as_u128());
            self.promised.remove(*instance, host);
            if !told.contains_key(instance) {
                self.allocate(*instance, host, resources);
            }
        }
        for other in held {
            self.drop_unread(other, host, &told);
        }
        for (instance, told) in &told {
            match told.resources {
                Some(resources) => self.allocate(*instance, host, &vector(resources)),
                None => self.release(*instance, host),
            }
        }
        if !told.is_empty() {
            self.told.insert(host.clone(), told);
        }
    }

    /// What is held and was not read is over, unless it was promised, or told of since.
    fn drop_unread(&mut self, consumer: u128, host: &HostName, told: &BTreeMap<InstanceId, Told>) {
        let instance = InstanceId::from_uuid(uuid::Uuid::from_u128(consumer));
        if !told.contains_key(&instance) && !self.promised.contains(instance, host) {
            self.release(instance, host);
        }
    }

    /// What was told of hosts that are not there is of no use.
    pub(super) fn end_reading(&mut self) {
        let known = &self.known;
        self.told.retain(|host, told| !told.is_empty() && known.contains_key(host));
    }
}

#[cfg(test)]
mod tests;
