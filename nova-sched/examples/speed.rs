//! How long decisions take on this machine: every algorithm, hosts from a thousand to a million.
//!
//! `cargo run --release -p nova-sched --example speed [hosts]`. The fleet is that of the benchmarks: 70 % full, mixed
//! sizes, zones and traits; each decision is booked and followed by the end of an older instance.

#[path = "../../benches/fleet.rs"]
mod fleet;

use std::error::Error;
use std::time::Instant;

use fleet::{Fleet, Mix};
use nova_sched::{SCHEDULERS, SchedulerOptions, by_name};

fn main() -> Result<(), Box<dyn Error>> {
    let asked = std::env::args().nth(1).map(|hosts| hosts.parse::<usize>()).transpose()?;
    let sizes = asked.map_or_else(|| vec![1_000, 10_000, 100_000, 1_000_000], |hosts| vec![hosts]);
    println!(
        "{:>9} {:<18} {:<10} {:>9} {:>9} {:>9} {:>10}",
        "hosts", "algorithm", "requests", "mean ns", "p50 ns", "p99 ns", "per s"
    );
    for hosts in sizes {
        for name in SCHEDULERS {
            for mix in [Mix::Flavors, Mix::Classes] {
                measure(hosts, name, mix)?;
            }
        }
    }
    Ok(())
}

fn measure(hosts: usize, name: &str, mix: Mix) -> Result<(), Box<dyn Error>> {
    let scheduler = by_name(name, &SchedulerOptions::default())?;
    let mut fleet = Fleet::new(hosts, &*scheduler, mix, 0)?;
    let rounds = fleet.instances().min(50_000);
    (0..rounds / 10).try_for_each(|_| fleet.step(&*scheduler))?;
    let mut times = Vec::with_capacity(rounds);
    let began = Instant::now();
    for _ in 0..rounds {
        let before = Instant::now();
        fleet.step(&*scheduler)?;
        times.push(before.elapsed().as_nanos());
    }
    let mean = began.elapsed().as_nanos() / rounds as u128;
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{hosts:>9} {name:<18} {mix:<10} {mean:>9} {:>9} {:>9} {:>10}",
        at(50),
        at(99),
        1_000_000_000 / mean.max(1)
    );
    Ok(())
}
