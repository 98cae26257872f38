//! A fleet of hosts in steady state: about 70 % full, each new instance followed by an old one's end.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;

use nova_sched::{
    Aggregate, CpuPolicy, Dimensions, GroupPolicy, GuestCell, HostAttributes, HostInventory, HostTable, NoValidHost,
    NumaCell, Ratios, Request, ResourceVector, Scheduler, SchedulerError, SchedulerOptions, SchedulerRng, Selection,
    ServerGroup,
};

/// How many zones the hosts are dealt to.
const ZONES: usize = 3;

/// How many instances per host come and go; they take about 5 % of it.
const LIVE_PER_HOST: usize = 2;

/// Requests that come again and again: few enough to stay in the processor's cache, as one that has just come in is.
const REQUESTS: usize = 512;

/// Groups of instances, and how many members of each are remembered.
const GROUPS: usize = 100;
const GROUP_MEMBERS: usize = 50;

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

/// Size of the huge pages that some hosts have.
const HUGE_PAGE_KB: u64 = 2_048;

/// What requests ask for beside resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Half of them a zone.
    Flavors,
    /// 64 classes: each flavor in no zone or one of three, with a trait that half of the hosts have or without.
    Classes,
    /// As `Classes`, and each in one of 100 groups whose members are to be on different hosts; half of them from an
    /// aggregate with fast disks, a quarter with CPUs of their own in one NUMA cell, half of those in huge pages. Two hosts
    /// of five have such CPUs and pages.
    Groups,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flavors => "flavors",
            Self::Classes => "classes",
            Self::Groups => "groups",
        })
    }
}

impl Mix {
    /// Options of a scheduler for such requests: beside the defaults, the filters that they need.
    #[must_use]
    pub fn options(self) -> SchedulerOptions {
        let mut options = SchedulerOptions::default();
        if self == Self::Groups {
            let filters = ["AggregateInstanceExtraSpecsFilter", "NUMATopologyFilter"];
            options.filter.enabled_filters.extend(filters.map(str::to_owned));
        }
        options
    }
}

/// A table, the instances on it by age, and the stream of requests.
pub struct Fleet {
    table: HostTable,
    requests: Vec<Request>,
    live: VecDeque<u128>,
    next_request: usize,
    rng: SchedulerRng,
    /// Members of groups, the newest last; empty unless the mix has groups.
    groups: Vec<VecDeque<u128>>,
}

impl Fleet {
    /// Builds a fleet of that many hosts, with the indexes that the scheduler wants, and fills it.
    ///
    /// # Errors
    ///
    /// When the scheduler finds no host before the fleet is as full as it should be.
    pub fn new(hosts: usize, scheduler: &dyn Scheduler, mix: Mix, alternates: u32) -> Result<Self, Box<dyn Error>> {
        Self::filled_by(scheduler, hosts, scheduler, mix, alternates)
    }

    /// The same, but another scheduler, `filler`, places what is there at the start.
    ///
    /// # Errors
    ///
    /// When that finds no host before the fleet is as full as it should be.
    pub fn filled_by(
        filler: &dyn Scheduler,
        hosts: usize,
        scheduler: &dyn Scheduler,
        mix: Mix,
        alternates: u32,
    ) -> Result<Self, Box<dyn Error>> {
        let mut rng = SchedulerRng::from_seed(0x5EED);
        let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb", "disk_gb"])?);
        scheduler.register(&mut table)?;
        for number in 0..hosts {
            let host = host(number);
            let amounts = permanent(&mut rng, &host);
            table.upsert_host(host)?;
            table.allocate(&format!("compute-{number:07}"), u128::from(rng.next_u64()) << 64, &amounts)?;
        }
        let aggregate = |number: usize| number.is_multiple_of(2).then(|| format!("compute-{number:07}"));
        table.set_aggregates([Aggregate {
            id: 1,
            name: "fast".to_owned(),
            metadata: [("disk".to_owned(), "nvme".to_owned())].into(),
            hosts: (0..hosts).filter_map(aggregate).collect(),
        }]);
        let groups = if mix == Mix::Groups { vec![VecDeque::new(); GROUPS] } else { Vec::new() };
        let requests = (0..REQUESTS).map(|_| request(&mut rng, mix).alternates(alternates)).collect();
        let mut fleet = Self { table, requests, live: VecDeque::new(), next_request: 0, rng, groups };
        for _ in 0..hosts * LIVE_PER_HOST {
            fleet.place_next(filler)?;
        }
        Ok(fleet)
    }

    /// How many instances live on the fleet.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.live.len()
    }

    /// One decision, booked; then an instance ends, the oldest or one of any age.
    ///
    /// # Errors
    ///
    /// When no host fits, or the one chosen doesn't.
    pub fn step(&mut self, scheduler: &dyn Scheduler) -> Result<(), Box<dyn Error>> {
        self.place_next(scheduler)?;
        let ending = match self.rng.below(2) {
            0 => self.live.pop_front(),
            _ => self.live.swap_remove_front(self.rng.index(self.live.len())),
        };
        if let Some(ending) = ending {
            self.table.release(ending);
        }
        Ok(())
    }

    /// Places the next request of the stream.
    fn place_next(&mut self, scheduler: &dyn Scheduler) -> Result<(), Box<dyn Error>> {
        let number = self.next_request;
        self.next_request = (number + 1) % self.requests.len();
        let group = number % GROUPS;
        if let Some(members) = self.groups.get(group) {
            let members = members.iter().copied().collect();
            self.requests[number].group = Some(ServerGroup::new(GroupPolicy::AntiAffinity, members));
        }
        let request = &self.requests[number];
        let chosen: Result<Vec<Selection>, NoValidHost> =
            scheduler.select_destinations(&self.table, request, &mut self.rng);
        let chosen = chosen?;
        let resources = request.resources;
        for selection in &chosen {
            let consumer = book(&mut self.table, &mut self.live, &mut self.rng, &selection.host, &resources)?;
            if !request.numa.is_empty() {
                self.table.claim_topology(&selection.host, consumer, &request.numa, &[])?;
            }
            if let Some(members) = self.groups.get_mut(group) {
                members.push_back(consumer);
                if members.len() > GROUP_MEMBERS {
                    members.pop_front();
                }
            }
        }
        Ok(())
    }
}

fn book(
    table: &mut HostTable,
    live: &mut VecDeque<u128>,
    rng: &mut SchedulerRng,
    host: &str,
    resources: &ResourceVector,
) -> Result<u128, SchedulerError> {
    let consumer = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    table.allocate(host, consumer, resources)?;
    live.push_back(consumer);
    Ok(consumer)
}

fn host(number: usize) -> HostInventory {
    let size = HOSTS[number % HOSTS.len()];
    let mut host = HostInventory::new(format!("compute-{number:07}"), format!("zone-{}", number % ZONES), size.into());
    host.ratio = Ratios::from([2.0, 1.0, 1.0]);
    host.reserved = [0, 512, 0].into();
    host.architectures = vec!["x86_64".to_owned()];
    if number % 4 < 2 {
        host.traits = vec!["ssd".to_owned()];
    }
    if number % 5 < 2 {
        host.attributes = HostAttributes { numa: cells(size), ..HostAttributes::default() }.into();
    }
    host
}

/// Two cells, with half of the CPUs and a quarter of the memory for guests that want them to themselves.
fn cells([cores, memory, _]: [u64; 3]) -> Vec<NumaCell> {
    let cell = |id| NumaCell {
        id,
        shared_cpus: cores as u32 / 4,
        dedicated_cpus: cores as u32 / 4,
        threads_per_core: 2,
        memory_mb: memory / 2,
        huge_pages: vec![(HUGE_PAGE_KB, memory / 8 * 1_024 / HUGE_PAGE_KB)],
    };
    vec![cell(0), cell(1)]
}

/// Instances that stay: between half and four fifths of the host, of each resource on its own.
fn permanent(rng: &mut SchedulerRng, host: &HostInventory) -> ResourceVector {
    let mut amounts = ResourceVector::default();
    for index in 0..3 {
        amounts.set(index, host.capacity(index) * (50 + rng.below(30)) / 100);
    }
    amounts
}

/// A request for one instance.
fn request(rng: &mut SchedulerRng, mix: Mix) -> Request {
    let flavor = FLAVORS[rng.index(FLAVORS.len()).min(rng.index(FLAVORS.len()))];
    let mut request = Request::new(flavor.into()).on_architecture("x86_64");
    if mix == Mix::Groups && rng.below(2) == 0 {
        request.extra_specs.insert("aggregate_instance_extra_specs:disk".to_owned(), "nvme".to_owned());
    }
    if rng.below(2) == 0 {
        request = request.in_zone(format!("zone-{}", rng.index(ZONES)));
    }
    if mix == Mix::Groups && rng.below(4) == 0 {
        let page_kb = (rng.below(2) == 0).then_some(HUGE_PAGE_KB);
        let (cpus, memory_mb) = (flavor[0] as u32, flavor[1]);
        request.numa = vec![GuestCell { cpus, memory_mb, cpu_policy: CpuPolicy::Dedicated, page_kb }];
    }
    if mix != Mix::Flavors && rng.below(2) == 0 {
        request.required_traits = vec!["ssd".to_owned()];
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_sched::{SCHEDULERS, by_name};

    #[test]
    fn a_fleet_stays_in_steady_state_under_every_algorithm() {
        for name in SCHEDULERS {
            let mix = if name == "filter" { Mix::Groups } else { Mix::Classes };
            let scheduler = by_name(name, &mix.options()).unwrap();
            let mut fleet = Fleet::new(200, &*scheduler, mix, 2).unwrap();
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
