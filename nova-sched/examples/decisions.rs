//! A fixed number of decisions on a fixed fleet, for a tool that counts instructions (`dev/instructions`).
//!
//! `decisions ALGORITHM HOSTS ROUNDS`. The fleet is that of the benchmarks: 70 % full, mixed sizes, zones and traits. Nothing
//! here or in the crate depends on time, addresses or a random seed, so the same arguments run the same instructions. What is
//! to be counted is all in [`counted`], which is a function of its own in the program for that reason.

#[allow(dead_code, reason = "the benchmarks use more of it")]
#[path = "../../benches/fleet.rs"]
mod fleet;

use std::error::Error;

use fleet::{Fleet, Mix};
use nova_sched::{RandomScheduler, Scheduler, by_name};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [algorithm, hosts, rounds] = &arguments[..] else {
        return Err("usage: decisions ALGORITHM HOSTS ROUNDS".into());
    };
    let (hosts, rounds) = (hosts.parse()?, rounds.parse::<usize>()?);
    let mix = if algorithm == "filter" { Mix::Flavors } else { Mix::Classes };
    let scheduler = by_name(algorithm, &mix.options())?;
    // Filled by chance, which is quick whatever is counted after.
    let mut fleet = Fleet::filled_by(&RandomScheduler::new(), hosts, &*scheduler, mix, 0)?;
    // What is learned once is not counted.
    (0..rounds.div_ceil(10)).try_for_each(|_| fleet.step(&*scheduler))?;
    counted(&mut fleet, &*scheduler, rounds)
}

/// The decisions, each booked and followed by the end of an older instance.
#[inline(never)]
fn counted(fleet: &mut Fleet, scheduler: &dyn Scheduler, rounds: usize) -> Result<(), Box<dyn Error>> {
    (0..rounds).try_for_each(|_| fleet.step(scheduler))
}
