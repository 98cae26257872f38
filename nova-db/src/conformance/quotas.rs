//! Limits that operators set.

use std::sync::Arc;

use nova_core::ids::{ProjectId, UserId};
use nova_core::quota::{Limits, QuotaLimits, QuotaOwner, Usage};
use nova_core::task::Work;

use super::fixtures::{FREE, Make, action, deleted};
use super::races::all_at_once;
use crate::{NewInstances, Store, StoreError, TaskStart};

fn limits(pairs: &[(&str, i64)]) -> QuotaLimits {
    pairs.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect()
}

fn project(name: &str) -> QuotaOwner {
    QuotaOwner::Project(ProjectId::new(name))
}

fn user(of: &str, name: &str) -> QuotaOwner {
    QuotaOwner::User(ProjectId::new(of), UserId::new(name))
}

/// Set, read together, set more, delete; a class, a project and a user of the same name are apart.
pub async fn quotas_are_kept_by_owner(store: &Arc<dyn Store>) {
    let class = QuotaOwner::Class("p".to_owned());
    let owners = [class.clone(), project("p"), user("p", "u"), user("p", "v"), project("q")];
    assert_eq!(store.get_quotas(&owners).await.unwrap(), vec![QuotaLimits::new(); 5]);
    assert!(store.get_quotas(&[]).await.unwrap().is_empty());
    store.set_quotas(class.clone(), limits(&[("cores", 1)])).await.unwrap();
    store.set_quotas(project("p"), limits(&[("cores", 2), ("ram", -1)])).await.unwrap();
    store.set_quotas(user("p", "v"), limits(&[("cores", 4)])).await.unwrap();
    store.set_quotas(user("p", "u"), limits(&[("cores", 3)])).await.unwrap();
    let all = store.set_quotas(project("p"), limits(&[("cores", 9), ("instances", 0)])).await.unwrap();
    assert_eq!(all, limits(&[("cores", 9), ("ram", -1), ("instances", 0)]));
    let read = store.get_quotas(&owners).await.unwrap();
    let wanted = [limits(&[("cores", 1)]), all, limits(&[("cores", 3)]), limits(&[("cores", 4)]), limits(&[])];
    assert_eq!(read, wanted);
    let users = store.list_user_quotas(&ProjectId::new("p")).await.unwrap();
    assert_eq!(users, [(UserId::new("u"), limits(&[("cores", 3)])), (UserId::new("v"), limits(&[("cores", 4)]))]);
    store.delete_quotas(user("p", "u")).await.unwrap();
    assert_eq!(store.list_user_quotas(&ProjectId::new("p")).await.unwrap().len(), 1);
    store.delete_quotas(project("p")).await.unwrap();
    store.delete_quotas(project("p")).await.unwrap();
    let left = store.get_quotas(&owners).await.unwrap();
    assert_eq!(left, [limits(&[("cores", 1)]), limits(&[]), limits(&[]), limits(&[]), limits(&[])]);
}

/// Of many who set different limits of one owner at once, none is lost.
pub async fn quotas_set_at_once_add_up(store: &Arc<dyn Store>) {
    let names: Vec<String> = (0..8).map(|number| format!("r{number}")).collect();
    let set = |name: String| {
        let store = Arc::clone(store);
        async move { store.set_quotas(project("p"), limits(&[(&name, 1)])).await.unwrap() }
    };
    all_at_once(names.clone(), set).await;
    let read = store.get_quotas(&[project("p")]).await.unwrap().remove(0);
    assert_eq!(read.keys().cloned().collect::<Vec<_>>(), names);
}

/// A user's own limit counts what the user has in the project, and nothing else.
pub async fn a_user_has_limits_in_a_project(store: &Arc<dyn Store>) {
    let make = Make::new();
    let of = |name: &str| {
        let mut instance = make.instance("p");
        instance.user_id = UserId::new(name);
        instance
    };
    let own = Limits { instances: Some(2), ..FREE };
    let one = |name: &str| NewInstances { user_limits: Some(own), ..make.request_of(vec![of(name)], FREE) };
    let first = store.create_instances(one("u")).await.unwrap().remove(0);
    store.create_instances(one("v")).await.unwrap();
    store.create_instances(one("u")).await.unwrap();
    let error = store.create_instances(one("u")).await.unwrap_err();
    let StoreError::Quota(exceeded) = error else { panic!("{error:?}") };
    let over = &exceeded.0[0];
    assert_eq!((over.resource.as_str(), over.used, over.limit), ("instances", 2, 2));
    let flavor = first.flavor.clone();
    let both = Usage { instances: 2, cores: 2 * u64::from(flavor.vcpus), ram: 2 * flavor.memory_mb };
    let usage = store.user_usage(&ProjectId::new("p"), &UserId::new("u")).await.unwrap();
    assert_eq!(usage, both);
    assert_eq!(store.usage(&ProjectId::new("p")).await.unwrap().instances, 3);
    store.update_instance(deleted(&first, 5)).await.unwrap();
    store.create_instances(one("u")).await.unwrap();
}

/// An instance and the record of what was done to it are written together, or not at all.
pub async fn a_change_is_recorded_with_its_action(store: &Arc<dyn Store>) {
    let make = Make::new();
    let new = make.request_of(vec![make.instance("p")], FREE);
    let read = store.create_instances(new).await.unwrap().remove(0);
    let lock = || action(&read, &make.request(), "lock");
    let mut change = read.clone();
    change.locked_reason = Some("mine".to_owned());
    let written = store.record_change(change.clone(), lock()).await.unwrap();
    assert_eq!(written.locked_reason.as_deref(), Some("mine"));
    assert_eq!(written.epoch, read.epoch);
    assert_eq!(store.list_actions(read.id).await.unwrap().len(), 2);
    let late = store.record_change(change, lock()).await.unwrap_err();
    assert!(matches!(late, StoreError::Conflict { .. }), "{late:?}");
    assert_eq!(store.list_actions(read.id).await.unwrap().len(), 2);
}

/// An action after which a server counts for more must fit into its project's limits and into its user's own ones; one that
/// does not is not begun.
pub async fn growth_fits_into_both_limits(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (small, _) = make.building(&**store).await;
    let mut large = small.flavor.clone();
    (large.vcpus, large.memory_mb) = (8, 4096);
    let grown = |limits: Limits, user_limits: Option<Limits>| {
        let mut start = make.start(&small, Work::Stop, true);
        start.instance.set_resizing_to(Some(&large));
        TaskStart { limits: Some(limits), user_limits, ..start }
    };
    let cores = |most| Limits { cores: Some(most), ..FREE };
    for (limits, user_limits) in [(cores(7), None), (FREE, Some(cores(7))), (cores(7), Some(FREE))] {
        let error = store.start_task(grown(limits, user_limits)).await.unwrap_err();
        let StoreError::Quota(exceeded) = error else { panic!("{error:?}") };
        assert_eq!((exceeded.0[0].resource.as_str(), exceeded.0[0].limit), ("cores", 7));
        assert_eq!(store.get_instance(small.id).await.unwrap(), small, "nothing is written");
    }
    store.start_task(grown(cores(8), Some(cores(8)))).await.unwrap();
    let usage = store.usage(&small.project_id).await.unwrap();
    assert_eq!((usage.cores, usage.ram), (8, 4096));
    assert_eq!(store.user_usage(&small.project_id, &small.user_id).await.unwrap(), usage);
}
