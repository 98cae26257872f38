//! Follows the state of a replay over time: exact means and peaks, and samples.

use std::collections::HashMap;
use std::sync::Arc;

use nova_sched::HostTable;

use super::DIMENSIONS;
use super::fleet::Fleet;
use super::lower_bound::LowerBound;
use super::outcome::{Fragmentation, HostsUsed, Sample, Utilisation};
use super::trace::Shape;

/// Requests turned away and waiting, at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turned {
    /// Turned away so far.
    pub away: u64,
    /// Waiting now.
    pub waiting: u64,
}

/// The state now, and what is remembered of the past.
pub struct Meter {
    capacity: [u64; 3],
    used: [u64; 3],
    live: u64,
    /// Instances per host that has some; what is in use from the start counts as one.
    on_host: HashMap<Arc<str>, u64>,
    all_hosts: u64,
    bound: LowerBound,
    now_ms: u64,
    end_ms: u64,
    peak_used: [u64; 3],
    peak_live: u64,
    peak_hosts: u64,
    peak_bound: u64,
    /// Amount times milliseconds.
    used_sum: [u128; 3],
    hosts_sum: u128,
    bound_sum: u128,
    probe: [u64; 3],
    wanted_samples: u64,
    samples: Vec<Sample>,
}

impl Meter {
    /// Begins at 0 and measures to `end_ms`, with that many samples; `probe` is the commonest flavor.
    pub fn new(fleet: &Fleet, end_ms: u64, samples: u64, probe: [u64; 3]) -> Self {
        let in_use = |index| fleet.hosts.iter().map(|host| host.in_use.get(index)).fold(0, u64::saturating_add);
        let used_hosts = fleet.hosts.iter().filter(|host| !host.in_use.is_zero());
        let mut meter = Self {
            capacity: fleet.capacity(),
            used: std::array::from_fn(in_use),
            live: 0,
            on_host: used_hosts.map(|host| (Arc::from(host.inventory.name.as_str()), 1)).collect(),
            all_hosts: fleet.hosts.len() as u64,
            bound: LowerBound::new(fleet),
            now_ms: 0,
            end_ms,
            peak_used: [0; 3],
            peak_live: 0,
            peak_hosts: 0,
            peak_bound: 0,
            used_sum: [0; 3],
            hosts_sum: 0,
            bound_sum: 0,
            probe,
            wanted_samples: samples.max(2),
            samples: Vec::new(),
        };
        meter.note_peaks();
        meter
    }

    /// Goes on to a later moment: until then the state was as it is now.
    pub fn advance(&mut self, to_ms: u64, table: &HostTable, turned: Turned) {
        while let Some(at_ms) = self.next_sample_ms().filter(|at_ms| *at_ms < to_ms) {
            self.take_sample(at_ms, table, turned);
        }
        let length = u128::from(to_ms.min(self.end_ms).saturating_sub(self.now_ms));
        for (sum, used) in self.used_sum.iter_mut().zip(self.used) {
            *sum += u128::from(used) * length;
        }
        self.hosts_sum += self.on_host.len() as u128 * length;
        self.bound_sum += u128::from(self.bound.hosts()) * length;
        self.now_ms = self.now_ms.max(to_ms);
    }

    /// Goes to the end of the measured time and takes the samples that are missing.
    pub fn close(&mut self, table: &HostTable, turned: Turned) {
        self.advance(self.end_ms, table, turned);
        while let Some(at_ms) = self.next_sample_ms() {
            self.take_sample(at_ms, table, turned);
        }
    }

    /// Instances of that shape came to these hosts.
    pub fn placed(&mut self, shape: &Shape, hosts: &[Arc<str>]) {
        self.bound.add(shape.zone.as_deref(), &shape.resources, hosts.len() as u64);
        for host in hosts {
            *self.on_host.entry(Arc::clone(host)).or_insert(0) += 1;
            self.live += 1;
            for (used, amount) in self.used.iter_mut().zip(shape.resources) {
                *used = used.saturating_add(amount);
            }
        }
        self.note_peaks();
    }

    /// Instances of that shape left these hosts.
    pub fn gone(&mut self, shape: &Shape, hosts: &[Arc<str>]) {
        self.bound.remove(shape.zone.as_deref(), &shape.resources, hosts.len() as u64);
        for host in hosts {
            if let Some(instances) = self.on_host.get_mut(host) {
                *instances -= 1;
                if *instances == 0 {
                    self.on_host.remove(host);
                }
            }
            self.live = self.live.saturating_sub(1);
            for (used, amount) in self.used.iter_mut().zip(shape.resources) {
                *used = used.saturating_sub(amount);
            }
        }
    }

    /// How much of each resource is handed out, 0 to 1.
    pub fn shares(&self) -> [f64; 3] {
        std::array::from_fn(|index| share(self.used[index] as f64, self.capacity[index]))
    }

    /// The most instances alive at once.
    pub fn peak_live(&self) -> u64 {
        self.peak_live
    }

    /// The samples taken so far.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How much was handed out over the measured time.
    pub fn utilisation(&self) -> Vec<Utilisation> {
        let end = self.last().map_or([0.0; 3], |sample| sample.used);
        let of = |(index, resource): (usize, &&'static str)| Utilisation {
            resource,
            mean: if self.end_ms == 0 {
                end[index]
            } else {
                share(self.mean(self.used_sum[index]), self.capacity[index])
            },
            peak: share(self.peak_used[index] as f64, self.capacity[index]),
            end: end[index],
        };
        DIMENSIONS.iter().enumerate().map(of).collect()
    }

    /// How much of what was free could not be used.
    pub fn fragmentation(&self) -> Vec<Fragmentation> {
        let of = |(index, resource): (usize, &&'static str)| {
            let shares = self.samples.iter().map(|sample| sample.unusable[index]);
            Fragmentation {
                resource,
                mean: shares.clone().sum::<f64>() / self.samples.len().max(1) as f64,
                peak: shares.fold(0.0, f64::max),
                end: self.last().map_or(0.0, |sample| sample.unusable[index]),
                stranded_at_end: self.last().map_or(0, |sample| sample.stranded[index]),
            }
        };
        DIMENSIONS.iter().enumerate().map(of).collect()
    }

    /// How many hosts were in use.
    pub fn hosts(&self) -> HostsUsed {
        let (end, bound_end) = self.last().map_or((0, 0), |sample| (sample.hosts_used, sample.hosts_bound));
        let mean = |sum, end: u64| if self.end_ms == 0 { end as f64 } else { self.mean(sum) };
        HostsUsed {
            all: self.all_hosts,
            mean: mean(self.hosts_sum, end),
            bound_mean: mean(self.bound_sum, bound_end),
            peak: self.peak_hosts,
            bound_peak: self.peak_bound,
            end,
            bound_end,
        }
    }

    fn last(&self) -> Option<&Sample> {
        self.samples.last()
    }

    fn mean(&self, sum: u128) -> f64 {
        sum as f64 / self.end_ms.max(1) as f64
    }

    fn note_peaks(&mut self) {
        if self.now_ms > self.end_ms {
            return;
        }
        for (peak, used) in self.peak_used.iter_mut().zip(self.used) {
            *peak = used.max(*peak);
        }
        self.peak_live = self.peak_live.max(self.live);
        self.peak_hosts = self.peak_hosts.max(self.on_host.len() as u64);
        self.peak_bound = self.peak_bound.max(self.bound.hosts());
    }

    fn next_sample_ms(&self) -> Option<u64> {
        let (taken, wanted) = (self.samples.len() as u64, self.wanted_samples);
        let at_ms = u128::from(self.end_ms) * u128::from(taken) / u128::from(wanted - 1);
        (taken < wanted).then_some(at_ms as u64)
    }

    fn take_sample(&mut self, at_ms: u64, table: &HostTable, turned: Turned) {
        let free = Free::count(table, &self.probe);
        self.samples.push(Sample {
            time_s: at_ms as f64 / 1_000.0,
            live: self.live,
            used: self.shares(),
            unusable: std::array::from_fn(|index| share(free.unusable[index] as f64, free.all[index])),
            stranded: free.stranded,
            room: free.room,
            hosts_used: self.on_host.len() as u64,
            hosts_bound: self.bound.hosts(),
            rejected: turned.away,
            waiting: turned.waiting,
        });
    }
}

fn share(part: f64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part / whole as f64 }
}

/// What is free, and what of it is of no use to a flavor.
#[derive(Debug, Default, PartialEq, Eq)]
struct Free {
    all: [u64; 3],
    /// What is left when every host has taken as many as it can. Resources that the flavor doesn't need have no such part.
    unusable: [u64; 3],
    /// The part of it that is on hosts which can't take a single one.
    stranded: [u64; 3],
    room: u64,
}

impl Free {
    fn count(table: &HostTable, flavor: &[u64; 3]) -> Self {
        let mut free = Self::default();
        for host in table.hosts() {
            let here: [u64; 3] = std::array::from_fn(|index| host.free(index));
            let needed = || (0..3).filter(|index| flavor[*index] > 0);
            let fit = needed().map(|index| here[index] / flavor[index]).min().unwrap_or(0);
            free.room = free.room.saturating_add(fit);
            (0..3).for_each(|index| free.all[index] = free.all[index].saturating_add(here[index]));
            for index in needed() {
                let left = here[index] - fit * flavor[index];
                free.unusable[index] = free.unusable[index].saturating_add(left);
                if fit == 0 {
                    free.stranded[index] = free.stranded[index].saturating_add(left);
                }
            }
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::fleet;

    #[test]
    fn what_is_left_beside_the_flavor_is_unusable() {
        let fleet = fleet::parse(
            "fleet",
            "[DEFAULT]\ncpu_allocation_ratio = 1\nreserved_host_memory_mb = 0\n\
             [group a]\nhosts = 2\nvcpus = 10\nmemory_mb = 1000\ndisk_gb = 50\n",
        )
        .unwrap();
        let mut table = fleet.table().unwrap();
        table.allocate("a-1", 1, &[1, 900, 0].into()).unwrap();
        // a-1 has 9 cores and 100 MiB: room for none; a-2 has room for 3 (memory), which leaves 4 cores and 100 MiB.
        let free = Free::count(&table, &[2, 300, 0]);
        let expected = Free { all: [19, 1_100, 100], unusable: [13, 200, 0], stranded: [9, 100, 0], room: 3 };
        assert_eq!(free, expected);
        assert_eq!(Free::count(&table, &[0, 0, 0]).room, 0);
    }
}
