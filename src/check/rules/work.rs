//! I4, I10: whatever was accepted is being worked on or over, and secrets go with the work.

use std::collections::BTreeSet;

use nova_core::image::{Image, ImageStatus};
use nova_core::task::{Task, Work};

use super::View;
use crate::check::{Repair, Violation};

/// I4: an instance with a task state has a task.
pub(super) fn busy_without_task(view: &View<'_>) -> Vec<Violation> {
    let orphans = view.live().filter(|instance| !view.busy.contains(&instance.id));
    orphans
        .filter_map(|instance| {
            let state = instance.task_state?;
            let text = format!("is {}/{state}, but nothing works on it", instance.vm_state);
            let (instance, generation) = (instance.id, instance.generation);
            let violation = Violation::new("I4", vec![("instance", instance.to_string())], text);
            let violation = violation.stamped([u128::from(generation)]);
            Some(violation.mended_by(Repair::FailInstance { instance, generation }))
        })
        .collect()
}

/// I4: tasks end by their deadline, and belong to a live instance. I10: those that don't keep no secrets.
pub(super) fn tasks(view: &View<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for task in &view.facts.store.tasks {
        let (now, grace) = (view.facts.now, view.facts.bounds.grace);
        if now.duration_since(task.deadline) > grace {
            let text = format!(
                "{} should have ended by {}; a conductor that runs gives it up",
                task.work.kind(),
                task.deadline
            );
            found.push(of_task(view, "I4", task, text));
        }
        if view.live_one(task.instance_id).is_none() {
            let repair = Repair::DropTask { task: task.id, generation: task.generation };
            let text = format!("{} of an instance that is gone", task.work.kind());
            found.push(of_task(view, "I4", task, text).mended_by(repair.clone()));
            if has_secrets(&task.work) {
                let text = "keeps the password or the keys of an instance that is gone";
                found.push(of_task(view, "I10", task, text.to_owned()).mended_by(repair));
            }
        }
    }
    found
}

fn of_task(view: &View<'_>, invariant: &'static str, task: &Task, text: String) -> Violation {
    let subject = vec![("task", task.id.to_string()), ("instance", task.instance_id.to_string())];
    let stamp = [u128::from(task.generation), view.generation(task.instance_id)];
    Violation::new(invariant, subject, text).stamped(stamp)
}

fn has_secrets(work: &Work) -> bool {
    match work {
        Work::Build { admin_password, keys, .. } => admin_password.is_some() || !keys.is_empty(),
        Work::Rescue { admin_password, .. } | Work::Rebuild { admin_password, .. } => admin_password.is_some(),
        Work::ChangePassword { .. } => true,
        _ => false,
    }
}

/// I4: an action that is not finished is some task's.
pub(super) fn actions(view: &View<'_>) -> Vec<Violation> {
    let store = &view.facts.store;
    let carried_out: BTreeSet<_> =
        store.tasks.iter().map(|task| (task.instance_id, &task.context.request_id)).collect();
    let orphans = store.open_actions.iter().filter(|a| !carried_out.contains(&(a.instance_id, &a.request_id)));
    orphans
        .map(|action| {
            let (instance, request) = (action.instance_id, action.request_id.clone());
            let subject = vec![("instance", instance.to_string()), ("request", request.to_string())];
            let text = format!("the action '{}' is not finished, but nothing carries it out", action.action);
            let touched = u128::from(action.updated.as_microsecond().unsigned_abs());
            Violation::new("I4", subject, text)
                .stamped([view.generation(instance), touched])
                .mended_by(Repair::FinishAction { instance, request })
        })
        .collect()
}

/// I4: an image that is to be made of a server is made by a task.
pub(super) fn images(view: &View<'_>) -> Vec<Violation> {
    let store = &view.facts.store;
    let made: BTreeSet<_> = store.tasks.iter().filter_map(|task| task.work.image_in_making()).collect();
    let lost = |image: &&Image| {
        let waits = matches!(image.status, ImageStatus::Queued | ImageStatus::Saving);
        let of_server = image.properties.get("image_location").is_some_and(|place| place == "snapshot")
            && image.properties.contains_key("instance_uuid");
        // It is described before its task is written.
        let old = view.facts.now.duration_since(image.updated_at) > view.facts.bounds.grace;
        waits && of_server && old && !made.contains(&image.id)
    };
    let lost = store.images.iter().filter(lost);
    lost.map(|image| {
        let server = image.properties.get("instance_uuid").cloned().unwrap_or_default();
        let text = format!("is {}, but nothing brings its data", image.status.as_str());
        let repair = Repair::DropImage { image: image.id, generation: image.generation };
        Violation::new("I4", vec![("image", image.id.to_string()), ("instance", server)], text)
            .stamped([u128::from(image.generation)])
            .mended_by(repair)
    })
    .collect()
}
