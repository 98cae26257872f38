use super::*;
use crate::{HostView, fixtures};

crate::scheduler_conformance!(Box::new(LeastLoadScheduler::default()));

mod by_name_on_ties {
    crate::scheduler_conformance!(Box::new(super::by_name()));
}

fn by_name() -> LeastLoadScheduler {
    LeastLoadScheduler::new(LeastLoadOptions { tie_break: TieBreak::Name, ..LeastLoadOptions::default() })
}

fn chosen(scheduler: &LeastLoadScheduler, table: &HostTable, request: &Request) -> Vec<String> {
    let mut rng = SchedulerRng::from_seed(9);
    let answer = scheduler.select_destinations(table, request, &mut rng).unwrap();
    answer.iter().map(|selection| selection.host.to_string()).collect()
}

#[test]
fn the_least_loaded_comes_first_and_then_the_next() {
    let mut table = fixtures::table(4, 1);
    let scheduler = LeastLoadScheduler::default();
    scheduler.register(&mut table).unwrap();
    for (number, cores) in [5, 2, 9, 3].into_iter().enumerate() {
        table.allocate(&format!("host-{number}"), number as u128, &[cores, 0, 0].into()).unwrap();
    }
    let mut rng = SchedulerRng::from_seed(0);
    let request = Request::new([1, 1, 1].into()).alternates(3);
    let answer = scheduler.select_destinations(&table, &request, &mut rng).unwrap();
    assert_eq!(&*answer[0].host, "host-1");
    let alternates: Vec<&str> = answer[0].alternates.iter().map(|other| &*other.host).collect();
    assert_eq!(alternates, ["host-3", "host-0", "host-2"]);
}

#[test]
fn instances_of_one_request_spread() {
    let mut table = fixtures::table(3, 1);
    let scheduler = by_name();
    scheduler.register(&mut table).unwrap();
    table.allocate("host-0", 1, &[2, 0, 0].into()).unwrap();
    let hosts = chosen(&scheduler, &table, &Request::new([2, 1, 1].into()).instances(5));
    assert_eq!(hosts, ["host-1", "host-2", "host-0", "host-1", "host-2"]);
}

#[test]
fn ties_are_broken_by_chance_or_by_name() {
    let mut table = fixtures::table(150, 1);
    let scheduler = LeastLoadScheduler::default();
    scheduler.register(&mut table).unwrap();
    let mut rng = SchedulerRng::from_seed(2);
    let request = Request::new([1, 1, 1].into());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        seen.insert(scheduler.select_destinations(&table, &request, &mut rng).unwrap()[0].host.clone());
    }
    assert!(seen.len() > 140, "only {} of 150 equal hosts were ever chosen", seen.len());
    assert_eq!(chosen(&by_name(), &table, &request), ["host-0"]);
    table.allocate("host-0", 1, &[1, 0, 0].into()).unwrap();
    assert_eq!(chosen(&by_name(), &table, &request), ["host-1"]);
}

#[test]
fn max_cores_refuses() {
    let mut table = fixtures::table(2, 1);
    let scheduler = LeastLoadScheduler::new(LeastLoadOptions { max_cores: Some(8), ..LeastLoadOptions::default() });
    scheduler.register(&mut table).unwrap();
    table.allocate("host-0", 1, &[6, 0, 0].into()).unwrap();
    let request = Request::new([4, 1, 1].into());
    assert_eq!(chosen(&scheduler, &table, &request.clone().instances(2)), ["host-1", "host-1"]);
    let mut rng = SchedulerRng::from_seed(0);
    let refused = scheduler.select_destinations(&table, &request.clone().instances(3), &mut rng).unwrap_err();
    assert_eq!(refused.reasons, [("max_cores".to_owned(), 2)]);
    assert_eq!(refused.nearest.unwrap().would_fit[0], ("vcpus".to_owned(), 2));
    // An operator who names the host is above the bound.
    let mut forced = request;
    forced.force_host = Some("host-0".to_owned());
    assert_eq!(chosen(&scheduler, &table, &forced), ["host-0"]);
}

#[test]
fn load_may_be_reported_from_outside() {
    let mut table = fixtures::table(3, 1);
    let scheduler = LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(ReportedLoad)));
    scheduler.register(&mut table).unwrap();
    for (number, load) in [700, 100, 300].into_iter().enumerate() {
        table.set_reported_load(&format!("host-{number}"), load).unwrap();
    }
    assert_eq!(chosen(&scheduler, &table, &Request::new([1, 1, 1].into())), ["host-1"]);
    table.set_reported_load("host-1", 301).unwrap();
    assert_eq!(chosen(&scheduler, &table, &Request::new([1, 1, 1].into())), ["host-2"]);
}

/// Fullest first: placing an instance makes the host better, which no summary foresees.
struct Pack;

impl LoadSource for Pack {
    fn name(&self) -> &str {
        "pack"
    }

    fn load(&self, host: HostView<'_>) -> u64 {
        host.free(0)
    }
}

#[test]
fn a_load_may_fall_as_a_host_fills() {
    let mut table = fixtures::table(3, 1);
    let scheduler = LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(Pack)));
    scheduler.register(&mut table).unwrap();
    table.allocate("host-1", 1, &[1, 0, 0].into()).unwrap();
    let hosts = chosen(&scheduler, &table, &Request::new([5, 1, 1].into()).instances(4));
    assert_eq!(hosts[..3], ["host-1", "host-1", "host-1"]);
    assert_ne!(hosts[3], "host-1");
}

#[test]
fn a_table_without_the_dimension_is_refused() {
    let mut table = HostTable::new(crate::Dimensions::new(["gigabytes"]).unwrap());
    assert!(LeastLoadScheduler::default().register(&mut table).is_err());
    let volumes = LeastLoadScheduler::new(LeastLoadOptions::from_source(Arc::new(UsedLoad::of("gigabytes"))));
    volumes.register(&mut table).unwrap();
}

#[test]
fn the_nearest_of_equals_comes_first() {
    let mut table = fixtures::table(6, 3);
    let distances = ZoneDistances::parse(["zone-0:zone-1=2", "zone-0:zone-2=1"]).unwrap();
    let zone_distances = Some(Arc::new(distances));
    let scheduler = LeastLoadScheduler::new(LeastLoadOptions { zone_distances, ..LeastLoadOptions::default() });
    scheduler.register(&mut table).unwrap();
    let mut request = Request::new([1, 1, 1].into()).instances(6);
    request.near_zones = vec!["zone-0".to_owned()];
    let zones: Vec<char> = (chosen(&scheduler, &table, &request).iter())
        .map(|host| char::from(b'0' + (host.as_bytes()[5] - b'0') % 3))
        .collect();
    assert_eq!(zones, ['0', '0', '2', '2', '1', '1']);
    // Load comes before distance.
    table.allocate("host-0", 1, &[1, 0, 0].into()).unwrap();
    table.allocate("host-3", 2, &[1, 0, 0].into()).unwrap();
    assert!(["host-2", "host-5"].contains(&chosen(&scheduler, &table, &request.instances(1))[0].as_str()));
}

#[test]
fn load_may_be_what_a_host_reports_of_itself() {
    let mut table = fixtures::table(3, 1);
    let [io, cpu] = ["io", "cpu"].map(|name| {
        let scheduler = LeastLoadScheduler::new(LeastLoadOptions::from_source_name(Some(name)).unwrap());
        scheduler.register(&mut table).unwrap();
        scheduler
    });
    for (number, (io_ops, percent)) in [(2, 30.5), (1, 80.0), (3, 30.25)].into_iter().enumerate() {
        let metrics = [(crate::CpuLoad::METRIC.to_owned(), percent)].into();
        table.set_stats(&format!("host-{number}"), crate::HostStats { io_ops, failed_builds: 0, metrics }).unwrap();
    }
    let request = Request::new([1, 1, 1].into());
    assert_eq!(
        (chosen(&io, &table, &request), chosen(&cpu, &table, &request)),
        (vec!["host-1".to_owned()], vec!["host-2".to_owned()])
    );
    // A host that tells nothing of its CPU counts as busy.
    table.set_stats("host-2", crate::HostStats::default()).unwrap();
    assert_eq!(
        (chosen(&io, &table, &request), chosen(&cpu, &table, &request)),
        (vec!["host-2".to_owned()], vec!["host-0".to_owned()])
    );
}
