//! Random histories: the table and every algorithm against the oracle.

use nova_sched::{
    Dimensions, HostInventory, HostTable, Request, SCHEDULERS, Scheduler, SchedulerOptions, SchedulerRng, Selection,
    by_name,
};
use proptest::prelude::*;

use crate::oracle::{Change, Oracle, name};

const HOSTS: usize = 90;

fn change() -> impl Strategy<Value = Change> {
    let host = (0..HOSTS, 0_u64..40, 0_u64..4_000, 0_u8..3, 1_u8..9, any::<u8>()).prop_map(
        |(number, cores, memory, zone, ratio, flags)| Change::Host {
            number,
            cores,
            memory,
            zone,
            ratio,
            up: flags % 8 != 0,
            enabled: flags / 8 % 8 != 0,
        },
    );
    let allocate = (0..HOSTS, any::<u8>(), 0_u64..16, 0_u64..2_000)
        .prop_map(|(number, consumer, cores, memory)| Change::Allocate { number, consumer, cores, memory });
    prop_oneof![
        4 => host,
        1 => (0..HOSTS).prop_map(|number| Change::Remove { number }),
        8 => allocate,
        2 => any::<u8>().prop_map(|consumer| Change::Release { consumer }),
        1 => (any::<u8>(), 0..HOSTS).prop_map(|(consumer, number)| Change::ReleaseOn { consumer, number }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (1_u32..6, 0_u64..12, 0_u64..1_500, proptest::option::of(0_u8..4), 0_u32..4, 0..HOSTS).prop_map(
        |(instances, cores, memory, zone, alternates, ignored)| {
            let mut request = Request::new([cores, memory].into()).instances(instances).alternates(alternates);
            request.zone = zone.map(|zone| format!("zone-{zone}"));
            request.ignore_hosts = vec![name(ignored)];
            request
        },
    )
}

/// Applies a change to both, and compares what they say to it.
fn apply(table: &mut HostTable, oracle: &mut Oracle, change: Change) {
    match change {
        Change::Host { number, cores, memory, zone, ratio, up, enabled } => {
            let mut host = HostInventory::new(name(number), format!("zone-{zone}"), [cores, memory].into());
            host.reserved = [1, 100].into();
            host.ratio = [f64::from(ratio) / 2.0].into();
            (host.up, host.enabled) = (up, enabled);
            table.upsert_host(host.clone()).unwrap();
            oracle.hosts.retain(|other| other.name != host.name);
            oracle.hosts.push(host);
        }
        Change::Remove { number } => {
            let known = oracle.host(&name(number)).is_some();
            assert_eq!(table.remove_host(&name(number)), known);
            oracle.hosts.retain(|host| host.name != name(number));
            oracle.held.retain(|(_, host, _)| *host != name(number));
        }
        Change::Allocate { number, consumer, cores, memory } => {
            let amounts = [cores, memory].into();
            let stands = oracle.allocate(&name(number), consumer.into(), amounts);
            let answer = table.allocate(&name(number), consumer.into(), &amounts);
            assert_eq!(answer.is_ok(), stands, "{answer:?}");
        }
        Change::Release { consumer } => {
            let held = oracle.held.iter().any(|(who, ..)| *who == u128::from(consumer));
            assert_eq!(table.release(consumer.into()), held);
            oracle.held.retain(|(who, ..)| *who != u128::from(consumer));
        }
        Change::ReleaseOn { consumer, number } => {
            let before = oracle.held.len();
            oracle.held.retain(|(who, host, _)| *who != u128::from(consumer) || *host != name(number));
            assert_eq!(table.release_on(consumer.into(), &name(number)), before != oracle.held.len());
        }
    }
}

fn build(changes: Vec<Change>, schedulers: &[Box<dyn Scheduler>]) -> (HostTable, Oracle) {
    let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb"]).unwrap());
    for scheduler in schedulers {
        scheduler.register(&mut table).unwrap();
    }
    let mut oracle = Oracle::default();
    for change in changes {
        apply(&mut table, &mut oracle, change);
    }
    (table, oracle)
}

fn all_schedulers() -> Vec<Box<dyn Scheduler>> {
    SCHEDULERS.iter().map(|name| by_name(name, &SchedulerOptions::default()).unwrap()).collect()
}

/// Every host of an answer suits the request, with all instances of it that are put there.
fn check_answer(oracle: &Oracle, request: &Request, answer: &[Selection], least_load: bool) {
    assert_eq!(answer.len(), request.num_instances as usize);
    for selection in answer {
        let host = oracle.host(&selection.host).unwrap();
        let times = answer.iter().filter(|other| other.host == selection.host).count() as u64;
        assert!(oracle.suits(host, request, times), "{host:?} {request:?}");
        for alternate in &selection.alternates {
            assert!(oracle.suits(oracle.host(&alternate.host).unwrap(), request, 1));
            assert!(answer.iter().all(|other| other.host != alternate.host));
        }
    }
    if least_load {
        let load = |host: &str| oracle.used(host).get(0);
        let suited = oracle.hosts.iter().filter(|host| oracle.suits(host, request, 1));
        let least = suited.map(|host| load(&host.name)).min();
        assert_eq!(Some(load(&answer[0].host)), least);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// After any history the books agree, and no allocation that was checked exceeds the ratio.
    #[test]
    fn the_table_keeps_the_oracles_books(changes in proptest::collection::vec(change(), 0..400)) {
        let (table, oracle) = build(changes, &all_schedulers());
        prop_assert_eq!(table.len(), oracle.hosts.len());
        for host in &oracle.hosts {
            let view = table.host(&host.name).unwrap();
            let used = oracle.used(&host.name);
            prop_assert_eq!((view.used(0), view.used(1)), (used.get(0), used.get(1)));
            prop_assert_eq!(view.capacity(0), host.capacity(0));
            prop_assert_eq!(&view.inventory(), host);
        }
        let copy = HostTable::from_snapshot(&table.snapshot(), []).unwrap();
        prop_assert_eq!(copy.snapshot(), table.snapshot());
    }

    /// Whatever an algorithm answers is right, and so is its no.
    #[test]
    fn answers_are_right(
        changes in proptest::collection::vec(change(), 0..300),
        requests in proptest::collection::vec(request(), 1..8),
        seed in any::<u64>(),
    ) {
        let schedulers = all_schedulers();
        let (table, oracle) = build(changes, &schedulers);
        let mut rng = SchedulerRng::from_seed(seed);
        for (scheduler, request) in schedulers.iter().flat_map(|one| requests.iter().map(move |other| (one, other))) {
            match scheduler.select_destinations(&table, request, &mut rng) {
                Ok(answer) => check_answer(&oracle, request, &answer, scheduler.name() == "least_load"),
                Err(refused) => {
                    let room = oracle.hosts.iter().map(|host| {
                        (1..=u64::from(request.num_instances))
                            .take_while(|times| oracle.suits(host, request, *times))
                            .count()
                    });
                    prop_assert_eq!(room.sum::<usize>(), refused.placed as usize);
                    prop_assert!(refused.placed < request.num_instances);
                    prop_assert_eq!(refused.considered, table.len());
                    let counted: usize = refused.reasons.iter().map(|(_, hosts)| hosts).sum();
                    prop_assert_eq!(counted, refused.considered);
                    let zoned = oracle.hosts.iter().filter(|host| request.zone.as_ref().is_some_and(|zone| *zone != host.zone));
                    prop_assert_eq!(refused.turned_away("zone"), zoned.count());
                }
            }
        }
    }
}
