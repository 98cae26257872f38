//! The host table: rows of the store in the form that algorithms read.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use nova_core::flavor::Resources;
use nova_core::host::{Allocation, ComputeNode, Service};
use nova_core::ids::{HostName, InstanceId};
use nova_core::request::{Destination, NoValidHost, RequestSpec, Selection};
use nova_core::rpc::scheduler::HostsChangedRequest;
use nova_sched::{
    Dimensions, HostInventory, HostTable, Ratios, Request, ResourceVector, Scheduler, SchedulerError, SchedulerRng,
};

/// How long a promised place counts as taken though the store does not show it.
pub const TENTATIVE: SignedDuration = SignedDuration::from_secs(60);

const DIMENSIONS: [&str; 3] = ["vcpus", "memory_mb", "disk_gb"];

/// A host table and what was promised on it.
pub struct Hosts {
    table: HostTable,
    promised: BTreeMap<(InstanceId, HostName), (Resources, Timestamp)>,
}

fn vector(resources: Resources) -> ResourceVector {
    let mut vector = ResourceVector::default();
    vector.set(0, resources.vcpus);
    vector.set(1, resources.memory_mb);
    vector.set(2, resources.disk_gb);
    vector
}

impl Hosts {
    /// An empty table with the indexes that the algorithm reads.
    pub fn new(algorithm: &dyn Scheduler) -> Result<Self, SchedulerError> {
        let mut table = HostTable::new(Dimensions::new(DIMENSIONS)?);
        algorithm.register(&mut table)?;
        Ok(Self { table, promised: BTreeMap::new() })
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
    pub fn read_from(
        &mut self,
        nodes: &[ComputeNode],
        services: &[Service],
        allocations: &[Allocation],
        now: Timestamp,
        down_time: SignedDuration,
    ) {
        let known: Vec<String> = self.table.hosts().map(|h| h.name().to_owned()).collect();
        for name in known {
            if !nodes.iter().any(|n| n.host.as_str() == name) {
                self.table.remove_host(&name);
            }
        }
        let services: BTreeMap<&HostName, &Service> =
            services.iter().filter(|s| s.binary == "nova-compute").map(|s| (&s.host, s)).collect();
        for node in nodes {
            let service = services.get(&node.host);
            let up = service.is_some_and(|s| s.is_up(now, down_time));
            self.put(node, up, service.is_some_and(|s| !s.disabled));
        }
        self.replace_allocations(allocations, now);
    }

    fn put(&mut self, node: &ComputeNode, up: bool, enabled: bool) {
        let inventory = &node.inventory;
        let mut host = HostInventory::new(node.host.as_str(), node.zone.as_str(), vector(inventory.total));
        host.node = node.hypervisor_hostname.clone();
        host.reserved = vector(inventory.reserved);
        let mut ratio = Ratios::default();
        ratio.set(0, inventory.cpu_ratio);
        ratio.set(1, inventory.ram_ratio);
        ratio.set(2, inventory.disk_ratio);
        host.ratio = ratio;
        host.up = up;
        host.enabled = enabled;
        host.architectures = node.architectures.clone();
        if let Err(error) = self.table.upsert_host(host) {
            tracing::warn!(host = %node.host, "its inventory cannot be used: {error}");
        }
    }

    fn replace_allocations(&mut self, allocations: &[Allocation], now: Timestamp) {
        let stored: BTreeMap<(InstanceId, &HostName), Resources> =
            allocations.iter().map(|a| ((a.instance_id, &a.host), a.resources)).collect();
        self.promised.retain(|(instance, host), (_, since)| {
            !stored.contains_key(&(*instance, host)) && now.duration_since(*since) <= TENTATIVE
        });
        let hosts: Vec<HostName> = self.table.hosts().map(|h| HostName::new(h.name())).collect();
        for host in hosts {
            for consumer in self.table.consumers_on(host.as_str()) {
                let instance = InstanceId::from_uuid(uuid::Uuid::from_u128(consumer));
                let promised = self.promised.contains_key(&(instance, host.clone()));
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
                    self.promised.remove(&(change.instance_id, change.host.clone()));
                    self.table.release_on(change.instance_id.as_u128(), change.host.as_str());
                }
            }
        }
    }

    /// An instance that is asked for again has no use for what it was promised before.
    fn take_back(&mut self, instance: InstanceId) {
        let from = (instance, HostName::new(""));
        let earlier = self.promised.range(from..).take_while(|((id, _), _)| *id == instance);
        let hosts: Vec<HostName> = earlier.map(|((_, host), _)| host.clone()).collect();
        for host in hosts {
            self.table.release_on(instance.as_u128(), host.as_str());
            self.promised.remove(&(instance, host));
        }
    }

    /// Asks the algorithm, and counts what it chose as taken.
    pub fn select(
        &mut self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        rng: &mut SchedulerRng,
        now: Timestamp,
    ) -> Result<Vec<Selection>, NoValidHost> {
        for instance in &spec.instances {
            self.take_back(*instance);
        }
        let request = request(spec);
        let chosen = algorithm.select_destinations(&self.table, &request, rng).map_err(|no| told(&no))?;
        let mut selections = Vec::with_capacity(chosen.len());
        for (instance, selection) in spec.instances.iter().zip(chosen) {
            let host = HostName::new(&*selection.host);
            self.allocate(*instance, &host, spec.resources);
            self.promised.insert((*instance, host.clone()), (spec.resources, now));
            selections.push(Selection {
                instance_id: *instance,
                chosen: destination(&selection.host, &selection.node, &selection.zone),
                alternates: selection.alternates.iter().map(|d| destination(&d.host, &d.node, &d.zone)).collect(),
            });
        }
        Ok(selections)
    }
}

fn destination(host: &str, node: &str, zone: &str) -> Destination {
    Destination { host: host.into(), node: node.to_owned(), zone: zone.into() }
}

fn request(spec: &RequestSpec) -> Request {
    let count = u32::try_from(spec.instances.len()).unwrap_or(u32::MAX);
    let mut request = Request::new(vector(spec.resources)).instances(count);
    request.num_alternates = u32::try_from(spec.alternates).unwrap_or(0);
    request.zone = spec.availability_zone.as_ref().map(ToString::to_string);
    request.force_host = spec.force_host.as_ref().map(ToString::to_string);
    request.force_node = spec.force_node.clone();
    request.requested_host = spec.requested_host.as_ref().map(ToString::to_string);
    request.ignore_hosts = spec.ignore_hosts.iter().map(ToString::to_string).collect();
    request.architecture = spec.architecture.clone();
    request
}

fn told(no: &nova_sched::NoValidHost) -> NoValidHost {
    NoValidHost {
        summary: no.summary().to_owned(),
        details: no.to_string(),
        reasons: no.reasons.iter().map(|(reason, count)| (reason.to_string(), *count as u64)).collect(),
    }
}
