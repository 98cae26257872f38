//! A host is frozen (SIGSTOP) for longer than `service_down_time` while its servers are evacuated, and goes on then: it
//! starts nothing of theirs, whatever it was told before, and cleans up after itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cloud::{PIECES, Pieces};
use crate::support::until;

const SETTINGS: &str = "[DEFAULT]\nreport_interval = 1\nservice_down_time = 4\n[conductor]\ntask_lease = 2\n";
const SERVERS: usize = 6;

/// The number of boots of each guest that a host keeps.
fn boots(cloud: &Pieces, host: &str) -> BTreeMap<String, u64> {
    cloud.guests_on(host).into_iter().collect()
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn a_host_that_was_frozen_starts_nothing_and_cleans_up() {
    let mut cloud = Pieces::started("postgresql", SETTINGS, PIECES);
    let project = cloud.project();
    let all: Vec<String> = (0..SERVERS).map(|n| project.boot(&format!("server-{n}"))).collect();
    all.iter().for_each(|id| drop(project.wait_status(id, "ACTIVE")));
    let before = boots(&cloud, "compute-1");
    let lost: Vec<&String> = all.iter().filter(|id| before.contains_key(*id)).collect();
    assert!(lost.len() >= 2, "too few servers on the host that will be frozen: {before:?}");
    let admin = cloud.sign_in("api-1", "nova");

    cloud.signal("compute-1", "STOP");
    // Orders that wait in its queue until it goes on.
    for id in &lost[..2] {
        project.demo.post(&format!("/servers/{id}/action"), &json!({"reboot": {"type": "HARD"}})).unwrap();
    }
    let state = |host: &str| {
        let listed = admin.get(&format!("/os-services?host={host}&binary=nova-compute")).unwrap().json();
        listed["services"][0]["state"].clone()
    };
    until("the frozen host counts as down", || (state("compute-1") == "down").then_some(()));
    for id in &lost {
        admin.post(&format!("/servers/{id}/action"), &json!({"evacuate": {}})).unwrap();
    }
    for id in &all {
        until("it runs on the host that is left", || {
            let server: Value = project.server(id);
            let settled = server["status"] == "ACTIVE" && server["OS-EXT-STS:task_state"].is_null();
            (settled && boots(&cloud, "compute-2").contains_key(id)).then_some(())
        });
    }
    let there = boots(&cloud, "compute-2");

    cloud.signal("compute-1", "CONT");
    until("the host that goes on has removed what is elsewhere", || {
        let now = boots(&cloud, "compute-1");
        for (id, count) in &now {
            assert_eq!(before.get(id), Some(count), "{id} was started on the host that its servers have left");
        }
        now.is_empty().then_some(())
    });
    cloud.await_health(PIECES);
    until("the evacuations are over", || {
        let listed = admin.get("/os-migrations?migration_type=evacuation").unwrap().list("migrations").unwrap();
        assert_eq!(listed.len(), lost.len());
        listed.iter().all(|one| one["status"] == "completed").then_some(())
    });
    assert_eq!(boots(&cloud, "compute-2"), there, "nothing was started a second time");
    assert!(cloud.log("compute-1").contains("nobody has heard of this host since"), "it knows that it was away");
    cloud.assert_checked();
    // It takes servers again.
    until("the host counts as up", || (state("compute-1") == "up").then_some(()));
    let new: Vec<String> = (0..SERVERS).map(|n| project.boot(&format!("after-{n}"))).collect();
    new.iter().for_each(|id| drop(project.wait_status(id, "ACTIVE")));
    assert!(!boots(&cloud, "compute-1").is_empty());
    cloud.assert_checked();
}
