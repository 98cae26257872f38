//! kill -9 of the whole process at many moments of boots and deletes, each time with several in flight. Whatever was
//! accepted ends; nothing stays without an owner.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Cloud, Project, is_settled, until};

/// Kills per walk.
const ROUNDS: usize = 12;
/// Servers in flight at each.
const FLEET: usize = 10;
const NO_LIMITS: &str = "[quota]\ninstances = -1\ncores = -1\nram = -1\n[conductor]\ntask_lease = 2";

/// What servers were doing, for the reader of a failure.
fn census(servers: &[Value]) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for server in servers {
        let task = server["OS-EXT-STS:task_state"].as_str().unwrap_or("-");
        *census.entry(format!("{}/{task}", server["status"].as_str().unwrap_or("?"))).or_default() += 1;
    }
    census
}

/// Asks for a fleet at once, one by one and five in one request; returns the accepted ones. Requests that got no answer
/// because of a kill are not accepted, but must not leave anything unowned either.
fn boot_fleet(project: &Project, round: usize) -> Vec<String> {
    let ask = |body: Value| project.demo.compute("POST", "/servers", Some(&body)).ok().filter(|a| a.status == 202);
    let singles = FLEET - 5;
    thread::scope(|threads| {
        let several = threads.spawn(|| {
            let mut body = project.request(&format!("several-{round}"));
            body["server"]["min_count"] = json!(5);
            body["server"]["return_reservation_id"] = json!(false);
            ask(body);
        });
        let one_by_one: Vec<_> =
            (0..singles).map(|n| threads.spawn(move || ask(project.request(&format!("single-{round}-{n}"))))).collect();
        several.join().unwrap();
        one_by_one.into_iter().filter_map(|t| t.join().unwrap()).map(|a| a.text("/server/id").unwrap()).collect()
    })
}

/// Looks at the servers so many times, then kills. Each look takes a few milliseconds.
fn kill_after(cloud: &mut Cloud, project: &Project, looks: usize) -> BTreeMap<String, usize> {
    let mut last = project.servers();
    for _ in 0..looks {
        thread::sleep(std::time::Duration::from_millis(5));
        last = project.servers();
    }
    cloud.kill();
    census(&last)
}

/// Every server is gone, ACTIVE, or in ERROR with a reason.
fn assert_settles(project: &Project, accepted: &[String]) -> Vec<Value> {
    let (mut last, mut looks) = (Vec::new(), 0);
    until("every server has settled", || {
        last = project.servers();
        if looks % 500 == 499 {
            println!("not settled yet: {:?}", census(&last));
        }
        looks += 1;
        last.iter().all(is_settled).then_some(())
    });
    for server in &last {
        if server["status"] == "ERROR" {
            let reason = server["fault"]["message"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "an ERROR without a fault: {server}");
        }
    }
    for id in accepted {
        assert!(is_settled(&project.server(id)), "{id} was accepted and is lost");
    }
    last
}

/// Every guest belongs to a server that is there, every ACTIVE server has one that was started once.
fn assert_owned(cloud: &Cloud, servers: &[Value]) {
    let guests: BTreeMap<String, u64> = cloud.guests().into_iter().collect();
    for server in servers {
        let id = server["id"].as_str().unwrap();
        if server["status"] == "ACTIVE" {
            assert!(guests.contains_key(id), "{id} is ACTIVE without a guest");
        }
    }
    for id in guests.keys() {
        let owner = servers.iter().find(|s| s["id"] == id.as_str());
        assert!(owner.is_some(), "the guest {id} has no server");
    }
}

#[test]
fn boots_survive_a_kill_at_any_moment() {
    let mut cloud = Cloud::started(&format!("{NO_LIMITS}\n[fake]\nboot_latency_ms = 150\nvcpus = 1000"));
    let mut project = cloud.project();
    let mut accepted = Vec::new();
    for round in 0..ROUNDS {
        let seen = if round % 3 == 2 {
            // While requests are still coming in.
            thread::scope(|threads| {
                let fleet = threads.spawn(|| boot_fleet(&project, round));
                let seen = kill_after(&mut cloud, &project, round / 3);
                accepted.extend(fleet.join().unwrap());
                seen
            })
        } else {
            accepted.extend(boot_fleet(&project, round));
            kill_after(&mut cloud, &project, 4 * round)
        };
        println!("boot, kill {round}: {seen:?}");
        cloud.start();
        project = project.again(&cloud);
    }
    let servers = assert_settles(&project, &accepted);
    println!("boot, the end: {:?}", census(&servers));
    assert_owned(&cloud, &servers);
    cloud.assert_checked();
    for server in &servers {
        let id = server["id"].as_str().unwrap();
        project.demo.compute("DELETE", &format!("/servers/{id}"), None).unwrap().accepted().unwrap();
    }
    until("all servers are gone", || project.servers().is_empty().then_some(()));
    assert_eq!(cloud.guests(), [], "guests of deleted servers");
    cloud.assert_checked();
}

/// Asks for the end of all of them at once and kills when so many were accepted; returns the accepted ones.
fn delete_and_kill(cloud: &mut Cloud, project: &Project, fleet: &[String], kill_at: usize) -> Vec<String> {
    let accepted = AtomicUsize::new(0);
    let delete = |id: &String| {
        let answer = project.demo.compute("DELETE", &format!("/servers/{id}"), None).ok()?;
        accepted.fetch_add(1, Ordering::SeqCst);
        (answer.status == 204).then(|| id.clone())
    };
    thread::scope(|threads| {
        let orders: Vec<_> = fleet.iter().map(|id| threads.spawn(move || delete(id))).collect();
        while accepted.load(Ordering::SeqCst) < kill_at {
            thread::yield_now();
        }
        cloud.kill();
        orders.into_iter().filter_map(|order| order.join().unwrap()).collect()
    })
}

#[test]
fn deletes_survive_a_kill_at_any_moment() {
    let mut cloud = Cloud::started(&format!("{NO_LIMITS}\n[fake]\nvcpus = 1000"));
    let mut project = cloud.project();
    let mut deleted = Vec::new();
    for round in 0..ROUNDS {
        boot_fleet(&project, round);
        let of_round = |server: &Value| {
            let name = server["name"].as_str().unwrap();
            ["single", "several"].iter().any(|kind| name.starts_with(&format!("{kind}-{round}-")))
        };
        // What earlier kills left is not waited for: it is killed in the middle again.
        let fleet = until("the fleet is up", || {
            let fleet: Vec<_> = project.servers().into_iter().filter(of_round).collect();
            (fleet.len() == FLEET && fleet.iter().all(|s| s["status"] == "ACTIVE")).then_some(fleet)
        });
        let fleet: Vec<String> = fleet.iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
        let accepted = delete_and_kill(&mut cloud, &project, &fleet, round.min(FLEET));
        println!("delete, kill {round}: {} of {FLEET} were accepted", accepted.len());
        deleted.extend(accepted);
        cloud.start();
        project = project.again(&cloud);
        println!("and after the start: {:?}", census(&project.servers()));
    }
    let gone = |id: &String| project.server(id).is_null();
    until("every deleted server is gone", || deleted.iter().all(gone).then_some(()));
    let servers = assert_settles(&project, &[]);
    println!("delete, the end: {} gone, {:?}", deleted.len(), census(&servers));
    assert_owned(&cloud, &servers);
    cloud.assert_checked();
}
