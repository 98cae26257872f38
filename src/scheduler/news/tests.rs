use nova_core::host::NodeVersion;
use nova_core::request::RequestSpec;
use nova_core::rpc::scheduler::NodeNews;
use nova_sched::SchedulerRng;

use super::*;
use crate::scheduler::testing::*;

#[test]
fn a_release_that_overtakes_its_booking_stands() {
    let mut stored = stored(1);
    let mut hosts = read(&*algorithm("least_load"), &stored);
    stored.book(1, 0);
    let booked = stored.told(1, 0);
    stored.give_back(1, 0);
    let released = stored.told(1, 0);
    for news in [&released, &booked, &booked, &released] {
        hosts.apply(news);
        assert_eq!(on(&hosts, 0), [] as [u128; 0]);
    }
    // And what is older than a reading says nothing that the reading did not know.
    hosts.read_from(&stored, NOW, DOWN);
    hosts.apply(&booked);
    assert_eq!(on(&hosts, 0), [] as [u128; 0]);
    stored.book(1, 0);
    hosts.apply(&stored.told(1, 0));
    hosts.apply(&released);
    assert_eq!(on(&hosts, 0), [1]);
}

#[test]
fn a_booking_keeps_the_promise_and_ends_others() {
    let mut stored = stored(2);
    let (algorithm, mut rng) = (algorithm("least_load"), SchedulerRng::from_seed(1));
    let mut hosts = read(&*algorithm, &stored);
    let spec = RequestSpec { instances: vec![instance(1)], resources: small(), ..RequestSpec::default() };
    let chosen = hosts.select(&*algorithm, &spec, &mut rng, NOW).unwrap();
    let other = usize::from(chosen[0].chosen.host == host(0));
    stored.book(1, other);
    hosts.apply(&stored.told(1, other));
    assert_eq!((on(&hosts, other), on(&hosts, 1 - other)), (vec![1], vec![]));
    assert_eq!(hosts.promised.iter().count(), 0);
}

#[test]
fn who_lost_a_place_gives_its_promise_back_and_nothing_else() {
    let mut stored = stored(1);
    stored.book(1, 0);
    let (algorithm, mut rng) = (algorithm("least_load"), SchedulerRng::from_seed(1));
    let mut hosts = read(&*algorithm, &stored);
    let spec = RequestSpec { instances: vec![instance(2)], resources: small(), ..RequestSpec::default() };
    hosts.select(&*algorithm, &spec, &mut rng, NOW).unwrap();
    for number in [1, 2] {
        let lost = AllocationNews {
            instance_id: instance(number),
            host: host(0),
            resources: None,
            placement: None,
            version: None,
        };
        hosts.apply(&HostsChangedRequest { allocations: vec![lost], ..HostsChangedRequest::default() });
    }
    assert_eq!(on(&hosts, 0), [1], "what is booked is not given back by that");
}

#[test]
fn older_news_of_nodes_and_services_is_none() {
    let mut hosts = read(&*algorithm("least_load"), &stored(1));
    let view = |hosts: &Hosts| hosts.table.host("host000").unwrap().inventory();
    let node = |generation, vcpus| {
        let mut node = node(0);
        (node.generation, node.inventory.total.vcpus) = (generation, vcpus);
        HostsChangedRequest { nodes: vec![NodeNews { node }], ..HostsChangedRequest::default() }
    };
    hosts.apply(&node(5, 32));
    hosts.apply(&node(4, 16));
    assert_eq!(view(&hosts).total.get(0), 32);
    let service = |generation, disabled| {
        let news = ServiceNews { host: host(0), disabled, up: true, generation };
        HostsChangedRequest { services: vec![news], ..HostsChangedRequest::default() }
    };
    hosts.apply(&service(3, true));
    hosts.apply(&service(2, false));
    assert!(!view(&hosts).enabled);
    hosts.apply(&service(3, false));
    assert!(view(&hosts).enabled, "a sign of life does not raise the generation");
}

/// A host that was taken out and came back counts anew.
#[test]
fn a_node_that_was_made_anew_is_newer_than_the_old_one() {
    let mut stored = stored(1);
    stored.nodes[0].generation = 50;
    let mut hosts = read(&*algorithm("least_load"), &stored);
    stored.nodes[0].number = 9;
    stored.nodes[0].generation = 1;
    stored.book(1, 0);
    assert!(NodeVersion { number: 9, generation: 2 } > NodeVersion { number: 1, generation: 50 });
    hosts.apply(&stored.told(1, 0));
    assert_eq!(on(&hosts, 0), [1]);
}
