//! Many requests while a host is stuck.

use std::sync::Barrier;

use crate::support::{Cloud, memory_mib};

const CONNECTIONS: usize = 200;
const REQUESTS_EACH: usize = 10;

#[test]
fn requests_are_served_while_a_driver_call_hangs() {
    let cloud = Cloud::started("[fake]\nboot_latency_ms = 3600000");
    let project = cloud.project();
    let id = project.boot("stuck");
    project.wait_task(&id, "spawning");
    let gate = Barrier::new(CONNECTIONS);
    let account = cloud.account("nova-demo");
    let token = project.demo.token();
    let url = cloud.url("/compute/v2.1/servers");
    let served: usize = std::thread::scope(|threads| {
        let one = || {
            // An agent of its own has connections of its own.
            let agent = nova_examples::client::agent();
            gate.wait();
            let ask =
                || nova_examples::client::send_json(&agent, "GET", &url, &[("X-Auth-Token", token)], None).unwrap();
            let answers = (0..REQUESTS_EACH).map(|_| ask());
            answers.filter(|answer| answer.status == 200 && answer.list("servers").unwrap().len() == 1).count()
        };
        let pool: Vec<_> = (0..CONNECTIONS).map(|_| threads.spawn(one)).collect();
        pool.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(served, CONNECTIONS * REQUESTS_EACH);
    assert_eq!(project.server(&id)["OS-EXT-STS:task_state"], "spawning", "it hangs still");
    // New users are let in, and new work is taken.
    nova_examples::client::Client::sign_in(&account, None).unwrap();
    project.boot("queued");
    println!("memory after {served} requests: {} MiB", memory_mib(cloud.pid()));
}
