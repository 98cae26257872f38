//! The host table: rows of the store in the form that algorithms read.
//!
//! It is fed by readings of the store ([`super::reading`]), by news ([`super::news`]) and by its own answers, each of which
//! may be older than another: see [`Known`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nova_core::aggregate::Aggregate;
use nova_core::flavor::{Resources, foreign_resources};
use nova_core::host::NodeVersion;
use nova_core::ids::{HostName, InstanceId};
use nova_core::request::{Destination, NoValidHost, Purpose, RequestSpec, Selection};
use nova_core::server_group::GroupPlacement;
use nova_sched::{
    Applied, Dimensions, HostExplanation, HostInventory, HostTable, Objection, Request, ResourceVector, Scheduler,
    SchedulerError, SchedulerRng,
};

use super::aggregates::Aggregates;
use super::groups;
use super::promises::{Promise, Promises};
use super::request::{DIMENSIONS, request, vector};
use super::topology::Topologies;

/// How long a promised place counts as taken though the store does not show it.
pub const TENTATIVE: SignedDuration = SignedDuration::from_secs(60);

/// Why an operator's host takes nothing, where nobody said more.
pub(super) const DISABLED: &str = "disabled by an operator";

/// A host table, the aggregates that its hosts are in, and what was promised on it.
pub struct Hosts {
    pub(super) table: HostTable,
    pub(super) aggregates: Aggregates,
    pub(super) promised: Promises,
    pub(super) known: BTreeMap<HostName, Known>,
    /// Allocations that were told of and that no reading has shown yet.
    pub(super) told: BTreeMap<HostName, BTreeMap<InstanceId, Told>>,
    /// How much was heard: news, and promises that were made.
    pub(super) heard: u64,
    changes: u64,
    pub(super) topologies: Topologies,
    pub(super) weighs_images: bool,
}

/// How new what is known of a host is. Nothing older takes its place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Its node, when that was last described.
    pub(super) described: NodeVersion,
    /// Its node, when its allocations were last read: what is told of changes up to there is in the table.
    pub(super) read: NodeVersion,
    /// Its service, when that was last spoken of.
    pub(super) service: u64,
    /// When the last news of the node came, in the count of [`Hosts::heard`].
    pub(super) node_heard: u64,
    /// When the last news of the service came.
    pub(super) service_heard: u64,
}

/// An allocation as it was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// The node right after it was written.
    pub(super) version: NodeVersion,
    /// How much; none when it was given back.
    pub(super) resources: Option<Resources>,
}

impl Hosts {
    /// An empty table with the indexes that the algorithm reads.
    ///
    /// # Errors
    /// The algorithm reads a resource that hosts do not report.
    pub fn new(algorithm: &dyn Scheduler) -> Result<Self, SchedulerError> {
        let mut table = HostTable::new(Dimensions::new(DIMENSIONS)?);
        algorithm.register(&mut table)?;
        Ok(Self {
            table,
            aggregates: Aggregates::default(),
            promised: Promises::default(),
            known: BTreeMap::new(),
            told: BTreeMap::new(),
            heard: 0,
            changes: 0,
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

    /// How many changes hosts and allocations have seen. What was known already changes nothing.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Makes a host in the table what is wanted. One that is as it was is left alone: describing it anew would cost the
    /// indexes what they have learned.
    pub(super) fn describe(&mut self, mut wanted: HostInventory) {
        sort_names(&mut wanted);
        let known = self.table.host(&wanted.name).map(|host| host.inventory());
        let done = match known {
            Some(mut known) => {
                sort_names(&mut known);
                if known == wanted {
                    return;
                }
                if is_same_machine(&known, &wanted) {
                    self.update_state(&wanted)
                } else {
                    self.table.upsert_host(wanted.clone())
                }
            }
            None => self.table.upsert_host(wanted.clone()),
        };
        self.changes += 1;
        if let Err(error) = done {
            tracing::warn!(host = wanted.name, "its inventory cannot be used: {error}");
        }
    }

    fn update_state(&mut self, wanted: &HostInventory) -> Result<(), SchedulerError> {
        let name = &wanted.name;
        self.table.set_up(name, wanted.up)?;
        self.table.set_enabled(name, wanted.enabled, wanted.disabled_reason.as_deref())?;
        self.table.set_stats(name, wanted.stats.clone())?;
        self.table.set_reported_load(name, wanted.reported_load)
    }

    /// What the store has is true even where this table thinks that there is no room.
    pub(super) fn allocate(&mut self, instance: InstanceId, host: &HostName, resources: &ResourceVector) {
        match self.table.record_allocation(host.as_str(), instance.as_u128(), resources) {
            Ok(Applied::Now) => {
                self.changes += 1;
                self.topologies.touched(instance, host);
            }
            Ok(Applied::Before) => {}
            Err(error) => tracing::debug!(%host, %instance, "not in the table: {error}"),
        }
    }

    pub(super) fn release(&mut self, instance: InstanceId, host: &HostName) {
        self.changes += u64::from(self.table.release_on(instance.as_u128(), host.as_str()));
        self.topologies.touched(instance, host);
    }

    pub(super) fn remove_host(&mut self, host: &HostName) {
        self.known.remove(host);
        self.topologies.forget(host);
        self.changes += u64::from(self.table.remove_host(host.as_str()));
    }

    pub(super) fn tell_aggregates(&mut self) {
        self.table.set_aggregates(self.aggregates.iter().map(|aggregate| nova_sched::Aggregate {
            id: u64::try_from(aggregate.number).unwrap_or(0),
            name: aggregate.name.clone(),
            metadata: aggregate.metadata.clone(),
            hosts: aggregate.hosts.iter().map(ToString::to_string).collect(),
        }));
    }

    /// The aggregates that a host is in, by number.
    pub fn aggregates_of(&self, host: &HostName) -> Vec<&Aggregate> {
        self.aggregates.of(host)
    }

    /// Where the members of a group are: a request without a zone of its own likes to be near to them.
    fn zones_of(&self, group: &GroupPlacement) -> Vec<String> {
        let zones = group.counts().into_keys().filter_map(|host| self.table.host(host.as_str()));
        let zones: BTreeSet<String> = zones.map(|host| host.zone().to_owned()).collect();
        zones.into_iter().collect()
    }

    /// What the algorithm is asked for the instances of a request, members of that group.
    fn asked(&self, spec: &RequestSpec, group: Option<&GroupPlacement>) -> Request {
        let mut request = request(spec);
        if spec.purpose == Purpose::Move && !spec.may_stay {
            request.ignore_hosts.extend(self.places_of(spec).iter().map(ToString::to_string));
        }
        request.near_zones = group.map(|group| self.zones_of(group)).unwrap_or_default();
        request.group = group.map(groups::rule);
        request
    }

    /// What the algorithm thinks of every host for one more instance of that kind.
    pub fn explain(&self, algorithm: &dyn Scheduler, spec: &RequestSpec) -> Vec<HostExplanation> {
        let mut explained = algorithm.explain(&self.table, &self.asked(spec, spec.group.as_ref()));
        for class in foreign_resources(&spec.flavor.extra_specs) {
            let (check, details) = (class.to_owned(), Some("no host has any".to_owned()));
            let objection = Objection { check, details };
            explained.iter_mut().for_each(|host| host.objections.push(objection.clone()));
        }
        self.object_to_cells(spec, &mut explained);
        explained
    }

    /// The hosts on which the instance of a request holds something, promises aside where they were taken back.
    fn places_of(&self, spec: &RequestSpec) -> Vec<HostName> {
        let held = spec.instances.iter().flat_map(|instance| self.table.holdings(instance.as_u128()));
        held.map(|held| HostName::new(held.host)).collect()
    }

    /// An instance that is asked for again has no use for what it was promised before.
    pub(super) fn take_back(&mut self, instance: InstanceId) {
        for host in self.promised.take(instance) {
            self.release(instance, &host);
        }
    }

    /// Promises that nobody took up in time are none.
    pub(super) fn expire_promises(&mut self, now: Timestamp) {
        for (instance, host) in self.promised.expire(now, TENTATIVE) {
            self.release(instance, &host);
        }
    }

    /// Asks the algorithm for all instances of a request, and counts what it chose as taken; all or none.
    ///
    /// # Errors
    /// [`NoValidHost`], with all that spoke against hosts.
    pub fn select(
        &mut self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        rng: &mut SchedulerRng,
        now: Timestamp,
    ) -> Result<Vec<Selection>, NoValidHost> {
        self.expire_promises(now);
        if spec.purpose == Purpose::Rebuild {
            return self.check_image(algorithm, spec, rng);
        }
        if let Some(guest) = &spec.topology {
            return self.select_cells(algorithm, spec, guest, rng, now);
        }
        for instance in &spec.instances {
            self.take_back(*instance);
        }
        self.check_classes(spec)?;
        self.check_forced(spec)?;
        let chosen = match &spec.group {
            None => algorithm.select_destinations(&self.table, &self.asked(spec, None), rng).map_err(|no| told(&no)),
            Some(group) => self.select_members(algorithm, spec, group, rng),
        }?;
        Ok(self.promise(spec, selections(spec, &chosen), now))
    }

    /// Whether the host that has an instance can run another image. Its place is booked, so that nothing is promised.
    fn check_image(
        &self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let mut request = self.asked(spec, None);
        let named = spec.requested_host.clone().or_else(|| spec.force_host.clone());
        let host = named.or_else(|| self.places_of(spec).into_iter().next());
        let Some(host) = host else {
            return Err(refused(spec, "the instance has no host".to_owned(), BTreeMap::new()));
        };
        request.requested_host = Some(host.to_string());
        (request.force_host, request.force_node, request.num_alternates) = (None, None, 0);
        let chosen = algorithm.select_destinations(&self.table, &request, rng).map_err(|no| told(&no))?;
        Ok(selections(spec, &chosen))
    }

    /// No host has resources of classes that hosts do not report.
    fn check_classes(&self, spec: &RequestSpec) -> Result<(), NoValidHost> {
        let classes = foreign_resources(&spec.flavor.extra_specs);
        let Some(class) = classes.first() else { return Ok(()) };
        let hosts = self.table.len();
        let details = format!("of {hosts} host(s), none has any {}, which the flavor asks for", classes.join(", "));
        Err(refused(spec, details, [((*class).to_owned(), hosts as u64)].into()))
    }

    /// Not even an administrator moves an instance to where it is.
    fn check_forced(&self, spec: &RequestSpec) -> Result<(), NoValidHost> {
        let Some(host) = spec.force_host.as_ref().filter(|_| spec.purpose == Purpose::Move) else { return Ok(()) };
        if !self.places_of(spec).contains(host) {
            return Ok(());
        }
        Err(refused(spec, format!("on `{host}`: the instance is there"), [("ignored".to_owned(), 1)].into()))
    }

    /// Chooses places for members of a group.
    fn select_members(
        &self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        group: &GroupPlacement,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<nova_sched::Selection>, NoValidHost> {
        let mut ask = |group: &GroupPlacement| {
            let chosen = algorithm.select_destinations(&self.table, &self.asked(spec, Some(group)), rng);
            chosen.map_err(|no| groups::explained(told(&no), group))
        };
        let asked: BTreeSet<InstanceId> = spec.instances.iter().copied().collect();
        let mut known = group.clone();
        known.members.retain(|(member, _)| !asked.contains(member));
        let believed = self.promised.with_members(known.clone(), &asked);
        match ask(&believed) {
            // Members that were promised a place may not have got it: the store and the booking decide.
            Err(_) if believed != known => ask(&known),
            chosen => chosen,
        }
    }

    /// What is selected counts as taken from now on.
    fn promise(&mut self, spec: &RequestSpec, selections: Vec<Selection>, now: Timestamp) -> Vec<Selection> {
        let (group, resources) = (spec.group.as_ref().map(|group| group.id), vector(spec.resources));
        self.heard += 1;
        for selection in &selections {
            let (instance, host) = (selection.instance_id, &selection.chosen.host);
            let before = self.table.holdings(instance.as_u128()).into_iter().map(|held| HostName::new(held.host));
            let before: Vec<HostName> = before.collect();
            // What is booked there already needs no promise.
            if before.contains(host) {
                continue;
            }
            self.allocate(instance, host, &resources);
            let promise = Promise { since: now, heard: self.heard, group, before };
            self.promised.insert(instance, host, promise);
        }
        self.note_promised_images(spec);
        selections
    }
}

/// Lists without an order, in one that can be compared.
fn sort_names(inventory: &mut HostInventory) {
    for names in [&mut inventory.architectures, &mut inventory.traits] {
        names.sort_unstable();
        names.dedup();
    }
}

/// Whether it takes instances, and why not.
pub(super) fn copy_state(from: &HostInventory, into: &mut HostInventory) {
    (into.up, into.enabled) = (from.up, from.enabled);
    into.disabled_reason.clone_from(&from.disabled_reason);
}

/// Do the two differ in nothing but what changes often?
fn is_same_machine(known: &HostInventory, wanted: &HostInventory) -> bool {
    let mut as_known = wanted.clone();
    copy_state(known, &mut as_known);
    as_known.stats.clone_from(&known.stats);
    as_known.reported_load = known.reported_load;
    *known == as_known
}

/// What the algorithm chose for each instance.
fn selections(spec: &RequestSpec, chosen: &[nova_sched::Selection]) -> Vec<Selection> {
    spec.instances.iter().zip(chosen).map(|(id, chosen)| selection(*id, chosen)).collect()
}

/// A "no" that no algorithm was asked for.
pub(super) fn refused(spec: &RequestSpec, why: String, reasons: BTreeMap<String, u64>) -> NoValidHost {
    NoValidHost {
        summary: "No valid host was found. There are not enough hosts available.".to_owned(),
        details: format!("no valid host for {} instance(s): {why}", spec.instances.len()),
        reasons,
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

#[cfg(test)]
mod tests;
