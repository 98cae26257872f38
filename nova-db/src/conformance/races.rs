//! Many at once: exactly the right number win, and the totals add up.

use std::sync::Arc;

use nova_core::flavor::Resources;
use nova_core::ids::{HostName, ProjectId};
use nova_core::instance::Instance;
use nova_core::quota::{Limits, Usage};
use nova_core::task::Work;

use super::fixtures::{FREE, Make, at, claim, deleted};
use crate::{Kind, Store, StoreError, TaskCommit};

const MANY: usize = 64;

/// Runs one task per input at the same time and gives back what they say, in order.
pub(super) async fn all_at_once<I, T, F>(inputs: Vec<I>, run: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let running: Vec<_> = inputs.into_iter().map(|input| tokio::spawn(run(input))).collect();
    let mut answers = Vec::new();
    for task in running {
        answers.push(task.await.expect("the task ran"));
    }
    answers
}

/// Of many requests for the last unit of quota, one gets it.
pub async fn one_gets_the_last_of_the_quota(store: &Arc<dyn Store>) {
    let make = Make::new();
    for _ in 0..2 {
        make.created(&**store, make.instance("p")).await;
    }
    let limits = Limits { cores: Some(3), ..FREE };
    let requests: Vec<_> = (0..MANY).map(|_| make.request_of(vec![make.instance("p")], limits)).collect();
    let answers = all_at_once(requests, |request| {
        let store = Arc::clone(store);
        async move { store.create_instances(request).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Quota(_)))));
    let usage = store.usage(&ProjectId::from("p")).await.unwrap();
    assert_eq!(usage, Usage { instances: 3, cores: 3, ram: 1536 });
    assert_eq!(store.list_instances(&Default::default()).await.unwrap().len(), 3);
    assert_eq!(store.list_tasks(None).await.unwrap().len(), 3);
}

/// Creates and deletes of one project at the same time leave exact usage, and numbers without gaps or repeats.
pub async fn usage_adds_up_under_load(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut old = Vec::new();
    for _ in 0..16 {
        old.push(make.created(&**store, make.instance("p")).await);
    }
    let mut requests: Vec<_> =
        (0..MANY).map(|_| (Some(make.request_of(vec![make.instance("p")], FREE)), None)).collect();
    requests.extend(old.iter().map(|instance| (None, Some(deleted(instance, 5)))));
    let answers = all_at_once(requests, |(create, delete)| {
        let store = Arc::clone(store);
        async move {
            if let Some(create) = create {
                store.create_instances(create).await.unwrap();
            }
            if let Some(delete) = delete {
                store.update_instance(delete).await.unwrap();
            }
        }
    })
    .await;
    assert_eq!(answers.len(), MANY + 16);
    let usage = store.usage(&ProjectId::from("p")).await.unwrap();
    assert_eq!(usage, Usage { instances: 64, cores: 64, ram: 64 * 512 });
    let all = crate::InstanceQuery { deleted: crate::Deleted::Any, ..Default::default() };
    let mut numbers: Vec<_> = store.list_instances(&all).await.unwrap().into_iter().map(|i| i.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
}

/// The same request many times at once makes one server.
pub async fn one_request_many_times_creates_once(store: &Arc<dyn Store>) {
    let make = Make::new();
    let request = make.request_of(vec![make.instance("p")], FREE);
    let answers = all_at_once(vec![request; MANY], |request| {
        let store = Arc::clone(store);
        async move { store.create_instances(request).await.unwrap() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(store.list_instances(&Default::default()).await.unwrap().len(), 1);
    assert_eq!(store.usage(&ProjectId::from("p")).await.unwrap().instances, 1);
}

/// Requests of all sorts at the same time: each hears what it would have heard alone, and none of them disturbs another.
pub async fn requests_at_once_are_as_one_by_one(store: &Arc<dyn Store>) {
    let make = Make::new();
    let first = make.request_of(vec![make.instance("p")], FREE);
    let known = store.create_instances(first.clone()).await.unwrap();
    let mut taken = make.instance("p");
    taken.id = known[0].id;
    let limits = Limits { instances: Some(3), ..FREE };
    let mut requests = vec![first, make.request_of(vec![taken], FREE)];
    for _ in 0..8 {
        requests.push(make.request_of(vec![make.instance("p")], FREE));
        requests.push(make.request_of(vec![make.instance("q")], limits));
    }
    let pair = make.request();
    let pair = (0..2).map(|_| Instance { request_id: pair.clone(), ..make.instance("r") });
    requests.push(make.request_of(pair.collect(), FREE));
    // Some clients ask twice: the second is told what the first made, whichever that is.
    let twice = requests.len();
    let again = make.request_of(vec![make.instance("t")], FREE);
    requests.extend(vec![again; 6]);
    let asked: Vec<Vec<_>> = requests.iter().map(|new| new.instances.iter().map(|n| n.instance.id).collect()).collect();
    let answers = all_at_once(requests, |request| {
        let store = Arc::clone(store);
        async move { store.create_instances(request).await }
    })
    .await;
    assert_eq!(*answers[0].as_ref().unwrap(), known, "it was carried out before");
    assert!(matches!(answers[1], Err(StoreError::Duplicate { kind: Kind::Instance, .. })), "{:?}", answers[1]);
    let made = |answer: &Result<Vec<Instance>, StoreError>| answer.as_ref().ok().map(|made| made.len());
    assert!(answers[twice..].iter().all(|answer| made(answer) == Some(1)), "{:?}", &answers[twice..]);
    for (place, (answer, asked)) in answers.iter().zip(&asked).enumerate().skip(2) {
        match answer {
            Ok(made) => assert_eq!(made.iter().map(|one| one.id).collect::<Vec<_>>(), *asked, "of request {place}"),
            Err(StoreError::Quota(_)) => assert_eq!(place % 2, 1, "only q has limits"),
            Err(error) => panic!("request {place}: {error:?}"),
        }
    }
    assert_eq!(answers[..twice].iter().filter_map(made).sum::<usize>(), 1 + 8 + 3 + 2);
    for (project, instances) in [("p", 9), ("q", 3), ("r", 2), ("t", 1)] {
        let usage = store.usage(&ProjectId::from(project)).await.unwrap();
        assert_eq!(usage, Usage { instances, cores: instances, ram: instances * 512 }, "of {project}");
    }
    assert_eq!(store.list_tasks(None).await.unwrap().len(), 15);
}

/// Of many bookings for the last of a host's memory, one gets it; the host is never over.
pub async fn one_gets_the_last_of_the_host(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 3 * 512)).await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..MANY {
        let (instance, task) = make.building(&**store).await;
        claims.push(claim(&task, &instance, "h1"));
    }
    let answers = all_at_once(claims, |claim| {
        let store = Arc::clone(store);
        async move { store.commit_task(claim).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert!(answers.iter().all(|a| matches!(a, Ok(_) | Err(StoreError::NoRoom { resource: "memory_mb", .. }))));
    let node = store.node_of_host(&HostName::from("h1")).await.unwrap();
    assert_eq!((node.used, node.allocations), (Resources { vcpus: 3, memory_mb: 1536, disk_gb: 3 }, 3));
    assert_eq!(store.list_allocations(None).await.unwrap().len(), 3);
    let unchanged = store.list_tasks(None).await.unwrap().into_iter().filter(|t| t.generation == 1).count();
    assert_eq!(unchanged, MANY - 3, "a commit without room leaves its task");
}

/// Bookings, givings back and reports of one host at the same time add up.
pub async fn bookings_and_reports_add_up(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 1 << 20)).await.unwrap();
    let mut work = Vec::new();
    for n in 0..MANY {
        let (instance, task) = make.building(&**store).await;
        if n % 2 == 0 {
            let task = store.commit_task(claim(&task, &instance, "h1")).await.unwrap().task;
            let release = vec![HostName::from("h1")];
            work.push((TaskCommit { release, ..TaskCommit::of(task) }, None));
        } else {
            work.push((claim(&task, &instance, "h1"), Some(make.node("h1", (1 << 20) + n as u64))));
        }
    }
    all_at_once(work, |(commit, report)| {
        let store = Arc::clone(store);
        async move {
            if let Some(report) = report {
                store.put_node(report).await.unwrap();
            }
            store.commit_task(commit).await.unwrap();
        }
    })
    .await;
    let node = store.node_of_host(&HostName::from("h1")).await.unwrap();
    assert_eq!((node.used.memory_mb, node.allocations), (32 * 512, 32));
    assert_eq!(store.list_allocations(None).await.unwrap().len(), 32);
}

/// Of many that want a task whose lease ran out, one gets it.
pub async fn one_takes_over_a_lease(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (_, task) = make.building(&**store).await;
    store.acquire_task(task.id, "dead", at(0), at(60)).await.unwrap();
    let owners: Vec<String> = (0..MANY).map(|n| format!("conductor-{n}")).collect();
    let answers = all_at_once(owners, |owner| {
        let (store, id) = (Arc::clone(store), task.id);
        async move { store.acquire_task(id, &owner, at(61), at(120)).await }
    })
    .await;
    let winners: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    let lost = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(lost.into_iter().all(|error| matches!(error, StoreError::Conflict { kind: Kind::Task, .. })));
    assert_eq!(store.get_task(task.id).await.unwrap().owner, winners[0].owner);
}

/// Of many writers that read the same instance, one wins.
pub async fn one_wins_a_compare_and_set(store: &Arc<dyn Store>) {
    let make = Make::new();
    let read = make.created(&**store, make.instance("p")).await;
    let answers = all_at_once((0..MANY).collect(), |n| {
        let (store, mut instance) = (Arc::clone(store), read.clone());
        instance.display_name = format!("name {n}");
        async move { store.update_instance(instance).await }
    })
    .await;
    let winners: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(store.get_instance(read.id).await.unwrap(), *winners[0]);
    let lost = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(lost.into_iter().all(|error| matches!(error, StoreError::Conflict { kind: Kind::Instance, .. })));
}

/// Of many actions on one instance, one begins.
pub async fn one_action_begins(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let starts: Vec<_> = (0..MANY).map(|_| make.start(&instance, Work::Delete, true)).collect();
    let answers = all_at_once(starts, |start| {
        let store = Arc::clone(store);
        async move { store.start_task(start).await.is_ok() }
    })
    .await;
    assert_eq!(answers.into_iter().filter(|won| *won).count(), 1);
    assert_eq!(store.list_tasks(Some(instance.id)).await.unwrap().len(), 1);
    assert_eq!(store.get_instance(instance.id).await.unwrap().epoch, 2);
    assert_eq!(store.list_actions(instance.id).await.unwrap().len(), 2);
}

/// Many first callers of a secret get the same.
pub async fn all_get_the_same_secret(store: &Arc<dyn Store>) {
    let answers = all_at_once((0..MANY as u8).collect(), |n| {
        let store = Arc::clone(store);
        async move { store.secret("key", &[n; 32]).await.unwrap() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.len() == 32));
}

/// The first beats of one host, many at once, make one service; so do reports with nodes.
pub async fn first_beats_make_one_service(store: &Arc<dyn Store>) {
    let make = Make::new();
    let inputs: Vec<_> = (0..MANY).map(|n| (make.beat("h1", n as i64), make.node("h1", 64))).collect();
    all_at_once(inputs, |(beat, node)| {
        let store = Arc::clone(store);
        async move {
            store.record_beats(&[beat]).await.unwrap();
            store.put_node(node).await.unwrap();
        }
    })
    .await;
    let services = store.list_services().await.unwrap();
    assert_eq!((services.len(), services[0].last_seen_up), (1, at(MANY as i64 - 1)));
    let nodes = store.list_nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].generation), (1, 1));
}

/// Whoever was answered finds what was written, from wherever it is read.
pub async fn own_writes_are_read(store: &Arc<dyn Store>) {
    let make = Make::new();
    let instances: Vec<_> = (0..MANY).map(|_| make.request_of(vec![make.instance("p")], FREE)).collect();
    all_at_once(instances, |request| {
        let store = Arc::clone(store);
        async move {
            let made = store.create_instances(request).await.unwrap().remove(0);
            assert_eq!(store.get_instance(made.id).await.unwrap(), made);
            let written = store.update_instance(made).await.unwrap();
            assert_eq!(store.get_instance(written.id).await.unwrap().generation, 2);
        }
    })
    .await;
}

/// A repair of the accounts in the middle of creates and deletes finds nothing wrong and breaks nothing.
pub async fn repair_and_creates_add_up(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut old = Vec::new();
    for _ in 0..8 {
        old.push(make.created(&**store, make.instance("p")).await);
    }
    let projects = ["p", "q", "r", "s"];
    let mut work: Vec<_> =
        (0..32).map(|n| (Some(make.request_of(vec![make.instance(projects[n % 4])], FREE)), None)).collect();
    work.extend(old.iter().map(|instance| (None, Some(deleted(instance, 5)))));
    let every_fifth = (0..8).map(|_| (None, None));
    for (n, repair) in every_fifth.enumerate() {
        work.insert(n * 5, repair);
    }
    all_at_once(work, |(create, delete)| {
        let store = Arc::clone(store);
        async move {
            match (create, delete) {
                (Some(create), _) => drop(store.create_instances(create).await.unwrap()),
                (_, Some(delete)) => drop(store.update_instance(delete).await.unwrap()),
                _ => assert_eq!(store.rebuild_accounts().await.unwrap(), Vec::<String>::new()),
            }
        }
    })
    .await;
    for project in projects {
        assert_eq!(store.usage(&ProjectId::from(project)).await.unwrap().instances, 8, "{project}");
    }
}
