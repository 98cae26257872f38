//! The invariants, each a pure function over a reading.

mod accounts;
mod cells;
mod deployment;
mod guests;
mod moves;
mod network;
mod states;
mod volumes;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{HostName, InstanceId};
use nova_core::instance::Instance;
use nova_core::state::VmState;

use super::{Facts, GuestFacts, Violation};

/// Everything that is wrong in one reading, by invariant.
pub fn examine(facts: &Facts) -> Vec<Violation> {
    let view = View::new(facts);
    let rules: [fn(&View<'_>) -> Vec<Violation>; 22] = [
        accounts::capacity,
        accounts::bookings,
        accounts::usage,
        cells::given_out,
        work::busy_without_task,
        work::tasks,
        work::actions,
        work::images,
        moves::records,
        guests::copies,
        guests::strays,
        network::doubles,
        network::addresses,
        network::ports,
        network::floating_ips,
        volumes::work,
        volumes::accounts,
        volumes::attachments,
        volumes::states,
        states::rows,
        states::conservation,
        deployment::shape,
    ];
    rules.iter().flat_map(|rule| rule(&view)).collect()
}

/// A reading with what the rules look up.
struct View<'a> {
    facts: &'a Facts,
    instances: BTreeMap<InstanceId, &'a Instance>,
    busy: BTreeSet<InstanceId>,
    /// Guests of the hosts that answered.
    guests: BTreeMap<&'a HostName, BTreeMap<InstanceId, &'a GuestFacts>>,
}

impl<'a> View<'a> {
    fn new(facts: &'a Facts) -> Self {
        let reached = facts.hosts.iter().filter(|host| host.reached());
        Self {
            facts,
            instances: facts.store.instances.iter().map(|instance| (instance.id, instance)).collect(),
            busy: facts.store.tasks.iter().map(|task| task.instance_id).collect(),
            guests: reached
                .map(|host| (&host.host, host.guests.iter().map(|guest| (guest.instance, guest)).collect()))
                .collect(),
        }
    }

    fn live(&self) -> impl Iterator<Item = &'a Instance> {
        self.facts.store.instances.iter().filter(|instance| !instance.is_deleted())
    }

    fn live_one(&self, id: InstanceId) -> Option<&'a Instance> {
        self.instances.get(&id).copied().filter(|instance| !instance.is_deleted())
    }

    /// Nothing is under way that could move it.
    fn is_settled(&self, instance: &Instance) -> bool {
        !self.busy.contains(&instance.id) && instance.task_state.is_none() && instance.vm_state != VmState::Resized
    }

    /// Stands for an instance that may be missing.
    fn generation(&self, id: InstanceId) -> u128 {
        self.instances.get(&id).map_or(0, |instance| u128::from(instance.generation))
    }
}
