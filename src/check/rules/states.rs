//! I9, I16: rows that can stand, and nothing lost.

use std::collections::BTreeMap;

use nova_core::image::{Image, ImageStatus};
use nova_core::instance::Instance;
use nova_core::state::VmState;
use nova_core::task::Task;

use super::View;
use crate::check::{Repair, Violation};

/// I9: the states of a row can stand together.
pub(super) fn rows(view: &View<'_>) -> Vec<Violation> {
    let instances = view.facts.store.instances.iter().flat_map(|instance| of_instance(view, instance));
    let images = view.facts.store.images.iter().filter_map(of_image);
    instances.chain(images).collect()
}

fn of_instance(view: &View<'_>, instance: &Instance) -> Vec<Violation> {
    let violation = |text: String| {
        Violation::new("I9", vec![("instance", instance.id.to_string())], text)
            .stamped([u128::from(instance.generation)])
    };
    let mut found = Vec::new();
    let says_deleted = instance.vm_state == VmState::Deleted;
    if says_deleted != instance.is_deleted() {
        let row = if instance.is_deleted() { "deleted" } else { "live" };
        found.push(violation(format!("its row is {row}, its vm_state {}", instance.vm_state)));
    } else if !instance.states().is_possible() && !is_reset(view, instance) {
        let task = instance.task_state.map_or("none", |task| task.as_str());
        let nothing_works_on_it = !instance.is_deleted() && !view.busy.contains(&instance.id);
        let repair = nothing_works_on_it
            .then_some(Repair::FailInstance { instance: instance.id, generation: instance.generation });
        let text = format!("no operation is {task} with vm_state {}", instance.vm_state);
        found.push(violation(text).mended_by(repair));
    }
    if !instance.is_deleted() && instance.host.is_none() && has_guest(instance.vm_state) && view.is_settled(instance) {
        found.push(violation(format!("is {}, but on no host", instance.vm_state)));
    }
    found
}

/// An administrator has set its state, and what was done with it is being taken back.
fn is_reset(view: &View<'_>, instance: &Instance) -> bool {
    let target = matches!(instance.vm_state, VmState::Active | VmState::Error);
    let given_up = |task: &Task| task.instance_id == instance.id && task.deadline <= view.facts.now;
    target && view.facts.store.tasks.iter().any(given_up)
}

/// In these states a guest, or at least its disks, are on a host.
fn has_guest(vm_state: VmState) -> bool {
    match vm_state {
        VmState::Active
        | VmState::Paused
        | VmState::Suspended
        | VmState::Stopped
        | VmState::Rescued
        | VmState::Resized
        | VmState::Shelved => true,
        VmState::Building | VmState::SoftDelete | VmState::Deleted | VmState::Error | VmState::ShelvedOffloaded => {
            false
        }
    }
}

fn of_image(image: &Image) -> Option<Violation> {
    let missing = [
        (image.size.is_none(), "size"),
        (image.checksum.is_none(), "checksum"),
        (image.os_hash_value.is_none(), "os_hash_value"),
        (image.disk_format.is_none(), "disk_format"),
    ];
    let missing: Vec<_> = missing.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
    if image.status != ImageStatus::Active || missing.is_empty() {
        return None;
    }
    let text = format!("is active without {}: no host can boot from it; upload it anew", missing.join(", "));
    Some(Violation::new("I9", vec![("image", image.id.to_string())], text).stamped([u128::from(image.generation)]))
}

/// I16: each instance has the record of the request that made it, and a number of its own, from which hosts name guests.
pub(super) fn conservation(view: &View<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut numbers: BTreeMap<i64, &Instance> = BTreeMap::new();
    for instance in &view.facts.store.instances {
        let subject = || vec![("instance", instance.id.to_string())];
        let generation = u128::from(instance.generation);
        if !view.facts.store.with_request.contains(&instance.id) {
            let text = format!("there is no record of {}, the request that made it", instance.request_id);
            found.push(Violation::new("I16", subject(), text).stamped([generation]));
        }
        if let Some(other) = numbers.insert(instance.number, instance) {
            let text = format!("has the same number ({}) as instance {}", instance.number, other.id);
            found.push(Violation::new("I16", subject(), text).stamped([generation, other.id.as_u128()]));
        }
    }
    found
}
