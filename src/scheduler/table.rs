//! The host table: rows of the store in the form that algorithms read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nova_core::aggregate::Aggregate;
use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode, Service};
use nova_core::ids::{HostName, InstanceId};
use nova_core::request::{Destination, NoValidHost, RequestSpec, Selection};
use nova_core::rpc::scheduler::{AggregateNews, HostsChangedRequest};
use nova_core::server_group::GroupPlacement;
use nova_db::{Store, StoreError};
use nova_sched::{Dimensions, HostExplanation, HostTable, Scheduler, SchedulerError, SchedulerRng};

use super::aggregates::Aggregates;
use super::groups;
use super::inventory::inventory_of;
use super::promises::Promises;
use super::request::{DIMENSIONS, request, vector};
use super::topology::Topologies;

/// How long a promised place counts as taken though the store does not show it.
pub const TENTATIVE: SignedDuration = SignedDuration::from_secs(60);

/// What is read of the store for the table.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// All aggregates.
    pub aggregates: Vec<Aggregate>,
    /// All nodes.
    pub nodes: Vec<ComputeNode>,
    /// All services.
    pub services: Vec<Service>,
    /// All allocations.
    pub allocations: Vec<Allocation>,
}

impl Stored {
    /// Reads all of it.
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

/// A host table, the aggregates that its hosts are in, and what was promised on it.
pub struct Hosts {
    pub(super) table: HostTable,
    aggregates: Aggregates,
    pub(super) promised: Promises,
    pub(super) topologies: Topologies,
    pub(super) weighs_images: bool,
}

impl Hosts {
    /// An empty table with the indexes that the algorithm reads.
    pub fn new(algorithm: &dyn Scheduler) -> Result<Self, SchedulerError> {
        let mut table = HostTable::new(Dimensions::new(DIMENSIONS)?);
        algorithm.register(&mut table)?;
        Ok(Self {
            table,
            aggregates: Aggregates::default(),
            promised: Promises::default(),
            topologies: Topologies::default(),
            weighs_images: false,
        })
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Makes the table what the store says, promises aside.
    pub fn read_from(&mut self, stored: &Stored, now: Timestamp, down_time: SignedDuration) {
        let Stored { aggregates, nodes, services, allocations } = stored;
        self.aggregates.replace(aggregates.clone());
        self.tell_aggregates();
        let there: BTreeSet<&str> = nodes.iter().map(|node| node.host.as_str()).collect();
        let known = self.table.hosts().map(|host| host.name().to_owned());
        let gone: Vec<String> = known.filter(|name| !there.contains(name.as_str())).collect();
        for name in gone {
            self.table.remove_host(&name);
        }
        let services: BTreeMap<&HostName, &Service> =
            services.iter().filter(|s| s.binary == "nova-compute").map(|s| (&s.host, s)).collect();
        let mut met = BTreeSet::new();
        // Of several nodes of a host the first one counts, as at the booking.
        for node in nodes.iter().filter(|node| met.insert(&node.host)) {
            let service = services.get(&node.host);
            let up = service.is_some_and(|s| s.is_up(now, down_time));
            self.put(node, up, service.is_some_and(|s| !s.disabled));
        }
        self.replace_allocations(allocations, now);
        let promised = &self.promised;
        self.topologies.read(allocations, |instance, host| promised.contains(instance, host));
    }

    fn put(&mut self, node: &ComputeNode, up: bool, enabled: bool) {
        self.topologies.describe(node);
        let zone = self.aggregates.settle(&node.host, &node.zone);
        let mut host = inventory_of(node, &zone);
        host.up = up;
        host.enabled = enabled;
        if let Err(error) = self.table.upsert_host(host) {
            tracing::warn!(host = %node.host, "its inventory cannot be used: {error}");
        }
    }

    fn replace_allocations(&mut self, allocations: &[Allocation], now: Timestamp) {
        let stored: BTreeMap<(InstanceId, &HostName), Resources> =
            allocations.iter().map(|a| ((a.instance_id, &a.host), a.resources)).collect();
        // Whatever the store has of an instance, here or elsewhere, is what became of its promises.
        let placed: BTreeSet<InstanceId> = allocations.iter().map(|allocation| allocation.instance_id).collect();
        self.promised
            .retain(|instance, _, since| !placed.contains(&instance) && now.duration_since(since) <= TENTATIVE);
        let hosts: Vec<HostName> = self.table.hosts().map(|h| HostName::new(h.name())).collect();
        for host in hosts {
            for consumer in self.table.consumers_on(host.as_str()) {
                let instance = InstanceId::from_uuid(uuid::Uuid::from_u128(consumer));
                let promised = self.promised.contains(instance, &host);
                if !promised && !stored.contains_key(&(instance, &host)) {
                    self.table.release_on(consumer, host.as_str());
                }
            }
        }
        for ((instance, host), resources) in &stored {
            self.allocate(*instance, host, *resources);
        }
    }

    fn allocate(&mut self, instance: InstanceId, host: &HostName, resources: Resources) {
        // What the store has is true even where this table thinks that there is no room.
        if let Err(error) = self.table.record_allocation(host.as_str(), instance.as_u128(), &vector(resources)) {
            tracing::debug!(%host, %instance, "not in the table: {error}");
        }
    }

    /// Follows what conductors tell.
    pub fn apply(&mut self, news: &HostsChangedRequest) {
        for aggregate in &news.aggregates {
            self.follow(aggregate);
        }
        if !news.aggregates.is_empty() {
            self.tell_aggregates();
        }
        for node in &news.nodes {
            let service = news.services.iter().find(|s| s.host == node.node.host);
            let known = self.table.host(node.node.host.as_str()).map(|h| (h.is_up(), h.is_enabled()));
            let (up, enabled) = match (service, known) {
                (Some(s), _) => (s.up, !s.disabled),
                (None, Some(known)) => known,
                (None, None) => (false, true),
            };
            self.put(&node.node, up, enabled);
        }
        for service in &news.services {
            let name = service.host.as_str();
            let told = self.table.set_up(name, service.up).and_then(|()| {
                self.table.set_enabled(name, !service.disabled, service.disabled.then_some("disabled by an operator"))
            });
            if let Err(error) = told {
                tracing::debug!(host = name, "not in the table yet: {error}");
            }
        }
        for change in &news.allocations {
            match change.resources {
                Some(resources) => self.allocate(change.instance_id, &change.host, resources),
                None => {
                    self.promised.remove(change.instance_id, &change.host);
                    self.table.release_on(change.instance_id.as_u128(), change.host.as_str());
                }
            }
        }
    }

    /// Follows an aggregate: its hosts, and those that it had, are in the zone that aggregates now say.
    fn follow(&mut self, news: &AggregateNews) {
        for host in self.aggregates.apply(news) {
            let Some(mut inventory) = self.table.host(host.as_str()).map(|view| view.inventory()) else { continue };
            let zone = self.aggregates.resettle(&host, &inventory.zone);
            inventory.zone = zone.to_string();
            if let Err(error) = self.table.upsert_host(inventory) {
                tracing::warn!(%host, "its zone was not changed: {error}");
            }
        }
    }

    fn tell_aggregates(&mut self) {
        self.table.set_aggregates(self.aggregates.iter().map(|aggregate| nova_sched::Aggregate {
            id: u64::try_from(aggregate.number).unwrap_or(0),
            name: aggregate.name.clone(),
            metadata: aggregate.metadata.clone(),
            hosts: aggregate.hosts.iter().map(ToString::to_string).collect(),
        }));
    }

    /// Where the members of a group are: a request without a zone of its own likes to be near to them.
    fn zones_of(&self, group: &GroupPlacement) -> Vec<String> {
        let zones = group.counts().into_keys().filter_map(|host| self.table.host(host.as_str()));
        let zones: BTreeSet<String> = zones.map(|host| host.zone().to_owned()).collect();
        zones.into_iter().collect()
    }

    /// What the algorithm, and the request's server group, think of every host for one more instance of that kind.
    pub fn explain(&self, algorithm: &dyn Scheduler, spec: &RequestSpec) -> Vec<HostExplanation> {
        let mut request = request(spec);
        request.near_zones = spec.group.as_ref().map(|group| self.zones_of(group)).unwrap_or_default();
        let mut explained = algorithm.explain(&self.table, &request);
        if let Some(group) = &spec.group {
            for host in &mut explained {
                host.objections.extend(groups::objection(group, &HostName::new(&host.host)));
            }
            explained.sort_by_key(|host| !host.objections.is_empty());
        }
        self.object_to_cells(spec, &mut explained);
        explained
    }

    /// The aggregates that a host is in, by number.
    pub fn aggregates_of(&self, host: &HostName) -> Vec<&Aggregate> {
        self.aggregates.of(host)
    }

    /// An instance that is asked for again has no use for what it was promised before.
    pub(super) fn take_back(&mut self, instance: InstanceId) {
        for host in self.promised.take(instance) {
            self.table.release_on(instance.as_u128(), host.as_str());
        }
    }

    /// Asks the algorithm, and counts what it chose as taken. Members of a server group are placed one after the other,
    /// each knowing where those before it went; all or none.
    pub fn select(
        &mut self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        rng: &mut SchedulerRng,
        now: Timestamp,
    ) -> Result<Vec<Selection>, NoValidHost> {
        if let Some(guest) = &spec.topology {
            return self.select_cells(algorithm, spec, guest, rng, now);
        }
        for instance in &spec.instances {
            self.take_back(*instance);
        }
        let Some(group) = &spec.group else {
            let chosen = algorithm.select_destinations(&self.table, &request(spec), rng).map_err(|no| told(&no))?;
            let selections = spec.instances.iter().zip(chosen).map(|(id, chosen)| selection(*id, &chosen)).collect();
            return Ok(self.promise(spec, selections, now));
        };
        let known = group.clone();
        let believed = self.promised.with_members(known.clone(), &spec.instances);
        let uncertain = believed != known;
        match self.select_members(algorithm, spec, believed, rng, now) {
            // Members that were promised a place may not have got it: the store and the booking decide.
            Err(_) if uncertain => self.select_members(algorithm, spec, known, rng, now),
            selected => selected,
        }
    }

    fn select_members(
        &mut self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        mut group: GroupPlacement,
        rng: &mut SchedulerRng,
        now: Timestamp,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let mut selections = Vec::with_capacity(spec.instances.len());
        for instance in &spec.instances {
            match self.select_member(algorithm, spec, &group, *instance, rng) {
                Ok(chosen) => {
                    group.members.insert((*instance, chosen.chosen.host.clone()));
                    selections.extend(self.promise(spec, vec![chosen], now));
                }
                Err(no) => {
                    spec.instances.iter().for_each(|instance| self.take_back(*instance));
                    return Err(no);
                }
            }
        }
        groups::drop_alternates(&mut selections, &group);
        Ok(selections)
    }

    fn select_member(
        &self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        group: &GroupPlacement,
        instance: InstanceId,
        rng: &mut SchedulerRng,
    ) -> Result<Selection, NoValidHost> {
        let mut refused = None;
        for attempt in groups::attempts(group, spec) {
            let mut request = request(spec).instances(1);
            request.near_zones = self.zones_of(group);
            request.ignore_hosts.extend(attempt.avoid.iter().map(ToString::to_string));
            if let Some(only) = &attempt.only {
                request.requested_host = Some(only.to_string());
            }
            match algorithm.select_destinations(&self.table, &request, rng) {
                Ok(chosen) => {
                    let first = chosen.first().map(|chosen| selection(instance, chosen));
                    return first.ok_or_else(|| groups::nowhere(group));
                }
                Err(no) => refused = Some(groups::explained(told(&no), group, &attempt)),
            }
        }
        Err(refused.unwrap_or_else(|| groups::nowhere(group)))
    }

    /// What is selected counts as taken from now on.
    fn promise(&mut self, spec: &RequestSpec, selections: Vec<Selection>, now: Timestamp) -> Vec<Selection> {
        let group = spec.group.as_ref().map(|group| group.id);
        for selection in &selections {
            self.allocate(selection.instance_id, &selection.chosen.host, spec.resources);
            self.promised.insert(selection.instance_id, &selection.chosen.host, group, now);
        }
        self.note_promised_images(spec);
        selections
    }
}

fn selection(instance_id: InstanceId, chosen: &nova_sched::Selection) -> Selection {
    Selection {
        instance_id,
        chosen: destination(&chosen.host, &chosen.node, &chosen.zone),
        alternates: chosen.alternates.iter().map(|d| destination(&d.host, &d.node, &d.zone)).collect(),
    }
}

fn destination(host: &str, node: &str, zone: &str) -> Destination {
    Destination { host: host.into(), node: node.to_owned(), zone: zone.into() }
}

fn told(no: &nova_sched::NoValidHost) -> NoValidHost {
    NoValidHost {
        summary: no.summary().to_owned(),
        details: no.to_string(),
        reasons: no.reasons.iter().map(|(reason, count)| (reason.to_string(), *count as u64)).collect(),
    }
}
