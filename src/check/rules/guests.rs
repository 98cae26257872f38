//! I5, I8: guests on hosts, against the records. Only hosts that answered are judged.

use std::collections::BTreeMap;

use nova_core::ids::{HostName, InstanceId};
use nova_core::instance::Instance;
use nova_core::state::{PowerAction, PowerState, VmState, sync_power_state};

use super::View;
use crate::check::{GuestFacts, Repair, Violation};

/// Holds processor or memory.
fn is_up(guest: &GuestFacts) -> bool {
    matches!(guest.power_state, PowerState::Running | PowerState::Paused)
}

fn running<'a>(view: &View<'a>) -> BTreeMap<InstanceId, Vec<&'a HostName>> {
    let mut copies: BTreeMap<InstanceId, Vec<&HostName>> = BTreeMap::new();
    for (host, guests) in &view.guests {
        for guest in guests.values().filter(|guest| is_up(guest)) {
            copies.entry(guest.instance).or_default().push(host);
        }
    }
    copies
}

/// I5: an instance runs once at most, and on its own host if it is active.
pub(super) fn copies(view: &View<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (instance, hosts) in running(view).into_iter().filter(|(_, hosts)| hosts.len() > 1) {
        let names: Vec<_> = hosts.iter().map(|host| host.as_str()).collect();
        let text = format!("runs on {} hosts at once; which copy to keep is for you to say", hosts.len());
        let subject = vec![("instance", instance.to_string()), ("hosts", names.join(","))];
        found.push(Violation::new("I5", subject, text).stamped([view.generation(instance)]));
    }
    for instance in view.live() {
        let Some(host) = &instance.host else { continue };
        let Some(guests) = view.guests.get(host) else { continue };
        let guest = guests.get(&instance.id).copied();
        if let Some(guest) = guest.filter(|guest| guest.epoch > instance.epoch) {
            let text = format!(
                "its guest was made by order {}, the records know of {} at most: was the database put back?",
                guest.epoch, instance.epoch
            );
            found.push(of_guest("I5", instance, host, guest.power_state, text));
        }
        if view.is_settled(instance) {
            found.extend(power(instance, host, guest));
        }
    }
    found
}

fn of_guest(
    invariant: &'static str,
    instance: &Instance,
    host: &HostName,
    observed: PowerState,
    text: String,
) -> Violation {
    let subject = vec![("instance", instance.id.to_string()), ("host", host.to_string())];
    let stamp = [u128::from(instance.generation), u128::from(observed.as_i64().unsigned_abs())];
    Violation::new(invariant, subject, text).stamped(stamp)
}

/// What the host says of the guest of an instance on which nothing is being done.
fn power(instance: &Instance, host: &HostName, guest: Option<&GuestFacts>) -> Option<Violation> {
    let observed = guest.map_or(PowerState::NoState, |guest| guest.power_state);
    let violation = |invariant, text: String| of_guest(invariant, instance, host, observed, text);
    let found = |what: &str| format!("is {}, but {what}", instance.vm_state);
    match (instance.vm_state, observed) {
        (VmState::Active, PowerState::Running | PowerState::Paused) => None,
        (VmState::Active, PowerState::NoState) => {
            Some(violation("I5", found("its host has no such guest")).mended_by(stopped(instance, observed)))
        }
        (VmState::Active, _) => {
            let text = found(&format!("its guest is {observed}"));
            let by_rule = sync_power_state(&instance.states(), observed).action == PowerAction::Stop;
            let off = matches!(observed, PowerState::Shutdown | PowerState::Crashed);
            // A guest that sleeps is for the compute service to stop.
            Some(violation("I5", text).mended_by((by_rule && off).then(|| stopped(instance, observed))))
        }
        (VmState::Stopped, PowerState::Running | PowerState::Paused) => {
            Some(violation("I9", found(&format!("its guest is {observed}; its compute service will stop it"))))
        }
        (
            VmState::Stopped | VmState::Paused | VmState::Suspended | VmState::Rescued | VmState::Shelved,
            PowerState::NoState,
        ) if instance.power_state != PowerState::NoState => Some(violation("I16", found("its host has no such guest"))),
        _ => None,
    }
}

fn stopped(instance: &Instance, power_state: PowerState) -> Repair {
    Repair::StopInstance { instance: instance.id, generation: instance.generation, power_state }
}

/// I8: each guest has a live owner that is assigned to its host. One that runs twice is nobody's to choose from.
pub(super) fn strays(view: &View<'_>) -> Vec<Violation> {
    let copies = running(view);
    let mut found = Vec::new();
    for (host, guests) in &view.guests {
        for guest in guests.values() {
            let Some(text) = stray(view, host, guest) else { continue };
            let doubled = copies.get(&guest.instance).is_some_and(|hosts| hosts.len() > 1);
            let may_go = !doubled && !may_be_the_only_copy(view, guest.instance);
            let repair = Repair::DestroyGuest { host: (*host).clone(), instance: guest.instance };
            let subject = vec![("instance", guest.instance.to_string()), ("host", host.to_string())];
            let violation = Violation::new("I8", subject, text);
            let violation = violation.stamped([view.generation(guest.instance), u128::from(guest.epoch)]);
            found.push(violation.mended_by(may_go.then_some(repair)));
        }
    }
    found
}

/// The data of a live server that has run may be in this guest alone, unless its own host has another.
fn may_be_the_only_copy(view: &View<'_>, id: InstanceId) -> bool {
    view.live_one(id).filter(|owner| owner.launched_at.is_some()).is_some_and(|owner| {
        let own = owner.host.as_ref().and_then(|host| view.guests.get(host));
        !own.is_some_and(|guests| guests.contains_key(&id))
    })
}

fn stray(view: &View<'_>, host: &HostName, guest: &GuestFacts) -> Option<String> {
    let name = if guest.name.is_empty() { "files of a guest" } else { guest.name.as_str() };
    match view.live_one(guest.instance) {
        Some(owner) if owner.host.as_ref() == Some(host) => None,
        // What is under way cleans up by itself.
        Some(owner) if !view.is_settled(owner) => None,
        Some(owner) => {
            let place = owner.host.as_ref().map_or("no host".to_owned(), |place| format!("host {place}"));
            Some(format!("{name} is here, its instance is on {place}"))
        }
        None if view.instances.contains_key(&guest.instance) => {
            Some(format!("{name} is here, its instance is deleted"))
        }
        None => Some(format!("{name} is here, no such instance is known")),
    }
}
