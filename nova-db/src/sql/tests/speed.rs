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

/// Callers of the books at the same time.
const CALLERS: usize = 32;
/// Ports that each makes and removes, where `NOVA_TEST_SPEED_PORTS` does not say how many. A hundred are a measurement.
const PORTS: usize = 5;

/// How many addresses are taken and given back in a second on one subnet, each as a port with a MAC address, in a
/// transaction that counts it: by callers of so many projects.
pub(super) async fn measure_addresses(store: Arc<dyn Store>, projects: usize) {
    let said = std::env::var("NOVA_TEST_SPEED_PORTS").ok().and_then(|ports| ports.parse().ok());
    let each: usize = said.unwrap_or(PORTS);
    let make = Make::seeded(projects as u64);
    let mut network = make.network("p");
    network.shared = true;
    let network = store.create_network(network, None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, "10.0.0.0/16"), None, None).await.unwrap();
    let work: Vec<Vec<_>> = (0..CALLERS)
        .map(|caller| (0..each).map(|_| make.port(&network, &format!("p{}", caller % projects))).collect())
        .collect();
    let begun = Instant::now();
    let running: Vec<_> = work
        .into_iter()
        .map(|ports| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for port in ports {
                    let port = store.create_ports(vec![port]).await.unwrap().remove(0);
                    store.delete_port(port.id).await.unwrap();
                }
            })
        })
        .collect();
    for caller in running {
        caller.await.unwrap();
    }
    let rate = 2.0 * (CALLERS * each) as f64 / begun.elapsed().as_secs_f64();
    println!("ports, {CALLERS} callers, {projects} projects: {rate:.0} addresses taken or given back a second");
    assert_eq!(store.count_addresses(subnet.id).await.unwrap(), ((1 << 16) - 2, 0));
}
