//! I4: a move is made by a task, or waits for its owner's word, and nothing else.

use std::collections::BTreeSet;

use nova_core::ids::InstanceId;
use nova_core::migration::{Migration, MigrationStatus};
use nova_core::state::VmState;

use super::View;
use crate::check::Violation;

/// Records of moves that are open although nobody moves anything, and resized servers without a record.
pub(super) fn records(view: &View<'_>) -> Vec<Violation> {
    let open = &view.facts.store.open_migrations;
    let waiting: BTreeSet<InstanceId> = open.iter().map(|migration| migration.instance_id).collect();
    let lost = open.iter().filter_map(|migration| lost(view, migration));
    let without = view.live().filter(|server| {
        server.vm_state == VmState::Resized && !view.busy.contains(&server.id) && !waiting.contains(&server.id)
    });
    let without = without.map(|server| {
        let text =
            "is resized, but no record says from where: it can be neither confirmed nor reverted; reset its state";
        Violation::new("I4", vec![("instance", server.id.to_string())], text.to_owned())
            .stamped([u128::from(server.generation)])
    });
    lost.chain(without).collect()
}

fn lost(view: &View<'_>, migration: &Migration) -> Option<Violation> {
    let server = view.live_one(migration.instance_id);
    let waits = migration.status == MigrationStatus::Finished
        && server.is_some_and(|server| server.vm_state == VmState::Resized);
    if waits || view.busy.contains(&migration.instance_id) {
        return None;
    }
    let text = format!("the {} is {}, but nothing works on it", migration.migration_type, migration.status);
    let subject = vec![("migration", migration.uuid.to_string()), ("instance", migration.instance_id.to_string())];
    let stamp = [u128::from(migration.generation), view.generation(migration.instance_id)];
    Some(Violation::new("I4", subject, text).stamped(stamp))
}
