//! Replays whose every figure is worked out by hand.

use nova_sched::{Request, Selection};

use super::*;
use crate::capacity::{fleet, generator, records, schedulers, trace};

fn fleet(groups: &str) -> Fleet {
    fleet::parse("fleet", &format!("[DEFAULT]\ncpu_allocation_ratio = 1\nreserved_host_memory_mb = 0\n{groups}"))
        .unwrap()
}

fn trace(rows: &str) -> Trace {
    let text = format!("arrival_s,lifetime_s,vcpus,memory_mb,count\n{rows}");
    trace::read("trace", records::read("trace", std::io::Cursor::new(text)).unwrap()).unwrap()
}

fn options(when_full: WhenFull, samples: u64) -> ReplayOptions {
    ReplayOptions { seed: 1, when_full, samples, probe: [2, 10, 0] }
}

fn run(scheduler: &str, fleet: &Fleet, trace: &Trace, options: &ReplayOptions) -> Outcome {
    let named = schedulers::parse(&[scheduler.to_owned()]).unwrap().remove(0);
    replay(&named, fleet, trace, options, &mut |_| {}).unwrap()
}

/// Least load, ties by name, on two hosts of 4 cores and 100 MiB:
/// A to a-1, B to a-2, C (3 cores) is refused at 2 s, D to a-1, A leaves at 10 s, E's two to a-1 and a-2, F to a-1.
const ROWS: &str = "0,10,2,10,1\n0,,2,10,1\n2,,3,10,1\n4,100,2,10,1\n10,,1,10,2\n20,,1,10,1\n";

#[test]
fn every_figure_of_a_small_replay_is_right() {
    let fleet = fleet("[group a]\nhosts = 2\nvcpus = 4\nmemory_mb = 100\ndisk_gb = 10\n");
    let trace = trace(ROWS);
    let mut calls = Vec::new();
    let named = schedulers::parse(&["least_load,tie_break=name".to_owned()]).unwrap().remove(0);
    let options = options(WhenFull::TurnAway, 3);
    let outcome = replay(&named, &fleet, &trace, &options, &mut |done| calls.push(done)).unwrap();
    assert_eq!(calls, [1, 2, 3, 4, 5, 6]);
    assert_eq!((outcome.placed_requests, outcome.placed_instances, outcome.peak_live, outcome.decisions), (5, 6, 5, 6));

    let refused = &outcome.rejections;
    assert_eq!((refused.requests, refused.instances, refused.rate), (1, 1, 1.0 / 6.0));
    assert_eq!(refused.by_reason, [("vcpus".to_owned(), 1)].into());
    assert_eq!(refused.by_flavor, [("3-10-0".to_owned(), 1)].into());
    let first = refused.first.as_ref().unwrap();
    assert_eq!((first.at_s, first.flavor.as_str(), first.used), (2.0, "3-10-0", [0.5, 0.1, 0.0]));
    assert!(first.explanation.contains("no valid host"), "{}", first.explanation);

    // Cores: 4 until 4 s, then 6, and 7 from 20 s on; of 8.
    let cores = &outcome.utilisation[0];
    assert_eq!((cores.resource, cores.mean, cores.peak, cores.end), ("vcpus", 0.7, 0.875, 0.875));
    // The bound: 1 host until 4 s, then 2.
    let hosts = &outcome.hosts;
    assert_eq!((hosts.all, hosts.mean, hosts.bound_mean), (2, 2.0, 1.8));
    assert_eq!((hosts.peak, hosts.bound_peak, hosts.end, hosts.bound_end), (2, 2, 2, 2));

    let times: Vec<f64> = outcome.series.iter().map(|sample| sample.time_s).collect();
    assert_eq!(times, [0.0, 10.0, 20.0]);
    assert_eq!(outcome.series.iter().map(|sample| sample.live).collect::<Vec<_>>(), [2, 4, 5]);
    // At the end a-1 is full and a-2 has one core left: nothing of what is free is of use to 2 cores with 10 MiB.
    let end = outcome.series.last().unwrap();
    assert_eq!((end.unusable, end.stranded, end.room), ([1.0, 1.0, 0.0], [1, 150, 0], 0));
    // At 10 s each host has one core left; at first each has two, so one fits and leaves memory.
    assert_eq!(outcome.series[0].room, 2);
    assert_eq!(outcome.series[0].unusable, [0.0, 160.0 / 180.0, 0.0]);
    assert_eq!(outcome.fragmentation[0].end, 1.0);
    assert_eq!(outcome.fragmentation[1].stranded_at_end, 150);
    assert_eq!(outcome.wait, None);
}

#[test]
fn requests_wait_until_they_fit_or_give_up() {
    let fleet = fleet("[group a]\nvcpus = 4\nmemory_mb = 100\ndisk_gb = 10\n");
    let trace = trace("0,10,4,10,1\n1,5,4,10,1\n2,5,1,10,1\n3,5,1,10,1\n");
    let outcome = run("random", &fleet, &trace, &options(WhenFull::Wait { most_ms: None }, 2));
    let wait = outcome.wait.unwrap();
    // The second comes in when the first leaves at 10 s, the others when the second leaves at 15 s.
    assert_eq!((wait.waited, wait.placed, wait.gave_up, wait.still_waiting), (3, 3, 0, 0));
    assert_eq!((wait.p50_s, wait.max_s), (12.0, 13.0));
    assert!((wait.mean_s - 34.0 / 3.0).abs() < 1e-9);
    assert_eq!(outcome.rejections.requests, 0);
    assert_eq!(outcome.rejections.first.unwrap().at_s, 1.0);
    assert_eq!(outcome.series[1].waiting, 3);

    let outcome = run("random", &fleet, &trace, &options(WhenFull::Wait { most_ms: Some(10_000) }, 2));
    let wait = outcome.wait.unwrap();
    assert_eq!((wait.waited, wait.placed, wait.gave_up, wait.still_waiting), (3, 1, 2, 0));
    assert_eq!(outcome.rejections.by_reason, [("vcpus".to_owned(), 2)].into());
    assert_eq!(outcome.placed_requests, 2);

    let never = self::trace("0,,4,10,1\n1,,4,10,1\n");
    let outcome = run("random", &fleet, &never, &options(WhenFull::Wait { most_ms: None }, 2));
    assert_eq!(outcome.wait.unwrap().still_waiting, 1);
}

#[test]
fn what_is_in_use_from_the_start_stays() {
    let mut fleet = fleet("[group a]\nhosts = 2\nvcpus = 4\nmemory_mb = 100\ndisk_gb = 10\n");
    fleet.hosts[0].in_use = [3, 50, 0].into();
    let outcome = run("random", &fleet, &trace("0,,2,10,1\n0,,2,10,1\n0,,2,10,1\n"), &options(WhenFull::TurnAway, 2));
    assert_eq!((outcome.placed_requests, outcome.rejections.requests), (2, 1));
    assert_eq!(outcome.utilisation[0].end, 7.0 / 8.0);
    assert_eq!(outcome.utilisation[0].mean, 7.0 / 8.0);
    assert_eq!(outcome.hosts.end, 2);
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let fleet = fleet("[group a]\nhosts = 8\nvcpus = 32\nmemory_mb = 65536\ndisk_gb = 1000\n");
    let trace = generator::generate(&generator::GeneratorOptions {
        seed: 5,
        requests: 3_000,
        days: 2,
        disk_gb_per_vcpu: 10,
        zone_percent: 0,
        zones: Vec::new(),
    })
    .unwrap();
    let with = |seed| run("random", &fleet, &trace, &ReplayOptions { seed, ..options(WhenFull::TurnAway, 20) });
    let (first, again, other) = (with(1), with(1), with(2));
    assert_eq!(first, again);
    assert_ne!(first.series, other.series);
    assert!(first.rejections.requests > 0 && first.placed_requests > 1_000, "{:?}", first.rejections);
    for sample in &first.series {
        assert!(sample.used.iter().all(|used| *used <= 1.0) && sample.hosts_bound <= sample.hosts_used);
    }
    assert_eq!(first.placed_requests + first.rejections.requests, 3_000);
}

#[test]
fn a_scheduler_that_overfills_a_host_ends_the_replay() {
    struct First;
    impl Scheduler for First {
        fn name(&self) -> &'static str {
            "first"
        }
        fn select_destinations(
            &self,
            table: &HostTable,
            _: &Request,
            _: &mut SchedulerRng,
        ) -> Result<Vec<Selection>, NoValidHost> {
            let (host, node, zone): (Arc<str>, Arc<str>, Arc<str>) = ("a-1".into(), "a-1".into(), "nova".into());
            assert!(table.host(&host).is_some());
            Ok(vec![Selection { host, node, zone, alternates: Vec::new() }])
        }
    }
    let fleet = fleet("[group a]\nvcpus = 4\nmemory_mb = 100\ndisk_gb = 10\n");
    let named = Named { label: "first".to_owned(), scheduler: Box::new(First) };
    let trace = trace("0,,4,10,1\n1,,4,10,1\n");
    let error = replay(&named, &fleet, &trace, &options(WhenFull::TurnAway, 2), &mut |_| {}).unwrap_err();
    assert!(matches!(error, SchedulerError::InsufficientCapacity { .. }), "{error}");
}
