//! The fewest hosts that could hold what is placed.

use std::collections::HashMap;

use super::DIMENSIONS;
use super::fleet::{Fleet, FleetHost};

/// Per resource: the sums of the largest capacities, one host, two hosts, and so on.
struct Sums([Vec<u64>; DIMENSIONS.len()]);

impl Sums {
    fn of<'a>(hosts: impl Iterator<Item = &'a FleetHost> + Clone) -> Self {
        Self(std::array::from_fn(|index| {
            let mut capacities: Vec<u64> = hosts.clone().map(|host| host.inventory.capacity(index)).collect();
            capacities.sort_unstable_by(|a, b| b.cmp(a));
            let sum = |sum: &mut u64, capacity: u64| {
                *sum = sum.saturating_add(capacity);
                Some(*sum)
            };
            capacities.into_iter().scan(0, sum).collect()
        }))
    }

    /// The fewest hosts whose capacities add up to that much of every resource.
    fn hosts(&self, demand: &[u64; 3]) -> u64 {
        let needed = |(sums, demand): (&Vec<u64>, &u64)| match demand {
            0 => 0,
            demand => (sums.partition_point(|sum| sum < demand) + 1).min(sums.len()),
        };
        self.0.iter().zip(demand).map(needed).max().unwrap_or(0) as u64
    }
}

/// Follows what is placed and knows the bound.
pub struct LowerBound {
    all: Sums,
    demand: [u64; 3],
    /// Per zone: what asks for that zone by name.
    zones: HashMap<String, (Sums, [u64; 3])>,
}

impl LowerBound {
    /// Of an empty fleet; what is in use from the start counts as placed.
    pub fn new(fleet: &Fleet) -> Self {
        let of_zone = |zone: &str| Sums::of(fleet.hosts.iter().filter(|host| host.inventory.zone == zone));
        let zones = fleet.zones().into_keys().map(|zone| (zone.to_owned(), (of_zone(zone), [0; 3]))).collect();
        let demand = std::array::from_fn(|index| {
            fleet.hosts.iter().map(|host| host.in_use.get(index)).fold(0, u64::saturating_add)
        });
        Self { all: Sums::of(fleet.hosts.iter()), demand, zones }
    }

    /// Counts instances that were placed.
    pub fn add(&mut self, zone: Option<&str>, resources: &[u64; 3], count: u64) {
        self.change(zone, |index, amount| amount.saturating_add(resources[index].saturating_mul(count)));
    }

    /// Counts instances that are gone.
    pub fn remove(&mut self, zone: Option<&str>, resources: &[u64; 3], count: u64) {
        self.change(zone, |index, amount| amount.saturating_sub(resources[index].saturating_mul(count)));
    }

    fn change(&mut self, zone: Option<&str>, new: impl Fn(usize, u64) -> u64) {
        let of_zone = zone.and_then(|zone| self.zones.get_mut(zone)).map(|(_, demand)| demand);
        for demand in [Some(&mut self.demand), of_zone].into_iter().flatten() {
            demand.iter_mut().enumerate().for_each(|(index, amount)| *amount = new(index, *amount));
        }
    }

    /// The bound.
    pub fn hosts(&self) -> u64 {
        let in_zones = self.zones.values().map(|(sums, demand)| sums.hosts(demand)).sum();
        self.all.hosts(&self.demand).max(in_zones)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::fleet;

    #[test]
    fn the_largest_hosts_are_filled_first_and_zones_count_on_their_own() {
        let fleet = fleet::parse(
            "fleet",
            "[DEFAULT]\ncpu_allocation_ratio = 1\nreserved_host_memory_mb = 0\n\
             [group large]\nvcpus = 16\nmemory_mb = 100\ndisk_gb = 10\navailability_zone = a\n\
             [group small]\nhosts = 3\nvcpus = 8\nmemory_mb = 200\ndisk_gb = 10\navailability_zone = b\n",
        )
        .unwrap();
        let mut bound = LowerBound::new(&fleet);
        assert_eq!(bound.hosts(), 0);
        bound.add(None, &[16, 0, 0], 1);
        assert_eq!(bound.hosts(), 1);
        bound.add(None, &[1, 0, 0], 1);
        assert_eq!(bound.hosts(), 2);
        bound.add(None, &[0, 401, 0], 1);
        assert_eq!(bound.hosts(), 3);
        bound.remove(None, &[0, 401, 0], 1);
        // 34 cores: 16 + 8 + 8 are not enough.
        bound.add(Some("b"), &[1, 0, 0], 17);
        assert_eq!(bound.hosts(), 4);
        bound.remove(None, &[17, 0, 0], 1);
        assert_eq!(bound.hosts(), 3);
        bound.add(Some("a"), &[1, 0, 0], 1); // three hosts in b and one in a
        assert_eq!(bound.hosts(), 4);
    }
}
