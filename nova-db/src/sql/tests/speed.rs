//! How fast a database is on this machine's disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Store;
use crate::conformance::fixtures::{FREE, Make, claim};

fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}

const MANY: usize = 1000;

/// Prints it, and asserts nothing. The store is empty and migrated.
pub(super) async fn measure(store: Arc<dyn Store>) {
    let make = Make::new();
    store.put_node(make.node("h1", 1 << 30)).await.unwrap();

    let mut times = Vec::new();
    let mut made = Vec::new();
    for _ in 0..MANY / 4 {
        let request = make.request_of(vec![make.instance("p")], FREE);
        let task = request.instances[0].task.clone();
        let begun = Instant::now();
        let instance = store.create_instances(request).await.unwrap().remove(0);
        times.push(begun.elapsed());
        made.push((instance, nova_core::task::Task { generation: 1, ..task }));
    }
    println!("create, one after the other: {}", shown(times));

    let mut times = Vec::new();
    for (instance, task) in &made {
        let begun = Instant::now();
        store.commit_task(claim(task, instance, "h1")).await.unwrap();
        times.push(begun.elapsed());
    }
    println!("claim, one after the other: {}", shown(times));

    let mut times = Vec::new();
    for (instance, _) in &made {
        let begun = Instant::now();
        store.get_instance(instance.id).await.unwrap();
        times.push(begun.elapsed());
    }
    println!("get: {}", shown(times));

    let begun = Instant::now();
    let running: Vec<_> = (0..MANY)
        .map(|_| {
            let (store, request) = (Arc::clone(&store), make.request_of(vec![make.instance("p")], FREE));
            tokio::spawn(async move { store.create_instances(request).await.map(|_| ()) })
        })
        .collect();
    for create in running {
        create.await.unwrap().unwrap();
    }
    println!("create, {MANY} at once: {:.0} a second", MANY as f64 / begun.elapsed().as_secs_f64());
}
