//! Server groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::ids::{HostName, ProjectId, ServerGroupId};
use nova_core::instance::Instance;
use nova_core::server_group::{GroupPolicy, ServerGroup};
use nova_core::task::Task;

use super::fixtures::{FREE, Make, claim, deleted};
use super::races::all_at_once;
use crate::{GroupLimits, JoinGroup, Kind, NewInstances, Page, Store, StoreError, TaskCommit};

async fn group(store: &dyn Store, make: &Make, policy: GroupPolicy) -> ServerGroup {
    store.create_server_group(make.server_group("p", policy), GroupLimits::default()).await.unwrap()
}

fn joining(make: &Make, group: ServerGroupId, count: usize, member_limit: Option<u64>) -> NewInstances {
    let member = |_| {
        let mut instance = make.instance("p");
        instance.scheduler_hints = [("group".to_owned(), serde_json::json!(group))].into();
        instance
    };
    let mut instances: Vec<Instance> = (0..count).map(member).collect();
    let request = make.request();
    instances.iter_mut().for_each(|instance| instance.request_id = request.clone());
    NewInstances { group: Some(JoinGroup { id: group, member_limit }), ..make.request_of(instances, FREE) }
}

/// A member that is being built, and its task.
async fn member(store: &dyn Store, make: &Make, group: ServerGroupId) -> (Instance, Task) {
    let instance = store.create_instances(joining(make, group, 1, None)).await.unwrap().remove(0);
    let task = store.list_tasks(Some(instance.id)).await.unwrap().remove(0);
    (instance, task)
}

fn claim_in(group: ServerGroupId, (instance, task): &(Instance, Task), host: &str) -> TaskCommit {
    let mut commit = claim(task, instance, host);
    commit.book.as_mut().unwrap().group = Some(group);
    commit
}

/// Create, read, list by project and all, count, delete.
pub async fn server_groups_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut given = make.server_group("p", GroupPolicy::AntiAffinity);
    given.max_server_per_host = Some(3);
    given.members = vec![make.instance_id()];
    let first = store.create_server_group(given.clone(), GroupLimits::default()).await.unwrap();
    assert_eq!(first, ServerGroup { number: 1, members: Vec::new(), ..given });
    let second = store
        .create_server_group(make.server_group("q", GroupPolicy::SoftAffinity), GroupLimits::default())
        .await
        .unwrap();
    let third = group(&**store, &make, GroupPolicy::Affinity).await;
    assert_eq!(store.get_server_group(first.id).await.unwrap(), first);
    let project = ProjectId::from("p");
    assert_eq!(
        store.list_server_groups(Some(&project), Page::default()).await.unwrap(),
        [first.clone(), third.clone()]
    );
    let all = store.list_server_groups(None, Page::default()).await.unwrap();
    assert_eq!(all, [first.clone(), second, third]);
    for (offset, limit) in [(0, 1), (1, 1), (1, 9), (3, 1), (usize::MAX, 1)] {
        let page = store.list_server_groups(None, Page { offset, limit: Some(limit) }).await.unwrap();
        assert_eq!(page, all[offset.min(3)..offset.saturating_add(limit).min(3)], "{offset} {limit}");
    }
    assert_eq!(store.count_server_groups(&project).await.unwrap(), 2);
    store.delete_server_group(first.id).await.unwrap();
    for error in
        [store.get_server_group(first.id).await.unwrap_err(), store.delete_server_group(first.id).await.unwrap_err()]
    {
        assert!(matches!(error, StoreError::NotFound { kind: Kind::ServerGroup, .. }), "{error:?}");
    }
    assert_eq!(store.count_server_groups(&project).await.unwrap(), 1);
}

/// Servers are members from the transaction that makes them to the one that deletes them.
pub async fn members_join_and_leave(store: &Arc<dyn Store>) {
    let make = Make::new();
    let id = group(&**store, &make, GroupPolicy::SoftAntiAffinity).await.id;
    let made = store.create_instances(joining(&make, id, 3, None)).await.unwrap();
    let ids: Vec<_> = made.iter().map(|instance| instance.id).collect();
    assert_eq!(store.get_server_group(id).await.unwrap().members, ids);
    store.update_instance(deleted(&made[1], 5)).await.unwrap();
    assert_eq!(store.list_server_groups(None, Page::default()).await.unwrap()[0].members, [ids[0], ids[2]]);
    store.delete_server_group(id).await.unwrap();
    store.update_instance(deleted(&made[0], 5)).await.expect("the group is gone, the server is deleted all the same");
    let again = joining(&make, id, 1, None);
    let error = store.create_instances(again).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::ServerGroup, .. }), "{error:?}");
    let foreign =
        store.create_server_group(make.server_group("q", GroupPolicy::Affinity), GroupLimits::default()).await.unwrap();
    let error = store.create_instances(joining(&make, foreign.id, 1, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::ServerGroup, .. }), "{error:?}");
    assert_eq!(store.usage(&ProjectId::from("p")).await.unwrap().instances, 1, "what failed counts for nothing");
}

/// Both limits are exact, whoever asks at the same time.
pub async fn group_limits_are_exact(store: &Arc<dyn Store>) {
    let make = Make::new();
    let new: Vec<_> = (0..32).map(|_| make.server_group("p", GroupPolicy::Affinity)).collect();
    let three = GroupLimits { project: Some(3), user: None };
    let answers = all_at_once(new, |group| {
        let store = Arc::clone(store);
        async move { store.create_server_group(group, three).await }
    })
    .await;
    let made: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!((made.len(), store.count_server_groups(&ProjectId::from("p")).await.unwrap()), (3, 3));
    let over = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(over.into_iter().all(|e| matches!(e, StoreError::Quota(over) if over.0[0].resource == "server_groups")));
    let own = GroupLimits { project: None, user: Some(3) };
    let fourth = make.server_group("p", GroupPolicy::Affinity);
    let others = ServerGroup { user_id: "another".into(), ..make.server_group("p", GroupPolicy::Affinity) };
    assert!(matches!(store.create_server_group(fourth, own).await, Err(StoreError::Quota(_))));
    store.create_server_group(others, own).await.unwrap();
    let id = made[0].id;
    let requests: Vec<_> = (0..16).map(|_| joining(&make, id, 2, Some(5))).collect();
    let answers = all_at_once(requests, |request| {
        let store = Arc::clone(store);
        async move { store.create_instances(request).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    let over = answers.iter().filter_map(|answer| answer.as_ref().err());
    let members = |e: &StoreError| matches!(e, StoreError::Quota(over) if over.0[0].resource == "server_group_members");
    assert!(over.into_iter().all(members));
    assert_eq!(store.get_server_group(id).await.unwrap().members.len(), 4);
    assert_eq!(store.usage(&ProjectId::from("p")).await.unwrap().instances, 4);
    let mut others = joining(&make, id, 2, Some(5));
    others.instances.iter_mut().for_each(|new| new.instance.user_id = "other".into());
    store.create_instances(others).await.expect("the limit is each user's");
}

/// Where members are is where they are booked.
pub async fn placements_follow_bookings(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let id = group(&**store, &make, GroupPolicy::AntiAffinity).await.id;
    let (a, b) = (member(&**store, &make, id).await, member(&**store, &make, id).await);
    assert!(store.group_placement(id).await.unwrap().unwrap().members.is_empty());
    let task = store.commit_task(claim_in(id, &a, "h1")).await.unwrap().task;
    let placement = store.group_placement(id).await.unwrap().unwrap();
    assert_eq!(placement.members, [(a.0.id, HostName::from("h1"))].into());
    assert_eq!((placement.policy, placement.max_server_per_host), (GroupPolicy::AntiAffinity, 1));
    let error = store.commit_task(claim_in(id, &b, "h1")).await.unwrap_err();
    let text = format!("host h1 cannot be taken: server group {id} has the policy anti-affinity");
    assert_eq!(error.to_string(), text);
    store.commit_task(TaskCommit { release: vec!["h1".into()], ..TaskCommit::of(task) }).await.unwrap();
    store.commit_task(claim_in(id, &b, "h1")).await.unwrap();
    assert_eq!(store.group_placement(make.group_id()).await.unwrap(), None);
}

/// Each policy holds at the booking: also for more than one on a host, for affinity, and for wishes that forbid nothing.
pub async fn bookings_keep_to_their_group(store: &Arc<dyn Store>) {
    let make = Make::new();
    for host in ["h1", "h2"] {
        store.put_node(make.node(host, 1 << 20)).await.unwrap();
    }
    let mut pairs = make.server_group("p", GroupPolicy::AntiAffinity);
    pairs.max_server_per_host = Some(2);
    let pairs = store.create_server_group(pairs, GroupLimits::default()).await.unwrap().id;
    let together = group(&**store, &make, GroupPolicy::Affinity).await.id;
    let wish = group(&**store, &make, GroupPolicy::SoftAntiAffinity).await.id;
    let cases = [
        (pairs, vec![("h1", true), ("h1", true), ("h1", false), ("h2", true)]),
        (together, vec![("h2", true), ("h1", false), ("h2", true)]),
        (wish, vec![("h1", true), ("h1", true)]),
    ];
    for (id, steps) in cases {
        for (host, fits) in steps {
            let member = member(&**store, &make, id).await;
            let answer = store.commit_task(claim_in(id, &member, host)).await;
            assert_eq!(answer.is_ok(), fits, "{id} {host} {answer:?}");
            assert!(matches!(answer, Ok(_) | Err(StoreError::Unsuitable { .. })));
        }
    }
    let (instance, task) = member(&**store, &make, pairs).await;
    store.delete_server_group(pairs).await.unwrap();
    let unbound = claim_in(pairs, &(instance, task), "h1");
    store.commit_task(unbound).await.expect("a group that is gone asks for nothing");
}

/// 64 members of an anti-affinity group are booked on 8 hosts at once: each host gets one, and the books are right.
pub async fn anti_affinity_holds_under_load(store: &Arc<dyn Store>) {
    let make = Make::new();
    let id = group(&**store, &make, GroupPolicy::AntiAffinity).await.id;
    for n in 0..8 {
        store.put_node(make.node(&format!("h{n}"), 1 << 20)).await.unwrap();
    }
    let mut claims = Vec::new();
    for n in 0..64 {
        let member = member(&**store, &make, id).await;
        claims.push(claim_in(id, &member, &format!("h{}", n % 8)));
    }
    let answers = all_at_once(claims, |claim| {
        let store = Arc::clone(store);
        async move { store.commit_task(claim).await }
    })
    .await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Unsuitable { .. }))), "{answers:?}");
    let mut on: BTreeMap<HostName, usize> = BTreeMap::new();
    for allocation in store.list_allocations(None).await.unwrap() {
        *on.entry(allocation.host).or_default() += 1;
    }
    assert_eq!(on.len(), 8);
    assert!(on.values().all(|count| *count == 1), "{on:?}");
    for node in store.list_nodes().await.unwrap() {
        assert_eq!((node.allocations, node.used.memory_mb), (1, 512), "{}", node.host);
    }
}

/// The first of an affinity group decides for all, also when all are booked at once.
pub async fn affinity_holds_under_load(store: &Arc<dyn Store>) {
    let make = Make::new();
    let id = group(&**store, &make, GroupPolicy::Affinity).await.id;
    let mut claims = Vec::new();
    for n in 0..32 {
        let host = format!("h{}", n % 4);
        store.put_node(make.node(&host, 1 << 20)).await.unwrap();
        let member = member(&**store, &make, id).await;
        claims.push(claim_in(id, &member, &host));
    }
    all_at_once(claims, |claim| {
        let store = Arc::clone(store);
        async move { drop(store.commit_task(claim).await) }
    })
    .await;
    let mut hosts: Vec<_> = store.list_allocations(None).await.unwrap().into_iter().map(|a| a.host).collect();
    assert_eq!(hosts.len(), 8);
    hosts.dedup();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
}
