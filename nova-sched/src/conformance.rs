//! What every [`Scheduler`] must keep to, whoever wrote it.
//!
//! `scheduler_conformance!(make())` in a test module makes a test of each check; the expression gives a fresh
//! `Box<dyn Scheduler>`. The checks use tables that count `vcpus`, `memory_mb` and `disk_gb`.
#![allow(clippy::unwrap_used, reason = "a check fails by panicking, as a test does")]

use std::collections::{BTreeMap, BTreeSet};

use crate::fixtures::{self, SIZE};
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerRng, Selection};

type Answer = Result<Vec<Selection>, NoValidHost>;

const SEEDS: std::ops::Range<u64> = 0..20;

fn small() -> Request {
    Request::new([2, 2_048, 20].into())
}

fn cloud(scheduler: &dyn Scheduler, hosts: usize, zones: usize) -> HostTable {
    let mut table = fixtures::table(hosts, zones);
    scheduler.register(&mut table).unwrap();
    table
}

fn ask(scheduler: &dyn Scheduler, table: &HostTable, request: &Request, seed: u64) -> Answer {
    scheduler.select_destinations(table, request, &mut SchedulerRng::from_seed(seed))
}

fn hosts_of(answer: &Answer) -> Vec<String> {
    answer.as_ref().unwrap().iter().map(|selection| selection.host.to_string()).collect()
}

/// Hosts that are down, disabled, ignored, of another architecture or too small are never chosen, not even as
/// alternates; as long as another host is left, that one is.
pub fn unfit_hosts_are_never_chosen(scheduler: &dyn Scheduler) {
    let mut table = cloud(scheduler, 8, 1);
    table.set_up("host-0", false).unwrap();
    table.set_enabled("host-1", false, Some("broken fan")).unwrap();
    let mut other = fixtures::host(3, 1);
    other.architectures = vec!["aarch64".to_owned()];
    table.upsert_host(other).unwrap();
    for (number, full) in [[15, 0, 0], [0, SIZE[1] - 1, 0], [0, 0, SIZE[2] - 1]].into_iter().enumerate() {
        table.allocate(&format!("host-{}", number + 4), number as u128, &full.into()).unwrap();
    }
    let mut request = small().on_architecture("x86_64").alternates(7);
    request.ignore_hosts = vec!["host-2".to_owned(), "unknown".to_owned()];
    for seed in SEEDS {
        let answer = ask(scheduler, &table, &request, seed);
        assert_eq!(hosts_of(&answer), ["host-7"], "seed {seed}");
        assert!(answer.unwrap()[0].alternates.is_empty(), "seed {seed}: an alternate is unfit");
    }
}

/// Required traits are had and forbidden ones aren't.
pub fn traits_are_respected(scheduler: &dyn Scheduler) {
    let mut table = cloud(scheduler, 4, 1);
    for (number, traits) in [vec!["ssd"], vec!["ssd", "gpu"], vec![], vec!["gpu"]].into_iter().enumerate() {
        let mut host = fixtures::host(number, 1);
        host.traits = traits.into_iter().map(str::to_owned).collect();
        table.upsert_host(host).unwrap();
    }
    let mut request = small();
    request.required_traits = vec!["ssd".to_owned()];
    request.forbidden_traits = vec!["gpu".to_owned()];
    for seed in SEEDS {
        assert_eq!(hosts_of(&ask(scheduler, &table, &request, seed)), ["host-0"], "seed {seed}");
    }
    request.required_traits.push("fpga".to_owned());
    assert_eq!(ask(scheduler, &table, &request, 0).unwrap_err().turned_away("traits"), 4);
}

/// Either all instances of a request are placed, or none.
pub fn all_or_nothing(scheduler: &dyn Scheduler) {
    let table = cloud(scheduler, 3, 1);
    let half = Request::new([8, 1, 1].into());
    for seed in SEEDS {
        let six = hosts_of(&ask(scheduler, &table, &half.clone().instances(6), seed));
        assert_eq!(six.len(), 6, "seed {seed}");
        let refused = ask(scheduler, &table, &half.clone().instances(7), seed).unwrap_err();
        assert_eq!((refused.requested, refused.placed), (7, 6), "seed {seed}");
        assert_eq!(refused.turned_away("vcpus"), 3, "seed {seed}: {refused}");
    }
}

/// What is chosen for one request can be booked, all of it.
pub fn many_at_once_do_not_overbook(scheduler: &dyn Scheduler) {
    for seed in SEEDS {
        let mut table = cloud(scheduler, 70, 3);
        for number in 0..70_u64 {
            let some = [number % 17, number * 900, number * 13];
            table.allocate(&format!("host-{number}"), u128::from(number), &some.into()).unwrap();
        }
        let request = Request::new([3, 3_000, 30].into()).instances(100).alternates(2);
        let answer = ask(scheduler, &table, &request, seed).unwrap();
        assert_eq!(answer.len(), 100, "seed {seed}");
        for (number, selection) in answer.iter().enumerate() {
            table.allocate(&selection.host, 1_000 + number as u128, &request.resources).unwrap();
        }
    }
}

/// A zone that is asked for is kept to, by alternates too; one that doesn't exist has no hosts.
pub fn the_zone_is_respected(scheduler: &dyn Scheduler) {
    let table = cloud(scheduler, 200, 3);
    let request = small().in_zone("zone-1").instances(4).alternates(3);
    for seed in SEEDS {
        for selection in ask(scheduler, &table, &request, seed).unwrap() {
            let zones = selection.alternates.iter().map(|other| &other.zone).chain([&selection.zone]);
            assert!(zones.into_iter().all(|zone| &**zone == "zone-1"), "seed {seed}: {selection:?}");
        }
    }
    let refused = ask(scheduler, &table, &small().in_zone("zone-9"), 0).unwrap_err();
    assert_eq!(refused.turned_away("zone"), 200, "{refused}");
}

/// Alternates differ from each other and from every host chosen for the request; fewer are named when there are no more.
pub fn alternates_are_distinct(scheduler: &dyn Scheduler) {
    let table = cloud(scheduler, 6, 2);
    for seed in SEEDS {
        let answer = ask(scheduler, &table, &small().instances(2).alternates(9), seed).unwrap();
        let chosen: BTreeSet<_> = answer.iter().map(|selection| &selection.host).collect();
        for selection in &answer {
            let others: BTreeSet<_> = selection.alternates.iter().map(|other| &other.host).collect();
            assert_eq!(others.len(), selection.alternates.len(), "seed {seed}: {selection:?}");
            assert_eq!(others.len(), 6 - chosen.len(), "seed {seed}: {selection:?}");
            assert!(chosen.is_disjoint(&others), "seed {seed}: {selection:?}");
        }
        let two = ask(scheduler, &table, &small().alternates(2), seed).unwrap();
        assert_eq!(two[0].alternates.len(), 2, "seed {seed}");
    }
}

/// The same table, request and seed give the same answer, with the algorithm's indexes and without.
pub fn the_seed_decides(scheduler: &dyn Scheduler) {
    let mut indexed = cloud(scheduler, 300, 3);
    let mut plain = fixtures::table(300, 3);
    let request = small().instances(3).alternates(2);
    for seed in 0..100 {
        let answer = ask(scheduler, &indexed, &request, seed);
        assert_eq!(answer, ask(scheduler, &indexed, &request, seed), "seed {seed}, twice");
        assert_eq!(answer, ask(scheduler, &plain, &request, seed), "seed {seed}, without index");
        for (number, selection) in answer.unwrap().iter().enumerate() {
            let consumer = u128::from(seed) * 10 + number as u128;
            indexed.allocate(&selection.host, consumer, &request.resources).unwrap();
            plain.allocate(&selection.host, consumer, &request.resources).unwrap();
        }
    }
}

/// A forced host takes the instances though it is disabled or in another zone, but not when it is down, full or absent.
pub fn a_forced_host_must_live_and_have_room(scheduler: &dyn Scheduler) {
    let mut table = cloud(scheduler, 4, 2);
    let mut request = small().in_zone("zone-1").instances(2);
    request.force_host = Some("host-2".to_owned());
    table.set_enabled("host-2", false, None).unwrap();
    assert_eq!(hosts_of(&ask(scheduler, &table, &request, 0)), ["host-2", "host-2"]);
    table.allocate("host-2", 1, &[13, 1, 1].into()).unwrap();
    let full = ask(scheduler, &table, &request, 0).unwrap_err();
    assert_eq!((full.considered, full.turned_away("vcpus"), full.placed), (1, 1, 1), "{full}");
    table.release(1);
    table.set_up("host-2", false).unwrap();
    assert_eq!(ask(scheduler, &table, &request, 0).unwrap_err().turned_away("down"), 1);
    table.remove_host("host-2");
    assert_eq!(ask(scheduler, &table, &request, 0).unwrap_err().considered, 0);
}

/// A requested host is the only one looked at, and is checked.
pub fn a_requested_host_is_checked(scheduler: &dyn Scheduler) {
    let mut table = cloud(scheduler, 4, 2);
    let mut request = small();
    request.requested_host = Some("host-2".to_owned());
    for seed in SEEDS {
        assert_eq!(hosts_of(&ask(scheduler, &table, &request, seed)), ["host-2"]);
    }
    assert_eq!(ask(scheduler, &table, &request.clone().in_zone("zone-1"), 0).unwrap_err().turned_away("zone"), 1);
    table.set_enabled("host-2", false, None).unwrap();
    assert_eq!(ask(scheduler, &table, &request, 0).unwrap_err().turned_away("disabled"), 1);
}

/// Every host is counted under one reason, and the nearest miss is told.
pub fn reasons_add_up(scheduler: &dyn Scheduler) {
    let mut table = cloud(scheduler, 10, 2);
    table.set_up("host-0", false).unwrap();
    table.set_enabled("host-0", false, None).unwrap();
    table.set_enabled("host-2", false, None).unwrap();
    table.allocate("host-4", 1, &[15, SIZE[1], 0].into()).unwrap();
    table.allocate("host-6", 2, &[0, SIZE[1] - 1_000, 0].into()).unwrap();
    let mut request = small().in_zone("zone-0");
    request.ignore_hosts = vec!["host-8".to_owned()];
    let refused = ask(scheduler, &table, &request, 0).unwrap_err();
    let counts: BTreeMap<_, _> = refused.reasons.iter().map(|(name, hosts)| (name.as_str(), *hosts)).collect();
    let expected = [("zone", 5), ("ignored", 1), ("down", 1), ("disabled", 1), ("vcpus", 1), ("memory_mb", 1)];
    assert_eq!(counts, BTreeMap::from(expected), "{refused}");
    assert_eq!(refused.considered, counts.values().sum::<usize>());
    let nearest = refused.nearest.unwrap();
    assert_eq!((nearest.hosts, nearest.closest_host.as_str()), (2, "host-6"));
    assert_eq!(nearest.missing, [("memory_mb".to_owned(), 1_048)]);
}

/// Asked for nothing, it answers with nothing; without hosts it says so.
pub fn empty_cases(scheduler: &dyn Scheduler) {
    let table = cloud(scheduler, 2, 1);
    assert_eq!(ask(scheduler, &table, &small().instances(0), 0), Ok(Vec::new()));
    let empty = cloud(scheduler, 0, 1);
    let refused = ask(scheduler, &empty, &small(), 0).unwrap_err();
    assert_eq!((refused.considered, refused.reasons.len()), (0, 0));
    // A resource that the table doesn't count is nowhere to be had.
    let strange = Request::new([0, 0, 0, 1].into());
    assert!(ask(scheduler, &table, &strange, 0).is_err());
}

/// Makes a test of every check, for the scheduler that the expression gives.
#[macro_export]
macro_rules! scheduler_conformance {
    ($make:expr) => {
        $crate::scheduler_conformance!($make =>
            unfit_hosts_are_never_chosen, traits_are_respected, all_or_nothing, many_at_once_do_not_overbook,
            the_zone_is_respected, alternates_are_distinct, the_seed_decides, a_forced_host_must_live_and_have_room,
            a_requested_host_is_checked, reasons_add_up, empty_cases);
    };
    ($make:expr => $($check:ident),+) => { $(
        #[test]
        fn $check() {
            let scheduler: Box<dyn $crate::Scheduler> = $make;
            $crate::conformance::$check(&*scheduler);
        }
    )+ };
}
