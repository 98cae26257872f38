use nova_core::request::RequestSpec;
use nova_core::rpc::scheduler::{HostsChangedRequest, NodeNews, ServiceNews};
use nova_sched::SchedulerRng;

use super::*;
use crate::scheduler::TENTATIVE;
use crate::scheduler::testing::*;

/// A reading of what is stored now, which is applied later.
fn begin(hosts: &Hosts, stored: &Stored) -> Reading {
    Reading::new(stored, &hosts.mark(), NOW, DOWN)
}

fn end(hosts: &mut Hosts, reading: &Reading) {
    hosts.begin_reading(reading, NOW);
    for part in reading.parts(1) {
        hosts.follow_reading(reading, &part);
    }
    hosts.end_reading();
}

fn promise(hosts: &mut Hosts, number: u128, now: Timestamp) -> HostName {
    let spec = RequestSpec { instances: vec![instance(number)], resources: small(), ..RequestSpec::default() };
    let algorithm = algorithm("least_load");
    let chosen = hosts.select(&*algorithm, &spec, &mut SchedulerRng::from_seed(1), now).unwrap();
    chosen[0].chosen.host.clone()
}

#[test]
fn a_reading_without_news_changes_nothing() {
    let mut stored = stored(300);
    (0..500).for_each(|number| stored.book(number, number as usize % 300));
    stored.services[7].disabled = true;
    stored.services[8].forced_down = true;
    let mut hosts = read(&*algorithm("least_load"), &stored);
    assert_eq!(hosts.changes(), 800);
    for size in [1, 64, usize::MAX] {
        let reading = begin(&hosts, &stored);
        hosts.begin_reading(&reading, NOW);
        reading.parts(size).iter().for_each(|part| hosts.follow_reading(&reading, part));
        hosts.end_reading();
        assert_eq!(hosts.changes(), 800);
    }
    // Each of these is one.
    stored.services[7].disabled = false;
    stored.services[9].disabled_reason = Some("fan".into());
    stored.services[9].disabled = true;
    stored.nodes[10].inventory.total.vcpus = 16;
    stored.give_back(1, 1);
    stored.book(900, 2);
    stored.nodes.pop();
    let gone = stored.allocations.len();
    stored.allocations.retain(|held| held.host != host(299));
    assert_eq!(gone - stored.allocations.len(), 1);
    hosts.read_from(&stored, NOW, DOWN);
    assert_eq!((hosts.changes(), hosts.len()), (806, 299));
}

#[test]
fn what_is_told_while_the_store_is_read_is_newer() {
    let mut stored = stored(3);
    stored.book(1, 0);
    stored.book(2, 0);
    let mut hosts = read(&*algorithm("least_load"), &stored);
    let reading = begin(&hosts, &stored);
    stored.give_back(1, 0);
    hosts.apply(&stored.told(1, 0));
    stored.book(3, 1);
    hosts.apply(&stored.told(3, 1));
    // A host that is new, one that was described anew, one that was disabled.
    stored.nodes.push(node(3));
    stored.nodes[1].inventory.total.vcpus = 32;
    stored.nodes[1].generation += 1;
    let nodes = [1, 3].map(|number| NodeNews { node: stored.nodes[number].clone() }).to_vec();
    let services = vec![
        ServiceNews { host: host(2), disabled: true, up: true, generation: 2 },
        ServiceNews { host: host(3), disabled: false, up: true, generation: 1 },
    ];
    hosts.apply(&HostsChangedRequest { nodes, services, ..HostsChangedRequest::default() });
    let promised = promise(&mut hosts, 9, NOW);
    let changes = hosts.changes();
    end(&mut hosts, &reading);
    assert_eq!(hosts.changes(), changes, "what was read is older than all of that");
    let told = |hosts: &Hosts, at: usize| hosts.table.host(host(at).as_str()).unwrap().inventory();
    assert!(!on(&hosts, 0).contains(&1) && on(&hosts, 0).contains(&2) && on(&hosts, 1).contains(&3));
    assert_eq!((told(&hosts, 1).total.get(0), told(&hosts, 2).enabled, told(&hosts, 3).up), (32, false, true));
    assert!(hosts.table.consumers_on(promised.as_str()).contains(&9));
    // The next reading knows all of it, but for what only this table has heard of.
    stored.services[2].disabled = true;
    stored.services[2].generation = 2;
    stored.services.push(service(3));
    hosts.read_from(&stored, NOW, DOWN);
    assert_eq!(told(&hosts, 2).disabled_reason.as_deref(), Some("disabled by an operator"));
    assert_eq!(hosts.changes(), changes);
    assert!(hosts.told.is_empty());
}

#[test]
fn a_promise_ends_with_the_reading_that_shows_its_instance() {
    let mut stored = stored(2);
    let mut hosts = read(&*algorithm("least_load"), &stored);
    let first = promise(&mut hosts, 1, NOW);
    let second = promise(&mut hosts, 2, NOW);
    assert_ne!(first, second);
    hosts.read_from(&stored, NOW, DOWN);
    assert_eq!([on(&hosts, 0).len(), on(&hosts, 1).len()], [1, 1], "not yet booked");
    // The first is booked where the second was promised.
    let at = if first == host(0) { 1 } else { 0 };
    stored.book(1, at);
    hosts.read_from(&stored, NOW, DOWN);
    assert_eq!((on(&hosts, at), on(&hosts, 1 - at)), (vec![1, 2], vec![]));
    // It is booked, so the end of its time is none.
    hosts.expire_promises(NOW + TENTATIVE + TENTATIVE);
    assert_eq!(on(&hosts, at), [1]);
}

#[test]
fn a_promise_lapses_without_a_reading() {
    let mut hosts = read(&*algorithm("least_load"), &stored(1));
    for number in 1..9 {
        promise(&mut hosts, number, NOW);
    }
    let spec = RequestSpec { instances: vec![instance(9)], resources: small(), ..RequestSpec::default() };
    let (algorithm, mut rng) = (algorithm("least_load"), SchedulerRng::from_seed(1));
    let last = NOW + TENTATIVE;
    assert!(hosts.select(&*algorithm, &spec, &mut rng, last).is_err(), "all eight cores are promised");
    assert!(hosts.select(&*algorithm, &spec, &mut rng, last + SignedDuration::from_millis(1)).is_ok());
    assert_eq!(on(&hosts, 0), [9]);
}

#[test]
fn of_two_nodes_the_first_counts_wherever_it_is_heard_of() {
    let mut stored = stored(1);
    let mut second = node(0);
    second.hypervisor_hostname = "host000-b".into();
    second.number = 7;
    second.inventory.total.vcpus = 64;
    stored.nodes.push(second.clone());
    let cores = |hosts: &Hosts| hosts.table.host("host000").unwrap().inventory().total.get(0);
    let news = |node: ComputeNode| HostsChangedRequest { nodes: vec![NodeNews { node }], ..Default::default() };
    let mut hosts = read(&*algorithm("least_load"), &stored);
    assert_eq!(cores(&hosts), 8);
    hosts.apply(&news(second.clone()));
    assert_eq!(cores(&hosts), 8);
    let mut earlier = second;
    earlier.hypervisor_hostname = "host000".into();
    earlier.number = 9;
    hosts.apply(&news(earlier.clone()));
    assert_eq!(cores(&hosts), 64, "the same node, made anew");
    earlier.hypervisor_hostname = "a".into();
    earlier.inventory.total.vcpus = 16;
    hosts.apply(&news(earlier));
    assert_eq!(cores(&hosts), 16, "one that comes before it");
}
