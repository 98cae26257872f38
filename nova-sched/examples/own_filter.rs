//! A filter of one's own.

use nova_sched::{
    Dimensions, Filter, FilterScheduler, HostInventory, HostTable, HostView, Request, Scheduler, SchedulerRng,
};

/// Keeps instances off hosts whose name says that they are for tests.
struct NoTestHosts;

impl Filter for NoTestHosts {
    fn name(&self) -> &str {
        "NoTestHosts"
    }

    fn host_passes(&self, host: &HostView<'_>, _request: &Request) -> bool {
        !host.name().starts_with("test-")
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = HostTable::new(Dimensions::new(["slots"])?);
    table.upsert_host(HostInventory::new("test-1", "here", [4].into()))?;
    table.upsert_host(HostInventory::new("real-1", "here", [4].into()))?;
    let scheduler = FilterScheduler::empty().with_filter(NoTestHosts);
    let mut rng = SchedulerRng::from_seed(1);
    let chosen = scheduler.select_destinations(&table, &Request::new([1].into()), &mut rng)?;
    println!("placed on {}", chosen[0].host);
    match scheduler.select_destinations(&table, &Request::new([1].into()).instances(5), &mut rng) {
        Ok(_) => println!("placed five"),
        Err(no) => println!("{no}"),
    }
    Ok(())
}
