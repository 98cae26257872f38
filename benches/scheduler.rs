//! One decision of each algorithm, booked, with an older instance's end: `scheduler/<algorithm>/<hosts>`.
//!
//! The fleet is about 70 % full and stays so; requests are of mixed sizes, half of them for a zone. Each names one
//! host. `scheduler_alternates` is the same with Nova's two alternates per instance.

use std::error::Error;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use nova_benches::fleet::{Fleet, Mix};
use nova_sched::{SCHEDULERS, SchedulerOptions, by_name};

const HOSTS: [usize; 3] = [100, 1_000, 10_000];

fn decisions(group: &mut BenchmarkGroup<'_, WallTime>, hosts: &[usize], alternates: u32) -> Result<(), Box<dyn Error>> {
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for name in SCHEDULERS {
        let scheduler = by_name(name, &SchedulerOptions::default())?;
        for hosts in hosts {
            // Built when first needed, so that benchmarks which are filtered out cost nothing.
            let mut fleet = None;
            let mut failure = None;
            group.bench_function(BenchmarkId::new(name, hosts), |bencher| {
                let fleet = fleet.get_or_insert_with(|| Fleet::new(*hosts, &*scheduler, Mix::Flavors, alternates));
                bencher.iter(|| {
                    if let Ok(fleet) = fleet
                        && let Err(error) = fleet.step(&*scheduler)
                    {
                        failure = Some(error);
                    }
                });
            });
            fleet.transpose()?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("scheduler");
    decisions(&mut group, &HOSTS, 0)?;
    group.finish();
    let mut group = criterion.benchmark_group("scheduler_alternates");
    decisions(&mut group, &[10_000], 2)?;
    group.finish();
    criterion.final_summary();
    Ok(())
}
