//! Two of each control service at once: they share the work, and when one of a pair dies the other carries on.

use std::collections::BTreeSet;

use super::cloud::Pieces;
use crate::fleet::{Fleet, assert_started_once, send_all};
use crate::support::until;

const PAIRS: &[&str] =
    &["api-1", "api-2", "scheduler-1", "scheduler-2", "conductor-1", "conductor-2", "compute-1", "compute-2"];
const SETTINGS: &str = "[conductor]\ntask_lease = 2\n[fake]\nboot_latency_ms = 300\n";

/// Sends a round of boots through one API and waits until all are ACTIVE; kills a service once they are under way.
fn boots_carry_on(cloud: &mut Pieces, fleet: &mut Fleet, api: &str, victim: Option<&str>) {
    fleet.project = fleet.project.by(cloud.sign_in(api, "nova-demo"));
    let requests = fleet.boots();
    let ((), ids) = send_all(&fleet.project, &requests, |sent| {
        if let Some(victim) = victim {
            until("boots are under way", || (sent.accepted() > 1).then_some(()));
            cloud.kill(victim);
        }
    });
    assert_eq!(ids.len(), requests.len(), "all were accepted by {api}");
    fleet.note(&requests, ids);
    until(&format!("all of round {} are ACTIVE", fleet.round), || {
        fleet.of_round().iter().all(|s| s["status"] == "ACTIVE").then_some(())
    });
    println!("round {} through {api} is ACTIVE, without {victim:?}", fleet.round);
    assert_started_once(&cloud.guests());
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn one_of_each_pair_carries_on() {
    let mut cloud = Pieces::started("postgresql", SETTINGS, PAIRS);
    let mut fleet = Fleet::new(cloud.project());
    let count = |cloud: &Pieces| {
        ["scheduler-1", "scheduler-2", "conductor-1", "conductor-2"]
            .map(|name| cloud.counted(name, "nova_bus_replies_total"))
    };
    let before = count(&cloud);
    for round in 0..4 {
        boots_carry_on(&mut cloud, &mut fleet, ["api-1", "api-2"][round % 2], None);
    }
    let worked: Vec<u64> = count(&cloud).iter().zip(before).map(|(now, before)| now - before).collect();
    println!("answers of schedulers and conductors: {worked:?}");
    assert!(worked.iter().all(|count| *count > 0), "both of a pair take their share: {worked:?}");
    let all: Vec<String> = fleet.project.servers().iter().filter_map(|s| s["id"].as_str().map(str::to_owned)).collect();
    let hosts = ["compute-1", "compute-2"].map(|host| cloud.guests_on(host).len());
    assert_eq!(hosts.iter().sum::<usize>(), all.len());
    assert!(hosts[0].abs_diff(hosts[1]) * 4 <= all.len(), "the hosts share the load: {hosts:?}");

    for victim in ["scheduler-1", "conductor-1"] {
        boots_carry_on(&mut cloud, &mut fleet, "api-1", Some(victim));
    }
    cloud.kill("api-1");
    boots_carry_on(&mut cloud, &mut fleet, "api-2", None);
    // An image that was uploaded through the API that is gone is used, and servers that it made can go.
    let left: BTreeSet<&str> = ["api-2", "scheduler-2", "conductor-2", "compute-1", "compute-2"].into();
    cloud.await_health(&left.into_iter().collect::<Vec<_>>());
    fleet.assert_all_can_go(|| cloud.guests());
    cloud.assert_checked();
    // They come back, and take their share again.
    for name in ["scheduler-1", "conductor-1", "api-1"] {
        cloud.spawn(name);
    }
    cloud.await_health(PAIRS);
    boots_carry_on(&mut cloud, &mut fleet, "api-1", None);
    cloud.assert_checked();
}
