//! Tasks: begin, lease, commit.

use std::sync::Arc;

use nova_core::instance::Instance;
use nova_core::quota::{Limits, Usage};
use nova_core::state::{States, TaskState, VmState};
use nova_core::task::{Event, Task, Work};

use super::fixtures::{Make, action, active, at, booking, claim, deleted};
use crate::{Kind, Store, StoreError, TaskCommit, TaskStart};

/// Beginning an action writes instance, action and task together, and raises the epoch of both.
pub async fn start_raises_the_epoch(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let start = make.start(&instance, Work::Stop, false);
    let (task, request) = (start.task.id, start.action.request_id.clone());
    let started = store.start_task(start).await.unwrap();
    assert_eq!((started.epoch, started.generation), (2, 2));
    assert_eq!(started.task_state, Some(TaskState::Deleting));
    assert_eq!(store.get_instance(instance.id).await.unwrap(), started);
    let task = store.get_task(task).await.unwrap();
    assert_eq!((task.epoch, task.generation, task.instance_id), (2, 1, instance.id));
    assert_eq!(store.get_action(instance.id, &request).await.unwrap().action, "delete");
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap().len(), 2);
}

/// Beginning from a stale read begins nothing.
pub async fn stale_start_leaves_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let now = store.update_instance(instance.clone()).await.unwrap();
    let start = make.start(&instance, Work::Delete, true);
    let (task, request) = (start.task.id, start.action.request_id.clone());
    let error = store.start_task(start).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Instance, .. }), "{error:?}");
    assert_eq!(store.get_instance(instance.id).await.unwrap(), now);
    assert!(store.get_task(task).await.is_err());
    assert!(store.get_action(instance.id, &request).await.is_err());
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap().len(), 1, "the other task was not superseded");
}

/// A commit may raise the task's epoch, as a claim does for each host, and never lowers it.
pub async fn commit_raises_the_epoch(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, task) = make.building(&**store).await;
    let raised = store.commit_task(TaskCommit::of(Task { epoch: task.epoch + 3, ..task.clone() })).await.unwrap().task;
    assert_eq!(raised.epoch, task.epoch + 3);
    let lowered = store.commit_task(TaskCommit::of(Task { epoch: 0, ..raised.clone() })).await.unwrap().task;
    assert_eq!(lowered.epoch, raised.epoch);
    assert_eq!(store.get_task(task.id).await.unwrap().epoch, raised.epoch);
}

/// Deletion ends what else runs on the instance: its commits come too late.
pub async fn superseded_task_commits_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, build) = make.building(&**store).await;
    let (bystander, _) = make.building(&**store).await;
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let started = store.start_task(make.start(&instance, Work::Delete, true)).await.unwrap();
    let tasks = store.list_tasks(Some(instance.id)).await.unwrap();
    assert_eq!(tasks.iter().map(|t| t.work.kind()).collect::<Vec<_>>(), ["delete"]);
    let late = TaskCommit { instance: Some(active(&started, "h1")), ..claim(&build, &instance, "h1") };
    let error = store.commit_task(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Task, .. }), "{error:?}");
    assert_eq!(store.get_instance(instance.id).await.unwrap(), started);
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
    assert_eq!(store.list_tasks(Some(bystander.id)).await.unwrap().len(), 1);
}

/// A commit writes task, instance, booking and action together.
pub async fn commit_writes_everything(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, mut task) = make.building(&**store).await;
    store.put_node(make.node("h1", 4096)).await.unwrap();
    task.record("claim", Event::Done);
    let mut record = action(&instance, &instance.request_id, "create");
    record.begin_event("build", Some("h1"), at(1));
    let placed = Instance { availability_zone: Some("nova".into()), ..active(&instance, "h1") };
    let commit = TaskCommit { instance: Some(placed), action: Some(record.clone()), ..claim(&task, &instance, "h1") };
    let committed = store.commit_task(commit).await.unwrap();
    assert_eq!(committed.task.generation, 2);
    assert_eq!(store.get_task(task.id).await.unwrap(), committed.task);
    assert_eq!(committed.task.log.len(), 1);
    let written = committed.instance.unwrap();
    assert_eq!((written.generation, written.epoch), (2, 1));
    assert_eq!(store.get_instance(instance.id).await.unwrap(), written);
    assert_eq!(store.get_action(instance.id, &instance.request_id).await.unwrap(), record);
    assert_eq!(store.list_allocations(None).await.unwrap(), [booking(&instance, "h1").allocation]);
}

/// The last commit takes the task away; a second one comes too late; the action stays.
pub async fn done_task_is_gone(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let commit = TaskCommit { done: true, instance: Some(deleted(&instance, 3)), ..TaskCommit::of(task.clone()) };
    let committed = store.commit_task(commit.clone()).await.unwrap();
    assert!(matches!(store.get_task(task.id).await, Err(StoreError::NotFound { kind: Kind::Task, .. })));
    assert_eq!(store.list_actions(instance.id).await.unwrap().len(), 1);
    assert_eq!(store.usage(&instance.project_id).await.unwrap().instances, 0);
    for again in [commit, TaskCommit::of(committed.task)] {
        let error = store.commit_task(again).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { kind: Kind::Task, .. }), "{error:?}");
    }
}

/// A commit whose task was read before another commit changes nothing.
pub async fn stale_task_commits_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    store.commit_task(TaskCommit::of(task.clone())).await.unwrap();
    let late = TaskCommit { instance: Some(active(&instance, "h1")), done: true, ..TaskCommit::of(task.clone()) };
    let error = store.commit_task(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Task, .. }), "{error:?}");
    assert_eq!(store.get_instance(instance.id).await.unwrap(), instance);
    assert!(store.get_task(task.id).await.is_ok());
}

/// A commit whose instance was read before another change writes neither task nor instance nor booking.
pub async fn commit_with_stale_instance_leaves_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let now = store.update_instance(instance.clone()).await.unwrap();
    let commit = TaskCommit { instance: Some(active(&instance, "h1")), ..claim(&task, &instance, "h1") };
    let error = store.commit_task(commit).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Instance, .. }), "{error:?}");
    assert_eq!(store.get_task(task.id).await.unwrap(), task);
    assert_eq!(store.get_instance(instance.id).await.unwrap(), now);
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
}

/// Whoever still has the instance as it was read gives it along: the same comes of it, and of another reading nothing does.
pub async fn what_was_read_is_written_over(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let project = instance.project_id.clone();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let before = |read: &Instance| Some(Box::new(read.clone()));
    let late = TaskCommit {
        instance: Some(active(&instance, "h1")),
        before: before(&instance),
        ..claim(&task, &instance, "h1")
    };
    let renamed = store.update_instance(Instance { display_name: "renamed".into(), ..instance.clone() }).await.unwrap();
    let error = store.commit_task(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Instance, .. }), "{error:?}");
    assert_eq!(store.get_task(task.id).await.unwrap(), task);
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
    // One that is of another reading than the instance is not believed.
    let commit = TaskCommit {
        instance: Some(active(&renamed, "h1")),
        before: before(&Instance { number: 77, ..instance.clone() }),
        ..claim(&task, &renamed, "h1")
    };
    let active = store.commit_task(commit).await.unwrap().instance.unwrap();
    assert_eq!((active.number, active.epoch), (instance.number, instance.epoch));
    assert!(active.generation > renamed.generation);
    assert_eq!(store.get_instance(instance.id).await.unwrap(), active);
    assert_eq!(store.usage(&project).await.unwrap().instances, 1);
    let start = make.start(&active, Work::Delete, true);
    let deleting = store.start_task(TaskStart { before: before(&active), ..start.clone() }).await.unwrap();
    assert_eq!((deleting.number, deleting.epoch), (active.number, active.epoch + 1));
    assert_eq!(store.get_instance(instance.id).await.unwrap(), deleting);
    assert!(matches!(
        store.start_task(TaskStart { before: before(&active), ..start.clone() }).await,
        Err(StoreError::Conflict { kind: Kind::Instance, .. })
    ));
    let commit = TaskCommit {
        done: true,
        instance: Some(deleted(&deleting, 3)),
        before: before(&deleting),
        release: vec!["h1".into()],
        ..TaskCommit::of(store.get_task(start.task.id).await.unwrap())
    };
    store.commit_task(commit).await.unwrap();
    assert_eq!(store.usage(&project).await.unwrap().instances, 0, "what it counted for is given back");
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap(), []);
}

/// A free task is taken; a held one is not, until its lease has run out; its holder may take it again.
pub async fn leases_exclude(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, task) = make.building(&**store).await;
    let mine = store.acquire_task(task.id, "a", at(0), at(60)).await.unwrap();
    assert_eq!((mine.owner.as_deref(), mine.lease_until), (Some("a"), at(60)));
    assert_eq!(store.get_task(task.id).await.unwrap(), mine);
    let error = store.acquire_task(task.id, "b", at(59), at(90)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Task, .. }), "{error:?}");
    store.acquire_task(task.id, "a", at(10), at(60)).await.unwrap();
    let taken = store.acquire_task(task.id, "b", at(60), at(90)).await.unwrap();
    assert_eq!(taken.owner.as_deref(), Some("b"));
    let error = store.commit_task(TaskCommit::of(mine)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Task, .. }), "the old owner is fenced off: {error:?}");
    let error = store.acquire_task(make.task_id(), "a", at(0), at(60)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Task, .. }), "{error:?}");
}

/// Renewing prolongs what is still held, only that, and disturbs no commit that is under way.
pub async fn renewal_is_of_the_holder(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, mine) = make.building(&**store).await;
    let (_, other) = make.building(&**store).await;
    let mine = store.acquire_task(mine.id, "a", at(0), at(60)).await.unwrap();
    store.acquire_task(other.id, "b", at(0), at(60)).await.unwrap();
    store.renew_leases(&[mine.id, other.id, make.task_id()], "a", at(120)).await.unwrap();
    store.renew_leases(&[], "a", at(500)).await.unwrap();
    assert_eq!(store.get_task(mine.id).await.unwrap().lease_until, at(120));
    assert_eq!(store.get_task(other.id).await.unwrap().lease_until, at(60));
    let committed = store.commit_task(TaskCommit::of(mine.clone())).await.unwrap();
    assert_eq!(committed.task.lease_until, at(120), "a commit does not take a renewal back");
    let mut given_up = committed.task;
    given_up.owner = None;
    given_up.lease_until = at(5);
    store.commit_task(TaskCommit::of(given_up)).await.unwrap();
    assert_eq!(store.get_task(mine.id).await.unwrap().lease_until, at(5));
}

/// Due are those whose lease has run out, oldest lease first.
pub async fn due_tasks_come_oldest_lease_first(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut ids = Vec::new();
    for lease in [40, 20, 30, 50] {
        let (_, task) = make.building(&**store).await;
        store.acquire_task(task.id, "a", at(0), at(lease)).await.unwrap();
        ids.push(task.id);
    }
    let due = |now, limit| async move {
        store.list_due_tasks(at(now), limit).await.unwrap().into_iter().map(|t| t.id).collect::<Vec<_>>()
    };
    assert_eq!(due(40, 10).await, [ids[1], ids[2], ids[0]]);
    assert_eq!(due(40, 2).await, [ids[1], ids[2]]);
    assert_eq!(due(19, 10).await, []);
}

/// Tasks are listed oldest first, of one instance or all.
pub async fn tasks_are_listed_oldest_first(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, build) = make.building(&**store).await;
    let (_, other) = make.building(&**store).await;
    let mut start = make.start(&instance, Work::Stop, false);
    start.task.created_at = at(-5);
    let stop = start.task.id;
    store.start_task(start).await.unwrap();
    let of_instance = store.list_tasks(Some(instance.id)).await.unwrap();
    assert_eq!(of_instance.iter().map(|t| t.id).collect::<Vec<_>>(), [stop, build.id]);
    let all: Vec<_> = store.list_tasks(None).await.unwrap().into_iter().map(|t| t.id).collect();
    assert_eq!((all[0], all.len()), (stop, 3));
    assert!(all.contains(&other.id));
}

/// A secret in a task is kept as it is: JSON of any depth survives.
pub async fn tasks_are_read_back_equal(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, mut task) = make.building(&**store).await;
    task.work = Work::Build {
        spec: Default::default(),
        selection: None,
        admin_password: Some("p'\"\\\u{1f512}".into()),
        keys: [("k".to_owned(), "v".to_owned())].into(),
        networks: Default::default(),
    };
    task.owner = Some("conductor-1".into());
    task.lease_until = at(77);
    let written = store.commit_task(TaskCommit::of(task.clone())).await.unwrap().task;
    task.generation = written.generation;
    assert_eq!(store.get_task(task.id).await.unwrap(), task);
}

/// An action is ended by hand only when no task carries it out.
pub async fn actions_end_once_nothing_carries_them_out(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let start = make.start(&instance, Work::Stop, true);
    let (task, mut action) = (start.task.id, start.action.clone());
    store.start_task(start).await.unwrap();
    action.finish(Some("Error"), at(9));
    let error = store.finish_action(action.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Action, .. }), "{error:?}");
    let task = store.get_task(task).await.unwrap();
    store.commit_task(TaskCommit { done: true, ..TaskCommit::of(task) }).await.unwrap();
    store.finish_action(action.clone()).await.unwrap();
    assert_eq!(store.get_action(instance.id, &action.request_id).await.unwrap(), action);
    let unknown = nova_core::action::ActionRecord { request_id: make.request(), ..action };
    let error = store.finish_action(unknown).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Action, .. }), "{error:?}");
}

/// What deletion overtakes has failed: its action ends with it.
pub async fn superseded_task_ends_its_action(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let stop = make.start(&instance, Work::Stop, false);
    let (request, instance) = (stop.action.request_id.clone(), store.start_task(stop).await.unwrap());
    let delete = make.start(&instance, Work::Delete, true);
    let deletion = delete.action.request_id.clone();
    store.start_task(delete).await.unwrap();
    let overtaken = store.get_action(instance.id, &request).await.unwrap();
    assert_eq!((overtaken.finished, overtaken.message.as_deref()), (Some(at(0)), Some("Error")));
    assert_eq!(store.get_action(instance.id, &deletion).await.unwrap().finished, None);
}

/// What is done to interfaces goes on beside what supersedes everything else; only a deletion ends it.
pub async fn only_a_deletion_ends_what_is_done_to_interfaces(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, build) = make.building(&**store).await;
    let attach = Work::AttachInterface { interface: Default::default() };
    let attaching = make.start(&instance, attach, false);
    let attach = attaching.task.id;
    let instance = store.start_task(attaching).await.unwrap();
    let rebooting = make.start(&instance, Work::Reboot { hard: true }, true);
    let reboot = rebooting.task.id;
    let instance = store.start_task(rebooting).await.unwrap();
    let left = || async { store.list_tasks(Some(instance.id)).await.unwrap().into_iter().map(|task| task.id) };
    let mut there: Vec<_> = left().await.collect();
    there.sort_unstable();
    let mut expected = vec![attach, reboot];
    expected.sort_unstable();
    assert_eq!(there, expected, "the build {} is over", build.id);
    let deleting = make.start(&instance, Work::Delete, true);
    let delete = deleting.task.id;
    store.start_task(deleting).await.unwrap();
    assert_eq!(left().await.collect::<Vec<_>>(), [delete]);
}

/// A soft-deleted server counts for nothing; to restore it, there must be room for it again.
pub async fn soft_deleted_servers_do_not_count(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (mut instance, build) = make.building(&**store).await;
    let project = instance.project_id.clone();
    let one = store.usage(&project).await.unwrap();
    instance.set_states(States { vm_state: VmState::SoftDelete, task_state: None, ..instance.states() });
    let commit = TaskCommit { done: true, instance: Some(instance), ..TaskCommit::of(build) };
    let instance = store.commit_task(commit).await.unwrap().instance.unwrap();
    assert_eq!(store.usage(&project).await.unwrap(), Usage::default());
    let restore = |limits| {
        let mut start = make.start(&instance, Work::Restore, false);
        start.instance.task_state = Some(TaskState::Restoring);
        TaskStart { limits: Some(limits), ..start }
    };
    let too_few = Limits { instances: Some(0), cores: None, ram: None };
    let error = store.start_task(restore(too_few)).await.unwrap_err();
    assert!(matches!(error, StoreError::Quota(_)), "{error:?}");
    assert_eq!(store.get_instance(instance.id).await.unwrap(), instance, "nothing was written");
    assert!(store.list_tasks(Some(instance.id)).await.unwrap().is_empty());
    store.start_task(restore(Limits { instances: Some(one.instances), ..too_few })).await.unwrap();
    assert_eq!(store.usage(&project).await.unwrap(), one, "from the moment that it is being restored");
}
