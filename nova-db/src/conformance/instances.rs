//! Instances: create, read, write, usage.

use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::quota::{Limits, Usage};
use nova_core::state::VmState;

use super::fixtures::{FREE, Make, action, at, deleted};
use crate::{Kind, Store, StoreError};

async fn usage(store: &dyn Store, project: &str) -> Usage {
    store.usage(&ProjectId::from(project)).await.unwrap()
}

/// What was written is read back equal, with the number, epoch and generation that the store gives.
pub async fn created_instance_is_read_back(store: &Arc<dyn Store>) {
    let make = Make::new();
    let given = make.instance("p");
    let made = make.created(&**store, given.clone()).await;
    assert_eq!((made.number, made.epoch, made.generation), (1, 1, 1));
    let expected = nova_core::instance::Instance { number: 1, epoch: 1, generation: 1, ..given };
    assert_eq!(made, expected);
    assert_eq!(store.get_instance(made.id).await.unwrap(), expected);
}

/// An id that is not there is told by kind and id.
pub async fn unknown_instance_is_not_found(store: &Arc<dyn Store>) {
    let id = Make::new().instance_id();
    let error = store.get_instance(id).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotFound { kind: Kind::Instance, id: i } if *i == id.to_string()),
        "{error:?}"
    );
}

/// One request makes all its servers, their actions and tasks, in order and with numbers in a row.
pub async fn request_makes_everything(store: &Arc<dyn Store>) {
    let make = Make::new();
    let request = make.request();
    let instance = |index| nova_core::instance::Instance {
        request_id: request.clone(),
        launch_index: index,
        ..make.instance("p")
    };
    let new = make.request_of((0..5).map(instance).collect(), FREE);
    let ids: Vec<_> = new.instances.iter().map(|n| n.instance.id).collect();
    let made = store.create_instances(new).await.unwrap();
    assert_eq!(made.iter().map(|i| i.id).collect::<Vec<_>>(), ids);
    assert_eq!(made.iter().map(|i| i.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for instance in &made {
        assert_eq!(store.get_action(instance.id, &request).await.unwrap().action, "create");
        let tasks = store.list_tasks(Some(instance.id)).await.unwrap();
        assert_eq!(tasks.iter().map(|t| (t.epoch, t.generation)).collect::<Vec<_>>(), [(1, 1)]);
    }
    assert_eq!(usage(&**store, "p").await, Usage { instances: 5, cores: 5, ram: 2560 });
}

/// A repeated request returns what the first made, and writes nothing.
pub async fn repeated_request_creates_once(store: &Arc<dyn Store>) {
    let make = Make::new();
    let new = make.request_of(vec![make.instance("p")], FREE);
    let first = store.create_instances(new.clone()).await.unwrap();
    let commits = store.commits();
    let mut again = make.request_of(vec![make.instance("p")], FREE);
    again.instances[0].instance.request_id = first[0].request_id.clone();
    assert_eq!(store.create_instances(new).await.unwrap(), first);
    assert_eq!(store.create_instances(again).await.unwrap(), first);
    assert_eq!(store.commits(), commits);
    assert_eq!(usage(&**store, "p").await.instances, 1);
    assert_eq!(store.list_tasks(None).await.unwrap().len(), 1);
}

/// The same request id of another project is another request.
pub async fn request_ids_are_of_a_project(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mine = make.created(&**store, make.instance("p")).await;
    let mut other = make.instance("q");
    other.request_id = mine.request_id.clone();
    let other = make.created(&**store, other).await;
    assert_ne!(mine.id, other.id);
    assert_eq!(usage(&**store, "q").await.instances, 1);
}

/// The limit is exact: the last unit fits, one more writes nothing at all.
pub async fn quota_is_exact(store: &Arc<dyn Store>) {
    let make = Make::new();
    let limits = Limits { instances: Some(2), cores: Some(2), ram: Some(1024) };
    let request = make.request();
    let two = (0..2).map(|_| nova_core::instance::Instance { request_id: request.clone(), ..make.instance("p") });
    store.create_instances(make.request_of(two.collect(), limits)).await.unwrap();
    let new = make.request_of(vec![make.instance("p")], limits);
    let id = new.instances[0].instance.id;
    let StoreError::Quota(over) = store.create_instances(new).await.unwrap_err() else { panic!("no quota error") };
    let resources: Vec<_> = over.0.iter().map(|o| (o.resource.as_str(), o.requested, o.used, o.limit)).collect();
    assert_eq!(resources, [("instances", 1, 2, 2), ("cores", 1, 2, 2), ("ram", 512, 1024, 1024)]);
    assert!(matches!(store.get_instance(id).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.list_tasks(Some(id)).await.unwrap(), []);
    assert_eq!(usage(&**store, "p").await, Usage { instances: 2, cores: 2, ram: 1024 });
    let other = make.request_of(vec![make.instance("q")], limits);
    assert_eq!(store.create_instances(other).await.unwrap()[0].number, 3, "a refused request takes no number");
}

/// A request in which one id is taken leaves nothing of the others.
pub async fn failed_request_leaves_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    let known = make.created(&**store, make.instance("p")).await;
    let request = make.request();
    let mut pair = vec![make.instance("p"), make.instance("p")];
    pair.iter_mut().for_each(|i| i.request_id = request.clone());
    pair[1].id = known.id;
    let first = pair[0].id;
    let error = store.create_instances(make.request_of(pair, FREE)).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Instance, field: "id", .. }), "{error:?}");
    assert!(store.get_instance(first).await.is_err());
    assert_eq!(usage(&**store, "p").await.instances, 1);
    assert_eq!(store.list_tasks(None).await.unwrap().len(), 1);
    assert_eq!(store.get_instance(known.id).await.unwrap(), known);
}

/// Of two updates from the same read, the second loses and has changed nothing.
pub async fn stale_update_conflicts(store: &Arc<dyn Store>) {
    let make = Make::new();
    let read = make.created(&**store, make.instance("p")).await;
    let mut first = read.clone();
    first.display_name = "first".into();
    let first = store.update_instance(first).await.unwrap();
    assert_eq!(first.generation, read.generation + 1);
    let mut late = read.clone();
    late.display_name = "late".into();
    let error = store.update_instance(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Instance, .. }), "{error:?}");
    assert_eq!(store.get_instance(read.id).await.unwrap(), first);
}

/// An update of what is not there is told.
pub async fn update_of_unknown_instance_is_not_found(store: &Arc<dyn Store>) {
    let make = Make::new();
    let error = store.update_instance(make.instance("p")).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Instance, .. }), "{error:?}");
}

/// Usage falls with deletion, once, follows a new flavor, and rises again with a restore.
pub async fn usage_follows_instances(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut instance = make.created(&**store, make.instance("p")).await;
    instance.flavor.vcpus = 4;
    let instance = store.update_instance(instance).await.unwrap();
    assert_eq!(usage(&**store, "p").await, Usage { instances: 1, cores: 4, ram: 512 });
    let gone = store.update_instance(deleted(&instance, 5)).await.unwrap();
    assert_eq!(usage(&**store, "p").await, Usage::default());
    let mut back = store.update_instance(gone).await.unwrap();
    assert_eq!(usage(&**store, "p").await, Usage::default(), "deleted twice counts once");
    back.deleted_at = None;
    back.vm_state = VmState::Active;
    store.update_instance(back).await.unwrap();
    assert_eq!(usage(&**store, "p").await, Usage { instances: 1, cores: 4, ram: 512 });
    make.created(&**store, make.instance("a")).await;
    let all: Vec<_> =
        store.list_usage().await.unwrap().into_iter().map(|(p, u)| (p.to_string(), u.instances)).collect();
    assert_eq!(all, [("a".to_owned(), 1), ("p".to_owned(), 1)]);
}

/// Each write that changed something counts as one commit; reads and refusals count as none.
pub async fn commits_are_counted(store: &Arc<dyn Store>) {
    let make = Make::new();
    let before = store.commits();
    let instance = make.created(&**store, make.instance("p")).await;
    assert_eq!(store.commits(), before + 1);
    store.get_instance(instance.id).await.unwrap();
    let mut stale = instance.clone();
    stale.generation = 9;
    store.update_instance(stale).await.unwrap_err();
    assert_eq!(store.commits(), before + 1);
    store.update_instance(instance).await.unwrap();
    assert_eq!(store.commits(), before + 2);
}

/// Actions come newest first, and stay when the instance is deleted.
pub async fn actions_are_listed_newest_first(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let mut later = action(&instance, &make.request(), "reboot");
    later.started = at(10);
    let gone = deleted(&instance, 20);
    let commit =
        crate::TaskCommit { done: true, instance: Some(gone), action: Some(later), ..crate::TaskCommit::of(task) };
    store.commit_task(commit).await.unwrap();
    let actions = store.list_actions(instance.id).await.unwrap();
    assert_eq!(actions.iter().map(|a| a.action.as_str()).collect::<Vec<_>>(), ["reboot", "create"]);
    let error = store.get_action(instance.id, &make.request()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::Action, .. }), "{error:?}");
}
