//! One decision of each algorithm, booked, with an older instance's end: `scheduler/<algorithm>/<hosts>`.
//!
//! The fleet is about 70 % full and stays so; requests are of mixed sizes, half of them for a zone. Each names one
//! host. `scheduler_classes` is the same with 64 classes of requests (flavor, zone, trait), `scheduler_alternates` with
//! Nova's two alternates per instance. `scheduler_constraints` are requests of 100 anti-affinity groups at 5,000 hosts
//! through the filter scheduler.
//!
//! Beside criterion's mean, the time that 99 decisions of a hundred don't exceed (p99) comes from an HDR histogram and is printed after
//! each. `NOVA_BENCH_MILLION=1` adds fleets of a million hosts, which take minutes to build.

use std::error::Error;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use hdrhistogram::Histogram;
use nova_benches::fleet::{Fleet, Mix};
use nova_sched::{SCHEDULERS, Scheduler, by_name};

const HOSTS: [usize; 4] = [100, 1_000, 10_000, 100_000];
const MILLION: usize = 1_000_000;

/// Looks at every host, so that larger fleets say nothing new.
const FILTER_HOSTS: usize = 10_000;

fn decisions(
    group: &mut BenchmarkGroup<'_, WallTime>,
    names: &[&str],
    hosts: &[usize],
    mix: Mix,
    alternates: u32,
) -> Result<(), Box<dyn Error>> {
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for name in names {
        let scheduler = by_name(name, &mix.options())?;
        for hosts in hosts.iter().filter(|hosts| *name != "filter" || **hosts <= FILTER_HOSTS) {
            one(group, &*scheduler, *hosts, mix, alternates)?;
        }
    }
    Ok(())
}

fn one(
    group: &mut BenchmarkGroup<'_, WallTime>,
    scheduler: &dyn Scheduler,
    hosts: usize,
    mix: Mix,
    alternates: u32,
) -> Result<(), Box<dyn Error>> {
    // Built when first needed, so that benchmarks which are filtered out cost nothing.
    let mut fleet = None;
    let mut failure = None;
    // With a bound: one that grows as needed would not do so for values that are recorded saturating.
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    group.bench_function(BenchmarkId::new(scheduler.name(), hosts), |bencher| {
        let fleet = fleet.get_or_insert_with(|| Fleet::new(hosts, scheduler, mix, alternates));
        bencher.iter_custom(|rounds| {
            let began = Instant::now();
            for _ in 0..rounds {
                let before = Instant::now();
                if let Ok(fleet) = fleet
                    && let Err(error) = fleet.step(scheduler)
                {
                    failure = Some(error);
                }
                times.saturating_record(before.elapsed().as_nanos() as u64);
            }
            began.elapsed()
        });
    });
    fleet.transpose()?;
    if let Some(error) = failure {
        return Err(error);
    }
    if !times.is_empty() {
        let at = |part| times.value_at_quantile(part);
        println!("    p50 {} ns, p99 {} ns, p99.9 {} ns of {}", at(0.5), at(0.99), at(0.999), times.len());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut hosts = HOSTS.to_vec();
    if std::env::var_os("NOVA_BENCH_MILLION").is_some() {
        hosts.push(MILLION);
    }
    let mut group = criterion.benchmark_group("scheduler");
    decisions(&mut group, &SCHEDULERS, &hosts, Mix::Flavors, 0)?;
    group.finish();
    let mut group = criterion.benchmark_group("scheduler_classes");
    decisions(&mut group, &["least_load", "filter"], &hosts, Mix::Classes, 0)?;
    group.finish();
    let mut group = criterion.benchmark_group("scheduler_alternates");
    decisions(&mut group, &SCHEDULERS, &[10_000], Mix::Flavors, 2)?;
    group.finish();
    let mut group = criterion.benchmark_group("scheduler_constraints");
    decisions(&mut group, &["filter"], &[5_000], Mix::Groups, 0)?;
    group.finish();
    criterion.final_summary();
    Ok(())
}
