use nova_core::host::Allocation;
use nova_core::ids::{ImageId, ServerGroupId};
use nova_core::request::{FlavorWish, ImageWish};
use nova_core::server_group::GroupPolicy;
use nova_sched::{SCHEDULERS, SchedulerOptions};

use super::*;
use crate::scheduler::testing::*;

fn spec(instances: std::ops::Range<u128>) -> RequestSpec {
    RequestSpec { instances: instances.map(instance).collect(), resources: small(), ..RequestSpec::default() }
}

fn in_group(spec: RequestSpec, policy: GroupPolicy, members: &[(u128, usize)]) -> RequestSpec {
    let members = members.iter().map(|(member, at)| (instance(*member), host(*at))).collect();
    let id = ServerGroupId::from_uuid(uuid::Uuid::from_u128(77));
    RequestSpec { group: Some(GroupPlacement { id, policy, max_server_per_host: 1, members }), ..spec }
}

fn select(hosts: &mut Hosts, algorithm: &dyn Scheduler, spec: &RequestSpec) -> Result<Vec<Selection>, NoValidHost> {
    hosts.select(algorithm, spec, &mut SchedulerRng::from_seed(3), NOW)
}

fn places(selections: &[Selection]) -> BTreeSet<HostName> {
    selections.iter().map(|selection| selection.chosen.host.clone()).collect()
}

/// 500 members at once: minutes, were each placed by a request of its own with all others named.
#[test]
fn a_large_create_keeps_to_its_group() {
    for name in SCHEDULERS {
        let algorithm = algorithm(name);
        let mut hosts = read(&*algorithm, &stored(500));
        for (policy, most) in [(GroupPolicy::AntiAffinity, 1), (GroupPolicy::SoftAntiAffinity, 8)] {
            let from = if policy.is_soft() { 1_000 } else { 0 };
            let chosen = select(&mut hosts, &*algorithm, &in_group(spec(from..from + 500), policy, &[])).unwrap();
            assert!(places(&chosen).len() >= 500 / most, "{name} {policy}");
        }
        let no = in_group(spec(0..501), GroupPolicy::AntiAffinity, &[]);
        let no = select(&mut hosts, &*algorithm, &no).unwrap_err();
        assert!(no.details.contains("(500 found one)") && no.details.contains("anti-affinity"), "{}", no.details);
    }
}

#[test]
fn members_that_were_promised_a_place_are_known_to_the_next() {
    for name in SCHEDULERS {
        let algorithm = algorithm(name);
        let mut hosts = read(&*algorithm, &stored(3));
        let ask = |hosts: &mut Hosts, number: u128| {
            let spec = in_group(spec(number..number + 1), GroupPolicy::AntiAffinity, &[(1, 2)]);
            select(hosts, &*algorithm, &spec)
        };
        let first = places(&ask(&mut hosts, 2).unwrap());
        let second = places(&ask(&mut hosts, 3).unwrap());
        assert_eq!(first.union(&second).cloned().collect::<Vec<_>>(), [host(0), host(1)], "{name}");
        // The store knows of one member only: whether the others have got their places will be seen at the booking.
        assert!(places(&ask(&mut hosts, 4).unwrap()).is_disjoint(&[host(2)].into()));
        assert_eq!(places(&ask(&mut hosts, 2).unwrap()).len(), 1, "it is not in its own way");
    }
}

/// The filter scheduler's own filters and weighers see the group, each with its part in the answer.
#[test]
fn filters_and_weighers_read_the_group() {
    let filter = algorithm("filter");
    let mut hosts = read(&*filter, &stored(3));
    let all = [(1, 0), (2, 1), (3, 2)];
    let no = select(&mut hosts, &*filter, &in_group(spec(9..10), GroupPolicy::AntiAffinity, &all)).unwrap_err();
    assert_eq!(no.reasons, [("ServerGroupAntiAffinityFilter".to_owned(), 3)].into());
    assert!(no.details.contains("kept out by one check alone: ServerGroupAntiAffinityFilter: 3"), "{}", no.details);
    let no = in_group(spec(9..10), GroupPolicy::Affinity, &[(1, 0)]);
    let large = RequestSpec { resources: Resources { vcpus: 9, ..small() }, ..no };
    let no = select(&mut hosts, &*filter, &large).unwrap_err();
    assert!(no.details.contains("closest was host") && no.details.contains("vcpus=8"), "{}", no.details);
    let wish = in_group(spec(9..10), GroupPolicy::SoftAffinity, &[(1, 1)]);
    let told = hosts.explain(&*filter, &wish);
    assert_eq!(told[0].host, "host001");
    assert!(told[0].parts.contains(&("ServerGroupSoftAffinityWeigher".to_owned(), 1.0)), "{:?}", told[0].parts);
}

/// A host whose room counts against it is taken all the same when the multiplier says so.
#[test]
fn the_multiplier_of_a_wish_counts() {
    let chosen = |multiplier: f64| {
        let mut options = SchedulerOptions::default();
        options.filter.soft_affinity_weight_multiplier = multiplier;
        let filter = nova_sched::by_name("filter", &options).unwrap();
        let mut stored = stored(2);
        let (resources, created_at) = (Resources { vcpus: 4, memory_mb: 4_096, disk_gb: 50 }, NOW);
        stored.allocations =
            vec![Allocation { instance_id: instance(1), host: host(0), resources, created_at, placement: None }];
        let mut hosts = read(&*filter, &stored);
        let wish = in_group(spec(9..10), GroupPolicy::SoftAffinity, &[(1, 0)]);
        places(&select(&mut hosts, &*filter, &wish).unwrap())
    };
    assert_eq!(chosen(0.1), [host(1)].into());
    assert_eq!(chosen(10.0), [host(0)].into());
}

/// Hosts that lack only room are told of, though others are kept out by the group.
#[test]
fn the_nearest_miss_is_told_beside_the_rule() {
    for name in ["random", "availability_zone", "least_load"] {
        let algorithm = algorithm(name);
        let mut hosts = read(&*algorithm, &stored(3));
        let no = in_group(spec(9..10), GroupPolicy::AntiAffinity, &[(1, 0), (2, 1)]);
        let large = RequestSpec { resources: Resources { vcpus: 9, ..small() }, ..no };
        let no = select(&mut hosts, &*algorithm, &large).unwrap_err();
        assert_eq!(no.reasons, [("server_group".to_owned(), 2), ("vcpus".to_owned(), 1)].into(), "{name}");
        assert!(no.details.contains("closest was host002"), "{}", no.details);
        assert!(no.details.contains("policy anti-affinity, 2 of its members are on 2 host(s)"), "{}", no.details);
        assert!(!no.summary.contains("host0") && !no.summary.contains("group"), "{}", no.summary);
    }
}

#[test]
fn a_rebuild_asks_only_whether_the_host_runs_the_image() {
    let architecture = |name: &str| {
        let properties = [("hw_architecture".to_owned(), name.to_owned())].into();
        let image = ImageWish { id: ImageId::from_uuid(uuid::Uuid::from_u128(5)), properties };
        let architecture = Some(name.to_owned());
        RequestSpec { purpose: Purpose::Rebuild, image: Some(image), architecture, ..spec(1..2) }
    };
    for name in SCHEDULERS {
        let algorithm = algorithm(name);
        let mut stored = stored(2);
        (0..8).for_each(|number| stored.book(number, 1));
        stored.services[1].disabled = true;
        let mut hosts = read(&*algorithm, &stored);
        // It is full and takes nothing new, but it has the instance, whether or not the request says where that is.
        for requested_host in [None, Some(host(1))] {
            let asked = RequestSpec { requested_host, ..architecture("x86_64") };
            let chosen = select(&mut hosts, &*algorithm, &asked).unwrap();
            assert_eq!(places(&chosen), [host(1)].into(), "{name}");
        }
        let no = select(&mut hosts, &*algorithm, &architecture("aarch64")).unwrap_err();
        assert_eq!(no.reasons, [("architecture".to_owned(), 1)].into(), "{name}");
        assert!(no.details.contains("on `host001`"), "{}", no.details);
        assert_eq!((on(&hosts, 1).len(), hosts.promised.iter().count()), (8, 0), "nothing is promised or given back");
        let unknown = RequestSpec { instances: vec![instance(99)], ..architecture("x86_64") };
        assert!(select(&mut hosts, &*algorithm, &unknown).unwrap_err().details.contains("has no host"));
    }
}

#[test]
fn an_evacuation_goes_elsewhere_and_books_once() {
    for name in SCHEDULERS {
        let algorithm = algorithm(name);
        let mut stored = stored(2);
        stored.book(1, 0);
        // Seven of eight cores of the other host are taken: there is room for one, once.
        (10..17).for_each(|number| stored.book(number, 1));
        let mut hosts = read(&*algorithm, &stored);
        let moving = in_group(spec(1..2), GroupPolicy::AntiAffinity, &[(1, 0)]);
        let moving = RequestSpec { purpose: Purpose::Move, ..moving };
        for _ in 0..2 {
            assert_eq!(places(&select(&mut hosts, &*algorithm, &moving).unwrap()), [host(1)].into(), "{name}");
            assert_eq!((on(&hosts, 0), on(&hosts, 1).len()), (vec![1], 8), "asked again, it is promised once");
        }
        // A reading shows it where it was: what it was promised stays, until it is booked or lapses.
        hosts.read_from(&stored, NOW, DOWN);
        assert_eq!(on(&hosts, 1).len(), 8, "{name}");
        stored.book(1, 1);
        stored.give_back(1, 0);
        hosts.apply(&stored.told(1, 1));
        hosts.apply(&stored.told(1, 0));
        assert_eq!((on(&hosts, 0), on(&hosts, 1).len()), (vec![], 8));
        hosts.read_from(&stored, NOW, DOWN);
        assert_eq!((on(&hosts, 0), on(&hosts, 1).len()), (vec![], 8));
        // Not to where it is, whoever says so.
        let forced = RequestSpec { force_host: Some(host(1)), ..moving };
        let no = select(&mut hosts, &*algorithm, &forced).unwrap_err();
        assert!(no.details.contains("the instance is there"), "{}", no.details);
    }
}

#[test]
fn what_is_booked_needs_no_promise() {
    let algorithm = algorithm("least_load");
    let mut stored = stored(1);
    stored.book(1, 0);
    let mut hosts = read(&*algorithm, &stored);
    select(&mut hosts, &*algorithm, &spec(1..2)).unwrap();
    hosts.expire_promises(NOW + TENTATIVE + TENTATIVE);
    assert_eq!(on(&hosts, 0), [1], "an end of a promise does not take it away");
}

#[test]
fn a_class_that_no_host_has_is_named() {
    for name in SCHEDULERS {
        let algorithm = algorithm(name);
        let mut hosts = read(&*algorithm, &stored(3));
        let extra_specs = [("resources:CUSTOM_GPU".to_owned(), "1".to_owned())].into();
        let asked = RequestSpec { flavor: FlavorWish { name: "gpu".into(), extra_specs }, ..spec(1..2) };
        let no = select(&mut hosts, &*algorithm, &asked).unwrap_err();
        assert_eq!(no.reasons, [("CUSTOM_GPU".to_owned(), 3)].into(), "{name}");
        assert!(no.details.contains("none has any CUSTOM_GPU") && !no.summary.contains("GPU"), "{}", no.details);
        let told = hosts.explain(&*algorithm, &asked);
        assert!(told.iter().all(|host| host.to_string().contains("CUSTOM_GPU (no host has any)")), "{told:?}");
    }
}
