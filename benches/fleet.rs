//! A fleet of hosts in steady state: about 70 % full, each new instance followed by an old one's end.

use std::collections::VecDeque;
use std::error::Error;

use nova_sched::{
    Dimensions, HostInventory, HostTable, NoValidHost, Ratios, Request, ResourceVector, Scheduler, SchedulerError,
    SchedulerRng, Selection,
};

/// How many zones the hosts are dealt to.
const ZONES: usize = 3;

/// Of 100 vcpus that may be handed out, how many are.
const FILL_PERCENT: u64 = 70;

/// Cores, memory (MiB) and disk (GB) of the flavors asked for, small ones more often.
const FLAVORS: [[u64; 3]; 8] = [
    [1, 1_024, 10],
    [1, 2_048, 10],
    [1, 2_048, 20],
    [2, 4_096, 20],
    [2, 8_192, 40],
    [4, 8_192, 40],
    [4, 16_384, 80],
    [8, 16_384, 80],
];

/// Cores, memory (MiB) and disk (GB) of the hosts: two generations of machines.
const HOSTS: [[u64; 3]; 2] = [[32, 131_072, 4_000], [64, 262_144, 4_000]];

/// A table, the instances on it by age, and the stream of requests.
pub struct Fleet {
    table: HostTable,
    requests: Vec<Request>,
    live: VecDeque<u128>,
    next_request: usize,
    next_consumer: u128,
    rng: SchedulerRng,
}

impl Fleet {
    /// Builds a fleet of that many hosts, with the indexes that the scheduler wants, and fills it.
    ///
    /// # Errors
    ///
    /// When the scheduler finds no host before the fleet is as full as it should be.
    pub fn new(hosts: usize, scheduler: &dyn Scheduler, alternates: u32) -> Result<Self, Box<dyn Error>> {
        let mut rng = SchedulerRng::from_seed(0x5EED);
        let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb", "disk_gb"])?);
        scheduler.register(&mut table)?;
        let mut cores = 0;
        for number in 0..hosts {
            let host = host(number);
            cores += host.capacity(0);
            table.upsert_host(host)?;
        }
        let requests = (0..1_024).map(|_| request(&mut rng, alternates)).collect();
        let mut fleet = Self { table, requests, live: VecDeque::new(), next_request: 0, next_consumer: 1, rng };
        let mut used = 0;
        while used * 100 < cores * FILL_PERCENT {
            used += fleet.place_next(scheduler)?;
        }
        Ok(fleet)
    }

    /// How many instances live on the fleet.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.live.len()
    }

    /// One decision, booked; then the oldest instance ends.
    ///
    /// # Errors
    ///
    /// When no host fits, or the one chosen doesn't.
    pub fn step(&mut self, scheduler: &dyn Scheduler) -> Result<(), Box<dyn Error>> {
        self.place_next(scheduler)?;
        if let Some(oldest) = self.live.pop_front() {
            self.table.release(oldest);
        }
        Ok(())
    }

    /// Places the next request of the stream; returns its cores.
    fn place_next(&mut self, scheduler: &dyn Scheduler) -> Result<u64, Box<dyn Error>> {
        let request = &self.requests[self.next_request];
        self.next_request = (self.next_request + 1) % self.requests.len();
        let chosen: Result<Vec<Selection>, NoValidHost> =
            scheduler.select_destinations(&self.table, request, &mut self.rng);
        let chosen = chosen?;
        let resources = request.resources;
        for selection in &chosen {
            self.book(&selection.host, &resources)?;
        }
        Ok(resources.get(0))
    }

    fn book(&mut self, host: &str, resources: &ResourceVector) -> Result<(), SchedulerError> {
        let consumer = self.next_consumer;
        self.next_consumer += 1;
        self.table.allocate(host, consumer, resources)?;
        self.live.push_back(consumer);
        Ok(())
    }
}

fn host(number: usize) -> HostInventory {
    let size = HOSTS[number % HOSTS.len()];
    let mut host = HostInventory::new(format!("compute-{number:07}"), format!("zone-{}", number % ZONES), size.into());
    host.ratio = Ratios::from([2.0, 1.0, 1.0]);
    host.reserved = [0, 512, 0].into();
    host.architectures = vec!["x86_64".to_owned()];
    host
}

/// A request for one instance; half of them name a zone.
fn request(rng: &mut SchedulerRng, alternates: u32) -> Request {
    let flavor = FLAVORS[rng.index(FLAVORS.len()).min(rng.index(FLAVORS.len()))];
    let request = Request::new(flavor.into()).alternates(alternates).on_architecture("x86_64");
    if rng.below(2) == 0 { request.in_zone(format!("zone-{}", rng.index(ZONES))) } else { request }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_sched::{SCHEDULERS, SchedulerOptions, by_name};

    #[test]
    fn a_fleet_stays_in_steady_state_under_every_algorithm() {
        for name in SCHEDULERS {
            let scheduler = by_name(name, &SchedulerOptions::default()).unwrap();
            let mut fleet = Fleet::new(100, &*scheduler, 2).unwrap();
            let before = fleet.instances();
            for _ in 0..2_000 {
                fleet.step(&*scheduler).unwrap();
            }
            assert_eq!(fleet.instances(), before);
            let view = fleet.table.hosts().map(|host| (host.used(0), host.capacity(0)));
            let (used, capacity) = view.fold((0, 0), |sum, host| (sum.0 + host.0, sum.1 + host.1));
            assert!((60..80).contains(&(used * 100 / capacity)), "{name}: {used} of {capacity}");
        }
    }
}
