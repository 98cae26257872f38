//! How long decisions take on this machine: every algorithm, hosts from a thousand to a million.
//!
//! `cargo run --release -p nova-sched --example speed [hosts [algorithm]]`. The fleet is that of the benchmarks: 70 % full, mixed
//! sizes, zones and traits; each decision is booked and followed by the end of an older instance. Times of single decisions are by the clock; `cpu ns`
//! is what the process really had of the processor, per decision, which holds on a machine with other work to do.

#[path = "../../benches/fleet.rs"]
mod fleet;

use std::error::Error;
use std::time::Instant;

use fleet::{Fleet, Mix};
use nova_sched::{SCHEDULERS, by_name};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let hosts = arguments.next().map(|hosts| hosts.parse::<usize>()).transpose()?;
    let algorithm = arguments.next();
    let sizes = hosts.map_or_else(|| vec![1_000, 10_000, 100_000, 1_000_000], |hosts| vec![hosts]);
    println!(
        "{:>9} {:<18} {:<8} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "hosts", "algorithm", "requests", "cpu ns", "p50 ns", "p99 ns", "p99.9 ns", "per cpu s"
    );
    for hosts in sizes {
        for name in SCHEDULERS.into_iter().filter(|name| algorithm.as_ref().is_none_or(|wanted| wanted == name)) {
            // The filter scheduler looks at every host; the others don't look at groups.
            let mixes = match name {
                "filter" if hosts > 100_000 => &[][..],
                "filter" => &[Mix::Flavors, Mix::Classes, Mix::Groups],
                _ => &[Mix::Flavors, Mix::Classes],
            };
            mixes.iter().try_for_each(|mix| measure(hosts, name, *mix))?;
        }
    }
    Ok(())
}

fn measure(hosts: usize, name: &str, mix: Mix) -> Result<(), Box<dyn Error>> {
    let scheduler = by_name(name, &mix.options())?;
    let mut fleet = Fleet::new(hosts, &*scheduler, mix, 0)?;
    let rounds = fleet.instances().min(if name == "filter" { 10_000 } else { 200_000 });
    (0..rounds / 10).try_for_each(|_| fleet.step(&*scheduler))?;
    let mut times = Vec::with_capacity(rounds);
    let began = cpu_ns();
    for _ in 0..rounds {
        let before = Instant::now();
        fleet.step(&*scheduler)?;
        times.push(before.elapsed().as_nanos());
    }
    let mean = (cpu_ns() - began) / rounds as u64;
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000];
    println!(
        "{hosts:>9} {name:<18} {mix:<8} {mean:>9} {:>9} {:>9} {:>9} {:>10}",
        at(500),
        at(990),
        at(999),
        1_000_000_000 / mean.max(1)
    );
    Ok(())
}

/// Time on the processor so far; 0 where the system doesn't tell.
fn cpu_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    told.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
