//! States that are set by hand.

use std::sync::Arc;

use nova_core::host::Allocation;
use nova_core::ids::{HostName, MigrationId};
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::state::{States, TaskState, VmState};
use nova_core::task::Work;

use super::fixtures::{Make, action, active, at, booking, claim};
use crate::{Store, StoreError, TaskCommit, TaskStart};

/// A server that runs on that host.
async fn running(make: &Make, store: &dyn Store, host: &str) -> Instance {
    let (instance, task) = make.building(store).await;
    store.put_node(make.node(host, 8192)).await.unwrap();
    let done = TaskCommit { done: true, instance: Some(active(&instance, host)), ..claim(&task, &instance, host) };
    store.commit_task(done).await.unwrap();
    store.get_instance(instance.id).await.unwrap()
}

/// The instance as an administrator wants it now.
fn as_active(instance: &Instance) -> Instance {
    let mut wanted = instance.clone();
    wanted.set_states(States { power_state: instance.power_state, ..States::idle(VmState::Active) });
    wanted
}

async fn reset(make: &Make, store: &dyn Store, instance: &Instance) -> Instance {
    let mut record = action(instance, &make.request(), "resetState");
    record.started = at(50);
    store.reset_state(as_active(instance), record).await.unwrap()
}

/// What is done to a server ends with it: its task is gone, its action has failed, and orders of before come too late.
pub async fn a_reset_ends_what_is_done(store: &Arc<dyn Store>) {
    let make = Make::new();
    let instance = running(&make, &**store, "h1").await;
    let begun = store.start_task(make.start(&instance, Work::Stop, false)).await.unwrap();
    let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    let after = reset(&make, &**store, &begun).await;
    assert_eq!((after.vm_state, after.task_state), (VmState::Active, None));
    assert!(after.epoch > begun.epoch);
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap(), []);
    let ended = store.get_action(instance.id, &task.context.request_id).await.unwrap();
    assert!(ended.finished.is_some() && ended.message.is_some(), "{ended:?}");
    let names: Vec<_> = store.list_actions(instance.id).await.unwrap().into_iter().map(|one| one.action).collect();
    assert!(names.contains(&"resetState".to_owned()), "{names:?}");
    let late = store.reset_state(as_active(&begun), action(&begun, &make.request(), "resetState")).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
}

/// A build is given up, and a deletion goes on: the server is in it until it is over.
pub async fn a_reset_lets_builds_be_taken_back_and_deletions_end(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (building, _) = make.building(&**store).await;
    let after = reset(&make, &**store, &building).await;
    assert_eq!((after.task_state, after.epoch), (building.task_state, building.epoch));
    let task = store.list_tasks(Some(building.id)).await.unwrap().remove(0);
    assert_eq!((task.deadline, task.lease_until, task.owner), (at(50), at(50), None));

    let instance = running(&make, &**store, "h1").await;
    let begun = store.start_task(make.start(&instance, Work::Delete, true)).await.unwrap();
    let before = store.list_tasks(Some(instance.id)).await.unwrap();
    let after = reset(&make, &**store, &begun).await;
    assert_eq!((after.task_state, after.epoch), (Some(TaskState::Deleting), begun.epoch));
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap(), before);
}

/// A resize that waits for its confirmation is over: nothing is held on the other host, and on its own what it is.
pub async fn a_reset_ends_a_resize_that_waits(store: &Arc<dyn Store>) {
    let make = Make::new();
    for source in ["h1", "h2"] {
        let mut instance = running(&make, &**store, "h2").await;
        store.put_node(make.node("h1", 8192)).await.unwrap();
        let begun = store.start_task(make.start(&instance, Work::Stop, false)).await.unwrap();
        let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
        let mut old = instance.flavor.clone();
        (old.vcpus, old.memory_mb) = (4, 2048);
        let moved = Migration {
            uuid: MigrationId::generate(&make.0),
            dest_compute: Some("h2".into()),
            old_flavor: old.clone(),
            ..Migration::begun(
                MigrationId::generate(&make.0),
                MigrationType::Resize,
                &Instance { host: Some(source.into()), ..instance.clone() },
                &instance.flavor,
                at(1),
            )
            .unwrap()
        };
        instance = begun;
        instance.set_states(States::idle(VmState::Resized));
        let larger = Instance { flavor: old, ..instance.clone() };
        let commit = TaskCommit {
            done: true,
            instance: Some(instance.clone()),
            book: Some(booking(&larger, source)),
            ..TaskCommit::of(task)
        };
        instance = store.commit_task(commit).await.unwrap().instance.unwrap();
        let finished = Migration { status: MigrationStatus::Finished, ..moved.clone() };
        let again =
            store.start_task(TaskStart { migration: Some(finished), ..make.start(&instance, Work::Stop, false) });
        let begun = again.await.unwrap();
        let after = reset(&make, &**store, &begun).await;
        assert_eq!(after.task_state, None);
        assert_eq!(store.get_migration(moved.uuid).await.unwrap().status, MigrationStatus::Error);
        let held: Vec<Allocation> = store.list_allocations(None).await.unwrap();
        let held: Vec<_> = held.into_iter().filter(|one| one.instance_id == after.id).collect();
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!((held[0].host.as_str(), held[0].resources), ("h2", after.booked_resources()), "from {source}");
        for host in ["h1", "h2"] {
            let host = HostName::from(host);
            let own = store.list_allocations(Some(&host)).await.unwrap();
            let sum =
                own.iter().fold(Default::default(), |sum: nova_core::flavor::Resources, one| sum.plus(one.resources));
            assert_eq!(store.node_of_host(&host).await.unwrap().used, sum, "{host}");
        }
    }
}
