//! Host aggregates.

use std::sync::Arc;

use nova_core::aggregate::{Aggregate, AggregateProblem};
use nova_core::ids::HostName;

use super::fixtures::{Make, active, at, claim};
use super::races::all_at_once;
use crate::{AggregateChange, Kind, Store, StoreError, TaskCommit};

fn zone(name: &str) -> Vec<(String, Option<String>)> {
    vec![("availability_zone".to_owned(), Some(name.to_owned()))]
}

fn change(number: i64, metadata: Vec<(String, Option<String>)>) -> AggregateChange {
    AggregateChange { number, name: None, metadata: metadata.into_iter().collect(), now: at(9) }
}

async fn made(store: &dyn Store, make: &Make, name: &str, zone: Option<&str>) -> Aggregate {
    store.create_aggregate(make.aggregate(name, zone)).await.unwrap()
}

/// Hosts can be taken in once they have a compute service.
async fn serve(store: &dyn Store, make: &Make, hosts: &[&str]) {
    let beats: Vec<_> = hosts.iter().map(|host| make.beat(host, 1)).collect();
    store.record_beats(&beats).await.unwrap();
}

fn problem(answer: Result<Aggregate, StoreError>) -> String {
    match answer {
        Err(StoreError::Aggregate(problem)) => problem.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Create, read, change, list, delete; names are unique among those that live.
pub async fn aggregates_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut given = make.aggregate("b", Some("west"));
    given.hosts.insert("forged".into());
    let first = store.create_aggregate(given.clone()).await.unwrap();
    assert_eq!(first, Aggregate { number: 1, hosts: Default::default(), ..given });
    let second = made(&**store, &make, "a", None).await;
    assert_eq!(store.get_aggregate(1).await.unwrap(), first);
    assert_eq!(store.list_aggregates().await.unwrap(), [first.clone(), second]);
    let error = store.create_aggregate(make.aggregate("a", None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Aggregate, field: "name", .. }), "{error:?}");
    let metadata = [("ssd".to_owned(), Some("true".to_owned())), ("none".to_owned(), None)].into();
    let renamed = AggregateChange { number: 1, name: Some("c".into()), metadata, now: at(5) };
    let changed = store.update_aggregate(renamed.clone()).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.updated_at), ("c", Some(at(5))));
    assert_eq!(changed.metadata.keys().collect::<Vec<_>>(), ["availability_zone", "ssd"]);
    assert_eq!(store.get_aggregate(1).await.unwrap(), changed);
    let taken = AggregateChange { name: Some("a".into()), ..renamed };
    assert!(matches!(store.update_aggregate(taken).await, Err(StoreError::Duplicate { .. })));
    store.delete_aggregate(1).await.unwrap();
    for error in [store.get_aggregate(1).await.unwrap_err(), store.delete_aggregate(1).await.unwrap_err()] {
        assert!(matches!(error, StoreError::NotFound { kind: Kind::Aggregate, .. }), "{error:?}");
    }
    assert!(made(&**store, &make, "c", None).await.number > 2, "numbers are not given twice");
}

/// Hosts come and go; an aggregate with hosts stays.
pub async fn aggregates_have_hosts(store: &Arc<dyn Store>) {
    let make = Make::new();
    let number = made(&**store, &make, "a", None).await.number;
    let (h1, h2) = (HostName::from("h1"), HostName::from("h2"));
    let unknown = store.add_aggregate_host(number, &h2).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { kind: Kind::Service, .. }), "{unknown:?}");
    serve(&**store, &make, &["h1", "h2"]).await;
    store.add_aggregate_host(number, &h2).await.unwrap();
    let both = store.add_aggregate_host(number, &h1).await.unwrap();
    assert_eq!(both.hosts.iter().map(HostName::as_str).collect::<Vec<_>>(), ["h1", "h2"]);
    assert_eq!(store.get_aggregate(number).await.unwrap(), both);
    assert_eq!(
        problem(store.add_aggregate_host(number, &h1).await),
        format!("Aggregate {number} already has host h1.")
    );
    assert_eq!(problem(store.delete_aggregate(number).await), "Host aggregate is not empty");
    assert!(store.update_aggregate(change(number, zone("west"))).await.unwrap().hosts.contains(&h1));
    store.remove_aggregate_host(number, &h1).await.unwrap();
    assert_eq!(problem(store.remove_aggregate_host(number, &h1).await), format!("Aggregate {number} has no host h1."));
    let unknown = store.add_aggregate_host(99, &h1).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { kind: Kind::Aggregate, .. }), "{unknown:?}");
    // A host whose compute service goes is in no aggregate.
    let service = store.record_beats(&[make.beat("h2", 1)]).await.unwrap().remove(0);
    store.delete_service(service.id).await.unwrap();
    assert!(store.delete_aggregate(number).await.unwrap().hosts.is_empty());
}

/// A host is in one zone at most, whichever way it would get into two.
pub async fn hosts_have_one_zone(store: &Arc<dyn Store>) {
    let make = Make::new();
    let west = made(&**store, &make, "w", Some("west")).await.number;
    let east = made(&**store, &make, "e", Some("east")).await.number;
    let plain = made(&**store, &make, "p", None).await.number;
    let again = made(&**store, &make, "w2", Some("west")).await.number;
    let host = HostName::from("h1");
    serve(&**store, &make, &["h1"]).await;
    for number in [west, plain, again] {
        store.add_aggregate_host(number, &host).await.unwrap();
    }
    let text = "One or more hosts already in availability zone(s) ['west', 'west']";
    assert_eq!(problem(store.add_aggregate_host(east, &host).await), text);
    assert_eq!(problem(store.update_aggregate(change(plain, zone("east"))).await), text);
    let gone = vec![("availability_zone".to_owned(), None)];
    let text = "Aggregate w does not support empty named availability zone";
    assert_eq!(problem(store.update_aggregate(change(west, gone)).await), text);
    assert_eq!(store.update_aggregate(change(plain, zone("west"))).await.unwrap().metadata.len(), 1);
}

/// What is on a host, or on its way to it, does not change its zone.
pub async fn servers_do_not_change_their_zone(store: &Arc<dyn Store>) {
    let make = Make::new();
    let west = made(&**store, &make, "w", Some("west")).await.number;
    let plain = made(&**store, &make, "p", None).await.number;
    let own = made(&**store, &make, "n", Some("nova")).await.number;
    let (h1, h2) = (HostName::from("h1"), HostName::from("h2"));
    serve(&**store, &make, &["h1", "h2"]).await;
    for host in ["h1", "h2"] {
        store.put_node(make.node(host, 4096)).await.unwrap();
    }
    store.add_aggregate_host(west, &h1).await.unwrap();
    let mut tasks = Vec::new();
    for host in ["h1", "h2"] {
        let (instance, task) = make.building(&**store).await;
        tasks.push(store.commit_task(claim(&task, &instance, host)).await.unwrap().task);
    }
    let added = problem(store.add_aggregate_host(west, &h2).await);
    assert!(added.starts_with("The host cannot be added to the aggregate"), "{added}");
    assert!(added.contains("would change from 'nova' to 'west' but the host already has 1 instance(s)"), "{added}");
    let removed = problem(store.remove_aggregate_host(west, &h1).await);
    assert!(removed.contains("removed from the aggregate") && removed.contains("from 'west' to 'nova'"), "{removed}");
    let moved = store.update_aggregate(change(west, zone("east"))).await;
    assert!(matches!(moved, Err(StoreError::Aggregate(AggregateProblem::HasInstances))), "{moved:?}");
    store.update_aggregate(change(west, zone("west"))).await.unwrap();
    store.add_aggregate_host(own, &h2).await.expect("it is in that zone already");
    store.add_aggregate_host(plain, &h1).await.expect("no zone, no move");
    store.remove_aggregate_host(plain, &h1).await.unwrap();
    for (task, host) in tasks.into_iter().zip([&h1, &h2]) {
        store.commit_task(TaskCommit { release: vec![host.clone()], ..TaskCommit::of(task) }).await.unwrap();
    }
    store.update_aggregate(change(west, zone("east"))).await.unwrap();
    store.remove_aggregate_host(west, &h1).await.unwrap();
}

/// A booking that asks for a zone is refused on a host that has left it.
pub async fn bookings_keep_to_their_zone(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 4096)).await.unwrap();
    let (instance, task) = make.building(&**store).await;
    let booked = |zone: &str| {
        let mut commit = claim(&task, &instance, "h1");
        commit.book.as_mut().unwrap().zone = Some(zone.into());
        commit
    };
    let error = store.commit_task(booked("west")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unsuitable { host, .. } if host == "h1"), "{error:?}");
    let west = made(&**store, &make, "w", Some("west")).await.number;
    serve(&**store, &make, &["h1"]).await;
    store.add_aggregate_host(west, &"h1".into()).await.unwrap();
    let error = store.commit_task(booked("nova")).await.unwrap_err();
    let text = "host h1 cannot be taken: it is in availability zone west, not in nova";
    assert_eq!(error.to_string(), text);
    assert_eq!(store.list_allocations(None).await.unwrap(), []);
    store.commit_task(booked("west")).await.unwrap();
}

/// Many take a host into zones of their own at once: one succeeds. The same name many times makes one aggregate.
pub async fn one_zone_gets_the_host(store: &Arc<dyn Store>) {
    let make = Make::new();
    serve(&**store, &make, &["h1"]).await;
    let mut numbers = Vec::new();
    for n in 0..16 {
        let zone = format!("z{n}");
        numbers.push(made(&**store, &make, &format!("a{n}"), Some(zone.as_str())).await.number);
    }
    let answers = all_at_once(numbers, |number| {
        let store = Arc::clone(store);
        async move { store.add_aggregate_host(number, &"h1".into()).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let refused = |answer: &Result<_, _>| matches!(answer, Ok(_) | Err(StoreError::Aggregate(_)));
    assert!(answers.iter().all(refused), "{answers:?}");
    let same: Vec<_> = (0..16).map(|_| make.aggregate("same", None)).collect();
    let answers = all_at_once(same, |aggregate| {
        let store = Arc::clone(store);
        async move { store.create_aggregate(aggregate).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

/// Servers that want a host's zone, and an operator who changes it at the same time: none ends up where it did not want
/// to be.
pub async fn bookings_and_zones_exclude_each_other(store: &Arc<dyn Store>) {
    let make = Make::new();
    let west = made(&**store, &make, "w", Some("west")).await.number;
    let mut work = Vec::new();
    for n in 0..16 {
        let host = format!("h{n}");
        serve(&**store, &make, &[&host]).await;
        store.put_node(make.node(&host, 4096)).await.unwrap();
        let (instance, task) = make.building(&**store).await;
        let mut commit = claim(&task, &instance, &host);
        commit.book.as_mut().unwrap().zone = Some("nova".into());
        work.push((host.clone(), Some(commit)));
        work.push((host, None));
    }
    all_at_once(work, |(host, commit)| {
        let store = Arc::clone(store);
        async move {
            match commit {
                Some(commit) => drop(store.commit_task(commit).await),
                None => drop(store.add_aggregate_host(west, &HostName::new(host)).await),
            }
        }
    })
    .await;
    let moved = store.get_aggregate(west).await.unwrap().hosts;
    let booked = store.list_allocations(None).await.unwrap();
    assert!(booked.iter().all(|allocation| !moved.contains(&allocation.host)), "{moved:?} {booked:?}");
    assert_eq!(moved.len() + booked.len(), 16, "one of the two happened to each host");
}

/// A host is taken in while its compute service is deleted: whichever came first, it is in no aggregate then.
pub async fn no_host_without_a_service_stays(store: &Arc<dyn Store>) {
    let make = Make::new();
    let number = made(&**store, &make, "a", None).await.number;
    let mut work = Vec::new();
    for n in 0..16 {
        let host = format!("h{n}");
        let service = store.record_beats(&[make.beat(&host, 1)]).await.unwrap().remove(0);
        work.push((host.clone(), Some(service.id)));
        work.push((host, None));
    }
    all_at_once(work, |(host, service)| {
        let store = Arc::clone(store);
        async move {
            match service {
                Some(id) => store.delete_service(id).await.unwrap(),
                None => drop(store.add_aggregate_host(number, &HostName::new(host)).await),
            }
        }
    })
    .await;
    assert_eq!(store.get_aggregate(number).await.unwrap().hosts, Default::default());
}

/// An instance that asked for no zone is told in which one it is, whatever the scheduler believed.
pub async fn a_booking_knows_the_hosts_zone(store: &Arc<dyn Store>) {
    let make = Make::new();
    let west = made(&**store, &make, "w", Some("west")).await.number;
    serve(&**store, &make, &["h1"]).await;
    store.put_node(make.node("h1", 4096)).await.unwrap();
    store.add_aggregate_host(west, &"h1".into()).await.unwrap();
    for (believed, commits) in [("nova", 2), ("west", 1)] {
        let (instance, task) = make.building(&**store).await;
        let mut booked = active(&instance, "h1");
        booked.availability_zone = Some(believed.into());
        let generation = instance.generation;
        let commit = TaskCommit { instance: Some(booked), ..claim(&task, &instance, "h1") };
        let committed = store.commit_task(commit).await.unwrap().instance.unwrap();
        assert_eq!(committed.availability_zone, Some("west".into()), "{believed}");
        assert_eq!(committed.generation - generation, commits);
        assert_eq!(store.get_instance(instance.id).await.unwrap(), committed);
    }
}
