//! The scheduler on its own: resources, hosts and requests of the caller's making, no virtual machines in sight.
//!
//! A render farm counts `gpus` and `licences`. Jobs of one film start together or not at all; urgent ones come first.

use nova_sched::{
    BatchItem, Dimensions, HostInventory, HostTable, LeastLoadScheduler, Request, Scheduler, SchedulerRng,
    moves_to_free, place_batch,
};

/// The farm's own idea of a machine.
struct Machine {
    name: &'static str,
    hall: &'static str,
    gpus: u64,
    licences: u64,
}

impl From<Machine> for HostInventory {
    fn from(machine: Machine) -> Self {
        Self::new(machine.name, machine.hall, [machine.gpus, machine.licences].into())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = HostTable::new(Dimensions::new(["gpus", "licences"])?);
    for (name, hall) in [("r1", "north"), ("r2", "north"), ("r3", "south")] {
        table.upsert_host(Machine { name, hall, gpus: 4, licences: 2 })?;
    }
    let scheduler = LeastLoadScheduler::new(nova_sched::LeastLoadOptions::from_source(std::sync::Arc::new(
        nova_sched::UsedLoad::of("gpus"),
    )));
    scheduler.register(&mut table)?;
    let mut rng = SchedulerRng::from_seed(7);

    let job = |number, gpus| BatchItem::new(Request::new([gpus, 1].into()), number);
    let jobs =
        [job(1, 2).in_gang(1), job(2, 2).in_gang(1), job(3, 4).priority(9), job(4, 4).in_gang(2), job(5, 4).in_gang(2)];
    for (number, answer) in place_batch(&scheduler, &mut table, &jobs, &mut rng)?.into_iter().enumerate() {
        match answer {
            Ok(chosen) => println!("job {}: {}", number + 1, chosen[0].host),
            Err(why) => println!("job {}: waits, {why:?}", number + 1),
        }
    }
    for told in scheduler.explain(&table, &Request::new([3, 1].into())) {
        println!("{told}");
    }
    match moves_to_free(&scheduler, &mut table, "r1", &|_| None, &mut rng) {
        Ok(moves) => moves.iter().for_each(|one| println!("to free r1, move job {} to {}", one.consumer, one.to)),
        Err(no) => println!("r1 can't be freed: {no}"),
    }
    Ok(())
}
