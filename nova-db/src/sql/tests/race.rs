//! Several processes at one database: what can be had once is had once.

use std::process::{Command, Stdio};
use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::quota::Limits;

use crate::conformance::fixtures::{FREE, Make, at};
use crate::{Kind, OpenOptions, StoreError, open};

const PROCESSES: usize = 4;
const TASKS: usize = 16;

/// Several processes race for the last unit of quota, the last of a host, a lease and an instance.
pub(super) async fn processes_race(url: &str, child: &str) {
    let store = open(url, &OpenOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    let make = Make::new();
    let read = make.created(&*store, make.instance("p")).await;
    let (_, task) = make.building(&*store).await;
    store.acquire_task(task.id, "dead", at(0), at(60)).await.unwrap();
    store.put_node(make.node("h1", 512)).await.unwrap();
    let mut children = Vec::new();
    for n in 0..PROCESSES {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", child])
            .env("NOVA_TEST_RACE", format!("{n} {} {} {} {}", url, read.id, read.generation, task.id))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        children.push(child);
    }
    let mut wins = [0; 4];
    for child in children {
        let done = tokio::task::block_in_place(|| child.wait_with_output()).unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{text}");
        let (_, line) = text.split_once("wins: ").unwrap();
        for (sum, won) in wins.iter_mut().zip(line.split_whitespace()) {
            *sum += won.parse::<usize>().unwrap();
        }
    }
    assert_eq!(wins, [1, 1, 1, 1], "quota, lease, compare-and-set, room");
    assert_eq!(store.usage(&ProjectId::from("quota")).await.unwrap().cores, 1);
    assert_eq!(store.list_allocations(None).await.unwrap().len(), 1);
    assert_eq!(store.rebuild_accounts().await.unwrap(), Vec::<String>::new());
}

/// One of the processes; does nothing unless started by [`processes_race`].
pub(super) async fn race_in_child() {
    let Ok(told) = std::env::var("NOVA_TEST_RACE") else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let [process, url, instance, generation, task] = told[..] else { panic!("{told:?}") };
    let store = open(url, &OpenOptions::default()).await.unwrap();
    let process: usize = process.parse().unwrap();
    // Ids must differ between the processes.
    let make = Make::seeded(process as u64 + 1);
    // All write from the same read, however late a process comes.
    let mut read = store.get_instance(instance.parse().unwrap()).await.unwrap();
    read.generation = generation.parse().unwrap();
    let task = task.parse().unwrap();
    let limits = Limits { cores: Some(1), ..FREE };
    let mut running = Vec::new();
    for n in 0..TASKS {
        let (store, mut read) = (Arc::clone(&store), read.clone());
        let request = make.request_of(vec![make.instance("quota")], limits);
        let booked = make.request_of(vec![make.instance("room")], FREE);
        running.push(tokio::spawn(async move {
            let quota = store.create_instances(request).await;
            assert!(matches!(quota, Ok(_) | Err(StoreError::Quota(_))), "{quota:?}");
            let lease = store.acquire_task(task, &format!("{process}/{n}"), at(61), at(120)).await;
            assert!(matches!(lease, Ok(_) | Err(StoreError::Conflict { kind: Kind::Task, .. })), "{lease:?}");
            read.display_name = format!("name {process}/{n}");
            let set = store.update_instance(read).await;
            assert!(matches!(set, Ok(_) | Err(StoreError::Conflict { kind: Kind::Instance, .. })), "{set:?}");
            let order = booked.instances[0].task.clone();
            let made = store.create_instances(booked).await.unwrap().remove(0);
            let order = nova_core::task::Task { epoch: 1, generation: 1, ..order };
            let room = store.commit_task(crate::conformance::fixtures::claim(&order, &made, "h1")).await;
            assert!(matches!(room, Ok(_) | Err(StoreError::NoRoom { .. })), "{room:?}");
            [quota.is_ok(), lease.is_ok(), set.is_ok(), room.is_ok()]
        }));
    }
    let mut wins = [0; 4];
    for task in running {
        for (sum, won) in wins.iter_mut().zip(task.await.unwrap()) {
            *sum += usize::from(won);
        }
    }
    println!("wins: {} {} {} {}", wins[0], wins[1], wins[2], wins[3]);
}
