//! NUMA cells, dedicated CPUs and huge pages: whatever the algorithm, hosts that have no place for the guest's are kept out.
//! The booking decides; here it is only seen to that few bookings fail.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId};
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::topology::{GuestTopology, HostCell, HostCells, Placement, place};
use nova_sched::{HostExplanation, Objection, Scheduler, SchedulerRng};

use super::table::refused;
use super::{Hosts, Stored};

/// The name of this check among the reasons for a no.
const CHECK: &str = "topology";
/// No host lacks anything.
static NOTHING: BTreeMap<HostName, &str> = BTreeMap::new();

/// So many kinds of guests are remembered with the hosts that have no place for them.
const KINDS: usize = 32;

/// What hosts tell of their cells, and what of them is booked. What a consumer no longer holds in the host table counts
/// no more.
#[derive(Debug, Default)]
pub(super) struct Topologies {
    hosts: BTreeMap<HostName, HostTopology>,
    /// The kind that was asked for last stands last.
    kinds: Vec<Kind>,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct HostTopology {
    cells: Vec<HostCell>,
    cpu_ratio: f64,
    ram_ratio: f64,
    placements: BTreeMap<InstanceId, Placement>,
}

/// Guests that ask for the same.
#[derive(Debug)]
struct Kind {
    guest: GuestTopology,
    /// Hosts without a place for one, and what they lack.
    lacking: BTreeMap<HostName, &'static str>,
    /// Hosts that changed since they were looked at.
    changed: BTreeSet<HostName>,
}

impl Topologies {
    /// What a host tells.
    pub(super) fn describe(&mut self, node: &ComputeNode) {
        let HostCells { cells, cpu_ratio, ram_ratio } = node.cells();
        let known = self.hosts.get(&node.host);
        if known
            .is_some_and(|known| known.cells == cells && (known.cpu_ratio, known.ram_ratio) == (cpu_ratio, ram_ratio))
        {
            return;
        }
        let placements = self.hosts.remove(&node.host).map(|known| known.placements).unwrap_or_default();
        let told = HostTopology { cells: cells.to_vec(), cpu_ratio, ram_ratio, placements };
        self.hosts.insert(node.host.clone(), told);
        self.changed(&node.host);
    }

    /// A host that is gone.
    pub(super) fn forget(&mut self, host: &HostName) {
        self.hosts.remove(host);
        for kind in &mut self.kinds {
            kind.lacking.remove(host);
            kind.changed.remove(host);
        }
    }

    /// Notes what the store has; what it cannot know yet stays while `promised`.
    fn read(&mut self, allocations: &[Allocation], promised: impl Fn(InstanceId, &HostName) -> bool) {
        let mut stored: BTreeMap<&HostName, BTreeMap<InstanceId, &Placement>> = BTreeMap::new();
        for allocation in allocations {
            if let Some(placement) = &allocation.placement {
                stored.entry(&allocation.host).or_default().insert(allocation.instance_id, placement);
            }
        }
        let mut changed = Vec::new();
        for (host, known) in &mut self.hosts {
            let stored = stored.remove(host).unwrap_or_default();
            let before = known.placements.clone();
            known.placements.retain(|instance, _| stored.contains_key(instance) || promised(*instance, host));
            known.placements.extend(stored.into_iter().map(|(instance, placement)| (instance, placement.clone())));
            if before != known.placements {
                changed.push(host.clone());
            }
        }
        changed.iter().for_each(|host| self.changed(host));
    }

    /// That place is the instance's.
    pub(super) fn hold(&mut self, instance: InstanceId, host: &HostName, placement: Placement) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.placements.insert(instance, placement);
            self.changed(host);
        }
    }

    /// An instance took something on the host, or gave it back.
    pub(super) fn touched(&mut self, instance: InstanceId, host: &HostName) {
        if self.hosts.get(host).is_some_and(|known| known.placements.contains_key(&instance)) {
            self.changed(host);
        }
    }

    fn changed(&mut self, host: &HostName) {
        for kind in &mut self.kinds {
            kind.changed.insert(host.clone());
        }
    }

    /// What is remembered of such guests; of a kind that is new, nothing.
    fn take_kind(&mut self, guest: &GuestTopology) -> Kind {
        if let Some(at) = self.kinds.iter().position(|kind| kind.guest == *guest) {
            return self.kinds.remove(at);
        }
        if self.kinds.len() >= KINDS {
            self.kinds.remove(0);
        }
        Kind { guest: guest.clone(), lacking: BTreeMap::new(), changed: self.hosts.keys().cloned().collect() }
    }
}

impl Hosts {
    /// Takes over what a reading says of cells, and of what is booked of them; promises stay.
    pub(super) fn read_topologies(&mut self, stored: &Stored) {
        let mut met = BTreeSet::new();
        // Of several nodes of a host the first one counts, as at the booking.
        for node in stored.nodes.iter().filter(|node| met.insert(&node.host)) {
            self.topologies.describe(node);
        }
        let (promised, told) = (&self.promised, &self.told);
        self.topologies.read(&stored.allocations, |instance, host| {
            let told = told.get(host).and_then(|told| told.get(&instance));
            promised.contains(instance, host) || told.is_some_and(|told| told.resources.is_some())
        });
    }

    /// A place for the guest on that host, as far as is known here.
    fn place_on(&self, host: &HostName, guest: &GuestTopology) -> Result<Placement, &'static str> {
        let known = self.topologies.hosts.get(host).ok_or("NUMA cells")?;
        let view = self.table.host(host.as_str());
        let held = known.placements.iter();
        let held = held.filter(|(instance, _)| view.is_some_and(|view| view.holds(instance.as_u128())));
        let HostTopology { cells, cpu_ratio, ram_ratio, .. } = known;
        let cells = HostCells { cells, cpu_ratio: *cpu_ratio, ram_ratio: *ram_ratio };
        place(cells, held.map(|(_, placement)| placement), guest)
    }

    /// Hosts without a place for the guest, and what they lack. Only hosts that changed since such a guest was last asked
    /// for are looked at.
    fn without_place(&mut self, guest: &GuestTopology) -> &BTreeMap<HostName, &'static str> {
        let mut kind = self.topologies.take_kind(guest);
        for host in std::mem::take(&mut kind.changed) {
            match self.place_on(&host, guest) {
                Ok(_) => drop(kind.lacking.remove(&host)),
                Err(lacks) => drop(kind.lacking.insert(host, lacks)),
            }
        }
        self.topologies.kinds.push(kind);
        self.topologies.kinds.last().map_or(&NOTHING, |kind| &kind.lacking)
    }

    /// Places the instances of a request one after the other, each knowing what those before it took; all or none.
    pub(super) fn select_cells(
        &mut self,
        algorithm: &dyn Scheduler,
        spec: &RequestSpec,
        guest: &GuestTopology,
        rng: &mut SchedulerRng,
        now: Timestamp,
    ) -> Result<Vec<Selection>, NoValidHost> {
        for instance in &spec.instances {
            self.take_back(*instance);
        }
        let mut selections = Vec::with_capacity(spec.instances.len());
        let mut alone = RequestSpec { topology: None, ..spec.clone() };
        for instance in &spec.instances {
            alone.instances = vec![*instance];
            alone.ignore_hosts.clone_from(&spec.ignore_hosts);
            alone.ignore_hosts.extend(self.without_place(guest).keys().cloned());
            let chosen = self.forced_cells(spec, guest).and_then(|()| self.select(algorithm, &alone, rng, now));
            match chosen {
                Ok(chosen) => {
                    for one in &chosen {
                        let host = &one.chosen.host;
                        if let Ok(placement) = self.place_on(host, guest) {
                            self.topologies.hold(one.instance_id, host, placement);
                        }
                        // Those after it know where it is, whatever the store says yet.
                        if let Some(group) = &mut alone.group {
                            group.members.insert((one.instance_id, host.clone()));
                        }
                    }
                    selections.extend(chosen);
                }
                Err(no) => {
                    spec.instances.iter().for_each(|instance| self.take_back(*instance));
                    return Err(explained(no, self.without_place(guest)));
                }
            }
        }
        Ok(selections)
    }

    /// A host that is forced is taken past all preferences, but not without the CPUs.
    fn forced_cells(&mut self, spec: &RequestSpec, guest: &GuestTopology) -> Result<(), NoValidHost> {
        let by_node = |node: &String| {
            let found = self.table.hosts().find(|host| host.node() == node.as_str());
            found.map(|host| HostName::new(host.name()))
        };
        let forced = spec.force_host.clone().or_else(|| spec.force_node.as_ref().and_then(by_node));
        let Some(host) = forced.filter(|host| self.table.host(host.as_str()).is_some()) else { return Ok(()) };
        let Err(lacks) = self.place_on(&host, guest) else { return Ok(()) };
        Err(refused(spec, format!("{host} has {}", not_enough(lacks)), BTreeMap::from([(CHECK.to_owned(), 1)])))
    }

    /// Adds to what hosts are told to have against the request that they have no place for its cells.
    pub(super) fn object_to_cells(&self, spec: &RequestSpec, explained: &mut [HostExplanation]) {
        let Some(guest) = &spec.topology else { return };
        for host in explained.iter_mut() {
            if let Err(lacks) = self.place_on(&HostName::new(&host.host), guest) {
                host.objections.push(Objection { check: CHECK.to_owned(), details: Some(not_enough(lacks)) });
            }
        }
        explained.sort_by_key(|host| !host.objections.is_empty());
    }
}

fn not_enough(what: &str) -> String {
    format!("not enough {what} left")
}

/// The algorithm's "no", with this check's part in it.
fn explained(mut no: NoValidHost, lacking: &BTreeMap<HostName, &'static str>) -> NoValidHost {
    if lacking.is_empty() {
        return no;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for lacks in lacking.values() {
        *counts.entry(lacks).or_default() += 1;
    }
    let parts: Vec<String> =
        counts.iter().map(|(lacks, hosts)| format!("{hosts} have {}", not_enough(lacks))).collect();
    no.details = format!("{}; of the hosts, {}", no.details, parts.join(", "));
    no.reasons.insert(CHECK.to_owned(), lacking.len() as u64);
    no
}

#[cfg(test)]
mod tests {
    use nova_core::flavor::Resources;
    use nova_core::host::NodeVersion;
    use nova_core::rpc::scheduler::{AllocationNews, HostsChangedRequest};
    use nova_core::server_group::GroupPlacement;
    use nova_core::topology::{CpuPolicy, GuestCell};

    use super::super::reading::Reading;
    use super::super::testing::{DOWN, NOW, algorithm, host, instance, read, small, stored};
    use super::*;

    #[test]
    fn a_no_says_what_hosts_lack() {
        let no = NoValidHost { summary: "s".into(), details: "d".into(), reasons: BTreeMap::new() };
        assert_eq!(explained(no.clone(), &NOTHING), no);
        let lacking = [("a", "dedicated CPUs"), ("b", "huge pages"), ("c", "dedicated CPUs")];
        let lacking = lacking.into_iter().map(|(host, lacks)| (host.into(), lacks)).collect();
        let told = explained(no, &lacking);
        assert_eq!(
            told.details,
            "d; of the hosts, 2 have not enough dedicated CPUs left, 1 have not enough huge pages left"
        );
        assert_eq!(told.reasons["topology"], 3);
    }

    fn guest(cpus: u32) -> GuestTopology {
        let cell = GuestCell { cpus: (0..cpus).collect(), memory_mb: 64 };
        GuestTopology { cells: vec![cell], cpu_policy: CpuPolicy::Dedicated, ..GuestTopology::default() }
    }

    /// So many hosts with four CPUs to give away, and one without.
    fn cells(hosts: usize) -> Stored {
        let mut stored = stored(hosts + 1);
        for node in &mut stored.nodes[..hosts] {
            let cell = HostCell { dedicated_cpus: (0..4).collect(), memory_mb: 4096, ..HostCell::default() };
            node.facts.cells = vec![cell];
        }
        stored
    }

    fn asked(instances: std::ops::Range<u128>, cpus: u32) -> RequestSpec {
        RequestSpec {
            instances: instances.map(instance).collect(),
            resources: Resources { vcpus: 0, ..small() },
            topology: Some(guest(cpus)),
            ..RequestSpec::default()
        }
    }

    fn select(hosts: &mut Hosts, spec: &RequestSpec, now: Timestamp) -> Result<Vec<String>, NoValidHost> {
        let chosen = hosts.select(&*algorithm("least_load"), spec, &mut SchedulerRng::from_seed(1), now)?;
        Ok(chosen.into_iter().map(|one| one.chosen.host.to_string()).collect())
    }

    #[test]
    fn guests_fill_the_cells_of_hosts_and_a_reading_frees_them() {
        let stored = cells(2);
        let mut hosts = read(&*algorithm("least_load"), &stored);
        let mut places = select(&mut hosts, &asked(0..3, 2), NOW).unwrap();
        places.extend(select(&mut hosts, &asked(3..4, 2), NOW).unwrap());
        places.sort();
        assert_eq!(places, ["host000", "host000", "host001", "host001"]);
        let no = select(&mut hosts, &asked(4..5, 1), NOW).unwrap_err();
        assert_eq!(no.reasons[CHECK], 3);
        assert!(no.details.contains("2 have not enough dedicated CPUs left"), "{}", no.details);
        let no = select(&mut hosts, &RequestSpec { force_host: Some(host(1)), ..asked(4..5, 1) }, NOW).unwrap_err();
        assert!(no.details.contains("(s): host001 has not enough dedicated CPUs left"), "{}", no.details);
        // Nobody took the places up.
        let later = NOW + super::super::TENTATIVE + jiff::SignedDuration::from_secs(1);
        hosts.read_from(&stored, later, jiff::SignedDuration::from_hours(1));
        assert_eq!(select(&mut hosts, &asked(4..6, 4), later).unwrap().len(), 2);
        assert!(select(&mut hosts, &asked(6..7, 1), later).is_err());
    }

    #[test]
    fn cells_that_another_scheduler_gave_away_are_told() {
        let stored = cells(1);
        let mut hosts = read(&*algorithm("least_load"), &stored);
        let placement = hosts.place_on(&host(0), &guest(4)).unwrap();
        let told = AllocationNews {
            instance_id: instance(9),
            host: host(0),
            resources: Some(Resources { vcpus: 0, ..small() }),
            placement: Some(placement),
            version: Some(NodeVersion { number: 1, generation: 2 }),
        };
        // A reading that began before knows nothing of it.
        let (mark, reading) = (hosts.mark(), stored.clone());
        hosts.apply(&HostsChangedRequest { allocations: vec![told.clone()], ..HostsChangedRequest::default() });
        assert!(select(&mut hosts, &asked(0..1, 1), NOW).is_err());
        let reading = Reading::new(&reading, &mark, NOW, DOWN);
        hosts.begin_reading(&reading, NOW);
        reading.parts(1).iter().for_each(|part| hosts.follow_reading(&reading, part));
        hosts.end_reading();
        hosts.read_topologies(&stored);
        assert!(select(&mut hosts, &asked(0..1, 1), NOW).is_err());
        let over = AllocationNews {
            resources: None,
            placement: None,
            version: Some(NodeVersion { number: 1, generation: 3 }),
            ..told
        };
        hosts.apply(&HostsChangedRequest { allocations: vec![over], ..HostsChangedRequest::default() });
        select(&mut hosts, &asked(0..1, 4), NOW).unwrap();
    }

    #[test]
    fn members_of_a_group_are_apart_though_they_ask_for_cells() {
        let mut hosts = read(&*algorithm("least_load"), &cells(2));
        let group = GroupPlacement {
            id: nova_core::ids::ServerGroupId::from_uuid(uuid::Uuid::from_u128(7)),
            policy: nova_core::server_group::GroupPolicy::AntiAffinity,
            max_server_per_host: 1,
            members: BTreeSet::new(),
        };
        let of_group = |instances| RequestSpec { group: Some(group.clone()), ..asked(instances, 1) };
        assert!(select(&mut hosts, &of_group(0..3), NOW).is_err(), "all or none");
        let mut places = select(&mut hosts, &of_group(0..2), NOW).unwrap();
        places.sort();
        assert_eq!(places, ["host000", "host001"]);
    }

    #[test]
    fn only_hosts_that_changed_are_looked_at_again() {
        let mut hosts = read(&*algorithm("least_load"), &cells(2));
        hosts.without_place(&guest(4));
        let kind = |hosts: &Hosts| hosts.topologies.kinds.last().map(|kind| kind.changed.len());
        assert_eq!(kind(&hosts), Some(0));
        hosts.read_from(&cells(2), NOW, DOWN);
        assert_eq!(kind(&hosts), Some(0), "a reading without news");
        select(&mut hosts, &asked(0..1, 4), NOW).unwrap();
        assert_eq!(kind(&hosts), Some(1));
        hosts.take_back(instance(0));
        assert_eq!(hosts.without_place(&guest(4)).len(), 1, "the one without cells");
        for cpus in 1..=KINDS as u32 + 1 {
            hosts.without_place(&guest(cpus));
        }
        assert_eq!(hosts.topologies.kinds.len(), KINDS);
    }
}
