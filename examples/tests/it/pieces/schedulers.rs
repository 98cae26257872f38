//! Four schedulers decide at once for a thousand hosts, without a word to each other: the booking in the store decides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cloud::Pieces;
use crate::fleet::{Request, assert_started_once, census, send_all};
use crate::support::{Project, assert_success, guests_in, is_settled, until_within};

const HOSTS: usize = 1000;
const AT_ONCE: usize = 20;
/// What all hosts together may take until they have reported, and all servers until they have settled.
const CONNECTING: Duration = Duration::from_secs(300);
const SERVICES: &[&str] =
    &["api-1", "scheduler-1", "scheduler-2", "scheduler-3", "scheduler-4", "conductor-1", "compute-1"];

/// A thousand hosts that take so many servers each.
fn cloud(places: usize) -> Pieces {
    let settings = format!(
        "[DEFAULT]\ninitial_cpu_allocation_ratio = 1\nreport_interval = 30\nservice_down_time = 120\n\
         [fake]\nhosts = {HOSTS}\nvcpus = {places}\n[api]\nmax_limit = 10000\n"
    );
    let (hosts, control) = SERVICES.split_last().unwrap();
    let mut cloud = Pieces::new("postgresql", &settings, SERVICES);
    for name in control {
        cloud.spawn(name);
    }
    cloud.await_health(control);
    cloud.spawn(hosts);
    // Each has a connection of its own, and the broker makes some twenty in a second.
    until_within(CONNECTING, "all hosts have reported", || {
        let listed = cloud.sign_in("api-1", "nova").get("/os-hypervisors?limit=10000").ok()?;
        (listed.list("hypervisors").ok()?.len() == HOSTS).then_some(())
    });
    cloud
}

/// The guests of all hosts.
fn guests(cloud: &Pieces) -> BTreeMap<String, Vec<(String, u64)>> {
    let file = |n: usize| cloud.path("compute-1").join(format!("fake/compute-1-{n}.json"));
    (1..=HOSTS).map(|n| (format!("compute-1-{n}"), guests_in(&file(n)))).collect()
}

fn boot(project: &Project, count: usize) {
    for from in (0..count).step_by(AT_ONCE) {
        let names = from..count.min(from + AT_ONCE);
        let requests: Vec<Request> = names.map(|n| Request::Boot(project.request(&format!("s-{n}")))).collect();
        let ((), ids) = send_all(project, &requests, |_| {});
        assert_eq!(ids.len(), requests.len(), "all were accepted");
    }
}

/// Boots so many, of which that many find a place.
fn decide(boots: usize, places: usize) {
    let cloud = cloud(places);
    let project = cloud.project();
    let began = Instant::now();
    boot(&project, boots);
    let servers: Vec<Value> = until_within(CONNECTING, "all have settled", || {
        let servers = project.newest(10_000);
        servers.iter().all(is_settled).then_some(servers)
    });
    let took = began.elapsed();
    let (booked, lost) = ("nova_bookings_total", "nova_bookings_lost_total");
    let (booked, lost) =
        (cloud.counted("conductor-1", booked), cloud.counted_or_none("conductor-1", lost).unwrap_or(0));
    let asked = ["scheduler-1", "scheduler-2", "scheduler-3", "scheduler-4"]
        .map(|name| cloud.counted(name, "nova_bus_replies_total"));
    println!(
        "{boots} boots on {HOSTS} hosts with {places} places each: {took:.1?}, {:?}; {booked} bookings, {lost} lost to another \
         scheduler's; answers of the schedulers: {asked:?}",
        census(&servers)
    );
    let guests = guests(&cloud);
    assert!(guests.values().all(|guests| guests.len() <= places), "no host has more than it can take");
    let guests: Vec<(String, u64)> = guests.into_values().flatten().collect();
    assert_started_once(&guests);
    assert_eq!(guests.len(), boots.min(HOSTS * places), "whoever could have a place has one");
    assert!(asked.iter().all(|answers| *answers > 0), "all four decided: {asked:?}");
    for server in servers.iter().filter(|server| server["status"] == "ERROR") {
        assert_eq!(
            server["fault"]["message"], "No valid host was found. There are not enough hosts available.",
            "{server}"
        );
    }
    let state = format!("DEFAULT.state_path={}", cloud.path("compute-1").display());
    let hosts = format!("fake.hosts={HOSTS}");
    let check = ["--set", "DEFAULT.host=compute-1", "--set", &hosts, "--set", &state, "check"];
    assert_success("nova-manage check", &cloud.manage(&check).output().unwrap());
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn four_schedulers_never_give_a_place_twice() {
    decide(500, 1);
}

#[test]
#[ignore = "takes minutes, `make soak` runs it: until the cloud is full and beyond; starts RabbitMQ and PostgreSQL of its own"]
fn soak_four_schedulers_fill_a_cloud() {
    decide(5_050, 5);
}
