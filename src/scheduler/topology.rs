//! NUMA cells, dedicated CPUs and huge pages: whatever the algorithm, hosts that have no place for the guest's are kept out.
//! The booking decides; here it is only seen to that few bookings fail.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId};
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::topology::{GuestTopology, HostCell, Placement, place};
use nova_sched::{HostExplanation, Objection, Scheduler, SchedulerRng};

use super::{Hosts, Stored};

/// The name of this check among the reasons for a no.
const CHECK: &str = "topology";

/// What hosts tell of their cells, and what of them is booked. What a consumer no longer holds in the host table counts
/// no more.
#[derive(Debug, Default)]
pub(super) struct Topologies {
    cells: BTreeMap<HostName, Vec<HostCell>>,
    placements: BTreeMap<HostName, BTreeMap<InstanceId, Placement>>,
}

impl Topologies {
    /// What a host tells.
    pub(super) fn describe(&mut self, node: &ComputeNode) {
        if node.facts.cells.is_empty() {
            self.cells.remove(&node.host);
        } else if self.cells.get(&node.host) != Some(&node.facts.cells) {
            self.cells.insert(node.host.clone(), node.facts.cells.clone());
        }
    }

    /// Notes what the store has; promises stay while `promised`.
    pub(super) fn read(&mut self, allocations: &[Allocation], promised: impl Fn(InstanceId, &HostName) -> bool) {
        for (host, placements) in &mut self.placements {
            placements.retain(|instance, _| promised(*instance, host));
        }
        for allocation in allocations {
            if let Some(placement) = &allocation.placement {
                self.hold(allocation.instance_id, &allocation.host, placement.clone());
            }
        }
        self.placements.retain(|_, placements| !placements.is_empty());
    }

    fn hold(&mut self, instance: InstanceId, host: &HostName, placement: Placement) {
        self.placements.entry(host.clone()).or_default().insert(instance, placement);
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
        let promised = &self.promised;
        self.topologies.read(&stored.allocations, |instance, host| promised.contains(instance, host));
    }

    /// A place for the guest on that host, as far as is known here.
    fn place_on(&self, host: &HostName, guest: &GuestTopology) -> Result<Placement, &'static str> {
        let cells = self.topologies.cells.get(host).ok_or("NUMA cells")?;
        let held = self.topologies.placements.get(host).into_iter().flatten();
        let view = self.table.host(host.as_str());
        let held = held.filter(|(instance, _)| view.is_some_and(|view| view.holds(instance.as_u128())));
        place(cells, held.map(|(_, placement)| placement), guest)
    }

    /// Hosts without a place for the guest, and what they lack.
    fn without_place(&self, guest: &GuestTopology) -> Vec<(HostName, &'static str)> {
        let hosts = self.table.hosts().map(|host| HostName::new(host.name()));
        hosts.filter_map(|host| self.place_on(&host, guest).err().map(|lacks| (host, lacks))).collect()
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
        for instance in &spec.instances {
            let lacking = self.without_place(guest);
            let mut alone = RequestSpec { instances: vec![*instance], topology: None, ..spec.clone() };
            alone.ignore_hosts.extend(lacking.iter().map(|(host, _)| host.clone()));
            match self.select(algorithm, &alone, rng, now) {
                Ok(chosen) => {
                    for one in &chosen {
                        if let Ok(placement) = self.place_on(&one.chosen.host, guest) {
                            self.topologies.hold(one.instance_id, &one.chosen.host, placement);
                        }
                    }
                    selections.extend(chosen);
                }
                Err(no) => {
                    spec.instances.iter().for_each(|instance| self.take_back(*instance));
                    return Err(explained(no, &lacking));
                }
            }
        }
        Ok(selections)
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
fn explained(mut no: NoValidHost, lacking: &[(HostName, &'static str)]) -> NoValidHost {
    if lacking.is_empty() {
        return no;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, lacks) in lacking {
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
    use super::*;

    #[test]
    fn a_no_says_what_hosts_lack() {
        let no = NoValidHost { summary: "s".into(), details: "d".into(), reasons: BTreeMap::new() };
        assert_eq!(explained(no.clone(), &[]), no);
        let lacking = [("a".into(), "dedicated CPUs"), ("b".into(), "huge pages"), ("c".into(), "dedicated CPUs")];
        let told = explained(no, &lacking);
        assert_eq!(
            told.details,
            "d; of the hosts, 2 have not enough dedicated CPUs left, 1 have not enough huge pages left"
        );
        assert_eq!(told.reasons["topology"], 3);
    }
}
